use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Waker};

use bondwire_core::id::StreamId;
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::attach::LinkControl;

/// Who is to be woken once the lock is released. Tasks woken under it would run into it.
#[derive(Default)]
pub(crate) struct Wakes {
    pub(crate) wakers: SmallVec<[Waker; 8]>,
    /// To be dropped only.
    retired: SmallVec<[Waker; 2]>,
    pub(crate) links: SmallVec<[Arc<LinkControl>; 4]>,
    pub(crate) timer: bool,
    pub(crate) acceptable: bool,
    pub(crate) openable: bool,
    pub(crate) datagram: bool,
    pub(crate) ordered: bool,
    pub(crate) changed: bool,
    /// The bond has ended: all of the above.
    pub(crate) ended: bool,
}

/// What tasks of a bond wait for besides streams and links.
#[derive(Default)]
pub(crate) struct Signals {
    /// For the timer task: the deadline is earlier now, or there is a new command.
    pub(crate) timer: Notify,
    /// A stream of the peer can be accepted.
    pub(crate) acceptable: Notify,
    /// A stream can be opened that could not.
    pub(crate) openable: Notify,
    /// A datagram has arrived.
    pub(crate) datagram: Notify,
    /// An ordered datagram has arrived.
    pub(crate) ordered: Notify,
    /// A link or the bond changed its state.
    pub(crate) changed: Notify,
}

impl Wakes {
    pub(crate) fn fire(self, signals: &Signals) {
        self.wakers.into_iter().for_each(Waker::wake);
        self.links.iter().for_each(|link| link.wake.notify_one());
        if self.timer {
            signals.timer.notify_one();
        }
        let ended = self.ended;
        let waiting = [
            (self.acceptable || ended, &signals.acceptable),
            (self.openable || ended, &signals.openable),
            (self.datagram || ended, &signals.datagram),
            (self.ordered || ended, &signals.ordered),
            (self.changed || ended, &signals.changed),
        ];
        waiting.into_iter().filter(|(due, _)| *due).for_each(|(_, signal)| signal.notify_waiters());
    }
}

/// Tasks that wait for streams: at most one reader and one writer for each.
#[derive(Default)]
pub(crate) struct StreamWaiters {
    readers: HashMap<StreamId, Waker>,
    writers: HashMap<StreamId, Waker>,
    retired: SmallVec<[Waker; 2]>,
}

impl StreamWaiters {
    pub(crate) fn wait_readable(&mut self, id: StreamId, cx: &Context<'_>) {
        let old = wait(&mut self.readers, id, cx);
        self.retired.extend(old);
    }

    pub(crate) fn wait_writable(&mut self, id: StreamId, cx: &Context<'_>) {
        let old = wait(&mut self.writers, id, cx);
        self.retired.extend(old);
    }

    pub(crate) fn readable(&mut self, id: StreamId, wakes: &mut Wakes) {
        wakes.wakers.extend(self.readers.remove(&id));
    }

    pub(crate) fn writable(&mut self, id: StreamId, wakes: &mut Wakes) {
        wakes.wakers.extend(self.writers.remove(&id));
    }

    pub(crate) fn forget_reader(&mut self, id: StreamId) {
        self.retired.extend(self.readers.remove(&id));
    }

    pub(crate) fn forget_writer(&mut self, id: StreamId) {
        self.retired.extend(self.writers.remove(&id));
    }

    /// Wakers that nobody needs any more. Dropping one can drop a task with a stream in it, so it must not happen
    /// under the lock.
    pub(crate) fn take_retired(&mut self, wakes: &mut Wakes) {
        wakes.retired = std::mem::take(&mut self.retired);
    }

    pub(crate) fn all(&mut self, wakes: &mut Wakes) {
        let both = self.readers.drain().chain(self.writers.drain());
        wakes.wakers.extend(both.map(|(_, waker)| waker));
    }
}

/// Makes `cx` the one to be woken for `id`; answers who was that before, if it was another.
fn wait(waiters: &mut HashMap<StreamId, Waker>, id: StreamId, cx: &Context<'_>) -> Option<Waker> {
    match waiters.get(&id) {
        Some(waker) if waker.will_wake(cx.waker()) => None,
        _ => waiters.insert(id, cx.waker().clone()),
    }
}
