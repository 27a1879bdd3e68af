//! Names of things: bonds, links, streams, and the two ends.

use core::fmt;

/// Which end of the bond this is. The initiator dialled; the responder accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Dialled the bond, and dials its links.
    Initiator,
    /// Accepted the bond.
    Responder,
}

impl Role {
    /// The other end.
    pub const fn peer(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

/// A link of a bond, on the wire its join number: chosen by the initiator, rising, never used twice in a bond.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A stream of a bond. Bit 0 names the end that opened it (0 initiator, 1 responder), as in RFC 9000 section 2.1;
/// every stream is bidirectional, so there is no second type bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The `index`-th stream (from 0) that `opener` opens.
    pub const fn new(opener: Role, index: u64) -> Self {
        Self(index << 1 | opener as u64)
    }

    /// The end that opened the stream.
    pub const fn opener(self) -> Role {
        if self.0 & 1 == 0 { Role::Initiator } else { Role::Responder }
    }

    /// Its place among the streams of that end, from 0.
    pub const fn index(self) -> u64 {
        self.0 >> 1
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Public name of a bond: tells the responder which join secret to try. Not a secret, and no proof of anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BondId(pub [u8; 16]);

impl fmt::Debug for BondId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BondId({self})")
    }
}

impl fmt::Display for BondId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// A host's static X25519 public key: its identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(")?;
        self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        f.write_str("…)")
    }
}

/// How a stream's bytes choose among links.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Class {
    /// All links together; for throughput.
    #[default]
    Bulk = 0,
    /// The link with the lowest latency, ahead of bulk data.
    Interactive = 1,
    /// Every byte on every link; the first copy wins.
    Redundant = 2,
}

impl Class {
    /// The class of a wire value; unknown values are bulk, so that later classes degrade gently.
    pub const fn from_wire(value: u64) -> Self {
        match value {
            1 => Self::Interactive,
            2 => Self::Redundant,
            _ => Self::Bulk,
        }
    }
}
