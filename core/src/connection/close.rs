//! The end of a bond.
//!
//! CLOSE goes out on all links and is repeated until one copy is acknowledged or three probe time-outs, and a moment for busy
//! hosts, have passed since the first copy went out: a host too busy to send it has not told anybody yet.
//! The other end answers with acknowledgements for as long. Only a CLOSE with a valid authentication code counts.

use alloc::collections::BTreeMap;
use alloc::string::String;

use super::Connection;
use crate::error::CloseReason;
use crate::event::{Event, LinkState};
use crate::id::LinkId;
use crate::limits;
use crate::link::sent::{SentFrame, SentFrames};
use crate::time::{Duration, Instant};
use crate::wire::packet::Packet;

/// Probe time-outs for which an end is repeated or answered.
const PROBE_TIMEOUTS: u32 = 3;
/// Least time for that: a busy host answers long after round trips of microseconds.
const TIME_MIN: Duration = Duration::from_millis(250);
/// Longest time for that, so that a very slow link does not hold a program back, and for a first copy to go out.
const TIME_MAX: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) enum Closing {
    Open,
    /// This end says so, and waits for an acknowledgement.
    Saying {
        code: u64,
        reason: String,
        repeat: Duration,
        /// How long an answer is waited for once a copy has gone out.
        patience: Duration,
        said_at: BTreeMap<LinkId, Instant>,
        said: bool,
        until: Instant,
    },
    /// The peer said so; its repetitions are still acknowledged.
    Answering {
        until: Instant,
    },
    Over,
}

impl Closing {
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }

    /// Whether `link` is to carry CLOSE now.
    pub(super) fn wants(&self, now: Instant, link: LinkId) -> bool {
        match self {
            Self::Saying { said_at, repeat, .. } => said_at.get(&link).is_none_or(|&at| at + *repeat <= now),
            _ => false,
        }
    }

    pub(super) fn on_acked(&mut self) {
        if matches!(self, Self::Saying { .. }) {
            *self = Self::Over;
        }
    }

    pub(super) fn on_lost(&mut self, link: LinkId) {
        if let Self::Saying { said_at, .. } = self {
            said_at.remove(&link);
        }
    }

    /// When to look again: the next repetition or the end.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::Open | Self::Over => None,
            Self::Answering { until } => Some(*until),
            Self::Saying { said_at, repeat, until, .. } => {
                let next = said_at.values().map(|&at| at + *repeat).filter(|&at| at > now).min();
                Some(next.map_or(*until, |at| at.min(*until)))
            }
        }
    }
}

impl Connection {
    /// Ends the bond and tells the peer, at once: what is not yet acknowledged is lost. A reason longer than
    /// [`limits::CLOSE_REASON_MAX_BYTES`] is cut.
    pub fn close(&mut self, now: Instant, code: u64, reason: &str) {
        if !self.closing.is_open() {
            return;
        }
        let mut end = reason.len().min(limits::CLOSE_REASON_MAX_BYTES);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = String::from(&reason[..end]);
        self.event(Event::Closed(CloseReason::Local { code, reason: reason.clone() }));
        self.reason = Some(CloseReason::Local { code, reason: reason.clone() });
        self.epoch += 1;
        if self.keys.is_none() || !self.has_speaking_link() {
            self.closing = Closing::Over;
            return;
        }
        let (repeat, patience) = self.closing_times();
        let (said_at, until) = (BTreeMap::new(), now + TIME_MAX);
        self.closing = Closing::Saying { code, reason, repeat, patience, said_at, said: false, until };
    }

    /// Ends the bond here without telling the peer, which is gone or knows.
    pub fn fail(&mut self, reason: CloseReason) {
        if self.closing.is_open() {
            self.event(Event::Closed(reason.clone()));
            self.reason = Some(reason);
        }
        self.closing = Closing::Over;
        self.epoch += 1;
    }

    /// Whether the bond has ended and nothing more will be sent.
    pub fn is_closed(&self) -> bool {
        self.closing.is_over()
    }

    /// Why the bond ended, once it has or does.
    pub fn close_reason(&self) -> Option<&CloseReason> {
        self.reason.as_ref()
    }

    pub(super) fn on_closed_by_peer(&mut self, now: Instant, reason: CloseReason) {
        match self.closing {
            Closing::Open => {
                self.event(Event::Closed(reason.clone()));
                self.reason = Some(reason);
                let until = now + self.closing_times().1;
                self.closing = Closing::Answering { until };
            }
            // Both ends said so at once.
            Closing::Saying { .. } => {
                let until = now + self.closing_times().1;
                self.closing = Closing::Answering { until };
            }
            Closing::Answering { .. } | Closing::Over => {}
        }
        for link in &mut self.links {
            link.acks.hurry();
        }
    }

    pub(super) fn push_close(
        &mut self,
        now: Instant,
        index: usize,
        packet: &mut Packet,
        frames: &mut SentFrames,
    ) {
        let (Closing::Saying { code, reason, patience, said_at, said, until, .. }, Some(keys)) =
            (&mut self.closing, &self.keys)
        else {
            return;
        };
        let mac = keys.close_mac(self.role, *code, reason.as_bytes());
        if packet.push_close(*code, &mac, reason) {
            if !*said {
                (*said, *until) = (true, now + *patience);
            }
            said_at.insert(self.links[index].id, now);
            frames.push(SentFrame::Close);
        }
    }

    pub(super) fn on_close_timeout(&mut self, now: Instant) {
        let (Closing::Saying { until, .. } | Closing::Answering { until }) = self.closing else { return };
        if until <= now || !self.has_speaking_link() {
            self.closing = Closing::Over;
            for index in 0..self.links.len() {
                self.release_frames(index);
            }
        }
    }

    /// A bond without links has nobody to tell; ends that wait for an answer need not wait longer.
    pub(super) fn on_link_lost_while_closing(&mut self) {
        if !self.closing.is_open() && !self.has_speaking_link() {
            self.closing = Closing::Over;
            self.epoch += 1;
        }
    }

    fn has_speaking_link(&self) -> bool {
        self.links.iter().any(|link| matches!(link.state(), LinkState::Active | LinkState::Suspect))
    }

    /// How often CLOSE is repeated, and for how long.
    fn closing_times(&self) -> (Duration, Duration) {
        let timeouts = self.links.iter().map(|link| link.rtt.probe_timeout(link.info.peer_ack_delay));
        let shortest = timeouts.clone().min().unwrap_or(limits::INITIAL_RTT);
        let longest = timeouts.max().unwrap_or(limits::INITIAL_RTT);
        (shortest, (longest * PROBE_TIMEOUTS).clamp(TIME_MIN, TIME_MAX))
    }
}
