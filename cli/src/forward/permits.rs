//! What a peer may reach and open through this host.

use std::fmt;
use std::str::FromStr;

use super::address::{Address, check_path, is_loopback, split_colons};

/// The rights of one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Permits {
    /// Targets that it may reach through this host.
    pub(crate) open: Vec<Permit>,
    /// Addresses of this host that it may listen on.
    pub(crate) listen: Vec<Permit>,
}

/// Why a peer may not do what it asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("{0} is not permitted; the peer's listen needs --permit-open {1}")]
    Open(Address, String),
    #[error("listening on {0} is not permitted; the peer's listen needs --permit-listen {1}")]
    Listen(Address, String),
}

impl Permits {
    /// Whether the peer may have this host connect to `target`.
    pub(crate) fn may_open(&self, target: &Address) -> Result<(), Denied> {
        match self.open.iter().any(|permit| permit.allows(target)) {
            true => Ok(()),
            false => Err(Denied::Open(target.clone(), permit_for(target))),
        }
    }

    /// Whether the peer may have this host listen on `bind`.
    pub(crate) fn may_listen(&self, bind: &Address) -> Result<(), Denied> {
        match self.listen.iter().any(|permit| permit.allows(bind)) {
            true => Ok(()),
            false => Err(Denied::Listen(bind.clone(), permit_for(bind))),
        }
    }
}

/// The permit that would allow `address`.
fn permit_for(address: &Address) -> String {
    match address {
        Address::Tcp(address) | Address::Udp(address) if address.port == 0 => {
            address.to_string().trim_end_matches('0').to_owned() + "*"
        }
        Address::Tcp(address) | Address::Udp(address) => address.to_string(),
        Address::Unix(path) => path.clone(),
    }
}

/// One `--permit-open` or `--permit-listen`. Ports are those of TCP and UDP alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Permit {
    Port {
        /// `None` is any host.
        host: Option<String>,
        /// `None` is any port.
        port: Option<u16>,
    },
    /// One Unix socket.
    Path(String),
    /// The Unix sockets in a folder, which is named with a final `/`.
    Folder(String),
}

impl Permit {
    /// Whether `address` is allowed. A host is compared as the peer wrote it; `localhost` also stands for the
    /// loopback addresses.
    fn allows(&self, address: &Address) -> bool {
        match (self, address) {
            (Self::Port { host, port }, Address::Tcp(asked) | Address::Udp(asked)) => {
                let host_allowed = host.as_ref().is_none_or(|host| {
                    host.eq_ignore_ascii_case(&asked.host) || host == "localhost" && is_loopback(&asked.host)
                });
                host_allowed && port.is_none_or(|port| port == asked.port)
            }
            (Self::Path(permitted), Address::Unix(path)) => permitted == path,
            (Self::Folder(folder), Address::Unix(path)) => {
                path.strip_prefix(folder.as_str()).is_some_and(|name| !name.is_empty() && !name.contains('/'))
            }
            _ => false,
        }
    }
}

impl FromStr for Permit {
    type Err = PermitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(folder) =
            text.strip_suffix("/*").filter(|folder| folder.is_empty() || folder.starts_with('/'))
        {
            return match folder.is_empty() || check_path(folder).is_ok() {
                true => Ok(Self::Folder(format!("{folder}/"))),
                false => Err(PermitError),
            };
        }
        if text.starts_with('/') {
            return check_path(text).map(|path| Self::Path(path.to_owned())).map_err(|_| PermitError);
        }
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
            "*" => Ok(Self::Port { host: None, port }),
            host => Ok(Self::Port { host: Some(host.to_ascii_lowercase()), port }),
        }
    }
}

/// As it is written.
impl fmt::Display for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { host, port } => {
                match host.as_deref().unwrap_or("*") {
                    host if host.contains(':') => write!(f, "[{host}]:")?,
                    host => write!(f, "{host}:")?,
                }
                match port {
                    Some(port) => write!(f, "{port}"),
                    None => f.write_str("*"),
                }
            }
            Self::Path(path) => f.write_str(path),
            Self::Folder(folder) => write!(f, "{folder}*"),
        }
    }
}

/// What is wrong with a permit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "write HOST:PORT, each of which may be *, for example localhost:* or 10.0.0.5:443; or the /path of a Unix \
     socket, which may end in /*"
)]
pub(crate) struct PermitError;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::address::AddressRole;

    fn allows(permit: &str, target: &str) -> bool {
        let target = Address::from_label(target, AddressRole::Bind).unwrap().unwrap();
        permit.parse::<Permit>().unwrap().allows(&target)
    }

    #[test]
    fn permits_compare_host_and_port() {
        assert!(allows("localhost:*", "tcp:localhost:80"));
        assert!(allows("localhost:*", "tcp:LOCALHOST:80"));
        assert!(allows("localhost:*", "tcp:127.0.0.1:80"));
        assert!(allows("localhost:*", "udp:[::1]:80"));
        assert!(!allows("localhost:*", "tcp:10.0.0.1:80"));
        assert!(!allows("localhost:*", "tcp:*:80"));
        assert!(!allows("localhost:22", "tcp:localhost:80"));
        assert!(!allows("localhost:22", "tcp:localhost:0"));
        assert!(allows("*:*", "tcp:example.org:443"));
        assert!(!allows("*:443", "tcp:example.org:80"));
        for bad in ["", "localhost", ":80", "h:x", "h:80:90", "h:65536", "/a/../b", "/run/", "run/*", "/../*"]
        {
            assert_eq!(bad.parse::<Permit>(), Err(PermitError), "{bad}");
        }
    }

    #[test]
    fn permits_are_shown_as_they_are_written() {
        for text in ["localhost:*", "*:443", "[2001:db8::1]:80", "/run/a.sock", "/run/*", "/*"] {
            assert_eq!(text.parse::<Permit>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn permits_for_ports_open_no_unix_sockets() {
        assert!(!allows("*:*", "unix:/run/docker.sock"));
        assert!(allows("/run/a.sock", "unix:/run/a.sock"));
        assert!(!allows("/run/a.sock", "unix:/run/b.sock"));
        assert!(allows("/run/*", "unix:/run/b.sock"));
        assert!(!allows("/run/*", "unix:/run/deep/b.sock"));
        assert!(!allows("/run/*", "tcp:localhost:80"));
        assert!(allows("/*", "unix:/b.sock"));
    }

    #[test]
    fn a_refusal_names_the_flag_that_would_allow_it() {
        let address = |label| Address::from_label(label, AddressRole::Bind).unwrap().unwrap();
        let permits = Permits::default();
        let why = permits.may_open(&address("udp:h:53")).unwrap_err().to_string();
        assert!(why.ends_with("--permit-open h:53"), "{why}");
        let why = permits.may_listen(&address("tcp:localhost:0")).unwrap_err().to_string();
        assert!(why.ends_with("--permit-listen localhost:*"), "{why}");
    }
}
