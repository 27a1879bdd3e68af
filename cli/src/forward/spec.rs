//! Forward arguments: `-L` and `-R [bind:]port:host:port[,class=…]`, `-D [bind:]port`, and `-W host:port`.

use std::fmt;
use std::str::FromStr;

use bondwire::Class;

use super::address::{Address, AddressError, HostPort, UDP_PREFIX, check_path, split_colons};

/// The right form of `-L` and `-R`, for error messages.
const FORM: &str = "[bind:]port:host:port[,class=interactive|bulk|redundant]";
/// The right form of `-D`.
const SOCKS_FORM: &str = "[bind:]port[,class=interactive|bulk|redundant]";
/// The right form of `-W`.
const PIPE_FORM: &str = "host:port[,class=interactive|bulk|redundant]";

/// One `-L` or `-R`: connections that come in at `bind` go to `target`, which is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forward {
    /// What the user wrote.
    text: String,
    pub(crate) bind: Address,
    pub(crate) target: Address,
    pub(crate) class: Class,
}

/// One `-D`: a SOCKS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SocksForward {
    /// What the user wrote.
    text: String,
    pub(crate) bind: HostPort,
    pub(crate) class: Class,
}

/// The `-W`: standard input and output go to `target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PipeForward {
    pub(crate) target: Address,
    pub(crate) class: Class,
}

/// A forward with its option in front, as a configuration has it: `-L 8080:localhost:80`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ForwardOption {
    Local(Forward),
    Remote(Forward),
    Socks(SocksForward),
}

impl ForwardOption {
    /// Where it listens, if that is on this host.
    pub(crate) fn bind(&self) -> Option<Address> {
        match self {
            Self::Local(forward) => Some(forward.bind.clone()),
            Self::Remote(_) => None,
            Self::Socks(forward) => Some(Address::Tcp(forward.bind.clone())),
        }
    }
}

impl fmt::Display for ForwardOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(forward) => write!(f, "-L {}", forward.text),
            Self::Remote(forward) => write!(f, "-R {}", forward.text),
            Self::Socks(forward) => write!(f, "-D {}", forward.text),
        }
    }
}

impl FromStr for ForwardOption {
    type Err = ForwardSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (option, argument) = text.split_at_checked(2).ok_or(ForwardSpecError::NoOption)?;
        let argument = argument.trim_start();
        match option {
            "-L" => argument.parse().map(Self::Local),
            "-R" => argument.parse().map(Self::Remote),
            "-D" => argument.parse().map(Self::Socks),
            _ => Err(ForwardSpecError::NoOption),
        }
    }
}

/// What is wrong with a forward argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ForwardSpecError {
    #[error(
        "write {FORM}, for example 8080:localhost:80; either end may be a /path; udp/ in front carries UDP; IPv6 \
         addresses stand in [brackets]"
    )]
    Form,
    #[error("write -L, -R or -D in front, as on the command line: -L 8080:localhost:80")]
    NoOption,
    #[error("{0}; write {FORM}")]
    Address(#[from] AddressError),
    #[error("unknown option {0:?}; write {FORM}")]
    Option(String),
    #[error("UDP cannot go to or from a Unix socket; write udp/[bind:]port:host:port")]
    UdpPath,
    #[error("class= is for streams, and datagrams of UDP have none; leave it out")]
    UdpClass,
    #[error("write {SOCKS_FORM}, for example 1080")]
    SocksForm,
    #[error("{0}; write {SOCKS_FORM}")]
    Socks(AddressError),
    #[error("write {PIPE_FORM}, for example localhost:22; a /path names a Unix socket")]
    PipeForm,
    #[error("{0}; write {PIPE_FORM}")]
    Pipe(AddressError),
}

impl FromStr for Forward {
    type Err = ForwardSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (addresses, class) = split_class(text)?;
        let (is_udp, addresses) = match addresses.strip_prefix(UDP_PREFIX) {
            Some(rest) => (true, rest),
            None => (false, addresses),
        };
        let fields = split_colons(addresses);
        let (bind, target): (&[&str], &[&str]) = match fields.as_slice() {
            [bind @ .., path] if path.starts_with('/') && !bind.is_empty() => {
                (bind, &fields[fields.len() - 1..])
            }
            [bind @ .., _, _] if !bind.is_empty() => (bind, &fields[fields.len() - 2..]),
            _ => return Err(ForwardSpecError::Form),
        };
        let bind = match bind {
            [path] if path.starts_with('/') => unix(path)?,
            [port] => Address::of(is_udp, HostPort::bind(LOOPBACK, port)?),
            [host, port] => Address::of(is_udp, bind_address(host, port)?),
            _ => return Err(ForwardSpecError::Form),
        };
        let target = match target {
            [host, port] => Address::of(is_udp, HostPort::target(host, port)?),
            [path] => unix(path)?,
            _ => return Err(ForwardSpecError::Form),
        };
        match (is_udp, &bind, &target) {
            (true, Address::Unix(_), _) | (true, _, Address::Unix(_)) => Err(ForwardSpecError::UdpPath),
            (true, ..) if class.is_some() => Err(ForwardSpecError::UdpClass),
            _ => Ok(Self { text: text.to_owned(), bind, target, class: class.unwrap_or(Class::Bulk) }),
        }
    }
}

impl FromStr for SocksForward {
    type Err = ForwardSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, class) = split_class(text)?;
        let bind = match split_colons(address).as_slice() {
            [port] => HostPort::bind(LOOPBACK, port),
            [host, port] => bind_address(host, port),
            _ => return Err(ForwardSpecError::SocksForm),
        };
        let bind = bind.map_err(ForwardSpecError::Socks)?;
        Ok(Self { text: text.to_owned(), bind, class: class.unwrap_or(Class::Bulk) })
    }
}

impl FromStr for PipeForward {
    type Err = ForwardSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, class) = split_class(text)?;
        match Address::parse_target(address) {
            Ok(Address::Udp(_)) | Err(AddressError::Form) => Err(ForwardSpecError::PipeForm),
            Ok(target) => Ok(Self { target, class: class.unwrap_or(Class::Bulk) }),
            Err(error) => Err(ForwardSpecError::Pipe(error)),
        }
    }
}

/// Where forwards listen that name no address.
const LOOPBACK: &str = "localhost";

fn unix(path: &str) -> Result<Address, AddressError> {
    check_path(path).map(|path| Address::Unix(path.to_owned()))
}

/// As in ssh, an empty address is every address.
fn bind_address(host: &str, port: &str) -> Result<HostPort, AddressError> {
    HostPort::bind(if host.is_empty() { "*" } else { host }, port)
}

/// Takes `,class=…` off.
fn split_class(text: &str) -> Result<(&str, Option<Class>), ForwardSpecError> {
    let Some((address, option)) = text.split_once(',') else {
        return Ok((text, None));
    };
    let class = match option {
        "class=bulk" => Class::Bulk,
        "class=interactive" => Class::Interactive,
        "class=redundant" => Class::Redundant,
        other => return Err(ForwardSpecError::Option(other.to_owned())),
    };
    Ok((address, Some(class)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Forward, ForwardSpecError> {
        text.parse()
    }

    #[track_caller]
    fn assert_ends(text: &str, bind: &str, target: &str) {
        let forward = parse(text).unwrap();
        assert_eq!((forward.bind.to_string().as_str(), forward.target.to_string().as_str()), (bind, target));
    }

    #[test]
    fn forwards_parse_as_in_ssh() {
        assert_ends("8080:localhost:80", "localhost:8080", "localhost:80");
        assert_ends("*:1:h:2", "*:1", "h:2");
        assert_ends(":1:h:2", "*:1", "h:2");
        assert_ends("[::1]:0:[2001:db8::1]:443,class=interactive", "[::1]:0", "[2001:db8::1]:443");
        assert_ends("/run/a.sock:h:80", "/run/a.sock", "h:80");
        assert_ends("8080:/run/b.sock", "localhost:8080", "/run/b.sock");
        assert_ends("*:8080:/run/b.sock", "*:8080", "/run/b.sock");
        assert_ends("/run/a.sock:[/run/b:c.sock]", "/run/a.sock", "/run/b:c.sock");
        assert_ends("udp/5353:192.0.2.1:53", "udp/localhost:5353", "udp/192.0.2.1:53");
        assert_eq!(parse("1:h:2").unwrap().class, Class::Bulk);
        assert_eq!(parse("1:h:2,class=redundant").unwrap().class, Class::Redundant);
        let socks: SocksForward = "[::1]:1080,class=interactive".parse().unwrap();
        assert_eq!((socks.bind.to_string().as_str(), socks.class), ("[::1]:1080", Class::Interactive));
        assert_eq!("1080".parse::<SocksForward>().unwrap().bind.to_string(), "localhost:1080");
        assert_eq!("[::1]:22".parse::<PipeForward>().unwrap().target.to_string(), "[::1]:22");
        assert_eq!("/run/a.sock".parse::<PipeForward>().unwrap().target.to_string(), "/run/a.sock");
    }

    #[test]
    fn forwards_stand_in_a_configuration_with_their_options() {
        for text in
            ["-L 8080:localhost:80,class=interactive", "-R 0:h:22", "-D [::1]:1080", "-L udp/5353:h:53"]
        {
            assert_eq!(text.parse::<ForwardOption>().unwrap().to_string(), text);
        }
        let close = "-L8080:localhost:80".parse::<ForwardOption>().unwrap();
        assert_eq!(close.to_string(), "-L 8080:localhost:80");
        assert_eq!(close.bind(), Some(Address::Tcp(HostPort::bind("localhost", "8080").unwrap())));
        for text in ["", "-", "8080:localhost:80", "-W localhost:22", "é"] {
            assert_eq!(text.parse::<ForwardOption>(), Err(ForwardSpecError::NoOption), "{text}");
        }
        assert_eq!("-L 8080".parse::<ForwardOption>(), Err(ForwardSpecError::Form));
    }

    #[test]
    fn bad_forwards_are_explained() {
        use AddressError::{Host, HostTooLong, NoHost, Path, PathTooLong, Port};
        use ForwardSpecError::{Address, Form, Option, UdpClass, UdpPath};
        let (long, deep) = ("h".repeat(256), format!("/{}", "d".repeat(200)));
        let cases = [
            ("", Form),
            ("8080", Form),
            ("8080:80", Form),
            ("a:b:c:d:e", Form),
            ("[::1:1:h:2", Form),
            ("[::1]x:1:h:2", Form),
            ("/run/a.sock", Form),
            ("x:h:80", Address(Port("x".to_owned()))),
            ("99999:h:80", Address(Port("99999".to_owned()))),
            ("80:h:0", Address(Port("0".to_owned()))),
            ("80:h:http", Address(Port("http".to_owned()))),
            ("80::80", Address(NoHost)),
            ("80:a b:80", Address(Host("a b".to_owned()))),
            ("80:/run/../b", Address(Path("/run/../b".to_owned()))),
            ("80:h:80,fast", Option("fast".to_owned())),
            ("udp/80:/run/b", UdpPath),
            ("udp/80:h:80,class=bulk", UdpClass),
            (&format!("80:{long}:80"), Address(HostTooLong(256))),
            (&format!("80:{deep}"), Address(PathTooLong(201))),
        ];
        for (text, error) in cases {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        for text in ["", "x", "1:2:3", "h:1:x", "1080,x"] {
            let error = text.parse::<SocksForward>().unwrap_err().to_string();
            assert!(error.contains("write [bind:]port"), "{text}: {error}");
        }
        for text in ["", "22", "h:0", "h:x", "udp/h:53", "a:b:c"] {
            let error = text.parse::<PipeForward>().unwrap_err().to_string();
            assert!(error.contains("write host:port"), "{text}: {error}");
        }
    }
}
