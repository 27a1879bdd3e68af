//! Remembered peers: who they are, where they are dialled, what they may do here.
//!
//! They stand in a TOML file that people may edit while programs run; the program changes it without touching comments.

mod edit;
mod file;
mod name;
mod watch;

pub(crate) use edit::{NewPeer, Remembered, WantedName};
pub(crate) use file::{Entry, PeersFile};
pub(crate) use name::PeerName;
pub(crate) use watch::{Change, PeersWatch};

use bondwire::PublicKey;

use crate::discovery::PeerPaths;
use crate::forward::permits::Permit;
use crate::link_spec::LinkSpec;
use crate::ssh::SshTarget;

/// One remembered peer. What is `None` is left to the command line, or to the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) name: PeerName,
    pub(crate) key: PublicKey,
    /// Where it is dialled.
    pub(crate) links: Vec<LinkSpec>,
    /// Where to log in and start its end, if it is not dialled.
    pub(crate) ssh: Option<SshTarget>,
    /// Targets that it may reach through this host.
    pub(crate) permit_open: Option<Vec<Permit>>,
    /// Addresses of this host on which it may listen.
    pub(crate) permit_listen: Option<Vec<Permit>>,
    /// LINKs of this host's listen by which it may come in.
    pub(crate) permit_links: Option<Vec<LinkSpec>>,
    /// Whether its speed tests are answered.
    pub(crate) permit_speed: Option<bool>,
    /// Whether its IP packets are taken, where this host has an interface for them.
    pub(crate) permit_tun: Option<bool>,
    pub(crate) limits: Limits,
    /// Over which paths it is dialled.
    pub(crate) paths: PeerPaths,
}

/// How much of this host one peer may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) bonds_max: Option<usize>,
    /// In each bond, as the sizes below.
    pub(crate) streams_max: Option<u64>,
    pub(crate) receive_buffer_bytes: Option<u64>,
    pub(crate) send_buffer_bytes: Option<u64>,
}

/// All of them, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Peers(Vec<Peer>);

impl Peers {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.0.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn named(&self, name: &PeerName) -> Option<&Peer> {
        self.iter().find(|peer| peer.name == *name)
    }

    pub(crate) fn with_key(&self, key: &PublicKey) -> Option<&Peer> {
        self.iter().find(|peer| peer.key == *key)
    }

    /// These peers, and of `others` those that share neither name nor key with one of them.
    pub(crate) fn before(&self, others: &Self) -> Self {
        let is_new = |peer: &&Peer| self.named(&peer.name).is_none() && self.with_key(&peer.key).is_none();
        Self(self.iter().chain(others.iter().filter(is_new)).cloned().collect())
    }
}
