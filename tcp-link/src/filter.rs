//! Which interfaces and addresses of this host may be used.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::interfaces::Interface;

/// Interfaces of containers and virtual machines: what they reach is this host itself, so they are left out unless a
/// filter names them.
const LEFT_OUT: [&str; 11] = [
    "docker*", "br-*", "veth*", "virbr*", "vnet*", "cni*", "flannel*", "cali*", "podman*", "lxcbr*", "lxdbr*",
];

/// What is wrong with the text of a filter; the message shows the right form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A word of a list is missing, as in `eth0,,eth1`.
    #[error("`{0}` has an empty entry; write names with commas between, as in {1}")]
    Empty(String, &'static str),
    /// No interface can have that name.
    #[error(
        "`{0}` is not the name of a network interface; write names or patterns, as in eth0,wlan*,!docker0"
    )]
    Interface(String),
    /// Not an address family.
    #[error(
        "`{0}` is not an address family; write 4, 6, any (whichever answers) or both (each a path of its own)"
    )]
    Family(String),
    /// Not a network.
    #[error("`{0}` is not a network; write ADDRESS/BITS, as in 10.0.0.0/8 or !2001:db8::/32")]
    Network(String),
    /// The address has bits outside of the network.
    #[error("`{0}` has bits set behind its prefix; the network is {1}")]
    HostBits(String, Network),
}

/// Interfaces by name: `eth0,wlan*,!docker0`. `*` stands for any characters, `!` leaves interfaces out whatever else names
/// them. Without a name that is not left out, all others are meant but those of containers and virtual machines.
///
/// ```
/// use bondwire_tcp::InterfaceFilter;
/// let filter: InterfaceFilter = "eth0,wlan*,!wlan1".parse()?;
/// assert!(filter.allows("eth0") && filter.allows("wlan0"));
/// assert!(!filter.allows("wlan1") && !filter.allows("eth1"));
/// assert!(InterfaceFilter::default().allows("eth1") && !InterfaceFilter::default().allows("docker0"));
/// # Ok::<_, bondwire_tcp::FilterError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceFilter {
    wanted: Vec<String>,
    unwanted: Vec<String>,
}

impl InterfaceFilter {
    /// Whether the interface of that name may be used.
    pub fn allows(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name));
        let left_out = || LEFT_OUT.iter().any(|pattern| matches(pattern, name));
        !any(&self.unwanted) && if self.wanted.is_empty() { !left_out() } else { any(&self.wanted) }
    }
}

impl FromStr for InterfaceFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for word in words(text, "eth0,wlan*,!docker0")? {
            let (list, pattern) = match word.strip_prefix('!') {
                Some(pattern) => (&mut filter.unwanted, pattern),
                None => (&mut filter.wanted, word),
            };
            let is_name = |text: &str| {
                !text.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '!' | '=' | ':'))
                    && (1..=NAME_MAX_BYTES).contains(&text.len())
            };
            if !is_name(pattern) {
                return Err(FilterError::Interface(word.to_owned()));
            }
            list.push(pattern.to_owned());
        }
        Ok(filter)
    }
}

/// As it was written, with what is wanted first.
impl fmt::Display for InterfaceFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, &self.wanted, &self.unwanted)
    }
}

/// `IFNAMSIZ` less its terminating zero.
const NAME_MAX_BYTES: usize = 15;

/// Whether `name` is as `pattern` says, where `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<_> = rest.split('*').collect();
    // `split` answers at least one part.
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(tail)
}

fn words<'a>(text: &'a str, example: &'static str) -> Result<impl Iterator<Item = &'a str>, FilterError> {
    if text.split(',').any(|word| word.trim().trim_start_matches('!').is_empty()) {
        return Err(FilterError::Empty(text.to_owned(), example));
    }
    Ok(text.split(',').map(str::trim))
}

/// `a,b,!c`: what is wanted, and what is not.
fn write_list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, wanted: &[T], unwanted: &[T]) -> fmt::Result {
    let words = wanted.iter().map(|word| ("", word)).chain(unwanted.iter().map(|word| ("!", word)));
    for (index, (sign, word)) in words.enumerate() {
        let comma = if index > 0 { "," } else { "" };
        write!(f, "{comma}{sign}{word}")?;
    }
    Ok(())
}

/// Which families of addresses make paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// IPv6 or IPv4, whichever answers: both between the same two interfaces are one path.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// A path for each.
    Both,
}

impl Families {
    /// Whether addresses of the family of `ip` may be used.
    pub fn allows(self, ip: IpAddr) -> bool {
        match self {
            Self::Any | Self::Both => true,
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
        }
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::V4 => "4",
            Self::V6 => "6",
            Self::Both => "both",
        })
    }
}

impl FromStr for Families {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        match text {
            "any" => Ok(Self::Any),
            "4" => Ok(Self::V4),
            "6" => Ok(Self::V6),
            "both" => Ok(Self::Both),
            _ => Err(FilterError::Family(text.to_owned())),
        }
    }
}

/// Addresses with a common prefix: `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Network {
    /// The network of `prefix_bits` that `address` lies in; more bits than the address has are all of them.
    pub fn of(address: IpAddr, prefix_bits: u8) -> Self {
        let prefix_bits = prefix_bits.min(if address.is_ipv4() { 32 } else { 128 });
        let address = match address {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0);
                IpAddr::V4((u32::from(ip) & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix_bits)).unwrap_or(0);
                IpAddr::V6((u128::from(ip) & mask).into())
            }
        };
        Self { address, prefix_bits }
    }

    /// Whether `ip` lies in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.address.is_ipv4() && Self::of(ip, self.prefix_bits) == *self
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

impl FromStr for Network {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let wrong = || FilterError::Network(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match bits {
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= longest).ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
            None => longest,
        };
        let network = Self::of(address, prefix_bits);
        if network.address != address {
            return Err(FilterError::HostBits(text.to_owned(), network));
        }
        Ok(network)
    }
}

/// Addresses by network: `10.0.0.0/8,!10.9.0.0/16`. `!` leaves addresses out whatever else names them; without a network
/// that is not left out, all others are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkFilter {
    wanted: Vec<Network>,
    unwanted: Vec<Network>,
}

impl NetworkFilter {
    /// Whether the address may be used.
    pub fn allows(&self, ip: IpAddr) -> bool {
        let any = |networks: &[Network]| networks.iter().any(|network| network.contains(ip));
        !any(&self.unwanted) && (self.wanted.is_empty() || any(&self.wanted))
    }
}

impl FromStr for NetworkFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for word in words(text, "10.0.0.0/8,!10.9.0.0/16")? {
            match word.strip_prefix('!') {
                Some(word) => filter.unwanted.push(word.parse()?),
                None => filter.wanted.push(word.parse()?),
            }
        }
        Ok(filter)
    }
}

/// As it was written, with what is wanted first.
impl fmt::Display for NetworkFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, &self.wanted, &self.unwanted)
    }
}

/// Which interfaces and addresses of this host may be used. All parts have to agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressFilter {
    /// By name of the interface.
    pub interfaces: InterfaceFilter,
    /// By family.
    pub families: Families,
    /// By network.
    pub networks: NetworkFilter,
}

impl AddressFilter {
    /// Whether everything is allowed that is allowed by default.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this address may be used on that interface.
    pub fn allows(&self, interface: &str, ip: IpAddr) -> bool {
        self.interfaces.allows(interface) && self.families.allows(ip) && self.networks.allows(ip)
    }

    /// The interfaces with an address that may be used, and these addresses.
    pub(crate) fn apply(&self, interfaces: &[Interface]) -> Vec<Interface> {
        let allowed = interfaces.iter().map(|interface| Interface {
            addresses: interface
                .addresses
                .iter()
                .filter(|address| self.allows(&interface.name, address.ip))
                .copied()
                .collect(),
            ..interface.clone()
        });
        allowed.filter(|interface| !interface.addresses.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_shown_as_they_are_written() {
        for text in ["eth0,wlan*,!docker0", "!eth1", "eth*"] {
            assert_eq!(text.parse::<InterfaceFilter>().unwrap().to_string(), text);
        }
        for text in ["any", "4", "6", "both"] {
            assert_eq!(text.parse::<Families>().unwrap().to_string(), text);
        }
        for text in ["10.0.0.0/8,!10.9.0.0/16", "2001:db8::/32", "!10.1.2.3/32"] {
            assert_eq!(text.parse::<NetworkFilter>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        let cases = [
            ("eth0", "eth0", true),
            ("eth0", "eth00", false),
            ("eth*", "eth0", true),
            ("eth*", "veth0", false),
            ("*", "anything", true),
            ("*.10", "eth0.10", true),
            ("*.10", "eth0.100", false),
            ("e*0*1", "eth0.1", true),
            ("e*0*1", "eth1", false),
            ("ab*ba", "aba", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_left_out_stays_out() {
        let allowed = |filter: &str, names: &[&str]| -> Vec<String> {
            let filter: InterfaceFilter = filter.parse().unwrap();
            names.iter().filter(|name| filter.allows(name)).map(|name| (*name).to_owned()).collect()
        };
        let names = ["lo", "eth0", "wlan0", "docker0", "br-0123456789ab", "br0", "veth1", "wg0", "ppp0"];
        assert_eq!(allowed("!eth0", &names), ["lo", "wlan0", "br0", "wg0", "ppp0"]);
        assert_eq!(allowed("docker0,eth*", &names), ["eth0", "docker0"]);
        assert_eq!(allowed("*,!veth*", &names).len(), names.len() - 1);
        assert_eq!(allowed("eth0,!eth0", &names), [""; 0]);
    }

    #[test]
    fn networks_hold_their_addresses() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "::1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7/32", "192.0.2.6", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db8::1", true),
            ("!10.0.0.0/8", "192.0.2.1", true),
            ("!10.0.0.0/8", "10.0.0.1", false),
            ("10.0.0.0/8,!10.9.0.0/16", "10.9.1.1", false),
            ("10.0.0.0/8,!10.9.0.0/16", "10.8.1.1", true),
            ("10.0.0.0/8,192.0.2.0/24", "192.0.2.1", true),
        ];
        for (filter, ip, expected) in cases {
            let filter: NetworkFilter = filter.parse().unwrap();
            assert_eq!(filter.allows(ip.parse().unwrap()), expected, "{filter:?} {ip}");
        }
    }

    #[test]
    fn bad_filters_get_one_line_with_the_fault_and_the_form() {
        fn fault<F: FromStr<Err = FilterError>>(text: &str) -> String {
            let message = text.parse::<F>().err().unwrap().to_string();
            assert!(!message.contains('\n'), "{message}");
            message
        }
        for text in ["", "eth0,", ",", "!", "eth0,,eth1"] {
            let message = fault::<InterfaceFilter>(text);
            assert!(message.contains("empty entry") && message.contains("eth0,wlan*,!docker0"), "{message}");
        }
        for text in ["eth 0", "a/b", "!!eth0", "eth0=x", "a-name-of-16-chars", "tcp:eth0"] {
            let message = fault::<InterfaceFilter>(text);
            assert!(message.contains("not the name of a network interface"), "{message}");
        }
        for text in ["", "5", "ipv4", "v6", "4,6"] {
            let message = fault::<Families>(text);
            assert!(message.contains("not an address family; write 4, 6, any"), "{message}");
        }
        for text in ["10.0.0.0/33", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "eth0", "::/129", "10.0.0.0/8/8"]
        {
            let message = fault::<NetworkFilter>(text);
            assert!(message.contains(&format!("`{text}` is not a network; write ADDRESS/BITS")), "{message}");
        }
        assert_eq!(
            fault::<NetworkFilter>("10.0.0.1/8"),
            "`10.0.0.1/8` has bits set behind its prefix; the network is 10.0.0.0/8"
        );
        assert!(fault::<NetworkFilter>("10.0.0.0/8,").contains("empty entry"));
    }
}
