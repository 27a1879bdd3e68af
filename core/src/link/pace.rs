//! A bound on what a link sends each second: a token bucket.

use super::rate::{bytes_in, transmit_time};
use crate::limits;
use crate::time::{Duration, Instant};

/// Time whose bytes may leave at once: longer than the timers of a busy host are late, short enough that a queue behind
/// the link never grows long.
const BURST: Duration = Duration::from_millis(20);

/// The bytes that a link with a cap may send now. A packet may go out as long as any are left, and what it takes beyond
/// them is owed: caps below a packet's size hold all the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Bytes per second; `None` is without a bound.
    cap: Option<u64>,
    /// When all that was sent is paid for, had the cap been used without a break. Credit is the time since then.
    paid_at: Instant,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { cap: None, paid_at: now }
    }

    /// Sets the bound. What was sent under another one is forgotten.
    pub(crate) fn set_cap(&mut self, now: Instant, cap_bytes_per_second: Option<u64>) {
        let cap = cap_bytes_per_second.map(|cap| cap.max(limits::LINK_CAP_MIN_BYTES_PER_SECOND));
        if cap != self.cap {
            *self = Self { cap, paid_at: now };
        }
    }

    /// The bound in bytes per second.
    pub(crate) fn cap(&self) -> Option<u64> {
        self.cap
    }

    /// The bytes that may leave at once, if there is a bound.
    pub(crate) fn burst_bytes(&self) -> Option<u64> {
        self.cap.map(|cap| bytes_in(cap, BURST))
    }

    /// Time until another packet may go out, if that is not now.
    pub(crate) fn time_to_send(&self, now: Instant) -> Option<Duration> {
        self.cap?;
        let wait = self.paid_at - now;
        (!wait.is_zero()).then_some(wait)
    }

    /// A packet of `bytes` left.
    pub(crate) fn on_sent(&mut self, now: Instant, bytes: u64) {
        if let Some(cap) = self.cap {
            self.paid_at = self.paid_at.max(now - BURST) + transmit_time(bytes, cap);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends packets of `packet` bytes as soon as each may, by a timer that ticks every `tick`; answers bytes per second.
    fn run(cap: u64, packet: u64, tick: Duration) -> u64 {
        let mut pace = Pace::new(Instant::ZERO);
        pace.set_cap(Instant::ZERO, Some(cap));
        let (mut now, mut sent) = (Instant::ZERO, 0);
        while now < Instant::ZERO + MS * 10_000 {
            while pace.time_to_send(now).is_none() {
                pace.on_sent(now, packet);
                sent += packet;
            }
            now += tick;
        }
        sent / 10
    }

    #[test]
    fn a_cap_holds_whatever_the_packets_and_timers() {
        for (cap, packet) in [(1_000_000, 1500), (1_000_000, 65_535), (20_000, 1200), (300, 1500)] {
            for tick in [MS / 10, MS, MS * 15] {
                let rate = run(cap, packet, tick);
                let allowed = cap * 97 / 100..=cap * 103 / 100 + packet / 10;
                assert!(
                    allowed.contains(&rate),
                    "{rate} of {cap} bytes per second in packets of {packet}, {tick:?}"
                );
            }
        }
    }

    #[test]
    fn without_a_cap_nothing_waits() {
        let mut pace = Pace::new(Instant::ZERO);
        pace.on_sent(Instant::ZERO, 1 << 40);
        assert_eq!(pace.time_to_send(Instant::ZERO), None);
        pace.set_cap(Instant::ZERO, Some(0));
        assert_eq!(pace.cap(), Some(limits::LINK_CAP_MIN_BYTES_PER_SECOND));
        pace.on_sent(Instant::ZERO, 512);
        assert!(pace.time_to_send(Instant::ZERO + MS * 1000).is_some());
        assert_eq!(pace.time_to_send(Instant::ZERO + MS * 2000), None);
    }
}
