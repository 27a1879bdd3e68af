//! Streams: what the application writes and reads, and what of it is unsent, in flight or acknowledged.
//!
//! [`Streams`] is one end of all streams of a bond. It knows nothing of packets, time or the choice of links: the
//! connection asks it for the bytes of one STREAM frame at a time ([`Streams::take`]) and tells it their fate
//! ([`Streams::on_acked`], [`Streams::on_lost`]). Frames that must arrive but are not data wait in
//! [`Streams::next_control`]. Nothing that is done for every packet depends on how many streams are open, beyond the
//! depth of a tree.
//!
//! | file | job |
//! |---|---|
//! | `application.rs` | open, accept, write, read, finish, reset |
//! | `sending.rs` | which bytes go next; acknowledged, lost, sent twice; links that come and go |
//! | `receiving.rs` | frames of the peer's |
//! | `control.rs` | frames about streams that are repeated until they arrive |
//! | `events.rs` | what the application should hear |
//! | `send.rs`, `send_buffer.rs` | one stream's sending half and its bytes |
//! | `recv.rs`, `assembler.rs` | one stream's receiving half and its bytes |
//! | `flow.rs`, `ready.rs` | how streams share buffers and take turns |

mod application;
mod assembler;
mod control;
mod error;
mod events;
mod flow;
mod ready;
mod receiving;
mod recv;
mod send;
mod send_buffer;
mod sending;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;

use bytes::Bytes;
use smallvec::SmallVec;

pub use self::application::Accepted;
pub use self::control::{Control, ControlKey};
pub use self::error::{OpenError, ReadError, StreamError, Violation, WriteError};
pub use self::events::StreamEvent;
pub use self::recv::Received;
pub use self::sending::{SentStream, Take};

use self::control::ControlQueue;
use self::events::Events;
use self::flow::Budget;
use self::ready::ReadyQueues;
use self::recv::RecvHalf;
use self::send::{SendHalf, SendTotals};
use crate::id::{Class, LinkId, Role, StreamId};
use crate::limits::STREAM_WINDOW_MIN_BYTES;
use crate::pool::BufferPool;
use crate::range_set::RangeSet;
use crate::wire::varint::VARINT_MAX;

/// The bytes of one STREAM frame, in order.
pub type Pieces = SmallVec<[Bytes; 8]>;

/// Send buffer that every stream may fill whatever the others hold, in bytes, where the bound of all allows it.
const SEND_FLOOR_BYTES: u64 = 1024;

/// Sizes of one end of a bond's streams.
#[derive(Clone, Debug)]
pub struct StreamsConfig {
    /// Which end this is: its streams have ids of their own.
    pub role: Role,
    /// Most bytes held that have arrived and are not read; the peer is never granted more. Less than the smallest
    /// windows of four streams counts as that.
    pub receive_buffer_bytes: u64,
    /// Most bytes held that are written and not acknowledged.
    pub send_buffer_max_bytes: u64,
    /// Memory that both buffers share with other bonds.
    pub buffers: BufferPool,
    /// Streams the peer may have open at once; [`streams_allowed`] says how many of them the receive buffer allows.
    pub streams_max_local: u64,
    /// Streams that the peer was told it may open, if another number.
    pub streams_told: Option<u64>,
}

/// Streams for which half of the receive buffer has room at their smallest window.
fn stream_slots(receive_buffer_bytes: u64) -> u64 {
    (receive_buffer_bytes / 2 / STREAM_WINDOW_MIN_BYTES).max(2)
}

/// Streams the peer may have open at once: `streams_max`, or fewer if the receive buffer is too small for their
/// windows. Half of the buffer is kept for smallest windows; the streams that this end opens need at least half of
/// that. The handshake parameters tell this number and [`STREAM_WINDOW_MIN_BYTES`].
pub fn streams_allowed(receive_buffer_bytes: u64, streams_max: u64) -> u64 {
    streams_max.min(stream_slots(receive_buffer_bytes) / 2)
}

/// One stream of either end.
#[derive(Debug)]
struct Stream {
    class: Class,
    priority: u8,
    /// Kept until the application (accepted streams) or the peer (opened ones) has it.
    label: String,
    /// OPEN_STREAM has arrived here (the peer's streams), or there (this end's).
    announced: bool,
    /// The application has given the stream up and wants to hear no more of it.
    closed: bool,
    send: SendHalf,
    recv: RecvHalf,
    /// Control frames to send, bits of `control.rs`.
    control: u8,
    /// Events to tell, bits of `events.rs`.
    events: u8,
}

/// Counters and levels of all streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Streams that are not over, of both ends.
    pub open: u64,
    /// Streams this end opened so far.
    pub opened: u64,
    /// Streams the peer opened so far that are over.
    pub peer_streams_over: u64,
    /// Bytes written and not acknowledged.
    pub send_buffered_bytes: u64,
    /// Of them, bytes that were lost and are to be sent again.
    pub lost_bytes: u64,
    /// Most bytes that the peer could make this end hold at the moment.
    pub receive_granted_bytes: u64,
    /// Pieces of streams that wait for gaps to close.
    pub waiting_pieces: usize,
}

/// All streams of a bond, as one end sees them.
#[derive(Debug)]
pub struct Streams {
    role: Role,
    streams: BTreeMap<StreamId, Stream>,
    links: BTreeSet<LinkId>,

    /// Streams this end opened so far.
    opened: u64,
    /// Of them, those not over.
    own_open: u64,
    /// How many of them there may be, so that their windows fit into the receive buffer.
    own_max: u64,
    /// How many this end may open in all, as the peer says.
    peer_allows: u64,
    /// The peer's first window for each stream, in bytes.
    peer_window_bytes: u64,
    /// An application waits until it may open a stream.
    opener_waits: bool,

    /// Streams the peer may have open at once.
    peer_max: u64,
    /// How many the peer may open in all, as it was told.
    peer_granted: u64,
    /// Indexes of the peer's streams that are over.
    peer_over: RangeSet,
    to_accept: VecDeque<StreamId>,

    queues: ReadyQueues,
    send_budget: Budget,
    totals: SendTotals,
    /// Send buffer that the links can use, in bytes.
    send_tuned_bytes: u64,

    receive_budget: Budget,
    /// The receive window that the peer says it could use, in bytes.
    wanted_bytes: u64,
    /// Streams that were lent more than the smallest window.
    borrowers: BTreeSet<StreamId>,
    waiting_pieces: usize,

    control: ControlQueue,
    events: Events,
}

impl Streams {
    /// No streams yet. None can be opened before [`set_peer_limits`](Self::set_peer_limits).
    pub fn new(config: StreamsConfig) -> Self {
        let receive_buffer = config.receive_buffer_bytes.max(4 * STREAM_WINDOW_MIN_BYTES);
        let slots = stream_slots(receive_buffer);
        let peer_max = streams_allowed(receive_buffer, config.streams_max_local);
        let windows = slots.saturating_mul(STREAM_WINDOW_MIN_BYTES);
        let send_floor = SEND_FLOOR_BYTES.min(config.send_buffer_max_bytes / 2 / slots).max(1);
        let send_lendable = config.send_buffer_max_bytes.saturating_sub(send_floor.saturating_mul(slots));
        Self {
            role: config.role,
            streams: BTreeMap::new(),
            links: BTreeSet::new(),
            opened: 0,
            own_open: 0,
            own_max: slots - peer_max,
            peer_allows: 0,
            peer_window_bytes: 0,
            opener_waits: false,
            peer_max,
            peer_granted: config.streams_told.unwrap_or(peer_max),
            peer_over: RangeSet::new(),
            to_accept: VecDeque::new(),
            queues: ReadyQueues::default(),
            totals: SendTotals::default(),
            send_budget: Budget::new(send_floor, send_lendable, config.buffers.clone()),
            send_tuned_bytes: 0,
            receive_budget: Budget::new(
                STREAM_WINDOW_MIN_BYTES,
                receive_buffer.saturating_sub(windows),
                config.buffers,
            ),
            wanted_bytes: 0,
            borrowers: BTreeSet::new(),
            waiting_pieces: 0,
            control: ControlQueue::default(),
            events: Events::default(),
        }
    }

    /// Takes what the peer's handshake parameters say: how many streams this end may open to begin with, and how many
    /// bytes each stream may send to begin with.
    pub fn set_peer_limits(&mut self, streams_max: u64, stream_window_bytes: u64) {
        self.peer_window_bytes = stream_window_bytes.min(VARINT_MAX);
        self.on_max_streams(streams_max);
        self.grant_streams();
    }

    /// Whether the peer has acknowledged all that was written, and the end of each stream that was finished. In O(1).
    pub fn is_all_acknowledged(&self) -> bool {
        self.totals.undelivered_streams == 0
    }

    /// Counters and levels, in O(1).
    pub fn stats(&self) -> StreamStats {
        StreamStats {
            open: self.streams.len() as u64,
            opened: self.opened,
            peer_streams_over: self.peer_over.covered_bytes(),
            send_buffered_bytes: self.send_budget.held_bytes(),
            lost_bytes: self.totals.lost_bytes,
            receive_granted_bytes: self.receive_budget.held_bytes(),
            waiting_pieces: self.waiting_pieces,
        }
    }

    /// Adds a stream with the windows that every stream starts with.
    fn insert(&mut self, id: StreamId, class: Class, priority: u8, label: String) -> &mut Stream {
        let mut stream = Stream {
            class,
            priority,
            label,
            announced: false,
            closed: false,
            send: SendHalf::new(self.peer_window_bytes),
            recv: RecvHalf::new(&mut self.receive_budget),
            control: 0,
            events: 0,
        };
        if class == Class::Redundant {
            self.links.iter().for_each(|link| stream.send.link_added(*link));
        }
        self.streams.entry(id).or_insert(stream)
    }

    /// Brings queues and budgets up to date with a stream, and forgets the stream if it is over. To be called after
    /// every change of it.
    fn settle(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.settle_send(id, &mut self.queues, &mut self.send_budget);
        stream.send.count(&mut self.totals);
        stream.recv.settle(&mut self.receive_budget);
        let is_over =
            stream.send.is_over() && stream.recv.is_over() && stream.events == 0 && stream.announced;
        if is_over {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.control.forget(&stream);
        self.borrowers.remove(&id);
        if id.opener() == self.role {
            self.own_open -= 1;
            self.announce_opening();
        } else {
            let index = id.index();
            self.peer_over.insert(index..index + 1);
            self.grant_streams();
        }
    }

    /// Lets the peer open more streams, in batches.
    fn grant_streams(&mut self) {
        let max = self.peer_over.covered_bytes() + self.peer_max;
        if max.saturating_sub(self.peer_granted) >= (self.peer_max / 8).max(1) {
            self.peer_granted = max;
            self.control.queue_max_streams();
        }
    }
}

impl Stream {
    fn settle_send(&mut self, id: StreamId, queues: &mut ReadyQueues, budget: &mut Budget) {
        self.send.settle(id, self.class, self.priority, queues, budget);
    }
}
