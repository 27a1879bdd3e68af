//! Rates, and how busy the processors were meanwhile.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bondwire_bench::stats::Spread;
use tokio::task::JoinSet;

/// What one measurement showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) bytes_per_second: f64,
    /// Share of the processors' time in which they had nothing to do.
    pub(crate) idle: f64,
}

/// How long a measurement takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Time until everything runs evenly.
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
}

/// Traffic that goes on until it is dropped.
#[derive(Default)]
pub(crate) struct Traffic {
    /// Each ends only when something fails.
    tasks: JoinSet<Result<Infallible>>,
    received: Arc<AtomicU64>,
}

impl Traffic {
    /// For what counts already.
    pub(crate) fn counting(received: Arc<AtomicU64>) -> Self {
        Self { received, ..Self::default() }
    }

    /// Counts what arrives.
    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }

    pub(crate) fn spawn(&mut self, task: impl Future<Output = Result<Infallible>> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Keeps something alive that the traffic needs.
    pub(crate) fn keep(&mut self, kept: impl Send + 'static) {
        self.tasks.spawn(async {
            let never = std::future::pending().await;
            drop(kept);
            never
        });
    }

    pub(crate) async fn measure(mut self, window: Window) -> Result<Sample> {
        let sample = tokio::select! {
            sample = measure(&self.received, window) => sample,
            Some(failed) = self.tasks.join_next() => match failed.context("a task panicked")?? {},
        };
        // What a link holds is free only when its tasks are gone.
        self.tasks.shutdown().await;
        sample
    }
}

async fn measure(received: &AtomicU64, window: Window) -> Result<Sample> {
    tokio::time::sleep(window.warm_up).await;
    let (begun, before, busy) = (Instant::now(), received.load(Ordering::Relaxed), Processors::now()?);
    tokio::time::sleep(window.time).await;
    let bytes = received.load(Ordering::Relaxed) - before;
    let sample = Sample {
        bytes_per_second: bytes as f64 / begun.elapsed().as_secs_f64(),
        idle: Processors::now()?.idle_since(busy),
    };
    ensure!(bytes > 0, "nothing arrived");
    Ok(sample)
}

/// Time of all processors so far, in the kernel's ticks.
#[derive(Clone, Copy)]
pub(crate) struct Processors {
    idle: u64,
    all: u64,
}

impl Processors {
    pub(crate) fn now() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Self::parse(&text).context("cannot understand /proc/stat")
    }

    /// proc(5): the first line has user, nice, system, idle, iowait and so on.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        Some(Self { idle: ticks.get(3)? + ticks.get(4)?, all: ticks.iter().take(8).sum() })
    }

    pub(crate) fn idle_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.idle.saturating_sub(before.idle) as f64 / all as f64
    }
}

/// The middle of some samples, by rate and by idle time each.
pub(crate) fn middle(samples: &[Sample]) -> (Spread, Spread) {
    let of = |value: fn(&Sample) -> f64| Spread::of(&samples.iter().map(value).collect::<Vec<_>>());
    (of(|sample| sample.bytes_per_second), of(|sample| sample.idle))
}

/// Millions of bytes per second, for people.
pub(crate) fn mbytes(spread: Spread) -> String {
    format!("{:.2} ({:.2} to {:.2})", spread.median / 1e6, spread.min / 1e6, spread.max / 1e6)
}

/// A share, for people.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_the_kernels() {
        let before = Processors::parse("cpu  10 0 20 50 10 0 0 0 7 0\ncpu0 …\n").unwrap();
        let after = Processors::parse("cpu  30 0 40 90 30 0 0 0 9 0\n").unwrap();
        assert!((after.idle_since(before) - 0.6).abs() < 1e-9);
        assert!(Processors::parse("intr 1 2 3").is_none());
    }
}
