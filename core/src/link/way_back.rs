//! Which part of a longer round trip is the way back.
//!
//! An acknowledgement says when the packet arrived, by the peer's clock. The difference of the clocks is unknown, but not by
//! how much it seems to change: that is the queue on the way there, as in LEDBAT (RFC 6817 section 2.1). The rest of what the
//! round trip has grown is the way back. Bytes whose acknowledgements are on a long way back no longer fill the link, so
//! they need not be counted against it.

use crate::time::{Duration, Instant};

/// Age after which a reference is replaced, at least: clocks drift apart by 1 ms in that time, at 100 ppm.
const REFERENCE_AGE: Duration = Duration::from_secs(10);
/// Parts of the smoothed value that a new sample replaces: one in so many.
const SMOOTHING: u32 = 8;
/// What the way back may take longer than the whole base round trip. A queue on the way there that is as old as the reference
/// counts as way back, too, so this bounds a mistake.
const BEYOND_BASE_MAX: Duration = Duration::from_millis(10);
/// The peer's clock counts microseconds, and starts over after so many bits.
pub(crate) const ARRIVAL_BITS: u32 = 30;

/// What is known of the way back on one link.
#[derive(Clone, Debug, Default)]
pub(crate) struct WayBack {
    reference: Option<Sample>,
    /// The best sample since `since`, to become the reference.
    next: Option<Sample>,
    since: Instant,
    smoothed: Duration,
}

/// A packet that came through with little queueing.
#[derive(Clone, Copy, Debug)]
struct Sample {
    round_trip: Duration,
    /// The peer's clock at arrival less this end's at departure.
    difference: u32,
}

/// A time as an acknowledgement tells it: microseconds, the low [`ARRIVAL_BITS`] bits.
pub(crate) fn arrival_us(at: Instant) -> u64 {
    (at.as_nanos() / 1000) & ((1 << ARRIVAL_BITS) - 1)
}

impl WayBack {
    /// A packet sent at `sent_at` arrived at `arrival` and was acknowledged after `round_trip`.
    pub(crate) fn on_sample(
        &mut self,
        now: Instant,
        sent_at: Instant,
        arrival: u64,
        round_trip: Duration,
        base: Duration,
    ) {
        let departure = arrival_us(sent_at);
        // Both have at most 30 bits; only the difference between differences counts, so wrapping is right.
        let sample = Sample { round_trip, difference: (arrival as u32).wrapping_sub(departure as u32) };
        let reference = self.choose(now, sample);
        let grown = way_there_grown(reference.difference, sample.difference);
        let beyond = round_trip.saturating_sub(base);
        let back = beyond.saturating_sub(grown).min(base + BEYOND_BASE_MAX);
        self.smoothed = (self.smoothed * (SMOOTHING - 1) + back) / SMOOTHING;
    }

    /// By how much the way back takes longer than when nothing queues, smoothed.
    pub(crate) fn excess(&self) -> Duration {
        self.smoothed
    }

    /// The sample with the shortest round trip of the last ten to twenty seconds, `sample` included.
    fn choose(&mut self, now: Instant, sample: Sample) -> Sample {
        if now - self.since >= REFERENCE_AGE {
            self.reference = self.next.take();
            self.since = now;
        }
        let shorter = |known: &Sample| known.round_trip < sample.round_trip;
        self.next = Some(self.next.filter(shorter).unwrap_or(sample));
        let reference = self.reference.filter(shorter).unwrap_or(sample);
        self.reference = Some(reference);
        reference
    }
}

/// By how much `difference` says that the way there takes longer than `reference` does.
fn way_there_grown(reference: u32, difference: u32) -> Duration {
    // Sign-extends the 30 bits.
    let grown = (difference.wrapping_sub(reference) << (32 - ARRIVAL_BITS)) as i32 >> (32 - ARRIVAL_BITS);
    Duration::from_micros(u64::try_from(grown).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const BASE: Duration = Duration::from_millis(20);

    /// What is found after packets that queue for `there` and whose acknowledgements do for `back`, with the peer's clock ahead
    /// by `ahead_us`.
    fn found(ahead_us: u64, there: Duration, back: Duration) -> Duration {
        let mut way_back = WayBack::default();
        let mut now = Instant::ZERO + MS * 10_000;
        let mut packet = |now: Instant, there, back| {
            let sent_at = Instant::ZERO + ((now - Instant::ZERO) - (BASE + there + back));
            let arrived = (arrival_us(sent_at + BASE / 2 + there) + ahead_us) & ((1 << ARRIVAL_BITS) - 1);
            way_back.on_sample(now, sent_at, arrived, BASE + there + back, BASE);
        };
        packet(now, Duration::ZERO, Duration::ZERO);
        for _ in 0..100 {
            now += MS * 2;
            packet(now, there, back);
        }
        way_back.excess()
    }

    #[test]
    fn a_queue_on_the_way_there_is_none_on_the_way_back() {
        // Clocks that agree, that are about to wrap, and that are far apart.
        for ahead_us in [0, (1 << 30) - 110_000, 1 << 29, 123_456_789] {
            assert!(found(ahead_us, MS * 8, Duration::ZERO) < MS / 10);
            let back = found(ahead_us, MS * 3, MS * 8);
            assert!(back > MS * 79 / 10 && back <= MS * 8, "{back:?}");
            assert!(found(ahead_us, Duration::ZERO, MS * 500) <= BASE + BEYOND_BASE_MAX);
        }
    }

    #[test]
    fn a_clock_that_jumps_does_no_harm_and_is_forgotten() {
        let mut way_back = WayBack::default();
        for step in 0..30_000_u32 {
            let now = Instant::ZERO + MS * (100 + step);
            let sent_at = Instant::ZERO + MS * (100 + step - 20);
            let jumped = if step > 1000 { 5_000_000 } else { 0 };
            way_back.on_sample(now, sent_at, arrival_us(sent_at + MS * 10) + jumped, BASE + MS * 5, BASE);
            assert!(way_back.excess() <= MS * 5);
        }
        assert!(way_back.excess() > MS * 4, "the old difference is forgotten");
    }
}
