//! The half of a stream that this end sends.

use alloc::collections::BTreeMap;
use core::ops::Range;

use super::flow::Budget;
use super::ready::{Place, ReadyQueues};
use super::send_buffer::SendBuffer;
use crate::id::{Class, LinkId, StreamId};
use crate::limits::SEND_BUFFER_MIN_BYTES;
use crate::range_set::RangeSet;
use crate::wire::varint::VARINT_MAX;

/// How far a sending half has come (RFC 9000 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendState {
    /// Takes bytes.
    Open,
    /// The end is known; not all is acknowledged.
    Finished,
    /// The peer has everything.
    Delivered,
    /// Given up; the peer does not know yet.
    Reset { code: u64, final_size: u64 },
    /// Given up, and the peer knows.
    ResetDelivered,
}

/// What all sending halves have together.
#[derive(Debug, Default)]
pub(super) struct SendTotals {
    /// Bytes that are to be sent again.
    pub(super) lost_bytes: u64,
    /// Halves with a byte or an end that is not acknowledged.
    pub(super) undelivered_streams: u64,
}

/// What one link has still to send of a redundant stream.
#[derive(Debug, Default)]
struct Cursor {
    pending: RangeSet,
    place: Place,
}

/// The sending half of a stream.
#[derive(Debug)]
pub(super) struct SendHalf {
    pub(super) buffer: SendBuffer,
    pub(super) state: SendState,
    /// The code of the peer's STOP_SENDING.
    pub(super) stopped: Option<u64>,
    /// The window: the peer takes bytes below this offset.
    max_offset: u64,
    /// What the send budget counts for this stream.
    charged_bytes: u64,
    /// What the totals count for this stream.
    counted_lost: u64,
    counted_undelivered: bool,
    /// A writer was turned away and waits.
    pub(super) writer_waits: bool,
    place: Place,
    /// Redundant streams only.
    cursors: BTreeMap<LinkId, Cursor>,
}

impl SendHalf {
    pub(super) fn new(max_offset: u64) -> Self {
        Self {
            buffer: SendBuffer::default(),
            state: SendState::Open,
            stopped: None,
            max_offset,
            charged_bytes: 0,
            counted_lost: 0,
            counted_undelivered: false,
            writer_waits: false,
            place: Place::default(),
            cursors: BTreeMap::new(),
        }
    }

    /// Whether nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, SendState::Delivered | SendState::ResetDelivered)
    }

    /// Raises the window; it never falls.
    pub(super) fn raise_window(&mut self, max_offset: u64) {
        self.max_offset = self.max_offset.max(max_offset.min(VARINT_MAX));
    }

    /// What the buffer may hold now. `tuned_bytes` is what the links can use.
    fn limit_bytes(&self, budget: &Budget, tuned_bytes: u64) -> u64 {
        let held = self.charged_bytes;
        let useful = budget.allowance_of(held, tuned_bytes).max(SEND_BUFFER_MIN_BYTES);
        let limit = budget.floor_bytes() + budget.allowance(held).min(useful);
        // Bytes far beyond the peer's window wait as well with the writer, and take no room from other streams there.
        let window = self.max_offset.saturating_sub(self.buffer.acked_prefix());
        limit.min(window.saturating_add(SEND_BUFFER_MIN_BYTES))
    }

    /// Bytes that a writer may add now.
    pub(super) fn room_bytes(&self, budget: &Budget, tuned_bytes: u64) -> u64 {
        self.limit_bytes(budget, tuned_bytes).saturating_sub(self.charged_bytes)
    }

    /// Whether there is so much room that a waiting writer should wake up: a quarter of the buffer, or all that this
    /// stream ever gets.
    pub(super) fn has_room(&self, budget: &Budget, tuned_bytes: u64) -> bool {
        self.charged_bytes == 0
            || self.room_bytes(budget, tuned_bytes) >= self.limit_bytes(budget, tuned_bytes).div_ceil(4)
    }

    /// Takes note of places that were appended to the buffer.
    pub(super) fn appended(&mut self, range: &Range<u64>) {
        for cursor in self.cursors.values_mut() {
            cursor.pending.insert(range.clone());
        }
    }

    /// The first place that may not be sent yet.
    fn sendable_end(&self) -> u64 {
        // A FIN needs no window of its own.
        if self.buffer.end() > self.max_offset { self.max_offset } else { self.buffer.places_end() }
    }

    /// How much of `pending` may be sent now, in O(1): all beyond the window is unsent.
    fn sendable(&self, pending: &RangeSet) -> u64 {
        pending.covered_bytes().saturating_sub(self.buffer.places_end() - self.sendable_end())
    }

    /// Brings the queues and the budget up to date. To be called after every change.
    pub(super) fn settle(
        &mut self,
        id: StreamId,
        class: Class,
        priority: u8,
        queues: &mut ReadyQueues,
        budget: &mut Budget,
    ) {
        let held = self.buffer.held_bytes();
        budget.change(self.charged_bytes, held);
        self.charged_bytes = held;
        let queue = match class {
            Class::Bulk => &mut queues.bulk,
            Class::Interactive => &mut queues.interactive,
            Class::Redundant => {
                let mut cursors = core::mem::take(&mut self.cursors);
                for (link, cursor) in &mut cursors {
                    let sendable = self.sendable(&cursor.pending);
                    queues.redundant.entry(*link).or_default().set(id, priority, &mut cursor.place, sendable);
                }
                self.cursors = cursors;
                return;
            }
        };
        let sendable = self.sendable(self.buffer.unsent());
        queue.set(id, priority, &mut self.place, sendable);
    }

    /// Brings the totals up to date. To be called after every change.
    pub(super) fn count(&mut self, totals: &mut SendTotals) {
        let (lost, undelivered) = (self.buffer.lost(), self.buffer.is_undelivered());
        totals.lost_bytes = totals.lost_bytes - self.counted_lost + lost;
        totals.undelivered_streams =
            totals.undelivered_streams - u64::from(self.counted_undelivered) + u64::from(undelivered);
        (self.counted_lost, self.counted_undelivered) = (lost, undelivered);
    }

    /// The stream's place in the queue that `link` serves.
    pub(super) fn place_mut(&mut self, class: Class, link: LinkId) -> Option<&mut Place> {
        match class {
            Class::Redundant => self.cursors.get_mut(&link).map(|cursor| &mut cursor.place),
            _ => Some(&mut self.place),
        }
    }

    /// The first stretch of places that `link` may send and that has `skip` sendable places before it.
    pub(super) fn pick(&self, class: Class, link: LinkId, skip: u64) -> Option<Range<u64>> {
        let pending = match class {
            Class::Redundant => &self.cursors.get(&link)?.pending,
            _ => self.buffer.unsent(),
        };
        let stretch = pending.next_at(pending.nth(skip)?)?;
        let range = stretch.start..stretch.end.min(self.sendable_end());
        Some(range).filter(|range| !range.is_empty())
    }

    /// Takes note that `link` sent `range`.
    pub(super) fn sent(&mut self, link: LinkId, range: Range<u64>) {
        if let Some(cursor) = self.cursors.get_mut(&link) {
            cursor.pending.remove(range.clone());
        }
        self.buffer.sent(range);
    }

    /// Takes note that the peer has `range`; returns how many places are new to it.
    pub(super) fn acked(&mut self, range: Range<u64>) -> u64 {
        for cursor in self.cursors.values_mut() {
            cursor.pending.remove(range.clone());
        }
        let newly = self.buffer.acked(range);
        if self.state == SendState::Finished && self.buffer.is_delivered() {
            self.state = SendState::Delivered;
        }
        newly
    }

    /// Takes note that `link` lost `range`; returns how many places are to be sent again.
    pub(super) fn lost(&mut self, class: Class, link: LinkId, range: Range<u64>) -> u64 {
        if class != Class::Redundant {
            return self.buffer.lose(range);
        }
        let range = range.start..range.end.min(self.buffer.places_end());
        let Some(cursor) = self.cursors.get_mut(&link) else { return 0 };
        self.buffer.unacked_of(range).into_iter().map(|part| cursor.pending.insert(part)).sum()
    }

    /// A link joined: it has to send whatever is not acknowledged.
    pub(super) fn link_added(&mut self, link: LinkId) {
        let pending = self.buffer.unacked().into_iter().collect();
        self.cursors.entry(link).or_default().pending = pending;
    }

    /// A link is gone, and its queue with it.
    pub(super) fn link_removed(&mut self, link: LinkId) {
        self.cursors.remove(&link);
    }

    /// Gives up all bytes that are not delivered.
    pub(super) fn discard(&mut self) {
        self.buffer.discard();
        for cursor in self.cursors.values_mut() {
            cursor.pending.clear();
        }
    }
}
