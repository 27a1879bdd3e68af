//! Whether so much arrives damaged that a lower rate would carry more.

use bondwire_frame::{Counters, Instant};

use crate::limits::{NOISE_MIN_FRAMES, NOISE_WINDOW};

/// Part of the frames that must be damaged: with fewer, going down a step, which costs a third to a half of the rate,
/// would lose more than it saves.
const BAD_PART: u64 = 3;

/// Counts of one window after the other.
#[derive(Clone, Debug)]
pub(super) struct NoiseWatch {
    begun: Instant,
    good: u64,
    bad: u64,
}

impl NoiseWatch {
    pub(super) fn new(now: Instant) -> Self {
        Self { begun: now, good: 0, bad: 0 }
    }

    /// Begins a window: what came before was another rate.
    pub(super) fn restart(&mut self, now: Instant, counters: &Counters, resyncs: u64) {
        *self = Self { begun: now, good: counters.received.frames, bad: counters.checksum_errors + resyncs };
    }

    /// Whether the window that ends now was bad. Ends it, if it is time.
    pub(super) fn is_bad(&mut self, now: Instant, counters: &Counters, resyncs: u64) -> bool {
        if now < self.begun + NOISE_WINDOW {
            return false;
        }
        let good = counters.received.frames - self.good;
        let bad = counters.checksum_errors + resyncs - self.bad;
        self.restart(now, counters, resyncs);
        bad >= NOISE_MIN_FRAMES && bad * BAD_PART >= good + bad
    }
}
