//! One end of a session as its host sees it: a handshake, then a port of a bond.

use crate::bond::{self, Serial};
use crate::net::{ACCEPTOR, DIALER, HostIndex, STRANGER};
use crate::plan::{CablePlan, Cipher, Medium, Plan};
use bondwire_core::config::LinkInfo;
use bondwire_core::crypto::{Opener, PortableAead, SealError, Sealer, StaticSecret, Suite};
use bondwire_core::endpoint::{AllowedPeers, Endpoint, EndpointConfig};
use bondwire_core::handshake::{Attachment, Initiator, LinkOffer, Responder};
use bondwire_core::id::LinkId;
use bondwire_core::limits::TAG_MAX_BYTES;
use bondwire_core::time::Instant;
use bondwire_core::wire::packet::Packet;
use std::fmt;

/// What a host does on one end of a session.
#[derive(Debug)]
pub(crate) enum Line {
    /// It dialled, and shakes hands.
    Dialling { initiator: Box<Initiator>, bond: Serial, replaces: Option<LinkId> },
    /// It was dialled, and shakes hands.
    Accepting(Box<Responder>),
    /// The link is part of a bond.
    Up(Box<Port>),
}

impl Line {
    /// When the handshake wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Dialling { initiator, .. } => initiator.poll_timeout(),
            Self::Accepting(responder) => responder.poll_timeout(),
            // Whether the first packet comes is the engine's question now.
            Self::Up(_) => None,
        }
    }
}

/// A link of a bond: what its tasks hold in a real driver.
pub(crate) struct Port {
    pub(crate) bond: Serial,
    pub(crate) link: LinkId,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    /// Still answers repeated handshake messages.
    pub(crate) responder: Option<Box<Responder>>,
    pub(crate) packet: Packet,
    /// The engine was not asked since the last wake, or had more.
    pub(crate) awake: bool,
}

impl Port {
    pub(crate) fn new(bond: Serial, attachment: &Attachment, responder: Option<Box<Responder>>) -> Self {
        Self {
            bond,
            link: attachment.link,
            sealer: Sealer::new(&attachment.keys, attachment.role, &PortableAead),
            opener: Opener::new(&attachment.keys, attachment.role, &PortableAead),
            responder,
            packet: Packet::default(),
            awake: true,
        }
    }

    /// The packet that the engine has just built, sealed.
    pub(crate) fn seal(&mut self) -> Result<Vec<u8>, SealError> {
        let packet = &self.packet;
        let mut buffer = Vec::with_capacity(packet.len() + TAG_MAX_BYTES);
        packet.gather(&mut buffer);
        buffer.resize(packet.len() + TAG_MAX_BYTES, 0);
        let sealed =
            self.sealer.seal(&mut buffer, packet.header_len(), packet.number(), packet.key_phase())?;
        buffer.truncate(sealed);
        Ok(buffer)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port(link {} of {:?}, awake {})", self.link, self.bond, self.awake)
    }
}

/// A host's endpoint. The responder takes the initiator's bonds only; the stranger takes anyone's.
pub(crate) fn endpoint(
    plan: &Plan,
    secrets: &[StaticSecret; 3],
    host: HostIndex,
    seed: [u8; 32],
) -> Endpoint {
    let suites = match plan.cipher {
        Cipher::Aes => vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305],
        Cipher::ChaCha => vec![Suite::ChaCha20Poly1305, Suite::Aes256Gcm],
        Cipher::Plain => vec![Suite::None, Suite::Aes256Gcm],
    };
    let allowed = match host {
        ACCEPTOR => AllowedPeers::Only([secrets[DIALER].public_key()].into()),
        STRANGER => AllowedPeers::Any,
        _ => AllowedPeers::Only([].into()),
    };
    Endpoint::new(EndpointConfig { secret: secrets[host].clone(), allowed, suites }, seed)
}

/// What a host offers on a link with this MTU.
pub(crate) fn offer(plan: &Plan, host: HostIndex, mtu_bytes: usize) -> LinkOffer {
    LinkOffer {
        parameters: bond::parameters(plan, host, mtu_bytes),
        plaintext_allowed: plan.cipher == Cipher::Plain,
        ..LinkOffer::default()
    }
}

/// What the driver of a cable knows of a link on it.
pub(crate) fn link_info(
    cable: usize,
    plan: &CablePlan,
    side: usize,
    mtu_bytes: usize,
    it: &Attachment,
) -> LinkInfo {
    LinkInfo {
        name: format!("cable {cable}"),
        kind: match plan.medium {
            Medium::Tcp => "tcp",
            Medium::Usb => "usb",
            Medium::Serial => "serial",
        },
        mtu_bytes: mtu_bytes.min(it.peer_parameters.mtu_bytes),
        tag_bytes: it.keys.suite().tag_len(),
        rate_hint: plan.has_rate_hint.then(|| plan.rate_bytes_per_second[side]),
        reliable: plan.medium != Medium::Serial,
        rtt: it.rtt,
        peer_ack_delay: it.peer_parameters.ack_delay_max,
    }
}
