//! Where other hosts reach a listener: the LINKs to paste there.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// LINKs that lead to `bound` from elsewhere: its own address, or one of each family of each network interface if it
/// stands for all of them, and of `iface` only if that is given. Loopback addresses only if there is nothing else.
pub(crate) fn links_to(bound: SocketAddr, iface: Option<&str>) -> Vec<String> {
    if !bound.ip().is_unspecified() {
        return vec![link(bound)];
    }
    // Without a list of interfaces only this host itself is known.
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let up = interfaces.iter().filter(|interface| interface.is_oper_up() || interface.is_loopback());
    let wanted = up.filter(|interface| iface.is_none_or(|name| name == interface.name));
    let addresses = wanted.map(|interface| (interface.name.as_str(), interface.ip()));
    choose(bound, addresses).into_iter().map(link).collect()
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
        assert_eq!(links_to("10.0.0.5:9".parse().unwrap(), None), ["tcp:10.0.0.5:9"]);
        assert!(!links_to("[::]:9".parse().unwrap(), None).is_empty());
        assert!(links_to("0.0.0.0:9".parse().unwrap(), Some("no such")).is_empty());
    }
}
