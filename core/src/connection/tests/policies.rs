//! What links are to be used for: backup, tiers, weights, caps, and links that come and go.

use core::num::NonZeroU8;

use super::*;
use crate::config::{LinkPolicy, Policy};
use crate::event::IdleReason;

/// Two links of 50 Mbit/s, the second with `policy`, and a transfer that never ends.
fn two_links(policy: impl Into<LinkPolicy>) -> (World, Transfer) {
    let mut world = World::new(&Config::default());
    world.add_link(0, 6_250_000, 10);
    world.add_link(1, 6_250_000, 10);
    world.ends[0].set_link_policy(world.now, LinkId(1), policy.into());
    let transfer = Transfer::start(&mut world, Class::Bulk, u64::MAX);
    (world, transfer)
}

fn data_bytes(world: &World, link: u32) -> u64 {
    world.ends[0].link(world.now, LinkId(link)).unwrap().stats.sent_data_bytes
}

fn idle(world: &World, link: u32) -> Option<IdleReason> {
    world.ends[0].link(world.now, LinkId(link)).unwrap().idle
}

#[test]
fn a_backup_link_carries_only_when_the_active_one_fails() {
    let (mut world, mut transfer) = two_links(Policy::Backup);
    world.run_for(MS * 100);
    transfer.run(&mut world, MS * 1000);
    assert_eq!(data_bytes(&world, 1), 0);
    assert_eq!(idle(&world, 1), Some(IdleReason::PolicyHere(Policy::Backup)));
    let there = world.ends[1].link(world.now, LinkId(1)).unwrap();
    assert_eq!(there.peer_policy, Policy::Backup.into());
    assert_eq!(there.idle, Some(IdleReason::PolicyOfPeer(Policy::Backup)));
    world.cut(0, true);
    let before = transfer.read;
    transfer.run(&mut world, MS * 1000);
    assert!(transfer.read - before > 4_000_000, "{}", transfer.read - before);
}

#[test]
fn what_a_late_link_holds_is_not_sent_again_while_the_other_is_in_reserve() {
    let (mut world, mut transfer) = two_links(Policy::Backup);
    transfer.run(&mut world, MS * 1000);
    for _ in 0..20 {
        world.pause(0, MS * 45);
        transfer.run(&mut world, MS * 200);
    }
    let late = world.ends[0].link(world.now, LinkId(0)).unwrap();
    assert_eq!((late.state, late.stats.suspects), (LinkState::Active, 0));
    assert_eq!(late.stats.reinjected_bytes, 0, "nobody else could have carried it");
}

#[test]
fn tiers_are_used_in_their_order() {
    let (mut world, mut transfer) = two_links(LinkPolicy { tier: 1, ..LinkPolicy::default() });
    world.add_link(2, 6_250_000, 10);
    world.ends[0].set_link_policy(world.now, LinkId(2), LinkPolicy { tier: 2, ..LinkPolicy::default() });
    transfer.run(&mut world, MS * 1000);
    assert_eq!([data_bytes(&world, 1), data_bytes(&world, 2)], [0, 0]);
    assert_eq!(idle(&world, 2), Some(IdleReason::Tier(2)));
    world.cut(0, true);
    transfer.run(&mut world, MS * 1000);
    assert!(data_bytes(&world, 1) > 4_000_000);
    assert_eq!(data_bytes(&world, 2), 0);
    world.cut(1, true);
    transfer.run(&mut world, MS * 1000);
    assert!(data_bytes(&world, 2) > 4_000_000);
}

#[test]
fn weights_of_three_to_one_give_three_quarters() {
    for (other_rate, other_delay) in [(6_250_000, 10), (6_250_000, 40), (25_000_000, 2)] {
        let mut world = World::new(&Config::default());
        world.add_link(0, 6_250_000, 10);
        world.add_link(1, other_rate, other_delay);
        let three = LinkPolicy { weight: NonZeroU8::new(3), ..LinkPolicy::default() };
        world.ends[0].set_link_policy(world.now, LinkId(0), three);
        let mut transfer = Transfer::start(&mut world, Class::Bulk, u64::MAX);
        transfer.run(&mut world, MS * 5000);
        let (three, one) = (data_bytes(&world, 0), data_bytes(&world, 1));
        let share = three * 1000 / (three + one);
        assert!((730..=770).contains(&share), "{share} of 1000 beside a link of {other_rate}");
        assert!(transfer.read > 5 * 6_250_000 * 9 / 10, "both links work: {} bytes", transfer.read);
    }
}

#[test]
fn a_weighted_bond_delivers_short_transfers_whole() {
    for bytes in [1, 100, 10_000, 300_000] {
        let mut world = World::new(&Config::default());
        world.add_link(0, 6_250_000, 10);
        world.add_link(1, 625_000, 30);
        let nine = LinkPolicy { weight: NonZeroU8::new(9), ..LinkPolicy::default() };
        world.ends[1].set_link_policy(world.now, LinkId(1), nine);
        let mut transfer = Transfer::start(&mut world, Class::Bulk, bytes);
        transfer.run(&mut world, MS * 2000);
        assert_eq!(transfer.read, bytes);
    }
}

#[test]
fn a_link_that_was_away_has_nothing_to_catch_up() {
    let three = LinkPolicy { weight: NonZeroU8::new(3), ..LinkPolicy::default() };
    let (mut world, mut transfer) = two_links(three);
    world.cut(1, true);
    transfer.run(&mut world, MS * 5000);
    world.cut(1, false);
    transfer.run(&mut world, MS * 3000);
    let before = [data_bytes(&world, 0), data_bytes(&world, 1)];
    transfer.run(&mut world, MS * 1000);
    let now = [data_bytes(&world, 0), data_bytes(&world, 1)];
    let share = (now[1] - before[1]) * 1000 / (now[0] - before[0] + now[1] - before[1]);
    assert!((700..=800).contains(&share), "{share} of 1000");
}

#[test]
fn a_cap_holds_at_both_ends_and_the_rest_goes_elsewhere() {
    let capped = LinkPolicy { cap_bytes_per_second: Some(1_000_000), ..LinkPolicy::default() };
    let (mut world, mut transfer) = two_links(capped);
    world.run_for(MS * 200);
    transfer.run(&mut world, MS * 1000);
    let sent =
        |world: &World, end: usize| world.ends[end].link(world.now, LinkId(1)).unwrap().stats.sent_bytes;
    let (before, read) = (sent(&world, 0), transfer.read);
    transfer.run(&mut world, MS * 10_000);
    let rate = (sent(&world, 0) - before) / 10;
    assert!((970_000..=1_030_000).contains(&rate), "{rate} bytes per second");
    let total = (transfer.read - read) / 10;
    assert!(total > 6_900_000, "{total} bytes per second over both");

    // The peer does the same in its direction, alone on the capped link.
    world.cut(0, true);
    let stream = world.ends[1].open_stream(Class::Bulk, 0, "").unwrap();
    let before = sent(&world, 1);
    for _ in 0..1000 {
        let _ = world.ends[1].write(stream, &[0; 50_000]);
        world.run_for(MS * 5);
        while let Ok(Some(_)) = world.ends[0].read_chunk(stream, 1 << 20) {}
    }
    let rate = (sent(&world, 1) - before) / 5;
    assert!((900_000..=1_030_000).contains(&rate), "{rate} bytes per second at the peer");
}

#[test]
fn an_idle_link_with_a_cap_sets_no_timer() {
    let capped = LinkPolicy { cap_bytes_per_second: Some(1000), ..LinkPolicy::default() };
    let mut world = World::new(&Config::default());
    world.add_link(0, 6_250_000, 10);
    world.ends[0].set_link_policy(world.now, LinkId(0), capped);
    let mut transfer = Transfer::start(&mut world, Class::Bulk, 3000);
    transfer.run(&mut world, MS * 10_000);
    assert_eq!(transfer.read, 3000);
    world.run_for(MS * 2000);
    let (at, reason) = world.ends[0].poll_timeout().unwrap();
    assert!(at - world.now > MS * 1000, "{reason:?} in {:?}", at - world.now);
}

#[test]
fn a_link_that_comes_and_goes_is_held_back() {
    let (mut world, mut transfer) = two_links(Policy::Active);
    transfer.run(&mut world, MS * 500);
    for round in 0..3 {
        world.cut(1, true);
        transfer.run(&mut world, MS * 400);
        assert_eq!(world.state(0, 1), LinkState::Suspect, "round {round}");
        world.cut(1, false);
        while world.state(0, 1) == LinkState::Suspect {
            transfer.run(&mut world, MS * 10);
        }
    }
    let before = data_bytes(&world, 1);
    assert!(
        matches!(idle(&world, 1), Some(IdleReason::Held(left)) if left <= MS * 2000),
        "{:?}",
        idle(&world, 1)
    );
    transfer.run(&mut world, MS * 1500);
    assert_eq!(data_bytes(&world, 1), before, "held back");
    transfer.run(&mut world, MS * 1500);
    assert!(data_bytes(&world, 1) > before + 1_000_000, "and then used again");

    // Alone it carries everything, held or not.
    for _ in 0..2 {
        world.cut(1, true);
        transfer.run(&mut world, MS * 400);
        world.cut(1, false);
        transfer.run(&mut world, MS * 400);
    }
    world.cut(0, true);
    let before = transfer.read;
    transfer.run(&mut world, MS * 1000);
    assert!(transfer.read - before > 4_000_000);
}

#[test]
fn a_link_can_have_a_keep_alive_of_its_own() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 1_000_000, 10);
    world.run_for(MS * 1000);
    assert!(world.ends[0].set_link_keep_alive(LinkId(0), Some(MS * 1000)));
    assert!(!world.ends[0].set_link_keep_alive(LinkId(7), None));
    let before = world.ends[0].link(world.now, LinkId(0)).unwrap().stats.probes;
    world.run_for(MS * 20_000);
    let probes = world.ends[0].link(world.now, LinkId(0)).unwrap().stats.probes - before;
    assert!((18..=20).contains(&probes), "{probes} probes in 20 s");
}
