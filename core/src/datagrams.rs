//! Datagrams: messages that may be lost, of bounded age.
//!
//! A *flow* is a number that the application chooses. Its datagrams stay on one link, so that they keep their order,
//! until that link is no longer usable. A datagram that does not fit a link's packets goes in fragments. Nothing is
//! sent a second time.

mod receive;
mod send;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use self::send::{Fragment, SendDatagramError, TakeDatagram};

use self::receive::Reassembly;
use self::send::SendQueue;
use crate::id::LinkId;
use crate::limits::DATAGRAM_AGE_MAX;
use crate::time::Instant;

/// Counters since the bond began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramStats {
    /// Datagrams handed in to be sent.
    pub sent: u64,
    /// Of them, dropped because too many waited.
    pub dropped_queue_full: u64,
    /// Of them, dropped because they waited too long.
    pub dropped_too_old: u64,
    /// Datagrams that arrived whole.
    pub received: u64,
    /// Of them, dropped because the application did not fetch them.
    pub dropped_unread: u64,
    /// Datagrams of which some fragments arrived, and the rest did not in time or found no room.
    pub incomplete: u64,
    /// Fragments that had arrived before.
    pub duplicate_fragments: u64,
    /// Fragments that were dropped because they contradict an earlier one.
    pub contradicting_fragments: u64,
}

/// All datagrams of a bond, as one end sees them.
#[derive(Debug, Default)]
pub struct Datagrams {
    send: SendQueue,
    receive: Reassembly,
    stats: DatagramStats,
}

impl Datagrams {
    /// No datagrams yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues a datagram. Never waits: if too many bytes are queued, the oldest datagrams are dropped.
    ///
    /// # Errors
    /// [`SendDatagramError::TooLarge`].
    pub fn send(&mut self, now: Instant, flow: u64, data: Bytes) -> Result<(), SendDatagramError> {
        self.send.push(now, flow, data, &mut self.stats)
    }

    /// Whether `link` has something to send: a datagram of one of its flows, or of a flow without a link if it takes
    /// those.
    pub fn has_work(&self, link: LinkId, takes_new_flows: bool) -> bool {
        self.send.has_work(link, takes_new_flows)
    }

    /// Whether nothing waits to be sent.
    pub fn is_all_sent(&self) -> bool {
        self.send.is_all_sent()
    }

    /// Bytes of the next datagram of a flow without a link, so that the best link for it can be chosen; 0 if there is
    /// none.
    pub fn next_bytes(&self) -> u64 {
        self.send.next_bytes()
    }

    /// Takes the next datagram for a link, or a fragment of it. Flows take turns.
    pub fn take(&mut self, now: Instant, take: TakeDatagram) -> Option<Fragment> {
        self.send.expire(now, &mut self.stats);
        self.send.take(take)
    }

    /// The flows of `link` go elsewhere from now on.
    pub fn link_unusable(&mut self, link: LinkId) {
        self.send.link_unusable(link);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout): a datagram, unsent or incomplete, becomes too old.
    pub fn deadline(&self) -> Option<Instant> {
        let oldest = [self.send.oldest(), self.receive.oldest()].into_iter().flatten().min()?;
        Some(oldest + DATAGRAM_AGE_MAX)
    }

    /// Drops what is too old.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.send.expire(now, &mut self.stats);
        self.receive.expire(now, &mut self.stats);
    }

    /// A DATAGRAM frame. One that contradicts an earlier frame, or itself, is dropped and counted.
    pub fn on_fragment(
        &mut self,
        now: Instant,
        flow: u64,
        sequence: u64,
        offset: usize,
        total: usize,
        data: Bytes,
    ) {
        self.receive.insert(now, Fragment { flow, sequence, offset, total, data }, &mut self.stats);
    }

    /// The next datagram that has arrived, with its flow.
    pub fn receive(&mut self) -> Option<(u64, Bytes)> {
        self.receive.pop()
    }

    /// Whether datagrams have come since [`receive`](Self::receive) found none. True once each time.
    pub fn poll_readable(&mut self) -> bool {
        self.receive.poll_readable()
    }

    /// Counters.
    pub fn stats(&self) -> DatagramStats {
        self.stats
    }
}
