//! Which pairs of an interface here and an interface of the peer are worth a link: pure functions of what is known.

use std::net::{IpAddr, SocketAddr};

use crate::advertisement::AdvertisedInterface;
use crate::filter::{AddressFilter, Families, NetworkFilter};
use crate::interfaces::{Interface, InterfaceAddress};
use crate::limits::ROUTES_MAX;

/// One way between two interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The address it leaves from.
    pub source: IpAddr,
    /// The peer's address.
    pub target: SocketAddr,
}

/// A path that is worth a link: from an interface of this host to one of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The interface of this host.
    pub interface: String,
    /// The interface of the peer as the peer calls it, or the host that was given.
    pub peer_interface: String,
    /// Ways to take it, the best first; the first that answers is used.
    pub routes: Vec<Route>,
    /// The given address that it comes from: its place in the list.
    pub given: usize,
    /// 0 for the first link over this path, 1 for the second, and so on.
    pub number: u8,
}

impl Path {
    /// Whether this is the path of `other`, whose link goes by `connected` if it is up.
    pub(super) fn continues(&self, other: &Self, connected: Option<&Route>) -> bool {
        let shares_route = match connected {
            Some(route) => self.routes.contains(route),
            None => other.routes.iter().any(|route| self.routes.contains(route)),
        };
        self.interface == other.interface && self.number == other.number && shares_route
    }
}

/// An interface of the peer, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerInterface {
    pub(super) name: String,
    pub(super) addresses: Vec<SocketAddr>,
    /// The given address that it belongs to, or the first.
    pub(super) given: usize,
    /// Whether the user named it: then its addresses may be anything.
    pub(super) is_given: bool,
}

/// A host that was given, with the addresses that its name has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GivenHost {
    /// Its place in the list.
    pub(super) place: usize,
    pub(super) name: String,
    pub(super) addresses: Vec<SocketAddr>,
}

/// The peer's interfaces: those that it advertises, and given addresses that none of these has, such as the outside of an
/// address translator. Nothing comes of nothing: without a given address there is none.
pub(super) fn peer_interfaces(given: &[GivenHost], advertised: &[AdvertisedInterface]) -> Vec<PeerInterface> {
    let Some(first) = given.first() else { return Vec::new() };
    let mut found: Vec<PeerInterface> = Vec::new();
    for interface in advertised {
        let holds = |host: &GivenHost| host.addresses.iter().any(|ip| interface.addresses.contains(ip));
        let host = given.iter().find(|host| holds(host));
        found.push(PeerInterface {
            name: interface.name.clone(),
            addresses: interface.addresses.clone(),
            given: host.unwrap_or(first).place,
            is_given: host.is_some(),
        });
    }
    let mut others = Vec::new();
    for host in given {
        let is_known = |ip: &SocketAddr| {
            [&found, &others].into_iter().flatten().any(|known: &PeerInterface| known.addresses.contains(ip))
        };
        // A name whose addresses the peer has confirmed in part is that of one of its interfaces.
        if !host.addresses.is_empty() && !host.addresses.iter().any(is_known) {
            others.push(PeerInterface {
                name: host.name.clone(),
                addresses: host.addresses.clone(),
                given: host.place,
                is_given: true,
            });
        }
    }
    others.append(&mut found);
    others.sort_by_key(|interface| !interface.is_given);
    others
}

/// What the choice of paths depends on beside the interfaces.
pub(super) struct Rules<'a> {
    /// Interfaces and addresses of this host that may be used.
    pub(super) filter: &'a AddressFilter,
    /// Addresses of the peer that may be used.
    pub(super) peer_networks: &'a NetworkFilter,
    pub(super) links_per_path: u8,
    pub(super) links_max: usize,
    /// Whether a route leads from an address of an interface to a target.
    pub(super) leads: &'a dyn Fn(&Interface, IpAddr, SocketAddr) -> bool,
}

/// The paths between `own` interfaces and those of the peer, the best first: each pair once, or once for each family.
pub(super) fn plan(own: &[Interface], peer: &[PeerInterface], rules: &Rules<'_>) -> Vec<Path> {
    let allowed = allowed(own, peer, rules);
    let mut ranked: Vec<(bool, Path)> = Vec::new();
    for theirs in peer {
        for interface in &allowed {
            let routes = routes(interface, own, theirs, rules);
            for routes in by_path(routes, rules.filter.families) {
                let Some(best) = routes.first() else { continue };
                let is_far = !interface.addresses.iter().any(|address| address.is_on_link(best.target.ip()));
                let path = Path {
                    interface: interface.name.clone(),
                    peer_interface: theirs.name.clone(),
                    routes,
                    given: theirs.given,
                    number: 0,
                };
                ranked.push((is_far, path));
            }
        }
    }
    // Neighbours first; then in the order of the peer's interfaces.
    ranked.sort_by_key(|(is_far, _)| *is_far);
    let numbered = (0..rules.links_per_path)
        .flat_map(|number| ranked.iter().map(move |(_, path)| Path { number, ..path.clone() }));
    numbered.take(rules.links_max).collect()
}

/// The interfaces that may be used. One that is only left out by default is in, where an address that was given is its
/// neighbour: a virtual machine on this host.
fn allowed(own: &[Interface], peer: &[PeerInterface], rules: &Rules<'_>) -> Vec<Interface> {
    let filter = rules.filter;
    let given = || peer.iter().filter(|theirs| theirs.is_given).flat_map(|theirs| &theirs.addresses);
    let is_neighbour = |address: &InterfaceAddress| given().any(|target| address.is_on_link(target.ip()));
    let mut allowed = filter.apply(own);
    if filter.interfaces == crate::InterfaceFilter::default() {
        for interface in own.iter().filter(|interface| !filter.interfaces.allows(&interface.name)) {
            let addresses: Vec<_> = interface
                .addresses
                .iter()
                .filter(|address| filter.families.allows(address.ip) && filter.networks.allows(address.ip))
                .copied()
                .collect();
            if addresses.iter().any(is_neighbour) {
                allowed.push(Interface { addresses, ..interface.clone() });
            }
        }
    }
    allowed
}

/// The ways from `interface` to the peer's, the best first.
fn routes(interface: &Interface, own: &[Interface], theirs: &PeerInterface, rules: &Rules<'_>) -> Vec<Route> {
    let is_own = |ip: IpAddr| own.iter().flat_map(|own| &own.addresses).any(|address| address.ip == ip);
    let mut routes: Vec<Route> = theirs
        .addresses
        .iter()
        .filter(|target| rules.peer_networks.allows(target.ip()))
        .filter_map(|target| {
            let is_here = target.ip().is_loopback() || is_own(target.ip());
            if is_here != interface.is_loopback || (is_here && !theirs.is_given) {
                return None;
            }
            if is_here {
                let family = interface.addresses.iter().find(|a| a.ip.is_ipv4() == target.is_ipv4());
                return family.map(|_| Route { source: target.ip(), target: *target });
            }
            let source = source(interface, target)?;
            (rules.leads)(interface, source, *target).then_some(Route { source, target: *target })
        })
        .collect();
    let is_far = |route: &Route| !interface.addresses.iter().any(|a| a.is_on_link(route.target.ip()));
    // Neighbours first; IPv6 before IPv4, as RFC 6724 has it.
    routes.sort_by_key(|route| (is_far(route), route.target.is_ipv4()));
    routes.truncate(ROUTES_MAX);
    routes
}

/// The address of `interface` to leave from.
fn source(interface: &Interface, target: &SocketAddr) -> Option<IpAddr> {
    if let SocketAddr::V6(v6) = target
        && is_link_local(target.ip())
        && v6.scope_id() != interface.index
    {
        return None;
    }
    let fitting = interface.addresses.iter().filter(|address| {
        address.ip.is_ipv4() == target.is_ipv4() && is_link_local(address.ip) == is_link_local(target.ip())
    });
    // Among equals the first: addresses are sorted, so that the choice stays.
    fitting.min_by_key(|address| !address.is_on_link(target.ip())).map(|address| address.ip)
}

pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn by_path(routes: Vec<Route>, families: Families) -> Vec<Vec<Route>> {
    match families {
        Families::Both => {
            let (v4, v6) = routes.into_iter().partition(|route| route.target.is_ipv4());
            vec![v6, v4]
        }
        Families::Any | Families::V4 | Families::V6 => vec![routes],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, name: &str, addresses: &[&str]) -> Interface {
        let address = |text: &&str| {
            let (ip, bits) = text.split_once('/').unwrap();
            InterfaceAddress { ip: ip.parse().unwrap(), prefix_bits: bits.parse().unwrap() }
        };
        let addresses: Vec<_> = addresses.iter().map(address).collect();
        let is_loopback = addresses[0].ip.is_loopback();
        Interface { name: name.to_owned(), index, is_loopback, addresses }
    }

    fn theirs(name: &str, addresses: &[&str]) -> PeerInterface {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        PeerInterface { name: name.to_owned(), addresses, given: 0, is_given: false }
    }

    fn host() -> Vec<Interface> {
        vec![
            interface(1, "lo", &["127.0.0.1/8", "::1/128"]),
            interface(2, "eth0", &["10.0.0.1/24", "2001:db8:0::1/64", "fe80::1/64"]),
            interface(3, "eth1", &["10.0.1.1/24", "fe80::2/64"]),
            interface(4, "docker0", &["172.17.0.1/16"]),
        ]
    }

    fn planned(own: &[Interface], peer: &[PeerInterface], filter: &AddressFilter, per_path: u8) -> Vec<Path> {
        let rules = Rules {
            filter,
            peer_networks: &NetworkFilter::default(),
            links_per_path: per_path,
            links_max: 32,
            leads: &|_, _, _| true,
        };
        plan(own, peer, &rules)
    }

    /// Each path as `interface source>target[|source>target]`.
    fn shown(paths: &[Path]) -> Vec<String> {
        let route = |route: &Route| format!("{}>{}", route.source, route.target);
        let routes = |path: &Path| path.routes.iter().map(route).collect::<Vec<_>>().join("|");
        paths.iter().map(|path| format!("{} {}", path.interface, routes(path))).collect()
    }

    #[test]
    fn each_pair_is_one_path_whatever_its_families() {
        let peer = [theirs("a", &["10.0.0.2:1", "[2001:db8::2]:1"]), theirs("b", &["10.0.1.2:1"])];
        let paths = planned(&host(), &peer, &AddressFilter::default(), 1);
        assert_eq!(
            shown(&paths),
            [
                "eth0 2001:db8::1>[2001:db8::2]:1|10.0.0.1>10.0.0.2:1",
                "eth1 10.0.1.1>10.0.1.2:1",
                "eth1 10.0.1.1>10.0.0.2:1",
                "eth0 10.0.0.1>10.0.1.2:1",
            ],
            "neighbours first"
        );
    }

    #[test]
    fn families_are_paths_of_their_own_only_where_asked() {
        let peer = [theirs("a", &["10.0.0.2:1", "[2001:db8::2]:1"])];
        let with = |families| {
            let filter = AddressFilter { families, ..AddressFilter::default() };
            shown(&planned(&host()[..2], &peer, &filter, 1))
        };
        assert_eq!(with(Families::V4), ["eth0 10.0.0.1>10.0.0.2:1"]);
        assert_eq!(with(Families::V6), ["eth0 2001:db8::1>[2001:db8::2]:1"]);
        assert_eq!(with(Families::Both), ["eth0 2001:db8::1>[2001:db8::2]:1", "eth0 10.0.0.1>10.0.0.2:1"]);
        assert_eq!(with(Families::Any).len(), 1);
    }

    #[test]
    fn filters_leave_out_interfaces_and_addresses_of_both_ends() {
        let peer = [theirs("a", &["10.0.0.2:1"])];
        let filter = |interfaces: &str, networks: &str| AddressFilter {
            interfaces: if interfaces.is_empty() { Default::default() } else { interfaces.parse().unwrap() },
            networks: if networks.is_empty() { Default::default() } else { networks.parse().unwrap() },
            ..AddressFilter::default()
        };
        let shown = |filter: &AddressFilter| shown(&planned(&host(), &peer, filter, 1));
        let (eth0, eth1) = ("eth0 10.0.0.1>10.0.0.2:1", "eth1 10.0.1.1>10.0.0.2:1");
        assert_eq!(shown(&filter("", "")), [eth0, eth1], "docker0 is left out by default");
        assert_eq!(shown(&filter("eth1", "")), [eth1]);
        assert_eq!(shown(&filter("!eth1", "")), [eth0]);
        assert_eq!(shown(&filter("docker*", "")), ["docker0 172.17.0.1>10.0.0.2:1"]);
        assert_eq!(shown(&filter("", "10.0.1.0/24")), [eth1]);
        assert_eq!(shown(&filter("eth0", "10.0.1.0/24")), [""; 0]);
        let rules = Rules {
            filter: &AddressFilter::default(),
            peer_networks: &"!10.0.0.0/8".parse().unwrap(),
            links_per_path: 1,
            links_max: 32,
            leads: &|_, _, _| true,
        };
        assert_eq!(plan(&host(), &peer, &rules), []);
    }

    #[test]
    fn what_leads_to_this_host_itself_is_never_advertised_to_it() {
        let mut peer = theirs("a", &["172.17.0.1:1", "10.0.1.1:1", "127.0.0.1:1", "[::1]:1"]);
        assert_eq!(planned(&host(), &[peer.clone()], &AddressFilter::default(), 1), []);
        // The user may say so.
        peer.is_given = true;
        assert_eq!(
            shown(&planned(&host(), &[peer], &AddressFilter::default(), 1)),
            ["lo ::1>[::1]:1|127.0.0.1>127.0.0.1:1|172.17.0.1>172.17.0.1:1|10.0.1.1>10.0.1.1:1"]
        );
    }

    #[test]
    fn a_virtual_machine_is_found_when_it_is_given() {
        let mut peer = theirs("vm", &["172.17.0.9:1"]);
        let paths = |peer: &PeerInterface| {
            shown(&planned(&host()[2..], std::slice::from_ref(peer), &AddressFilter::default(), 1))
        };
        assert_eq!(paths(&peer), ["eth1 10.0.1.1>172.17.0.9:1"]);
        peer.is_given = true;
        assert_eq!(paths(&peer), ["docker0 172.17.0.1>172.17.0.9:1", "eth1 10.0.1.1>172.17.0.9:1"]);
    }

    #[test]
    fn link_local_addresses_stay_on_their_cable() {
        let scoped = |scope| {
            let address = std::net::SocketAddrV6::new("fe80::9".parse().unwrap(), 1, 0, scope);
            PeerInterface { addresses: vec![address.into()], is_given: true, ..theirs("h", &[]) }
        };
        let paths = |scope| shown(&planned(&host(), &[scoped(scope)], &AddressFilter::default(), 1));
        assert_eq!(paths(3), ["eth1 fe80::2>[fe80::9%3]:1"]);
        assert_eq!(paths(0), [""; 0], "without a zone it is on no cable");
    }

    #[test]
    fn a_pair_without_a_route_is_no_path() {
        let peer = [theirs("a", &["10.0.0.2:1", "[2001:db8::2]:1"])];
        let rules = Rules {
            filter: &AddressFilter::default(),
            peer_networks: &NetworkFilter::default(),
            links_per_path: 1,
            links_max: 32,
            leads: &|interface, _, target| interface.name == "eth0" && target.is_ipv4(),
        };
        assert_eq!(shown(&plan(&host(), &peer, &rules)), ["eth0 10.0.0.1>10.0.0.2:1"]);
    }

    #[test]
    fn several_links_come_after_the_first_of_each_path_and_are_bounded() {
        let peer: Vec<_> = (0..20).map(|n| theirs(&format!("i{n}"), &[&format!("10.0.{n}.2:1")])).collect();
        let paths = planned(&host(), &peer[..2], &AddressFilter::default(), 3);
        assert_eq!(
            paths.iter().map(|path| path.number).collect::<Vec<_>>(),
            [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
        );
        assert_eq!(planned(&host(), &peer, &AddressFilter::default(), 3).len(), 32);
    }

    #[test]
    fn given_addresses_are_found_among_the_advertised() {
        let given = |place, name: &str, addresses: &[&str]| GivenHost {
            place,
            name: name.to_owned(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let advertised = |name: &str, addresses: &[&str]| AdvertisedInterface {
            name: name.to_owned(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let hosts = [given(0, "nat.example", &["192.0.2.1:7700"]), given(1, "10.0.1.2", &["10.0.1.2:7700"])];
        let names = |found: &[PeerInterface]| -> Vec<(String, usize, bool)> {
            found.iter().map(|found| (found.name.clone(), found.given, found.is_given)).collect()
        };
        let alone = peer_interfaces(&hosts, &[]);
        assert_eq!(names(&alone), [("nat.example".into(), 0, true), ("10.0.1.2".into(), 1, true)]);
        let told = [
            advertised("eth0", &["10.0.0.2:7700"]),
            advertised("eth1", &["10.0.1.2:7700", "[2001:db8::2]:7700"]),
        ];
        let both = peer_interfaces(&hosts, &told);
        assert_eq!(
            names(&both),
            [("nat.example".into(), 0, true), ("eth1".into(), 1, true), ("eth0".into(), 0, false)]
        );
        // Without the first, what nobody named comes from the second; without any there is nothing.
        let second = peer_interfaces(&hosts[1..], &told);
        assert_eq!(names(&second), [("eth1".into(), 1, true), ("eth0".into(), 1, false)]);
        assert_eq!(peer_interfaces(&[], &told), []);
    }

    #[test]
    fn a_link_goes_on_over_the_route_that_it_uses() {
        let path = |targets: &[&str], number| Path {
            interface: "eth0".into(),
            peer_interface: "a".into(),
            routes: targets
                .iter()
                .map(|target| Route { source: "10.0.0.1".parse().unwrap(), target: target.parse().unwrap() })
                .collect(),
            given: 0,
            number,
        };
        let (running, planned) = (path(&["10.0.0.2:1", "10.0.0.3:1"], 0), path(&["10.0.0.3:1"], 0));
        assert!(planned.continues(&running, None));
        assert!(planned.continues(&running, Some(&running.routes[1])));
        assert!(!planned.continues(&running, Some(&running.routes[0])), "its address is gone");
        assert!(!path(&["10.0.0.3:1"], 1).continues(&running, None));
        assert!(!Path { interface: "eth1".into(), ..planned }.continues(&running, None));
    }
}
