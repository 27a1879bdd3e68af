//! Noticing that the host was suspended, or that this program was stopped.
//!
//! Timers do not notice: their clock stands still while the host sleeps. So a clock that goes on is read at each tick.

use std::time::Duration;

/// What a tick may be late on a busy host before it counts as sleep.
const LATE: Duration = Duration::from_secs(2);

/// Watches the clock from tick to tick.
pub(super) struct Sleep {
    period: Duration,
    last: Option<Duration>,
}

impl Sleep {
    /// To be asked every `period`.
    pub(super) fn new(period: Duration) -> Self {
        Self { period, last: now() }
    }

    /// How long everything stood still since the last tick, if it did.
    pub(super) fn noticed(&mut self) -> Option<Duration> {
        self.tick(now())
    }

    fn tick(&mut self, now: Option<Duration>) -> Option<Duration> {
        let last = std::mem::replace(&mut self.last, now)?;
        let still = now?.saturating_sub(last).saturating_sub(self.period);
        (still > LATE).then_some(still)
    }
}

/// A clock that goes on while the host is suspended (clock_gettime(2), CLOCK_BOOTTIME).
#[cfg(target_os = "linux")]
fn now() -> Option<Duration> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(now).ok()
}

/// Elsewhere the time of day is the clock that goes on; one that was set looks like sleep, and costs a probe.
#[cfg(not(target_os = "linux"))]
fn now() -> Option<Duration> {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_is_told_from_a_busy_host() {
        let seconds = Duration::from_secs_f64;
        let mut sleep = Sleep { period: seconds(1.0), last: Some(seconds(100.0)) };
        for (now, noticed) in
            [(101.0, None), (102.1, None), (105.0, None), (165.0, Some(59.0)), (166.0, None), (10.0, None)]
        {
            assert_eq!(sleep.tick(Some(seconds(now))), noticed.map(seconds), "{now}");
        }
        assert_eq!(sleep.tick(None), None);
        assert_eq!(sleep.tick(Some(seconds(900.0))), None, "nothing to compare with");
    }

    #[test]
    fn the_clock_goes_on() {
        assert!(now().unwrap() <= now().unwrap());
    }
}
