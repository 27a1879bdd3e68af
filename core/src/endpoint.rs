//! The process side of the handshakes: this host's key, the peers it takes, and the bonds it knows.
//!
//! One endpoint serves all listeners and connectors of a process. It hands out an [`Initiator`] or a [`Responder`] for
//! each link and keeps what these share: the table of bonds, the budgets before authentication, and the counters. Its
//! own methods never compute X25519, except in [`Endpoint::connect_open`] and [`Endpoint::connect_join`]; see
//! [`EndpointAccess`](crate::handshake::EndpointAccess) for use behind a lock.
//!
//! ```
//! use bondwire_core::crypto::StaticSecret;
//! use bondwire_core::endpoint::{AllowedPeers, Endpoint, EndpointConfig};
//! use bondwire_core::handshake::{Intent, LinkOffer, Outcome, Step};
//! use bondwire_core::time::Instant;
//!
//! // Keys and seeds come from the operating system; here they are fixed.
//! let (dialler, listener) = (StaticSecret::from_bytes([1; 32]), StaticSecret::from_bytes([2; 32]));
//! let allowed = AllowedPeers::Only([dialler.public_key()].into());
//! let peer = listener.public_key();
//! let mut near = Endpoint::new(EndpointConfig::new(dialler), [3; 32]);
//! let mut far = Endpoint::new(EndpointConfig { allowed, ..EndpointConfig::new(listener) }, [4; 32]);
//!
//! let now = Instant::ZERO;
//! let mut attempt = near.attempt(Some(peer));
//! let link = attempt.next_link().unwrap();
//! let mut initiator = near.connect_open(now, &attempt, link, Intent::Open, LinkOffer::default()).unwrap();
//! let mut responder = far.accept_link(now, LinkOffer::default()).unwrap();
//! let (mut accepted, mut opened) = (None, None);
//! while opened.is_none() {
//!     if let Some(message) = initiator.poll_transmit(now) {
//!         if let Step::NewBond { attachment, .. } = far.handle_packet(now, &mut responder, &message).unwrap() {
//!             accepted = Some(attachment);
//!         }
//!     }
//!     if let Some(answer) = responder.poll_transmit(now) {
//!         opened = initiator.handle_packet(now, &answer).unwrap();
//!     }
//! }
//! let Some(Outcome::Attached(opened)) = opened else { unreachable!() };
//! assert_eq!(opened.bond.id(), accepted.unwrap().bond.id());
//! ```

mod budget;
mod pairing;
mod table;

pub use budget::EndpointStats;
pub(crate) use budget::{Counter, HalfOpen};
pub(crate) use pairing::PairingTicket;
pub use pairing::TooManyTokens;
pub(crate) use table::{JoinTicket, OpenRequest};

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use smallvec::SmallVec;

use self::budget::{Budget, Counters};
use self::pairing::PairingTable;
use self::table::BondTable;
use crate::crypto::{BondKeys, StaticSecret, Suite, secret_from};
use crate::handshake::{
    Acceptance, Attempt, Dial, HandshakeError, Initiator, Intent, LinkOffer, PairingToken, Refusal,
    Responder, Step, TokenId,
};
use crate::id::{BondId, LinkId, PublicKey};
use crate::limits::{BONDS_PER_PEER_MAX, HALF_OPEN_LINKS_MAX, LINK_ID_MAX, OPENS_PER_SECOND_MAX};
use crate::time::{Duration, Instant};

/// Whose bonds a responder accepts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AllowedPeers {
    /// Those with one of these keys.
    Only(BTreeSet<PublicKey>),
    /// Anyone: encrypted, but with nobody known at the other end.
    Any,
}

/// What an endpoint is made of.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// This host's key.
    pub secret: StaticSecret,
    /// Whose bonds are accepted. Connectors name their peer in [`Endpoint::attempt`].
    pub allowed: AllowedPeers,
    /// Suites in order of preference. [`Suite::None`] is used only where both ends list it and allow it on the link.
    pub suites: Vec<Suite>,
}

impl EndpointConfig {
    /// Accepts nobody; prefers AES-256-GCM to ChaCha20-Poly1305. Put these the other way round on a processor without
    /// AES instructions.
    pub fn new(secret: StaticSecret) -> Self {
        let suites = alloc::vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
        Self { secret, allowed: AllowedPeers::Only(BTreeSet::new()), suites }
    }
}

/// What one peer may have at an endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerRules {
    /// Bonds at once, from 1 to [`BONDS_PER_PEER_MAX`]; with one more, that with the fewest links goes.
    pub bonds_max: usize,
    /// Listening points it may come in by ([`LinkOffer::via`]); `None` is all of them.
    pub vias: Option<BTreeSet<u32>>,
}

impl Default for PeerRules {
    fn default() -> Self {
        Self { bonds_max: BONDS_PER_PEER_MAX, vias: None }
    }
}

/// Why a link is not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{half_open} links have not finished their handshakes; close this one and accept again later")]
pub struct Busy {
    /// Links between their first byte and a finished handshake.
    pub half_open: usize,
}

/// What handshakes use of their endpoint while they compute, outside any lock.
pub(crate) struct Identity {
    pub(crate) secret: StaticSecret,
    pub(crate) counters: Arc<Counters>,
    public: PublicKey,
    suites: SmallVec<[Suite; 4]>,
}

impl Identity {
    /// The suites on offer on a link.
    pub(crate) fn suites_for(&self, offer: &LinkOffer) -> SmallVec<[Suite; 4]> {
        let allowed = |suite: &Suite| offer.plaintext_allowed || *suite != Suite::None;
        self.suites.iter().copied().filter(allowed).collect()
    }
}

/// One process's side of all handshakes.
pub struct Endpoint {
    identity: Arc<Identity>,
    allowed: AllowedPeers,
    /// Of peers that may not have everything.
    rules: BTreeMap<PublicKey, PeerRules>,
    rng: ChaCha20Rng,
    opens: Budget,
    pairings: PairingTable,
    bonds: BondTable,
}

impl Endpoint {
    /// An endpoint whose entropy all comes from `seed`: 32 bytes from the operating system's generator, never used
    /// before. Two endpoints of one seed would make the same keys.
    pub fn new(config: EndpointConfig, seed: [u8; 32]) -> Self {
        let EndpointConfig { secret, allowed, suites } = config;
        let mut unique = SmallVec::new();
        for suite in suites {
            if !unique.contains(&suite) {
                unique.push(suite);
            }
        }
        let public = secret.public_key();
        let identity = Identity { secret, counters: Arc::default(), public, suites: unique };
        Self {
            identity: Arc::new(identity),
            allowed,
            rules: BTreeMap::new(),
            rng: ChaCha20Rng::from_seed(seed),
            opens: Budget::new(OPENS_PER_SECOND_MAX),
            pairings: PairingTable::default(),
            bonds: BondTable::default(),
        }
    }

    /// This host's identity.
    pub fn public_key(&self) -> PublicKey {
        self.identity.public
    }

    /// Accepts bonds of `peer` from now on. No change if any peer is allowed.
    pub fn allow(&mut self, peer: PublicKey) {
        if let AllowedPeers::Only(peers) = &mut self.allowed {
            peers.insert(peer);
        }
    }

    /// Accepts no new bonds of `peer`, unless any peer is allowed. Its bonds stay; end them with [`Self::forget`].
    pub fn disallow(&mut self, peer: PublicKey) {
        if let AllowedPeers::Only(peers) = &mut self.allowed {
            peers.remove(&peer);
        }
    }

    /// Says what `peer` may have from its next handshake on. It need not be allowed yet.
    pub fn set_rules(&mut self, peer: PublicKey, rules: PeerRules) {
        if rules == PeerRules::default() {
            self.rules.remove(&peer);
        } else {
            self.rules.insert(peer, rules);
        }
    }

    /// Lets one host that has `token` open a bond within `valid_for` from `now`
    /// ([`PAIRING_TOKEN_VALID`](crate::limits::PAIRING_TOKEN_VALID) is the usual time, a day the longest). That host's
    /// key is allowed from then on; [`Step::NewBond`] tells it. Wrong guesses do not use the token up, they are only
    /// answered at a bounded rate.
    ///
    /// # Errors
    /// [`TooManyTokens`] if as many as there may be wait to be used.
    pub fn add_pairing_token(
        &mut self,
        now: Instant,
        token: &PairingToken,
        valid_for: Duration,
    ) -> Result<(), TooManyTokens> {
        self.pairings.add(now, token, valid_for)
    }

    /// Withdraws a pairing token. Who was paired with it stays so.
    pub fn remove_pairing_token(&mut self, id: TokenId) {
        self.pairings.remove(id);
    }

    /// What has happened so far.
    pub fn stats(&self) -> EndpointStats {
        self.identity.counters.snapshot()
    }

    /// Entropy for a caller that has none of its own at hand.
    pub fn rng(&mut self) -> &mut impl RngCore {
        &mut self.rng
    }
}

/// Accepting.
impl Endpoint {
    /// A handshake for a link that came in.
    ///
    /// # Errors
    /// [`Busy`] if too many links have not finished theirs: close the new one.
    pub fn accept_link(&mut self, now: Instant, offer: LinkOffer) -> Result<Responder, Busy> {
        let half_open = HalfOpen::enter(&self.identity.counters, HALF_OPEN_LINKS_MAX)
            .map_err(|half_open| Busy { half_open })?;
        let rng = ChaCha20Rng::from_seed(*secret_from(&mut self.rng));
        Ok(Responder::new(now, Arc::clone(&self.identity), rng, offer, half_open))
    }

    /// [`Responder::handle_packet`] for a caller that holds the endpoint anyway.
    ///
    /// # Errors
    /// As there.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        responder: &mut Responder,
        packet: &[u8],
    ) -> Result<Step, HandshakeError> {
        responder.handle_packet(now, packet, self)
    }

    /// Takes leave to answer one OPEN1; `false` if there were too many of late.
    pub(crate) fn spend_open(&mut self, now: Instant) -> bool {
        self.opens.spend(now)
    }

    /// What a responder needs to pair with the token `id`, if there is such a token.
    pub(crate) fn pairing_ticket(&self, id: TokenId) -> Option<PairingTicket> {
        self.pairings.ticket(id)
    }

    /// Takes leave to see whether one initiator has the pairing token that it names.
    pub(crate) fn spend_pairing_proof(&mut self, now: Instant) -> bool {
        self.pairings.spend_proof(now)
    }

    /// What a link needs to join `bond`.
    pub(crate) fn ticket(&self, bond: BondId) -> Option<JoinTicket> {
        self.bonds.ticket(bond)
    }

    /// Takes `link` of `bond`, once. `None` if there is no such bond.
    pub(crate) fn take_link(&mut self, bond: BondId, link: LinkId, via: u32) -> Option<Result<(), Refusal>> {
        let peer = self.bonds.peer_of(bond)?;
        // The number first, as always: a replay must get no answer.
        let taken = self.bonds.take_link(bond, link)?;
        Some(taken.and_then(|()| self.check_via(peer, via)))
    }

    fn check_via(&self, peer: PublicKey, via: u32) -> Result<(), Refusal> {
        let vias = self.rules.get(&peer).and_then(|rules| rules.vias.as_ref());
        if vias.is_none_or(|vias| vias.contains(&via)) { Ok(()) } else { Err(Refusal::NotOnThisLink) }
    }

    fn bonds_max(&self, peer: PublicKey) -> usize {
        self.rules.get(&peer).map_or(BONDS_PER_PEER_MAX, |rules| rules.bonds_max.clamp(1, BONDS_PER_PEER_MAX))
    }

    /// Decides on an OPEN whose initiator has proved its key.
    pub(crate) fn decide_open(&mut self, request: &OpenRequest<'_>) -> Result<Acceptance, Refusal> {
        if request.peer == self.identity.public {
            return Err(Refusal::SameKey);
        }
        if let Some(token) = request.token {
            return self.pair(token, request);
        }
        if let AllowedPeers::Only(peers) = &self.allowed
            && !peers.contains(&request.peer)
        {
            return Err(Refusal::NotAllowed);
        }
        self.check_via(request.peer, request.via)?;
        match request.intent {
            Intent::Check(bond) => {
                Ok(Acceptance::Checked { bond, known: self.bonds.peer_of(bond) == Some(request.peer) })
            }
            Intent::Open => self.bonds.open(request, self.identity.public, self.bonds_max(request.peer)),
        }
    }

    /// Opens a bond for an initiator that has proved a pairing token, and knows its key from then on.
    fn pair(&mut self, token: TokenId, request: &OpenRequest<'_>) -> Result<Acceptance, Refusal> {
        let attempt = (request.peer, request.attempt);
        self.pairings.check(request.now, token, attempt)?;
        self.check_via(request.peer, request.via)?;
        // A bond that cannot be opened leaves the token for the next try.
        let bonds_max = self.bonds_max(request.peer);
        let accepted = self.bonds.open(request, self.identity.public, bonds_max)?;
        self.pairings.use_up(token, attempt);
        self.allow(request.peer);
        Ok(accepted)
    }
}

/// Dialling.
impl Endpoint {
    /// Begins to want a bond with `peer`; see [`Attempt::new`].
    pub fn attempt(&mut self, peer: Option<PublicKey>) -> Attempt {
        Attempt::new(&mut self.rng, peer)
    }

    /// The same for a bond that pairs the two hosts with `token`, which the listening one gave out. Name the `peer` if
    /// its key is known: then even who stole the token cannot pose as it.
    pub fn attempt_pairing(&mut self, peer: Option<PublicKey>, token: PairingToken) -> Attempt {
        Attempt::pairing(&mut self.rng, peer, token)
    }

    /// A handshake that opens the bond of `attempt` as its link `link`, or checks a bond. Several at once, on several
    /// links, lead to one bond. Computes two X25519 here, and six in all:
    /// about 0.4 ms on x86-64.
    ///
    /// # Errors
    /// [`HandshakeError::NothingToOffer`] if no suite may be used on this link.
    pub fn connect_open(
        &mut self,
        now: Instant,
        attempt: &Attempt,
        link: LinkId,
        intent: Intent,
        offer: LinkOffer,
    ) -> Result<Initiator, HandshakeError> {
        let dial = Self::dial(&self.identity, &mut self.rng, link, offer)?;
        Initiator::open(now, dial, attempt, link, intent)
    }

    /// A handshake by which a link joins a bond of this end as number `link`, in place of the link `replaces`.
    ///
    /// # Errors
    /// [`HandshakeError::NothingToOffer`] if no suite may be used on this link.
    pub fn connect_join(
        &mut self,
        now: Instant,
        peer: PublicKey,
        bond: &BondKeys,
        link: LinkId,
        replaces: Option<LinkId>,
        offer: LinkOffer,
    ) -> Result<Initiator, HandshakeError> {
        let dial = Self::dial(&self.identity, &mut self.rng, link, offer)?;
        Initiator::join(now, dial, peer, bond, link, replaces)
    }

    fn dial<'a>(
        identity: &'a Identity,
        rng: &'a mut ChaCha20Rng,
        link: LinkId,
        offer: LinkOffer,
    ) -> Result<Dial<'a, ChaCha20Rng>, HandshakeError> {
        debug_assert!(link.0 <= LINK_ID_MAX, "link numbers come from Attempt::next_link");
        let suites = identity.suites_for(&offer);
        if suites.is_empty() {
            return Err(HandshakeError::NothingToOffer);
        }
        Ok(Dial { rng, secret: &identity.secret, suites, offer })
    }
}

/// Bonds this end accepted.
impl Endpoint {
    /// Tells how many links `bond` has now. A bond without links makes way when its peer opens another.
    pub fn set_links(&mut self, bond: BondId, links: usize) {
        self.bonds.set_links(bond, links);
    }

    /// Forgets a bond that has ended: no link can join it any more, and an OPEN3 of its attempt that comes late does not
    /// make it anew.
    pub fn forget(&mut self, now: Instant, bond: BondId) {
        self.bonds.forget(now, bond);
    }

    /// The bonds of `peer`, oldest first, each with its number of links. A listener that knows its peer to keep one
    /// bond only can end the older ones when a new one opens.
    pub fn bonds_of(&self, peer: PublicKey) -> impl Iterator<Item = (BondId, usize)> + '_ {
        self.bonds.of(peer)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({:?}, {} bonds)", self.identity.public, self.bonds.len())
    }
}

/// The suite of a link: plaintext if both ends list it (each does so only where its user allows it), else
/// ChaCha20-Poly1305 if either end prefers that (it then has no AES instructions), else AES-256-GCM.
pub(crate) fn choose_suite(theirs: &[Suite], ours: &[Suite]) -> Option<Suite> {
    let common = |suite: Suite| theirs.contains(&suite) && ours.contains(&suite);
    let prefers_chacha =
        |list: &[Suite]| list.iter().find(|suite| **suite != Suite::None) == Some(&Suite::ChaCha20Poly1305);
    let [first, second] = if prefers_chacha(theirs) || prefers_chacha(ours) {
        [Suite::ChaCha20Poly1305, Suite::Aes256Gcm]
    } else {
        [Suite::Aes256Gcm, Suite::ChaCha20Poly1305]
    };
    [Suite::None, first, second].into_iter().find(|suite| common(*suite))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Suite::{Aes256Gcm as Aes, ChaCha20Poly1305 as ChaCha, None as Plain};

    #[test]
    fn the_suite_suits_the_weaker_end() {
        assert_eq!(choose_suite(&[Aes, ChaCha], &[Aes, ChaCha]), Some(Aes));
        assert_eq!(choose_suite(&[ChaCha, Aes], &[Aes, ChaCha]), Some(ChaCha));
        assert_eq!(choose_suite(&[Aes, ChaCha], &[ChaCha, Aes]), Some(ChaCha));
        assert_eq!(choose_suite(&[Aes], &[ChaCha, Aes]), Some(Aes));
        assert_eq!(choose_suite(&[Aes, Plain], &[Plain, Aes]), Some(Plain));
        assert_eq!(choose_suite(&[Plain], &[Aes]), None);
        assert_eq!(choose_suite(&[], &[Aes]), None);
    }
}
