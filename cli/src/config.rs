//! The configuration of a service: what `connect` and `listen` have as arguments, for several bonds, in one file.
//!
//! Each value is read by the parser of the command line, so there is one vocabulary. `docs/CONFIG.md` has the keys.

mod entries;
mod file;
mod print;
#[cfg(test)]
mod tests;

pub(crate) use print::{ConnectText, General, ListenText};

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bondwire::{Identity, PublicKey};
use bondwire_tcp::AddressFilter;

use crate::access::{Always, Grants};
use crate::discovery::{DiscoveryOptions, PeerPaths};
use crate::failure::{Exit, Failure};
use crate::forward::spec::ForwardOption;
use crate::link_spec::LinkSpec;
use crate::listening::ListenPlan;
use crate::observers::ObserverOptions;
use crate::options::{CipherOptions, PeerProof};
use crate::peers::{PeerName, PeersFile};
use crate::session::SessionPlan;
use crate::tun::TunSpec;
use crate::{keys, output};

/// What a file says, with what it leaves to the peers file.
#[derive(Debug)]
pub(crate) struct Config {
    /// The private key; without one the user's own.
    pub(crate) key: Option<PathBuf>,
    pub(crate) peers_file: PeersFile,
    /// Name for `bondwire status` and the like; without one that of the file.
    pub(crate) control: Option<String>,
    /// Who looks on while it runs.
    pub(crate) observers: ObserverOptions,
    /// Time in which connections may end by themselves after SIGTERM.
    pub(crate) drain: Duration,
    pub(crate) listen: Option<ListenConfig>,
    /// The bonds that are opened, by name.
    pub(crate) connect: BTreeMap<PeerName, ConnectConfig>,
}

/// Where to listen, and whom to let in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ListenConfig {
    pub(crate) links: Vec<LinkSpec>,
    pub(crate) cipher: CipherOptions,
    pub(crate) grants: Grants,
    /// Which addresses peers are told, if any.
    pub(crate) told: Option<AddressFilter>,
    pub(crate) tun: Option<TunSpec>,
}

/// A bond to be opened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ConnectConfig {
    pub(crate) way: Way,
    pub(crate) links: Vec<LinkSpec>,
    /// Which devices may be attached, if the file says so.
    pub(crate) attach: Option<Vec<LinkSpec>>,
    pub(crate) forwards: Vec<ForwardOption>,
    pub(crate) tun: Option<TunSpec>,
}

/// What cannot change while a bond runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Way {
    /// Without a key whoever answers is taken.
    pub(crate) peer: Option<PublicKey>,
    pub(crate) cipher: CipherOptions,
    /// What is found by itself.
    pub(crate) paths: PeerPaths,
}

impl Config {
    /// Reads the file at `path`.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        file::load(path)
    }

    /// Prints the file of a service that does what a command line says.
    pub(crate) fn print(text: &str) -> Result<(), Failure> {
        // What cannot be read again must not be written.
        file::parse(Path::new("this configuration"), text)?;
        output::text(text)
    }

    /// This host's key, made when it is the user's own and missing.
    pub(crate) fn identity(&self) -> Result<Identity, Failure> {
        keys::load_or_make(self.key.as_deref())
    }

    /// Whether the key can be had, without making one.
    pub(crate) fn check_key(&self) -> Result<(), Failure> {
        match &self.key {
            Some(file) => keys::load(file).map(drop),
            None => match keys::default_path()? {
                file if file.exists() => keys::load(&file).map(drop),
                _ => Ok(()),
            },
        }
    }
}

impl ListenConfig {
    /// Whether a running listener can become as `new` says.
    pub(crate) fn is_compatible(&self, new: &Self) -> bool {
        let open_to_all = |config: &Self| config.grants.always == Always::Anyone;
        self.cipher == new.cipher && open_to_all(self) == open_to_all(new)
    }

    pub(crate) fn plan(&self, identity: Identity, peers_file: PeersFile) -> Result<ListenPlan, Failure> {
        Ok(ListenPlan {
            identity,
            links: self.links.clone(),
            config: self.cipher.bond_config()?,
            grants: self.grants.clone(),
            peers_file,
            pairing_name: None,
            told: self.told.clone(),
            tun: self.tun.clone(),
            waits: true,
        })
    }
}

impl ConnectConfig {
    pub(crate) fn plan(&self, identity: Identity) -> Result<SessionPlan, Failure> {
        Ok(SessionPlan {
            identity,
            peer: self.way.peer.map_or(PeerProof::Nothing, PeerProof::Key),
            links: self.links.clone(),
            found: DiscoveryOptions::default().config(&self.way.paths),
            config: self.way.cipher.bond_config()?,
            first_link_timeout: FIRST_LINK_TIMEOUT,
        })
    }
}

/// Time after which it is said that no link came up. A service goes on trying.
const FIRST_LINK_TIMEOUT: Duration = Duration::from_secs(30);

/// One line of what it comes to.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(listen) = &self.listen {
            let links: Vec<_> = listen.links.iter().map(ToString::to_string).collect();
            parts.push(format!("listens on {}", links.join(", ")));
        }
        for (name, bond) in &self.connect {
            let forwards = count(bond.forwards.len(), "forward");
            parts
                .push(format!("connects to {name} over {} with {forwards}", count(bond.links.len(), "link")));
        }
        f.write_str(&parts.join("; "))
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// The failure of a file that is not as it must be.
fn wrong(path: &Path, what: impl fmt::Display) -> Failure {
    Failure::new(Exit::Configuration, format!("{}{what}", path.display()))
}
