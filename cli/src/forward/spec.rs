//! Forward arguments: `-L [bind:]port:host:port[,class=…]`, and `--permit-open HOST:PORT`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use bondwire::Class;

/// The right form of `-L`, for error messages.
const FORM: &str = "[bind:]port:host:port[,class=interactive|bulk|redundant]";

/// A host name or address with a port, as it stands in a stream's label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Target {
    type Err = ForwardSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match split_colons(text).as_slice() {
            [host, port] => target(host, port),
            _ => Err(ForwardSpecError::Form),
        }
    }
}

/// One `-L`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalForward {
    /// Address to listen on: `None` is the loopback addresses, `*` all of them.
    pub(crate) bind: Option<String>,
    /// 0 lets the system choose.
    pub(crate) port: u16,
    pub(crate) target: Target,
    pub(crate) class: Class,
}

/// What is wrong with a forward argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ForwardSpecError {
    #[error("write {FORM}, for example 8080:localhost:80; IPv6 addresses stand in [brackets]")]
    Form,
    #[error("{0:?} is no port; ports are numbers from 1 to 65535; write {FORM}")]
    Port(String),
    #[error("the host is missing; write {FORM}")]
    NoHost,
    #[error("the host name has {0} bytes, more than the 255 of any name")]
    HostTooLong(usize),
    #[error("unknown option {0:?}; write {FORM}")]
    Option(String),
}

impl FromStr for LocalForward {
    type Err = ForwardSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (addresses, option) = match text.split_once(',') {
            Some((addresses, option)) => (addresses, Some(option)),
            None => (text, None),
        };
        let class = option.map_or(Ok(Class::Bulk), parse_class)?;
        match split_colons(addresses).as_slice() {
            [port, host, to] => {
                Ok(Self { bind: None, port: bind_port(port)?, target: target(host, to)?, class })
            }
            [bind, port, host, to] => Ok(Self {
                bind: Some(if bind.is_empty() { "*".to_owned() } else { (*bind).to_owned() }),
                port: bind_port(port)?,
                target: target(host, to)?,
                class,
            }),
            _ => Err(ForwardSpecError::Form),
        }
    }
}

/// A `--permit-open`: which targets a peer may reach through this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Permit {
    /// `None` is any host.
    host: Option<String>,
    /// `None` is any port.
    port: Option<u16>,
}

impl Permit {
    /// Whether `target` may be reached. The host is compared as the peer wrote it; `localhost` also stands for the
    /// loopback addresses.
    pub(crate) fn allows(&self, target: &Target) -> bool {
        let host_allowed = self.host.as_ref().is_none_or(|host| {
            host.eq_ignore_ascii_case(&target.host) || (host == "localhost" && is_loopback(&target.host))
        });
        host_allowed && self.port.is_none_or(|port| port == target.port)
    }
}

impl FromStr for Permit {
    type Err = PermitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fields = split_colons(text);
        let [host, port] = fields.as_slice() else {
            return Err(PermitError);
        };
        let port = match *port {
            "*" => None,
            port => Some(port.parse().map_err(|_| PermitError)?),
        };
        match *host {
            "" => Err(PermitError),
            "*" => Ok(Self { host: None, port }),
            host => Ok(Self { host: Some(host.to_ascii_lowercase()), port }),
        }
    }
}

/// What is wrong with a `--permit-open`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write HOST:PORT, each of which may be *, for example localhost:* or 10.0.0.5:443")]
pub(crate) struct PermitError;

fn is_loopback(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn parse_class(option: &str) -> Result<Class, ForwardSpecError> {
    match option {
        "class=bulk" => Ok(Class::Bulk),
        "class=interactive" => Ok(Class::Interactive),
        "class=redundant" => Ok(Class::Redundant),
        other => Err(ForwardSpecError::Option(other.to_owned())),
    }
}

fn bind_port(text: &str) -> Result<u16, ForwardSpecError> {
    text.parse().map_err(|_| ForwardSpecError::Port(text.to_owned()))
}

fn target(host: &str, port: &str) -> Result<Target, ForwardSpecError> {
    if host.is_empty() {
        return Err(ForwardSpecError::NoHost);
    }
    if host.len() > 255 {
        return Err(ForwardSpecError::HostTooLong(host.len()));
    }
    match bind_port(port)? {
        0 => Err(ForwardSpecError::Port(port.to_owned())),
        port => Ok(Target { host: host.to_owned(), port }),
    }
}

/// Splits at colons outside brackets, and takes the brackets off. Unbalanced brackets give no fields.
fn split_colons(text: &str) -> Vec<&str> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('[') {
            Some(inner) => match inner.split_once(']') {
                Some(split) => split,
                None => return Vec::new(),
            },
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        fields.push(field);
        match after.strip_prefix(':') {
            Some(more) => rest = more,
            None if after.is_empty() => return fields,
            None => return Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<LocalForward, ForwardSpecError> {
        text.parse()
    }

    #[test]
    fn forwards_parse_as_in_ssh() {
        let forward = parse("8080:localhost:80").unwrap();
        assert_eq!((forward.bind, forward.port, forward.class), (None, 8080, Class::Bulk));
        assert_eq!(forward.target.to_string(), "localhost:80");
        let forward = parse("[::1]:0:[2001:db8::1]:443,class=interactive").unwrap();
        assert_eq!((forward.bind.as_deref(), forward.port), (Some("::1"), 0));
        assert_eq!(
            (forward.target.to_string().as_str(), forward.class),
            ("[2001:db8::1]:443", Class::Interactive)
        );
        assert_eq!(parse("*:1:h:2").unwrap().bind.as_deref(), Some("*"));
        assert_eq!(parse(":1:h:2").unwrap().bind.as_deref(), Some("*"));
    }

    #[test]
    fn bad_forwards_are_explained() {
        use ForwardSpecError::{Form, HostTooLong, NoHost, Option, Port};
        let long = "h".repeat(256);
        let cases = [
            ("", Form),
            ("8080", Form),
            ("8080:80", Form),
            ("a:b:c:d:e", Form),
            ("[::1:1:h:2", Form),
            ("[::1]x:1:h:2", Form),
            ("x:h:80", Port("x".to_owned())),
            ("99999:h:80", Port("99999".to_owned())),
            ("80:h:0", Port("0".to_owned())),
            ("80:h:http", Port("http".to_owned())),
            ("80::80", NoHost),
            ("80:h:80,fast", Option("fast".to_owned())),
            (&format!("80:{long}:80"), HostTooLong(256)),
        ];
        for (text, error) in cases {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn permits_compare_host_and_port() {
        let allows = |permit: &str, target: &str| {
            permit.parse::<Permit>().unwrap().allows(&target.parse::<Target>().unwrap())
        };
        assert!(allows("localhost:*", "localhost:80"));
        assert!(allows("localhost:*", "LOCALHOST:80"));
        assert!(allows("localhost:*", "127.0.0.1:80"));
        assert!(allows("localhost:*", "[::1]:80"));
        assert!(!allows("localhost:*", "10.0.0.1:80"));
        assert!(!allows("localhost:22", "localhost:80"));
        assert!(allows("*:*", "example.org:443"));
        assert!(!allows("*:443", "example.org:80"));
        for bad in ["", "localhost", ":80", "h:x", "h:80:90", "h:65536"] {
            assert_eq!(bad.parse::<Permit>(), Err(PermitError), "{bad}");
        }
    }
}
