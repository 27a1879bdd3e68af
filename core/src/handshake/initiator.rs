//! The end that dials.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use rand_core::RngCore;

use super::attempt::Attempt;
use super::flight::Flight;
use super::message::{self, Hint, Join1, Join2, Kind, Open2, Open3, Open4, Suites};
use super::noise::{Noise, Split};
use super::token::PairingToken;
use super::watch::Watch;
use super::{Attachment, HandshakeError, Intent, LinkOffer, Parameters, Refusal, Stage};
use crate::crypto::{BondKeys, BondOrigin, LinkKeys, StaticSecret, Suite, secret_from};
use crate::id::{BondId, LinkId, PublicKey, Role};
use crate::time::{Duration, Instant};

/// How a handshake ended well.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The link is attached. The initiator sends the first packet at once: with it the responder takes the link in use.
    Attached(Box<Attachment>),
    /// An OPEN with [`Intent::Check`]: the peer, authenticated, still has the bond. The link is free for a JOIN.
    Known(BondId),
}

/// What a handshake of this end needs of its host.
pub(crate) struct Dial<'a, R> {
    pub(crate) rng: &'a mut R,
    pub(crate) secret: &'a StaticSecret,
    /// Suites on offer on this link.
    pub(crate) suites: Suites,
    pub(crate) offer: LinkOffer,
}

/// The initiator's handshake on one link.
pub struct Initiator {
    exchange: Exchange,
    flight: Flight,
    watch: Watch,
    suites: Suites,
}

/// What is under way, and all that is needed to go on.
enum Exchange {
    /// OPEN1 is out.
    Opening {
        noise: Noise,
        secret: StaticSecret,
        attempt: Attempt,
        link: LinkId,
        intent: Intent,
        parameters: Parameters,
    },
    /// OPEN3 is out.
    Proving {
        split: Split,
        own: PublicKey,
        attempt: Attempt,
        intent: Intent,
        attachment: Unattached,
    },
    /// JOIN1 is out.
    Joining {
        noise: Noise,
        peer: PublicKey,
        bond: BondKeys,
        link: LinkId,
        replaces: Option<LinkId>,
    },
    Done,
}

/// What OPEN2 told of the attachment to be.
struct Unattached {
    peer: PublicKey,
    link: LinkId,
    suite: Suite,
    parameters: Parameters,
    rtt: Option<Duration>,
}

impl Initiator {
    pub(crate) fn open(
        now: Instant,
        dial: Dial<'_, impl RngCore>,
        attempt: &Attempt,
        link: LinkId,
        intent: Intent,
    ) -> Result<Self, HandshakeError> {
        // To check a bond the hosts need no token: they know each other by then.
        let token = attempt.token.as_ref().filter(|_| intent == Intent::Open);
        let prefix = message::open1_prefix(token.map(PairingToken::id));
        let prologue = [message::OPEN_PROLOGUE, &prefix];
        let psk = token.map(PairingToken::psk);
        let ephemeral = secret_from(dial.rng);
        let mut noise = Noise::open(Role::Initiator, dial.secret, &ephemeral, &prologue, psk.as_ref())?;
        // A pattern with a pre-shared key puts a tag behind the first payload.
        let overhead_bytes = prefix.len() + 32 + if psk.is_some() { 16 } else { 0 };
        let mut open1 = prefix.to_vec();
        noise.write(&message::open1_payload(&dial.suites, overhead_bytes), &mut open1)?;
        let exchange = Exchange::Opening {
            noise,
            secret: dial.secret.clone(),
            attempt: attempt.clone(),
            link,
            intent,
            parameters: dial.offer.parameters,
        };
        Ok(Self::new(now, exchange, open1, dial.suites))
    }

    pub(crate) fn join(
        now: Instant,
        dial: Dial<'_, impl RngCore>,
        peer: PublicKey,
        bond: &BondKeys,
        link: LinkId,
        replaces: Option<LinkId>,
    ) -> Result<Self, HandshakeError> {
        let prefix = message::join1_prefix(bond.id());
        let prologue = [message::JOIN_PROLOGUE, &prefix];
        let mut noise = Noise::join(Role::Initiator, bond.join_secret(), &secret_from(dial.rng), &prologue)?;
        let payload =
            Join1 { link, replaces, suites: dial.suites.clone(), parameters: dial.offer.parameters }.encode();
        let mut join1 = prefix.to_vec();
        noise.write(&payload, &mut join1)?;
        let exchange = Exchange::Joining { noise, peer, bond: bond.clone(), link, replaces };
        Ok(Self::new(now, exchange, join1, dial.suites))
    }

    fn new(now: Instant, exchange: Exchange, message: Vec<u8>, suites: Suites) -> Self {
        Self { exchange, flight: Flight::new(message), watch: Watch::new(now), suites }
    }

    /// The message to send now, if one is due. Sending it arms its repeat.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        if matches!(self.exchange, Exchange::Done) { None } else { self.flight.take(now) }
    }

    /// When to call [`Self::handle_timeout`] next; `None` when the handshake is over.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if matches!(self.exchange, Exchange::Done) {
            return None;
        }
        let deadline = self.watch.deadline();
        Some(self.flight.repeat_at.map_or(deadline, |repeat| repeat.min(deadline)))
    }

    /// Makes a repeat due, or ends the handshake.
    ///
    /// # Errors
    /// Time is up: [`HandshakeError::Timeout`], or what the signs on the link said.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), HandshakeError> {
        let stage = match self.exchange {
            Exchange::Opening { .. } => Stage::Open2,
            Exchange::Proving { .. } => Stage::Open4,
            Exchange::Joining { .. } => Stage::Join2,
            Exchange::Done => return Ok(()),
        };
        self.watch.check(now, stage).inspect_err(|_| self.exchange = Exchange::Done)?;
        self.flight.handle_timeout(now);
        Ok(())
    }

    /// Packets that were not part of this handshake and were dropped.
    pub const fn ignored_packets(&self) -> u64 {
        self.watch.ignored_packets()
    }

    /// Takes a packet from the link. `None` while the handshake goes on; then [`Self::poll_transmit`] may have more.
    ///
    /// # Errors
    /// The handshake has failed and the link is of no use for now. Only authenticated bytes, or too many, do this.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> Result<Option<Outcome>, HandshakeError> {
        if matches!(self.exchange, Exchange::Done) {
            return Ok(None);
        }
        let handled = self.watch.received(packet).and_then(|()| self.handle_message(now, packet));
        if !matches!(handled, Ok(None)) {
            self.exchange = Exchange::Done;
        }
        handled
    }

    fn handle_message(&mut self, now: Instant, packet: &[u8]) -> Result<Option<Outcome>, HandshakeError> {
        let Some((kind, body)) = Kind::of(packet) else {
            self.watch.foreign(now, packet);
            return Ok(None);
        };
        match (kind, &self.exchange) {
            (Kind::Open2, Exchange::Opening { .. }) => self.handle_open2(now, body).map(|()| None),
            (Kind::Open4, Exchange::Proving { .. }) => self.handle_open4(body),
            (Kind::Join2, Exchange::Joining { .. }) => self.handle_join2(now, body),
            (Kind::Hint, _) => {
                self.handle_hint(now, body);
                Ok(None)
            }
            (Kind::Open1 | Kind::Open3 | Kind::Join1, _) => {
                let echo = self.flight.message == packet;
                let same_role = HandshakeError::SameRole { role: Role::Initiator };
                self.watch.suspect(now, if echo { HandshakeError::Looped } else { same_role });
                Ok(None)
            }
            (Kind::Open2 | Kind::Open4 | Kind::Join2, _) => {
                self.watch.ignored();
                Ok(None)
            }
        }
    }

    fn handle_open2(&mut self, now: Instant, body: &[u8]) -> Result<(), HandshakeError> {
        let Exchange::Opening { noise, .. } = &mut self.exchange else { return Ok(()) };
        let Ok(payload) = noise.read(body) else {
            self.watch.ignored();
            return Ok(());
        };
        let Exchange::Opening { mut noise, secret, attempt, link, intent, parameters } =
            core::mem::replace(&mut self.exchange, Exchange::Done)
        else {
            return Ok(());
        };
        self.watch.progressed();
        let own = secret.public_key();
        let peer = noise.peer().ok_or(HandshakeError::Internal)?;
        check_peer(own, attempt.peer(), peer)?;
        let open2 = Open2::decode(&payload).ok_or(HandshakeError::Malformed { what: "OPEN2" })?;
        let suite = self.agreed(open2.suite, "OPEN2")?;

        let payload =
            Open3 { random: *attempt.random, attempt: attempt.id, link, intent, parameters }.encode();
        let mut open3 = alloc::vec![Kind::Open3 as u8];
        noise.write(&payload, &mut open3)?;
        let rtt = self.flight.rtt(now);
        let attachment = Unattached { peer, link, suite, parameters: open2.parameters, rtt };
        self.exchange = Exchange::Proving { split: noise.split()?, own, attempt, intent, attachment };
        self.flight = Flight::new(open3);
        Ok(())
    }

    /// The suite that the responder chose, if it was offered.
    fn agreed(&self, chosen: Option<Suite>, what: &'static str) -> Result<Suite, HandshakeError> {
        match chosen {
            Some(suite) if self.suites.contains(&suite) => Ok(suite),
            Some(_) => Err(HandshakeError::Malformed { what }),
            None => Err(self.no_common_suite()),
        }
    }

    fn no_common_suite(&self) -> HandshakeError {
        if self.suites[..] == [Suite::None] {
            HandshakeError::PlaintextRefused
        } else {
            HandshakeError::NoCommonSuite
        }
    }

    fn handle_open4(&mut self, body: &[u8]) -> Result<Option<Outcome>, HandshakeError> {
        let Exchange::Proving { split, own, attempt, intent, attachment } = &self.exchange else {
            return Ok(None);
        };
        let Some(payload) = split.open_verdict(Kind::Open4 as u8, body) else {
            self.watch.ignored();
            return Ok(None);
        };
        let verdict = Open4::decode(&payload).ok_or(HandshakeError::Malformed { what: "OPEN4" })?;
        let outcome = match (verdict, *intent) {
            (Open4::Accepted { opener, opener_random }, Intent::Open) => {
                let bond = BondKeys::derive(&BondOrigin {
                    initiator_random: &attempt.random,
                    responder_random: &opener_random,
                    initiator: *own,
                    responder: attachment.peer,
                });
                Outcome::Attached(Box::new(attachment.attach(split, bond, opener)))
            }
            (Open4::Refused { reason, text }, _) => return Err(self.refused(reason, text)),
            (Open4::Known, Intent::Check(bond)) => Outcome::Known(bond),
            (Open4::Gone, Intent::Check(bond)) => return Err(HandshakeError::PeerRestarted { bond }),
            _ => return Err(HandshakeError::Malformed { what: "OPEN4" }),
        };
        Ok(Some(outcome))
    }

    fn handle_join2(&mut self, now: Instant, body: &[u8]) -> Result<Option<Outcome>, HandshakeError> {
        let Exchange::Joining { noise, .. } = &mut self.exchange else { return Ok(None) };
        let Ok(payload) = noise.read(body) else {
            self.watch.ignored();
            return Ok(None);
        };
        let Exchange::Joining { noise, peer, bond, link, replaces } =
            core::mem::replace(&mut self.exchange, Exchange::Done)
        else {
            return Ok(None);
        };
        match Join2::decode(&payload).ok_or(HandshakeError::Malformed { what: "JOIN2" })? {
            Join2::Refused { reason, text } => Err(self.refused(reason, text)),
            Join2::Accepted { suite, parameters, opener } => {
                let suite = self.agreed(Some(suite), "JOIN2")?;
                let split = noise.split()?;
                Ok(Some(Outcome::Attached(Box::new(Attachment {
                    role: Role::Initiator,
                    peer,
                    bond,
                    link,
                    opener,
                    replaces,
                    keys: LinkKeys::new(suite, split.initiator, split.responder),
                    peer_parameters: parameters,
                    rtt: self.flight.rtt(now),
                }))))
            }
        }
    }

    fn refused(&self, code: Refusal, text: String) -> HandshakeError {
        match code {
            Refusal::NoCommonSuite => self.no_common_suite(),
            Refusal::SameKey => HandshakeError::Looped,
            _ => HandshakeError::Refused { code, text },
        }
    }

    fn handle_hint(&mut self, now: Instant, body: &[u8]) {
        let suspicion = match (Hint::decode(body), &self.exchange) {
            (Some(Hint::UnknownBond(id)), Exchange::Joining { bond, .. }) if bond.id() == id => {
                Some(HandshakeError::UnknownBond { bond: id })
            }
            (Some(Hint::UnknownToken(id)), Exchange::Opening { attempt, .. })
                if attempt.token.as_ref().is_some_and(|token| token.id() == id) =>
            {
                Some(HandshakeError::UnknownToken)
            }
            (Some(Hint::Version(theirs)), Exchange::Opening { .. } | Exchange::Joining { .. })
                if theirs != message::VERSION =>
            {
                Some(HandshakeError::Version { ours: message::VERSION, theirs })
            }
            _ => None,
        };
        match suspicion {
            Some(suspicion) => self.watch.suspect(now, suspicion),
            None => self.watch.ignored(),
        }
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.exchange {
            Exchange::Opening { .. } => "Initiator(waits for OPEN2)",
            Exchange::Proving { .. } => "Initiator(waits for OPEN4)",
            Exchange::Joining { .. } => "Initiator(waits for JOIN2)",
            Exchange::Done => "Initiator(done)",
        })
    }
}

impl Unattached {
    fn attach(&self, split: &Split, bond: BondKeys, opener: LinkId) -> Attachment {
        Attachment {
            role: Role::Initiator,
            peer: self.peer,
            bond,
            link: self.link,
            opener,
            replaces: None,
            keys: LinkKeys::new(self.suite, split.initiator.clone(), split.responder.clone()),
            peer_parameters: self.parameters,
            rtt: self.rtt,
        }
    }
}

fn check_peer(own: PublicKey, wanted: Option<PublicKey>, got: PublicKey) -> Result<(), HandshakeError> {
    if got == own {
        return Err(HandshakeError::Looped);
    }
    match wanted {
        Some(expected) if expected != got => Err(HandshakeError::WrongPeer { expected, got }),
        _ => Ok(()),
    }
}
