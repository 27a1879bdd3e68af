use core::ops::{Add, Sub};
pub use core::time::Duration;

/// A point in monotonic time, in microseconds since an origin that the caller chooses once: the start of the program,
/// or the reset of the microcontroller.
///
/// Arithmetic saturates: a clock that jumps can delay or hasten timers, never panic.
///
/// ```
/// use bondwire_frame::{Duration, Instant};
/// let start = Instant::from_micros(5);
/// assert_eq!((start + Duration::from_millis(1)) - start, Duration::from_millis(1));
/// assert_eq!(start - (start + Duration::from_millis(1)), Duration::ZERO);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Instant(u64);

impl Instant {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The instant `micros` microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The instant `millis` milliseconds after the origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}
