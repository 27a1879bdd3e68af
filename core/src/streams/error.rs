//! What can go wrong with a stream, one enum per operation.

use crate::id::StreamId;
use crate::limits::{ASSEMBLER_CHUNKS_MAX, STREAM_LABEL_MAX_BYTES};

/// A stream could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer's limit or this end's receive buffer allows no more streams at the moment.
    #[error(
        "no stream can be opened: {open} that this end opened are open, and {max} are allowed; finish one, or wait \
         for StreamEvent::OpenPossible"
    )]
    LimitReached {
        /// Streams opened by this end that are not yet over.
        open: u64,
        /// How many of them there may be.
        max: u64,
    },
    /// The label is too long.
    #[error("the stream's label has {len} bytes, at most {STREAM_LABEL_MAX_BYTES} are possible; shorten it")]
    LabelTooLong {
        /// Its length in bytes.
        len: usize,
    },
}

/// Bytes could not be written to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The stream's send buffer is full; [`StreamEvent::Writable`](super::StreamEvent::Writable) tells when to go on.
    #[error("the send buffer of stream {0} is full; write again when it is writable")]
    Blocked(StreamId),
    /// The stream was finished here.
    #[error("stream {0} is finished and takes no more bytes")]
    Finished(StreamId),
    /// The stream was reset here.
    #[error("stream {0} was reset at this end and takes no more bytes")]
    Reset(StreamId),
    /// The peer wants no more bytes.
    #[error("the peer wants no more bytes of stream {id} (code {code}); what was not delivered is discarded")]
    Stopped {
        /// The stream.
        id: StreamId,
        /// The peer application's code.
        code: u64,
    },
    /// There is no such stream, or it is over.
    #[error("stream {0} does not exist or is over")]
    Unknown(StreamId),
}

/// A half of a stream could not be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The stream was reset here.
    #[error("stream {0} was reset at this end and cannot be finished any more")]
    Reset(StreamId),
    /// The peer wants no more bytes.
    #[error("the peer wants no more bytes of stream {id} (code {code}); what was not delivered is discarded")]
    Stopped {
        /// The stream.
        id: StreamId,
        /// The peer application's code.
        code: u64,
    },
    /// There is no such stream, or it is over.
    #[error("stream {0} does not exist or is over")]
    Unknown(StreamId),
}

/// Bytes could not be read from a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing has arrived; [`StreamEvent::Readable`](super::StreamEvent::Readable) tells when to go on.
    #[error("nothing has arrived on stream {0}; read again when it is readable")]
    Blocked(StreamId),
    /// The peer gave up its half of the stream.
    #[error("the peer reset stream {id} (code {code}); bytes that were not yet read are lost")]
    Reset {
        /// The stream.
        id: StreamId,
        /// The peer application's code.
        code: u64,
    },
    /// This end asked the peer to stop, or gave up the stream.
    #[error("stream {0} was stopped at this end; there is nothing more to read")]
    Stopped(StreamId),
    /// There is no such stream, or it is over.
    #[error("stream {0} does not exist or is over")]
    Unknown(StreamId),
}

/// A frame of the peer's broke a limit or a rule of the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// More streams than were allowed.
    #[error("stream {id} is beyond the {max} streams that the peer may have opened so far")]
    StreamLimit {
        /// The stream.
        id: StreamId,
        /// The limit that MAX_STREAMS told, a count since the bond began.
        max: u64,
    },
    /// A frame for a stream that this end would have to open, and has not.
    #[error("a frame for stream {0}, which this end has not opened")]
    NotOpened(StreamId),
    /// An OPEN_STREAM for a stream of this end, or a second one with other contents.
    #[error("an OPEN_STREAM for stream {0} that contradicts what is known of the stream")]
    OpenMismatch(StreamId),
    /// Bytes beyond the stream's window.
    #[error("stream {id} was sent up to offset {end}, its window ends at {granted}")]
    FlowControl {
        /// The stream.
        id: StreamId,
        /// End of the bytes.
        end: u64,
        /// End of the window.
        granted: u64,
    },
    /// The stream's length changed, or bytes lie beyond it.
    #[error("stream {id} ends at offset {known}, but a frame says {said}")]
    FinalSize {
        /// The stream.
        id: StreamId,
        /// The length known before, or the end of what has arrived.
        known: u64,
        /// What the frame says.
        said: u64,
    },
    /// Too many separate pieces wait for gaps to close.
    #[error(
        "stream {0} brought one piece more than the {ASSEMBLER_CHUNKS_MAX} that may wait for gaps to close"
    )]
    Pieces(StreamId),
}
