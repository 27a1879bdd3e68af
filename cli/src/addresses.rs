//! Where other hosts reach a listener: the LINKs to paste there.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use bondwire_tcp::{AddressFilter, Listening, interfaces};

/// LINKs that lead from elsewhere to where this host listens: its own address, or one of each family of each network
/// interface that `filter` allows if it stands for all of them. Loopback addresses only if there is nothing else.
pub(crate) fn links_to(listening: &Listening, filter: &AddressFilter) -> Vec<String> {
    let bound = listening.address;
    if !bound.ip().is_unspecified() {
        return vec![link(bound)];
    }
    // Without a list of interfaces only this host itself is known.
    let interfaces = interfaces::list().unwrap_or_default();
    let only = listening.interface.as_ref();
    let addresses =
        interfaces.iter().filter(|interface| only.is_none_or(|name| *name == interface.name)).flat_map(
            |interface| interface.addresses.iter().map(|address| (interface.name.as_str(), address.ip)),
        );
    choose(bound, addresses.filter(|(name, ip)| filter.allows(name, *ip))).into_iter().map(link).collect()
}

fn choose<'a>(bound: SocketAddr, addresses: impl Iterator<Item = (&'a str, IpAddr)>) -> Vec<SocketAddr> {
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_link_local(),
        // Those of one cable need its name at the other end.
        IpAddr::V6(ip) => bound.is_ipv6() && !ip.is_unicast_link_local(),
    };
    let (mut loopback, mut others) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for (name, ip) in addresses.filter(|(_, ip)| usable(ip)) {
        if ip.is_loopback() {
            loopback.push(SocketAddr::new(ip, bound.port()));
        // Further addresses of an interface lead over the same path.
        } else if seen.insert((name, ip.is_ipv6())) {
            others.push(SocketAddr::new(ip, bound.port()));
        }
    }
    if others.is_empty() { loopback } else { others }
}

fn link(address: SocketAddr) -> String {
    format!("tcp:{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(bound: &str, addresses: &[(&str, &str)]) -> Vec<String> {
        let addresses = addresses.iter().map(|(name, ip)| (*name, ip.parse().unwrap()));
        choose(bound.parse().unwrap(), addresses).into_iter().map(link).collect()
    }

    const HOST: [(&str, &str); 7] = [
        ("lo", "127.0.0.1"),
        ("lo", "::1"),
        ("eth0", "10.0.0.5"),
        ("eth0", "fe80::1"),
        ("eth0", "2001:db8::5"),
        ("eth0", "2001:db8::6"),
        ("wlan0", "192.168.1.5"),
    ];

    #[test]
    fn each_interface_gives_one_address_of_each_family() {
        assert_eq!(
            chosen("[::]:7700", &HOST),
            ["tcp:10.0.0.5:7700", "tcp:[2001:db8::5]:7700", "tcp:192.168.1.5:7700"]
        );
        assert_eq!(chosen("0.0.0.0:1", &HOST), ["tcp:10.0.0.5:1", "tcp:192.168.1.5:1"]);
        assert_eq!(chosen("0.0.0.0:1", &HOST[..2]), ["tcp:127.0.0.1:1"]);
        let to = |address: &str, interface: Option<&str>, filter: &AddressFilter| {
            let interface = interface.map(str::to_owned);
            links_to(&Listening { address: address.parse().unwrap(), interface }, filter)
        };
        let all = AddressFilter::default();
        assert_eq!(to("10.0.0.5:9", None, &all), ["tcp:10.0.0.5:9"]);
        assert!(!to("[::]:9", None, &all).is_empty());
        assert!(to("0.0.0.0:9", Some("no such"), &all).is_empty());
        let none = AddressFilter { interfaces: "nosuch0".parse().unwrap(), ..all };
        assert!(to("[::]:9", None, &none).is_empty());
    }
}
