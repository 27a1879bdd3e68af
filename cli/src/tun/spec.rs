//! What a user says of the interface: as options and as an entry of a configuration.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;

use super::limits::{MTU_DEFAULT_BYTES, MTU_MIN_V4_BYTES, MTU_MIN_V6_BYTES, NAME_MAX_BYTES};
use crate::failure::{Exit, Failure};

/// IP packets over the bond.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TunOptions {
    /// Make the network interface NAME, whose packets go over the bond to that of the peer's --tun (Linux; see docs/TUN.md)
    #[arg(long, value_name = "NAME", requires = "addr", help_heading = "IP packets over the bond")]
    tun: Option<TunName>,
    /// Addresses of that interface, at most one of IPv4 and one of IPv6; the other end has others of the same networks
    #[arg(long, value_name = "CIDR[,CIDR]", requires = "tun", help_heading = "IP packets over the bond")]
    addr: Option<TunAddresses>,
    /// Largest packet of that interface in bytes [default: 1400]
    #[arg(long, value_name = "BYTES", requires = "tun", help_heading = "IP packets over the bond")]
    tun_mtu: Option<TunMtu>,
}

impl TunOptions {
    /// What they come to; nothing without `--tun`.
    pub(crate) fn spec(&self) -> Result<Option<TunSpec>, Failure> {
        let (Some(name), Some(addresses)) = (&self.tun, &self.addr) else { return Ok(None) };
        let spec = TunSpec::new(name.clone(), addresses.clone(), self.tun_mtu);
        spec.map(Some).map_err(|error| Failure::new(Exit::Usage, format!("--tun-mtu: {error}")))
    }
}

/// An interface that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TunSpec {
    pub(crate) name: TunName,
    pub(crate) addresses: TunAddresses,
    /// Largest packet in bytes.
    pub(crate) mtu: u16,
}

impl TunSpec {
    pub(crate) fn new(
        name: TunName,
        addresses: TunAddresses,
        mtu: Option<TunMtu>,
    ) -> Result<Self, TunSpecError> {
        let mtu = mtu.map_or(MTU_DEFAULT_BYTES, |TunMtu(mtu)| mtu);
        if mtu < MTU_MIN_V6_BYTES && addresses.0.iter().any(|address| address.ip.is_ipv6()) {
            return Err(TunSpecError::MtuOfV6(mtu));
        }
        Ok(Self { name, addresses, mtu })
    }

    /// The entry of a configuration that says the same.
    pub(crate) fn entry(&self) -> String {
        let Self { name, addresses, mtu } = self;
        format!("{{ name = \"{name}\", addr = \"{addresses}\", mtu = {mtu} }}")
    }
}

/// What is wrong with what was said of an interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TunSpecError {
    #[error(
        "`{0}` is no name of an interface: it has 1 to {NAME_MAX_BYTES} bytes, and no space, `/`, `:` or `%`; such as bond0"
    )]
    Name(String),
    #[error("`{0}` is no address with the length of its network; write 10.9.0.1/24 or fd00::1/64")]
    Address(String),
    #[error(
        "{0} is no address of a host: it is its network, or a special one; write 10.9.0.1/24 or fd00::1/64"
    )]
    NoHost(TunAddress),
    #[error("two addresses of one family: {0}; the interface has one of IPv4, one of IPv6, or both")]
    Families(String),
    #[error("`{0}` is no size of packets: {MTU_MIN_V4_BYTES} to {max} bytes are possible", max = u16::MAX)]
    Mtu(String),
    #[error("{0} bytes are too few for IPv6: at least {MTU_MIN_V6_BYTES}")]
    MtuOfV6(u16),
}

/// Name of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TunName(String);

impl TunName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TunName {
    type Err = TunSpecError;

    fn from_str(text: &str) -> Result<Self, TunSpecError> {
        // A % would have the kernel choose a number.
        let is_bad = |c: char| c.is_whitespace() || c.is_control() || "/:%\"\\".contains(c);
        if text.is_empty()
            || text.len() > NAME_MAX_BYTES
            || text.contains(is_bad)
            || matches!(text, "." | ".." | "all" | "default")
        {
            return Err(TunSpecError::Name(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An address and the length of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TunAddress {
    pub(crate) ip: IpAddr,
    pub(crate) prefix_bits: u8,
}

impl TunAddress {
    /// Whether a host can have it.
    pub(super) fn is_host(&self) -> bool {
        let (bits, host, all) = match self.ip {
            IpAddr::V4(ip) => {
                let host = u32::from(ip).checked_shl(self.prefix_bits.into()).unwrap_or(0);
                let all = u32::MAX.checked_shl(self.prefix_bits.into()).unwrap_or(0);
                (32, u128::from(host), Some(u128::from(all)))
            }
            IpAddr::V6(ip) => (128, u128::from(ip).checked_shl(self.prefix_bits.into()).unwrap_or(0), None),
        };
        // A network of one or two has no address of its own, and none for all.
        let is_host = self.prefix_bits + 1 >= bits || (host != 0 && Some(host) != all);
        let is_special = self.ip.is_unspecified() || self.ip.is_loopback() || self.ip.is_multicast();
        (1..=bits).contains(&self.prefix_bits) && is_host && !is_special
    }
}

impl FromStr for TunAddress {
    type Err = TunSpecError;

    fn from_str(text: &str) -> Result<Self, TunSpecError> {
        let wrong = || TunSpecError::Address(text.to_owned());
        let (ip, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let prefix_bits = prefix.parse().map_err(|_| wrong())?;
        if prefix_bits > if ip.is_ipv4() { 32 } else { 128 } || prefix.starts_with('+') {
            return Err(wrong());
        }
        let address = Self { ip, prefix_bits };
        if address.is_host() { Ok(address) } else { Err(TunSpecError::NoHost(address)) }
    }
}

impl fmt::Display for TunAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_bits)
    }
}

/// At most one address of each family, and at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TunAddresses(Vec<TunAddress>);

impl TunAddresses {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TunAddress> {
        self.0.iter()
    }

    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|address| address.ip == ip)
    }
}

impl FromStr for TunAddresses {
    type Err = TunSpecError;

    fn from_str(text: &str) -> Result<Self, TunSpecError> {
        let addresses =
            text.split(',').map(|part| part.trim().parse()).collect::<Result<Vec<TunAddress>, _>>()?;
        let v4 = addresses.iter().filter(|address| address.ip.is_ipv4()).count();
        if v4 > 1 || addresses.len() - v4 > 1 {
            return Err(TunSpecError::Families(text.to_owned()));
        }
        Ok(Self(addresses))
    }
}

impl fmt::Display for TunAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

/// Largest packet in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TunMtu(u16);

impl FromStr for TunMtu {
    type Err = TunSpecError;

    fn from_str(text: &str) -> Result<Self, TunSpecError> {
        let wrong = || TunSpecError::Mtu(text.to_owned());
        let mtu = text.parse().map_err(|_| wrong())?;
        if mtu < MTU_MIN_V4_BYTES { Err(wrong()) } else { Ok(Self(mtu)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_right_is_taken_and_printed_as_it_was() {
        for text in ["10.9.0.1/24", "10.9.0.1/24,fd00::1/64", "10.9.0.1/32", "10.9.0.0/31", "fd00::/127"] {
            assert_eq!(text.parse::<TunAddresses>().unwrap().to_string(), text);
        }
        let spec = TunSpec::new("bond0".parse().unwrap(), "10.9.0.1/24".parse().unwrap(), None).unwrap();
        assert_eq!(spec.entry(), r#"{ name = "bond0", addr = "10.9.0.1/24", mtu = 1400 }"#);
    }

    #[test]
    fn what_is_wrong_says_how_it_is_to_be() {
        for name in ["", "sixteen-bytes-ab", "a b", "a/b", "tun%d", ".", "eth0:1", "a\"b"] {
            let said = name.parse::<TunName>().unwrap_err().to_string();
            assert!(said.contains("bond0"), "{said}");
        }
        for address in
            ["", "10.9.0.1", "10.9.0.1/33", "10.9.0.1/", "10.9.0/24", "fd00::1/129", "10.9.0.1/+4", "x/24"]
        {
            let said = address.parse::<TunAddresses>().unwrap_err();
            assert!(matches!(said, TunSpecError::Address(_)), "{address}: {said}");
        }
        for address in [
            "10.9.0.0/24",
            "10.9.0.255/24",
            "127.0.0.1/8",
            "224.0.0.1/4",
            "0.0.0.0/32",
            "::1/64",
            "fd00::/64",
            "10.9.0.1/0",
        ] {
            let said = address.parse::<TunAddresses>().unwrap_err();
            assert!(matches!(said, TunSpecError::NoHost(_)), "{address}: {said}");
        }
        let two = "10.9.0.1/24,10.9.1.1/24".parse::<TunAddresses>().unwrap_err();
        assert!(matches!(two, TunSpecError::Families(_)));
        for mtu in ["575", "65536", "-1", "x"] {
            assert!(mtu.parse::<TunMtu>().is_err(), "{mtu}");
        }
        let small =
            TunSpec::new("bond0".parse().unwrap(), "fd00::1/64".parse().unwrap(), "1279".parse().ok());
        assert_eq!(small, Err(TunSpecError::MtuOfV6(1279)));
    }
}
