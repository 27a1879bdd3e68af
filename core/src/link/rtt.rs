//! Round-trip time: smoothed (RFC 6298 section 2) and base (windowed minimum).

use crate::limits;
use crate::time::{Duration, Instant};

/// Variation below which a timer would fire on the noise of a host's scheduler.
const VARIATION_MIN: Duration = Duration::from_millis(1);
/// Age of the base round trip after which it must be seen again.
const BASE_MAX_AGE: Duration = Duration::from_secs(10);

/// Part of the base round trip that bytes in flight may add to it and be taken for few.
pub(super) const UNQUEUED_SHARE: u32 = 8;

#[derive(Clone, Debug)]
pub(crate) struct Rtt {
    smoothed: Option<Duration>,
    variation: Duration,
    base: Option<Duration>,
    /// When a sample within 5 % of `base` was last seen.
    base_seen: Instant,
    refresh: Option<Refresh>,
}

/// The window is halved for a round trip so that the queue drains and the base can be seen.
#[derive(Clone, Debug)]
struct Refresh {
    ends: Instant,
    lowest: Option<Duration>,
}

impl Rtt {
    /// Starts from the handshake's sample, if there is one.
    pub(crate) fn new(now: Instant, sample: Option<Duration>) -> Self {
        let mut rtt =
            Self { smoothed: None, variation: Duration::ZERO, base: None, base_seen: now, refresh: None };
        if let Some(sample) = sample {
            rtt.on_sample(now, sample, Duration::ZERO);
        }
        rtt
    }

    /// The estimate after a silence that ended with an answer after `sample`. The base is that of before.
    pub(crate) fn restarted(&self, now: Instant, sample: Duration) -> Self {
        let base = self.base.map_or(sample, |base| base.min(sample));
        Self { base: Some(base), ..Self::new(now, Some(sample)) }
    }

    /// Takes the time from sending a packet to its acknowledgement, of which the peer says it held back `ack_delay`.
    pub(crate) fn on_sample(&mut self, now: Instant, sample: Duration, ack_delay: Duration) {
        let base = self.base.unwrap_or(sample);
        // As RFC 9002 section 5.3: never below the minimum by the peer's word alone.
        let sample = if sample > base + ack_delay { sample - ack_delay } else { sample };
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
            }
            Some(smoothed) => {
                let deviation = smoothed.abs_diff(sample);
                self.variation = (self.variation * 3 + deviation) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
        if self.base.is_none_or(|base| sample <= base + base / 20) {
            self.base_seen = now;
        }
        self.base = Some(self.base.map_or(sample, |base| base.min(sample)));
        if let Some(refresh) = &mut self.refresh {
            refresh.lowest = Some(refresh.lowest.map_or(sample, |lowest| lowest.min(sample)));
            if now >= refresh.ends {
                self.base = refresh.lowest;
                self.base_seen = now;
                self.refresh = None;
            }
        }
    }

    /// Whether the base is too old to be trusted and nothing is being done about it yet.
    pub(crate) fn needs_refresh(&self, now: Instant) -> bool {
        self.refresh.is_none() && self.base.is_some() && now - self.base_seen > BASE_MAX_AGE
    }

    /// Begins a refresh; the window is to be halved until [`Self::is_refreshing`] says no.
    pub(crate) fn begin_refresh(&mut self, now: Instant) {
        // Half the window drains within the first round trip; the second one shows the base.
        self.refresh = Some(Refresh { ends: now + self.smoothed() * 2, lowest: None });
    }

    pub(crate) fn is_refreshing(&self) -> bool {
        self.refresh.is_some()
    }

    /// Smoothed round trip, or the assumption before the first sample.
    pub(crate) fn smoothed(&self) -> Duration {
        self.smoothed.unwrap_or(limits::INITIAL_RTT)
    }

    /// Smoothed round trip once there was a sample.
    pub(crate) fn measured(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Round trip without queues: the windowed minimum.
    pub(crate) fn base(&self) -> Duration {
        self.base.unwrap_or(limits::INITIAL_RTT)
    }

    /// What is in flight takes an eighth of the base round trip at the most: the link could carry eight times as much.
    pub(crate) fn is_unqueued(&self) -> bool {
        self.smoothed.zip(self.base).is_some_and(|(smoothed, base)| smoothed <= base + base / UNQUEUED_SHARE)
    }

    /// `max(4·RTTVAR, 1 ms)`, or half the initial assumption times four before the first sample.
    pub(crate) fn variation4(&self) -> Duration {
        match self.smoothed {
            None => limits::INITIAL_RTT * 2,
            Some(_) => (self.variation * 4).max(VARIATION_MIN),
        }
    }

    /// Time after which an answer is overdue (RFC 9002 section 6.2.1).
    pub(crate) fn probe_timeout(&self, peer_ack_delay: Duration) -> Duration {
        self.smoothed() + self.variation4() + peer_ack_delay
    }

    /// Silence after which the link is suspect, given the bytes it holds and its rate.
    pub(crate) fn silence_limit(&self, queue: Duration) -> Duration {
        (self.smoothed() * 2 + self.variation4() + queue).max(limits::SUSPECT_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn first_sample_sets_all_three() {
        let rtt = Rtt::new(Instant::ZERO, Some(MS * 20));
        assert_eq!((rtt.smoothed(), rtt.base(), rtt.variation4()), (MS * 20, MS * 20, MS * 40));
    }

    #[test]
    fn ack_delay_is_taken_off_but_never_below_the_base() {
        let mut rtt = Rtt::new(Instant::ZERO, Some(MS * 20));
        rtt.on_sample(Instant::ZERO, MS * 30, MS * 5);
        assert_eq!(rtt.smoothed(), (MS * 20 * 7 + MS * 25) / 8);
        rtt.on_sample(Instant::ZERO, MS * 22, MS * 5);
        assert_eq!(rtt.base(), MS * 20, "22 − 5 is below the base: the delay is not believed");
    }

    #[test]
    fn after_a_silence_a_slow_link_gets_the_time_it_takes() {
        let before = Rtt::new(Instant::ZERO, Some(MS * 10));
        let after = before.restarted(Instant::ZERO, MS * 200);
        assert_eq!((after.base(), after.smoothed()), (MS * 10, MS * 200));
        assert!(after.silence_limit(Duration::ZERO) >= MS * 400);
    }

    #[test]
    fn a_longer_base_is_found_by_a_refresh_only() {
        let mut now = Instant::ZERO;
        let mut rtt = Rtt::new(now, Some(MS * 10));
        for _ in 0..2000 {
            now += MS * 10;
            rtt.on_sample(now, MS * 40, Duration::ZERO);
        }
        assert_eq!(rtt.base(), MS * 10);
        assert!(rtt.needs_refresh(now));
        rtt.begin_refresh(now);
        assert!(rtt.is_refreshing() && !rtt.needs_refresh(now));
        for _ in 0..20 {
            now += MS * 10;
            rtt.on_sample(now, MS * 35, Duration::ZERO);
        }
        assert!(!rtt.is_refreshing());
        assert_eq!(rtt.base(), MS * 35);
    }

    #[test]
    fn steady_samples_near_the_base_need_no_refresh() {
        let mut now = Instant::ZERO;
        let mut rtt = Rtt::new(now, Some(MS * 10));
        for _ in 0..3000 {
            now += MS * 10;
            rtt.on_sample(now, MS * 10 + MS / 4, Duration::ZERO);
            assert!(!rtt.needs_refresh(now));
        }
    }
}
