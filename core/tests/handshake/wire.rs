//! Two hosts and a link between them, in virtual time.

use std::collections::VecDeque;

use bondwire_core::crypto::{BondKeys, Opener, PortableAead, Sealer, StaticSecret};
use bondwire_core::endpoint::{AllowedPeers, Endpoint, EndpointConfig, EndpointStats};
use bondwire_core::handshake::{
    Attachment, Attempt, HandshakeError, Initiator, Intent, LinkOffer, Outcome, Parameters, Responder, Step,
};
use bondwire_core::id::{LinkId, PublicKey, Role};
use bondwire_core::time::Instant;
use bytes::Bytes;

pub(crate) const START: Instant = Instant::from_nanos(1_000_000_000);

pub(crate) fn secret(of: u8) -> StaticSecret {
    StaticSecret::from_bytes([of; 32])
}

pub(crate) fn key(of: u8) -> PublicKey {
    secret(of).public_key()
}

/// Host 1 dials; host 2 listens and allows host 1.
pub(crate) struct Hosts {
    pub(crate) near: Endpoint,
    pub(crate) far: Endpoint,
}

impl Hosts {
    pub(crate) fn new() -> Self {
        Self::with(|_, _| {})
    }

    pub(crate) fn with(configure: impl FnOnce(&mut EndpointConfig, &mut EndpointConfig)) -> Self {
        let (mut near, mut far) = (EndpointConfig::new(secret(1)), EndpointConfig::new(secret(2)));
        far.allowed = AllowedPeers::Only([key(1)].into());
        configure(&mut near, &mut far);
        Self { near: Endpoint::new(near, [3; 32]), far: Endpoint::new(far, [4; 32]) }
    }

    pub(crate) fn attempt(&mut self) -> Attempt {
        self.near.attempt(Some(key(2)))
    }

    pub(crate) fn open(&mut self, attempt: &mut Attempt) -> Initiator {
        let link = attempt.next_link().unwrap();
        self.near.connect_open(START, attempt, link, Intent::Open, offer()).unwrap()
    }

    pub(crate) fn join(&mut self, attempt: &mut Attempt, bond: &BondKeys) -> Initiator {
        let link = attempt.next_link().unwrap();
        self.near.connect_join(START, key(2), bond, link, Some(LinkId(0)), offer()).unwrap()
    }

    pub(crate) fn accept(&mut self) -> Responder {
        self.far.accept_link(START, offer()).unwrap()
    }

    /// A bond with its first link.
    pub(crate) fn bond(&mut self) -> (Attempt, Attachment) {
        let mut attempt = self.attempt();
        let mut wire = Wire::new(self.open(&mut attempt), self.accept());
        let ends = wire.run(&mut self.far).unwrap();
        (attempt, *ends.near)
    }

    pub(crate) fn stats(&self) -> EndpointStats {
        self.far.stats()
    }
}

pub(crate) fn offer() -> LinkOffer {
    LinkOffer { parameters: Parameters { mtu_bytes: 1400, ..Parameters::default() }, ..LinkOffer::default() }
}

/// What happens to a message on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Arrives,
    IsLost,
    ComesTwice,
    /// Overtaken by the next message of its direction, or late by a repeat.
    ComesLate,
}

pub(crate) const FATES: [Fate; 4] = [Fate::Arrives, Fate::IsLost, Fate::ComesTwice, Fate::ComesLate];

/// One direction of a link.
#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) queue: VecDeque<Bytes>,
    pub(crate) late: Option<Bytes>,
}

impl Lane {
    pub(crate) fn put(&mut self, fate: Fate, message: Bytes) {
        match fate {
            Fate::IsLost => {}
            Fate::ComesLate => self.late = Some(message),
            Fate::ComesTwice => self.queue.extend([message.clone(), message]),
            Fate::Arrives => self.queue.push_back(message),
        }
        if fate != Fate::ComesLate {
            self.queue.extend(self.late.take());
        }
    }
}

/// A link in the middle of its handshake, in virtual time.
pub(crate) struct Wire {
    pub(crate) now: Instant,
    pub(crate) initiator: Initiator,
    pub(crate) responder: Responder,
    pub(crate) outward: Lane,
    pub(crate) back: Lane,
    /// Of the first messages, in the order of sending; later ones arrive.
    pub(crate) fates: VecDeque<Fate>,
    pub(crate) sent: Vec<(Role, Bytes)>,
}

pub(crate) struct Ends {
    pub(crate) near: Box<Attachment>,
    pub(crate) far: Box<Attachment>,
    pub(crate) new_bond: bool,
}

impl Wire {
    pub(crate) fn new(initiator: Initiator, responder: Responder) -> Self {
        let (outward, back) = (Lane::default(), Lane::default());
        Self { now: START, initiator, responder, outward, back, fates: VecDeque::new(), sent: Vec::new() }
    }

    pub(crate) fn fate(&mut self) -> Fate {
        self.fates.pop_front().unwrap_or(Fate::Arrives)
    }

    /// Until the initiator is attached.
    pub(crate) fn run(&mut self, far: &mut Endpoint) -> Result<Ends, HandshakeError> {
        let mut attached = None;
        match self.run_to_outcome(far, |step| match step {
            Step::NewBond { attachment, .. } => assert!(attached.replace((attachment, true)).is_none()),
            Step::LinkJoined(attachment) => assert!(attached.replace((attachment, false)).is_none()),
            _ => {}
        })? {
            Outcome::Attached(near) => {
                let (far, new_bond) = attached.expect("the responder attached before the initiator");
                Ok(Ends { near, far, new_bond })
            }
            Outcome::Known(bond) => panic!("asked for no check of {bond}"),
        }
    }

    pub(crate) fn run_to_outcome(
        &mut self,
        far: &mut Endpoint,
        mut on_step: impl FnMut(Step),
    ) -> Result<Outcome, HandshakeError> {
        loop {
            let mut moved = false;
            while let Some(message) = self.initiator.poll_transmit(self.now) {
                self.sent.push((Role::Initiator, message.clone()));
                let fate = self.fate();
                self.outward.put(fate, message);
                moved = true;
            }
            while let Some(message) = self.outward.queue.pop_front() {
                on_step(far.handle_packet(self.now, &mut self.responder, &message)?);
                while let Some(answer) = self.responder.poll_transmit(self.now) {
                    self.sent.push((Role::Responder, answer.clone()));
                    let fate = self.fate();
                    self.back.put(fate, answer);
                }
                moved = true;
            }
            while let Some(message) = self.back.queue.pop_front() {
                if let Some(outcome) = self.initiator.handle_packet(self.now, &message)? {
                    return Ok(outcome);
                }
                moved = true;
            }
            if !moved {
                self.now = self.initiator.poll_timeout().expect("it waits for something");
                self.initiator.handle_timeout(self.now)?;
                self.outward.queue.extend(self.outward.late.take());
                self.back.queue.extend(self.back.late.take());
            }
        }
    }
}

pub(crate) fn drive(
    far: &mut Endpoint,
    initiator: Initiator,
    responder: Responder,
) -> Result<Ends, HandshakeError> {
    Wire::new(initiator, responder).run(far)
}

/// Both ends hold the same link of the same bond, and what one seals, the other opens.
pub(crate) fn assert_match(ends: &Ends) {
    let Ends { near, far, .. } = ends;
    assert_eq!((near.role, far.role), (Role::Initiator, Role::Responder));
    assert_eq!((near.peer, far.peer), (key(2), key(1)));
    assert_eq!((near.bond.id(), near.link, near.opener), (far.bond.id(), far.link, far.opener));
    assert_eq!(near.replaces, far.replaces);
    assert_eq!(near.keys.suite(), far.keys.suite());
    assert_eq!(near.bond.close_mac(Role::Initiator, 1, b""), far.bond.close_mac(Role::Initiator, 1, b""));
    assert_eq!(near.peer_parameters.mtu_bytes, 1400);
    assert_eq!(far.peer_parameters.mtu_bytes, 1400);
    assert_talk(near, far);
    assert_talk(far, near);
}

pub(crate) fn assert_talk(from: &Attachment, to: &Attachment) {
    let mut sealer = Sealer::new(&from.keys, from.role, &PortableAead);
    let mut opener = Opener::new(&to.keys, to.role, &PortableAead);
    let mut packet = *b"\0\0hello, other end________________";
    let len = sealer.seal(&mut packet[..2 + 15 + 16], 2, 0, 0).unwrap();
    let opened = opener.open(&mut packet[..len]).unwrap();
    assert_eq!(&packet[opened.header_len..][..opened.payload_len], b"hello, other en");
}

/// Every sequence of fates of the first `len` messages.
pub(crate) fn fates(len: u32) -> impl Iterator<Item = VecDeque<Fate>> {
    (0..4_usize.pow(len)).map(move |n| (0..len).map(|i| FATES[n / 4_usize.pow(i) % 4]).collect())
}
