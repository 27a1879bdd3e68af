//! Credits: the receiver says up to which count of bytes its peer may send.
//!
//! Counts and limits are absolute and wrap at 2³², as in PCI Express: a lost update is healed by the next, and what the line
//! swallowed gives its credit back with the next good frame. What is counted is the bytes of DATA frames, header and
//! checksum included, so that many small packets are bounded too.

use crate::limits::{CREDIT_REPEAT, CREDIT_STEPS};
use crate::time::{Duration, Instant};
use crate::{End, counters::Counters};

/// How far `to` is ahead of `from`; nothing if it is behind.
fn ahead(to: u32, from: u32) -> Option<u32> {
    let distance = to.wrapping_sub(from);
    (distance <= i32::MAX as u32).then_some(distance)
}

/// The sending side: what was sent, and what may be.
#[derive(Clone, Debug, Default)]
pub(crate) struct SendCredit {
    sent: u32,
    limit: u32,
    /// The peer's receive buffer: no limit is further ahead than this.
    buffer_bytes: u32,
    stalled: bool,
}

impl SendCredit {
    /// To a peer that announced a buffer of so many bytes.
    pub(crate) fn new(buffer_bytes: u32) -> Self {
        Self { sent: 0, limit: buffer_bytes, buffer_bytes, stalled: false }
    }

    /// Bytes of DATA frames sent so far.
    pub(crate) fn count(&self) -> u32 {
        self.sent
    }

    pub(crate) fn allows(&self, frame_bytes: usize) -> bool {
        ahead(self.limit, self.sent).is_some_and(|room| room as usize >= frame_bytes)
    }

    /// A frame was to be sent and there is no credit: counted once for each wait.
    pub(crate) fn note_stall(&mut self, counters: &mut Counters) {
        counters.credit_stalls += u64::from(!core::mem::replace(&mut self.stalled, true));
    }

    pub(crate) fn on_sent(&mut self, frame_bytes: usize) {
        debug_assert!(self.allows(frame_bytes));
        self.sent = self.sent.wrapping_add(frame_bytes as u32);
    }

    /// The peer told a limit.
    pub(crate) fn on_limit(&mut self, limit: u32) -> Result<(), End> {
        ahead(limit, self.limit).ok_or(End::CreditBackwards)?;
        // The peer counts as received no more than was sent.
        match ahead(limit, self.sent) {
            Some(room) if room <= self.buffer_bytes => {}
            _ => return Err(End::CreditBackwards),
        }
        self.stalled &= limit == self.limit;
        self.limit = limit;
        Ok(())
    }
}

/// The receiving side: what came, what is still held, and what the peer was told.
#[derive(Clone, Debug)]
pub(crate) struct ReceiveCredit {
    received: u32,
    /// Bytes of frames whose packets the caller has not released yet.
    held: u32,
    told: u32,
    buffer_bytes: u32,
    frame_max_bytes: u32,
    /// When to tell the limit again in case it was lost, and how long that wait is. However busy the line is: a peer that
    /// waits for a lost limit says nothing that would show it.
    repeat_at: Instant,
    repeat_wait: Duration,
    keep_alive: Duration,
}

impl ReceiveCredit {
    /// With a buffer of so many bytes, for frames of at most `frame_max_bytes`; the limit is told every `keep_alive`.
    pub(crate) fn new(now: Instant, buffer_bytes: u32, frame_max_bytes: u32, keep_alive: Duration) -> Self {
        Self {
            received: 0,
            held: 0,
            told: buffer_bytes,
            buffer_bytes,
            frame_max_bytes,
            repeat_at: now + keep_alive,
            repeat_wait: keep_alive,
            keep_alive,
        }
    }

    /// A good frame came: the peer's count before it, and the bytes that it takes of the buffer.
    pub(crate) fn on_frame(
        &mut self,
        count: u32,
        frame_bytes: u32,
        counters: &mut Counters,
    ) -> Result<(), End> {
        let lost = ahead(count, self.received).ok_or(End::CountBackwards)?;
        let end = count.wrapping_add(frame_bytes);
        ahead(self.told, end).ok_or(End::Overrun)?;
        counters.lost_bytes += u64::from(lost);
        self.received = end;
        self.held += frame_bytes;
        debug_assert!(self.held <= self.buffer_bytes);
        Ok(())
    }

    /// The caller is done with frames of so many bytes.
    pub(crate) fn release(&mut self, frame_bytes: u32) {
        self.held = self.held.saturating_sub(frame_bytes);
    }

    /// What the peer may be told. It never falls: what is received is either held or free.
    pub(crate) fn limit(&self) -> u32 {
        self.received.wrapping_sub(self.held).wrapping_add(self.buffer_bytes)
    }

    /// Whether a new limit is worth a frame.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let risen = self.limit().wrapping_sub(self.told);
        let peer_may_wait = self.told.wrapping_sub(self.received) < self.frame_max_bytes;
        risen >= (self.buffer_bytes / CREDIT_STEPS).max(1)
            || (risen > 0 && peer_may_wait)
            || self.repeat_at <= now
    }

    /// The limit was told. While the peer may have been waiting for it, it is told again soon.
    pub(crate) fn on_told(&mut self, now: Instant) {
        let peer_may_wait = self.told.wrapping_sub(self.received) < self.frame_max_bytes;
        let has_risen = self.limit() != self.told;
        self.repeat_wait = match (has_risen, peer_may_wait) {
            (true, true) => CREDIT_REPEAT,
            (true, false) => self.keep_alive,
            (false, _) => self.repeat_wait * 2,
        };
        self.repeat_wait = self.repeat_wait.min(self.keep_alive);
        self.repeat_at = now + self.repeat_wait;
        self.told = self.limit();
    }

    pub(crate) fn repeat_at(&self) -> Instant {
        self.repeat_at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::VecDeque;

    use super::*;

    const NOW: Instant = Instant::ZERO;

    #[test]
    fn limits_wrap() {
        let mut credit =
            SendCredit { sent: u32::MAX - 10, limit: u32::MAX, buffer_bytes: 1000, stalled: false };
        assert!(credit.allows(10) && !credit.allows(11));
        credit.on_limit(900).unwrap();
        assert!(credit.allows(911) && !credit.allows(912));
        credit.on_sent(911);
        assert_eq!(credit.count(), 900);
        assert!(!credit.allows(1));
        assert_eq!(credit.on_limit(899), Err(End::CreditBackwards));
        assert_eq!(credit.on_limit(1901), Err(End::CreditBackwards), "beyond the peer's buffer");
        credit.on_limit(1900).unwrap();
    }

    #[test]
    fn a_limit_that_a_waiting_peer_may_have_missed_is_repeated() {
        let mut credit = ReceiveCredit::new(NOW, 1000, 300, Duration::from_millis(250));
        credit.on_frame(0, 900, &mut Counters::default()).unwrap();
        assert!(!credit.is_due(NOW));
        credit.release(900);
        assert!(credit.is_due(NOW));
        credit.on_told(NOW);
        let mut now = NOW;
        for wait_ms in [50, 100, 200, 250, 250] {
            assert!(!credit.is_due(now));
            now = now + Duration::from_millis(wait_ms);
            assert_eq!(credit.repeat_at(), now);
            assert!(credit.is_due(now));
            credit.on_told(now);
        }
    }

    proptest! {
        /// A sender that keeps to its limit never overruns, whatever is lost, and the line never dries up for good.
        #[test]
        fn credit_does_not_leak(steps in prop::collection::vec((1u32..300, any::<[bool; 3]>()), 1..400), start in any::<u32>()) {
            let buffer = 1000;
            let mut sender = SendCredit { sent: start, limit: start.wrapping_add(buffer), buffer_bytes: buffer, stalled: false };
            let mut receiver = ReceiveCredit::new(NOW, buffer, 300, Duration::from_secs(1));
            (receiver.received, receiver.told) = (start, start.wrapping_add(buffer));
            let mut held = VecDeque::new();
            let mut counters = Counters::default();
            let mut limit_before = receiver.limit();
            for (bytes, [lost, release, update_lost]) in steps {
                if sender.allows(bytes as usize) {
                    let count = sender.count();
                    sender.on_sent(bytes as usize);
                    if !lost {
                        receiver.on_frame(count, bytes, &mut counters).unwrap();
                        held.push_back(bytes);
                    }
                }
                if release {
                    receiver.release(held.pop_front().unwrap_or(0));
                }
                prop_assert!(receiver.limit().wrapping_sub(limit_before) <= buffer, "the limit fell");
                limit_before = receiver.limit();
                if receiver.is_due(NOW) {
                    receiver.on_told(NOW);
                    if !update_lost {
                        sender.on_limit(receiver.limit()).unwrap();
                    }
                }
            }
            // Quiet: a keep-alive each way, and all is as in the beginning.
            held.iter().for_each(|bytes| receiver.release(*bytes));
            receiver.on_frame(sender.count(), 0, &mut counters).unwrap();
            sender.on_limit(receiver.limit()).unwrap();
            prop_assert!(sender.allows(buffer as usize));
        }
    }
}
