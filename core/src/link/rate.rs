//! Delivery rate: what the peer's engine acknowledged per second, as BBR estimates it
//! (draft-cheng-iccrg-delivery-rate-estimation).

use crate::time::{Duration, Instant};

/// Round trips over which the maximum is kept: half of them in each of two halves.
const HALF_WINDOW_ROUNDS: u64 = 5;

/// A round trip that raises the rate by less than this (in quarters: 5/4) did not find more room.
const GROWTH_NUMERATOR: u64 = 5;
const GROWTH_DENOMINATOR: u64 = 4;
/// Round trips without growth after which there is none to come, as in BBR.
const FLAT_ROUNDS: u32 = 3;

/// What a packet remembers of the estimator when it was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendStamp {
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    app_limited: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Rate {
    /// Bytes acknowledged so far.
    delivered: u64,
    delivered_at: Instant,
    /// Send time of the packet that was acknowledged last: the start of the next sample's send interval.
    first_sent_at: Instant,
    /// While `delivered` is below this, samples are application-limited.
    app_limited_until: u64,
    /// Newest packet of the acknowledgement at hand.
    newest: Option<(SendStamp, Instant)>,
    max: MaxFilter,
    round_ends_at: u64,
    rounds: u64,
}

/// Maximum over the current and the previous half window.
#[derive(Clone, Debug, Default)]
struct MaxFilter {
    previous: u64,
    current: u64,
    half: u64,
}

impl MaxFilter {
    fn get(&self) -> u64 {
        self.previous.max(self.current)
    }

    fn insert(&mut self, round: u64, sample: u64) {
        let half = round / HALF_WINDOW_ROUNDS;
        if half != self.half {
            self.previous = if half == self.half + 1 { self.current } else { 0 };
            self.current = 0;
            self.half = half;
        }
        self.current = self.current.max(sample);
    }
}

/// Whether the rate still grows when more is in flight, told from one round trip to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Growth {
    best_rate: u64,
    flat_rounds: u32,
}

impl Growth {
    /// A round trip ended at `rate`, with the link full if `was_full`: only then does the rate tell what it carries.
    pub(crate) fn on_round(&mut self, rate: u64, was_full: bool) {
        // What the link no longer does it may find again.
        self.best_rate = self.best_rate.min(rate);
        if !was_full {
            *self = Self::default();
        } else if rate >= self.best_rate.saturating_mul(GROWTH_NUMERATOR) / GROWTH_DENOMINATOR {
            *self = Self { best_rate: rate, flat_rounds: 0 };
        } else {
            self.flat_rounds = self.flat_rounds.saturating_add(1);
        }
    }

    /// The link was full of late, and gave nothing more for it.
    pub(crate) fn is_over(&self) -> bool {
        self.flat_rounds >= FLAT_ROUNDS
    }
}

/// What one acknowledgement told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateSample {
    /// A round trip began with this acknowledgement.
    pub(crate) round_started: bool,
    /// The sender had less to send than the link would have taken.
    pub(crate) app_limited: bool,
}

impl Rate {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            delivered_at: now,
            first_sent_at: now,
            app_limited_until: 0,
            newest: None,
            max: MaxFilter::default(),
            round_ends_at: 0,
            rounds: 0,
        }
    }

    /// A packet goes out while `in_flight` bytes are out already.
    pub(crate) fn on_sent(&mut self, now: Instant, in_flight: u64) -> SendStamp {
        if in_flight == 0 {
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        SendStamp {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            app_limited: self.app_limited_until > self.delivered,
        }
    }

    /// The link was offered less than its window allows; samples of what is in flight tell a lower bound only.
    pub(crate) fn on_app_limited(&mut self, in_flight: u64) {
        self.app_limited_until = self.delivered + in_flight.max(1);
    }

    /// One packet of an acknowledgement. Call [`Self::finish_ack`] after the last.
    pub(crate) fn on_acked(&mut self, now: Instant, stamp: SendStamp, sent_at: Instant, bytes: u64) {
        self.delivered += bytes;
        self.delivered_at = now;
        if self.newest.is_none_or(|(newest, _)| stamp.delivered >= newest.delivered) {
            self.newest = Some((stamp, sent_at));
            self.first_sent_at = sent_at;
        }
    }

    /// Turns the packets since the last call into one sample.
    pub(crate) fn finish_ack(&mut self, base_rtt: Duration) -> Option<RateSample> {
        let (stamp, sent_at) = self.newest.take()?;
        let round_started = stamp.delivered >= self.round_ends_at;
        if round_started {
            self.round_ends_at = self.delivered;
            self.rounds += 1;
        }
        let interval = (sent_at - stamp.first_sent_at).max(self.delivered_at - stamp.delivered_at);
        // A shorter interval than a round trip comes from acknowledgements that bunched up, and tells too much.
        if !interval.is_zero() && interval >= base_rtt {
            let rate = bytes_per_second(self.delivered.saturating_sub(stamp.delivered), interval);
            if !stamp.app_limited || rate > self.max.get() {
                self.max.insert(self.rounds, rate);
            }
        }
        Some(RateSample { round_started, app_limited: stamp.app_limited })
    }

    /// The windowed maximum, in bytes per second, once there was a sample.
    pub(crate) fn bytes_per_second(&self) -> Option<u64> {
        Some(self.max.get()).filter(|&rate| rate > 0)
    }

    /// Bytes acknowledged since the estimator started.
    #[cfg(test)]
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }
}

/// Bytes per second of `bytes` in `interval`.
pub(super) fn bytes_per_second(bytes: u64, interval: Duration) -> u64 {
    let nanos = interval.as_nanos().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

/// Time that `bytes` take at `rate` bytes per second.
pub(crate) fn transmit_time(bytes: u64, rate: u64) -> Duration {
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate.max(1))
}

/// Bytes that `rate` bytes per second move in `time`.
pub(crate) fn bytes_in(rate: u64, time: Duration) -> u64 {
    let nanos = time.as_nanos();
    // The product nearly always fits 64 bits, where a division is far cheaper.
    match u64::try_from(nanos).ok().and_then(|nanos| rate.checked_mul(nanos)) {
        Some(product) => product / 1_000_000_000,
        None => u64::try_from(u128::from(rate).saturating_mul(nanos) / 1_000_000_000).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends `packets` of 1000 bytes, `gap` apart, acknowledged after `rtt`; returns the estimate.
    fn run(gap: Duration, packets: u32, app_limited: bool) -> (Rate, Option<u64>) {
        let (mut rate, rtt) = (Rate::new(Instant::ZERO), MS * 10);
        let mut sent = alloc::collections::VecDeque::new();
        let mut in_flight = 0;
        for n in 0..packets {
            let now = Instant::ZERO + gap * n;
            while sent.front().is_some_and(|&(at, _): &(Instant, SendStamp)| at + rtt <= now) {
                let (at, stamp) = sent.pop_front().unwrap();
                rate.on_acked(at + rtt, stamp, at, 1000);
                rate.finish_ack(rtt);
                in_flight -= 1000;
            }
            if app_limited {
                rate.on_app_limited(in_flight);
            }
            sent.push_back((now, rate.on_sent(now, in_flight)));
            in_flight += 1000;
        }
        let estimate = rate.bytes_per_second();
        (rate, estimate)
    }

    #[test]
    fn growth_ends_after_three_full_rounds_without_any() {
        let mut growth = Growth::default();
        for rate in [100, 200, 249, 249] {
            growth.on_round(rate, true);
            assert!(!growth.is_over());
        }
        growth.on_round(250, true);
        assert!(!growth.is_over(), "a quarter more than the best is growth");
        for _ in 0..3 {
            growth.on_round(260, true);
        }
        assert!(growth.is_over());
        growth.on_round(260, false);
        assert!(!growth.is_over(), "a round that was not full says nothing");
    }

    #[test]
    fn a_link_that_recovers_grows_again() {
        let mut growth = Growth::default();
        for rate in [100, 100, 100, 100, 50] {
            growth.on_round(rate, true);
        }
        assert!(growth.is_over());
        growth.on_round(70, true);
        assert!(!growth.is_over());
    }

    #[test]
    fn finds_the_rate_of_a_paced_sender() {
        let (rate, estimate) = run(MS, 1000, false);
        assert!((980_000..=1_020_000).contains(&estimate.unwrap()), "{estimate:?}");
        assert!(rate.delivered() > 980_000);
    }

    #[test]
    fn a_slower_rate_takes_over_after_the_window() {
        let (mut rate, _) = run(MS, 100, false);
        let mut now = Instant::ZERO + MS * 10_000;
        for _ in 0..30 {
            let stamp = rate.on_sent(now, 0);
            rate.on_acked(now + MS * 10, stamp, now, 1000);
            rate.finish_ack(MS * 10);
            now += MS * 10;
        }
        let estimate = rate.bytes_per_second().unwrap();
        assert!((95_000..=105_000).contains(&estimate), "{estimate}");
    }

    #[test]
    fn application_limited_samples_only_raise_the_estimate() {
        let (mut rate, before) = run(MS, 100, false);
        let mut now = Instant::ZERO + MS * 10_000;
        for _ in 0..100 {
            rate.on_app_limited(0);
            let stamp = rate.on_sent(now, 0);
            rate.on_acked(now + MS * 10, stamp, now, 1000);
            assert!(rate.finish_ack(MS * 10).unwrap().app_limited);
            now += MS * 10;
        }
        assert_eq!(rate.bytes_per_second(), before);
        let (_, from_nothing) = run(MS, 100, true);
        assert!(from_nothing.unwrap() > 900_000);
    }

    #[test]
    fn bunched_acknowledgements_do_not_inflate_it() {
        let mut rate = Rate::new(Instant::ZERO);
        let stamps: alloc::vec::Vec<_> = (0..10u32)
            .map(|n| {
                let at = Instant::ZERO + MS * n;
                (at, rate.on_sent(at, u64::from(n) * 1000))
            })
            .collect();
        let now = Instant::ZERO + MS * 20;
        for (at, stamp) in stamps {
            rate.on_acked(now, stamp, at, 1000);
            rate.finish_ack(MS * 10);
        }
        assert!(rate.bytes_per_second().unwrap() <= 1_000_000);
    }

    #[test]
    fn conversions_do_not_overflow() {
        assert_eq!(transmit_time(1000, 1_000_000), MS);
        assert_eq!(bytes_in(1_000_000, MS), 1000);
        assert_eq!(bytes_in(u64::MAX, Duration::MAX), u64::MAX);
        assert!(transmit_time(u64::MAX, 0) > Duration::from_secs(1));
    }
}
