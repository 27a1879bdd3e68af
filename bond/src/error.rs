//! What can go wrong, one enum per operation; each message says what happened, on which link, and what to do.

use std::io;

pub use bondwire_core::endpoint::TooManyTokens;
pub use bondwire_core::error::{CloseReason, DownReason, LinkUpError, Violation, code};
pub use bondwire_core::handshake::{HandshakeError, Refusal};

use crate::identity::NoEntropy;

/// A link could not be added to a bond. The bond and its other links are as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddLinkError {
    /// The medium failed during the handshake.
    #[error("{link}: the link ended during the handshake: {fault}")]
    Medium {
        /// Name of the link.
        link: String,
        /// The medium's own words.
        fault: String,
    },
    /// The handshake failed.
    #[error("{link}: {error}")]
    Handshake {
        /// Name of the link.
        link: String,
        /// What was wrong, and what to do.
        error: HandshakeError,
    },
    /// The bond could not take the link.
    #[error("{link}: {error}")]
    LinkUp {
        /// Name of the link.
        link: String,
        /// What was wrong, and what to do.
        error: LinkUpError,
    },
    /// The bond has ended, or ended meanwhile.
    #[error("{link}: the bond has ended ({reason}); open a new one")]
    BondEnded {
        /// Name of the link.
        link: String,
        /// Why the bond ended.
        reason: CloseReason,
    },
    /// The bond was accepted; only the end that connected adds links to it.
    #[error("{link}: this end accepted the bond; add the link to the listener, the other end dials")]
    NotInitiator {
        /// Name of the link.
        link: String,
    },
}

impl AddLinkError {
    /// Whether the peer refused, so that trying again helps only after something was changed there.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Handshake {
                error: HandshakeError::Refused { .. }
                    | HandshakeError::WrongPeer { .. }
                    | HandshakeError::PlaintextRefused
                    | HandshakeError::NoCommonSuite
                    | HandshakeError::UnknownToken,
                ..
            }
        )
    }
}

/// No pairing token could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PairingTokenError {
    /// The operating system gave no random bytes.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
    /// Too many tokens wait to be used.
    #[error(transparent)]
    TooMany(#[from] TooManyTokens),
}

/// Why a dialer has no link at the moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The medium could not be reached.
    #[error("{name}: {fault}")]
    Dial {
        /// Name of the dialer.
        name: String,
        /// The medium's own words.
        fault: String,
    },
    /// It was reached, and the link could not be added.
    #[error(transparent)]
    AddLink(#[from] AddLinkError),
    /// A link was up, and ended.
    #[error("{name}: the link ended: {reason}")]
    LinkEnded {
        /// Name of the dialer.
        name: String,
        /// Why it ended.
        reason: String,
    },
}

/// A stream could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenStreamError {
    /// The bond has ended.
    #[error("no stream can be opened: the bond has ended: {0}")]
    BondEnded(CloseReason),
    /// The engine refuses.
    #[error("no stream can be opened: {0}")]
    Refused(#[from] bondwire_core::streams::OpenError),
}

/// A write to a stream failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The peer asked for no more. What was written before may not have been read.
    #[error("the peer stopped reading this stream (code {0})")]
    Stopped(u64),
    /// This end has finished or reset the stream.
    #[error("the stream is finished; nothing can be written any more")]
    Finished,
    /// The bond has ended.
    #[error("the bond has ended: {0}")]
    BondEnded(CloseReason),
}

/// A read from a stream failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer gave the stream up; bytes before that may be missing.
    #[error("the peer reset this stream (code {0})")]
    Reset(u64),
    /// This end has stopped reading.
    #[error("reading of this stream was stopped here")]
    Stopped,
    /// The bond has ended before the stream did.
    #[error("the bond has ended: {0}")]
    BondEnded(CloseReason),
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        let kind = match &error {
            WriteError::Stopped(_) => io::ErrorKind::ConnectionReset,
            WriteError::Finished => io::ErrorKind::BrokenPipe,
            WriteError::BondEnded(reason) => ended_kind(reason),
        };
        Self::new(kind, error)
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match &error {
            ReadError::Reset(_) => io::ErrorKind::ConnectionReset,
            ReadError::Stopped => io::ErrorKind::NotConnected,
            ReadError::BondEnded(reason) => ended_kind(reason),
        };
        Self::new(kind, error)
    }
}

fn ended_kind(reason: &CloseReason) -> io::ErrorKind {
    match reason {
        CloseReason::IdleTimeout(_) => io::ErrorKind::TimedOut,
        CloseReason::Local { .. } => io::ErrorKind::NotConnected,
        _ => io::ErrorKind::ConnectionAborted,
    }
}

/// A datagram could not be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendDatagramError {
    /// The bond has ended.
    #[error("the datagram was not sent: the bond has ended: {0}")]
    BondEnded(CloseReason),
    /// The engine refuses.
    #[error("the datagram was not sent: {0}")]
    Refused(#[from] bondwire_core::datagrams::SendDatagramError),
    /// An ordered one is impossible.
    #[error("the datagram was not sent: {0}")]
    OrderedRefused(#[from] bondwire_core::ordered::SendOrderedError),
}

/// An operation named a link that the bond does not have (any more).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bond has no link {0}; it may have ended")]
pub struct NoSuchLink(pub bondwire_core::id::LinkId);
