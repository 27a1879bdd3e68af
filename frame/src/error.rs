use crate::limits::MTU_MIN_BYTES;

/// Why a session is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum End {
    /// This end closed it.
    #[error("closed here")]
    Closed,
    /// The peer closed it; the code says why.
    #[error("the peer closed the link ({})", code_text(*.0))]
    ClosedByPeer(u8),
    /// No HELLO came back in time.
    #[error("no answer to HELLO: nothing there speaks Bondwire at these settings")]
    NoAnswer,
    /// HELLOs of the peer came, but none that had heard this end's.
    #[error(
        "the other end is there but does not hear this one: check the wire that this end sends on, and flow control"
    )]
    NotHeard,
    /// The peer sends HELLO again and again although it was answered.
    #[error(
        "the other end starts over again and again and never gets further: it is faulty, or hears only part of what is sent"
    )]
    HelloForEver,
    /// This end's own nonce came back.
    #[error(
        "this end hears itself: a loop plug, a modem that echoes, or both ends of a cable in one program"
    )]
    Loop,
    /// The peer has the same role.
    #[error("both ends {}: one must dial and the other accept", if *.0 == crate::Role::Dialer { "dial" } else { "accept" })]
    SameRole(crate::Role),
    /// The peer speaks another version.
    #[error(
        "the other end speaks version {0} of the frame layer, this end version {version}: update {older} end",
        version = crate::hello::VERSION,
        older = if *.0 > crate::hello::VERSION { "this" } else { "that" },
    )]
    Version(u8),
    /// The peer's HELLO has values that cannot be.
    #[error(
        "the other end's HELLO makes no sense: an MTU below {MTU_MIN_BYTES} bytes, or a buffer without room for one frame"
    )]
    BadHello,
    /// The peer opened anew: its program restarted.
    #[error("the other end started anew")]
    PeerReopened,
    /// Nothing came for several keep-alives.
    #[error("silence: the cable is out, or the other end's program died")]
    Silent,
    /// A frame was longer than agreed.
    #[error("the peer broke the protocol: a packet longer than the agreed MTU")]
    TooLong,
    /// A count was lower than before.
    #[error("the peer broke the protocol: its count of bytes runs backwards")]
    CountBackwards,
    /// A limit was lower than before, or beyond the peer's buffer.
    #[error("the peer broke the protocol: its credit limit runs backwards or beyond its buffer")]
    CreditBackwards,
    /// The peer sent more than the limit allowed.
    #[error("the peer broke the protocol: it sent more than it had credit for")]
    Overrun,
    /// A frame of a known type was malformed.
    #[error("the peer broke the protocol: a malformed frame")]
    Malformed,
}

impl End {
    /// The code of a CLOSE frame, as PROTOCOL.md has them.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::TooLong => 1,
            Self::CountBackwards => 2,
            Self::CreditBackwards => 3,
            Self::Overrun => 4,
            Self::Malformed => 5,
            Self::HelloForEver => 6,
            Self::Silent => 7,
            _ => 0,
        }
    }
}

fn code_text(code: u8) -> &'static str {
    match code {
        0 => "nothing is wrong",
        1 => "it says: a packet was longer than the agreed MTU",
        2 => "it says: this end's count of bytes ran backwards",
        3 => "it says: this end's credit limit ran backwards",
        4 => "it says: this end sent more than it had credit for",
        5 => "it says: a frame was malformed",
        6 => "it says: this end started over again and again",
        7 => "it heard nothing any more",
        _ => "for a reason that this version does not know",
    }
}

/// A [`FrameSink`](crate::FrameSink) has no room for this frame now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no room for a frame")]
pub struct NoRoom;

/// Why a packet was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// The session is not established, or over.
    #[error("the session is not established")]
    NotEstablished,
    /// The packet is empty, or longer than the agreed MTU.
    #[error("a packet of this length does not fit the link")]
    BadLength,
    /// The peer's buffer has no room: wait until frames from the peer raise the limit.
    #[error("the peer's buffer has no room")]
    NoCredit,
    /// The sink has no room: send what it holds first.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
}
