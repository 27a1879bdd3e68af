//! The send buffer against a model that keeps the state of every place on its own.

use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;
use proptest::prelude::*;

use super::{contents, join};
use crate::streams::Pieces;
use crate::streams::send_buffer::{COPY_BELOW_BYTES, SendBuffer, outside};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Unsent,
    InFlight,
    Acked,
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    Push(usize),
    Send { skip: usize, max: usize },
    Ack(prop::sample::Index),
    Lose(prop::sample::Index),
    GiveUp(prop::sample::Index),
    Finish,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..1500_usize).prop_map(Step::Write),
        (0..1500_usize).prop_map(Step::Push),
        (1..4_usize).prop_map(Step::Write),
        (0..1000_usize, 1..2000_usize).prop_map(|(skip, max)| Step::Send { skip, max }),
        (0..10_usize, 1..2000_usize).prop_map(|(skip, max)| Step::Send { skip, max }),
        any::<prop::sample::Index>().prop_map(Step::Ack),
        any::<prop::sample::Index>().prop_map(Step::Lose),
        any::<prop::sample::Index>().prop_map(Step::GiveUp),
        Just(Step::Finish),
    ]
}

#[derive(Default)]
struct Model {
    buffer: SendBuffer,
    places: Vec<Place>,
    sent: Vec<Range<u64>>,
    finished: bool,
}

impl Model {
    fn end(&self) -> u64 {
        self.places.len() as u64 - u64::from(self.finished)
    }

    fn apply(&mut self, step: Step) {
        let end = self.end();
        match step {
            Step::Write(len) if !self.finished => {
                let range = self.buffer.write(&contents(0, end..end + len as u64));
                assert_eq!(range, end..end + len as u64);
                self.places.resize(range.end as usize, Place::Unsent);
            }
            Step::Push(len) if !self.finished => {
                let range = self.buffer.push(Bytes::from(contents(0, end..end + len as u64)));
                assert_eq!(range, end..end + len as u64);
                self.places.resize(range.end as usize, Place::Unsent);
            }
            Step::Finish if !self.finished => {
                assert_eq!(self.buffer.finish(), end..end + 1);
                self.places.push(Place::Unsent);
                self.finished = true;
            }
            Step::Send { skip, max } => self.send(skip, max),
            Step::Ack(index) if !self.sent.is_empty() => {
                let range = self.sent.swap_remove(index.index(self.sent.len()));
                let mut newly = 0;
                for place in &mut self.places[range.start as usize..range.end as usize] {
                    newly += u64::from(*place != Place::Acked);
                    *place = Place::Acked;
                }
                assert_eq!(self.buffer.acked(range), newly);
            }
            Step::Lose(index) if !self.sent.is_empty() => {
                let range = self.sent.swap_remove(index.index(self.sent.len()));
                self.lose(range);
            }
            // It is sent again, and may arrive all the same.
            Step::GiveUp(index) if !self.sent.is_empty() => {
                let range = self.sent[index.index(self.sent.len())].clone();
                self.lose(range);
            }
            _ => {}
        }
        self.check();
    }

    fn lose(&mut self, range: Range<u64>) {
        let mut lost = 0;
        for place in &mut self.places[range.start as usize..range.end as usize] {
            if *place == Place::InFlight {
                *place = Place::Unsent;
                lost += 1;
            }
        }
        assert_eq!(self.buffer.lose(range), lost);
    }

    fn send(&mut self, skip: usize, max: usize) {
        let Some(start) = self.buffer.unsent().nth(skip as u64) else { return };
        let unsent = self.places.iter().enumerate().filter(|(_, place)| **place == Place::Unsent);
        assert_eq!(unsent.map(|(at, _)| at as u64).nth(skip), Some(start));
        let stretch = self.buffer.unsent().next_at(start).unwrap();
        let range = start..stretch.end.min(start + max as u64);
        self.check_contents(&(range.start..range.end.min(self.end())));
        self.buffer.sent(range.clone());
        self.places[range.start as usize..range.end as usize].fill(Place::InFlight);
        self.sent.push(range);
    }

    fn check_contents(&mut self, range: &Range<u64>) {
        let mut pieces = Pieces::new();
        self.buffer.copy_pieces(range.clone(), &mut pieces);
        assert_eq!(join(&pieces), contents(0, range.clone()));
        assert!(pieces.iter().all(|piece| !piece.is_empty()));
    }

    fn is_all(&self, range: &Range<u64>, state: Place) -> bool {
        self.places[range.start as usize..range.end as usize].iter().all(|place| *place == state)
    }

    fn check(&self) {
        let count = |state| self.places.iter().filter(|place| **place == state).count() as u64;
        assert_eq!(self.buffer.unsent().covered_bytes(), count(Place::Unsent));
        assert!(self.buffer.unsent().iter().all(|range| self.is_all(&range, Place::Unsent)));
        assert_eq!(self.buffer.in_flight(), count(Place::InFlight));
        assert!(self.buffer.lost() <= count(Place::Unsent));
        let prefix = self.places.iter().take_while(|place| **place == Place::Acked).count() as u64;
        assert_eq!(self.buffer.acked_prefix(), prefix);
        assert_eq!(self.buffer.held_bytes(), self.end().saturating_sub(prefix));
        let delivered = self.finished && prefix == self.places.len() as u64;
        assert_eq!(self.buffer.is_delivered(), delivered);
    }

    /// Whatever happened, the rest can be delivered, and then nothing is kept.
    fn complete(&mut self) {
        for range in core::mem::take(&mut self.sent) {
            self.buffer.lose(range.clone());
        }
        while let Some(range) = self.buffer.unsent().first() {
            self.check_contents(&(range.start..range.end.min(self.end())));
            self.buffer.sent(range.clone());
            self.buffer.acked(range);
        }
        assert_eq!((self.buffer.held_bytes(), self.buffer.in_flight(), self.buffer.lost()), (0, 0, 0));
        assert!(!self.buffer.is_undelivered());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn every_place_is_in_one_state(steps in prop::collection::vec(step(), 1..60)) {
        let mut model = Model::default();
        for step in steps {
            model.apply(step);
        }
        model.complete();
    }

    #[test]
    fn outside_is_the_complement(
        sets in prop::collection::vec(prop::collection::vec((0..60_u64, 0..9_u64), 0..8), 1..4),
        range in (0..60_u64, 0..60_u64),
    ) {
        let sets: Vec<crate::range_set::RangeSet> =
            sets.into_iter().map(|set| set.into_iter().map(|(at, len)| at..at + len).collect()).collect();
        let range = range.0..range.0 + range.1;
        let parts = outside(&sets.iter().collect::<Vec<_>>(), range.clone());
        let found: Vec<u64> = parts.into_iter().flatten().collect();
        let wanted: Vec<u64> = range.filter(|n| !sets.iter().any(|set| set.contains(*n))).collect();
        prop_assert_eq!(found, wanted);
    }
}

#[test]
fn a_million_small_writes_share_allocations() {
    let mut buffer = SendBuffer::default();
    for offset in 0..1_000_000 {
        buffer.write(&contents(0, offset..offset + 1));
    }
    let mut pieces = Pieces::new();
    buffer.copy_pieces(0..1_000_000, &mut pieces);
    assert_eq!(pieces.len(), 1_000_000_usize.div_ceil(64 << 10));
    assert_eq!(join(&pieces), contents(0, 0..1_000_000));
}

#[test]
fn chunks_are_not_copied() {
    let mut buffer = SendBuffer::default();
    let chunk = Bytes::from(contents(0, 0..5000));
    buffer.push(chunk.clone());
    let mut pieces = Pieces::new();
    buffer.copy_pieces(1000..4000, &mut pieces);
    assert_eq!(pieces[0].as_ptr(), chunk[1000..].as_ptr());
}

#[test]
fn small_writes_between_sends_stay_in_order() {
    let mut buffer = SendBuffer::default();
    for offset in 0..200 {
        buffer.write(&contents(0, offset..offset + 1));
        let mut pieces = Pieces::new();
        buffer.copy_pieces(offset..offset + 1, &mut pieces);
        buffer.sent(offset..offset + 1);
        assert_eq!(join(&pieces), contents(0, offset..offset + 1));
    }
    assert_eq!(buffer.lose(0..200), 200);
    assert_eq!(buffer.lost(), 200);
    let mut pieces = Pieces::new();
    buffer.copy_pieces(0..200, &mut pieces);
    assert_eq!(join(&pieces), contents(0, 0..200));
}

#[test]
fn tiny_data_is_copied_and_large_data_is_shared() {
    let mut buffer = SendBuffer::default();
    for (len, copied) in [(1, true), (COPY_BELOW_BYTES - 1, true), (COPY_BELOW_BYTES, false)] {
        let data = Bytes::from(alloc::vec![7; len]);
        buffer.push(data.clone());
        assert_eq!(data.is_unique(), copied, "{len} bytes");
    }
}
