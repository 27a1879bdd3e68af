//! What goes over a control socket: one JSON object on each line, as `docs/CONTROL.md` describes it.

use std::num::NonZeroU8;
use std::time::Duration;

use bondwire::LinkPolicy;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::link_options::{KEEP_ALIVE_MIN, parse_policy};
use crate::speed::run::Direction;

/// Version of the protocol: rises when something that was there changes its meaning or goes.
pub(crate) const VERSION: u32 = 1;
/// Longest line of a request, in bytes: far above any command.
pub(crate) const REQUEST_MAX_BYTES: usize = 16 << 10;

/// Code of an error: a speed test met data that is not what was sent.
pub(crate) const DATA_WRONG: &str = "data-wrong";
/// Code of an error: a device is not plugged in, or not any more.
pub(crate) const GONE: &str = "gone";
/// Code of an error: no bond takes a device.
pub(crate) const NOT_WANTED: &str = "not-wanted";

/// First line of the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    pub(crate) version: String,
    pub(crate) name: String,
    pub(crate) command: String,
    pub(crate) pid: u32,
}

/// What a client asks for; the field `command` names it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Command {
    /// The bonds, their links and forwards.
    Status {},
    /// The messages above number `after` that are kept, and all that follow. Without a number only those that follow.
    Events { after: Option<u64> },
    /// Dials one more link.
    LinkAdd { bond: Option<u64>, link: String },
    /// Takes links out of the bond, and dials them no more.
    LinkRemove(Select),
    /// Changes what links are used for.
    LinkSet(LinkChange),
    /// Dials over a device that was plugged in: a USB device by its port, a serial port by its file.
    Attach { bond: Option<u64>, device: String },
    /// Takes a device that was attached out of its bond.
    Detach {
        device: String,
        /// Only if it is not there any more.
        #[serde(default)]
        if_gone: bool,
    },
    /// Opens one more forward, in the form of the option `-L`, `-R` or `-D` that `kind` names.
    ForwardAdd { bond: Option<u64>, kind: ForwardKind, forward: String },
    /// Closes a forward, by its number.
    ForwardRemove { bond: Option<u64>, number: u64 },
    /// Sets the level of the log, as RUST_LOG has it.
    Log { level: String },
    /// All that a maintainer would ask for, without secrets.
    Report {},
    /// A speed test over the running bond.
    Speed(SpeedTest),
    /// Ends the running command, as Ctrl-C does. The connection ends with it.
    Stop {},
}

/// Links of a bond.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Select {
    /// Number of the bond, where there are several.
    pub(crate) bond: Option<u64>,
    /// Number, name or LINK; `all` for all links.
    pub(crate) link: String,
}

/// What `bondwire speed` has as options.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpeedTest {
    /// Number of the bond, where there are several.
    pub(crate) bond: Option<u64>,
    pub(crate) seconds: u64,
    pub(crate) omit: u64,
    pub(crate) direction: Direction,
    pub(crate) streams: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ForwardKind {
    Local,
    Remote,
    Socks,
}

/// A change of links; what is not named stays.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkChange {
    /// Number of the bond, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bond: Option<u64>,
    /// Number, name or LINK; `all` for all links.
    pub(crate) link: String,
    /// `active`, `backup` or `paused`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tier: Option<u8>,
    /// 0 takes the weight away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) weight: Option<u8>,
    /// 0 takes the cap away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cap_bytes_per_second: Option<u64>,
    /// 0 goes back to the bond's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep_alive_seconds: Option<f64>,
}

impl LinkChange {
    /// The policy that `policy` becomes.
    pub(crate) fn apply(&self, policy: LinkPolicy) -> Result<LinkPolicy, CommandError> {
        let usage = match self.policy.as_deref() {
            None => policy.usage,
            Some(text) => parse_policy(text).ok_or_else(|| {
                CommandError::bad(format!("policy {text:?} is none of active, backup, paused"))
            })?,
        };
        let cap = |cap| Some(cap).filter(|&cap| cap > 0);
        Ok(LinkPolicy {
            usage,
            tier: self.tier.unwrap_or(policy.tier),
            weight: self.weight.map_or(policy.weight, NonZeroU8::new),
            cap_bytes_per_second: self.cap_bytes_per_second.map_or(policy.cap_bytes_per_second, cap),
        })
    }
}

impl LinkChange {
    /// The keep-alive interval that is wanted, if a change of it is: `None` inside is the bond's.
    pub(crate) fn keep_alive(&self) -> Result<Option<Option<Duration>>, CommandError> {
        let Some(seconds) = self.keep_alive_seconds else { return Ok(None) };
        match Duration::try_from_secs_f64(seconds) {
            Ok(Duration::ZERO) => Ok(Some(None)),
            Ok(interval) if interval >= KEEP_ALIVE_MIN => Ok(Some(Some(interval))),
            _ => Err(CommandError::bad(format!(
                "a keep-alive interval of {seconds} s cannot be; give at least {} s, or 0 for the bond's own",
                KEEP_ALIVE_MIN.as_secs_f64()
            ))),
        }
    }
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CommandError {
    /// `bad-request`, `not-found`, `not-here`, `refused`, `failed`, `data-wrong`, `gone` or `not-wanted`.
    pub(crate) code: String,
    pub(crate) message: String,
}

impl CommandError {
    pub(crate) fn new(code: &str, message: impl ToString) -> Self {
        Self { code: code.to_owned(), message: message.to_string() }
    }

    /// The request makes no sense.
    pub(crate) fn bad(message: impl ToString) -> Self {
        Self::new("bad-request", message)
    }

    /// There is no such link or forward.
    pub(crate) fn not_found(message: impl ToString) -> Self {
        Self::new("not-found", message)
    }

    /// Only the other end can do that.
    pub(crate) fn not_here(message: impl ToString) -> Self {
        Self::new("not-here", message)
    }

    /// It was tried, and did not work.
    pub(crate) fn failed(message: impl ToString) -> Self {
        Self::new("failed", message)
    }
}

/// Reads a request: its number, which the answer carries too, and the command.
pub(crate) fn parse(line: &[u8]) -> (Value, Result<Command, CommandError>) {
    let bad =
        |error: serde_json::Error| CommandError::bad(format!("not a request: {error}; see docs/CONTROL.md"));
    let mut object: serde_json::Map<String, Value> = match serde_json::from_slice(line) {
        Ok(object) => object,
        Err(error) => return (Value::Null, Err(bad(error))),
    };
    // Only what fits: an answer is never larger than needed because of its request.
    let id = object.remove("id").filter(Value::is_u64).unwrap_or(Value::Null);
    (id, serde_json::from_value(Value::Object(object)).map_err(bad))
}

#[cfg(test)]
mod tests {
    use bondwire::Policy;

    use super::*;

    #[test]
    fn requests_are_read_and_faults_named() {
        let (id, command) =
            parse(br#"{"id":7,"command":"link-set","link":"all","policy":"backup","tier":2}"#);
        assert_eq!(id, 7);
        let Ok(Command::LinkSet(change)) = command else { panic!("{command:?}") };
        assert_eq!(
            (change.link.as_str(), change.policy.as_deref(), change.tier),
            ("all", Some("backup"), Some(2))
        );
        let cases: [(&[u8], &str); 7] = [
            (b"GET / HTTP/1.1", "not a request: expected value at line 1 column 1"),
            (b"[]", "not a request: invalid type: sequence, expected a map"),
            (b"{}", "missing field `command`"),
            (br#"{"command":"statsu"}"#, "unknown variant `statsu`"),
            (br#"{"command":"status","x":1}"#, "unknown field `x`"),
            (br#"{"command":"link-set","link":"all","cap":1}"#, "unknown field `cap`"),
            (b"\xff\xfe", "not a request"),
        ];
        for (line, expected) in cases {
            let (_, command) = parse(line);
            let error = command.unwrap_err();
            assert!(error.message.contains(expected), "{}", error.message);
            assert_eq!(error.code, "bad-request");
        }
        let huge = format!(r#"{{"id":"{}","command":"status"}}"#, "x".repeat(5000));
        assert_eq!(parse(huge.as_bytes()).0, Value::Null);
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let before = LinkPolicy {
            tier: 3,
            weight: NonZeroU8::new(2),
            cap_bytes_per_second: Some(9),
            ..Policy::Backup.into()
        };
        assert_eq!(LinkChange::default().apply(before), Ok(before));
        let change = LinkChange {
            policy: Some("active".into()),
            weight: Some(0),
            cap_bytes_per_second: Some(0),
            ..LinkChange::default()
        };
        let after = LinkPolicy { tier: 3, ..LinkPolicy::default() };
        assert_eq!(change.apply(before), Ok(after));
        let wrong = LinkChange { policy: Some("idle".into()), ..LinkChange::default() };
        assert!(wrong.apply(before).is_err());
    }
}
