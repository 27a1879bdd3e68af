//! A link in memory, with faults on demand: lets programs be tested under a cut cable without one.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use bondwire::link::{PacketBatch, PacketLink, PacketReader, PacketWriter, memory};
//! let (a, b) = memory::pair(1500, 64 * 1024);
//! let faults = a.faults();
//! let (mut writer, mut reader) = (a.split().1, b.split().0);
//!
//! let mut batch = PacketBatch::new(0);
//! batch.push(b"lost");
//! batch.push(b"kept");
//! faults.lose_next(1);
//! writer.send(&mut batch).await?;
//!
//! let mut packets = Vec::new();
//! reader.receive(&mut packets).await?;
//! assert_eq!(packets, [b"kept"[..].to_vec()]);
//! # std::io::Result::Ok(()) }).unwrap();
//! ```

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::BytesMut;

use super::{LinkDescription, PacketBatch, PacketLink, PacketReader, PacketWriter};

/// Two ends of a link. Each direction holds packets of at most `mtu_bytes`, and about `capacity_bytes` of them
/// before a sender waits.
pub fn pair(mtu_bytes: usize, capacity_bytes: usize) -> (MemoryLink, MemoryLink) {
    let (there, back) = (Pipe::new(mtu_bytes, capacity_bytes), Pipe::new(mtu_bytes, capacity_bytes));
    (
        MemoryLink { outgoing: there.clone(), incoming: back.clone(), name: "memory a".into() },
        MemoryLink { outgoing: back, incoming: there, name: "memory b".into() },
    )
}

/// One end of a link in memory; [`pair`] makes two.
#[derive(Debug)]
pub struct MemoryLink {
    outgoing: Arc<Pipe>,
    incoming: Arc<Pipe>,
    name: String,
}

impl MemoryLink {
    /// The same link under another name in messages and events.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// A handle on the faults of this link, usable while the link is in use.
    pub fn faults(&self) -> Faults {
        Faults { outgoing: self.outgoing.clone(), incoming: self.incoming.clone() }
    }
}

impl PacketLink for MemoryLink {
    type Reader = MemoryReader;
    type Writer = MemoryWriter;

    fn describe(&self) -> LinkDescription {
        LinkDescription::new("memory", self.name.clone(), self.outgoing.mtu_bytes)
    }

    fn split(self) -> (MemoryReader, MemoryWriter) {
        (MemoryReader(self.incoming), MemoryWriter(self.outgoing))
    }
}

/// Faults of a link in memory, set from outside while it is in use.
///
/// "Outgoing" is what the end sends whose [`MemoryLink::faults`] this came from.
#[derive(Clone, Debug)]
pub struct Faults {
    outgoing: Arc<Pipe>,
    incoming: Arc<Pipe>,
}

impl Faults {
    /// Loses the next `count` outgoing packets without a trace.
    pub fn lose_next(&self, count: u32) {
        self.lose_after(0, count);
    }

    /// Lets `passed` outgoing packets through, and loses the `count` packets after these.
    pub fn lose_after(&self, passed: u32, count: u32) {
        let mut state = self.outgoing.lock();
        (state.pass, state.lose) = (passed, count);
    }

    /// Flips one bit in each of the next `count` outgoing packets. A bond must drop them.
    pub fn damage_next(&self, count: u32) {
        self.outgoing.lock().damage = count;
    }

    /// Stalls (or lets go on) what this end sends: it is queued, then the sender waits; nobody is told.
    pub fn stall_outgoing(&self, stalled: bool) {
        self.outgoing.update(|state| state.stalled = stalled);
    }

    /// Stalls (or lets go on) both directions.
    pub fn stall(&self, stalled: bool) {
        self.stall_outgoing(stalled);
        self.incoming.update(|state| state.stalled = stalled);
    }

    /// Swallows (or stops swallowing) every packet of both directions: a link that looks alive and is not.
    pub fn black_hole(&self, swallow: bool) {
        let lose = if swallow { u32::MAX } else { 0 };
        self.outgoing.lock().lose = lose;
        self.incoming.lock().lose = lose;
    }

    /// Pulls the cable: both ends see the end of the link at once, and what was under way is lost.
    pub fn cut(&self) {
        for pipe in [&self.outgoing, &self.incoming] {
            pipe.update(|state| {
                state.queue.clear();
                state.queued_bytes = 0;
                state.ended = true;
            });
        }
    }
}

/// One direction.
#[derive(Debug)]
struct Pipe {
    mtu_bytes: usize,
    capacity_bytes: usize,
    state: Mutex<PipeState>,
}

#[derive(Debug, Default)]
struct PipeState {
    queue: VecDeque<BytesMut>,
    queued_bytes: usize,
    /// No packet will be added, or none taken any more.
    ended: bool,
    stalled: bool,
    /// Packets to let through before any is lost.
    pass: u32,
    lose: u32,
    damage: u32,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn new(mtu_bytes: usize, capacity_bytes: usize) -> Arc<Self> {
        Arc::new(Self { mtu_bytes, capacity_bytes, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes both ends.
    fn update(&self, change: impl FnOnce(&mut PipeState)) {
        let mut state = self.lock();
        change(&mut state);
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Waits until a packet fits.
    async fn room(&self) -> io::Result<()> {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.ended {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::BrokenPipe,
                    "the memory link was cut",
                )));
            }
            if state.queued_bytes < self.capacity_bytes {
                return Poll::Ready(Ok(()));
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn put(&self, packet: &[u8]) {
        self.update(|state| {
            if state.pass > 0 {
                state.pass -= 1;
            } else if state.lose > 0 {
                // `u32::MAX` stands for "all, until told otherwise".
                state.lose -= u32::from(state.lose != u32::MAX);
                return;
            }
            let mut copy = BytesMut::from(packet);
            if state.damage > 0 {
                state.damage -= 1;
                let middle = copy.len() / 2;
                copy[middle] ^= 0x10;
            }
            state.queued_bytes += copy.len();
            state.queue.push_back(copy);
        });
    }
}

/// The receiving half of a [`MemoryLink`].
#[derive(Debug)]
pub struct MemoryReader(Arc<Pipe>);

impl PacketReader for MemoryReader {
    async fn receive(&mut self, out: &mut Vec<BytesMut>) -> io::Result<()> {
        poll_fn(|cx| {
            let mut state = self.0.lock();
            if !state.stalled && !state.queue.is_empty() {
                state.queued_bytes = 0;
                out.extend(state.queue.drain(..));
                let writer = state.writer.take();
                drop(state);
                writer.into_iter().for_each(Waker::wake);
                return Poll::Ready(Ok(()));
            }
            if state.ended && state.queue.is_empty() {
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the other end closed the link");
                return Poll::Ready(Err(error));
            }
            state.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        self.0.update(|state| {
            state.ended = true;
            state.queue.clear();
        });
    }
}

/// The sending half of a [`MemoryLink`].
#[derive(Debug)]
pub struct MemoryWriter(Arc<Pipe>);

impl PacketWriter for MemoryWriter {
    async fn ready(&mut self) -> io::Result<()> {
        self.0.room().await
    }

    async fn send(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        for packet in batch.packets() {
            if packet.is_empty() || packet.len() > self.0.mtu_bytes {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a packet is empty or above the link's MTU",
                ));
            }
            self.0.room().await?;
            self.0.put(packet);
        }
        Ok(())
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.0.update(|state| state.ended = true);
        Ok(())
    }
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        self.0.update(|state| state.ended = true);
    }
}
