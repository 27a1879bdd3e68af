//! What a link is to be used for.
//!
//! Each end has a wish for each link and tells it to the other (LINK_STATUS in PROTOCOL.md). Of two wishes the stricter
//! counts, so that both ends treat the link alike.

use core::num::NonZeroU8;

/// Whether a link carries data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, PartialOrd, Ord)]
#[repr(u8)]
pub enum Policy {
    /// Carries its share.
    #[default]
    Active = 0,
    /// Carries data only while no active link is usable.
    Backup = 1,
    /// Carries no data; stays up and is watched.
    Paused = 2,
}

impl Policy {
    /// The policy that stands as `value` in a LINK_STATUS.
    pub(crate) const fn from_wire(value: u64) -> Option<Self> {
        match value {
            0 => Some(Self::Active),
            1 => Some(Self::Backup),
            2 => Some(Self::Paused),
            _ => None,
        }
    }
}

/// What one end wants a link to be used for, in both directions.
///
/// ```
/// use bondwire_core::config::{LinkPolicy, Policy};
/// let metered = LinkPolicy { cap_bytes_per_second: Some(125_000), ..Policy::Backup.into() };
/// assert_eq!(metered.usage, Policy::Backup);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkPolicy {
    /// Whether it carries data.
    pub usage: Policy,
    /// Links of a tier carry data only while no link of a lower tier is usable; 0 goes first.
    pub tier: u8,
    /// Share of bulk data in proportion to other links' weights. As soon as one link has a weight, links without one
    /// count 1, and a link waits rather than carry more than its share. Without any weight each carries what it can.
    pub weight: Option<NonZeroU8>,
    /// Most bytes of packets per second, in each direction; `None` is without a bound.
    pub cap_bytes_per_second: Option<u64>,
}

/// The order in which links are used: those of the lowest rank carry data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(crate) struct Rank {
    usage: Policy,
    tier: u8,
}

impl Rank {
    /// A link that comes and goes: used when there is nothing else.
    pub(crate) const LAST: Self = Self { usage: Policy::Backup, tier: u8::MAX };
}

impl LinkPolicy {
    /// What holds when both ends have a wish.
    pub fn with_peer(self, peer: Self) -> Self {
        let caps = self.cap_bytes_per_second.into_iter().chain(peer.cap_bytes_per_second);
        Self {
            usage: self.usage.max(peer.usage),
            tier: self.tier.max(peer.tier),
            // Of two weights neither is stricter; each end shares out what it sends.
            weight: self.weight.or(peer.weight),
            cap_bytes_per_second: caps.min(),
        }
    }

    /// The link's place among others; `None` if it carries no data.
    pub(crate) fn rank(self) -> Option<Rank> {
        (self.usage != Policy::Paused).then_some(Rank { usage: self.usage, tier: self.tier })
    }
}

impl From<Policy> for LinkPolicy {
    fn from(usage: Policy) -> Self {
        Self { usage, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_wish_counts() {
        let here = LinkPolicy { tier: 2, cap_bytes_per_second: Some(10), ..Policy::Active.into() };
        let there =
            LinkPolicy { weight: NonZeroU8::new(3), cap_bytes_per_second: Some(5), ..Policy::Backup.into() };
        let both = LinkPolicy {
            usage: Policy::Backup,
            tier: 2,
            weight: NonZeroU8::new(3),
            cap_bytes_per_second: Some(5),
        };
        assert_eq!(here.with_peer(there), both);
        assert_eq!(there.with_peer(here), both);
    }

    #[test]
    fn tiers_of_active_links_come_before_backups() {
        let rank = |usage, tier| LinkPolicy { usage, tier, ..LinkPolicy::default() }.rank();
        let order =
            [rank(Policy::Active, 0), rank(Policy::Active, 7), rank(Policy::Backup, 0), Some(Rank::LAST)];
        assert!(order.is_sorted());
        assert_eq!(rank(Policy::Paused, 0), None);
    }
}
