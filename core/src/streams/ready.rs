//! Whose turn it is to send.

use alloc::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use crate::id::{Class, LinkId, StreamId};

/// Streams that a slow link tries at most when it looks for bytes far from the front.
pub(super) const STREAMS_TRIED_MAX: usize = 8;

/// A stream's place in a [`ReadyQueue`]. Kept by the stream, changed by the queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// What the queue counts for the stream; the stream is in the queue if this is not 0.
    counted_bytes: u64,
    turn: u64,
}

/// Streams of one class that have something to send now, and how much that is together.
///
/// Lower priority numbers come first, and streams of one priority take turns.
#[derive(Debug, Default)]
pub(super) struct ReadyQueue {
    backlog_bytes: u64,
    order: BTreeSet<(u8, u64, StreamId)>,
    next_turn: u64,
}

impl ReadyQueue {
    /// Bytes to send, over all streams.
    pub(super) fn backlog_bytes(&self) -> u64 {
        self.backlog_bytes
    }

    /// Streams with something to send.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// The streams whose turn comes first.
    pub(super) fn first(&self, n: usize) -> SmallVec<[StreamId; STREAMS_TRIED_MAX]> {
        self.order.iter().take(n).map(|&(_, _, id)| id).collect()
    }

    /// Takes note that a stream has `sendable_bytes` to send.
    pub(super) fn set(&mut self, id: StreamId, priority: u8, place: &mut Place, sendable_bytes: u64) {
        self.backlog_bytes = self.backlog_bytes - place.counted_bytes + sendable_bytes;
        if place.counted_bytes == 0 && sendable_bytes > 0 {
            place.turn = self.turn();
            self.order.insert((priority, place.turn, id));
        } else if place.counted_bytes > 0 && sendable_bytes == 0 {
            self.order.remove(&(priority, place.turn, id));
        }
        place.counted_bytes = sendable_bytes;
    }

    /// Puts a stream that was served behind the others of its priority.
    pub(super) fn rotate(&mut self, id: StreamId, priority: u8, place: &mut Place) {
        if place.counted_bytes > 0 && self.order.len() > 1 {
            self.order.remove(&(priority, place.turn, id));
            place.turn = self.turn();
            self.order.insert((priority, place.turn, id));
        }
    }

    fn turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }
}

/// The queues of all classes. A redundant stream waits in one queue for each link.
#[derive(Debug, Default)]
pub(super) struct ReadyQueues {
    pub(super) bulk: ReadyQueue,
    pub(super) interactive: ReadyQueue,
    pub(super) redundant: BTreeMap<LinkId, ReadyQueue>,
}

impl ReadyQueues {
    /// What `link` may serve of `class`.
    pub(super) fn get(&self, class: Class, link: LinkId) -> Option<&ReadyQueue> {
        match class {
            Class::Bulk => Some(&self.bulk),
            Class::Interactive => Some(&self.interactive),
            Class::Redundant => self.redundant.get(&link),
        }
    }

    /// As [`get`](Self::get).
    pub(super) fn get_mut(&mut self, class: Class, link: LinkId) -> Option<&mut ReadyQueue> {
        match class {
            Class::Bulk => Some(&mut self.bulk),
            Class::Interactive => Some(&mut self.interactive),
            Class::Redundant => self.redundant.get_mut(&link),
        }
    }
}
