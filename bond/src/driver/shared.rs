use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bondwire_core::config::Config;
use bondwire_core::connection::Connection;
use bondwire_core::error::CloseReason;
use bondwire_core::event::{Event, LinkState, StreamEvent};
use bondwire_core::id::{LinkId, PublicKey, Role};
use bondwire_core::time::Instant;
use tokio::sync::broadcast;

use super::attach::LinkControl;
use super::wakes::{Signals, StreamWaiters, Wakes};
use crate::events::BondEvent;
use crate::limits::{CLOSE_LINGER, EVENT_QUEUE_MAX};
use crate::pool::{COPY_BUFFERS, CopyPool};

/// The monotonic clock, as the engine counts it. It stands still where the runtime's does (`tokio::time::pause`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: tokio::time::Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }

    pub(crate) fn now(&self) -> Instant {
        let nanos = self.origin.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Sleeps until `deadline`, for ever if there is none. Cancel safe.
    pub(crate) async fn sleep_until(&self, deadline: Option<Instant>) {
        match deadline.and_then(|at| self.origin.checked_add(at - Instant::ZERO)) {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// A bond, as all its tasks and handles see it.
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) signals: Signals,
    pub(crate) clock: Clock,
    pub(crate) role: Role,
    peer: OnceLock<PublicKey>,
    /// For copies of what applications write.
    pub(crate) copies: CopyPool,
    /// Packets that were dropped because they did not open.
    dropped_packets: AtomicU64,
}

/// What the lock guards.
pub(crate) struct State {
    pub(crate) connection: Connection,
    /// Whether the first attachment has given the engine its keys.
    pub(crate) established: bool,
    pub(crate) links: BTreeMap<LinkId, Arc<LinkControl>>,
    pub(crate) waiters: StreamWaiters,
    /// `None` once the bond has ended: nothing happens to it any more.
    events: Option<broadcast::Sender<BondEvent>>,
    /// When the timer task will wake up by itself.
    armed: Option<Instant>,
    closing: Option<Closing>,
}

/// A close that lets what was written be delivered first.
struct Closing {
    code: u64,
    reason: String,
    deadline: Instant,
}

impl Shared {
    pub(crate) fn new(clock: Clock, role: Role, peer: Option<PublicKey>, config: Config) -> Arc<Self> {
        let state = State {
            connection: Connection::new(clock.now(), role, config),
            established: false,
            links: BTreeMap::new(),
            waiters: StreamWaiters::default(),
            events: Some(broadcast::Sender::new(EVENT_QUEUE_MAX)),
            armed: None,
            closing: None,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            signals: Signals::default(),
            clock,
            role,
            peer: peer.map(OnceLock::from).unwrap_or_default(),
            copies: CopyPool::new(&COPY_BUFFERS),
            dropped_packets: AtomicU64::new(0),
        })
    }

    /// Runs `change` on the engine, hears what that led to, and wakes whom it concerns after the lock is released.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut wakes = Wakes::default();
        let mut state = self.lock();
        let now = self.clock.now();
        let result = change(&mut state, now);
        state.settle(now, &mut wakes);
        drop(state);
        wakes.fire(&self.signals);
        result
    }

    /// Looks at the state without changing it.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in the engine would be a bug; the handles of this bond still see a consistent enough state to end.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The other end's key, once that is known.
    pub(crate) fn peer(&self) -> Option<PublicKey> {
        self.peer.get().copied()
    }

    pub(crate) fn set_peer(&self, peer: PublicKey) {
        // It was known, or it is now.
        let _ = self.peer.set(peer);
    }

    pub(crate) fn count_dropped_packet(&self) {
        self.dropped_packets.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn dropped_packets(&self) -> u64 {
        self.dropped_packets.load(Ordering::Relaxed)
    }

    /// Events from now on; of a bond that has ended its end, so that nobody waits for it in vain.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<BondEvent> {
        let state = self.lock();
        if let Some(events) = &state.events {
            return events.subscribe();
        }
        let (sender, receiver) = broadcast::channel(1);
        // The receiver is there.
        let _ = state.closed_reason().map(|reason| sender.send(BondEvent::Closed(reason)));
        receiver
    }

    /// Waits until `ready` has an answer, looking again whenever a link or the bond changed its state. Cancel safe.
    pub(crate) async fn wait_until<T>(&self, mut ready: impl FnMut(&State) -> Option<T>) -> T {
        loop {
            let mut heard = std::pin::pin!(self.signals.changed.notified());
            heard.as_mut().enable();
            if let Some(answer) = self.look(&mut ready) {
                return answer;
            }
            heard.await;
        }
    }
}

impl State {
    /// Drains what the engine has to say after a change.
    fn settle(&mut self, now: Instant, wakes: &mut Wakes) {
        self.waiters.take_retired(wakes);
        self.close_when_delivered(now);
        while let Some(event) = self.connection.poll_event() {
            self.hear(event, wakes);
        }
        while let Some(id) = self.connection.poll_wake(now) {
            wakes.links.extend(self.links.get(&id).cloned());
        }
        let next = self.next_deadline();
        if next.is_some_and(|next| self.armed.is_none_or(|armed| next < armed)) {
            self.armed = next;
            wakes.timer = true;
        }
        if self.connection.is_closed() {
            wakes.timer = true;
            wakes.ended = true;
        }
    }

    fn hear(&mut self, event: Event, wakes: &mut Wakes) {
        match event {
            Event::Stream(event) => self.hear_stream(event, wakes),
            Event::DatagramReadable => wakes.datagram = true,
            Event::OrderedReadable => wakes.ordered = true,
            Event::Link { id, name, from, to, why } => {
                tracing::debug!(target: "bondwire", "link {id} {name}: {to} ({why})");
                if let Some(control) = self.links.get(&id) {
                    control.changed(to, &why);
                    wakes.links.push(control.clone());
                }
                if to == LinkState::Closed {
                    self.links.remove(&id);
                }
                wakes.changed = true;
                // Nobody listening is no fault.
                let _ = self
                    .events
                    .as_ref()
                    .map(|events| events.send(BondEvent::Link { id, name, from, to, why }));
            }
            Event::Closed(reason) => {
                tracing::debug!(target: "bondwire", "bond {reason}");
                self.waiters.all(wakes);
                wakes.ended = true;
                let _ = self.events.take().map(|events| events.send(BondEvent::Closed(reason)));
            }
            _ => {}
        }
    }

    fn hear_stream(&mut self, event: StreamEvent, wakes: &mut Wakes) {
        match event {
            StreamEvent::Opened => wakes.acceptable = true,
            StreamEvent::OpenPossible => wakes.openable = true,
            StreamEvent::Readable(id) | StreamEvent::ResetByPeer { id, .. } => {
                self.waiters.readable(id, wakes);
            }
            StreamEvent::Writable(id) | StreamEvent::Stopped { id, .. } => self.waiters.writable(id, wakes),
            _ => {}
        }
    }

    /// Begins to close: at once if `linger` is false, else as soon as the peer has all that was written.
    pub(crate) fn close(&mut self, now: Instant, code: u64, reason: &str, linger: bool) {
        if self.connection.close_reason().is_some() {
            return;
        }
        if linger {
            let deadline = now + CLOSE_LINGER;
            self.closing.get_or_insert_with(|| Closing { code, reason: reason.to_owned(), deadline });
        } else {
            self.closing = None;
            self.connection.close(now, code, reason);
        }
    }

    fn close_when_delivered(&mut self, now: Instant) {
        // Before the first link there is nobody to wait for.
        let due = self.closing.take_if(|closing| {
            !self.established || closing.deadline <= now || self.connection.is_all_acknowledged()
        });
        if let Some(Closing { code, reason, .. }) = due {
            self.connection.close(now, code, &reason);
        }
    }

    /// Handles what is due at `now`, and answers when to come back.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.connection.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.connection.handle_timeout(now);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let engine = self.connection.poll_timeout().map(|(at, _)| at);
        let closing = self.closing.as_ref().map(|closing| closing.deadline);
        engine.into_iter().chain(closing).min()
    }

    /// The deadline for the timer task to sleep until; from now on it is woken only for an earlier one.
    pub(crate) fn arm(&mut self) -> Option<Instant> {
        self.armed = self.next_deadline();
        self.armed
    }

    pub(crate) fn closed_reason(&self) -> Option<CloseReason> {
        self.connection.close_reason().cloned()
    }
}
