//! What one direction of an emulated link does to packets, and how that is written.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// The properties of one direction of a link. All may change while packets are under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Bits of IP packets the line carries in a second.
    pub rate_bits_per_second: u64,
    /// Time from the last bit sent to the packet's arrival, one way.
    pub delay: Duration,
    /// A random extra of up to this much on top of `delay`. Packets keep their order.
    pub jitter: Duration,
    /// Share of packets that vanish at random, from 0 to 1.
    pub loss: f64,
    /// Bytes that may wait for the line, with the packet being sent; what does not fit is dropped.
    pub queue_bytes: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            rate_bits_per_second: 1_000_000_000,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            queue_bytes: 256 << 10,
        }
    }
}

impl Shape {
    /// A line of so many Mbit/s and so many milliseconds one way, with a queue of 256 KiB and no faults.
    #[must_use]
    pub fn new(rate_mbit_per_second: u64, delay: Duration) -> Self {
        Self { rate_bits_per_second: rate_mbit_per_second * 1_000_000, delay, ..Self::default() }
    }

    /// The same line with a queue of so many KiB.
    #[must_use]
    pub fn with_queue_kib(self, queue_kib: usize) -> Self {
        Self { queue_bytes: queue_kib << 10, ..self }
    }

    /// The same line losing this share of packets (0 to 1) at random.
    #[must_use]
    pub fn with_loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// Applies `key=value[,key=value…]` on top of this shape: `rate=100mbit,delay=10ms,jitter=1ms,loss=1%,queue=256k`.
    ///
    /// # Errors
    /// Names the key or value that makes no sense.
    pub fn changed_by(self, settings: &str) -> Result<Self> {
        let mut shape = self;
        for setting in settings.split(',') {
            let (key, value) =
                setting.split_once('=').with_context(|| format!("{setting:?}: want key=value"))?;
            match key {
                "rate" => {
                    let rate = scaled(value, &[("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)])?;
                    ensure!(rate >= 1000.0, "rate={value}: a line carries at least 1kbit");
                    shape.rate_bits_per_second = whole(rate)?;
                }
                "delay" => shape.delay = duration(value)?,
                "jitter" => shape.jitter = duration(value)?,
                "loss" => {
                    shape.loss = scaled(value, &[("%", 0.01)])?;
                    ensure!(shape.loss <= 1.0, "loss={value}: want 0% to 100%");
                }
                "queue" => {
                    let bytes = whole(scaled(value, &[("k", 1024.0), ("m", 1024.0 * 1024.0)])?)?;
                    shape.queue_bytes = usize::try_from(bytes)?;
                }
                _ => bail!("unknown setting {key:?}: want rate, delay, jitter, loss or queue"),
            }
        }
        Ok(shape)
    }
}

impl FromStr for Shape {
    type Err = anyhow::Error;

    fn from_str(settings: &str) -> Result<Self> {
        Self::default().changed_by(settings)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.rate_bits_per_second;
        if rate >= 1_000_000 {
            write!(f, "{} Mbit/s", Trimmed(rate, 1_000_000))?;
        } else {
            write!(f, "{} kbit/s", Trimmed(rate, 1000))?;
        }
        write!(f, " {} ms", Trimmed(u64::try_from(self.delay.as_micros()).unwrap_or(u64::MAX), 1000))?;
        if !self.jitter.is_zero() {
            write!(f, " ±{} ms", Trimmed(u64::try_from(self.jitter.as_micros()).unwrap_or(u64::MAX), 1000))?;
        }
        if self.loss > 0.0 {
            write!(f, " loss {:.1} %", self.loss * 100.0)?;
        }
        write!(f, " queue {} KiB", self.queue_bytes >> 10)
    }
}

/// A quotient with as many decimals as it needs, at most three.
struct Trimmed(u64, u64);

impl fmt::Display for Trimmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, unit) = *self;
        let thousandths = value % unit * 1000 / unit;
        if thousandths == 0 {
            return write!(f, "{}", value / unit);
        }
        let decimals = format!("{thousandths:03}");
        write!(f, "{}.{}", value / unit, decimals.trim_end_matches('0'))
    }
}

fn scaled(text: &str, suffixes: &[(&str, f64)]) -> Result<f64> {
    let (number, factor) = suffixes
        .iter()
        .find_map(|&(suffix, factor)| text.strip_suffix(suffix).map(|number| (number, factor)))
        .unwrap_or((text, 1.0));
    let number: f64 = number.parse().with_context(|| format!("{text:?}: not a number"))?;
    ensure!(number.is_finite() && number >= 0.0, "{text:?}: want a number from 0");
    Ok(number * factor)
}

fn duration(text: &str) -> Result<Duration> {
    let seconds = scaled(text, &[("ms", 1e-3), ("us", 1e-6), ("s", 1.0)])?;
    Ok(Duration::try_from_secs_f64(seconds)?)
}

fn whole(number: f64) -> Result<u64> {
    ensure!(number < 1e15, "{number}: too large");
    // Checked above to be within what a u64 holds.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked right above")]
    Ok(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_change_only_what_they_name() {
        let shape: Shape = "rate=40mbit,delay=40ms,loss=1%,queue=64k".parse().unwrap();
        assert_eq!(shape.rate_bits_per_second, 40_000_000);
        assert_eq!(shape.delay, Duration::from_millis(40));
        assert_eq!(shape.queue_bytes, 65_536);
        let slower = shape.changed_by("rate=500kbit").unwrap();
        assert_eq!(slower, Shape { rate_bits_per_second: 500_000, ..shape });
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "rate",
            "rate=fast",
            "rate=0",
            "rate=-1",
            "rate=1e99",
            "loss=101%",
            "delay=NaN",
            "colour=red",
        ] {
            assert!(bad.parse::<Shape>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn shown_as_a_person_would_write_it() {
        let shape: Shape = "rate=1.5mbit,delay=300us,loss=1%".parse().unwrap();
        assert_eq!(shape.to_string(), "1.5 Mbit/s 0.3 ms loss 1.0 % queue 256 KiB");
        assert_eq!(Shape::new(100, Duration::from_millis(2)).to_string(), "100 Mbit/s 2 ms queue 256 KiB");
    }
}
