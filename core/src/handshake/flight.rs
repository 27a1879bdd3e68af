//! A handshake message and its repeats.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::limits::HANDSHAKE_REPEAT;
use crate::time::{Duration, Instant};

/// A message on its way, and its repeats.
pub(super) struct Flight {
    pub(super) message: Bytes,
    due: bool,
    /// When to repeat; armed by sending, so that a link that takes nothing is not asked to repeat.
    pub(super) repeat_at: Option<Instant>,
    interval: Duration,
    first_sent_at: Option<Instant>,
    repeated: bool,
}

impl Flight {
    pub(super) fn new(message: Vec<u8>) -> Self {
        Self {
            message: message.into(),
            due: true,
            repeat_at: None,
            interval: HANDSHAKE_REPEAT,
            first_sent_at: None,
            repeated: false,
        }
    }

    pub(super) fn take(&mut self, now: Instant) -> Option<Bytes> {
        if !core::mem::take(&mut self.due) {
            return None;
        }
        self.repeated = self.first_sent_at.is_some();
        self.first_sent_at.get_or_insert(now);
        self.repeat_at = Some(now + self.interval);
        self.interval = self.interval.saturating_mul(2);
        Some(self.message.clone())
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.repeat_at.is_some_and(|at| at <= now) {
            self.repeat_at = None;
            self.due = true;
        }
    }

    /// Time from the message to `now`, if it is certain which copy was answered.
    pub(super) fn rtt(&self, now: Instant) -> Option<Duration> {
        self.first_sent_at.filter(|_| !self.repeated).map(|sent| now - sent)
    }
}
