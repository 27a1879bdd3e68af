//! LINK arguments: `KIND:ADDRESS[,key=value…]`.

use std::fmt;
use std::str::FromStr;

use bondwire::Policy;
use bondwire_tcp::{AddressError, TcpAddress};

/// Keys that every kind of link has.
const COMMON_KEYS: [&str; 3] = ["policy", "cap", "weight"];
/// Keys of `tcp:` links.
const TCP_KEYS: [&str; 3] = ["iface", "source", "cc"];
/// Kinds that the design names and this build lacks.
const KINDS_TO_COME: [&str; 3] = ["usb", "serial", "gadget"];
/// The right form of a link, for error messages.
const FORM: &str = "tcp:HOST[:PORT][,key=value...]";

/// One link of a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkSpec {
    /// What the user wrote, for messages.
    text: String,
    /// Where it leads, with the options of its kind.
    pub(crate) address: TcpAddress,
    pub(crate) policy: Policy,
}

/// What is wrong with a LINK argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkSpecError {
    #[error("no kind of link; write {FORM}, for example tcp:{0}")]
    NoKind(String),
    #[error("unknown kind of link {0:?}; this build has tcp; write {FORM}")]
    UnknownKind(String),
    #[error("{0} links are not in this build yet; it has tcp; write {FORM}")]
    KindToCome(&'static str),
    #[error("no address; write {FORM}, for example tcp:192.0.2.1:7700")]
    NoAddress,
    #[error("a space in the address; write {FORM}, and quote nothing inside it")]
    Space,
    #[error("{0:?} is not key=value; write {FORM}")]
    NotKeyValue(String),
    #[error("unknown key {key:?}{}; tcp links have {}", nearest_hint(.nearest), key_list())]
    UnknownKey { key: String, nearest: Option<&'static str> },
    #[error("key {0} stands there twice; keep one of them")]
    RepeatedKey(String),
    #[error("{0}= has no value; write {0}=VALUE")]
    EmptyValue(String),
    #[error("policy={0} is none of active, backup, paused")]
    Policy(String),
    #[error("{0}= is not supported yet: the bond measures each link and shares data by itself; leave it out")]
    Unsupported(&'static str),
    #[error(transparent)]
    Tcp(#[from] AddressError),
}

impl FromStr for LinkSpec {
    type Err = LinkSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = strip_kind(text)?;
        if rest.contains(char::is_whitespace) {
            return Err(LinkSpecError::Space);
        }
        let mut parts = rest.split(',');
        let address = parts.next().unwrap_or_default();
        if address.is_empty() {
            return Err(LinkSpecError::NoAddress);
        }
        let mut tcp_address = address.to_owned();
        let mut policy = Policy::default();
        let mut seen: Vec<&str> = Vec::new();
        for part in parts {
            let (key, value) = key_value(part)?;
            if seen.contains(&key) {
                return Err(LinkSpecError::RepeatedKey(key.to_owned()));
            }
            seen.push(key);
            match key {
                "policy" => policy = parse_policy(value)?,
                "cap" => return Err(LinkSpecError::Unsupported("cap")),
                "weight" => return Err(LinkSpecError::Unsupported("weight")),
                _ => {
                    tcp_address.push(',');
                    tcp_address.push_str(part);
                }
            }
        }
        Ok(Self { text: text.to_owned(), address: tcp_address.parse()?, policy })
    }
}

impl fmt::Display for LinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Takes `tcp:` or `tcp://` off, and explains what else stands there.
fn strip_kind(text: &str) -> Result<&str, LinkSpecError> {
    let Some((kind, rest)) = text.split_once(':') else {
        return Err(match known_kind(text) {
            Some(Ok(())) => LinkSpecError::NoAddress,
            Some(Err(to_come)) => to_come,
            None => LinkSpecError::NoKind(text.to_owned()),
        });
    };
    match known_kind(kind) {
        Some(Ok(())) => Ok(rest.strip_prefix("//").unwrap_or(rest)),
        Some(Err(to_come)) => Err(to_come),
        // `10.0.0.1:7700` and `[fe80::1]:7700` lack the kind; `udp:10.0.0.1` names a strange one.
        None if kind.contains(['.', '[']) || kind == "localhost" || kind.is_empty() => {
            Err(LinkSpecError::NoKind(text.trim_start_matches(':').to_owned()))
        }
        None => Err(LinkSpecError::UnknownKind(kind.to_owned())),
    }
}

fn known_kind(kind: &str) -> Option<Result<(), LinkSpecError>> {
    if kind.eq_ignore_ascii_case("tcp") {
        return Some(Ok(()));
    }
    let to_come = KINDS_TO_COME.into_iter().find(|known| kind.eq_ignore_ascii_case(known))?;
    Some(Err(LinkSpecError::KindToCome(to_come)))
}

fn parse_policy(text: &str) -> Result<Policy, LinkSpecError> {
    match text {
        "active" => Ok(Policy::Active),
        "backup" => Ok(Policy::Backup),
        "paused" => Ok(Policy::Paused),
        other => Err(LinkSpecError::Policy(other.to_owned())),
    }
}

fn key_value(part: &str) -> Result<(&str, &str), LinkSpecError> {
    let Some((key, value)) = part.split_once('=') else {
        return Err(LinkSpecError::NotKeyValue(part.to_owned()));
    };
    if !all_keys().any(|known| known == key) {
        return Err(LinkSpecError::UnknownKey { key: key.to_owned(), nearest: nearest(key) });
    }
    if value.is_empty() {
        return Err(LinkSpecError::EmptyValue(key.to_owned()));
    }
    Ok((key, value))
}

fn all_keys() -> impl Iterator<Item = &'static str> {
    TCP_KEYS.into_iter().chain(COMMON_KEYS)
}

fn key_list() -> String {
    all_keys().collect::<Vec<_>>().join(", ")
}

/// The valid key that `key` was likely meant to be.
fn nearest(key: &str) -> Option<&'static str> {
    let likeness = |known: &str| strsim::jaro_winkler(known, &key.to_ascii_lowercase());
    let best = all_keys().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.6).then_some(best)
}

fn nearest_hint(nearest: &Option<&'static str>) -> String {
    nearest.map(|key| format!("; did you mean {key:?}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_parse() {
        let link: LinkSpec = "tcp:192.0.2.1:7700,iface=eth0,policy=backup,cc=bbr".parse().unwrap();
        assert_eq!(link.address.to_string(), "192.0.2.1:7700,iface=eth0,cc=bbr");
        assert_eq!(link.policy, Policy::Backup);
        assert_eq!(link.to_string(), "tcp:192.0.2.1:7700,iface=eth0,policy=backup,cc=bbr");
        for same in ["tcp:[2001:db8::1]:7700", "tcp://[2001:db8::1]:7700", "TCP:[2001:db8::1]:7700"] {
            assert_eq!(same.parse::<LinkSpec>().unwrap().address.to_string(), "[2001:db8::1]:7700");
        }
    }

    #[test]
    fn the_nearest_key_is_named() {
        for (key, meant) in [("polcy", "policy"), ("ifac", "iface"), ("src", "source"), ("CC", "cc")] {
            let message = format!("tcp:host,{key}=x").parse::<LinkSpec>().unwrap_err().to_string();
            assert!(message.contains(&format!("did you mean {meant:?}")), "{message}");
        }
        let message = "tcp:host,zzz=x".parse::<LinkSpec>().unwrap_err().to_string();
        assert_eq!(message, "unknown key \"zzz\"; tcp links have iface, source, cc, policy, cap, weight");
    }
}
