//! Handshakes: how a link opens a bond, or joins one.
//!
//! Sans-IO and one object for each link: an [`Initiator`] at the end that dialled, a [`Responder`] at the other. Both
//! come from an [`Endpoint`](crate::endpoint::Endpoint), and both end in an [`Attachment`]: keys for the link, and its
//! place in a bond.
//!
//! | | pattern | messages |
//! |---|---|---|
//! | open a bond | `Noise_XX_25519_ChaChaPoly_SHA256` | OPEN1 → ← OPEN2, OPEN3 → ← OPEN4 |
//! | open a bond and pair its hosts | `Noise_XXpsk3_25519_ChaChaPoly_SHA256` | the same |
//! | join a bond | `Noise_NNpsk0_25519_ChaChaPoly_SHA256` | JOIN1 → ← JOIN2 |
//!
//! Only the initiator repeats, byte for byte; the responder answers a repeated message with the bytes it answered
//! before. What does not authenticate is dropped and counted and changes nothing. A sign that there will be no answer
//! (a HINT, an HTTP request, one's own message coming back) only shortens the wait, so that it cannot beat an
//! authenticated answer.

mod attempt;
mod flight;
mod initiator;
mod message;
mod noise;
mod opening;
mod parameters;
mod responder;
mod token;
mod watch;

pub use attempt::Attempt;
pub use initiator::{Initiator, Outcome};
pub use parameters::Parameters;
pub use responder::{EndpointAccess, Responder, Step};
pub use token::{PairingToken, TokenId};
pub use watch::looks_like;

pub(crate) use initiator::Dial;
pub(crate) use responder::Acceptance;

use alloc::string::String;
use core::fmt;

use crate::crypto::{BondKeys, LinkKeys};
use crate::id::{BondId, LinkId, PublicKey, Role};
use crate::limits;
use crate::time::Duration;

/// What this end brings to one link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkOffer {
    /// What the other end is told.
    pub parameters: Parameters,
    /// Whether [`Suite::None`](crate::crypto::Suite::None), if the endpoint offers it, is offered on this link. Set it
    /// for cables; on a link that others can reach, only if the user insists.
    pub plaintext_allowed: bool,
    /// Which of this host's listening points the link came in by, for [`PeerRules::vias`](crate::endpoint::PeerRules).
    /// Of no meaning on a link that this end dials.
    pub via: u32,
}

/// What an OPEN is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intent {
    /// To open a bond.
    Open,
    /// To learn from an authenticated peer whether it still knows this bond.
    Check(BondId),
}

/// One link attached to a bond: the end of a handshake.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// This end's role.
    pub role: Role,
    /// The other end's identity. Proved in this handshake by an OPEN; in the bond's first one for a JOIN.
    pub peer: PublicKey,
    /// The bond's secrets and its id.
    pub bond: BondKeys,
    /// The link's number in the bond.
    pub link: LinkId,
    /// The link whose OPEN made the bond; equals `link` on that one.
    pub opener: LinkId,
    /// The link that this one takes the place of. A responder acts on it only after the first packet that
    /// authenticates, because a JOIN1 may be an old one sent again.
    pub replaces: Option<LinkId>,
    /// Fresh keys for packets on this link.
    pub keys: LinkKeys,
    /// What the other end told.
    pub peer_parameters: Parameters,
    /// Round trip of the first message and its answer; the initiator has it unless it had to repeat.
    pub rtt: Option<Duration>,
}

impl Attachment {
    /// Whether this link opened the bond.
    pub fn opened(&self) -> bool {
        self.link == self.opener
    }
}

/// Why a responder refuses an authenticated initiator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The key is not among the allowed peers.
    NotAllowed,
    /// The ends have no suite in common on this link.
    NoCommonSuite,
    /// The bond has as many links as one may have.
    TooManyLinks,
    /// The endpoint has as many bonds as it can hold.
    TooManyBonds,
    /// The link number was used before.
    LinkIdTaken,
    /// Both ends have the same key.
    SameKey,
    /// The bond that this attempt opened has ended a moment ago.
    AttemptEnded,
    /// The pairing token was used before.
    TokenUsed,
    /// The pairing token is no longer valid.
    TokenExpired,
    /// The peer may not use the listening point that the link came in by.
    NotOnThisLink,
    /// A reason that a later version may know.
    Other(u64),
}

impl Refusal {
    const KNOWN: [Self; 10] = [
        Self::NotAllowed,
        Self::NoCommonSuite,
        Self::TooManyLinks,
        Self::TooManyBonds,
        Self::LinkIdTaken,
        Self::SameKey,
        Self::AttemptEnded,
        Self::TokenUsed,
        Self::TokenExpired,
        Self::NotOnThisLink,
    ];

    pub(crate) const fn to_wire(self) -> u64 {
        match self {
            Self::NotAllowed => 1,
            Self::NoCommonSuite => 2,
            Self::TooManyLinks => 3,
            Self::TooManyBonds => 4,
            Self::LinkIdTaken => 5,
            Self::SameKey => 6,
            Self::AttemptEnded => 7,
            Self::TokenUsed => 8,
            Self::TokenExpired => 9,
            Self::NotOnThisLink => 10,
            Self::Other(code) => code,
        }
    }

    pub(crate) fn from_wire(code: u64) -> Self {
        Self::KNOWN.into_iter().find(|known| known.to_wire() == code).unwrap_or(Self::Other(code))
    }

    /// The sentence that travels with it. It must help the one who reads it at the other end.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::NotAllowed => "your public key is not among the allowed peers here",
            Self::NoCommonSuite => "no cipher in common on this link",
            Self::TooManyLinks => "this bond has no room for another link",
            Self::TooManyBonds => "no room for another bond here; try again later",
            Self::LinkIdTaken => "this link number was used before; take a new one",
            Self::SameKey => "both ends have the same key",
            Self::AttemptEnded => "this bond has ended here; open a new one",
            Self::TokenUsed => "this pairing token was used before; make a new one",
            Self::NotOnThisLink => "permit-links there does not name this link for your key",
            Self::TokenExpired => "this pairing token has expired; make a new one",
            Self::Other(_) => "",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(code) => write!(f, "reason {code}"),
            known => f.write_str(known.text()),
        }
    }
}

/// What a handshake waited for when its time ran out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The initiator: any answer to OPEN1.
    Open2,
    /// The initiator: the verdict on the bond.
    Open4,
    /// The initiator: any answer to JOIN1.
    Join2,
    /// The responder: a first message.
    FirstMessage,
    /// The responder: the initiator's proof of its identity.
    Open3,
    /// The responder: the first packet that authenticates.
    FirstPacket,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open2 | Self::Join2 => "an answer to the first message",
            Self::Open4 => "the verdict on the bond",
            Self::FirstMessage => "a first message",
            Self::Open3 => "the initiator's proof of its identity",
            Self::FirstPacket => "a first packet",
        })
    }
}

/// Why a handshake failed. It costs its link, never the bond.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Another host answers than the one wanted.
    #[error(
        "the other end is {got:?}, not {expected:?}; check the cable or the address, or pin the other key"
    )]
    WrongPeer {
        /// The key that was wanted.
        expected: PublicKey,
        /// The key that the other end proved.
        got: PublicKey,
    },
    /// The responder refuses, authenticated.
    #[error("the other end refuses: {text} ({code})")]
    Refused {
        /// Why.
        code: Refusal,
        /// The same in the responder's words, without control characters.
        text: String,
    },
    /// The other end says, unauthenticated, that it does not know the bond.
    #[error("the other end may not know bond {bond}; run an OPEN with Intent::Check on this link to be sure")]
    UnknownBond {
        /// The bond to join.
        bond: BondId,
    },
    /// The other end says, authenticated, that the bond is gone.
    #[error("the other end has restarted and lost bond {bond}; open a new one")]
    PeerRestarted {
        /// The bond asked about.
        bond: BondId,
    },
    /// The other end says, unauthenticated, that it does not know the pairing token.
    #[error("the other end does not know this pairing token; make a new one there, and copy all of it")]
    UnknownToken,
    /// The other end speaks another version.
    #[error(
        "the other end speaks version {theirs} of the protocol, this one {ours}; update the older of the two"
    )]
    Version {
        /// The version spoken here.
        ours: u8,
        /// The version that the other end says it speaks.
        theirs: u8,
    },
    /// Nothing came in time.
    #[error("nothing came within {} s while waiting for {stage}; is the other end running, and the link whole?", limits::HANDSHAKE_TIMEOUT.as_secs())]
    Timeout {
        /// What was waited for.
        stage: Stage,
    },
    /// The other end speaks something else.
    #[error("the other end does not speak Bondwire: it sent {looks_like}; check the address and the port")]
    NotBondwire {
        /// What its bytes look like, such as "an HTTP request".
        looks_like: &'static str,
    },
    /// The link leads back to this host.
    #[error(
        "the link leads back to this host, or both hosts have one key; plug the cable into the other host"
    )]
    Looped,
    /// Both ends dial, or both accept.
    #[error("both ends of the link are the {}; start one with `listen`, the other with `connect`", role_name(*.role))]
    SameRole {
        /// The role both have.
        role: Role,
    },
    /// The peer is authenticated and sends nonsense.
    #[error("the other end sent a broken {what}; it may run a faulty version: update it")]
    Malformed {
        /// Which message.
        what: &'static str,
    },
    /// The ends have no suite in common.
    #[error("the two ends have no cipher in common; allow one more at either end")]
    NoCommonSuite,
    /// Only plaintext was offered, and the other end does not allow it on this link.
    #[error("the other end does not allow plaintext on this link; allow it there or choose a cipher here")]
    PlaintextRefused,
    /// This end has nothing to offer.
    #[error(
        "no cipher to offer on this link: plaintext is not allowed on it; choose a cipher or allow plaintext"
    )]
    NothingToOffer,
    /// A half-open link brought too many bytes.
    #[error("the link brought {bytes} bytes and no handshake; check what is at its other end, and its noise")]
    TooNoisy {
        /// How many bytes it brought.
        bytes: usize,
    },
    /// The cryptography failed where it cannot.
    #[error("the handshake could not be computed; this is a bug, please report it")]
    Internal,
}

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Initiator => "initiator",
        Role::Responder => "responder",
    }
}

impl From<noise::NoiseFault> for HandshakeError {
    fn from(_: noise::NoiseFault) -> Self {
        Self::Internal
    }
}
