//! What the bond looks like from outside.

use super::Connection;
use crate::config::Policy;
use crate::event::{IdleReason, LinkSnapshot, LinkState, Stats};
use crate::id::{Class, LinkId};
use crate::link::{BondState, Link};
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

    /// Whether any link can carry data now.
    pub fn has_usable_link(&self) -> bool {
        self.policy_in_use().is_some()
    }

    /// Counters of the bond.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Counters and figures of its streams.
    pub fn stream_stats(&self) -> StreamStats {
        self.streams.stats()
    }

    /// Whether the peer has acknowledged all that was written and finished.
    pub fn is_all_acknowledged(&self) -> bool {
        self.streams.is_all_acknowledged()
    }

    fn snapshot(&self, now: Instant, link: &Link) -> LinkSnapshot {
        let bond = self.bond_state(now);
        let mut snapshot = link.snapshot(bond);
        snapshot.idle = self.idle_reason(link, bond);
        snapshot
    }

    /// Why a link carries nothing, if it does not.
    fn idle_reason(&self, link: &Link, bond: BondState) -> Option<IdleReason> {
        match link.state() {
            LinkState::Joining => return Some(IdleReason::Joining),
            LinkState::Suspect => return Some(IdleReason::Suspect),
            LinkState::Active | LinkState::Closed => {}
        }
        let in_use = self.policy_in_use();
        if Some(link.policy) != in_use && link.policy != Policy::Active {
            return Some(IdleReason::PolicyHere(link.policy));
        }
        if Some(link.peer_policy) != in_use && link.peer_policy != Policy::Active {
            return Some(IdleReason::PolicyOfPeer(link.peer_policy));
        }
        let work = [Class::Interactive, Class::Bulk].into_iter().any(|class| self.streams.has_work(class));
        match (work, link.has_room(bond)) {
            (true, false) => Some(IdleReason::WindowFull),
            (true, true) if link.sent.is_empty() => Some(IdleReason::FasterLinksSuffice),
            (false, _) if link.sent.is_empty() => Some(IdleReason::NothingToSend),
            _ => None,
        }
    }
}
