//! Links that are found by themselves: the options, what a listener tells, and what a connector learns.

use std::fmt::Display;
use std::sync::Arc;

use bondwire::{Bond, Class};
use bondwire_tcp::{
    AddressFilter, Discovery, DiscoveryConfig, Families, GivenAddress, InterfaceFilter, Listening,
    NetworkFilter, TcpAddress,
};
use clap::Args;

use crate::link_spec::LinkSpec;
use crate::medium::Medium;
use crate::service::{self, Refusal, Status};

/// Label of the stream on which a listener tells its addresses.
pub(crate) const ADDRESSES_LABEL: &str = "addresses";
/// Its priority: before all other bulk data, since it may bring the links for that.
const PRIORITY: u8 = 0;

/// Which interfaces and addresses of this host may be used.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct FilterOptions {
    /// Network interfaces whose addresses are used (connect, speed) or told to peers (listen): names or patterns with
    /// commas between; !NAME leaves one out [default: all but those of containers and virtual machines]
    #[arg(long, value_name = "LIST", help_heading = HEADING)]
    pub(crate) interfaces: Option<InterfaceFilter>,
    /// Address families, in the same way: 4, 6, any (whichever answers) or both (a link for each)
    #[arg(long, value_name = "FAMILY", help_heading = HEADING)]
    pub(crate) family: Option<Families>,
    /// Networks of this host's addresses, in the same way: ADDRESS/BITS with commas between; !NETWORK leaves one out
    #[arg(long, value_name = "LIST", help_heading = HEADING)]
    pub(crate) network: Option<NetworkFilter>,
}

/// Where the options stand in the help.
const HEADING: &str = "Links that are found by themselves";

impl FilterOptions {
    pub(crate) fn filter(&self) -> AddressFilter {
        AddressFilter {
            interfaces: self.interfaces.clone().unwrap_or_default(),
            families: self.family.unwrap_or_default(),
            networks: self.network.clone().unwrap_or_default(),
        }
    }
}

/// What the entry of a peer says of the paths to it, in place of options that are not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PeerPaths {
    pub(crate) discover: Option<bool>,
    pub(crate) interfaces: Option<InterfaceFilter>,
    pub(crate) family: Option<Families>,
    pub(crate) network: Option<NetworkFilter>,
    pub(crate) peer_network: Option<NetworkFilter>,
    pub(crate) per_path: Option<u8>,
}

impl PeerPaths {
    /// Those of a peer whose paths are found unless an option says no.
    pub(crate) fn found() -> Self {
        Self { discover: Some(true), ..Self::default() }
    }

    /// These, and what `others` say where these say nothing.
    pub(crate) fn or(self, others: &Self) -> Self {
        Self {
            discover: self.discover.or(others.discover),
            interfaces: self.interfaces.or_else(|| others.interfaces.clone()),
            family: self.family.or(others.family),
            network: self.network.or_else(|| others.network.clone()),
            peer_network: self.peer_network.or_else(|| others.peer_network.clone()),
            per_path: self.per_path.or(others.per_path),
        }
    }

    /// These, where whoever says which paths are to be found wants them to be found.
    pub(crate) fn into_wishes(self) -> Self {
        let says_which = self != Self { discover: self.discover, ..Self::default() };
        Self { discover: self.discover.or(says_which.then_some(true)), ..self }
    }
}

/// What a connecting command finds by itself.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct DiscoveryOptions {
    /// Find all paths to the peer from one tcp: LINK [default with the name of a peer, --pair or ssh:]
    #[arg(long, help_heading = HEADING)]
    discover: bool,
    /// Use the links that are named, and no others
    #[arg(
        long,
        help_heading = HEADING,
        conflicts_with_all = ["discover", "interfaces", "family", "network", "peer_network", "per_path"]
    )]
    no_discover: bool,
    #[command(flatten)]
    filter: FilterOptions,
    /// Networks of the peer's addresses that are used, in the form of --network
    #[arg(long, value_name = "LIST", help_heading = HEADING)]
    peer_network: Option<NetworkFilter>,
    /// Links over each path [default: 1]
    #[arg(
        long,
        value_name = "NUMBER",
        help_heading = HEADING,
        value_parser = clap::value_parser!(u8).range(1..=i64::from(bondwire_tcp::limits::LINKS_PER_PATH_MAX))
    )]
    per_path: Option<u8>,
}

impl DiscoveryOptions {
    /// What is said here, as an entry of a peer would say it.
    pub(crate) fn paths(&self) -> PeerPaths {
        let FilterOptions { interfaces, family, network } = self.filter.clone();
        let discover = if self.no_discover { Some(false) } else { self.discover.then_some(true) };
        PeerPaths {
            discover,
            interfaces,
            family,
            network,
            peer_network: self.peer_network.clone(),
            per_path: self.per_path,
        }
    }

    /// What to find; nothing if links are only those that are named. `usual` says what holds if no option says it.
    pub(crate) fn config(&self, usual: &PeerPaths) -> Option<DiscoveryConfig> {
        let paths = self.paths().into_wishes().or(usual);
        paths.discover.unwrap_or(false).then(|| DiscoveryConfig {
            filter: AddressFilter {
                interfaces: paths.interfaces.unwrap_or_default(),
                families: paths.family.unwrap_or_default(),
                networks: paths.network.unwrap_or_default(),
            },
            peer_networks: paths.peer_network.unwrap_or_default(),
            links_per_path: paths.per_path.unwrap_or(1),
        })
    }
}

/// The address from which links are found, if `link` is not to be taken as it stands.
pub(crate) fn given(link: &LinkSpec, config: &DiscoveryConfig) -> Option<GivenAddress> {
    let Medium::Tcp(address) = &link.medium else { return None };
    let is_filtered = !config.filter.is_default();
    let is_named = address.iface.is_some() || address.source.is_some() || link.options.quota_bytes.is_some();
    let stands = is_named || (is_loopback(&address.host) && !is_filtered);
    (!stands).then(|| GivenAddress {
        address: address.clone(),
        policy: link.options.policy,
        keep_alive: link.options.keep_alive,
    })
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// A link as it stands that would use what a filter leaves out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Excluded {
    #[error("{0} leaves by {1}, which --interfaces leaves out; change one of them")]
    Interface(String, String),
    #[error("{0} leaves from {1}, which --family or --network leaves out; change one of them")]
    Source(String, std::net::IpAddr),
    #[error(
        "{0} has a quota=, so it is dialled as it stands, and may leave by any interface; name one with iface="
    )]
    Anywhere(String),
}

/// Whether the filters let `link`, which is dialled as it stands, be.
pub(crate) fn check(link: &LinkSpec, config: &DiscoveryConfig) -> Result<(), Excluded> {
    let Medium::Tcp(TcpAddress { iface, source, .. }) = &link.medium else { return Ok(()) };
    let filter = &config.filter;
    let text = || link.to_string();
    if let Some(iface) = iface.as_ref().filter(|iface| !filter.interfaces.allows(iface))
        && filter.interfaces != InterfaceFilter::default()
    {
        return Err(Excluded::Interface(text(), iface.clone()));
    }
    if let Some(ip) = source.filter(|ip| !(filter.families.allows(*ip) && filter.networks.allows(*ip))) {
        return Err(Excluded::Source(text(), ip));
    }
    if iface.is_none() && filter.interfaces != InterfaceFilter::default() {
        return Err(Excluded::Anywhere(text()));
    }
    Ok(())
}

/// Learns the peer's addresses, for as long as the peer tells them.
pub(crate) async fn learn(bond: Bond, discovery: Arc<Discovery>) {
    let learnt = async {
        let stream = bond.open_stream_with(Class::Bulk, PRIORITY, ADDRESSES_LABEL).await.map_err(said)?;
        let (mut reader, _writer) = stream.split();
        match service::answer(&mut reader).await {
            Ok(()) => discovery.learn(reader).await.map_err(said),
            Err(Refusal::Refused { why, .. }) => {
                tracing::debug!("the peer tells no other addresses: {why}");
                Ok(())
            }
            Err(lost) => Err(said(lost)),
        }
    };
    let learnt: Result<(), String> = learnt.await;
    if let Err(why) = learnt
        && bond.close_reason().is_none()
    {
        tracing::warn!("no more of the peer's addresses are found: {why}");
    }
}

fn said(error: impl Display) -> String {
    error.to_string()
}

/// What a listener tells its peers of its addresses.
pub(crate) struct Told {
    /// Where it listens, with the numbers of the acceptors.
    pub(crate) listening: Vec<(u32, Listening)>,
    pub(crate) filter: AddressFilter,
}

impl Told {
    /// Tells a peer that may use these acceptors, or all.
    pub(crate) async fn tell(&self, acceptors: Option<&[u32]>, stream: bondwire::BondStream) {
        let permitted = |number: &u32| acceptors.is_none_or(|acceptors| acceptors.contains(number));
        let listening: Vec<_> =
            self.listening.iter().filter(|(number, _)| permitted(number)).map(|(_, at)| at.clone()).collect();
        // The reader stays: its end would tell the peer to stop.
        let (_reader, mut writer) = stream.split();
        if service::accept(&mut writer).await.is_ok()
            && let Err(error) = bondwire_tcp::advertise(writer, &listening, &self.filter).await
        {
            tracing::debug!("a peer is told no more addresses: {error}");
        }
    }
}

/// What the peer reads where this host tells nothing.
pub(crate) const NOT_TOLD: (Status, &str) =
    (Status::NotPermitted, "this host does not tell its addresses (--no-discover)");

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: DiscoveryOptions,
    }

    fn config(arguments: &[&str], usual: &PeerPaths) -> Option<DiscoveryConfig> {
        let command = Command::try_parse_from(["connect"].iter().chain(arguments)).unwrap();
        command.options.config(usual)
    }

    #[test]
    fn options_come_before_the_entry_of_the_peer() {
        let named = PeerPaths::default();
        assert!(config(&[], &named).is_none());
        assert!(config(&["--discover"], &named).is_some());
        assert!(config(&["--interfaces", "eth0"], &named).is_some_and(|config| !config.filter.is_default()));
        assert!(config(&[], &PeerPaths::found()).is_some_and(|config| config.filter.is_default()));
        assert!(config(&["--no-discover"], &PeerPaths::found()).is_none());
        let entry =
            PeerPaths { interfaces: Some("eth0".parse().unwrap()), per_path: Some(2), ..PeerPaths::found() };
        let of = |arguments: &[&str]| {
            let config = config(arguments, &entry).unwrap();
            (config.filter.interfaces.allows("eth0"), config.links_per_path)
        };
        assert_eq!(of(&[]), (true, 2));
        assert_eq!(of(&["--interfaces", "wlan0"]), (false, 2));
        assert_eq!(of(&["--per-path", "3"]), (true, 3));
        assert!(config(&[], &PeerPaths { discover: Some(false), ..entry }).is_none());
    }

    #[test]
    fn links_that_say_how_they_leave_are_taken_as_they_stand() {
        let given = |link: &str, filter: &str| {
            let interfaces = if filter.is_empty() { Default::default() } else { filter.parse().unwrap() };
            let filter = AddressFilter { interfaces, ..AddressFilter::default() };
            let config = DiscoveryConfig { filter, ..DiscoveryConfig::default() };
            given(&link.parse().unwrap(), &config).map(|given| (given.address.to_string(), given.policy.tier))
        };
        assert_eq!(given("tcp:h,tier=2,cc=bbr", ""), Some(("h:7700,cc=bbr".to_owned(), 2)));
        for link in ["tcp:h,iface=eth0", "tcp:h,source=10.0.0.1", "tcp:h,quota=5GB", "exec:true", "stdio:"] {
            assert_eq!(given(link, "eth0"), None, "{link}");
        }
        for link in ["tcp:localhost:1", "tcp:127.0.0.1", "tcp:[::1]:1"] {
            assert_eq!(given(link, ""), None, "{link}");
            assert!(given(link, "eth0").is_some(), "{link} must not pass the filter by");
        }
    }
}
