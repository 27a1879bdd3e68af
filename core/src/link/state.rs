//! States of a link, all transitions in one place, and the deadlines that drive them.
//!
//! ```text
//!             first packet, or        silence: probe unanswered and nothing
//!             this end dialled        acknowledged for the silence limit
//!   joining ------------------> active <------------------------------> suspect
//!      |                          |       a probe was answered             |
//!      |  nothing in time         |  medium ended, removed, replaced,      |
//!      +------------------> closed <--- protocol violation, bond closed ---+
//! ```
//!
//! Backup, paused and held back are policies on top of these states, not states.

use super::rate::{Growth, Rate};
use super::way_back::WayBack;
use super::window::Window;
use super::{Link, Watch};
use crate::event::{LinkState, TimerReason};
use crate::limits;
use crate::time::{Duration, Instant};

/// How often a probe time-out doubles at most.
const PROBE_BACKOFF_MAX: u32 = 10;

/// A time at which [`Link::on_timeout`] has work to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) reason: TimerReason,
}

/// What a time-out found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// A probe or an acknowledgement is to be sent, or nothing was due.
    Nothing,
    /// The link became suspect after this much silence.
    BecameSuspect { silent: Duration },
    /// The initiator's first packet has not come.
    NeverHeard,
    /// The link is no longer held back.
    HoldOver,
}

impl Watch {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            progress_at: now,
            eliciting_at: now,
            heard_at: now,
            probes: 0,
            first_probe_at: now,
            probe_wanted: false,
            grace_until: now,
        }
    }

    pub(super) fn on_eliciting_sent(&mut self, now: Instant) {
        self.eliciting_at = now;
        self.probe_wanted = false;
    }

    pub(super) fn on_progress(&mut self, now: Instant) {
        self.progress_at = now;
        self.probes = 0;
        self.probe_wanted = false;
    }
}

impl Link {
    /// joining → active: the peer's first sealed packet proves that it finished the handshake.
    pub(crate) fn on_first_packet(&mut self, now: Instant) -> bool {
        let joining = self.state == LinkState::Joining;
        if joining {
            self.enter(now, LinkState::Active);
        }
        joining
    }

    /// suspect → active: a packet sent since then was acknowledged. Acknowledgements of earlier ones may come over
    /// another link and say nothing about this one. Returns for how long it was suspect. The estimators start anew,
    /// from half of what the link did before, and from the round trip of the answer: a link that was only slow is then
    /// given the time it takes, and does not come and go.
    pub(crate) fn on_answered(&mut self, now: Instant, sent_at: Instant) -> Option<Duration> {
        if self.state != LinkState::Suspect || sent_at < self.since {
            return None;
        }
        let suspect = now - self.since;
        let hint = self.rate.bytes_per_second().map(|rate| rate / 2).or(self.info.rate_hint);
        self.rtt = self.rtt.restarted(now, now - sent_at);
        self.way_back = WayBack::default();
        self.rate = Rate::new(now);
        self.growth = Growth::default();
        // What was sent before belongs to the estimators of then.
        self.sent.iter_mut().for_each(|packet| packet.sampled = false);
        self.window = Window::new(hint, self.info.reliable, &self.rtt);
        self.enter(now, LinkState::Active);
        self.hold.on_return(now);
        Some(suspect)
    }

    /// any → closed.
    pub(crate) fn on_closed(&mut self, now: Instant) {
        debug_assert!(self.state != LinkState::Closed, "a link closes once");
        self.enter(now, LinkState::Closed);
    }

    /// active → suspect, joining → to be closed, or a probe or acknowledgement that has become due.
    pub(crate) fn on_timeout(&mut self, now: Instant, keep_alive: Option<Duration>) -> Expired {
        self.acks.on_timeout(now);
        // First the probe, whose time decides when silence counts.
        if self.probe_deadline().is_some_and(|at| at <= now) {
            self.watch.probes = (self.watch.probes + 1).min(PROBE_BACKOFF_MAX);
            self.watch.probe_wanted = true;
            // Until the probe leaves, the next one counts from now.
            self.watch.eliciting_at = now;
            if self.watch.probes == 1 {
                self.watch.first_probe_at = now;
            }
        }
        match self.state {
            LinkState::Joining if self.joining_deadline() <= now => return Expired::NeverHeard,
            LinkState::Active if self.silence_deadline().is_some_and(|at| at <= now) => {
                let silent = now - self.silent_since();
                self.stats.suspects += 1;
                self.watch.probe_wanted = true;
                self.enter(now, LinkState::Suspect);
                self.hold.on_silence(now);
                return Expired::BecameSuspect { silent };
            }
            _ => {}
        }
        if self.keep_alive_deadline(keep_alive).is_some_and(|at| at <= now) {
            self.watch.probe_wanted = true;
        }
        if self.hold.end_if_due(now) { Expired::HoldOver } else { Expired::Nothing }
    }

    /// The caller came later than asked: what waited for it must be heard before anything is judged.
    pub(crate) fn grant_grace(&mut self, now: Instant) {
        self.watch.grace_until = now + self.rtt.smoothed().max(limits::SUSPECT_MIN);
    }

    pub(crate) fn on_heard(&mut self, now: Instant) {
        self.watch.heard_at = now;
    }

    /// Whether a probe is to be sent.
    pub(crate) fn wants_probe(&self) -> bool {
        self.watch.probe_wanted && self.state != LinkState::Closed
    }

    pub(crate) fn want_probe(&mut self) {
        self.watch.probe_wanted = true;
    }

    /// When the peer last acknowledged something new on it.
    pub(crate) fn progress_at(&self) -> Instant {
        self.watch.progress_at
    }

    /// The earliest deadline.
    pub(crate) fn deadline(&self, keep_alive: Option<Duration>) -> Option<Deadline> {
        let id = self.id;
        if self.state == LinkState::Closed {
            return None;
        }
        let joining = (self.state == LinkState::Joining).then(|| self.joining_deadline());
        // A link that is busy asks for packets as soon as its medium takes one, and acknowledges with any of them.
        let ack = self.acks.deadline().filter(|_| self.idle_since_epoch.is_some());
        let all = [
            (ack, TimerReason::Ack(id)),
            (self.acks.elsewhere_deadline(), TimerReason::Ack(id)),
            (self.probe_deadline(), TimerReason::Probe(id)),
            (self.late_deadline(), TimerReason::Late(id)),
            (self.silence_deadline(), TimerReason::Silence(id)),
            (self.keep_alive_deadline(keep_alive), TimerReason::KeepAlive(id)),
            (joining, TimerReason::Joining(id)),
            (self.hold.until(), TimerReason::Hold(id)),
        ];
        all.into_iter()
            .filter_map(|(at, reason)| Some(Deadline { at: at?, reason }))
            .min_by_key(|deadline| deadline.at)
    }

    fn enter(&mut self, now: Instant, to: LinkState) {
        use LinkState::{Active, Closed, Joining, Suspect};
        let allowed = matches!(
            (self.state, to),
            (Joining, Active | Closed) | (Active, Suspect | Closed) | (Suspect, Active | Closed)
        );
        debug_assert!(allowed, "link {}: {} cannot become {to}", self.id, self.state);
        self.state = to;
        self.since = now;
    }

    fn joining_deadline(&self) -> Instant {
        self.since + limits::HANDSHAKE_TIMEOUT
    }

    /// Since when something has been waiting for an acknowledgement without any coming.
    fn silent_since(&self) -> Instant {
        let oldest = self.sent.oldest_at().unwrap_or(self.watch.progress_at);
        self.watch.progress_at.max(oldest)
    }

    /// When an answer is overdue. A suspect link is probed with back-off until something is acknowledged.
    fn probe_deadline(&self) -> Option<Instant> {
        if self.watch.probe_wanted {
            return None;
        }
        let timeout = self.rtt.probe_timeout(self.info.peer_ack_delay);
        let backed_off = (timeout * (1 << self.watch.probes)).min(limits::PROBE_INTERVAL_MAX.max(timeout));
        match self.state {
            LinkState::Active if !self.sent.is_empty() => {
                let since =
                    if self.watch.probes == 0 { self.silent_since() } else { self.watch.eliciting_at };
                Some((since + backed_off).max(self.watch.grace_until))
            }
            LinkState::Suspect => Some(self.watch.eliciting_at + backed_off),
            _ => None,
        }
    }

    /// When a packet is overdue. A link that crawls answers all the time, and yet what it holds does not arrive.
    fn late_deadline(&self) -> Option<Instant> {
        let at = self.sent.oldest_awaited_at().filter(|_| self.state == LinkState::Active)?;
        Some((at + self.rtt.probe_timeout(self.info.peer_ack_delay)).max(self.watch.grace_until))
    }

    /// Packets that left at this time or before are overdue, if any are that were not.
    pub(crate) fn overdue_until(&self, now: Instant) -> Option<Instant> {
        self.late_deadline().filter(|at| *at <= now)?;
        let oldest = self.sent.oldest_awaited_at()?;
        // After a grace the oldest may have left later than so long ago.
        Some(oldest.max(now - self.rtt.probe_timeout(self.info.peer_ack_delay)))
    }

    /// When silence becomes suspicious: a probe has gone unanswered, and the limit has passed.
    fn silence_deadline(&self) -> Option<Instant> {
        if self.state != LinkState::Active || self.watch.probes == 0 || self.sent.is_empty() {
            return None;
        }
        // However late the probe was, it has half a round trip to be answered.
        let answerable = self.watch.first_probe_at + self.rtt.smoothed() / 2 + Duration::from_millis(1);
        Some((self.silent_since() + self.silence_limit()).max(self.watch.grace_until).max(answerable))
    }

    fn keep_alive_deadline(&self, keep_alive: Option<Duration>) -> Option<Instant> {
        let idle = self.state == LinkState::Active && self.sent.is_empty() && !self.watch.probe_wanted;
        let at = self.watch.eliciting_at.max(self.watch.heard_at) + self.keep_alive.or(keep_alive)?;
        idle.then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LinkInfo;
    use crate::id::LinkId;
    use crate::link::sent::SentFrames;
    use alloc::string::String;

    const MS: Duration = Duration::from_millis(1);

    fn link(state: LinkState) -> Link {
        let info = LinkInfo {
            name: String::from("test"),
            kind: "memory",
            mtu_bytes: 1500,
            tag_bytes: 16,
            rate_hint: Some(1_000_000),
            reliable: false,
            rtt: Some(MS * 20),
            peer_ack_delay: MS * 5,
        };
        Link::new(Instant::ZERO, LinkId(0), info, state)
    }

    /// Runs the deadlines until `until` without ever acknowledging; a wanted probe leaves at once.
    fn run_silent(link: &mut Link, until: Instant) -> alloc::vec::Vec<(Instant, Expired)> {
        let mut found = alloc::vec::Vec::new();
        while let Some(deadline) = link.deadline(None).filter(|d| d.at <= until) {
            let expired = link.on_timeout(deadline.at, None);
            // As the connection does, which looks for others to carry what is overdue.
            if let Some(until) = link.overdue_until(deadline.at) {
                link.sent.find_overdue(until).for_each(drop);
            }
            if expired != Expired::Nothing {
                found.push((deadline.at, expired));
            }
            // The caller closes such a link.
            if expired == Expired::NeverHeard {
                break;
            }
            assert!(link.deadline(None).is_none_or(|next| next.at > deadline.at), "no deadline stays");
            if link.wants_probe() {
                link.on_sent(deadline.at, 10, true, SentFrames::new());
            }
        }
        found
    }

    #[test]
    fn silence_makes_it_suspect_and_an_answer_active_again() {
        let mut link = link(LinkState::Active);
        link.on_sent(Instant::ZERO, 1000, true, SentFrames::new());
        let found = run_silent(&mut link, Instant::ZERO + MS * 500);
        let [(at, Expired::BecameSuspect { silent })] = found[..] else { panic!("{found:?}") };
        assert_eq!(silent, at - Instant::ZERO);
        assert!(silent >= MS * 60 && silent <= MS * 100, "{silent:?}");
        assert_eq!(link.state(), LinkState::Suspect);
        assert!(link.on_answered(at + MS, at - MS).is_none(), "sent before: no answer to a probe");
        assert!(link.on_answered(at + MS, at).is_some());
        assert_eq!(link.state(), LinkState::Active);
        assert!(link.on_answered(at + MS, at).is_none());
    }

    #[test]
    fn probes_of_a_suspect_link_back_off() {
        let mut link = link(LinkState::Active);
        link.on_sent(Instant::ZERO, 1000, true, SentFrames::new());
        run_silent(&mut link, Instant::ZERO + Duration::from_secs(60));
        let probes = link.stats.sent_packets - 1;
        assert!((30..=45).contains(&probes), "{probes} probes in a minute");
    }

    #[test]
    fn an_idle_link_has_no_deadline_without_keep_alive() {
        let link = link(LinkState::Active);
        assert_eq!(link.deadline(None), None);
        let keep_alive = link.deadline(Some(MS * 1000)).unwrap();
        assert_eq!(
            keep_alive,
            Deadline { at: Instant::ZERO + MS * 1000, reason: TimerReason::KeepAlive(LinkId(0)) }
        );
    }

    #[test]
    fn a_late_caller_extends_deadlines() {
        let mut link = link(LinkState::Active);
        link.on_sent(Instant::ZERO, 1000, true, SentFrames::new());
        let late = Instant::ZERO + Duration::from_secs(30);
        link.grant_grace(late);
        assert_eq!(link.on_timeout(late, None), Expired::Nothing);
        assert!(link.deadline(None).unwrap().at > late);
    }

    #[test]
    fn a_link_that_never_speaks_leaves() {
        let mut link = link(LinkState::Joining);
        let found = run_silent(&mut link, Instant::ZERO + limits::HANDSHAKE_TIMEOUT);
        assert_eq!(found.last().map(|f| f.1), Some(Expired::NeverHeard));
    }
}
