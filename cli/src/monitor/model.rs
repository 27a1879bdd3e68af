//! What the monitor knows: samples become rates, rows that stay where they are, and a log. Time is an argument.

mod link;
#[cfg(test)]
pub(super) mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;

pub(crate) use self::link::{Flow, Link};
use super::limits::{BONDS_MAX, EVENTS_MAX, NOTE_KEPT};
use crate::control::protocol::LinkChange;
use crate::control::status::{BondStatus, ForwardStatus, Status};

/// All that the screen shows.
#[derive(Default)]
pub(crate) struct Model {
    /// The running command, once it has answered.
    pub(crate) process: Option<Process>,
    pub(crate) bonds: Vec<Bond>,
    pub(crate) events: VecDeque<Event>,
    /// Why there are no news at the moment.
    pub(crate) outage: Option<Outage>,
    pub(crate) shows_help: bool,
    note: Option<Note>,
    /// Serial number of the selected link.
    selected: Option<u64>,
    last_serial: u64,
    interval: Duration,
    /// The command's clock when rates were last reckoned.
    reckoned_at: Option<f64>,
    now: Duration,
}

/// The command that is looked at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) command: String,
    pub(crate) pid: u32,
    pub(crate) uptime_seconds: f64,
}

/// One bond.
pub(crate) struct Bond {
    pub(crate) number: u64,
    /// What the other end is called, or its key.
    pub(crate) peer: String,
    pub(crate) uptime_seconds: f64,
    pub(crate) streams_open: u64,
    pub(crate) waiting_bytes: u64,
    pub(crate) dropped_packets: u64,
    pub(crate) forwards: Vec<ForwardStatus>,
    pub(crate) links: Vec<Link>,
}

/// One message of the running command.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    pub(crate) number: u64,
    pub(crate) time: String,
    pub(crate) level: String,
    pub(crate) message: String,
    /// Of a link's change: its new state.
    pub(crate) state: Option<String>,
}

/// A time without news.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outage {
    pub(crate) since: Duration,
    pub(crate) why: String,
}

struct Note {
    at: Duration,
    text: String,
}

/// What a key changes about a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toggle {
    /// Paused or not.
    Pause,
    /// Backup or active.
    Backup,
}

impl Model {
    /// Nothing is known yet. Rates are over `interval`.
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, ..Self::default() }
    }

    /// The time of the next screen.
    pub(crate) fn tick(&mut self, now: Duration) {
        self.now = now;
        if self.note.as_ref().is_some_and(|note| now.saturating_sub(note.at) >= NOTE_KEPT) {
            self.note = None;
        }
    }

    /// The running command has answered.
    pub(crate) fn handle_status(&mut self, now: Duration, status: Status) {
        self.tick(now);
        self.outage = None;
        let uptime = if status.uptime_seconds.is_finite() { status.uptime_seconds.max(0.0) } else { 0.0 };
        let restarted = self.process.as_ref().is_some_and(|process| process.pid != status.pid);
        if restarted {
            self.reckoned_at = None;
            // Numbers begin anew.
            self.bonds.iter_mut().flat_map(|bond| &mut bond.links).for_each(Link::forget_number);
        }
        let sample = link::Sample { now, over: self.reckon(uptime) };
        let selected_place = self.selected_place();
        let mut known = std::mem::take(&mut self.bonds);
        for mut found in status.bonds.into_iter().take(BONDS_MAX) {
            let place = known.iter().position(|bond| bond.number == found.number);
            let links = place.map(|place| known.swap_remove(place).links).unwrap_or_default();
            let rows = std::mem::take(&mut found.links);
            let links = link::follow(links, rows, &sample, &mut self.last_serial);
            self.bonds.push(Bond::new(found, links));
        }
        self.process = Some(Process {
            name: status.name,
            command: status.command,
            pid: status.pid,
            uptime_seconds: uptime,
        });
        if self.selected_link().is_none() {
            let links: Vec<_> = self.links().map(|link| link.serial).collect();
            let place = selected_place.unwrap_or(0).min(links.len().saturating_sub(1));
            self.selected = links.get(place).copied();
        }
    }

    /// Over how many seconds rates are to be reckoned now; `None` leaves them as they are. A look that came early, because
    /// something happened, changes no rate: its time would be too short for one.
    fn reckon(&mut self, uptime: f64) -> Option<f64> {
        let over = self.reckoned_at.map(|before| uptime - before);
        match over {
            Some(over) if (0.0..self.interval.as_secs_f64() * 0.9).contains(&over) => None,
            over => {
                self.reckoned_at = Some(uptime);
                Some(over.unwrap_or(0.0))
            }
        }
    }

    /// There was no answer.
    pub(crate) fn handle_outage(&mut self, now: Duration, why: String) {
        self.tick(now);
        let since = self.outage.as_ref().map_or(now, |outage| outage.since);
        self.outage = Some(Outage { since, why });
        self.reckoned_at = None;
        for link in self.bonds.iter_mut().flat_map(|bond| &mut bond.links) {
            link.stand_still();
        }
    }

    /// The running command tells something.
    pub(crate) fn handle_event(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The running command told more than could be heard.
    pub(crate) fn handle_missed(&mut self, count: u64) {
        let message = format!("{count} messages missed: too many at once");
        self.handle_event(Event { level: "warn".to_owned(), message, ..Event::default() });
    }

    /// A line about a key, for a while.
    pub(crate) fn set_note(&mut self, text: String) {
        self.note = Some(Note { at: self.now, text });
    }

    pub(crate) fn clear_note(&mut self) {
        self.note = None;
    }

    pub(crate) fn note(&self) -> Option<&str> {
        self.note.as_ref().map(|note| note.text.as_str())
    }

    /// For how long there have been no news.
    pub(crate) fn outage_seconds(&self) -> f64 {
        self.outage.as_ref().map_or(0.0, |outage| self.now.saturating_sub(outage.since).as_secs_f64())
    }

    /// All links, in the order of the screen.
    pub(crate) fn links(&self) -> impl Iterator<Item = &Link> {
        self.bonds.iter().flat_map(|bond| &bond.links)
    }

    /// The link that keys are about.
    pub(crate) fn selected_link(&self) -> Option<&Link> {
        self.links().find(|link| Some(link.serial) == self.selected)
    }

    fn selected_place(&self) -> Option<usize> {
        self.links().position(|link| Some(link.serial) == self.selected)
    }

    /// Selects another link, so many further down.
    pub(crate) fn select(&mut self, step: isize) {
        let serials: Vec<_> = self.links().map(|link| link.serial).collect();
        let place = self.selected_place().unwrap_or(0).saturating_add_signed(step);
        self.selected = serials.get(place.min(serials.len().saturating_sub(1))).copied();
    }

    /// What to ask for so that the selected link changes; `None` where there is no link.
    pub(crate) fn change(&mut self, toggle: Toggle) -> Option<LinkChange> {
        let selected = self.selected?;
        let is_it = |link: &&mut Link| link.serial == selected;
        let bond =
            self.bonds.iter_mut().find(|bond| bond.links.iter().any(|link| link.serial == selected))?;
        let link = bond.links.iter_mut().find(is_it)?;
        let policy = link.policy_after(toggle);
        Some(LinkChange {
            bond: Some(bond.number),
            link: link.target(),
            policy: Some(policy),
            ..LinkChange::default()
        })
    }
}

impl Bond {
    fn new(status: BondStatus, links: Vec<Link>) -> Self {
        let peer = status.peer_name.or(status.peer).unwrap_or_else(|| "not connected yet".to_owned());
        Self {
            number: status.number,
            peer,
            uptime_seconds: status.uptime_seconds,
            streams_open: status.streams_open,
            waiting_bytes: status.send_buffered_bytes,
            dropped_packets: status.dropped_packets,
            forwards: status.forwards,
            links,
        }
    }

    /// Rates of all its links together, in bytes per second: out and in.
    pub(crate) fn rates(&self) -> (f64, f64) {
        let sum = |flow: fn(&Link) -> &Flow| self.links.iter().map(|link| flow(link).rate).sum();
        (sum(|link| &link.sending), sum(|link| &link.receiving))
    }

    /// The highest rate that any of its links shows: what small curves are drawn against, so that they compare.
    pub(crate) fn highest_rate(&self) -> f64 {
        self.links.iter().map(|link| link.sending.highest().max(link.receiving.highest())).fold(0.0, f64::max)
    }

    /// Part of the bond's bytes that a link carries at the moment, both ways together.
    pub(crate) fn share(&self, link: &Link) -> Option<f64> {
        let (sending, receiving) = self.rates();
        let all = sending + receiving;
        (all > 0.0).then(|| (link.sending.rate + link.receiving.rate) / all)
    }
}
