//! Faults that the simulator found, each with the smallest world that shows it.

use bondwire_sim::{CablePlan, Cipher, Fault, FaultKind, Finale, Medium, Plan, Report, Way, World};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// A serial cable: no replacement is dialled, so a silent link stays until it answers or ends.
fn cable(appears: Duration) -> CablePlan {
    CablePlan {
        medium: Medium::Usb,
        rate_bytes_per_second: [1_000_000; 2],
        delay: MS,
        queue_bytes: 20_000,
        mtu_bytes: 2048,
        has_rate_hint: true,
        loss_permille: 0,
        appears,
    }
}

/// A world that is all fair but for these faults.
fn plan(seed: u64, cables: &[Duration], faults: &[(FaultKind, usize, u64, u64, u64)]) -> Plan {
    let fault = |&(kind, cable, at, lasts, amount): &(FaultKind, usize, u64, u64, u64)| Fault {
        kind,
        at: Duration::from_millis(at),
        lasts: Duration::from_millis(lasts),
        cable,
        way: Way::Both,
        amount,
    };
    Plan {
        cipher: Cipher::ChaCha,
        cables: cables.iter().map(|&appears| cable(appears)).collect(),
        faults: faults.iter().map(fault).collect(),
        receive_buffer_bytes: [4 << 20; 2],
        send_buffer_bytes: [4 << 20; 2],
        streams_max: [100; 2],
        timer_slack: [MS; 2],
        finale: Finale::Close(0),
        lingers: Duration::ZERO,
        span: MS * 1000,
        work_bytes: 1_000_000,
        ..Plan::new(seed)
    }
}

fn passes(plan: Plan) -> Report {
    let seed = plan.seed;
    let report = World::of(plan).run();
    assert_eq!(report.failure, None, "seed {seed}");
    report
}

/// The data of a suspect link moved to a second one; that died, and the suspect one carried data again as a last
/// resort. When a third link came, what the first held was taken for moved already and was never sent again.
#[test]
fn what_a_suspect_link_held_moves_to_every_next_link() {
    for seed in 0..40 {
        let appears = [Duration::ZERO, Duration::ZERO, MS * 700];
        let faults = [(FaultKind::Stall, 0, 100, 5000, 1), (FaultKind::Detach, 1, 300, 6000, 0)];
        passes(plan(seed, &appears, &faults));
    }
}

/// Data on a suspect link had nowhere to go while the only other link was paused, and stayed there when that link
/// was set to active.
#[test]
fn what_a_suspect_link_held_moves_to_a_link_that_is_no_longer_paused() {
    for seed in 0..40 {
        let faults = [(FaultKind::Policy, 1, 50, 800, (seed % 2) | 2), (FaultKind::Stall, 0, 100, 60_000, 1)];
        let report = passes(plan(seed, &[Duration::ZERO; 2], &faults));
        assert!(report.virtual_time < MS * 55_000, "seed {seed}: the work waited for the stalled link");
    }
}

/// A link became active again, and then acknowledgements came for packets from before: the new rate estimator took
/// them for its own and subtracted more than it had.
#[test]
fn packets_from_before_a_suspicion_give_no_rate() {
    for seed in 0..40 {
        let stalls = [0, 1, 2, 3].map(|n| (FaultKind::Stall, 0, 100 + 400 * n, 200, 0));
        let report = passes(plan(seed, &[Duration::ZERO], &stalls));
        assert!(report.faults.contains_key(&FaultKind::Stall));
    }
}

/// The host was so late that the silence had lasted long enough when the first probe fell due: a deadline remained
/// after the time-out was handled.
#[test]
fn silence_that_lasted_long_enough_at_the_first_probe_leaves_no_deadline() {
    for seed in 0..40 {
        let jumps = [0, 1, 2].map(|n| (FaultKind::ClockJump, 0, 120 + 300 * n, 40, n % 2));
        passes(plan(
            seed,
            &[Duration::ZERO; 2],
            &[&jumps[..], &[(FaultKind::Stall, 1, 100, 3000, 1)]].concat(),
        ));
    }
}

/// Each link asked which one delivers a packet of its own size first. Where packets differ in size, every link could
/// take another for the first, and interactive data stayed for ever. These seeds showed it.
#[test]
fn links_with_packets_of_different_sizes_agree_on_the_first() {
    for seed in [3943, 4630] {
        passes(Plan::new(seed));
    }
}

/// A host stood still, so the rate of its link seemed tiny; the silence allowed for what was in flight was minutes, and
/// a dead link kept its data for as long.
#[test]
fn a_dead_link_is_suspect_soon_even_with_a_tiny_rate() {
    passes(Plan::new(10_317));
}
