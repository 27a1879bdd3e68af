//! The bytes of one stream between the writer and their acknowledgement.

use alloc::collections::VecDeque;
use core::ops::Range;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::Pieces;
use crate::range_set::RangeSet;

/// Small writes are copied together into chunks of this size.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks handed in whole that are shorter than this are copied, so that each does not cost an entry of its own.
pub(super) const COPY_BELOW_BYTES: usize = 1024;

/// Bytes written and not yet acknowledged, and what became of each.
///
/// Each place of the stream is in exactly one of three states: *unsent*, *in flight*, *acknowledged*. The end of the
/// stream is a place of its own, right behind the last byte, so that its FIN is sent, lost and acknowledged as a byte
/// is. *Lost* places are unsent ones that were in flight before.
#[derive(Debug, Default)]
pub(super) struct SendBuffer {
    /// Contents with the offset of each first byte, without gaps, up to `tail`.
    chunks: VecDeque<(u64, Bytes)>,
    /// The last bytes written, up to `end`; still growing.
    tail: BytesMut,
    /// Bytes written so far.
    end: u64,
    finished: bool,
    unsent: RangeSet,
    lost: RangeSet,
    acked: RangeSet,
    /// End of what was ever sent, the FIN not counted.
    sent_end: u64,
}

/// Parts of a range, nearly always one.
pub(super) type Parts = SmallVec<[Range<u64>; 4]>;

/// The parts of `range` that are in none of `sets`, lowest first.
pub(super) fn outside(sets: &[&RangeSet], range: Range<u64>) -> Parts {
    let mut parts = Parts::new();
    let mut at = range.start;
    while at < range.end {
        let (mut covered_to, mut free_to) = (at, range.end);
        for next in sets.iter().filter_map(|set| set.next_at(at)) {
            if next.start == at {
                covered_to = covered_to.max(next.end);
            } else {
                free_to = free_to.min(next.start);
            }
        }
        if covered_to > at {
            at = covered_to;
        } else {
            parts.push(at..free_to);
            at = free_to;
        }
    }
    parts
}

impl SendBuffer {
    /// Bytes written so far.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// As [`end`](Self::end), plus the place of the FIN once there is one.
    pub(super) fn places_end(&self) -> u64 {
        self.end + u64::from(self.finished)
    }

    /// Bytes kept: all from the first that is not acknowledged.
    pub(super) fn held_bytes(&self) -> u64 {
        self.end.saturating_sub(self.acked_prefix())
    }

    /// All places before this are acknowledged.
    pub(super) fn acked_prefix(&self) -> u64 {
        self.acked.first().filter(|first| first.start == 0).map_or(0, |first| first.end)
    }

    /// End of what was ever sent.
    pub(super) fn sent_end(&self) -> u64 {
        self.sent_end
    }

    /// Places that were sent and are neither acknowledged nor lost.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> u64 {
        self.places_end() - self.unsent.covered_bytes() - self.acked.covered_bytes()
    }

    /// Places that are to be sent (again).
    pub(super) fn unsent(&self) -> &RangeSet {
        &self.unsent
    }

    /// Places that are to be sent again.
    pub(super) fn lost(&self) -> u64 {
        self.lost.covered_bytes()
    }

    /// Whether a place is not acknowledged.
    pub(super) fn is_undelivered(&self) -> bool {
        self.acked.covered_bytes() < self.places_end()
    }

    /// Whether the stream was finished and the peer has all of it.
    pub(super) fn is_delivered(&self) -> bool {
        self.finished && !self.is_undelivered()
    }

    /// Appends a copy of `data`; returns its place.
    pub(super) fn write(&mut self, mut data: &[u8]) -> Range<u64> {
        let start = self.end;
        while !data.is_empty() {
            if self.tail.len() >= CHUNK_BYTES {
                self.freeze_tail();
            }
            let (part, rest) = data.split_at(data.len().min(CHUNK_BYTES - self.tail.len()));
            self.tail.extend_from_slice(part);
            self.end += part.len() as u64;
            data = rest;
        }
        self.appended(start)
    }

    /// Appends `data` without copying it, unless it is tiny; returns its place.
    pub(super) fn push(&mut self, data: Bytes) -> Range<u64> {
        if data.len() < COPY_BELOW_BYTES {
            return self.write(&data);
        }
        self.freeze_tail();
        let start = self.end;
        self.end += data.len() as u64;
        self.chunks.push_back((start, data));
        self.appended(start)
    }

    /// Ends the stream; returns the place of the FIN.
    pub(super) fn finish(&mut self) -> Range<u64> {
        self.finished = true;
        self.appended(self.end)
    }

    fn appended(&mut self, start: u64) -> Range<u64> {
        let range = start..self.places_end();
        self.unsent.insert(range.clone());
        self.check();
        range
    }

    fn tail_start(&self) -> u64 {
        self.end - self.tail.len() as u64
    }

    fn freeze_tail(&mut self) {
        if !self.tail.is_empty() {
            let start = self.tail_start();
            // The rest of the allocation stays with the tail, so that small writes go on to share it.
            self.chunks.push_back((start, self.tail.split().freeze()));
        }
    }

    /// Appends the bytes of `range` to `pieces`; they must be held.
    pub(super) fn copy_pieces(&mut self, range: Range<u64>, pieces: &mut Pieces) {
        if range.is_empty() {
            return;
        }
        if range.end > self.tail_start() {
            self.freeze_tail();
        }
        let first = self.chunks.partition_point(|(start, _)| *start <= range.start).saturating_sub(1);
        let mut at = range.start;
        for (start, chunk) in self.chunks.range(first..) {
            if at >= range.end {
                break;
            }
            let from = (at - start) as usize;
            let to = chunk.len().min((range.end - start) as usize);
            pieces.push(chunk.slice(from..to));
            at = start + to as u64;
        }
        debug_assert_eq!(at, range.end, "bytes that are not held were to be sent");
    }

    /// Takes note that `range` was sent.
    pub(super) fn sent(&mut self, range: Range<u64>) {
        self.unsent.remove(range.clone());
        if !self.lost.is_empty() {
            self.lost.remove(range.clone());
        }
        self.sent_end = self.sent_end.max(range.end.min(self.end));
        self.check();
    }

    /// Takes note that the peer has `range`; returns how many of its places were not acknowledged before.
    pub(super) fn acked(&mut self, range: Range<u64>) -> u64 {
        let range = range.start..range.end.min(self.places_end());
        let newly = self.acked.insert(range.clone());
        if newly > 0 {
            self.unsent.remove(range.clone());
            self.lost.remove(range);
            self.free();
        }
        self.check();
        newly
    }

    /// Takes note that `range` did not arrive. What of it is still in flight becomes unsent; returns how many places.
    pub(super) fn lose(&mut self, range: Range<u64>) -> u64 {
        let mut lost = 0;
        for part in self.in_flight_of(range) {
            lost += self.unsent.insert(part.clone());
            self.lost.insert(part);
        }
        self.check();
        lost
    }

    /// The places that are not acknowledged.
    pub(super) fn unacked(&self) -> Parts {
        self.unacked_of(0..self.places_end())
    }

    /// The places of `range` that are not acknowledged.
    pub(super) fn unacked_of(&self, range: Range<u64>) -> Parts {
        outside(&[&self.acked], range)
    }

    /// The places of `range` that were sent and are neither acknowledged nor lost.
    pub(super) fn in_flight_of(&self, range: Range<u64>) -> Parts {
        outside(&[&self.acked, &self.unsent], range.start..range.end.min(self.places_end()))
    }

    /// Drops all contents for good.
    pub(super) fn discard(&mut self) {
        let (end, sent_end) = (self.end, self.sent_end);
        *self = Self { end, sent_end, ..Self::default() };
        self.acked.insert(0..end);
    }

    fn free(&mut self) {
        let acked = self.acked_prefix();
        while self.chunks.front().is_some_and(|(start, chunk)| start + chunk.len() as u64 <= acked) {
            self.chunks.pop_front();
        }
        if self.chunks.is_empty() && acked >= self.end {
            // An idle stream holds no memory.
            self.chunks = VecDeque::new();
            self.tail = BytesMut::new();
        }
    }

    /// Each place is unsent, in flight (which is the rest) or acknowledged; lost ones are unsent.
    fn check(&self) {
        debug_assert!(
            self.unsent.covered_bytes() + self.acked.covered_bytes() <= self.places_end(),
            "each place of a stream is in one state: {self:?}"
        );
        debug_assert!(self.lost.covered_bytes() <= self.unsent.covered_bytes());
    }
}
