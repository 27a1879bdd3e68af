//! The end that accepts.
//!
//! A responder needs its endpoint three times and briefly: for leave to begin, for a bond's secrets, and for the
//! decision. Everything that costs time (X25519) runs in between, outside the endpoint, so that a driver which keeps
//! the endpoint behind a lock holds that lock for table look-ups only. [`EndpointAccess`] is this seam.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::RngCore;
use smallvec::SmallVec;

use super::message::{self, Hint, JOIN1_PREFIX_BYTES, Join1, Join2, Kind, Open2, Open3, Open4};
use super::noise::Noise;
use super::opening::{Opening, Proven};
use super::watch::Watch;
use super::{Attachment, HandshakeError, Intent, LinkOffer, Refusal, Stage, TokenId};
use crate::crypto::{BondKeys, Suite, secret_from};
use crate::endpoint::{Counter, Endpoint, HalfOpen, Identity, JoinTicket, OpenRequest, choose_suite};
use crate::id::{BondId, LinkId, PublicKey, Role};
use crate::limits::{HANDSHAKE_EXCHANGES_MAX, HANDSHAKE_FIRST_MESSAGE_BYTES};
use crate::time::Instant;

/// Brief access to the endpoint. [`Endpoint`] itself gives it; a driver that shares its endpoint implements this on its
/// lock, and must not lock for longer than one call of `f`.
pub trait EndpointAccess {
    /// Runs `f` on the endpoint.
    fn with<R>(&mut self, f: impl FnOnce(&mut Endpoint) -> R) -> R;
}

impl EndpointAccess for Endpoint {
    fn with<R>(&mut self, f: impl FnOnce(&mut Endpoint) -> R) -> R {
        f(self)
    }
}

/// What a packet led to. After each, [`Responder::poll_transmit`] may have an answer to send.
#[derive(Debug)]
pub enum Step {
    /// Nothing yet.
    Wait,
    /// The initiator opened a bond, and this link is its first.
    NewBond {
        /// The link, and with it the bond.
        attachment: Box<Attachment>,
        /// Older bonds of the same peer that make way: they had no links, or there were too many. End them.
        evicted: Vec<BondId>,
        /// The token that paired the hosts: the peer's key is allowed from now on. A plain OPEN has none.
        token: Option<TokenId>,
    },
    /// The link joined a bond that exists.
    LinkJoined(Box<Attachment>),
    /// The initiator learned whether a bond lives. The link waits for its next handshake.
    Checked {
        /// The bond asked about.
        bond: BondId,
        /// Whether it lives.
        known: bool,
    },
    /// The initiator was refused and is told why. Keep the link until its timeout, so that a lost answer is repeated.
    Refused {
        /// Who was refused, as far as known.
        peer: PublicKey,
        /// Why.
        reason: Refusal,
    },
}

/// The responder's handshake on one link. It stays with the link: long after its end a late repeat may want its answer.
pub struct Responder {
    identity: Arc<Identity>,
    rng: ChaCha20Rng,
    offer: LinkOffer,
    half_open: Option<HalfOpen>,
    watch: Watch,
    exchanges_left: u32,
    state: State,
    /// Messages answered in this exchange, with the answers.
    answered: SmallVec<[(Bytes, Bytes); 2]>,
    outbox: Option<Bytes>,
}

enum State {
    /// For a first message.
    Listening,
    /// OPEN2 is out.
    Opening(Box<Opening>),
    /// Attached, for the first packet that authenticates.
    Attached,
    /// In use.
    Confirmed,
    /// Refused; only repeats are answered.
    Refused,
}

/// What the responder sends back, once the endpoint has decided on an OPEN.
pub(crate) enum Acceptance {
    /// A bond; `opener_random` is the responder random of the exchange that made it.
    Bond { keys: BondKeys, opener: LinkId, opener_random: [u8; 32], new: bool, evicted: Vec<BondId> },
    /// No bond was wanted, only to know whether one lives.
    Checked { bond: BondId, known: bool },
}

impl Responder {
    pub(crate) fn new(
        now: Instant,
        identity: Arc<Identity>,
        rng: ChaCha20Rng,
        offer: LinkOffer,
        half_open: HalfOpen,
    ) -> Self {
        Self {
            identity,
            rng,
            offer,
            half_open: Some(half_open),
            watch: Watch::new(now),
            exchanges_left: HANDSHAKE_EXCHANGES_MAX,
            state: State::Listening,
            answered: SmallVec::new(),
            outbox: None,
        }
    }

    /// The answer to send now, if there is one. The responder never repeats by itself.
    pub fn poll_transmit(&mut self, _now: Instant) -> Option<Bytes> {
        self.outbox.take()
    }

    /// When to call [`Self::handle_timeout`] next; `None` once the link is confirmed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!matches!(self.state, State::Confirmed)).then(|| self.watch.deadline())
    }

    /// Ends the handshake if its time is up.
    ///
    /// # Errors
    /// [`HandshakeError::Timeout`], or what the signs on the link said. Then the link is to be dropped.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), HandshakeError> {
        let stage = match self.state {
            State::Listening | State::Refused => Stage::FirstMessage,
            State::Opening(_) => Stage::Open3,
            State::Attached => Stage::FirstPacket,
            State::Confirmed => return Ok(()),
        };
        self.watch.check(now, stage).inspect_err(|_| self.count(Counter::Timeout))
    }

    /// The first packet has authenticated: the initiator holds the keys now, and the link has no deadline any more.
    pub fn confirm(&mut self) {
        if matches!(self.state, State::Attached) {
            self.state = State::Confirmed;
        }
    }

    /// Packets that were not part of this handshake and were dropped.
    pub const fn ignored_packets(&self) -> u64 {
        self.watch.ignored_packets()
    }

    /// Takes a packet from the link. Packets that are no handshake messages are ignored; after the attachment, give it
    /// handshake messages only.
    ///
    /// # Errors
    /// The link is to be dropped. Only authenticated bytes, or too many, do this.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        packet: &[u8],
        endpoint: &mut impl EndpointAccess,
    ) -> Result<Step, HandshakeError> {
        let attached = matches!(self.state, State::Attached | State::Confirmed);
        if !attached {
            self.watch.received(packet).inspect_err(|_| self.count(Counter::TooNoisy))?;
        }
        let Some((kind, body)) = Kind::of(packet) else {
            self.watch.foreign(now, packet);
            return Ok(Step::Wait);
        };
        if let Some((_, answer)) = self.answered.iter().find(|(request, _)| request == packet) {
            self.outbox = Some(answer.clone());
            return Ok(Step::Wait);
        }
        match (kind, &self.state) {
            (_, State::Attached | State::Confirmed | State::Refused) => self.ignore(None),
            (Kind::Open1, _) => self.handle_open1(now, packet, endpoint),
            (Kind::Open3, State::Opening(_)) => self.handle_open3(now, packet, body, endpoint),
            (Kind::Open3, State::Listening) => self.ignore(Some(Counter::Malformed)),
            (Kind::Join1, _) => self.handle_join1(now, packet, endpoint),
            (Kind::Open2 | Kind::Open4 | Kind::Join2 | Kind::Hint, _) => {
                self.count(Counter::SameRole);
                self.watch.suspect(now, HandshakeError::SameRole { role: Role::Responder });
                Ok(Step::Wait)
            }
        }
    }

    fn handle_open1(
        &mut self,
        now: Instant,
        packet: &[u8],
        endpoint: &mut impl EndpointAccess,
    ) -> Result<Step, HandshakeError> {
        if let Err(counter) = self.begin(packet) {
            return self.ignore(Some(counter));
        }
        let Some((_, _, token)) = message::split_open1(packet) else {
            return self.ignore(Some(Counter::Malformed));
        };
        let (granted, pairing) = endpoint.with(|endpoint| {
            (endpoint.spend_open(now), token.and_then(|token| endpoint.pairing_ticket(token)))
        });
        if !granted {
            return self.ignore(Some(Counter::OverBudget));
        }
        if let Some(token) = token
            && pairing.is_none()
        {
            self.outbox = Some(Hint::UnknownToken(token).encode().into());
            return self.ignore(Some(Counter::WrongToken));
        }
        let ephemeral = secret_from(&mut self.rng);
        let mut random = [0; 32];
        self.rng.fill_bytes(&mut random);
        let (suites, offer) = (self.suites(), self.offer);
        let respond = |payload: &[u8]| {
            let suite = choose_suite(&message::read_open1_payload(payload)?, &suites);
            Some(Open2 { suite, random, parameters: offer.parameters })
        };
        let begun = Opening::begin(&self.identity, &ephemeral, packet, pairing.as_ref(), respond);
        let Ok((noise, open2, answer)) = begun else {
            return self.ignore(Some(Counter::Malformed));
        };
        if open2.suite.is_none() {
            self.count(Counter::NoCommonSuite);
        }
        self.answered.clear();
        self.answer(packet, answer);
        let open1 = Bytes::copy_from_slice(packet);
        self.state = State::Opening(Box::new(Opening { noise, ephemeral, open1, open2, pairing }));
        Ok(Step::Wait)
    }

    /// Whether `packet` may begin an exchange: long enough, of this version, and within the link's budget; else what
    /// to count. Another version is answered with a hint.
    fn begin(&mut self, packet: &[u8]) -> Result<(), Counter> {
        let version = packet.get(1).filter(|_| packet.len() >= HANDSHAKE_FIRST_MESSAGE_BYTES);
        let version = *version.ok_or(Counter::Malformed)?;
        self.exchanges_left = self.exchanges_left.checked_sub(1).ok_or(Counter::OverBudget)?;
        if version != message::VERSION {
            self.outbox = Some(Hint::Version(message::VERSION).encode().into());
            return Err(Counter::WrongVersion);
        }
        Ok(())
    }

    fn suites(&self) -> message::Suites {
        self.identity.suites_for(&self.offer)
    }

    fn handle_open3(
        &mut self,
        now: Instant,
        packet: &[u8],
        body: &[u8],
        endpoint: &mut impl EndpointAccess,
    ) -> Result<Step, HandshakeError> {
        let State::Opening(opening) = &mut self.state else { return Ok(Step::Wait) };
        // An initiator that sees no common suite ends the exchange, so this is not from one.
        let Some(suite) = opening.open2.suite else { return self.ignore(Some(Counter::Malformed)) };
        let pairs = opening.pairing.is_some();
        // The genuine initiator repeats its OPEN3, so that it gets through when the flood of wrong ones is over.
        if pairs && !endpoint.with(|endpoint| endpoint.spend_pairing_proof(now)) {
            return self.ignore(Some(Counter::OverBudget));
        }
        let Ok(payload) = opening.noise.read(body) else {
            if self.exchanges_left > 0 {
                self.exchanges_left -= 1;
                opening.restore(&self.identity)?;
            } else {
                self.state = State::Listening;
            }
            return self.ignore(Some(if pairs { Counter::WrongToken } else { Counter::Malformed }));
        };
        let (random, token) = (opening.open2.random, opening.pairing.as_ref().map(|ticket| ticket.id));
        let State::Opening(opening) = core::mem::replace(&mut self.state, State::Listening) else {
            return Ok(Step::Wait);
        };
        let peer = opening.noise.peer().ok_or(HandshakeError::Internal)?;
        let split = opening.noise.split()?;
        self.watch.restart(now);
        let malformed = HandshakeError::Malformed { what: "OPEN3" };
        let open3 =
            Open3::decode(&payload).ok_or(malformed).inspect_err(|_| self.count(Counter::Malformed))?;
        // To check a bond nobody needs a token.
        let token = token.filter(|_| open3.intent == Intent::Open);

        let decision = endpoint.with(|endpoint| {
            endpoint.decide_open(&OpenRequest {
                now,
                peer,
                attempt: open3.attempt,
                link: open3.link,
                intent: open3.intent,
                via: self.offer.via,
                token,
                initiator_random: &open3.random,
                responder_random: &random,
            })
        });
        let proven = Proven { peer, link: open3.link, suite, parameters: open3.parameters, split };
        self.conclude_open(packet, proven, token, decision)
    }

    fn conclude_open(
        &mut self,
        packet: &[u8],
        proven: Proven,
        token: Option<TokenId>,
        decision: Result<Acceptance, Refusal>,
    ) -> Result<Step, HandshakeError> {
        let verdict = match &decision {
            Ok(Acceptance::Bond { opener, opener_random, .. }) => {
                Open4::Accepted { opener: *opener, opener_random: *opener_random }
            }
            Ok(Acceptance::Checked { known: true, .. }) => Open4::Known,
            Ok(Acceptance::Checked { known: false, .. }) => Open4::Gone,
            Err(reason) => Open4::Refused { reason: *reason, text: reason.text().to_string() },
        };
        self.answer(packet, proven.split.seal_verdict(Kind::Open4 as u8, verdict.encode()));
        Ok(match decision {
            Ok(Acceptance::Bond { keys, opener, new, evicted, .. }) => {
                let attachment = Box::new(proven.attach(keys, opener, None));
                self.attached(if new { Counter::BondOpened } else { Counter::LinkJoined });
                if new { Step::NewBond { attachment, evicted, token } } else { Step::LinkJoined(attachment) }
            }
            Ok(Acceptance::Checked { bond, known }) => Step::Checked { bond, known },
            Err(reason) => self.refuse(proven.peer, reason),
        })
    }

    fn handle_join1(
        &mut self,
        now: Instant,
        packet: &[u8],
        endpoint: &mut impl EndpointAccess,
    ) -> Result<Step, HandshakeError> {
        if let Err(counter) = self.begin(packet) {
            return self.ignore(Some(counter));
        }
        let (prefix, sealed) = packet.split_at(JOIN1_PREFIX_BYTES);
        let bond = BondId(prefix[2..].try_into().map_err(|_| HandshakeError::Internal)?);
        let Some(ticket) = endpoint.with(|endpoint| endpoint.ticket(bond)) else {
            return self.hint_unknown(bond);
        };
        // Up to here, and in reading JOIN1, there is no X25519: the bond's secret proves itself first.
        let ephemeral = secret_from(&mut self.rng);
        let prologue = [message::JOIN_PROLOGUE, prefix];
        let mut noise = Noise::join(Role::Responder, ticket.keys.join_secret(), &ephemeral, &prologue)?;
        let Ok(payload) = noise.read(sealed) else {
            return self.ignore(Some(Counter::Malformed));
        };
        let Some(join1) = Join1::decode(&payload) else {
            return self.ignore(Some(Counter::Malformed));
        };
        let suite = choose_suite(&join1.suites, &self.suites());
        match endpoint.with(|endpoint| endpoint.take_link(bond, join1.link, self.offer.via)) {
            // The bond ended in between.
            None => self.hint_unknown(bond),
            // Either end may send a JOIN1 again on its link. On another link it is a replay, which gets no answer.
            Some(Err(Refusal::LinkIdTaken)) => self.ignore(Some(Counter::Replay)),
            Some(taken) => {
                let decision = taken.and_then(|()| suite.ok_or(Refusal::NoCommonSuite));
                self.watch.restart(now);
                self.conclude_join(packet, noise, ticket, &join1, decision)
            }
        }
    }

    fn conclude_join(
        &mut self,
        packet: &[u8],
        mut noise: Noise,
        ticket: JoinTicket,
        join1: &Join1,
        decision: Result<Suite, Refusal>,
    ) -> Result<Step, HandshakeError> {
        let verdict = match decision {
            Ok(suite) => Join2::Accepted { suite, opener: ticket.opener, parameters: self.offer.parameters },
            Err(reason) => Join2::Refused { reason, text: reason.text().to_string() },
        };
        let mut answer = alloc::vec![Kind::Join2 as u8];
        let malformed = |_| HandshakeError::Malformed { what: "JOIN1" };
        noise.write(&verdict.encode(), &mut answer).map_err(malformed)?;
        let split = noise.split()?;
        self.answered.clear();
        self.answer(packet, answer);
        let suite = match decision {
            Ok(suite) => suite,
            Err(reason) => return Ok(self.refuse(ticket.peer, reason)),
        };
        let proven =
            Proven { peer: ticket.peer, link: join1.link, suite, parameters: join1.parameters, split };
        let attachment = proven.attach(ticket.keys, ticket.opener, join1.replaces);
        self.attached(Counter::LinkJoined);
        Ok(Step::LinkJoined(Box::new(attachment)))
    }

    fn hint_unknown(&mut self, bond: BondId) -> Result<Step, HandshakeError> {
        self.outbox = Some(Hint::UnknownBond(bond).encode().into());
        self.ignore(Some(Counter::UnknownBond))
    }

    fn answer(&mut self, request: &[u8], answer: Vec<u8>) {
        debug_assert!(
            answer.len() <= HANDSHAKE_FIRST_MESSAGE_BYTES,
            "an answer is never longer than a first message"
        );
        let answer = Bytes::from(answer);
        self.outbox = Some(answer.clone());
        self.answered.push((Bytes::copy_from_slice(request), answer));
    }

    fn attached(&mut self, counter: Counter) {
        self.count(counter);
        self.half_open = None;
        self.state = State::Attached;
    }

    fn refuse(&mut self, peer: PublicKey, reason: Refusal) -> Step {
        self.count(Counter::Refused(reason));
        self.state = State::Refused;
        Step::Refused { peer, reason }
    }

    fn ignore(&mut self, counter: Option<Counter>) -> Result<Step, HandshakeError> {
        self.watch.ignored();
        if let Some(counter) = counter {
            self.count(counter);
        }
        Ok(Step::Wait)
    }

    fn count(&self, counter: Counter) {
        self.identity.counters.count(counter);
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Listening => "Responder(listening)",
            State::Opening(_) => "Responder(waits for OPEN3)",
            State::Attached => "Responder(waits for the first packet)",
            State::Confirmed => "Responder(done)",
            State::Refused => "Responder(refused)",
        })
    }
}
