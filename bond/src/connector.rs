use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bondwire_core::crypto::BondKeys;
use bondwire_core::endpoint::{Endpoint, EndpointConfig};
use bondwire_core::handshake::{
    Attachment, Attempt, HandshakeError, Initiator, Intent, LinkOffer, Outcome, PairingToken, Refusal,
};
use bondwire_core::id::{BondId, LinkId, PublicKey};

use crate::config::BondConfig;
use crate::driver::attach::{Attaching, LinkControl, Medium, attach};
use crate::driver::handshake::{Fault, run};
use crate::driver::shared::{Shared, State};
use crate::error::{AddLinkError, CloseReason};
use crate::identity::{Identity, NoEntropy, random};
use crate::limits::MTU_MAX_BYTES;
use crate::link::PacketLink;

/// Handshakes on one link in a row: a join, a check whether the bond is really unknown, and a join again.
const HANDSHAKES_MAX: usize = 4;

/// Whom a bond is to lead to.
pub(crate) enum Wanted {
    Peer(PublicKey),
    Anyone,
    /// The host that made the token.
    Paired {
        peer: Option<PublicKey>,
        token: PairingToken,
    },
}

impl Wanted {
    /// The key that is wanted, if it is known.
    pub(crate) fn peer(&self) -> Option<PublicKey> {
        match self {
            Self::Peer(peer) => Some(*peer),
            Self::Anyone => None,
            Self::Paired { peer, .. } => *peer,
        }
    }
}

/// The dialling side of a bond: opens it with the first links, joins it with later ones.
pub(crate) struct Connector {
    endpoint: Mutex<Endpoint>,
    attempt: Mutex<Attempt>,
    /// Known once a link has opened the bond.
    bond: OnceLock<(PublicKey, BondKeys)>,
    config: BondConfig,
    shared: Arc<Shared>,
}

impl Connector {
    pub(crate) fn new(
        identity: &Identity,
        wanted: Wanted,
        config: BondConfig,
        shared: Arc<Shared>,
    ) -> Result<Self, NoEntropy> {
        let suites = config.suites.clone();
        let endpoint_config = EndpointConfig { suites, ..EndpointConfig::new(identity.secret().clone()) };
        let mut endpoint = Endpoint::new(endpoint_config, random()?);
        let attempt = Mutex::new(match wanted {
            Wanted::Peer(peer) => endpoint.attempt(Some(peer)),
            Wanted::Anyone => endpoint.attempt(None),
            Wanted::Paired { peer, token } => endpoint.attempt_pairing(peer, token),
        });
        Ok(Self { endpoint: Mutex::new(endpoint), attempt, bond: OnceLock::new(), config, shared })
    }

    /// Runs the handshake on `link` and puts it to work, in place of `replaces` if that is given. Cancel safe.
    pub(crate) async fn add_link(
        &self,
        link: impl PacketLink,
        replaces: Option<LinkId>,
    ) -> Result<Arc<LinkControl>, AddLinkError> {
        let mut description = link.describe();
        description.mtu_bytes = description.mtu_bytes.min(MTU_MAX_BYTES);
        let name = description.name.clone();
        let (mut reader, mut writer) = link.split();
        let offer = self.config.offer(&description);
        let attachment = tokio::select! {
            biased;
            reason = self.shared.wait_until(State::closed_reason) => Err(AddLinkError::BondEnded { link: name.clone(), reason }),
            shaken = self.shake_hands(offer, replaces, &mut reader, &mut writer) => shaken.map_err(|fault| self.explain(&name, fault)),
        }?;
        let medium = Medium { description, reader, writer };
        let attaching = Attaching { attachment: &attachment, answerer: None, last_message: None };
        attach(&self.shared, attaching, medium, || {})
            .map_err(|error| AddLinkError::LinkUp { link: name, error })
    }

    async fn shake_hands(
        &self,
        offer: LinkOffer,
        replaces: Option<LinkId>,
        reader: &mut impl crate::link::PacketReader,
        writer: &mut impl crate::link::PacketWriter,
    ) -> Result<Box<Attachment>, Fault> {
        let mut in_doubt = None;
        for _ in 0..HANDSHAKES_MAX {
            let mut initiator = match in_doubt.take() {
                Some(bond) => self.check(bond, offer),
                None => self.open_or_join(offer, replaces),
            }
            .map_err(Fault::Handshake)?;
            match run(&mut initiator, self.shared.clock, reader, writer).await {
                Ok(Outcome::Attached(attachment)) => {
                    return self.belongs(attachment).map_err(Fault::Handshake);
                }
                // It was a false alarm: join.
                Ok(Outcome::Known(_)) => {}
                // Anybody can say so; the peer's word counts.
                Err(Fault::Handshake(HandshakeError::UnknownBond { bond })) => in_doubt = Some(bond),
                Err(fault) => return Err(fault),
            }
        }
        let text = "the bond is known and unknown by turns".to_owned();
        Err(Fault::Handshake(HandshakeError::Refused { code: Refusal::Other(0), text }))
    }

    fn open_or_join(&self, offer: LinkOffer, replaces: Option<LinkId>) -> Result<Initiator, HandshakeError> {
        let (attempt, link) = self.next_link()?;
        let now = self.shared.clock.now();
        let mut endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        match self.bond.get() {
            Some((peer, bond)) => endpoint.connect_join(now, *peer, bond, link, replaces, offer),
            None => endpoint.connect_open(now, &attempt, link, Intent::Open, offer),
        }
    }

    /// Asks the peer, authenticated, whether it still has the bond.
    fn check(&self, bond: BondId, offer: LinkOffer) -> Result<Initiator, HandshakeError> {
        let (_, link) = self.next_link()?;
        let now = self.shared.clock.now();
        let mut endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        // On a bond to anyone only the one who answered first may say that it is gone.
        let asking = endpoint.attempt(self.bond.get().map(|(peer, _)| *peer));
        endpoint.connect_open(now, &asking, link, Intent::Check(bond), offer)
    }

    fn next_link(&self) -> Result<(Attempt, LinkId), HandshakeError> {
        let mut attempt = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
        let link = attempt.next_link().ok_or(HandshakeError::Internal)?;
        Ok((attempt.clone(), link))
    }

    /// Whether a link that was opened or joined belongs to the bond of this connector; the first decides which that is.
    fn belongs(&self, attachment: Box<Attachment>) -> Result<Box<Attachment>, HandshakeError> {
        let (peer, bond) = self.bond.get_or_init(|| (attachment.peer, attachment.bond.clone()));
        if *peer != attachment.peer {
            return Err(HandshakeError::WrongPeer { expected: *peer, got: attachment.peer });
        }
        if bond.id() != attachment.bond.id() {
            // The same peer, authenticated, has opened the bond anew: it has lost the first one.
            return Err(HandshakeError::PeerRestarted { bond: bond.id() });
        }
        Ok(attachment)
    }

    fn explain(&self, link: &str, fault: Fault) -> AddLinkError {
        let link = link.to_owned();
        match fault {
            Fault::Medium(e) => AddLinkError::Medium { link, fault: e.to_string() },
            Fault::Handshake(HandshakeError::PeerRestarted { .. }) => {
                let reason = CloseReason::PeerRestarted;
                self.shared.with(|state, _| state.connection.fail(reason.clone()));
                AddLinkError::BondEnded { link, reason }
            }
            Fault::Handshake(error) => AddLinkError::Handshake { link, error },
        }
    }
}
