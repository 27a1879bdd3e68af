//! A link from one sample to the next.
//!
//! The running command tells what there is now: a link that comes back has another number, and one that is dialled has none. People
//! look at a cable, so here it stays one row, by its name, and what was seen of it stays too.

use std::collections::VecDeque;
use std::time::Duration;

use super::Toggle;
use crate::control::status::LinkStatus;
use crate::monitor::limits::{CLOSED_KEPT, HISTORY_MAX, LINKS_MAX};

/// One row.
pub(crate) struct Link {
    /// Its number here, which stays.
    pub(crate) serial: u64,
    /// What was last told about it.
    pub(crate) now: LinkStatus,
    pub(crate) sending: Flow,
    pub(crate) receiving: Flow,
    /// For how long it has been in its state, where that is known.
    pub(crate) state_seconds: Option<f64>,
    /// Whether it was in the bond since it is shown.
    was_up: bool,
    changed_at: Option<Duration>,
    /// Since when nothing is told about it any more.
    gone_at: Option<Duration>,
    /// Counters at the last reckoning of rates.
    base: Option<Base>,
    /// The policy to go back to after a pause that was asked for here.
    paused_from: Option<String>,
    /// Whether this sample has it.
    met: bool,
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// Bytes per second.
    pub(crate) rate: f64,
    history: VecDeque<f64>,
}

/// A look at the counters.
pub(super) struct Sample {
    pub(super) now: Duration,
    /// Rates are to be reckoned, over so many seconds.
    pub(super) over: Option<f64>,
}

#[derive(Clone, Copy)]
struct Base {
    id: u32,
    sent_bytes: u64,
    received_bytes: u64,
}

impl Flow {
    fn push(&mut self, rate: f64) {
        self.rate = if rate.is_finite() { rate.max(0.0) } else { 0.0 };
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(self.rate);
    }

    /// The last rates, oldest first, at most so many.
    pub(crate) fn last(&self, count: usize) -> impl Iterator<Item = f64> {
        self.history.iter().skip(self.history.len().saturating_sub(count)).copied()
    }

    /// The highest of all that are kept.
    pub(crate) fn highest(&self) -> f64 {
        self.history.iter().copied().fold(0.0, f64::max)
    }
}

/// Puts what is told now into the rows that there are.
pub(super) fn follow(
    mut links: Vec<Link>,
    rows: Vec<LinkStatus>,
    sample: &Sample,
    last_serial: &mut u64,
) -> Vec<Link> {
    links.iter_mut().for_each(|link| link.met = false);
    let (closed, open): (Vec<_>, Vec<_>) =
        rows.into_iter().take(LINKS_MAX).partition(|row| row.state == "closed");
    // First those that are known by their numbers, so that a new one does not take the row of another with the same name.
    let mut others = Vec::new();
    for row in open {
        match links.iter_mut().find(|link| link.has_number(row.id)) {
            Some(link) => link.update(row, sample),
            None => others.push(row),
        }
    }
    for row in others {
        match links.iter_mut().find(|link| link.has_name(&row.link)) {
            Some(link) => link.update(row, sample),
            None => links.push(Link::new(row, sample, last_serial)),
        }
    }
    for row in closed {
        let has_successor = links.iter().any(|link| link.met && link.now.link == row.link);
        match links.iter_mut().find(|link| link.has_number(row.id)) {
            Some(link) => link.update(row, sample),
            None if has_successor => {}
            None => links.push(Link::new(row, sample, last_serial)),
        }
    }
    links.iter_mut().filter(|link| !link.met).for_each(|link| link.go(sample));
    links.retain(|link| link.gone_at.is_none_or(|at| sample.now.saturating_sub(at) < CLOSED_KEPT));
    links
}

impl Link {
    fn new(row: LinkStatus, sample: &Sample, last_serial: &mut u64) -> Self {
        *last_serial += 1;
        let mut link = Self {
            serial: *last_serial,
            now: LinkStatus { state: row.state.clone(), ..LinkStatus::default() },
            sending: Flow::default(),
            receiving: Flow::default(),
            state_seconds: None,
            was_up: false,
            changed_at: None,
            gone_at: None,
            base: None,
            paused_from: None,
            met: false,
        };
        link.update(row, sample);
        link
    }

    fn has_number(&self, id: Option<u32>) -> bool {
        !self.met && id.is_some() && self.now.id == id
    }

    fn has_name(&self, name: &str) -> bool {
        !self.met && self.now.link == name
    }

    fn update(&mut self, mut row: LinkStatus, sample: &Sample) {
        self.met = true;
        self.gone_at = None;
        if row.id.is_none() && self.was_up {
            // It was there: so it is no longer that it never came, and what it carried stays to be seen.
            if row.state == "missing" {
                "closed".clone_into(&mut row.state);
            }
            keep_counters(&mut row, &self.now);
        }
        self.was_up |= row.id.is_some();
        if row.state != self.now.state {
            self.changed_at = Some(sample.now);
        }
        let since_change = self.changed_at.map(|at| sample.now.saturating_sub(at).as_secs_f64());
        self.state_seconds = row.state_seconds.or(since_change);
        self.now = row;
        if let Some(seconds) = sample.over {
            self.reckon(seconds);
        } else if self.now.id.is_none() {
            self.stand_still();
        }
    }

    fn reckon(&mut self, seconds: f64) {
        let base = self.now.id.map(|id| Base {
            id,
            sent_bytes: self.now.sent_bytes,
            received_bytes: self.now.received_bytes,
        });
        let before = std::mem::replace(&mut self.base, base);
        let (sending, receiving) = match (before, base) {
            (Some(before), Some(now)) if before.id == now.id && seconds > 0.0 => (
                now.sent_bytes.saturating_sub(before.sent_bytes) as f64 / seconds,
                now.received_bytes.saturating_sub(before.received_bytes) as f64 / seconds,
            ),
            // New here: the command's own short look is the best there is.
            (_, Some(_)) => (self.now.send_mbytes_per_second * 1e6, self.now.receive_mbytes_per_second * 1e6),
            (_, None) => (0.0, 0.0),
        };
        self.sending.push(sending);
        self.receiving.push(receiving);
    }

    /// Nothing is told about it any more.
    fn go(&mut self, sample: &Sample) {
        self.gone_at.get_or_insert(sample.now);
        let why = Some("left the bond".to_owned());
        let row = LinkStatus {
            link: self.now.link.clone(),
            dialled: self.now.dialled.clone(),
            kind: self.now.kind.clone(),
            policy: self.now.policy.clone(),
            state: "closed".to_owned(),
            why,
            ..LinkStatus::default()
        };
        let gone_at = self.gone_at;
        self.update(row, sample);
        self.gone_at = gone_at;
    }

    /// It carries nothing that anyone knows of.
    pub(super) fn stand_still(&mut self) {
        (self.sending.rate, self.receiving.rate) = (0.0, 0.0);
    }

    /// The command was started anew: another link may have this number.
    pub(super) fn forget_number(&mut self) {
        self.now.id = None;
        self.base = None;
    }

    /// What `link-set` is to name.
    pub(super) fn target(&self) -> String {
        match (self.now.id, &self.now.dialled) {
            (Some(id), _) => id.to_string(),
            (None, Some(dialled)) => dialled.clone(),
            (None, None) => self.now.link.clone(),
        }
    }

    /// The policy that a key asks for. The end of a pause brings back what was before.
    pub(super) fn policy_after(&mut self, toggle: Toggle) -> String {
        match (toggle, self.now.policy.as_str()) {
            (Toggle::Pause, "paused") => self.paused_from.take().unwrap_or_else(|| "active".to_owned()),
            (Toggle::Pause, now) => {
                self.paused_from = Some(now.to_owned());
                "paused".to_owned()
            }
            (Toggle::Backup, "backup") => "active".to_owned(),
            (Toggle::Backup, _) => "backup".to_owned(),
        }
    }
}

/// What the link did while it was in the bond.
fn keep_counters(row: &mut LinkStatus, before: &LinkStatus) {
    row.sent_bytes = before.sent_bytes;
    row.received_bytes = before.received_bytes;
    row.lost_packets = before.lost_packets;
    row.moved_bytes = before.moved_bytes;
    row.reinjected_bytes = before.reinjected_bytes;
    row.suspects = before.suspects;
    row.damaged_frames = before.damaged_frames;
    row.credit_stalls = before.credit_stalls;
}
