//! Seeds in the simulator: none fails, and each goes the same way every time.
//!
//! A few run here, with every test run; `cargo xtask sim --seeds 10000` runs many.

use bondwire_sim::{Plan, World, run_many, run_seed};

/// Few enough for an unoptimized build.
const SEEDS: u64 = 24;

#[test]
fn no_seed_fails() {
    let (_, failures) = run_many(SEEDS, 0, 2);
    assert_eq!(failures, [], "replay one: cargo xtask sim --seeds 1 --seed N --trace");
}

/// Which link was to send the second copy of interactive data once changed with the time that passed, and nobody woke it.
#[test]
fn a_second_copy_wakes_the_link_that_is_to_send_it() {
    for seed in [4300, 4301, 4549, 6420] {
        assert_eq!(run_seed(seed).failure, None, "seed {seed}");
    }
}

/// A link that was full while interactive data kept windows short has room when that time is over, and nobody woke it for what
/// goes over every link.
#[test]
fn redundant_data_goes_on_when_windows_need_no_longer_be_short() {
    assert_eq!(run_seed(101_822).failure, None);
}

/// A link was woken for data, but its medium took no packet; what was written meanwhile was left to it, however long that took.
#[test]
fn small_writes_do_not_wait_for_a_link_that_cannot_take_them() {
    assert_eq!(run_seed(161_569).failure, None);
}

#[test]
fn a_seed_goes_the_same_way_twice() {
    for seed in 100..104 {
        assert_eq!(run_seed(seed), run_seed(seed));
    }
    assert_ne!(run_seed(100).hash, run_seed(101).hash);
}

#[test]
fn without_faults_all_work_is_done_soon() {
    for seed in 200..206 {
        let plan = Plan::new(seed).without_faults();
        let limit = plan.span * 4 + std::time::Duration::from_secs(5);
        let report = World::of(plan).run();
        assert_eq!(report.failure, None, "seed {seed}");
        assert!(report.virtual_time < limit, "seed {seed}: {:?} of {limit:?}", report.virtual_time);
    }
}
