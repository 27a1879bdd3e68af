//! What arrived within the measured window, on the receiver's clock.

use std::time::{Duration, Instant};

/// Counts the bytes of one test, of all its streams together.
#[derive(Debug)]
pub(crate) struct Meter {
    omit: Duration,
    measure: Duration,
    /// When the first byte arrived.
    started: Option<Instant>,
    /// When the last counted byte arrived.
    last: Option<Instant>,
    bytes: u64,
}

/// What a meter read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Measured {
    /// Bytes within the window.
    pub(crate) bytes: u64,
    /// Length of the window: as asked for, or shorter when the data ended early.
    pub(crate) time: Duration,
}

impl Meter {
    /// A meter that leaves the first `omit` out and counts for `measure`.
    pub(crate) fn new(omit: Duration, measure: Duration) -> Self {
        Self { omit, measure, started: None, last: None, bytes: 0 }
    }

    /// Counts bytes that arrived at `now`. The first call starts the clock.
    pub(crate) fn record(&mut self, now: Instant, bytes: u64) {
        let since_start = now.saturating_duration_since(*self.started.get_or_insert(now));
        if since_start >= self.omit && since_start < self.omit + self.measure {
            self.bytes = self.bytes.saturating_add(bytes);
            self.last = Some(now);
        }
    }

    /// When the window ends, once the first byte has arrived.
    pub(crate) fn end(&self) -> Option<Instant> {
        self.started?.checked_add(self.omit + self.measure)
    }

    /// The result at `now`: of the whole window, or up to the last byte if the data ended before it.
    pub(crate) fn read(&self, now: Instant) -> Measured {
        let (Some(started), Some(last)) = (self.started, self.last) else {
            return Measured::default();
        };
        let until =
            if self.end().is_some_and(|end| now >= end) { self.omit + self.measure } else { last - started };
        Measured { bytes: self.bytes, time: until.saturating_sub(self.omit) }
    }
}

impl Measured {
    /// Megabytes (10⁶) a second; 0 when nothing was measured.
    pub(crate) fn mbytes_per_second(&self) -> f64 {
        let seconds = self.time.as_secs_f64();
        if seconds > 0.0 { self.bytes as f64 / seconds / 1e6 } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn warm_up_and_tail_are_left_out() {
        let start = Instant::now();
        let mut meter = Meter::new(2 * SECOND, 10 * SECOND);
        assert_eq!(meter.end(), None);
        for second in 0..20 {
            meter.record(start + SECOND * second + SECOND / 2, 1_000_000);
        }
        let measured = meter.read(start + 20 * SECOND);
        assert_eq!(measured, Measured { bytes: 10_000_000, time: 10 * SECOND });
        assert!((measured.mbytes_per_second() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn data_that_ends_early_shortens_the_window() {
        let start = Instant::now();
        let mut meter = Meter::new(SECOND, 10 * SECOND);
        [0, 2, 3].into_iter().for_each(|second| meter.record(start + SECOND * second, 500));
        assert_eq!(meter.read(start + 4 * SECOND), Measured { bytes: 1000, time: 2 * SECOND });
    }

    #[test]
    fn nothing_measured_is_no_division_by_zero() {
        let mut meter = Meter::new(SECOND, SECOND);
        meter.record(Instant::now(), 7);
        assert_eq!(meter.read(Instant::now()).mbytes_per_second(), 0.0);
    }
}
