//! What the driver of a link and its two halves share.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bondwire_frame::transfer::{self, Writer};
use bondwire_frame::{Counters, End, Instant, Received, SendError, Session};
use bytes::BytesMut;

use crate::limits::COPY_BYTES;
use crate::speed::mtu_bytes;
use crate::transfers::Outlet;

/// Longest transfer to a peer whose read size is not known yet: HELLO fits.
const UNKNOWN_READ_BYTES: usize = bondwire_frame::limits::HELLO_MAX_BYTES;

/// Of a device that has an interface like ours and no program that answers.
const NOTHING_SAID: &str = "the device says nothing: Bondwire does not run on it, or hangs; start it there (`bondwire listen gadget:`)";

/// The halves' view of a link, whatever it sends through.
pub(super) trait Sending: Send + Sync + fmt::Debug {
    /// Waits for the session; answers the longest packet.
    fn poll_established(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>>;
    /// Waits for packets and takes at most `packets_max` of them.
    fn poll_packets(
        &self,
        cx: &mut Context<'_>,
        out: &mut Vec<BytesMut>,
        packets_max: usize,
    ) -> Poll<io::Result<()>>;
    /// Waits until a packet of `packet_bytes` can be sent without queueing for long.
    fn poll_ready(&self, cx: &mut Context<'_>, packet_bytes: usize) -> Poll<io::Result<()>>;
    /// Sends as many of the packets as there is room for, and answers how many. If not all, the waker hears when there is
    /// more room.
    fn send(&self, cx: &mut Context<'_>, packets: &[&[u8]]) -> io::Result<usize>;
    /// Ends the link as soon as what was sent has left.
    fn close(&self);
    /// Waits until the link is over and its endpoints are free.
    fn poll_done(&self, cx: &mut Context<'_>) -> Poll<()>;
    fn counters(&self) -> Counters;
}

pub(super) struct Shared<O> {
    state: Mutex<State<O>>,
    origin: tokio::time::Instant,
}

pub(super) struct State<O> {
    pub(super) session: Session,
    /// Gone when the link is over.
    pub(super) outlet: Option<O>,
    pub(super) incoming: VecDeque<BytesMut>,
    /// Where the next packet is copied to.
    copies: BytesMut,
    /// Why the medium failed.
    fault: Option<(io::ErrorKind, String)>,
    pub(super) driver: Option<Waker>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Nobody has heard yet that the session is established.
    is_opening: bool,
    /// Bytes that came before it was.
    heard_bytes: u64,
}

impl<O: Outlet> Shared<O> {
    pub(super) fn new(open: impl FnOnce(Instant) -> io::Result<Session>, outlet: O) -> io::Result<Self> {
        let state = State {
            session: open(Instant::ZERO)?,
            outlet: Some(outlet),
            incoming: VecDeque::new(),
            copies: BytesMut::new(),
            fault: None,
            driver: None,
            reader: None,
            writer: None,
            is_opening: true,
            heard_bytes: 0,
        };
        Ok(Self { state: Mutex::new(state), origin: tokio::time::Instant::now() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// When `instant` is by tokio's clock.
    pub(super) fn clock_time(&self, instant: Instant) -> tokio::time::Instant {
        self.origin + std::time::Duration::from_micros(instant.as_micros())
    }
}

impl<O: Outlet> State<O> {
    /// The medium failed: nothing more can be sent or received.
    pub(super) fn fail(&mut self, error: &io::Error) {
        self.fault.get_or_insert_with(|| (error.kind(), error.to_string()));
        self.session.close();
    }

    pub(super) fn has_failed(&self) -> bool {
        self.fault.is_some()
    }

    /// Why the link is over, if it is.
    pub(super) fn end(&self) -> Option<io::Error> {
        if let Some((kind, text)) = &self.fault {
            return Some(io::Error::new(*kind, text.clone()));
        }
        let end = self.session.end()?;
        let kind = match end {
            End::Closed | End::ClosedByPeer(_) => io::ErrorKind::UnexpectedEof,
            End::NoAnswer | End::NotHeard | End::Silent => io::ErrorKind::TimedOut,
            End::PeerReopened => io::ErrorKind::ConnectionReset,
            _ => io::ErrorKind::InvalidData,
        };
        Some(match (end, self.heard_bytes) {
            (End::NoAnswer, 0) => io::Error::new(kind, NOTHING_SAID),
            (End::NoAnswer, bytes) => io::Error::new(
                kind,
                format!(
                    "the device does not speak Bondwire ({bytes} bytes came that make no sense): run Bondwire on it, or leave \
                 it out by naming the devices that are meant"
                ),
            ),
            (end, _) => io::Error::new(kind, end),
        })
    }

    /// Longest packet of the link, once established: it must fit one transfer, too.
    fn mtu_bytes(&self) -> Option<usize> {
        Some(self.session.mtu_bytes()?.min(mtu_bytes(self.session.peer_read_bytes()?)))
    }

    /// One transfer came.
    pub(super) fn handle_transfer(&mut self, now: Instant, bytes: &[u8]) {
        if !self.session.is_established() {
            self.heard_bytes += bytes.len() as u64;
        }
        for frame in transfer::frames(bytes) {
            // Lengths that do not add up: the rest of another session's transfer, or damage. What follows is lost, and
            // counted as one frame without a checksum.
            let frame = frame.unwrap_or_default();
            match self.session.handle_frame(now, frame) {
                Ok(Received::Packet(packet)) => {
                    if self.copies.capacity() < packet.len() {
                        self.copies.reserve(packet.len().max(COPY_BYTES));
                    }
                    self.copies.extend_from_slice(packet);
                    self.incoming.push_back(self.copies.split());
                }
                // On USB there are no messages of the medium; a later version may have some.
                Ok(Received::Established | Received::Message(_) | Received::Nothing) => {}
                Err(_) => return,
            }
        }
    }

    /// Puts what the session has to say, and then packets, into transfers, as long as there is room. Answers the number of
    /// packets sent.
    pub(super) fn transmit(&mut self, now: Instant, packets: &[&[u8]]) -> Result<usize, SendError> {
        let Some(outlet) = &mut self.outlet else { return Ok(0) };
        let was_idle = outlet.in_flight() == 0;
        let (mut sent, mut refused) = (0, None);
        while refused.is_none() {
            let packet_bytes = outlet.packet_bytes();
            let Some(buffer) = outlet.buffer() else { break };
            let read_bytes = self.session.peer_read_bytes().unwrap_or(UNKNOWN_READ_BYTES);
            let mut writer = Writer::new(buffer, read_bytes, packet_bytes);
            while self.session.poll_control(now, &mut writer) == Ok(true) {}
            while let Some(packet) = packets.get(sent) {
                match self.session.send_packet(packet, &mut writer) {
                    Ok(()) => sent += 1,
                    Err(SendError::NoRoom(_)) if !writer.is_empty() => break,
                    Err(e) => {
                        refused = Some(e);
                        break;
                    }
                }
            }
            let len = writer.finish();
            if len == 0 {
                break;
            }
            if let Err(e) = outlet.submit(len) {
                self.fail(&e);
                return Err(SendError::NotEstablished);
            }
        }
        if was_idle && self.outlet.as_ref().is_some_and(|outlet| outlet.in_flight() > 0) {
            // Only now there is something whose end the driver can wait for.
            wake(&mut self.driver);
        }
        match refused {
            None | Some(SendError::NoCredit) => Ok(sent),
            Some(e) => Err(e),
        }
    }

    /// Whether a packet can be sent without queueing for long.
    fn is_ready(&mut self, packet_bytes: usize) -> bool {
        self.has_room() && self.session.can_send(packet_bytes)
    }

    /// Wakes the halves that have something to do now.
    pub(super) fn wake_halves(&mut self) {
        let is_over = self.session.end().is_some();
        if is_over || !self.incoming.is_empty() || self.is_opening {
            self.is_opening &= !self.session.is_established();
            wake(&mut self.reader);
        }
        if is_over || self.has_room() {
            wake(&mut self.writer);
        }
    }

    /// Whether less than half of the transfers are under way.
    fn has_room(&self) -> bool {
        self.outlet.as_ref().is_some_and(|outlet| outlet.in_flight() * 2 <= outlet.depth())
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn keep(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

impl<O: Outlet> Sending for Shared<O> {
    fn poll_established(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        if let Some(end) = state.end() {
            return Poll::Ready(Err(end));
        }
        if let Some(mtu_bytes) = state.mtu_bytes() {
            return Poll::Ready(Ok(mtu_bytes));
        }
        keep(&mut state.reader, cx);
        Poll::Pending
    }

    fn poll_packets(
        &self,
        cx: &mut Context<'_>,
        out: &mut Vec<BytesMut>,
        packets_max: usize,
    ) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        if state.incoming.is_empty() {
            if let Some(end) = state.end() {
                return Poll::Ready(Err(end));
            }
            keep(&mut state.reader, cx);
            return Poll::Pending;
        }
        let count = state.incoming.len().min(packets_max);
        for _ in 0..count {
            let Some(packet) = state.incoming.pop_front() else { break };
            state.session.release(packet.len());
            out.push(packet);
        }
        // The sender may be waiting for this room. If no transfer is free now, the driver tells it later.
        let _ = state.transmit(self.now(), &[]);
        Poll::Ready(Ok(()))
    }

    fn poll_ready(&self, cx: &mut Context<'_>, packet_bytes: usize) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        if let Some(end) = state.end() {
            return Poll::Ready(Err(end));
        }
        if state.is_ready(packet_bytes) {
            return Poll::Ready(Ok(()));
        }
        keep(&mut state.writer, cx);
        Poll::Pending
    }

    fn send(&self, cx: &mut Context<'_>, packets: &[&[u8]]) -> io::Result<usize> {
        let mut state = self.lock();
        if let Some(end) = state.end() {
            return Err(end);
        }
        let sent = state.transmit(self.now(), packets).map_err(|e| match state.end() {
            Some(end) => end,
            None => io::Error::new(io::ErrorKind::InvalidInput, e),
        })?;
        if sent < packets.len() {
            keep(&mut state.writer, cx);
        }
        Ok(sent)
    }

    fn close(&self) {
        let mut state = self.lock();
        state.session.close();
        wake(&mut state.driver);
        state.wake_halves();
    }

    fn poll_done(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.outlet.is_none() {
            return Poll::Ready(());
        }
        keep(&mut state.writer, cx);
        Poll::Pending
    }

    fn counters(&self) -> Counters {
        *self.lock().session.counters()
    }
}

impl<O> fmt::Debug for Shared<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
