//! What every kind of link can be told: `policy=`, `tier=`, `weight=`, `cap=`, `keepalive=`, `quota=`, `reset-day=`.

use std::num::NonZeroU8;
use std::time::Duration;

use bondwire::limits::LINK_CAP_MIN_BYTES_PER_SECOND;
use bondwire::{DialerHandle, LinkPolicy, Policy};

/// Keys that every kind of link has.
pub(crate) const KEYS: [&str; 7] = ["policy", "tier", "weight", "cap", "keepalive", "quota", "reset-day"];
/// Shortest keep-alive interval: more often would be a load, not a sign of life.
pub(crate) const KEEP_ALIVE_MIN: Duration = Duration::from_millis(100);
/// Last day of the month that every month has.
const RESET_DAY_MAX: u8 = 28;

/// What a link is to be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LinkOptions {
    pub(crate) policy: LinkPolicy,
    /// Time without traffic after which it is probed; `None` is the bond's.
    pub(crate) keep_alive: Option<Duration>,
    /// Bytes that it may carry each month, both ways.
    pub(crate) quota_bytes: Option<u64>,
    /// Day of the month, in UTC, on which that begins anew.
    pub(crate) reset_day: Option<u8>,
}

/// What is wrong with an option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkOptionError {
    #[error("policy={0} is none of active, backup, paused")]
    Policy(String),
    #[error("tier={0} is no number from 0 to 255; links of tier 0 go first")]
    Tier(String),
    #[error("weight={0} is no number from 1 to 255, the link's share beside those of others")]
    Weight(String),
    #[error("cap={0}: {1}")]
    Cap(String, RateError),
    #[error("keepalive={0} is no number of seconds from 0.1 to 86400")]
    KeepAlive(String),
    #[error("quota={0}: {1}")]
    Quota(String, RateError),
    #[error("reset-day={0} is no day from 1 to 28")]
    ResetDay(String),
    #[error("reset-day= says when a quota begins anew; it needs quota=")]
    ResetWithoutQuota,
}

/// What is wrong with a rate or an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RateError {
    #[error(
        "write a number and a unit, such as 20Mbit or 2.5MB (units: bit, kbit, Mbit, Gbit, B, kB, MB, GB, TB)"
    )]
    Form,
    #[error("that is less than {LINK_CAP_MIN_BYTES_PER_SECOND} B, too little to keep a link answering")]
    TooSmall,
}

impl LinkOptions {
    /// Takes one of [`KEYS`] with its value.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), LinkOptionError> {
        let owned = || value.to_owned();
        match key {
            "policy" => {
                self.policy.usage = parse_policy(value).ok_or_else(|| LinkOptionError::Policy(owned()))?;
            }
            "tier" => self.policy.tier = value.parse().map_err(|_| LinkOptionError::Tier(owned()))?,
            "weight" => {
                let weight: NonZeroU8 = value.parse().map_err(|_| LinkOptionError::Weight(owned()))?;
                self.policy.weight = Some(weight);
            }
            "cap" => {
                let cap = parse_rate(value).map_err(|error| LinkOptionError::Cap(owned(), error))?;
                self.policy.cap_bytes_per_second = Some(cap).filter(|&cap| cap > 0);
            }
            "keepalive" => {
                self.keep_alive =
                    Some(parse_interval(value).ok_or_else(|| LinkOptionError::KeepAlive(owned()))?);
            }
            "quota" => {
                let bytes = parse_bytes(value).ok_or(RateError::Form);
                self.quota_bytes = Some(bytes.map_err(|error| LinkOptionError::Quota(owned(), error))?);
            }
            "reset-day" => {
                let day = value.parse().ok().filter(|day| (1..=RESET_DAY_MAX).contains(day));
                self.reset_day = Some(day.ok_or_else(|| LinkOptionError::ResetDay(owned()))?);
            }
            _ => {}
        }
        Ok(())
    }

    /// Looks at the options as a whole.
    pub(crate) fn check(&self) -> Result<(), LinkOptionError> {
        match (self.quota_bytes, self.reset_day) {
            (None, Some(_)) => Err(LinkOptionError::ResetWithoutQuota),
            _ => Ok(()),
        }
    }

    /// Whether nothing was said.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Tells a dialer what its links are to be used for.
    pub(crate) fn apply(&self, dialer: &DialerHandle) {
        dialer.set_policy(self.policy);
        dialer.set_keep_alive(self.keep_alive);
    }
}

/// `active`, `backup` or `paused`.
pub(crate) fn parse_policy(text: &str) -> Option<Policy> {
    [Policy::Active, Policy::Backup, Policy::Paused].into_iter().find(|policy| policy.to_string() == text)
}

/// A rate in bytes per second, with its unit: `20Mbit`, `2.5MB`, `2.5MB/s`. 0 needs no unit.
pub(crate) fn parse_rate(text: &str) -> Result<u64, RateError> {
    let rate = text.strip_suffix("/s").unwrap_or(text);
    match parse_bytes(rate).ok_or(RateError::Form)? {
        0 => Ok(0),
        rate if rate < LINK_CAP_MIN_BYTES_PER_SECOND => Err(RateError::TooSmall),
        rate => Ok(rate),
    }
}

/// An amount of bytes, with its unit. Units are decimal, as on every contract.
fn parse_bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 9] = [
        ("Gbit", 125e6),
        ("Mbit", 125e3),
        ("kbit", 125.0),
        ("bit", 0.125),
        ("TB", 1e12),
        ("GB", 1e9),
        ("MB", 1e6),
        ("kB", 1e3),
        ("B", 1.0),
    ];
    if text == "0" {
        return Some(0);
    }
    let matches = |unit: &str| {
        let (number, found) = text.split_at_checked(text.len().checked_sub(unit.len())?)?;
        found.eq_ignore_ascii_case(unit).then_some(number)
    };
    let (number, size) = UNITS.iter().find_map(|(unit, size)| Some((matches(unit)?, size)))?;
    let is_plain =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let bytes = Some(number).filter(|number| is_plain(number))?.parse::<f64>().ok()? * size;
    (bytes < 2f64.powi(62)).then_some(bytes as u64)
}

fn parse_interval(text: &str) -> Option<Duration> {
    let interval = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
    (KEEP_ALIVE_MIN..=Duration::from_secs(86_400)).contains(&interval).then_some(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        let good = [
            ("20Mbit", 2_500_000),
            ("2.5MB", 2_500_000),
            ("2.5MB/s", 2_500_000),
            ("1gbit", 125_000_000),
            ("9600bit", 1200),
            ("256B", 256),
            ("0", 0),
        ];
        for (text, rate) in good {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
        }
        for text in ["", "20", "MB", "-1MB", "1e3MB", "1.2.3MB", "20M", "infMB", "99999999999999TB", "é"] {
            assert_eq!(parse_rate(text), Err(RateError::Form), "{text}");
        }
        assert_eq!(parse_rate("255B"), Err(RateError::TooSmall));
    }

    #[test]
    fn options_are_read_and_faults_named() {
        let mut options = LinkOptions::default();
        let given = [
            ("policy", "backup"),
            ("tier", "2"),
            ("weight", "3"),
            ("cap", "1MB"),
            ("keepalive", "1.5"),
            ("quota", "5GB"),
            ("reset-day", "15"),
        ];
        for (key, value) in given {
            assert!(KEYS.contains(&key));
            options.set(key, value).unwrap();
        }
        let expected = LinkOptions {
            policy: LinkPolicy {
                usage: Policy::Backup,
                tier: 2,
                weight: NonZeroU8::new(3),
                cap_bytes_per_second: Some(1_000_000),
            },
            keep_alive: Some(Duration::from_millis(1500)),
            quota_bytes: Some(5_000_000_000),
            reset_day: Some(15),
        };
        assert_eq!(options, expected);
        let bad = [
            ("policy", "idle"),
            ("tier", "256"),
            ("weight", "0"),
            ("cap", "10"),
            ("keepalive", "0"),
            ("keepalive", "NaN"),
            ("quota", "much"),
            ("reset-day", "31"),
        ];
        for (key, value) in bad {
            let error = options.set(key, value).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{key}={value}")), "{error}");
        }
        assert_eq!(options, expected, "what is wrong changes nothing");
        let alone = LinkOptions { reset_day: Some(1), ..LinkOptions::default() };
        assert_eq!(alone.check(), Err(LinkOptionError::ResetWithoutQuota));
    }
}
