//! Datagrams that arrive, whole or in fragments.

use bytes::Bytes;

use super::DatagramStats;
use super::send::Fragment;
use crate::fragments::{Inbox, Partials};
use crate::limits::{DATAGRAM_AGE_MAX, DATAGRAM_MAX_BYTES, DATAGRAM_QUEUE_BYTES, DATAGRAM_SEEN_RANGES_MAX};
use crate::range_set::RangeSet;
use crate::time::Instant;

/// Datagrams shorter than this are copied, so that a few bytes do not keep a whole receive buffer alive.
const COPY_BELOW_BYTES: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Reassembly {
    /// By number, and flow.
    partial: Partials<(u64, u64)>,
    /// Numbers of datagrams that were complete or given up.
    seen: RangeSet,
    whole: Inbox<u64>,
}

impl Reassembly {
    pub(super) fn insert(&mut self, now: Instant, fragment: Fragment, stats: &mut DatagramStats) {
        let Fragment { flow, sequence, offset, total, data } = fragment;
        let end = offset.saturating_add(data.len());
        let key = (sequence, flow);
        let known = self.partial.first_from((sequence, 0)).filter(|((number, _), _)| *number == sequence);
        let contradicts = known.is_some_and(|known| known != (key, total));
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
            self.partial.remove(key);
            return self.deliver(sequence, flow, data, stats);
        }
        while !self.partial.has_room(key, total) && self.drop_oldest(stats) {}
        if self.partial.insert(now, key, total, offset, &data) == 0 {
            stats.duplicate_fragments += 1;
        }
        if let Some(whole) = self.partial.take_whole(key) {
            self.deliver(sequence, flow, whole, stats);
        }
    }

    fn drop_oldest(&mut self, stats: &mut DatagramStats) -> bool {
        let Some((_, key)) = self.partial.oldest() else { return false };
        self.partial.remove(key);
        self.note_seen(key.0);
        stats.incomplete += 1;
        true
    }

    /// When the first fragment of the oldest incomplete datagram came.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.partial.oldest().map(|(at, _)| at)
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
        stats.dropped_unread += self.whole.push(flow, data, DATAGRAM_QUEUE_BYTES);
    }

    pub(super) fn pop(&mut self) -> Option<(u64, Bytes)> {
        self.whole.pop()
    }

    pub(super) fn poll_readable(&mut self) -> bool {
        self.whole.poll_readable()
    }
}
