//! Arguments that several commands share.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use bondwire::{BondConfig, BufferPool, Identity, PublicKey, Suite};
use clap::{Args, ValueEnum};

use crate::discovery::{DiscoveryOptions, PeerPaths};
use crate::failure::{Exit, Failure};
use crate::keys;
use crate::link_spec::LinkSpec;
use crate::link_table::LinkTable;
use crate::medium::Media;
use crate::pairing::Invitation;
use crate::peers::{PeerName, PeersFile};
use crate::session::SessionPlan;
use crate::ssh::Login;
use crate::target::Target;

/// What the buffers of all bonds of this process share, however many it runs.
static BUFFERS: LazyLock<BufferPool> = LazyLock::new(BufferPool::default);

/// This host's key.
#[derive(Args)]
pub(crate) struct KeyOption {
    /// Private key file [default: bondwire/key in the configuration folder, made when missing]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl KeyOption {
    /// The file that is named.
    pub(crate) fn named(&self) -> Option<&Path> {
        self.key.as_deref()
    }

    pub(crate) fn load(&self) -> Result<Identity, Failure> {
        keys::load_or_make(self.key.as_deref())
    }

    /// The same for a command that pairs: it makes a key that is missing where one is named, too.
    pub(crate) fn load_for_pairing(&self) -> Result<Identity, Failure> {
        keys::load_or_make_for_pairing(self.key.as_deref())
    }
}

/// Where the peers stand.
#[derive(Args)]
pub(crate) struct PeersOption {
    /// File with the remembered peers [default: bondwire/peers.toml in the configuration folder]
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
}

impl PeersOption {
    /// The file that is named.
    pub(crate) fn named(&self) -> Option<&Path> {
        self.peers.as_deref()
    }

    pub(crate) fn file(&self) -> Result<PeersFile, Failure> {
        PeersFile::at(self.peers.clone())
    }
}

/// How packets are protected.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CipherOptions {
    /// Cipher of the bond [default: aes where the processor has instructions for it, else chacha]
    #[arg(long, value_name = "CIPHER")]
    cipher: Option<Cipher>,
    /// Let --cipher none go over TCP, where anyone on the path can read and forge everything
    #[arg(long)]
    plaintext_over_ip: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cipher {
    /// AES-256-GCM
    Aes,
    /// ChaCha20-Poly1305
    Chacha,
    /// No encryption: for cables that you trust
    None,
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

impl FromStr for Cipher {
    type Err = CipherError;

    fn from_str(text: &str) -> Result<Self, CipherError> {
        ValueEnum::from_str(text, false).map_err(|_| CipherError)
    }
}

/// Not the name of a cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is none of aes, chacha, none")]
pub(crate) struct CipherError;

impl CipherOptions {
    pub(crate) fn new(cipher: Option<Cipher>, plaintext_over_ip: bool) -> Self {
        Self { cipher, plaintext_over_ip }
    }

    pub(crate) fn cipher(&self) -> Option<Cipher> {
        self.cipher
    }

    pub(crate) fn plaintext_over_ip(&self) -> bool {
        self.plaintext_over_ip
    }

    /// What the other end needs on its command line to agree.
    pub(crate) fn for_other_end(&self) -> &'static str {
        match self.cipher {
            Some(Cipher::None) => " --cipher none --plaintext-over-ip",
            _ => "",
        }
    }

    /// The settings of a bond whose links strangers may hold, as all links of this build.
    pub(crate) fn bond_config(&self) -> Result<BondConfig, Failure> {
        let mut config = BondConfig { plaintext_over_ip: self.plaintext_over_ip, ..BondConfig::default() };
        config.engine.buffers = BUFFERS.clone();
        match self.cipher {
            None => {}
            Some(Cipher::Aes) => config.suites = vec![Suite::Aes256Gcm],
            Some(Cipher::Chacha) => config.suites = vec![Suite::ChaCha20Poly1305],
            Some(Cipher::None) if self.plaintext_over_ip => {
                tracing::warn!("no encryption: anyone on the path can read and forge everything");
                config.suites = vec![Suite::None];
            }
            Some(Cipher::None) => {
                return Err(Failure::configuration(
                    "--cipher none goes over TCP only with --plaintext-over-ip, at both ends: anyone on the path can \
                     then read and forge everything",
                ));
            }
        }
        Ok(config)
    }
}

/// The links to a peer, and who that is.
#[derive(Args)]
pub(crate) struct PeerOptions {
    /// Links to the peer: tcp:HOST[:PORT][,key=value...], stdio: or exec:COMMAND; or the name of a remembered peer; or
    /// ssh:[user@]host[:port], which starts the other end there (connect)
    #[arg(value_name = "LINK|NAME", required = true)]
    targets: Vec<Target>,
    /// Public key of the peer, as its `bondwire pubkey` prints it
    #[arg(long, value_name = "PUBKEY", value_parser = keys::parse_public_key)]
    peer: Option<PublicKey>,
    /// Take whoever answers: encrypted, but anyone on the path can be the peer
    #[arg(long, conflicts_with = "peer")]
    accept_any_peer: bool,
    /// Time in which the first link must come up, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) peers: PeersOption,
    #[command(flatten)]
    pub(crate) key: KeyOption,
    #[command(flatten)]
    pub(crate) cipher: CipherOptions,
    #[command(flatten)]
    pub(crate) discovery: DiscoveryOptions,
}

/// Whom a command connects to, and over which links.
pub(crate) struct Destination {
    pub(crate) links: Vec<LinkSpec>,
    pub(crate) peer: PeerProof,
    /// What is found by itself, unless an option says.
    pub(crate) paths: PeerPaths,
}

/// How the peer proves itself.
pub(crate) enum PeerProof {
    /// By its key.
    Key(PublicKey),
    /// By its token, once.
    Invitation(Invitation),
    /// Not at all.
    Nothing,
}

impl PeerOptions {
    /// The remembered peer that they name, if they do.
    pub(crate) fn peer_name(&self) -> Option<String> {
        self.targets.iter().find_map(|target| match target {
            Target::Peer(name) => Some(name.to_string()),
            Target::Link(_) | Target::Ssh(_) => None,
        })
    }

    /// The links that they name.
    pub(crate) fn links(&self) -> Vec<LinkSpec> {
        let link = |target: &Target| match target {
            Target::Link(link) => Some(link.clone()),
            Target::Peer(_) | Target::Ssh(_) => None,
        };
        self.targets.iter().filter_map(link).collect()
    }

    /// The key by which the peer proves itself, if they name one.
    pub(crate) fn peer_key(&self) -> Option<PublicKey> {
        self.peer
    }

    /// Whether whoever answers is taken.
    pub(crate) fn accepts_any_peer(&self) -> bool {
        self.accept_any_peer
    }

    /// The name, if they say nothing but that of a peer or of a running command.
    #[cfg(unix)]
    pub(crate) fn only_name(&self) -> Option<&PeerName> {
        let plain = self.peer.is_none()
            && !self.accept_any_peer
            && self.key.key.is_none()
            && self.peers.peers.is_none()
            && self.cipher.cipher.is_none();
        match &self.targets[..] {
            [Target::Peer(name)] if plain => Some(name),
            _ => None,
        }
    }

    /// The login that starts the other end, if they name one: by `ssh:`, or by a peer that is reached so.
    pub(crate) fn ssh_login(&self) -> Result<Option<Login>, Failure> {
        if let [Target::Peer(name)] = &self.targets[..] {
            let peers = self.peers.file()?.load()?;
            let peer = peers.named(name).filter(|peer| peer.links.is_empty());
            let Some((peer, target)) = peer.and_then(|peer| Some((peer, peer.ssh.clone()?))) else {
                return Ok(None);
            };
            return Ok(Some(Login { target, peer: Some((name.clone(), peer.key)) }));
        }
        let mut targets = self.targets.iter().filter_map(|target| match target {
            Target::Ssh(target) => Some(target),
            Target::Link(_) | Target::Peer(_) => None,
        });
        match targets.next() {
            Some(target) if self.targets.len() == 1 && self.peer.is_none() && !self.accept_any_peer => {
                Ok(Some(Login { target: target.clone(), peer: None }))
            }
            Some(target) => Err(Failure::new(
                Exit::Usage,
                format!("ssh:{target} finds the links and the peer by itself; name nothing else"),
            )),
            None => Ok(None),
        }
    }

    /// What the arguments lead to; `invitation` is that of `connect --pair`.
    pub(crate) fn destination(&self, invitation: Option<Invitation>) -> Result<Destination, Failure> {
        let usage = |message: &str| Failure::new(Exit::Usage, message);
        match self.ssh_login()? {
            None => {}
            Some(Login { peer: Some((name, _)), .. }) => {
                let message = format!("{name} is reached over ssh: run `bondwire connect {name}` first");
                return Err(Failure::configuration(message));
            }
            Some(_) => return Err(usage("ssh: goes with connect, and without --pair")),
        }
        let mut names = self.targets.iter().filter_map(|target| match target {
            Target::Peer(name) => Some(name),
            Target::Link(_) | Target::Ssh(_) => None,
        });
        let links = self.links();
        let proof = match (self.peer, invitation, self.accept_any_peer) {
            (Some(key), None, _) => Some(PeerProof::Key(key)),
            (None, Some(invitation), _) => Some(PeerProof::Invitation(invitation)),
            (None, None, true) => Some(PeerProof::Nothing),
            _ => None,
        };
        match (names.next(), names.next(), proof) {
            (None, _, Some(peer)) => {
                let pairs = matches!(peer, PeerProof::Invitation(_));
                let paths = if pairs { PeerPaths::found() } else { PeerPaths::default() };
                Ok(Destination { links, peer, paths })
            }
            (None, _, None) => Err(usage(
                "who the peer is, is required: --peer PUBKEY, or the name of a remembered peer in place of links; \
                 to get to know it: connect LINK --pair TOKEN",
            )),
            (Some(name), None, None) => self.remembered(name, links),
            (Some(_), Some(_), _) => Err(usage("one peer at a time; name it once")),
            (Some(name), None, Some(_)) => Err(Failure::new(
                Exit::Usage,
                format!("{name} says who the peer is; leave out --peer, --pair and --accept-any-peer"),
            )),
        }
    }

    /// What it takes to open bonds to `destination` with these options.
    pub(crate) fn plan(&self, destination: Destination) -> Result<SessionPlan, Failure> {
        let Destination { links, peer, paths } = destination;
        // Before a key is made.
        Media::check_dialled(&links)?;
        let found = self.discovery.config(&paths);
        LinkTable::check(&links, found.as_ref()).map_err(|excluded| Failure::new(Exit::Usage, excluded))?;
        let config = self.cipher.bond_config()?;
        let identity = match peer {
            PeerProof::Invitation(_) => self.key.load_for_pairing()?,
            PeerProof::Key(_) => self.key.load()?,
            PeerProof::Nothing => {
                tracing::warn!("--accept-any-peer: anyone on the path can be the peer");
                self.key.load()?
            }
        };
        let first_link_timeout = Duration::from_secs(self.timeout);
        Ok(SessionPlan { identity, peer, links, found, config, first_link_timeout })
    }

    /// A remembered peer, over other links if some are named.
    fn remembered(&self, name: &PeerName, named_links: Vec<LinkSpec>) -> Result<Destination, Failure> {
        let peers = self.peers.file()?.load()?;
        let peer = peers.known(name)?;
        let links = if named_links.is_empty() { peer.links.clone() } else { named_links };
        if links.is_empty() {
            return Err(Failure::configuration(format!(
                "no link to {name} is remembered; name some: connect {name} tcp:HOST"
            )));
        }
        let paths = PeerPaths { discover: peer.paths.discover.or(Some(true)), ..peer.paths.clone() };
        Ok(Destination { links, peer: PeerProof::Key(peer.key), paths })
    }
}
