//! Where connections of a forward come from or lead to: a TCP or UDP port, or a Unix socket.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Longest host name, in bytes, as DNS has it.
const HOST_MAX_BYTES: usize = 255;
/// Longest path of a Unix socket, in bytes: what `sockaddr_un` holds on Linux, less the final zero.
const PATH_MAX_BYTES: usize = 107;

/// One end of a forward.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Tcp(HostPort),
    Udp(HostPort),
    /// The path of a Unix stream socket.
    Unix(String),
}

/// A host name or address with a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HostPort {
    /// Without brackets. To listen on, `localhost` is both loopback addresses, and `*` every address.
    pub(crate) host: String,
    /// To listen on, 0 lets the system choose.
    pub(crate) port: u16,
}

/// What is wrong with an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("an address is HOST:PORT or a /path; IPv6 addresses stand in [brackets]")]
    Form,
    #[error("{0:?} is no port; ports are numbers from 1 to 65535")]
    Port(String),
    #[error("the host is missing")]
    NoHost,
    #[error("the host name has {0} bytes, more than the 255 of any name")]
    HostTooLong(usize),
    #[error("{0:?} is no host name")]
    Host(String),
    #[error("the path of a Unix socket has {0} bytes, more than the 107 that fit")]
    PathTooLong(usize),
    #[error("{0:?} is no absolute path without ..")]
    Path(String),
}

impl HostPort {
    /// Checks the two parts of an address to connect to.
    pub(crate) fn target(host: &str, port: &str) -> Result<Self, AddressError> {
        match Self::bind(host, port)? {
            Self { port: 0, .. } => Err(AddressError::Port(port.to_owned())),
            target => Ok(target),
        }
    }

    /// Checks the two parts of an address to listen on, which may have port 0.
    pub(crate) fn bind(host: &str, port: &str) -> Result<Self, AddressError> {
        let host = check_host(host)?.to_owned();
        // A number's plus sign is none of a port's.
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        let number = port.parse().ok().filter(|_| is_number);
        Ok(Self { host, port: number.ok_or_else(|| AddressError::Port(port.to_owned()))? })
    }
}

fn check_host(host: &str) -> Result<&str, AddressError> {
    if host.is_empty() {
        return Err(AddressError::NoHost);
    }
    if host.len() > HOST_MAX_BYTES {
        return Err(AddressError::HostTooLong(host.len()));
    }
    let is_scoped_v6 = || host.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    let is_strange = |c: char| c.is_whitespace() || c.is_control() || "[]/".contains(c);
    if host.contains(is_strange) || host.contains(':') && !is_scoped_v6() {
        return Err(AddressError::Host(host.to_owned()));
    }
    Ok(host)
}

/// Checks the path of a Unix socket. It must be absolute, for the peer's working directory is nobody's business.
pub(crate) fn check_path(path: &str) -> Result<&str, AddressError> {
    if path.len() > PATH_MAX_BYTES {
        return Err(AddressError::PathTooLong(path.len()));
    }
    let is_plain = path.starts_with('/') && !path.ends_with('/') && !path.contains(char::is_control);
    if !is_plain || path.split('/').any(|part| part == "..") {
        return Err(AddressError::Path(path.to_owned()));
    }
    Ok(path)
}

impl Address {
    /// Parses `host:port`, `udp/host:port` or a path, as an address to connect to.
    pub(crate) fn parse_target(text: &str) -> Result<Self, AddressError> {
        if text.starts_with('/') {
            return Ok(Self::Unix(check_path(text)?.to_owned()));
        }
        let (is_udp, rest) = match text.strip_prefix(UDP_PREFIX) {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        match split_colons(rest).as_slice() {
            [host, port] => Ok(Self::of(is_udp, HostPort::target(host, port)?)),
            _ => Err(AddressError::Form),
        }
    }

    pub(crate) fn of(is_udp: bool, address: HostPort) -> Self {
        if is_udp { Self::Udp(address) } else { Self::Tcp(address) }
    }

    /// Whether the system chooses the port.
    pub(crate) fn is_any_port(&self) -> bool {
        matches!(self, Self::Tcp(address) | Self::Udp(address) if address.port == 0)
    }

    /// Whether one of the two can keep the other from being listened on: the same port or path.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(own), Self::Tcp(other)) | (Self::Udp(own), Self::Udp(other)) => {
                own.port == other.port && own.port != 0
            }
            (Self::Unix(own), Self::Unix(other)) => own == other,
            _ => false,
        }
    }

    /// The address as it stands in a stream's label.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Tcp(address) => format!("tcp:{address}"),
            Self::Udp(address) => format!("udp:{address}"),
            Self::Unix(path) => format!("unix:{path}"),
        }
    }

    /// Reads [`label`](Self::label); `None` if it begins with no kind of address.
    pub(crate) fn from_label(label: &str, role: AddressRole) -> Option<Result<Self, AddressError>> {
        let (kind, rest) = label.split_once(':')?;
        let host_port = || match (split_colons(rest).as_slice(), role) {
            ([host, port], AddressRole::Target) => HostPort::target(host, port),
            ([host, port], AddressRole::Bind) => HostPort::bind(host, port),
            _ => Err(AddressError::Form),
        };
        match kind {
            "tcp" => Some(host_port().map(Self::Tcp)),
            "udp" => Some(host_port().map(Self::Udp)),
            "unix" => Some(check_path(rest).map(|path| Self::Unix(path.to_owned()))),
            _ => None,
        }
    }
}

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressRole {
    /// To connect to.
    Target,
    /// To listen on.
    Bind,
}

/// In front of an address of UDP.
pub(crate) const UDP_PREFIX: &str = "udp/";

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Udp(address) => write!(f, "{UDP_PREFIX}{address}"),
            Self::Unix(path) => f.write_str(path),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Whether `host` is one of this host's loopback addresses, by name or number.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Splits at colons outside brackets, and takes the brackets off. Unbalanced brackets give no fields.
pub(crate) fn split_colons(text: &str) -> Vec<&str> {
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

    #[test]
    fn labels_come_back() {
        for text in ["localhost:80", "udp/[2001:db8::1]:53", "/run/app.sock", "[fe80::1%eth0]:22"] {
            let address = Address::parse_target(text).unwrap();
            assert_eq!(address.to_string(), text);
            let back = Address::from_label(&address.label(), AddressRole::Target).unwrap();
            assert_eq!(back.unwrap(), address);
        }
        assert_eq!(Address::from_label("speed", AddressRole::Target), None);
        assert_eq!(Address::from_label("http:x:1", AddressRole::Target), None);
    }

    #[test]
    fn bad_labels_are_refused() {
        use AddressError::{Form, Host, NoHost, Path, PathTooLong, Port};
        let long = format!("/{}", "x".repeat(107));
        let cases = [
            ("tcp:", Form),
            ("tcp:h", Form),
            ("tcp:h:1:2", Form),
            ("tcp::80", NoHost),
            ("tcp:h:0", Port("0".to_owned())),
            ("tcp:h:+1", Port("+1".to_owned())),
            ("udp:h:65536", Port("65536".to_owned())),
            ("tcp:a b:80", Host("a b".to_owned())),
            ("tcp:[a:b]:80", Host("a:b".to_owned())),
            ("unix:", Path(String::new())),
            ("unix:run/x", Path("run/x".to_owned())),
            ("unix:/run/../etc/x", Path("/run/../etc/x".to_owned())),
            ("unix:/run/", Path("/run/".to_owned())),
            (&format!("unix:{long}"), PathTooLong(108)),
        ];
        for (label, error) in cases {
            assert_eq!(Address::from_label(label, AddressRole::Target), Some(Err(error)), "{label}");
        }
        let any = Address::from_label("tcp:*:0", AddressRole::Bind).unwrap().unwrap();
        assert_eq!(any.to_string(), "*:0");
    }
}
