//! What the application should hear of its streams.

use alloc::collections::VecDeque;

use super::{Stream, Streams};
use crate::id::StreamId;

/// News of a stream. Each is told once, until it happens anew: read until
/// [`ReadError::Blocked`](super::ReadError::Blocked), write until [`WriteError::Blocked`](super::WriteError::Blocked).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamEvent {
    /// Streams of the peer's can be accepted: accept until there are none.
    Opened,
    /// After [`OpenError::LimitReached`](super::OpenError::LimitReached): a stream can be opened.
    OpenPossible,
    /// After a read that found nothing, or before the first: bytes, the end or a reset can be read.
    Readable(StreamId),
    /// After a write that was turned away: there is room.
    Writable(StreamId),
    /// The peer has everything up to the end of the stream.
    Finished(StreamId),
    /// The peer wants no more bytes; the sending half is reset.
    Stopped {
        /// The stream.
        id: StreamId,
        /// The peer application's code.
        code: u64,
    },
    /// The peer gave up its half.
    ResetByPeer {
        /// The stream.
        id: StreamId,
        /// The peer application's code.
        code: u64,
    },
}

pub(super) const READABLE: u8 = 1;
pub(super) const WRITABLE: u8 = 1 << 1;
pub(super) const FINISHED: u8 = 1 << 2;
pub(super) const STOPPED: u8 = 1 << 3;
pub(super) const RESET: u8 = 1 << 4;
/// Not an event: the stream is in the queue.
const QUEUED: u8 = 1 << 7;

/// Streams with news, each once. Bounded because a stream with news is not forgotten.
#[derive(Debug, Default)]
pub(super) struct Events {
    queue: VecDeque<StreamId>,
    pub(super) opened: bool,
    pub(super) open_possible: bool,
}

impl Events {
    /// Takes note of news.
    pub(super) fn add(&mut self, id: StreamId, stream: &mut Stream, event: u8) {
        if stream.closed {
            return;
        }
        if stream.events == 0 {
            stream.events = QUEUED;
            self.queue.push_back(id);
        }
        stream.events |= event;
    }
}

impl Streams {
    /// The next event.
    pub fn poll_event(&mut self) -> Option<StreamEvent> {
        if core::mem::take(&mut self.events.opened) {
            return Some(StreamEvent::Opened);
        }
        if core::mem::take(&mut self.events.open_possible) {
            return Some(StreamEvent::OpenPossible);
        }
        loop {
            let id = *self.events.queue.front()?;
            if let Some(event) = self.streams.get_mut(&id).and_then(|stream| stream.next_event(id)) {
                return Some(event);
            }
            self.events.queue.pop_front();
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.events = 0;
            }
            self.settle(id);
        }
    }

    #[cfg(test)]
    pub(super) fn events_are_empty(&self) -> bool {
        self.events.queue.is_empty()
    }

    /// Tells the application that waits for it that a stream can be opened.
    pub(super) fn announce_opening(&mut self) {
        if self.opener_waits && self.openable() {
            self.opener_waits = false;
            self.events.open_possible = true;
        }
    }
}

impl Stream {
    /// No more events for an application that has given the stream up.
    pub(super) fn silence(&mut self) {
        self.closed = true;
        self.events &= QUEUED;
    }

    fn next_event(&mut self, id: StreamId) -> Option<StreamEvent> {
        while self.events & !QUEUED != 0 {
            let event = 1 << self.events.trailing_zeros();
            self.events &= !event;
            match event {
                READABLE => return Some(StreamEvent::Readable(id)),
                WRITABLE => return Some(StreamEvent::Writable(id)),
                FINISHED => return Some(StreamEvent::Finished(id)),
                STOPPED => {
                    return Some(StreamEvent::Stopped { id, code: self.send.stopped.unwrap_or_default() });
                }
                _ => {
                    if let super::recv::RecvState::Reset { code } = self.recv.state {
                        return Some(StreamEvent::ResetByPeer { id, code });
                    }
                }
            }
        }
        None
    }
}
