//! Parts of the responder: an OPEN that can be computed again, and what it proves.

use alloc::vec::Vec;

use bytes::Bytes;

use super::message::{self, Kind, Open2};
use super::noise::{Noise, NoiseFault, Split};
use super::{Attachment, Parameters};
use crate::crypto::{BondKeys, LinkKeys, Secret, Suite};
use crate::endpoint::{Identity, PairingTicket};
use crate::id::{LinkId, PublicKey, Role};

/// An OPEN under way, with all that is needed to compute it again.
pub(super) struct Opening {
    pub(super) noise: Noise,
    pub(super) ephemeral: Secret,
    pub(super) open1: Bytes,
    pub(super) open2: Open2,
    /// The token that is to pair the ends.
    pub(super) pairing: Option<PairingTicket>,
}

impl Opening {
    /// Reads OPEN1 and writes OPEN2. The same input gives the same bytes.
    pub(super) fn begin(
        identity: &Identity,
        ephemeral: &Secret,
        open1: &[u8],
        pairing: Option<&PairingTicket>,
        respond: impl FnOnce(&[u8]) -> Option<Open2>,
    ) -> Result<(Noise, Open2, Vec<u8>), NoiseFault> {
        let (prefix, message, _) = message::split_open1(open1).ok_or(NoiseFault)?;
        let prologue = [message::OPEN_PROLOGUE, prefix];
        let psk = pairing.map(|ticket| &ticket.psk);
        let mut noise = Noise::open(Role::Responder, &identity.secret, ephemeral, &prologue, psk)?;
        let open2 = respond(&noise.read(message)?).ok_or(NoiseFault)?;
        let mut answer = alloc::vec![Kind::Open2 as u8];
        noise.write(&open2.encode(), &mut answer)?;
        Ok((noise, open2, answer))
    }

    /// Puts the exchange back to where OPEN2 is out. A forged OPEN3 may have spoilt it: Noise has no way back from a
    /// message whose first half authenticates and whose second does not.
    pub(super) fn restore(&mut self, identity: &Identity) -> Result<(), NoiseFault> {
        let Open2 { suite, random, parameters } = self.open2;
        let same = |_: &[u8]| Some(Open2 { suite, random, parameters });
        let pairing = self.pairing.as_ref();
        (self.noise, ..) = Self::begin(identity, &self.ephemeral, &self.open1, pairing, same)?;
        Ok(())
    }
}

/// An initiator that has proved itself, and its link.
pub(super) struct Proven {
    pub(super) peer: PublicKey,
    pub(super) link: LinkId,
    pub(super) suite: Suite,
    pub(super) parameters: Parameters,
    pub(super) split: Split,
}

impl Proven {
    pub(super) fn attach(self, bond: BondKeys, opener: LinkId, replaces: Option<LinkId>) -> Attachment {
        Attachment {
            role: Role::Responder,
            peer: self.peer,
            bond,
            link: self.link,
            opener,
            replaces,
            keys: LinkKeys::new(self.suite, self.split.initiator, self.split.responder),
            peer_parameters: self.parameters,
            rtt: None,
        }
    }
}
