//! The task of a link: takes what comes, sends what the session has to say, and ends when the session does.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bondwire_frame::Instant;
use tokio::time::{Instant as ClockTime, Sleep, sleep_until};

use super::state::{Sending, Shared, State};
use crate::limits::{LINGER, TRANSFERS_PER_TURN};
use crate::transfers::{Inlet, Outlet};

/// Starts the task.
pub(super) fn start<O: Outlet>(shared: Shared<O>, inlet: impl Inlet, name: String) -> Arc<dyn Sending> {
    let shared = Arc::new(shared);
    tokio::spawn({
        let shared = shared.clone();
        async move {
            let mut driver = Driver { shared: &shared, inlet, linger_until: None };
            {
                let mut timer = pin!(sleep_until(ClockTime::now()));
                poll_fn(|cx| driver.poll(cx, timer.as_mut())).await;
            }
            drop(driver.inlet);
            let mut state = shared.lock();
            // Freed before anybody hears that it is.
            drop(state.outlet.take());
            let why = state.end().map(|e| e.to_string()).unwrap_or_default();
            tracing::debug!(target: "bondwire", "{name}: {why}; {:?}", state.session.counters());
            state.wake_halves();
        }
    });
    shared
}

struct Driver<'s, O, I> {
    shared: &'s Shared<O>,
    inlet: I,
    /// When an ended link waits no longer for what it sent to leave.
    linger_until: Option<ClockTime>,
}

#[derive(PartialEq, Eq)]
enum Receiving {
    /// There is no transfer now.
    Waits,
    /// There may be more, but others shall have their turn.
    GoesOn,
}

impl<O: Outlet, I: Inlet> Driver<'_, O, I> {
    /// Ready when the link is over and what it sent has left.
    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        // Before the clock: what came is the peer's proof of life, even after a pause of this program. All of that is taken in
        // one turn, so a device that sends without end does not stop the clock.
        let receiving = self.receive(cx);
        let mut state = self.shared.lock();
        match &mut state.driver {
            Some(waker) => waker.clone_from(cx.waker()),
            None => state.driver = Some(cx.waker().clone()),
        }
        let now = self.shared.now();
        if state.session.poll_timeout().is_some_and(|at| at <= now) {
            // A session that ends says so with `end`.
            let _ = state.session.handle_timeout(now);
        }
        send(&mut state, now, cx);
        state.wake_halves();
        if state.session.end().is_some() && self.has_left(&state) {
            return Poll::Ready(());
        }
        let deadline = self.deadline(&mut state, now);
        drop(state);
        if receiving == Receiving::GoesOn {
            cx.waker().wake_by_ref();
        } else if let Some(deadline) = deadline {
            timer.as_mut().reset(deadline);
            if timer.poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    /// Takes the transfers that came, for as long as a turn may be.
    fn receive(&mut self, cx: &mut Context<'_>) -> Receiving {
        for _ in 0..TRANSFERS_PER_TURN {
            if self.shared.lock().session.end().is_some() {
                return Receiving::Waits;
            }
            let taken = match self.inlet.poll_transfer(cx) {
                Poll::Pending => return Receiving::Waits,
                Poll::Ready(taken) => taken,
            };
            let taken = taken.map(|bytes| self.shared.lock().handle_transfer(self.shared.now(), bytes));
            if let Err(e) = taken.and_then(|()| self.inlet.release()) {
                self.shared.lock().fail(&e);
            }
        }
        Receiving::GoesOn
    }

    /// When to look again if nothing else happens.
    fn deadline(&self, state: &mut State<O>, now: Instant) -> Option<ClockTime> {
        if self.linger_until.is_some() {
            return self.linger_until;
        }
        let at = state.session.poll_timeout()?;
        // What is due and cannot be written waits for a transfer to leave.
        let is_blocked = state.outlet.as_mut().is_some_and(|outlet| outlet.buffer().is_none());
        Some(self.shared.clock_time(if is_blocked { at.max(now + LINGER) } else { at }))
    }

    /// Whether everything that an ended link sent has left, or has had its time to.
    fn has_left(&mut self, state: &State<O>) -> bool {
        let linger_until = *self.linger_until.get_or_insert_with(|| ClockTime::now() + LINGER);
        let is_empty = state.outlet.as_ref().is_none_or(|outlet| outlet.in_flight() == 0);
        is_empty || state.has_failed() || ClockTime::now() >= linger_until
    }
}

/// Frees the transfers that have left, and sends what the session has to say.
fn send<O: Outlet>(state: &mut State<O>, now: Instant, cx: &mut Context<'_>) {
    while let Some(outlet) = &mut state.outlet {
        match outlet.poll_finished(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(e)) => return state.fail(&e),
            Poll::Pending => break,
        }
    }
    // A transfer that begins while none was under way has the task woken again, to wait for its end.
    let _ = state.transmit(now, &[]);
}
