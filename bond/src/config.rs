use bondwire_core::config::Config;
use bondwire_core::crypto::Suite;
use bondwire_core::endpoint::PeerRules;
use bondwire_core::handshake::{LinkOffer, Parameters};
use bondwire_core::id::PublicKey;
use bondwire_core::streams::streams_allowed;

use crate::crypto::preferred_suites;
use crate::limits::{ACK_DELAY_MAX, STREAM_WINDOW_MIN_BYTES};
use crate::link::LinkDescription;

/// Settings of a bond.
///
/// ```
/// use bondwire::{BondConfig, Suite};
/// let config = BondConfig { suites: vec![Suite::ChaCha20Poly1305], ..BondConfig::default() };
/// assert!(!config.plaintext_over_ip);
/// ```
#[derive(Clone, Debug)]
pub struct BondConfig {
    /// Sizes and times.
    pub engine: Config,
    /// Ciphers to offer or accept, the preferred one first. The default prefers AES where the processor has
    /// instructions for it, and does not contain [`Suite::None`].
    pub suites: Vec<Suite>,
    /// Whether [`Suite::None`] is also allowed on links that strangers may hold: whoever is on the path can then read
    /// and forge everything.
    pub plaintext_over_ip: bool,
}

impl Default for BondConfig {
    fn default() -> Self {
        Self { engine: Config::default(), suites: preferred_suites(), plaintext_over_ip: false }
    }
}

impl BondConfig {
    /// What this end brings to the handshake of one link.
    pub(crate) fn offer(&self, link: &LinkDescription) -> LinkOffer {
        LinkOffer {
            via: 0,
            parameters: Parameters {
                mtu_bytes: link.mtu_bytes,
                ack_delay_max: ACK_DELAY_MAX,
                streams_max: streams_allowed(self.engine.receive_buffer_bytes, self.engine.streams_max),
                idle_timeout: self.engine.idle_timeout,
                stream_window_bytes: STREAM_WINDOW_MIN_BYTES,
            },
            plaintext_allowed: !link.over_ip || self.plaintext_over_ip,
        }
    }
}

/// Who may open bonds with a [`Listener`](crate::Listener).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedPeers {
    /// These keys only.
    Keys(Vec<PublicKey>),
    /// Anybody. Bonds are encrypted, but whoever reaches the listener is let in: decide on
    /// [`Bond::peer`](crate::Bond::peer) before anything is served.
    Any,
}

/// What one peer may have at a [`Listener`](crate::Listener), where that is less than the listener's
/// [`ListenConfig::bond`] says; `None` is what that says. See [`Listener::set_limits`](crate::Listener::set_limits).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerLimits {
    /// Bonds at once, at most [`BONDS_PER_PEER_MAX`](crate::limits::BONDS_PER_PEER_MAX). When the peer opens one more, its
    /// bond with the fewest links ends.
    pub bonds_max: Option<usize>,
    /// Streams that the peer may have open at once in each bond.
    pub streams_max: Option<u64>,
    /// Bytes that each bond holds for streams that have arrived and are not yet read.
    pub receive_buffer_bytes: Option<u64>,
    /// Bytes that each bond holds until the peer has acknowledged them.
    pub send_buffer_bytes: Option<u64>,
    /// Acceptors whose links it may use, as [`Listener::add_acceptor_as`](crate::Listener::add_acceptor_as) numbered them.
    pub acceptors: Option<Vec<u32>>,
}

impl PeerLimits {
    /// `engine` with these limits where they are lower.
    pub(crate) fn lower(&self, engine: &Config) -> Config {
        let least = |limit: Option<u64>, value: u64| limit.map_or(value, |limit| limit.min(value));
        Config {
            streams_max: least(self.streams_max, engine.streams_max),
            receive_buffer_bytes: least(self.receive_buffer_bytes, engine.receive_buffer_bytes),
            send_buffer_bytes: least(self.send_buffer_bytes, engine.send_buffer_bytes),
            ..engine.clone()
        }
    }

    /// What the handshakes' table needs of them.
    pub(crate) fn rules(&self) -> PeerRules {
        let all = PeerRules::default();
        PeerRules {
            bonds_max: self.bonds_max.unwrap_or(all.bonds_max),
            vias: self.acceptors.as_ref().map(|acceptors| acceptors.iter().copied().collect()),
        }
    }
}

/// Settings of a listener.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// Who may open bonds.
    pub allowed: AllowedPeers,
    /// Settings of the bonds it accepts.
    pub bond: BondConfig,
}

impl ListenConfig {
    /// Bonds with the default settings, from these peers.
    pub fn allow(peers: impl IntoIterator<Item = PublicKey>) -> Self {
        Self { allowed: AllowedPeers::Keys(peers.into_iter().collect()), bond: BondConfig::default() }
    }
}
