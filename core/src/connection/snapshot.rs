//! What the bond looks like from outside.

use super::Connection;
use crate::config::Policy;
use crate::event::{IdleReason, LinkSnapshot, LinkState, Stats};
use crate::id::LinkId;
use crate::link::{BondState, Link};
use crate::ordered::OrderedStats;
use crate::scheduler;
use crate::streams::StreamStats;
use crate::time::Instant;

impl Connection {
    /// All links, in the order of their ids.
    pub fn links(&self, now: Instant) -> impl Iterator<Item = LinkSnapshot> + '_ {
        self.links.iter().map(move |link| self.snapshot(now, link))
    }

    /// One link.
    pub fn link(&self, now: Instant, id: LinkId) -> Option<LinkSnapshot> {
        self.index_of(id).map(|index| self.snapshot(now, &self.links[index]))
    }

    /// What a link carries in bytes per second, if it is kept full and the search for more has ended.
    pub fn rate_found(&self, id: LinkId) -> Option<u64> {
        self.index_of(id).and_then(|index| self.links[index].rate_found())
    }

    /// Whether any link can carry data now.
    pub fn has_usable_link(&self) -> bool {
        self.rank_in_use().is_some()
    }

    /// Counters of the bond.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Counters and figures of its streams.
    pub fn stream_stats(&self) -> StreamStats {
        self.streams.stats()
    }

    /// Counters of ordered datagrams.
    pub fn ordered_stats(&self) -> OrderedStats {
        self.ordered.stats()
    }

    /// Whether the peer has acknowledged all that was written and finished.
    pub fn is_all_acknowledged(&self) -> bool {
        self.streams.is_all_acknowledged()
    }

    fn snapshot(&self, now: Instant, link: &Link) -> LinkSnapshot {
        let bond = self.bond_state(now);
        let mut snapshot = link.snapshot(bond);
        snapshot.idle = self.idle_reason(now, link, bond, &snapshot);
        snapshot
    }

    /// Why a link carries nothing, if it does not.
    fn idle_reason(
        &self,
        now: Instant,
        link: &Link,
        bond: BondState,
        snapshot: &LinkSnapshot,
    ) -> Option<IdleReason> {
        match link.state() {
            LinkState::Joining => return Some(IdleReason::Joining),
            LinkState::Suspect => return Some(IdleReason::Suspect),
            LinkState::Active | LinkState::Closed => {}
        }
        if link.rank().is_none() || link.rank() != self.rank_in_use() {
            return Some(kept_out_by(now, link, snapshot));
        }
        let work = self.has_data(link.id);
        if work && link.sent.is_empty() {
            if link.time_to_send(now).is_some() {
                return Some(IdleReason::Cap(link.effective_policy().cap_bytes_per_second.unwrap_or(0)));
            }
            if !scheduler::is_its_turn(&self.field(now).candidates, link.id) {
                return Some(IdleReason::Share);
            }
        }
        match (work, link.has_room(bond)) {
            (true, false) => Some(IdleReason::WindowFull),
            (true, true) if link.sent.is_empty() => Some(IdleReason::FasterLinksSuffice),
            (false, _) if link.sent.is_empty() => Some(IdleReason::NothingToSend),
            _ => None,
        }
    }
}

/// Why a link that others outrank is kept out.
fn kept_out_by(now: Instant, link: &Link, snapshot: &LinkSnapshot) -> IdleReason {
    if let Some(until) = snapshot.held_until {
        return IdleReason::Held(until - now);
    }
    let (here, there) = (snapshot.policy.usage, snapshot.peer_policy.usage);
    match here.max(there) {
        Policy::Active => IdleReason::Tier(link.effective_policy().tier),
        _ if here >= there => IdleReason::PolicyHere(here),
        _ => IdleReason::PolicyOfPeer(there),
    }
}
