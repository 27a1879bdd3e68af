//! Datagrams that arrive, whole or in fragments.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::DatagramStats;
use super::send::Fragment;
use crate::limits::{
    DATAGRAM_AGE_MAX, DATAGRAM_MAX_BYTES, DATAGRAM_OVERHEAD_BYTES, DATAGRAM_QUEUE_BYTES,
    DATAGRAM_REASSEMBLY_BYTES, DATAGRAM_SEEN_RANGES_MAX,
};
use crate::range_set::RangeSet;
use crate::time::Instant;

/// Datagrams shorter than this are copied, so that a few bytes do not keep a whole receive buffer alive.
const COPY_BELOW_BYTES: usize = 1024;

/// A datagram of which fragments are missing.
#[derive(Debug)]
struct Partial {
    flow: u64,
    /// When its first fragment came.
    at: Instant,
    bytes: Vec<u8>,
    received: RangeSet,
}

#[derive(Debug, Default)]
pub(super) struct Reassembly {
    partial: BTreeMap<u64, Partial>,
    /// The same by age, the oldest first.
    by_age: BTreeSet<(Instant, u64)>,
    partial_bytes: usize,
    /// Numbers of datagrams that were complete or given up.
    seen: RangeSet,
    whole: VecDeque<(u64, Bytes)>,
    whole_bytes: usize,
    /// The application has been told, or will be, that there are datagrams.
    announced: bool,
    to_announce: bool,
}

/// What a datagram counts, so that many small ones are bounded too.
fn cost(len: usize) -> usize {
    len + DATAGRAM_OVERHEAD_BYTES
}

impl Reassembly {
    pub(super) fn insert(&mut self, now: Instant, fragment: Fragment, stats: &mut DatagramStats) {
        let Fragment { flow, sequence, offset, total, data } = fragment;
        let end = offset.saturating_add(data.len());
        let known = self.partial.get(&sequence);
        let contradicts = known.is_some_and(|known| known.flow != flow || known.bytes.len() != total);
        if contradicts || total > DATAGRAM_MAX_BYTES || end > total || data.is_empty() && total > 0 {
            stats.contradicting_fragments += 1;
            return;
        }
        self.expire(now, stats);
        if self.seen.contains(sequence) {
            stats.duplicate_fragments += 1;
            return;
        }
        if data.len() == total {
            self.remove(sequence);
            self.deliver(sequence, flow, data, stats);
            return;
        }
        let partial = self.partial(now, sequence, flow, total, stats);
        partial.bytes[offset..end].copy_from_slice(&data);
        if partial.received.insert(offset as u64..end as u64) == 0 {
            stats.duplicate_fragments += 1;
        }
        if partial.received.covered_bytes() == total as u64
            && let Some(partial) = self.remove(sequence)
        {
            self.deliver(sequence, flow, partial.bytes.into(), stats);
        }
    }

    /// Finds a datagram that is under way, or makes room for it.
    fn partial(
        &mut self,
        now: Instant,
        sequence: u64,
        flow: u64,
        total: usize,
        stats: &mut DatagramStats,
    ) -> &mut Partial {
        if !self.partial.contains_key(&sequence) {
            while self.partial_bytes + cost(total) > DATAGRAM_REASSEMBLY_BYTES && self.drop_oldest(stats) {}
            self.partial_bytes += cost(total);
            self.by_age.insert((now, sequence));
        }
        self.partial.entry(sequence).or_insert_with(|| Partial {
            flow,
            at: now,
            bytes: vec![0; total],
            received: RangeSet::new(),
        })
    }

    fn remove(&mut self, sequence: u64) -> Option<Partial> {
        let partial = self.partial.remove(&sequence)?;
        self.by_age.remove(&(partial.at, sequence));
        self.partial_bytes -= cost(partial.bytes.len());
        Some(partial)
    }

    fn drop_oldest(&mut self, stats: &mut DatagramStats) -> bool {
        let Some(&(_, sequence)) = self.by_age.first() else { return false };
        self.remove(sequence);
        self.note_seen(sequence);
        stats.incomplete += 1;
        true
    }

    /// When the first fragment of the oldest incomplete datagram came.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.by_age.first().map(|(at, _)| *at)
    }

    pub(super) fn expire(&mut self, now: Instant, stats: &mut DatagramStats) {
        while self.oldest().is_some_and(|at| now - at >= DATAGRAM_AGE_MAX) && self.drop_oldest(stats) {}
    }

    fn note_seen(&mut self, sequence: u64) {
        self.seen.insert(sequence..sequence.saturating_add(1));
        self.seen.retain_last(DATAGRAM_SEEN_RANGES_MAX);
    }

    fn deliver(&mut self, sequence: u64, flow: u64, data: Bytes, stats: &mut DatagramStats) {
        self.note_seen(sequence);
        stats.received += 1;
        let data = if data.len() < COPY_BELOW_BYTES { Bytes::copy_from_slice(&data) } else { data };
        while self.whole_bytes + cost(data.len()) > DATAGRAM_QUEUE_BYTES && self.pop_whole().is_some() {
            stats.dropped_unread += 1;
        }
        self.whole_bytes += cost(data.len());
        self.whole.push_back((flow, data));
        self.to_announce |= !self.announced;
        self.announced = true;
    }

    fn pop_whole(&mut self) -> Option<(u64, Bytes)> {
        let datagram = self.whole.pop_front()?;
        self.whole_bytes -= cost(datagram.1.len());
        Some(datagram)
    }

    pub(super) fn pop(&mut self) -> Option<(u64, Bytes)> {
        let datagram = self.pop_whole();
        self.announced = datagram.is_some();
        datagram
    }

    pub(super) fn poll_readable(&mut self) -> bool {
        core::mem::take(&mut self.to_announce)
    }
}
