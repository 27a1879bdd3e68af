//! Ordered datagrams: messages that may be lost, of which those of one flow keep their order over all links together.
//!
//! They are for what itself is a network: packets of IP, whose connections take a packet that comes early for the loss of those
//! before it. Unlike the other datagrams, a flow has all links. Its messages are numbered; the other end holds those that come
//! early, for a bounded time. Nothing is sent a second time.
//!
//! What waits to be sent is bounded by time, and flows take turns (RFC 8290 without its law of dropping): one that waits for
//! nothing goes before those that always do.

mod receive;
mod send;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use self::send::{OrderedFragment, TakeOrdered};

use self::receive::Receiver;
use self::send::SendQueue;
use crate::limits::{ORDERED_MAX_BYTES, ORDERED_PROMPT_FLOWS};
use crate::time::Instant;

/// An ordered datagram could not be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendOrderedError {
    /// It is too large.
    #[error(
        "an ordered datagram of {len} bytes is too large: at most {ORDERED_MAX_BYTES} are possible; send less at once"
    )]
    TooLarge {
        /// Its length in bytes.
        len: usize,
    },
}

/// Counters since the bond began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderedStats {
    /// Datagrams handed in to be sent.
    pub sent: u64,
    /// Of them, dropped because too many bytes waited.
    pub dropped_queue_full: u64,
    /// Of them, dropped because they waited too long.
    pub dropped_too_old: u64,
    /// Datagrams that arrived whole.
    pub received: u64,
    /// Of them, held for a time because earlier ones were missing.
    pub held: u64,
    /// Of them, come after later ones had been handed on without them.
    pub late: u64,
    /// Of them, dropped because the application did not fetch them.
    pub dropped_unread: u64,
    /// Datagrams that others were held for and that did not come in time.
    pub missed: u64,
    /// Datagrams of which some fragments arrived, and the rest did not in time or found no room.
    pub incomplete: u64,
    /// Fragments that contradict an earlier one.
    pub contradicting_fragments: u64,
}

/// All ordered datagrams of a bond, as one end sees them.
#[derive(Debug, Default)]
pub struct Ordered {
    send: SendQueue,
    receive: Receiver,
    stats: OrderedStats,
}

/// Whether somebody waits for what this flow carries, so that links are to keep their queues short.
pub fn is_prompt(flow: u8) -> bool {
    flow < ORDERED_PROMPT_FLOWS
}

impl Ordered {
    /// No datagrams yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues a datagram. Never waits: if too many bytes are queued, the last of the longest flow goes.
    ///
    /// # Errors
    /// [`SendOrderedError::TooLarge`].
    pub fn send(&mut self, now: Instant, flow: u8, data: Bytes) -> Result<(), SendOrderedError> {
        if data.len() > ORDERED_MAX_BYTES {
            return Err(SendOrderedError::TooLarge { len: data.len() });
        }
        self.send.push(now, flow, data, &mut self.stats);
        Ok(())
    }

    /// Most bytes that may wait to be sent from now on.
    pub fn set_queue_bytes(&mut self, bytes: usize) {
        self.send.set_limit(bytes);
    }

    /// Whether nothing waits to be sent.
    pub fn is_all_sent(&self) -> bool {
        self.send.is_empty()
    }

    /// Bytes of the next datagram of a flow that had nothing waiting until now; `None` if there is none.
    pub fn next_fresh_bytes(&self) -> Option<u64> {
        self.send.next_fresh_bytes()
    }

    /// Bytes that wait in the other flows.
    pub fn backlog(&self) -> u64 {
        self.send.backlog()
    }

    /// Takes the next datagram, or a fragment of it.
    pub fn take(&mut self, take: TakeOrdered) -> Option<OrderedFragment> {
        self.send.take(take)
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn deadline(&self) -> Option<Instant> {
        [self.send.deadline(), self.receive.deadline()].into_iter().flatten().min()
    }

    /// Drops what is too old, and hands on what was held for long enough.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.send.expire(now, &mut self.stats);
        self.receive.expire(now, &mut self.stats);
    }

    /// An ORDERED_DATAGRAM frame. One that contradicts an earlier frame, or itself, is dropped and counted.
    pub fn on_fragment(&mut self, now: Instant, fragment: OrderedFragment) {
        self.receive.insert(now, fragment, &mut self.stats);
    }

    /// The next datagram for the application.
    pub fn receive(&mut self) -> Option<Bytes> {
        self.receive.pop()
    }

    /// Whether datagrams have come since [`receive`](Self::receive) found none. True once each time.
    pub fn poll_readable(&mut self) -> bool {
        self.receive.poll_readable()
    }

    /// Counters.
    pub fn stats(&self) -> OrderedStats {
        self.stats
    }
}
