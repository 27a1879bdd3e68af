//! The sections of the file, as serde has them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bondwire_tcp::{Families, InterfaceFilter, NetworkFilter};
use serde::{Deserialize, Deserializer};
use serde_spanned::Spanned;

use crate::discovery::{FilterOptions, PeerPaths};
use crate::forward::permits::Permit;
use crate::forward::spec::ForwardOption;
use crate::link_spec::LinkSpec;
use crate::options::{Cipher, CipherOptions};
use crate::peers::{Entry, PeerName};
use crate::toml_file::{Key, PerPath, Text, some_texts};
use crate::tun::{TunAddresses, TunName, TunSpec, TunSpecError};

/// Longest time for connections to end by themselves, in seconds.
const DRAIN_MAX_SECONDS: u64 = 3600;

/// A value that knows where it stands.
pub(super) type Placed<T> = Spanned<Text<T>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Document {
    pub(super) key: Option<PathBuf>,
    pub(super) peers: Option<PathBuf>,
    pub(super) control: Option<String>,
    pub(super) record: Option<PathBuf>,
    pub(super) metrics: Option<Text<SocketAddr>>,
    pub(super) drain_seconds: Option<DrainSeconds>,
    pub(super) listen: Option<Spanned<ListenEntry>>,
    #[serde(default)]
    pub(super) connect: BTreeMap<Spanned<PeerName>, ConnectEntry>,
    #[serde(default)]
    pub(super) peer: BTreeMap<PeerName, Entry>,
}

/// As the arguments of `bondwire listen`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ListenEntry {
    pub(super) links: Spanned<Vec<Placed<LinkSpec>>>,
    #[serde(default)]
    pub(super) allow: Vec<Key>,
    #[serde(default)]
    pub(super) accept_any_peer: bool,
    #[serde(default, deserialize_with = "some_texts")]
    pub(super) permit_open: Option<Vec<Permit>>,
    #[serde(default, deserialize_with = "some_texts")]
    pub(super) permit_listen: Option<Vec<Permit>>,
    cipher: Option<Text<Cipher>>,
    #[serde(default)]
    plaintext_over_ip: bool,
    pub(super) discover: Option<bool>,
    pub(super) tun: Option<Spanned<TunEntry>>,
    interfaces: Option<Text<InterfaceFilter>>,
    family: Option<Text<Families>>,
    network: Option<Text<NetworkFilter>>,
}

/// As the arguments of `bondwire connect`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ConnectEntry {
    pub(super) links: Option<Spanned<Vec<Placed<LinkSpec>>>>,
    pub(super) peer: Option<Key>,
    #[serde(default)]
    pub(super) accept_any_peer: bool,
    #[serde(default)]
    pub(super) forwards: Vec<Placed<ForwardOption>>,
    pub(super) attach: Option<Vec<Placed<LinkSpec>>>,
    pub(super) tun: Option<Spanned<TunEntry>>,
    cipher: Option<Text<Cipher>>,
    #[serde(default)]
    plaintext_over_ip: bool,
    discover: Option<bool>,
    interfaces: Option<Text<InterfaceFilter>>,
    family: Option<Text<Families>>,
    network: Option<Text<NetworkFilter>>,
    peer_network: Option<Text<NetworkFilter>>,
    per_path: Option<PerPath>,
}

/// As the arguments `--tun`, `--addr` and `--tun-mtu`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TunEntry {
    name: Text<TunName>,
    addr: Text<TunAddresses>,
    mtu: Option<u16>,
}

impl TunEntry {
    pub(super) fn spec(self) -> Result<TunSpec, TunSpecError> {
        let Self { name: Text(name), addr: Text(addresses), mtu } = self;
        let mtu = mtu.map(|mtu| mtu.to_string().parse()).transpose()?;
        TunSpec::new(name, addresses, mtu)
    }
}

impl ListenEntry {
    pub(super) fn cipher(&self) -> CipherOptions {
        CipherOptions::new(value(&self.cipher), self.plaintext_over_ip)
    }

    pub(super) fn filter(&self) -> FilterOptions {
        FilterOptions {
            interfaces: value(&self.interfaces),
            family: value(&self.family),
            network: value(&self.network),
        }
    }
}

impl ConnectEntry {
    pub(super) fn cipher(&self) -> CipherOptions {
        CipherOptions::new(value(&self.cipher), self.plaintext_over_ip)
    }

    /// What the section says of the paths.
    pub(super) fn paths(&self) -> PeerPaths {
        PeerPaths {
            discover: self.discover,
            interfaces: value(&self.interfaces),
            family: value(&self.family),
            network: value(&self.network),
            peer_network: value(&self.peer_network),
            per_path: self.per_path.as_ref().map(|PerPath(number)| *number),
        }
    }
}

fn value<T: Clone>(text: &Option<Text<T>>) -> Option<T> {
    text.as_ref().map(|Text(value)| value.clone())
}

/// Time for connections to end by themselves.
pub(super) struct DrainSeconds(pub(super) Duration);

impl<'de> Deserialize<'de> for DrainSeconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = u64::deserialize(deserializer)?;
        if seconds <= DRAIN_MAX_SECONDS {
            return Ok(Self(Duration::from_secs(seconds)));
        }
        let message = format!("the longest time to drain is {DRAIN_MAX_SECONDS} s, not {seconds}");
        Err(serde::de::Error::custom(message))
    }
}
