//! Bytes counted over time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The width of one bucket.
pub const BUCKET: Duration = Duration::from_millis(100);

/// Bytes received in each tenth of a second, from the first byte on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Series {
    /// When the first byte came, on [`super::clock`].
    pub start_ns: u64,
    /// Bytes in each bucket.
    pub buckets: Vec<u64>,
    /// When the latest bytes came, on [`super::clock`].
    pub last_ns: u64,
    /// For each bucket the longest time for which nothing came before an arrival in it, in nanoseconds.
    pub gaps_ns: Vec<u64>,
}

impl Series {
    /// Counts bytes that came at `now_ns`, not before those already counted.
    pub fn add(&mut self, now_ns: u64, bytes: u64) {
        if self.buckets.is_empty() {
            self.start_ns = now_ns;
            self.last_ns = now_ns;
        }
        let gap_ns = now_ns.saturating_sub(self.last_ns);
        self.last_ns = now_ns;
        let index =
            usize::try_from((now_ns - self.start_ns) / BUCKET.as_nanos() as u64).unwrap_or(usize::MAX);
        if self.buckets.len() <= index {
            self.buckets.resize(index + 1, 0);
            self.gaps_ns.resize(index + 1, 0);
        }
        self.buckets[index] += bytes;
        self.gaps_ns[index] = self.gaps_ns[index].max(gap_ns);
    }

    /// All bytes counted.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Mean rate in MB/s from `from` to `to` after the first byte, in whole buckets. Time after the last byte
    /// counts as silence.
    #[must_use]
    pub fn mbytes_per_second(&self, from: Duration, to: Duration) -> f64 {
        let (from, to) = (index(from), index(to));
        let width = to.saturating_sub(from).max(1);
        let bytes: u64 = self.buckets.iter().take(to).skip(from).sum();
        bytes as f64 / 1e6 / (width as f64 * BUCKET.as_secs_f64())
    }

    /// The longest time for which nothing came, among gaps that ended from `from` to `to` after the first byte, in
    /// whole buckets.
    #[must_use]
    pub fn longest_gap(&self, from: Duration, to: Duration) -> Duration {
        let gaps = self.gaps_ns.iter().take(index(to)).skip(index(from));
        Duration::from_nanos(gaps.copied().max().unwrap_or(0))
    }

    /// The time after the first byte at which `now_ns` lies.
    #[must_use]
    pub fn since_start(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(now_ns.saturating_sub(self.start_ns))
    }
}

/// The bucket that begins at or before `at`.
fn index(at: Duration) -> usize {
    usize::try_from(at.as_nanos() / BUCKET.as_nanos()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_window_asked_for() {
        let mut series = Series::default();
        for tenth in 0..20 {
            let bytes = if tenth < 10 { 100_000 } else { 200_000 };
            series.add(5_000_000_000 + tenth * 100_000_000, bytes);
        }
        let second = Duration::from_secs(1);
        assert!((series.mbytes_per_second(Duration::ZERO, second) - 1.0).abs() < 1e-9);
        assert!((series.mbytes_per_second(second, second * 2) - 2.0).abs() < 1e-9);
        assert!((series.mbytes_per_second(second, second * 3) - 1.0).abs() < 1e-9);
        assert_eq!(series.longest_gap(Duration::ZERO, second * 3), BUCKET);
        series.add(7_500_000_000, 1);
        assert_eq!(series.longest_gap(Duration::ZERO, second * 2), BUCKET);
        assert_eq!(series.longest_gap(second * 2, second * 3), BUCKET * 6);
    }
}
