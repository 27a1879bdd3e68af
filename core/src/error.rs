//! What can go wrong, one enum per operation.

use alloc::string::String;

use crate::id::LinkId;
pub use crate::streams::Violation as StreamViolation;
use crate::wire::frame::FrameError;

/// A peer broke the protocol on a link. The link ends; the bond and its other links go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A frame could not be decoded.
    #[error("malformed frame: {0}")]
    Frame(#[from] FrameError),
    /// A frame of a stream broke a limit or a rule.
    #[error("{0}")]
    Stream(#[from] StreamViolation),
    /// A packet number came twice or went backwards.
    #[error("packet number {number} is not above {highest}, the highest received")]
    PacketNumber {
        /// The number at fault.
        number: u64,
        /// The highest before it.
        highest: u64,
    },
    /// An acknowledgement for a packet that was never sent.
    #[error("packet {largest} of link {link} was acknowledged, but {next} is the next to be sent")]
    AckOfUnsent {
        /// The link that the acknowledgement names.
        link: LinkId,
        /// The number it acknowledges.
        largest: u64,
        /// The next number.
        next: u64,
    },
    /// A CLOSE whose authentication code is wrong.
    #[error("a CLOSE with a wrong authentication code")]
    CloseMac,
}

impl Violation {
    /// The code that tells the peer in LINK_CLOSE.
    pub(crate) const fn code(&self) -> u64 {
        match self {
            Self::Frame(_) => code::FRAME_ENCODING,
            Self::Stream(_) => code::STREAM,
            Self::PacketNumber { .. } | Self::AckOfUnsent { .. } => code::PACKET_NUMBER,
            Self::CloseMac => code::PROTOCOL,
        }
    }
}

/// Codes of LINK_CLOSE and CLOSE below 0x100; an application's own start there.
pub mod code {
    /// Nothing is wrong.
    pub const NONE: u64 = 0;
    /// A frame could not be decoded.
    pub const FRAME_ENCODING: u64 = 1;
    /// A stream's limit or rule was broken.
    pub const STREAM: u64 = 2;
    /// A packet number or an acknowledgement is impossible.
    pub const PACKET_NUMBER: u64 = 3;
    /// Any other breach of the protocol.
    pub const PROTOCOL: u64 = 4;
    /// Another link takes this one's place.
    pub const REPLACED: u64 = 5;
    /// The user took the link out of the bond.
    pub const REMOVED: u64 = 6;
    /// The responder made room for a newer bond of the same peer.
    pub const EVICTED: u64 = 7;
    /// First code of an application.
    pub const APPLICATION: u64 = 0x100;
}

/// A link could not join the bond.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkUpError {
    /// The bond is closing.
    #[error("link {0} cannot join: the bond is closed; open a new one")]
    Closed(LinkId),
    /// There is a link with this id, or was.
    #[error("link {0} cannot join: its id was used before; dial again")]
    IdUsed(LinkId),
    /// Too many links.
    #[error("link {id} cannot join: the bond has {max} links already; remove one first")]
    TooMany {
        /// The link.
        id: LinkId,
        /// The most there may be.
        max: usize,
    },
    /// The link's packets are too small.
    #[error("link {id} cannot join: its packets hold {mtu} bytes, at least {min} are needed")]
    Mtu {
        /// The link.
        id: LinkId,
        /// What it offers.
        mtu: usize,
        /// What is needed.
        min: usize,
    },
}

/// Why a link left the bond.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DownReason {
    /// The medium failed.
    #[error("{0}")]
    Io(String),
    /// The medium ended: the other side closed it or it was pulled out.
    #[error("closed by the other side or pulled out")]
    Eof,
    /// Nothing was heard after the handshake.
    #[error("nothing was heard after the handshake")]
    Silent,
    /// Another link of the same dialer took its place.
    #[error("replaced by link {0}")]
    Replaced(LinkId),
    /// The peer ended it.
    #[error("ended by the peer (code {0})")]
    ByPeer(u64),
    /// It was taken out of the bond here.
    #[error("removed")]
    Local,
    /// The peer broke the protocol on it.
    #[error("protocol violation: {0}")]
    Violation(Violation),
    /// The bond ended.
    #[error("the bond closed")]
    BondClosed,
}

/// Why a bond ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// Closed here.
    #[error("closed here (code {code}){}", colon(reason))]
    Local {
        /// The application's code.
        code: u64,
        /// For people.
        reason: String,
    },
    /// Closed by the peer.
    #[error("closed by the peer (code {code}){}", colon(reason))]
    Peer {
        /// The peer's code.
        code: u64,
        /// The peer's words.
        reason: String,
    },
    /// No link was usable for longer than the idle timeout.
    #[error("no usable link for {} s, the idle timeout", .0.as_secs())]
    IdleTimeout(crate::time::Duration),
    /// The peer runs again and no longer knows this bond.
    #[error("the peer was restarted and no longer knows this bond; open a new one")]
    PeerRestarted,
    /// The responder made room for newer bonds of the same peer.
    #[error("replaced by a newer bond of the same peer")]
    Evicted,
    /// No link could finish a handshake, and trying again cannot help.
    #[error("{0}")]
    Refused(String),
}

fn colon(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { alloc::format!(": {reason}") }
}
