//! What each link carried between two moments, over all its attachments.

use std::collections::BTreeMap;

use bondwire::{LinkId, LinkSnapshot, LinkState, LinkStats};
use serde::{Deserialize, Serialize};

use crate::output::rounded;

/// Watches the links of a bond. A dialer's link that comes back gets a new id; here it stays one row, by its name.
#[derive(Default)]
pub(crate) struct LinkTally {
    seen: BTreeMap<LinkId, Seen>,
}

struct Seen {
    /// Counters when the measurement began.
    before: LinkStats,
    now: LinkSnapshot,
}

/// One link in a report. The names are those of `--json`.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub(crate) struct LinkRow {
    pub(crate) link: String,
    pub(crate) kind: String,
    pub(crate) state: String,
    /// Stream bytes that the link carried, both ways.
    pub(crate) bytes: u64,
    pub(crate) mbytes_per_second: f64,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) lost_packets: u64,
    pub(crate) reinjected_bytes: u64,
}

impl LinkTally {
    /// Takes note of the links as they are. Links that are gone keep what was last seen of them.
    pub(crate) fn observe(&mut self, links: impl IntoIterator<Item = LinkSnapshot>) {
        let mut current = Vec::new();
        for now in links {
            current.push(now.id);
            let seen = self.seen.entry(now.id);
            seen.and_modify(|seen| seen.now = now.clone())
                .or_insert(Seen { before: LinkStats::default(), now });
        }
        for (id, seen) in &mut self.seen {
            if !current.contains(id) {
                seen.now.state = LinkState::Closed;
            }
        }
    }

    /// Begins the measurement: what was carried so far does not count.
    pub(crate) fn start_over(&mut self) {
        for seen in self.seen.values_mut() {
            seen.before = seen.now.stats;
        }
    }

    /// The links in the order in which they joined, with rates over `seconds`.
    pub(crate) fn rows(&self, seconds: f64) -> Vec<LinkRow> {
        let mut rows: Vec<LinkRow> = Vec::new();
        for seen in self.seen.values() {
            let row = seen.row();
            // A later attachment of the same name takes the place of a closed one. Two live links may share a name.
            match rows.iter_mut().find(|known| known.link == row.link && known.state == CLOSED) {
                Some(known) => known.continue_as(row),
                None => rows.push(row),
            }
        }
        for row in &mut rows {
            let rate = if seconds > 0.0 { row.bytes as f64 / seconds / 1e6 } else { 0.0 };
            row.mbytes_per_second = rounded(rate);
        }
        rows
    }
}

const CLOSED: &str = "closed";

impl Seen {
    fn row(&self) -> LinkRow {
        let (before, now) = (&self.before, &self.now.stats);
        let since = |counter: fn(&LinkStats) -> u64| counter(now).saturating_sub(counter(before));
        LinkRow {
            link: self.now.name.clone(),
            kind: self.now.kind.to_owned(),
            state: self.now.state.to_string(),
            bytes: since(|stats| stats.sent_data_bytes) + since(|stats| stats.received_data_bytes),
            mbytes_per_second: 0.0,
            rtt_ms: self.now.rtt.map(|rtt| rounded(rtt.as_secs_f64() * 1e3)),
            lost_packets: since(|stats| stats.lost_packets),
            reinjected_bytes: since(|stats| stats.reinjected_bytes),
        }
    }
}

impl LinkRow {
    /// Adds a later attachment of the same link.
    fn continue_as(&mut self, later: Self) {
        *self = Self {
            bytes: self.bytes + later.bytes,
            lost_packets: self.lost_packets + later.lost_packets,
            reinjected_bytes: self.reinjected_bytes + later.reinjected_bytes,
            ..later
        };
    }
}
