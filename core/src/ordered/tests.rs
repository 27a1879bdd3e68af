//! Order over several links, turns, bounds.

use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Ordered, OrderedFragment, SendOrderedError, TakeOrdered};
use crate::limits::{
    ORDERED_AGE_MAX, ORDERED_HOLD_BYTES, ORDERED_HOLD_TIME, ORDERED_MAX_BYTES, ORDERED_QUEUE_MIN_BYTES,
    ORDERED_UNREAD_BYTES,
};
use crate::time::{Duration, Instant};
use crate::wire::varint::VARINT_MAX;

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

/// A datagram that says what it is.
fn data(number: u64, len: usize) -> Bytes {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(len.max(8), 0);
    bytes.into()
}

fn take(ordered: &mut Ordered, ahead: u64, max_bytes: usize) -> Option<OrderedFragment> {
    ordered.take(TakeOrdered { fresh: true, ahead: Some(ahead), max_bytes, may_split: true })
}

/// One from behind, as a slower link takes it.
fn take_ahead(ordered: &mut Ordered, ahead: u64) -> Option<OrderedFragment> {
    ordered.take(TakeOrdered { fresh: false, ahead: Some(ahead), max_bytes: 2000, may_split: true })
}

fn received(ordered: &mut Ordered) -> Vec<u64> {
    let number = |data: Bytes| u64::from_be_bytes(data[..8].try_into().unwrap());
    core::iter::from_fn(|| ordered.receive()).map(number).collect()
}

fn sender(datagrams: u64, len: usize) -> Ordered {
    let mut ordered = Ordered::new();
    ordered.set_queue_bytes(1 << 20);
    (0..datagrams).for_each(|number| ordered.send(at(0), 100, data(number, len)).unwrap());
    ordered
}

#[test]
fn what_comes_early_waits_for_what_is_before_it() {
    let (mut near, mut far) = (sender(20, 1000), Ordered::new());
    let first = take(&mut near, 0, 2000).unwrap();
    let second = take(&mut near, 0, 2000).unwrap();
    far.on_fragment(at(0), second);
    let behind = take_ahead(&mut near, 8 * 1128).unwrap();
    assert_eq!((first.number, behind.number), (0, 10), "the slower link takes one that is eight behind");
    far.on_fragment(at(1), behind);
    assert!(!far.poll_readable());
    far.on_fragment(at(2), first);
    assert!(far.poll_readable());
    assert_eq!(received(&mut far), [0, 1]);
    while let Some(next) = take(&mut near, 0, 2000) {
        far.on_fragment(at(3), next);
    }
    assert_eq!(received(&mut far), (2..20).collect::<Vec<_>>());
    assert!(near.is_all_sent());
    assert_eq!((far.stats().held, far.stats().missed, far.deadline()), (2, 0, None));
}

#[test]
fn what_is_missing_is_not_waited_for_longer_than_it_is_worth() {
    let (mut near, mut far) = (sender(6, 1000), Ordered::new());
    let all: Vec<_> = core::iter::from_fn(|| take(&mut near, 0, 2000)).collect();
    for number in [0, 2, 5] {
        far.on_fragment(at(number), all[number as usize].clone());
    }
    assert_eq!(received(&mut far), [0]);
    assert_eq!(far.deadline(), Some(at(2) + ORDERED_HOLD_TIME));
    far.handle_timeout(at(2) + ORDERED_HOLD_TIME);
    assert_eq!(received(&mut far), [2]);
    assert_eq!(far.deadline(), Some(at(5) + ORDERED_HOLD_TIME), "the second gap has its own time");
    far.on_fragment(at(103), all[1].clone());
    assert_eq!(received(&mut far), [1], "late is better than never");
    far.handle_timeout(at(5) + ORDERED_HOLD_TIME);
    assert_eq!(received(&mut far), [5]);
    assert_eq!((far.stats().missed, far.stats().late), (3, 1));
}

#[test]
fn flows_wait_for_themselves_only() {
    let (mut near, mut far) = (sender(2, 1000), Ordered::new());
    near.send(at(0), 3, data(77, 60)).unwrap();
    let _lost = take(&mut near, 0, 2000).unwrap();
    while let Some(next) = take(&mut near, 0, 2000) {
        far.on_fragment(at(0), next);
    }
    assert_eq!(received(&mut far), [77]);
}

#[test]
fn a_flow_that_waits_for_nothing_goes_first_and_others_take_turns() {
    let mut near = sender(100, 1400);
    (100..200).for_each(|number| near.send(at(0), 101, data(number, 1400)).unwrap());
    for _ in 0..10 {
        take(&mut near, 0, 2000).unwrap();
    }
    assert_eq!(near.next_fresh_bytes(), None);
    near.send(at(0), 5, data(999, 60)).unwrap();
    assert_eq!(near.next_fresh_bytes(), Some(60));
    assert_eq!(take(&mut near, 0, 2000).unwrap().flow, 5);
    let flows: Vec<u8> = (0..40).map(|_| take(&mut near, 0, 2000).unwrap().flow).collect();
    let share = flows.iter().filter(|flow| **flow == 100).count();
    assert!((16..=24).contains(&share), "{share} of 40");
}

#[test]
fn a_flow_that_always_has_something_is_not_fresh_again() {
    let mut near = sender(4, 100);
    for number in 4..50 {
        take(&mut near, 0, 2000).unwrap();
        near.send(at(0), 100, data(number, 100)).unwrap();
    }
    assert_eq!(near.next_fresh_bytes(), None);
}

#[test]
fn what_waits_is_bounded_and_the_longest_flow_pays() {
    let mut near = Ordered::new();
    (0..100).for_each(|number| near.send(at(0), 100, data(number, 1000)).unwrap());
    let fit = (ORDERED_QUEUE_MIN_BYTES / 1128) as u64;
    assert_eq!(near.stats().dropped_queue_full, 100 - fit);
    near.send(at(0), 7, data(500, 1000)).unwrap();
    assert_eq!(near.stats().dropped_queue_full, 101 - fit);
    let numbers: Vec<_> =
        core::iter::from_fn(|| take(&mut near, 0, 2000)).map(|f| (f.flow, f.number)).collect();
    assert!(numbers.contains(&(7, 0)), "{numbers:?}");
    // No number is missing, so nobody waits for one.
    near.send(at(0), 100, data(1, 1000)).unwrap();
    assert_eq!(take(&mut near, 0, 2000).unwrap().number, fit - 1);
    let len = ORDERED_MAX_BYTES + 1;
    assert_eq!(near.send(at(0), 0, data(0, len)), Err(SendOrderedError::TooLarge { len }));
    near.send(at(0), 0, data(0, ORDERED_MAX_BYTES)).unwrap();
    assert!(take(&mut near, 0, 70_000).is_some(), "one is taken, however large");
}

#[test]
fn what_is_too_old_is_dropped() {
    let mut near = sender(3, 1000);
    assert_eq!(near.deadline(), Some(at(0) + ORDERED_AGE_MAX));
    near.send(at(10), 100, data(3, 1000)).unwrap();
    near.handle_timeout(at(0) + ORDERED_AGE_MAX);
    assert_eq!(near.stats().dropped_too_old, 3);
    assert_eq!(near.deadline(), Some(at(10) + ORDERED_AGE_MAX));
    near.handle_timeout(at(10) + ORDERED_AGE_MAX);
    assert!(near.is_all_sent());
    assert_eq!((near.deadline(), near.next_fresh_bytes(), near.backlog()), (None, None, 0));
}

#[test]
fn fragments_come_together_and_old_ones_go() {
    let (mut near, mut far) = (sender(1, 5000), Ordered::new());
    let mut fragments: Vec<_> = core::iter::from_fn(|| take(&mut near, 0, 600)).collect();
    assert!(fragments.len() > 8);
    let last = fragments.pop().unwrap();
    for (ms, fragment) in fragments.into_iter().enumerate() {
        far.on_fragment(at(1000 * ms as u64), fragment);
    }
    let contradicting = OrderedFragment { total: 6000, ..last.clone() };
    far.on_fragment(at(8000), contradicting);
    assert_eq!(far.stats().contradicting_fragments, 1);
    far.on_fragment(at(8000), last.clone());
    assert_eq!(received(&mut far), [0], "a slow line is slow");
    far.on_fragment(at(8000), OrderedFragment { number: 1, ..last });
    assert_eq!(far.deadline(), Some(at(8000) + ORDERED_AGE_MAX));
    far.handle_timeout(at(8000) + ORDERED_AGE_MAX);
    assert_eq!((far.stats().incomplete, far.deadline()), (1, None));
}

#[test]
fn a_peer_cannot_fill_the_memory() {
    let mut far = Ordered::new();
    for number in 0..10_000_u64 {
        let bytes = data(number, 1000);
        let whole = OrderedFragment {
            flow: (number % 256) as u8,
            number: 1 + number,
            offset: 0,
            total: 1000,
            data: bytes,
        };
        far.on_fragment(at(0), whole);
    }
    let ready = received(&mut far).len() + far.stats().dropped_unread as usize;
    assert!(10_000 - ready <= ORDERED_HOLD_BYTES / 1128, "{ready} of 10000 were handed on");
    far.handle_timeout(at(1000));
    for number in 20_000..30_000_u64 {
        let whole = OrderedFragment { flow: 0, number, offset: 0, total: 1000, data: data(number, 1000) };
        far.on_fragment(at(1000), whole);
    }
    far.handle_timeout(at(2000));
    assert!(received(&mut far).len() <= ORDERED_UNREAD_BYTES / 1128);
    assert!(far.stats().dropped_unread > 0);
}

#[test]
fn a_peer_that_contradicts_itself_harms_nobody() {
    let mut far = Ordered::new();
    let whole = |flow: u8, number: u64, len: usize| OrderedFragment {
        flow,
        number,
        offset: 0,
        total: len,
        data: data(number, len),
    };
    for len in [8, 60_000, 9] {
        far.on_fragment(at(0), whole(0, 1, len));
    }
    assert_eq!(far.stats().held, 1);
    for flow in 1..=255 {
        far.on_fragment(at(0), whole(flow, VARINT_MAX, 8));
    }
    far.handle_timeout(at(0) + ORDERED_HOLD_TIME);
    assert_eq!(received(&mut far).len(), 256);
    assert_eq!((far.deadline(), far.stats().missed), (None, u64::MAX));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 64 } else { 256 }))]

    /// Whatever comes in whatever order, by whichever link: nothing twice, and each flow in order if nothing was lost and nothing late.
    #[test]
    fn flows_keep_their_order(
        sends in proptest::collection::vec((0_u8..4, 8_usize..3000), 1..60),
        links in proptest::collection::vec((any::<bool>(), 0_u64..100_000, 300_usize..4000), 1..400),
        delays in proptest::collection::vec(0_u64..40, 400),
    ) {
        let (mut near, mut far) = (Ordered::new(), Ordered::new());
        near.set_queue_bytes(1 << 22);
        for (number, (flow, len)) in sends.iter().enumerate() {
            near.send(at(0), *flow, data((u64::from(*flow) << 32) | number as u64, *len)).unwrap();
        }
        let mut under_way = Vec::new();
        let mut moves = links.iter().cycle();
        while !near.is_all_sent() {
            let Some(&(fresh, ahead, max_bytes)) = moves.next() else { break };
            let take = TakeOrdered { fresh, ahead: Some(ahead), max_bytes, may_split: true };
            let only_fresh = TakeOrdered { fresh: true, ..take };
            let Some(fragment) = near.take(take).or_else(|| near.take(only_fresh)) else { continue };
            under_way.push((delays[under_way.len() % delays.len()], fragment));
        }
        under_way.sort_by_key(|(delay, _)| *delay);
        for (delay, fragment) in under_way {
            far.on_fragment(at(delay), fragment);
        }
        let all = received(&mut far);
        prop_assert_eq!(all.len(), sends.len());
        for flow in 0..4 {
            let of_flow: Vec<_> = all.iter().filter(|number| *number >> 32 == flow).collect();
            prop_assert!(of_flow.is_sorted(), "{:?}", of_flow);
        }
        prop_assert_eq!(far.deadline(), None);
    }
}
