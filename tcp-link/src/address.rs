use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Port of a TCP link whose address names none.
pub const DEFAULT_PORT: u16 = 7700;

/// Where a TCP link leads, or where it is listened for: `host[:port][,iface=NAME][,source=IP][,cc=NAME]`.
///
/// The host is a name, an IPv4 address, or an IPv6 address (in brackets if a port follows). To listen on every address
/// of the machine the host is `*` or `[::]`.
///
/// ```
/// use bondwire_tcp::TcpAddress;
/// let address: TcpAddress = "[2001:db8::1]:7701,iface=wlan0,cc=bbr".parse()?;
/// assert_eq!((address.host.as_str(), address.port), ("2001:db8::1", 7701));
/// assert_eq!(address.to_string(), "[2001:db8::1]:7701,iface=wlan0,cc=bbr");
/// assert_eq!("10.0.0.2".parse::<TcpAddress>()?.port, bondwire_tcp::DEFAULT_PORT);
/// # Ok::<_, bondwire_tcp::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpAddress {
    /// Host name or IP address, without brackets; `*` for all addresses.
    pub host: String,
    /// Port; 0 lets the system choose one to listen on.
    pub port: u16,
    /// Network interface that the link must use (`SO_BINDTODEVICE`, Linux only).
    pub iface: Option<String>,
    /// Own address that the link must come from.
    pub source: Option<IpAddr>,
    /// Congestion control of the kernel for this link (`TCP_CONGESTION`, Linux only).
    pub cc: Option<String>,
}

/// What is wrong with the text of a [`TcpAddress`]; the message shows the right form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "TCP address `{text}`: {fault}; the form is host[:port][,iface=NAME][,source=IP][,cc=NAME], as in 10.0.0.2:7700,iface=eth0"
)]
pub struct AddressError {
    text: String,
    fault: String,
}

impl TcpAddress {
    /// The address without options.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, iface: None, source: None, cc: None }
    }

    /// Whether the host stands for every address of this machine.
    pub(crate) fn is_any(&self) -> bool {
        matches!(self.host.as_str(), "*" | "::")
    }

    fn set(&mut self, option: &str) -> Result<(), String> {
        let (key, value) = option.split_once('=').ok_or_else(|| format!("`{option}` is not KEY=VALUE"))?;
        let value = value.trim();
        if value.is_empty() {
            return Err(format!("`{key}` has no value"));
        }
        match key.trim() {
            "iface" if value.len() > IFACE_MAX_BYTES => {
                Err(format!("`{value}` is too long for the name of an interface"))
            }
            "iface" => set_once(&mut self.iface, "iface", value.to_owned()),
            "source" => {
                let source = value.parse().map_err(|_| format!("source `{value}` is not an IP address"))?;
                set_once(&mut self.source, "source", source)
            }
            "cc" => set_once(&mut self.cc, "cc", value.to_owned()),
            other => Err(format!("unknown key `{other}`, known are iface, source and cc")),
        }
    }
}

/// `IFNAMSIZ` less its terminating zero.
const IFACE_MAX_BYTES: usize = 15;

fn set_once<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("`{key}` is given twice")),
    }
}

impl FromStr for TcpAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse(text).map_err(|fault| AddressError { text: text.to_owned(), fault })
    }
}

fn parse(text: &str) -> Result<TcpAddress, String> {
    let mut parts = text.split(',');
    let (host, port) = host_and_port(parts.next().unwrap_or_default().trim())?;
    let mut address = TcpAddress::new(host, port);
    parts.try_for_each(|option| address.set(option))?;
    Ok(address)
}

fn host_and_port(text: &str) -> Result<(&str, u16), String> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, behind) = rest.split_once(']').ok_or("the bracket `[` is not closed")?;
        match behind.strip_prefix(':') {
            None if behind.is_empty() => (v6(host)?, None),
            None => return Err(format!("`{behind}` stands after the bracket")),
            Some(port) => (v6(host)?, Some(port)),
        }
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => (v6(text)?, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err("the host is missing".into());
    }
    if let Some(bad) = host.chars().find(|c| c.is_whitespace() || matches!(c, '/' | '@' | '=')) {
        return Err(format!("`{bad}` cannot be part of a host"));
    }
    match port {
        None => Ok((host, DEFAULT_PORT)),
        Some(port) => match port.parse() {
            Ok(number) if port.bytes().all(|b| b.is_ascii_digit()) => Ok((host, number)),
            _ => Err(format!("`{port}` is not a port (0 to 65535)")),
        },
    }
}

/// An IPv6 address, maybe with a zone: `fe80::1%eth0`.
fn v6(host: &str) -> Result<&str, String> {
    let address = host.split_once('%').map_or(host, |(address, _)| address);
    match address.parse::<std::net::Ipv6Addr>() {
        Ok(_) => Ok(host),
        Err(_) => Err(format!("`{host}` is not an IPv6 address (IPv6 with a port needs brackets)")),
    }
}

impl fmt::Display for TcpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)?;
        } else {
            write!(f, "{}:{}", self.host, self.port)?;
        }
        if let Some(iface) = &self.iface {
            write!(f, ",iface={iface}")?;
        }
        if let Some(source) = &self.source {
            write!(f, ",source={source}")?;
        }
        if let Some(cc) = &self.cc {
            write!(f, ",cc={cc}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_survive_the_way_there_and_back() {
        for (text, full) in [
            ("host", "host:7700"),
            ("host:1", "host:1"),
            ("10.0.0.2", "10.0.0.2:7700"),
            ("::1", "[::1]:7700"),
            ("fe80::1%eth0", "[fe80::1%eth0]:7700"),
            ("[::]:0", "[::]:0"),
            ("*", "*:7700"),
            ("h,iface=eth0", "h:7700,iface=eth0"),
            ("h,cc=bbr,source=10.0.0.1", "h:7700,source=10.0.0.1,cc=bbr"),
            ("h,source=::1", "h:7700,source=::1"),
        ] {
            let address: TcpAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), full);
            assert_eq!(full.parse::<TcpAddress>().unwrap(), address);
        }
    }

    #[test]
    fn bad_addresses_get_one_line_with_the_fault_and_the_form() {
        for (text, fault) in [
            ("", "host is missing"),
            (":7700", "host is missing"),
            ("host:", "`` is not a port"),
            ("host:x", "`x` is not a port"),
            ("host:+1", "`+1` is not a port"),
            ("host:65536", "`65536` is not a port"),
            ("[::1", "not closed"),
            ("[::1]7700", "`7700` stands after the bracket"),
            ("[host]:1", "`host` is not an IPv6 address"),
            ("1:2:3", "`1:2:3` is not an IPv6 address"),
            ("ho st", "` ` cannot be part of a host"),
            ("http://host", "is not a port"),
            ("user@host", "`@` cannot be part of a host"),
            ("host,", "`` is not KEY=VALUE"),
            ("host,iface", "`iface` is not KEY=VALUE"),
            ("host,iface=", "`iface` has no value"),
            ("host,iface=a-very-long-interface", "too long"),
            ("host,source=eth0", "`eth0` is not an IP address"),
            ("host,iface=a,iface=b", "given twice"),
            ("host,baud=9600", "unknown key `baud`"),
        ] {
            let message = text.parse::<TcpAddress>().unwrap_err().to_string();
            assert!(message.contains(fault), "{text}: {message}");
            assert!(message.contains("the form is host[:port]") && !message.contains('\n'), "{message}");
        }
    }
}
