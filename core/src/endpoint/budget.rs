//! What strangers may cost before they have proved who they are, and the count of what was refused.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::handshake::Refusal;
use crate::time::{Duration, Instant};

/// Counts of an endpoint since it began. Each refused link is in exactly one of them, or in several if it tried
/// several times.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EndpointStats {
    /// Links whose handshakes are under way.
    pub half_open_links: u64,
    /// Bonds opened by peers.
    pub bonds_opened: u64,
    /// Links that joined a bond, by JOIN or by a further OPEN of the same attempt.
    pub links_joined: u64,
    /// Links turned away because too many were half open.
    pub refused_busy: u64,
    /// Peers whose key is not allowed.
    pub refused_not_allowed: u64,
    /// Pairings refused: the token is unknown, wrong, used or expired.
    pub refused_pairing: u64,
    /// Authenticated peers refused for another reason: too many links or bonds, or a link number used twice.
    pub refused_other: u64,
    /// Links that lead back to this host.
    pub refused_looped: u64,
    /// Handshakes with no suite in common.
    pub no_common_suite: u64,
    /// JOINs for bonds that are not known.
    pub unknown_bond: u64,
    /// JOIN1 messages that were used before.
    pub replayed_joins: u64,
    /// First messages of other versions.
    pub wrong_version: u64,
    /// Handshake messages that are broken, or forged, or out of place.
    pub malformed: u64,
    /// OPEN1 messages, and proofs of a pairing token, dropped because there were too many of late.
    pub over_budget: u64,
    /// Links that brought too many bytes and no handshake.
    pub too_noisy: u64,
    /// Links at whose other end is a responder too.
    pub same_role: u64,
    /// Links whose handshake took too long.
    pub timed_out: u64,
}

/// What there is to count.
#[derive(Clone, Copy)]
pub(crate) enum Counter {
    BondOpened,
    LinkJoined,
    Refused(Refusal),
    WrongToken,
    NoCommonSuite,
    UnknownBond,
    Replay,
    WrongVersion,
    Malformed,
    OverBudget,
    TooNoisy,
    SameRole,
    Timeout,
}

/// The counts, shared with every handshake: these count outside the endpoint's lock, and give their place back when
/// they are dropped. They are as wide as the platform's atomics, and wrap there.
#[derive(Default)]
pub(crate) struct Counters {
    half_open: AtomicUsize,
    bonds_opened: AtomicUsize,
    links_joined: AtomicUsize,
    refused_busy: AtomicUsize,
    refused_not_allowed: AtomicUsize,
    refused_pairing: AtomicUsize,
    refused_other: AtomicUsize,
    refused_looped: AtomicUsize,
    no_common_suite: AtomicUsize,
    unknown_bond: AtomicUsize,
    replayed_joins: AtomicUsize,
    wrong_version: AtomicUsize,
    malformed: AtomicUsize,
    over_budget: AtomicUsize,
    too_noisy: AtomicUsize,
    same_role: AtomicUsize,
    timed_out: AtomicUsize,
}

impl Counters {
    pub(crate) fn count(&self, counter: Counter) {
        let cell = match counter {
            Counter::BondOpened => &self.bonds_opened,
            Counter::LinkJoined => &self.links_joined,
            Counter::Refused(Refusal::NotAllowed) => &self.refused_not_allowed,
            Counter::Refused(Refusal::SameKey) => &self.refused_looped,
            Counter::NoCommonSuite | Counter::Refused(Refusal::NoCommonSuite) => &self.no_common_suite,
            Counter::WrongToken | Counter::Refused(Refusal::TokenUsed | Refusal::TokenExpired) => {
                &self.refused_pairing
            }
            Counter::Refused(_) => &self.refused_other,
            Counter::UnknownBond => &self.unknown_bond,
            Counter::Replay => &self.replayed_joins,
            Counter::WrongVersion => &self.wrong_version,
            Counter::Malformed => &self.malformed,
            Counter::OverBudget => &self.over_budget,
            Counter::TooNoisy => &self.too_noisy,
            Counter::SameRole => &self.same_role,
            Counter::Timeout => &self.timed_out,
        };
        cell.fetch_add(1, Relaxed);
    }

    pub(super) fn snapshot(&self) -> EndpointStats {
        let read = |cell: &AtomicUsize| cell.load(Relaxed) as u64;
        EndpointStats {
            half_open_links: read(&self.half_open),
            bonds_opened: read(&self.bonds_opened),
            links_joined: read(&self.links_joined),
            refused_busy: read(&self.refused_busy),
            refused_not_allowed: read(&self.refused_not_allowed),
            refused_pairing: read(&self.refused_pairing),
            refused_other: read(&self.refused_other),
            refused_looped: read(&self.refused_looped),
            no_common_suite: read(&self.no_common_suite),
            unknown_bond: read(&self.unknown_bond),
            replayed_joins: read(&self.replayed_joins),
            wrong_version: read(&self.wrong_version),
            malformed: read(&self.malformed),
            over_budget: read(&self.over_budget),
            too_noisy: read(&self.too_noisy),
            same_role: read(&self.same_role),
            timed_out: read(&self.timed_out),
        }
    }
}

/// A place among the half-open links, given back when it is dropped.
pub(crate) struct HalfOpen(Arc<Counters>);

impl HalfOpen {
    /// Takes a place if there are fewer than `max`; else tells how many there are.
    pub(super) fn enter(counters: &Arc<Counters>, max: usize) -> Result<Self, usize> {
        let place = Self(Arc::clone(counters));
        let before = counters.half_open.fetch_add(1, Relaxed);
        if before < max {
            return Ok(place);
        }
        counters.refused_busy.fetch_add(1, Relaxed);
        Err(before)
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.0.half_open.fetch_sub(1, Relaxed);
    }
}

/// How often something may still be done: a token bucket that holds the work of a second.
pub(super) struct Budget {
    per_second: u32,
    left: u32,
    filled_at: Instant,
}

impl Budget {
    pub(super) const fn new(per_second: u32) -> Self {
        Self { per_second, left: per_second, filled_at: Instant::ZERO }
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.per_second
    }

    pub(super) fn spend(&mut self, now: Instant) -> bool {
        let interval = self.interval();
        let earned = (now - self.filled_at).as_nanos() / interval.as_nanos();
        if let Some(left) = u32::try_from(earned).ok().and_then(|earned| self.left.checked_add(earned))
            && left < self.per_second
        {
            self.left = left;
            // Counts up by whole intervals, so that the fractions of many calls are not lost.
            self.filled_at += interval * u32::try_from(earned).unwrap_or(0);
        } else {
            self.left = self.per_second;
            self.filled_at = now;
        }
        let granted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 512;

    #[test]
    fn opens_are_answered_at_the_rate_and_no_faster() {
        let mut budget = Budget::new(RATE);
        let mut now = Instant::from_nanos(77);
        let mut granted = 0;
        for _ in 0..30_000 {
            now += Duration::from_micros(100);
            granted += u32::from(budget.spend(now));
        }
        let expected = 4 * RATE;
        assert!((expected - 2..=expected + 2).contains(&granted), "{granted} in three seconds and a burst");
    }

    #[test]
    fn a_clock_that_jumps_back_does_not_fill_or_lock_the_budget() {
        let mut budget = Budget::new(RATE);
        let late = Instant::from_nanos(1 << 60);
        while budget.spend(late) {}
        assert!(!budget.spend(Instant::ZERO));
        assert!(budget.spend(late + budget.interval()));
    }

    #[test]
    fn half_open_places_are_given_back() {
        let counters = Arc::new(Counters::default());
        let place = HalfOpen::enter(&counters, 1).unwrap_or_else(|_| unreachable!());
        assert_eq!(HalfOpen::enter(&counters, 1).err(), Some(1));
        assert_eq!(counters.snapshot().refused_busy, 1);
        drop(place);
        assert!(HalfOpen::enter(&counters, 1).is_ok());
        assert_eq!(counters.snapshot().half_open_links, 0);
    }
}
