//! Deadlines: which is next, and what happens when they pass.

use super::Connection;
use crate::error::{CloseReason, DownReason};
use crate::event::{Change, Event, LinkState, TimerReason};
use crate::link::Expired;
use crate::time::{Duration, Instant};

/// A caller that is later than this was stopped (a suspended host, a stalled process): what waited for it is heard
/// before anything is judged late.
const LATE: Duration = Duration::from_millis(50);

impl Connection {
    /// When to call [`Self::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Instant, TimerReason)> {
        if self.closing.is_over() {
            return None;
        }
        let keep_alive = self.config.keep_alive.filter(|_| self.closing.is_open());
        let links = self.links.iter().filter_map(|link| link.deadline(keep_alive)).map(|d| (d.at, d.reason));
        let own = [
            (self.closing.deadline(self.last_timeout), TimerReason::Close),
            (self.idle_deadline(), TimerReason::Idle),
            (self.think_again, TimerReason::ThinkAgain),
            (self.fetch_deadline(), TimerReason::ThinkAgain),
            (self.datagrams.deadline(), TimerReason::Datagrams),
            (self.ordered.deadline(), TimerReason::Datagrams),
        ];
        links.chain(own.into_iter().filter_map(|(at, reason)| Some((at?, reason)))).min_by_key(|&(at, _)| at)
    }

    /// Does what is due. Inputs that have arrived are to be handed in first.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some((at, _)) = self.poll_timeout().filter(|&(at, _)| at <= now) else { return };
        self.last_timeout = now;
        self.epoch += 1;
        if now - at > LATE {
            self.links.iter_mut().for_each(|link| link.grant_grace(now));
        }
        for index in (0..self.links.len()).rev() {
            if self.links[index].state() != LinkState::Closed {
                self.on_link_timeout(now, index);
            }
        }
        if self.think_again.is_some_and(|at| at <= now) {
            self.think_again = None;
        }
        self.stop_waiting_for_fetch(now);
        self.datagrams.handle_timeout(now);
        self.ordered.handle_timeout(now);
        self.on_close_timeout_if_due(now);
        if let Some(timeout) = self.config.idle_timeout
            && self.idle_deadline().is_some_and(|at| at <= now)
        {
            self.fail(CloseReason::IdleTimeout(timeout));
        }
        debug_assert!(
            self.poll_timeout().is_none_or(|(next, _)| next > now),
            "a deadline remains: {:?} at {now:?}",
            self.poll_timeout()
        );
    }

    fn on_link_timeout(&mut self, now: Instant, index: usize) {
        let keep_alive = self.config.keep_alive.filter(|_| self.closing.is_open());
        let link = &mut self.links[index];
        let (id, probing) = (link.id, link.wants_probe());
        let expired = link.on_timeout(now, keep_alive);
        let active = link.state() == LinkState::Active;
        if active && !probing && link.wants_probe() && !link.sent.is_empty() {
            self.resend_late(index);
        }
        self.resend_overdue(now, index);
        match expired {
            Expired::Nothing => {}
            Expired::HoldOver => self.on_links_changed(),
            Expired::NeverHeard => self.close_link_here(now, id, DownReason::Silent),
            Expired::BecameSuspect { silent } => {
                self.usable_at = now;
                let moved_bytes = self.move_frames(index);
                let name = self.links[index].info.name.clone();
                let why = Change::Silence { silent, moved_bytes };
                self.event(Event::Link { id, name, from: LinkState::Active, to: LinkState::Suspect, why });
            }
        }
    }

    fn on_close_timeout_if_due(&mut self, now: Instant) {
        if !self.closing.is_open() {
            self.on_close_timeout(now);
        }
    }

    /// A bond without a usable link ends after the idle timeout.
    fn idle_deadline(&self) -> Option<Instant> {
        let usable = self.links.iter().any(|link| link.state() == LinkState::Active);
        let timeout = self.config.idle_timeout.filter(|_| !usable && self.closing.is_open())?;
        Some(self.usable_at + timeout)
    }
}
