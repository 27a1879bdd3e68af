//! The handshake messages, byte by byte. PROTOCOL.md, section "Handshake", is the same in prose.

use alloc::string::String;
use alloc::vec::Vec;

use smallvec::SmallVec;

use super::{Intent, Parameters, Refusal, TokenId};
use crate::crypto::Suite;
use crate::id::{BondId, LinkId};
use crate::limits::{HANDSHAKE_FIRST_MESSAGE_BYTES, LINK_ID_MAX, REFUSAL_TEXT_MAX_BYTES};
use crate::wire::varint as wire_varint;

/// The one version of the handshake so far.
pub(super) const VERSION: u8 = 1;

/// The kind of a message: its first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    Open1 = 0x81,
    Open2 = 0x82,
    Open3 = 0x83,
    Open4 = 0x84,
    Join1 = 0x85,
    Join2 = 0x86,
    Hint = 0x8f,
}

impl Kind {
    /// The kind of `packet` and what stands behind its first byte; `None` if it is no handshake message.
    pub(super) fn of(packet: &[u8]) -> Option<(Self, &[u8])> {
        let (first, rest) = packet.split_first()?;
        let kinds =
            [Self::Open1, Self::Open2, Self::Open3, Self::Open4, Self::Join1, Self::Join2, Self::Hint];
        kinds.into_iter().find(|kind| *kind as u8 == *first).map(|kind| (kind, rest))
    }
}

/// Most bytes of OPEN1 before its Noise message: kind, version, flags, and the name of a pairing token.
const OPEN1_PREFIX_MAX_BYTES: usize = 11;
/// Bytes of JOIN1 before its Noise message: kind, version, bond id.
pub(super) const JOIN1_PREFIX_BYTES: usize = 18;

/// Flag of OPEN1: the name of a pairing token follows, and the token goes into the handshake. No other flag has a
/// meaning in version 1.
const FLAG_PAIRING: u8 = 1;

/// What starts an OPEN in the clear.
pub(super) type Open1Prefix = SmallVec<[u8; OPEN1_PREFIX_MAX_BYTES]>;

/// The clear bytes of an OPEN, which pairs with the token `token` if that is given.
pub(super) fn open1_prefix(token: Option<TokenId>) -> Open1Prefix {
    let mut prefix = Open1Prefix::from_slice(&[Kind::Open1 as u8, VERSION, 0]);
    if let Some(TokenId(id)) = token {
        prefix[2] = FLAG_PAIRING;
        prefix.extend_from_slice(&id);
    }
    prefix
}

/// Splits an OPEN1 of this version into its clear bytes and its Noise message, and names the token it pairs with.
pub(super) fn split_open1(packet: &[u8]) -> Option<(&[u8], &[u8], Option<TokenId>)> {
    let mut rest = packet.get(2..)?;
    let token = match byte(&mut rest)? {
        0 => None,
        FLAG_PAIRING => Some(TokenId(array(&mut rest)?)),
        _ => return None,
    };
    let (prefix, message) = packet.split_at(packet.len() - rest.len());
    Some((prefix, message, token))
}

/// What starts a JOIN in the clear.
pub(super) fn join1_prefix(bond: BondId) -> [u8; JOIN1_PREFIX_BYTES] {
    let mut prefix = [0; JOIN1_PREFIX_BYTES];
    prefix[0] = Kind::Join1 as u8;
    prefix[1] = VERSION;
    prefix[2..].copy_from_slice(&bond.0);
    prefix
}

/// What the hash of an exchange begins with, before the clear prefix.
pub(super) const OPEN_PROLOGUE: &[u8] = b"bondwire 1";
/// The same for a JOIN.
pub(super) const JOIN_PROLOGUE: &[u8] = b"bondwire 1 join";

/// Suites in the order of preference of the end that offers them.
pub(super) type Suites = SmallVec<[Suite; 4]>;

fn put_suites(suites: &[Suite], out: &mut Vec<u8>) {
    // At most three kinds exist, so the count fits.
    out.push(u8::try_from(suites.len()).unwrap_or(u8::MAX));
    out.extend(suites.iter().map(|suite| *suite as u8));
}

/// Unknown suites are those of a later version, and are passed over.
fn take_suites(input: &mut &[u8]) -> Option<Suites> {
    let count = usize::from(byte(input)?);
    let suites = take(input, count)?;
    Some(suites.iter().filter_map(|suite| Suite::from_wire(*suite)).collect())
}

/// Payload of OPEN1, hashed and to be read by anyone: the suites on offer, then padding up to the size of a first
/// message; `overhead_bytes` is what stands around it.
pub(super) fn open1_payload(suites: &[Suite], overhead_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HANDSHAKE_FIRST_MESSAGE_BYTES);
    put_suites(suites, &mut out);
    out.resize(HANDSHAKE_FIRST_MESSAGE_BYTES.saturating_sub(overhead_bytes), 0);
    out
}

/// The suites of an OPEN1 payload.
pub(super) fn read_open1_payload(mut input: &[u8]) -> Option<Suites> {
    take_suites(&mut input)
}

/// Payload of OPEN2.
pub(super) struct Open2 {
    /// `None` if the ends have no suite in common: then the exchange ends here.
    pub(super) suite: Option<Suite>,
    pub(super) random: [u8; 32],
    pub(super) parameters: Parameters,
}

impl Open2 {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.push(self.suite.map_or(0, |suite| suite as u8));
        out.extend_from_slice(&self.random);
        self.parameters.encode(&mut out);
        out
    }

    pub(super) fn decode(mut input: &[u8]) -> Option<Self> {
        let suite = match byte(&mut input)? {
            0 => None,
            known => Some(Suite::from_wire(known)?),
        };
        Some(Self { suite, random: array(&mut input)?, parameters: Parameters::decode(input)? })
    }
}

/// Payload of OPEN3.
pub(super) struct Open3 {
    pub(super) random: [u8; 32],
    pub(super) attempt: [u8; 16],
    pub(super) link: LinkId,
    pub(super) intent: Intent,
    pub(super) parameters: Parameters,
}

impl Open3 {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.random);
        out.extend_from_slice(&self.attempt);
        wire_varint::encode(self.link.0.into(), &mut out);
        match self.intent {
            Intent::Open => out.push(0),
            Intent::Check(bond) => {
                out.push(1);
                out.extend_from_slice(&bond.0);
            }
        }
        self.parameters.encode(&mut out);
        out
    }

    pub(super) fn decode(mut input: &[u8]) -> Option<Self> {
        let random = array(&mut input)?;
        let attempt = array(&mut input)?;
        let link = link_id(varint(&mut input)?)?;
        let intent = match byte(&mut input)? {
            0 => Intent::Open,
            1 => Intent::Check(BondId(array(&mut input)?)),
            _ => return None,
        };
        Some(Self { random, attempt, link, intent, parameters: Parameters::decode(input)? })
    }
}

/// Payload of OPEN4: what the responder makes of the bond.
pub(super) enum Open4 {
    /// The bond is open. Its secrets come from the exchange on link `opener`, whose responder random is told, because
    /// the exchange on that link may have lost its end.
    Accepted {
        opener: LinkId,
        opener_random: [u8; 32],
    },
    Refused {
        reason: Refusal,
        text: String,
    },
    /// The bond asked about lives.
    Known,
    /// The bond asked about does not live: this host has restarted, or the bond has ended.
    Gone,
}

impl Open4 {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Accepted { opener, opener_random } => {
                out.push(0);
                wire_varint::encode(opener.0.into(), &mut out);
                out.extend_from_slice(opener_random);
            }
            Self::Refused { reason, text } => {
                out.push(1);
                put_refusal(*reason, text, &mut out);
            }
            Self::Known => out.push(2),
            Self::Gone => out.push(3),
        }
        out
    }

    pub(super) fn decode(mut input: &[u8]) -> Option<Self> {
        Some(match byte(&mut input)? {
            0 => Self::Accepted { opener: link_id(varint(&mut input)?)?, opener_random: array(&mut input)? },
            1 => {
                let (reason, text) = take_refusal(&mut input)?;
                Self::Refused { reason, text }
            }
            2 => Self::Known,
            3 => Self::Gone,
            _ => return None,
        })
    }
}

/// Payload of JOIN1.
pub(super) struct Join1 {
    pub(super) link: LinkId,
    pub(super) replaces: Option<LinkId>,
    pub(super) suites: Suites,
    pub(super) parameters: Parameters,
}

impl Join1 {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HANDSHAKE_FIRST_MESSAGE_BYTES);
        wire_varint::encode(self.link.0.into(), &mut out);
        wire_varint::encode(self.replaces.map_or(0, |link| u64::from(link.0) + 1), &mut out);
        put_suites(&self.suites, &mut out);
        self.parameters.encode(&mut out);
        out.resize(HANDSHAKE_FIRST_MESSAGE_BYTES.saturating_sub(JOIN1_PREFIX_BYTES + 32 + 16), 0);
        out
    }

    pub(super) fn decode(mut input: &[u8]) -> Option<Self> {
        let link = link_id(varint(&mut input)?)?;
        let replaces = match varint(&mut input)?.checked_sub(1) {
            None => None,
            Some(replaced) => Some(link_id(replaced)?),
        };
        let suites = take_suites(&mut input)?;
        Some(Self { link, replaces, suites, parameters: Parameters::decode(input)? })
    }
}

/// Payload of JOIN2.
pub(super) enum Join2 {
    Accepted { suite: Suite, opener: LinkId, parameters: Parameters },
    Refused { reason: Refusal, text: String },
}

impl Join2 {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Accepted { suite, opener, parameters } => {
                out.extend_from_slice(&[0, *suite as u8]);
                wire_varint::encode(opener.0.into(), &mut out);
                parameters.encode(&mut out);
            }
            Self::Refused { reason, text } => {
                out.push(1);
                put_refusal(*reason, text, &mut out);
            }
        }
        out
    }

    pub(super) fn decode(mut input: &[u8]) -> Option<Self> {
        Some(match byte(&mut input)? {
            0 => Self::Accepted {
                suite: Suite::from_wire(byte(&mut input)?)?,
                opener: link_id(varint(&mut input)?)?,
                parameters: Parameters::decode(input)?,
            },
            1 => {
                let (reason, text) = take_refusal(&mut input)?;
                Self::Refused { reason, text }
            }
            _ => return None,
        })
    }
}

/// An answer that nothing authenticates; it can only hasten the end of an exchange that gets no other answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hint {
    /// No bond has this id here.
    UnknownBond(BondId),
    /// The version asked for is not spoken here, but this one is.
    Version(u8),
    /// No pairing token has this name here.
    UnknownToken(TokenId),
}

impl Hint {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = alloc::vec![Kind::Hint as u8];
        match self {
            Self::UnknownBond(bond) => {
                out.push(1);
                out.extend_from_slice(&bond.0);
            }
            Self::Version(version) => out.extend_from_slice(&[2, version]),
            Self::UnknownToken(token) => {
                out.push(3);
                out.extend_from_slice(&token.0);
            }
        }
        out
    }

    /// From what stands behind the first byte.
    pub(super) fn decode(mut input: &[u8]) -> Option<Self> {
        Some(match varint(&mut input)? {
            1 => Self::UnknownBond(BondId(array(&mut input)?)),
            2 => Self::Version(byte(&mut input)?),
            3 => Self::UnknownToken(TokenId(array(&mut input)?)),
            _ => return None,
        })
    }
}

fn put_refusal(reason: Refusal, text: &str, out: &mut Vec<u8>) {
    let end = (0..=REFUSAL_TEXT_MAX_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let text = text.get(..end).unwrap_or(text);
    wire_varint::encode(reason.to_wire(), out);
    wire_varint::encode(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn take_refusal(input: &mut &[u8]) -> Option<(Refusal, String)> {
    let reason = Refusal::from_wire(varint(input)?);
    let len = usize::try_from(varint(input)?).ok().filter(|len| *len <= REFUSAL_TEXT_MAX_BYTES)?;
    // The text goes to terminals and logs: nothing in it may steer these.
    let text = String::from_utf8_lossy(take(input, len)?);
    Some((reason, text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()))
}

fn link_id(value: u64) -> Option<LinkId> {
    u32::try_from(value).ok().filter(|id| *id <= LINK_ID_MAX).map(LinkId)
}

pub(super) fn varint(input: &mut &[u8]) -> Option<u64> {
    wire_varint::decode_slice(input)
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(taken)
}

fn array<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    take(input, N)?.try_into().ok()
}

fn byte(input: &mut &[u8]) -> Option<u8> {
    array::<1>(input).map(|[byte]| byte)
}
