//! Bounds, fragments, flows and links.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Datagrams, Fragment, SendDatagramError, TakeDatagram};
use crate::id::LinkId;
use crate::limits::{
    DATAGRAM_AGE_MAX, DATAGRAM_FLOWS_MAX, DATAGRAM_MAX_BYTES, DATAGRAM_QUEUE_BYTES, DATAGRAM_REASSEMBLY_BYTES,
};
use crate::time::{Duration, Instant};
use crate::wire::packet::Packet;

const A: LinkId = LinkId(0);
const B: LinkId = LinkId(1);

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn take(datagrams: &mut Datagrams, link: LinkId, max_bytes: usize) -> Option<Fragment> {
    datagrams.take(at(0), TakeDatagram { link, takes_new_flows: true, max_bytes, may_split: true })
}

fn arrive(datagrams: &mut Datagrams, now: Instant, fragment: Fragment) {
    let Fragment { flow, sequence, offset, total, data } = fragment;
    datagrams.on_fragment(now, flow, sequence, offset, total, data);
}

fn received(datagrams: &mut Datagrams) -> Vec<(u64, Bytes)> {
    core::iter::from_fn(|| datagrams.receive()).collect()
}

fn bytes(len: usize) -> Bytes {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[test]
fn a_datagram_goes_whole_where_it_fits() {
    let mut datagrams = Datagrams::new();
    for data in [bytes(0), bytes(1), bytes(1000)] {
        datagrams.send(at(0), 7, data).unwrap();
    }
    assert!(datagrams.has_work(A, true) && !datagrams.has_work(A, false));
    assert_eq!(datagrams.next_bytes(), 0);
    let mut other = Datagrams::new();
    assert!(!other.poll_readable());
    for len in [0, 1, 1000] {
        let fragment = take(&mut datagrams, A, 1200).unwrap();
        assert_eq!((fragment.offset, fragment.total, fragment.data.len()), (0, len, len));
        arrive(&mut other, at(0), fragment);
    }
    assert_eq!(take(&mut datagrams, A, 1200), None);
    assert!(other.poll_readable() && !other.poll_readable());
    assert_eq!(received(&mut other), [(7, bytes(0)), (7, bytes(1)), (7, bytes(1000))]);
    assert!(!other.poll_readable());
}

#[test]
fn impossible_datagrams_are_refused() {
    let mut datagrams = Datagrams::new();
    let len = DATAGRAM_MAX_BYTES + 1;
    assert_eq!(datagrams.send(at(0), 0, bytes(len)), Err(SendDatagramError::TooLarge { len }));
    let flow = 1 << 62;
    assert_eq!(datagrams.send(at(0), flow, bytes(1)), Err(SendDatagramError::Flow { flow }));
    assert!(datagrams.send(at(0), flow - 1, bytes(DATAGRAM_MAX_BYTES)).is_ok());
}

#[test]
fn a_fragment_fits_the_packet_it_was_taken_for() {
    for room in 10..300 {
        let mut datagrams = Datagrams::new();
        datagrams.send(at(0), 1 << 40, bytes(250)).unwrap();
        let mut packet = Packet::new();
        packet.begin(A, 0, 0, None, 300);
        let room = room.min(packet.remaining());
        let Some(fragment) = take(&mut datagrams, A, room) else { continue };
        let before = packet.remaining();
        let Fragment { flow, sequence, offset, total, data } = fragment;
        assert!(packet.push_datagram(flow, sequence, offset, total, data));
        assert!(before - packet.remaining() <= room);
    }
}

#[test]
fn a_large_datagram_is_cut_only_where_it_must_be() {
    let mut datagrams = Datagrams::new();
    datagrams.send(at(0), 0, bytes(3000)).unwrap();
    let whole_only = TakeDatagram { link: A, takes_new_flows: true, max_bytes: 1200, may_split: false };
    assert_eq!(datagrams.take(at(0), whole_only), None);
    let fragments: Vec<Fragment> = core::iter::from_fn(|| take(&mut datagrams, A, 1200)).collect();
    assert_eq!(fragments.len(), 3);
    let mut other = Datagrams::new();
    for index in [2, 0, 0, 2, 1, 1] {
        arrive(&mut other, at(0), fragments[index].clone());
    }
    assert_eq!(received(&mut other), [(0, bytes(3000))]);
    assert_eq!(other.stats().duplicate_fragments, 3);
    assert_eq!(other.deadline(), None);
}

#[test]
fn a_flow_stays_on_its_link_while_that_is_usable() {
    let mut datagrams = Datagrams::new();
    for n in 0..4 {
        datagrams.send(at(0), n % 2, bytes(n as usize)).unwrap();
    }
    assert_eq!(take(&mut datagrams, A, 1200).unwrap().flow, 0);
    assert_eq!(take(&mut datagrams, B, 1200).unwrap().flow, 1);
    assert_eq!(take(&mut datagrams, A, 1200).unwrap().flow, 0);
    assert_eq!(take(&mut datagrams, A, 1200), None);
    // An idle flow keeps its link.
    datagrams.send(at(0), 0, bytes(9)).unwrap();
    assert_eq!(take(&mut datagrams, B, 1200).unwrap().flow, 1);
    assert_eq!(take(&mut datagrams, B, 1200), None);
    assert!(!datagrams.has_work(B, true) && datagrams.has_work(A, false));
    datagrams.link_unusable(A);
    assert!(!datagrams.has_work(B, false) && datagrams.has_work(B, true));
    assert_eq!(datagrams.next_bytes(), 9);
    assert_eq!(take(&mut datagrams, B, 1200).unwrap().flow, 0);
}

#[test]
fn a_datagram_cut_by_the_end_of_its_link_goes_on_elsewhere() {
    let mut datagrams = Datagrams::new();
    let mut other = Datagrams::new();
    datagrams.send(at(0), 0, bytes(2000)).unwrap();
    arrive(&mut other, at(0), take(&mut datagrams, A, 1200).unwrap());
    datagrams.link_unusable(A);
    arrive(&mut other, at(0), take(&mut datagrams, B, 1200).unwrap());
    assert_eq!(received(&mut other), [(0, bytes(2000))]);
}

#[test]
fn flows_take_turns() {
    let mut datagrams = Datagrams::new();
    for n in 0..9 {
        datagrams.send(at(0), n / 3, bytes(1)).unwrap();
    }
    let flows: Vec<u64> = core::iter::from_fn(|| take(&mut datagrams, A, 1200)).map(|f| f.flow).collect();
    assert_eq!(flows, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn old_datagrams_are_dropped() {
    let mut datagrams = Datagrams::new();
    datagrams.send(at(0), 0, bytes(10)).unwrap();
    datagrams.send(at(5), 0, bytes(20)).unwrap();
    let age = DATAGRAM_AGE_MAX;
    assert_eq!(datagrams.deadline(), Some(at(0) + age));
    datagrams.handle_timeout(at(0) + age);
    assert_eq!(datagrams.deadline(), Some(at(5) + age));
    assert_eq!(take(&mut datagrams, A, 1200).unwrap().total, 20);
    assert_eq!((datagrams.deadline(), datagrams.stats().dropped_too_old), (None, 1));
    // Incomplete ones too; a late rest does not start them anew.
    datagrams.on_fragment(at(10), 0, 0, 0, 100, bytes(50));
    assert_eq!(datagrams.deadline(), Some(at(10) + age));
    datagrams.handle_timeout(at(10) + age);
    datagrams.on_fragment(at(300), 0, 0, 50, 100, bytes(50));
    assert_eq!((datagrams.deadline(), datagrams.stats().incomplete), (None, 1));
}

#[test]
fn the_oldest_go_first_when_the_queue_is_full() {
    let mut datagrams = Datagrams::new();
    for flow in 0..3000 {
        datagrams.send(at(0), flow % 7, bytes(1000)).unwrap();
    }
    let left: Vec<u64> = core::iter::from_fn(|| take(&mut datagrams, A, 1200)).map(|f| f.sequence).collect();
    assert!(left.len() * 1000 <= DATAGRAM_QUEUE_BYTES && left.len() * 1200 > DATAGRAM_QUEUE_BYTES);
    assert_eq!(datagrams.stats().dropped_queue_full, 3000 - left.len() as u64);
    assert!(left.iter().all(|sequence| *sequence >= 3000 - left.len() as u64));
}

#[test]
fn unread_datagrams_are_bounded() {
    let mut datagrams = Datagrams::new();
    for sequence in 0..20_000 {
        datagrams.on_fragment(at(0), 0, sequence, 0, 0, Bytes::new());
    }
    let left = received(&mut datagrams).len();
    assert!(left * 128 <= DATAGRAM_QUEUE_BYTES && left > 1000, "{left}");
    assert_eq!(datagrams.stats().dropped_unread, 20_000 - left as u64);
}

#[test]
fn reassembly_is_bounded_and_the_oldest_goes_first() {
    let mut datagrams = Datagrams::new();
    let held = DATAGRAM_REASSEMBLY_BYTES / (DATAGRAM_MAX_BYTES + 128);
    for sequence in 0..10 {
        datagrams.on_fragment(at(0), 0, sequence, 0, DATAGRAM_MAX_BYTES, bytes(1));
    }
    assert_eq!(datagrams.stats().incomplete, 10 - held as u64);
    let rest = bytes(DATAGRAM_MAX_BYTES).slice(1..);
    datagrams.on_fragment(at(0), 0, 9, 1, DATAGRAM_MAX_BYTES, rest.clone());
    datagrams.on_fragment(at(0), 0, 0, 1, DATAGRAM_MAX_BYTES, rest);
    assert_eq!(received(&mut datagrams), [(0, bytes(DATAGRAM_MAX_BYTES))]);
}

#[test]
fn contradicting_fragments_are_dropped() {
    let mut datagrams = Datagrams::new();
    datagrams.on_fragment(at(0), 0, 0, 0, 100, bytes(50));
    for (flow, offset, total, len) in [
        (1, 50, 100, 50),
        (0, 50, 101, 50),
        (0, 51, 100, 50),
        (0, 0, 50, 50),
        (0, 50, 100, 0),
        (0, usize::MAX, 100, 9),
    ] {
        datagrams.on_fragment(at(0), flow, 0, offset, total, bytes(len));
    }
    datagrams.on_fragment(at(0), 0, 1, 0, DATAGRAM_MAX_BYTES + 1, bytes(9));
    assert_eq!(datagrams.stats().contradicting_fragments, 7);
    assert_eq!(datagrams.receive(), None);
    datagrams.on_fragment(at(0), 0, 0, 50, 100, bytes(100).slice(50..));
    assert_eq!(received(&mut datagrams), [(0, bytes(100))]);
}

#[test]
fn the_memory_of_flows_is_bounded_and_keeps_the_newest() {
    let mut datagrams = Datagrams::new();
    for flow in 0..3 * DATAGRAM_FLOWS_MAX as u64 {
        // Flow 0 is used all the time and must keep its link.
        for flow in [0, flow] {
            datagrams.send(at(0), flow, bytes(1)).unwrap();
            assert!(take(&mut datagrams, A, 100).is_some());
        }
        assert!(!datagrams.has_work(A, true));
    }
    assert_eq!(datagrams.send.flows(), DATAGRAM_FLOWS_MAX);
    datagrams.send(at(0), 0, bytes(1)).unwrap();
    assert_eq!(take(&mut datagrams, B, 100), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn what_arrives_whole_is_what_was_sent(
        lens in prop::collection::vec((0..4_u64, 0..5000_usize), 1..20),
        rooms in prop::collection::vec(60..1500_usize, 1..8),
        lost in prop::collection::vec(any::<bool>(), 200),
        swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..30),
    ) {
        let mut from = Datagrams::new();
        for (flow, len) in &lens {
            from.send(at(0), *flow, bytes(*len)).unwrap();
        }
        let mut fragments = Vec::new();
        for room in rooms.iter().cycle() {
            match take(&mut from, if room % 2 == 0 { A } else { B }, *room) {
                Some(fragment) => fragments.push(fragment),
                None if from.deadline().is_none() => break,
                None => {}
            }
        }
        let mut complete = vec![true; lens.len()];
        let mut delivered = Vec::new();
        for (fragment, lost) in fragments.into_iter().zip(lost.into_iter().chain(core::iter::repeat(false))) {
            if lost && fragment.sequence % 3 == 0 {
                complete[fragment.sequence as usize] = false;
            } else {
                delivered.push(fragment);
            }
        }
        for (a, b) in swaps {
            let (a, b) = (a.index(delivered.len().max(1)), b.index(delivered.len().max(1)));
            if !delivered.is_empty() {
                delivered.swap(a, b);
            }
        }
        let mut to = Datagrams::new();
        for fragment in delivered {
            arrive(&mut to, at(1), fragment.clone());
            arrive(&mut to, at(1), fragment);
        }
        let mut got: Vec<(u64, usize)> =
            received(&mut to).into_iter().map(|(flow, data)| {
                assert_eq!(data, bytes(data.len()));
                (flow, data.len())
            }).collect();
        let mut wanted: Vec<(u64, usize)> =
            lens.into_iter().zip(complete).filter(|(_, complete)| *complete).map(|(sent, _)| sent).collect();
        got.sort_unstable();
        wanted.sort_unstable();
        prop_assert_eq!(got, wanted);
    }
}
