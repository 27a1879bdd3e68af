//! What a link is to a bond, and what one has to provide.
//!
//! A link **carries whole packets up to its MTU, in order, each intact or absent; it may lose, stall or vanish at
//! any time**. That sentence is the whole interface between a medium and a bond. Order matters: a bond takes a gap
//! in the packet numbers of a link for loss and sends again at once.
//!
//! Three ways to get one:
//! - [`StreamLink`] makes a link of anything that is `AsyncRead + AsyncWrite`.
//! - [`memory::pair`] makes two ends of a link in memory, with fault hooks, for tests.
//! - Implement [`PacketLink`], [`PacketReader`] and [`PacketWriter`], and let the kit in `bondwire::conformance`
//!   (feature `conformance`) check them.

use std::future::Future;
use std::io;
use std::sync::Weak;
use std::time::Duration;

use bytes::BytesMut;

mod batch;
pub mod framing;
pub mod memory;
mod stream;

pub use batch::PacketBatch;
pub use stream::StreamLink;

/// What a link says about itself, once, before it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkDescription {
    /// Its name in messages and events, with the kind first: `tcp 10.0.0.2:7700`.
    pub name: String,
    /// The kind of medium, one word: `tcp`, `usb`, `serial`, `memory`.
    pub kind: &'static str,
    /// Largest packet it carries, in bytes, both ways;
    /// [`MTU_MIN_BYTES`](crate::limits::MTU_MIN_BYTES) to [`MTU_MAX_BYTES`](crate::limits::MTU_MAX_BYTES).
    pub mtu_bytes: usize,
    /// What the medium moves, in bytes per second, if that is known (a baud rate, a USB speed). A start value
    /// for the estimator, not a limit.
    pub rate_hint: Option<u64>,
    /// Whether the medium retransmits by itself (TCP, USB), so that silence means a queue rather than loss.
    pub reliable: bool,
    /// Whether strangers may hold the path: then packets without encryption need
    /// [`BondConfig::plaintext_over_ip`](crate::BondConfig).
    pub over_ip: bool,
}

impl LinkDescription {
    /// A description with nothing known but the three things every link has.
    pub fn new(kind: &'static str, name: impl Into<String>, mtu_bytes: usize) -> Self {
        Self { name: name.into(), kind, mtu_bytes, rate_hint: None, reliable: false, over_ip: false }
    }
}

/// What a medium has seen that a bond does not notice by itself, since the link began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediumCounters {
    /// Frames that arrived damaged, so that their packets are absent: a wrong checksum, or no end where it should be.
    pub damaged_frames: u64,
    /// Times that there was a packet to send, and the other end's buffer had no room for it.
    pub credit_stalls: u64,
}

/// A medium that counts, as those with frames of their own do.
pub trait CountingMedium: Send + Sync + 'static {
    /// The counters as they are now. They are asked for seldom, from any thread.
    fn counters(&self) -> MediumCounters;
}

/// A medium that carries packets, both ways.
pub trait PacketLink: Send + 'static {
    /// Its receiving half.
    type Reader: PacketReader;
    /// Its sending half.
    type Writer: PacketWriter;

    /// Its name, MTU and nature.
    fn describe(&self) -> LinkDescription;

    /// The two halves, which live in tasks of their own. When both are dropped the medium is released, and the
    /// other end of the link sees its end.
    fn split(self) -> (Self::Reader, Self::Writer);
}

/// The sending half of a link.
pub trait PacketWriter: Send + 'static {
    /// Free bytes this link wants in front of each packet of a batch, for a header of its own.
    fn headroom_bytes(&self) -> usize {
        0
    }

    /// Bytes of packets after which a batch is sent, at most [`BATCH_BYTES`](crate::limits::BATCH_BYTES). What is in a batch is
    /// decided upon: a slow medium says little here, and gets its packets one at a time.
    fn batch_bytes(&self) -> usize {
        crate::limits::BATCH_BYTES
    }

    /// Waits until the medium can take a packet without queueing it for long. The bond decides what to send only
    /// after this, so a link that answers too early makes its packets old. Cancel safe.
    fn ready(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends the packets of `batch`, whole and in order. The packets stay the caller's; the link may write into
    /// the headroom. After an error the link is given up. Not cancel safe: a call that is dropped half way may
    /// have sent half a packet, so the bond gives the link up with it.
    fn send(&mut self, batch: &mut PacketBatch) -> impl Future<Output = io::Result<()>> + Send;

    /// What the link carries, in bytes per second, if it is kept full and the bond's search for more has ended; `None` at
    /// other times. Good for a medium that searches by itself and may not notice the end of it; others need not
    /// care. Called before each batch.
    fn rate_found(&mut self, _bytes_per_second: Option<u64>) {}

    /// Tells the other end that nothing follows, where the medium has a way to. Called at most once, last.
    fn shutdown(&mut self) -> impl Future<Output = io::Result<()>> + Send {
        async { Ok(()) }
    }
}

/// The receiving half of a link.
pub trait PacketReader: Send + 'static {
    /// Waits for a packet, then appends it and whatever else has already arrived to `out`. On success at least
    /// one packet was added. Fails with [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) when the other end has
    /// ended the link. Cancel safe: a call that is dropped loses no packet.
    fn receive(&mut self, out: &mut Vec<BytesMut>) -> impl Future<Output = io::Result<()>> + Send;

    /// What the medium counts, where it does. Asked for once; it must not keep the medium in use.
    fn medium(&self) -> Option<Weak<dyn CountingMedium>> {
        None
    }

    /// The handshake is done. Until this call a link should take nothing above
    /// [`HANDSHAKE_MESSAGE_MAX_BYTES`](crate::limits::HANDSHAKE_MESSAGE_MAX_BYTES) and hand out one packet per
    /// call, so that a stranger's length makes it allocate nothing.
    fn authenticated(&mut self) {}
}

/// Makes links to one place, again and again: [`Bond::add_dialer`](crate::Bond::add_dialer) keeps a link up with it.
pub trait Dialer: Send + 'static {
    /// The links it makes.
    type Link: PacketLink;

    /// Where it dials, for messages: `tcp 10.0.0.2:7700`.
    fn name(&self) -> String;

    /// Least time that a dial needs before it can be taken for lost. The bond cuts dials short that are slower than others;
    /// never before this.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// Dials once. It must give up by itself within a time that suits the medium. Called again after a failure
    /// and after the link it made has ended. Cancel safe: a dropped call leaves no link behind.
    fn dial(&mut self) -> impl Future<Output = io::Result<Self::Link>> + Send;

    /// Whether a fresh link does better than one that answers again after a long silence, and can be had beside it. So it
    /// is with TCP: its retransmissions have backed off, and congestion control has forgotten what the path carries.
    fn renews_after_silence(&self) -> bool {
        false
    }

    /// Waits for a sign that dialling is worth another try at once, such as a cable being plugged in: it ends the wait
    /// between two dials. What was so before the last dial is no such sign. Without a medium that knows, it never comes.
    /// Cancel safe.
    fn worth_dialling(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// Takes links that others dial: [`Listener::add_acceptor`](crate::Listener::add_acceptor) serves it.
pub trait Acceptor: Send + 'static {
    /// The links it takes.
    type Link: PacketLink;

    /// Where it listens, for messages: `tcp [::]:7700`.
    fn name(&self) -> String;

    /// Waits for the next link. An error does not end the listener: it waits a moment and calls again, so that
    /// running out of descriptors, for one, costs new links only. Cancel safe.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Link>> + Send;
}
