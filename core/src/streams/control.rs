//! Frames about streams that are repeated until they arrive. Of each only the newest value counts.

use alloc::collections::VecDeque;
use alloc::string::String;

use super::recv::RecvState;
use super::send::SendState;
use super::{Stream, Streams};
use crate::id::{Class, StreamId};

/// A frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// OPEN_STREAM.
    OpenStream {
        /// The stream.
        id: StreamId,
        /// Its class.
        class: Class,
        /// Its rank within the class, lower first.
        priority: u8,
        /// What the application calls it.
        label: String,
    },
    /// MAX_STREAM_DATA.
    MaxStreamData {
        /// The stream.
        id: StreamId,
        /// The offset below which the peer may send.
        maximum: u64,
    },
    /// MAX_STREAMS.
    MaxStreams {
        /// Streams the peer may open in all, counted from the start of the bond.
        count: u64,
    },
    /// RESET_STREAM.
    ResetStream {
        /// The stream.
        id: StreamId,
        /// The application's code.
        code: u64,
        /// Bytes of the stream that were ever sent.
        final_size: u64,
    },
    /// STOP_SENDING.
    StopSending {
        /// The stream.
        id: StreamId,
        /// The application's code.
        code: u64,
    },
}

/// What to remember of a [`Control`] that was sent, to tell its fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlKey {
    /// An OPEN_STREAM.
    OpenStream(StreamId),
    /// A MAX_STREAM_DATA and its limit.
    MaxStreamData(StreamId, u64),
    /// A MAX_STREAMS and its count.
    MaxStreams(u64),
    /// A RESET_STREAM.
    ResetStream(StreamId),
    /// A STOP_SENDING.
    StopSending(StreamId),
}

impl Control {
    /// What to remember of it.
    pub fn key(&self) -> ControlKey {
        match *self {
            Self::OpenStream { id, .. } => ControlKey::OpenStream(id),
            Self::MaxStreamData { id, maximum } => ControlKey::MaxStreamData(id, maximum),
            Self::MaxStreams { count } => ControlKey::MaxStreams(count),
            Self::ResetStream { id, .. } => ControlKey::ResetStream(id),
            Self::StopSending { id, .. } => ControlKey::StopSending(id),
        }
    }
}

pub(super) const OPEN: u8 = 1;
pub(super) const MAX_DATA: u8 = 1 << 1;
pub(super) const RESET: u8 = 1 << 2;
pub(super) const STOP: u8 = 1 << 3;
/// Not a frame: the stream is in the queue.
const QUEUED: u8 = 1 << 7;
const FRAMES: u8 = !QUEUED;

/// Streams with control frames to send, each once.
#[derive(Debug, Default)]
pub(super) struct ControlQueue {
    queue: VecDeque<StreamId>,
    max_streams: bool,
    /// Frames to send, MAX_STREAMS not counted.
    frames: usize,
}

impl ControlQueue {
    /// Has a frame of the stream sent.
    pub(super) fn queue(&mut self, id: StreamId, stream: &mut Stream, frame: u8) {
        if stream.control & frame == 0 {
            self.frames += 1;
        }
        if stream.control & QUEUED == 0 {
            self.queue.push_back(id);
        }
        stream.control |= frame | QUEUED;
    }

    /// Has the newest MAX_STREAMS sent.
    pub(super) fn queue_max_streams(&mut self) {
        self.max_streams = true;
    }

    /// The stream is over: its frames need not be sent. Its place in the queue is skipped later.
    pub(super) fn forget(&mut self, stream: &Stream) {
        self.frames -= (stream.control & FRAMES).count_ones() as usize;
    }
}

impl Streams {
    /// Whether [`next_control`](Self::next_control) has something, in O(1).
    pub fn has_control(&self) -> bool {
        self.control.max_streams || self.control.frames > 0
    }

    /// The next frame to send, which then counts as sent: if it does not fit, give it back with
    /// [`control_lost`](Self::control_lost). Ask before [`take`](Self::take), so that a stream is opened before its
    /// first bytes.
    pub fn next_control(&mut self) -> Option<Control> {
        if core::mem::take(&mut self.control.max_streams) {
            return Some(Control::MaxStreams { count: self.peer_granted });
        }
        loop {
            let id = *self.control.queue.front()?;
            if let Some(stream) = self.streams.get_mut(&id) {
                while stream.control & FRAMES != 0 {
                    let frame = 1 << stream.control.trailing_zeros();
                    stream.control &= !frame;
                    self.control.frames -= 1;
                    if let Some(control) = stream.control(id, frame) {
                        return Some(control);
                    }
                }
                stream.control = 0;
            }
            self.control.queue.pop_front();
        }
    }

    /// The peer has the frame.
    pub fn control_acked(&mut self, key: &ControlKey) {
        match *key {
            ControlKey::OpenStream(id) => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.announced = true;
                    stream.label = String::new();
                }
                self.settle(id);
            }
            ControlKey::ResetStream(id) => {
                if let Some(stream) = self.streams.get_mut(&id)
                    && matches!(stream.send.state, SendState::Reset { .. })
                {
                    stream.send.state = SendState::ResetDelivered;
                }
                self.settle(id);
            }
            ControlKey::MaxStreamData(..) | ControlKey::MaxStreams(_) | ControlKey::StopSending(_) => {}
        }
    }

    /// The frame did not arrive, or could not be sent: it is sent again, unless it no longer matters.
    pub fn control_lost(&mut self, key: &ControlKey) {
        let (id, frame) = match *key {
            ControlKey::OpenStream(id) => (id, OPEN),
            ControlKey::MaxStreamData(id, maximum) => {
                if self.streams.get(&id).is_none_or(|stream| stream.recv.granted() != maximum) {
                    return;
                }
                (id, MAX_DATA)
            }
            ControlKey::MaxStreams(count) => {
                self.control.max_streams |= count == self.peer_granted;
                return;
            }
            ControlKey::ResetStream(id) => (id, RESET),
            ControlKey::StopSending(id) => (id, STOP),
        };
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.control(id, frame).is_some()
        {
            self.control.queue(id, stream, frame);
        }
    }
}

impl Stream {
    /// The newest frame of its kind, `None` if it no longer matters.
    fn control(&self, id: StreamId, frame: u8) -> Option<Control> {
        match frame {
            OPEN => (!self.announced).then(|| Control::OpenStream {
                id,
                class: self.class,
                priority: self.priority,
                label: self.label.clone(),
            }),
            MAX_DATA => self
                .recv
                .is_unfinished()
                .then_some(Control::MaxStreamData { id, maximum: self.recv.granted() }),
            RESET => match self.send.state {
                SendState::Reset { code, final_size } => Some(Control::ResetStream { id, code, final_size }),
                _ => None,
            },
            _ => match self.recv.state {
                RecvState::Stopped { code } if !self.recv.is_over() => {
                    Some(Control::StopSending { id, code })
                }
                _ => None,
            },
        }
    }
}
