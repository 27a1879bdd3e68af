//! Frames of the connection itself that must arrive: wishes for links, and the window the sender could use.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::id::LinkId;

/// A wish is told again when it has grown by this much (in quarters: 5/4), so that it is told seldom.
const GROWTH_NUMERATOR: u64 = 5;
const GROWTH_DENOMINATOR: u64 = 4;

#[derive(Debug, Default)]
pub(super) struct Control {
    /// Latest LINK_STATUS of each link whose policy was ever set here, by its sequence number.
    status_sequence: BTreeMap<LinkId, u64>,
    status_pending: BTreeSet<LinkId>,
    /// What the peer was told last, and whether that was lost.
    window_told: u64,
    window_lost: bool,
}

impl Control {
    /// A link's policy was set here: the peer is to hear of it.
    pub(super) fn on_policy_set(&mut self, link: LinkId) {
        *self.status_sequence.entry(link).or_insert(0) += 1;
        self.status_pending.insert(link);
    }

    /// The next LINK_STATUS to send: its link and sequence number.
    pub(super) fn next_status(&self) -> Option<(LinkId, u64)> {
        let link = *self.status_pending.first()?;
        Some((link, self.status_sequence.get(&link).copied().unwrap_or(0)))
    }

    pub(super) fn on_status_sent(&mut self, link: LinkId) {
        self.status_pending.remove(&link);
    }

    /// Only the newest wish is told again.
    pub(super) fn on_status_lost(&mut self, link: LinkId, sequence: u64) {
        if self.status_sequence.get(&link) == Some(&sequence) {
            self.status_pending.insert(link);
        }
    }

    /// The link is gone, and with it all wishes about it.
    pub(super) fn forget(&mut self, link: LinkId) {
        self.status_sequence.remove(&link);
        self.status_pending.remove(&link);
    }

    /// The window to ask the peer for, if it is news.
    pub(super) fn window_to_tell(&self, wanted: u64) -> Option<u64> {
        let news = wanted / GROWTH_NUMERATOR * GROWTH_DENOMINATOR > self.window_told || self.window_lost;
        news.then_some(wanted.max(self.window_told))
    }

    pub(super) fn on_window_told(&mut self, wanted: u64) {
        self.window_told = wanted;
        self.window_lost = false;
    }

    pub(super) fn on_window_lost(&mut self) {
        self.window_lost = true;
    }

    pub(super) fn has_status(&self) -> bool {
        !self.status_pending.is_empty()
    }
}
