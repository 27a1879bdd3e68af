//! The task that owns a port, and what it shares with the two halves of the link.

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bondwire_frame::{End, Instant, Role, SendError};
use bytes::BytesMut;
use tokio::sync::{Notify, watch};
use tokio::time::sleep_until;

use crate::SerialAddress;
use crate::endpoint::{Endpoint, LineCounters, Setup};
use crate::limits::{CLIMB_TIMEOUT, LINGER};
use crate::port::Port;

/// Bytes read at once: what a driver hands over at most.
const READ_BYTES: usize = 4096;

/// Keeps a port in use: when the last one is dropped the other end is told, and the port is closed.
#[derive(Debug)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
}

/// What the task and the halves of a link share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    origin: tokio::time::Instant,
    /// For the task: there is something to do.
    work: Notify,
    /// For the reader: packets, or the end.
    packets: Notify,
    /// For the writer: room, or the end.
    room: Notify,
    /// For who opens the link: it goes forward, or has ended.
    progress: Notify,
    /// The port is closed.
    released: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    endpoint: Endpoint,
    /// Why the link is over.
    fault: Option<Fault>,
    is_closing: bool,
    is_room_wanted: bool,
    established_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Fault {
    kind: io::ErrorKind,
    text: String,
}

impl Fault {
    fn new(kind: io::ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    fn of(end: End, endpoint: &Endpoint) -> Self {
        let kind = match end {
            End::Closed | End::ClosedByPeer(_) | End::PeerReopened => io::ErrorKind::UnexpectedEof,
            End::Silent | End::NoAnswer | End::NotHeard | End::HelloForEver => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::InvalidData,
        };
        let text = match end {
            End::NoAnswer => format!("no Bondwire at the other end: {}", endpoint.heard()),
            _ => end.to_string(),
        };
        Self { kind, text }
    }

    fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.text.clone())
    }
}

impl Handle {
    /// Puts a port to work.
    pub(crate) fn start(port: impl Port, address: &SerialAddress, role: Role, paced: bool) -> Self {
        let setup =
            Setup { role, start: address.start_baud(), max: address.max_baud(), paced, nonce: random() };
        let state = State {
            endpoint: Endpoint::new(Instant::ZERO, setup),
            fault: None,
            is_closing: false,
            is_room_wanted: false,
            established_at: None,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            origin: tokio::time::Instant::now(),
            work: Notify::new(),
            packets: Notify::new(),
            room: Notify::new(),
            progress: Notify::new(),
            released: watch::Sender::new(false),
        });
        tokio::spawn(drive(port, Arc::clone(&shared)));
        Self { shared }
    }

    /// Fires when the port is closed.
    pub(crate) fn released(&self) -> watch::Receiver<bool> {
        self.shared.released.subscribe()
    }

    /// Waits until packets can travel at the rate that the ends have climbed to. Cancel safe.
    pub(crate) async fn ready(&self) -> io::Result<()> {
        loop {
            let wait = {
                let state = self.shared.lock();
                if let Some(fault) = &state.fault {
                    return Err(fault.error());
                }
                let settled = state.endpoint.is_settled() || state.endpoint.has_packets();
                let until = state.established_at.map(|at| at + CLIMB_TIMEOUT);
                match until {
                    Some(until) if settled || until <= self.shared.now() => return Ok(()),
                    until => until,
                }
            };
            tokio::select! {
                () = self.shared.progress.notified() => {}
                () = self.shared.sleep_until(wait) => {}
            }
        }
    }

    /// Rate of the port, and the agreed MTU, once ready.
    pub(crate) fn rate_and_mtu(&self) -> (u32, usize) {
        let state = self.shared.lock();
        (
            state.endpoint.rate(),
            state.endpoint.mtu_bytes().unwrap_or(usize::from(bondwire_frame::limits::MTU_MIN_BYTES)),
        )
    }

    pub(crate) fn line_counters(&self) -> LineCounters {
        self.shared.lock().endpoint.counters()
    }

    /// Appends packets that came, at least one; just one if `single`. Cancel safe.
    pub(crate) async fn receive(&self, out: &mut Vec<BytesMut>, single: bool) -> io::Result<()> {
        loop {
            if self.shared.take_packets(out, single)? {
                return Ok(());
            }
            self.shared.packets.notified().await;
        }
    }

    /// Waits until a packet can be sent. Cancel safe.
    pub(crate) async fn room(&self) -> io::Result<()> {
        while !self.shared.has_room()? {
            self.shared.room.notified().await;
        }
        Ok(())
    }

    /// Sends a packet once there is room.
    pub(crate) async fn send(&self, packet: &[u8]) -> io::Result<()> {
        loop {
            self.room().await?;
            let sent = {
                let now = self.shared.now();
                self.shared.lock().endpoint.send_packet(now, packet)
            };
            match sent {
                Ok(()) => {
                    self.shared.work.notify_one();
                    return Ok(());
                }
                Err(error @ SendError::BadLength) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
                }
                // It has just ended, or the room is gone again: `room` will tell.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    /// Ends the link.
    pub(crate) fn close(&self) {
        self.shared.lock().is_closing = true;
        self.shared.work.notify_one();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn rate(&self) -> u32 {
        self.lock().endpoint.rate()
    }

    async fn sleep_until(&self, at: Option<Instant>) {
        match at.and_then(|at| self.origin.checked_add(Duration::from_micros(at.as_micros()))) {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn take_packets(&self, out: &mut Vec<BytesMut>, single: bool) -> io::Result<bool> {
        let mut state = self.lock();
        let before = out.len();
        while let Some(packet) = state.endpoint.take_packet() {
            out.push(packet);
            if single {
                break;
            }
        }
        if out.len() == before {
            return state.fault.as_ref().map_or(Ok(false), |fault| Err(fault.error()));
        }
        drop(state);
        // The other end has credit again.
        self.work.notify_one();
        Ok(true)
    }

    fn has_room(&self) -> io::Result<bool> {
        let mut state = self.lock();
        if let Some(fault) = &state.fault {
            let kind = if fault.kind == io::ErrorKind::UnexpectedEof {
                io::ErrorKind::BrokenPipe
            } else {
                fault.kind
            };
            return Err(io::Error::new(kind, fault.text.clone()));
        }
        let now = self.now();
        let has_room = state.endpoint.room_at().is_some_and(|at| at <= now);
        state.is_room_wanted = !has_room;
        drop(state);
        if !has_room {
            self.work.notify_one();
        }
        Ok(has_room)
    }

    /// Does what is due, and says what the task is to wait for.
    fn step(&self, port: &mut impl Port, out: &mut Vec<u8>) -> Step {
        let now = self.now();
        let mut state = self.lock();
        let State { endpoint, fault, is_closing, is_room_wanted, established_at } = &mut *state;
        if *is_closing {
            endpoint.close(now);
        }
        endpoint.handle_timeout(now);
        if let Some(rate) = endpoint.poll_rate(now, port.queued_bytes()) {
            let outcome = port.set_baud(rate);
            tracing::debug!(target: "bondwire", "serial: {rate} baud {}", if outcome.is_ok() { "set" } else { "refused" });
            endpoint.rate_changed(now, outcome.is_ok());
        }
        if endpoint.is_established() && established_at.is_none() {
            *established_at = Some(now);
        }
        if let Some(end) = endpoint.end() {
            fault.get_or_insert_with(|| Fault::of(end, endpoint));
        }
        out.clear();
        out.extend_from_slice(endpoint.outgoing());
        let mut wake_at = endpoint.poll_timeout(now);
        let room_at = endpoint.room_at();
        if *is_room_wanted {
            wake_at = [wake_at, room_at.filter(|at| *at > now)].into_iter().flatten().min();
        }
        let is_over = fault.is_some();
        let is_drained = endpoint.is_drained(now);
        let has_packets = endpoint.has_packets();
        drop(state);
        self.progress.notify_one();
        if has_packets || is_over {
            self.packets.notify_one();
        }
        if is_over || room_at.is_some_and(|at| at <= now) {
            self.room.notify_one();
        }
        Step { wake_at, is_over, is_drained }
    }

    fn written(&self, bytes: usize) {
        let now = self.now();
        self.lock().endpoint.written(now, bytes);
    }

    fn received(&self, bytes: &[u8]) {
        let now = self.now();
        self.lock().endpoint.handle_bytes(now, bytes);
    }

    fn gone(&self, error: Option<&io::Error>) {
        let text = match error {
            Some(error) => format!("the port is gone ({error})"),
            None => "the port is gone: unplugged, or hung up".to_owned(),
        };
        self.lock().fault.get_or_insert(Fault::new(io::ErrorKind::UnexpectedEof, text));
        self.packets.notify_one();
        self.room.notify_one();
        self.progress.notify_one();
    }
}

/// What comes next for the task.
struct Step {
    wake_at: Option<Instant>,
    is_over: bool,
    is_drained: bool,
}

/// What a port did.
enum Event {
    Written(io::Result<usize>),
    Read(io::Result<usize>),
}

/// Carries bytes between port and endpoint until the link is over.
async fn drive(mut port: impl Port, shared: Arc<Shared>) {
    let mut buffer = vec![0; READ_BYTES];
    let mut out = Vec::new();
    let mut lingers_until = None;
    loop {
        let step = shared.step(&mut port, &mut out);
        let mut wake_at = step.wake_at;
        if step.is_over {
            let until = *lingers_until.get_or_insert(shared.now() + LINGER);
            if shared.now() >= until || (out.is_empty() && step.is_drained && port.queued_bytes() == 0) {
                break;
            }
            wake_at = Some(shared.now() + Duration::from_millis(2));
        }
        let event = std::future::poll_fn(|cx| {
            if !out.is_empty()
                && let Poll::Ready(result) = port.poll_write(cx, &out)
            {
                return Poll::Ready(Event::Written(result));
            }
            port.poll_read(cx, &mut buffer).map(Event::Read)
        });
        let event = tokio::select! {
            biased;
            event = event => event,
            () = shared.work.notified() => continue,
            () = shared.sleep_until(wake_at) => continue,
        };
        match event {
            Event::Written(Ok(bytes)) => shared.written(bytes),
            Event::Read(Ok(bytes)) if bytes > 0 => shared.received(&buffer[..bytes]),
            // Zero bytes, again and again, are how a terminal says that it is gone.
            Event::Read(Ok(_)) => {
                shared.gone(None);
                break;
            }
            Event::Written(Err(error)) | Event::Read(Err(error)) => {
                shared.gone(Some(&error));
                break;
            }
        }
        tokio::task::consume_budget().await;
    }
    port.discard_output();
    drop(port);
    tracing::debug!(target: "bondwire", "serial: closed at {} baud: {}", shared.rate(), shared.lock().endpoint.counters());
    shared.released.send_replace(true);
}

/// A number that no other opening of a port has. It need not be secret.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
