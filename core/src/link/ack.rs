//! What this end has received on a link and owes an acknowledgement for.

use crate::limits;
use crate::range_set::RangeSet;
use crate::time::{Duration, Instant};

/// An acknowledgement goes out after this many ack-eliciting packets (RFC 9000 section 13.2.2).
const EVERY: u32 = 2;
/// Time for the link itself to take an acknowledgement that is due, at least; after it, and half a round trip, another link
/// brings it. A medium's own pauses and queues are shorter where all is well.
const ELSEWHERE_DELAY_MIN: Duration = Duration::from_millis(10);
/// Every so many acknowledgement-only packets one asks to be acknowledged, so that ranges can be pruned.
const PING_EVERY: u32 = 16;

/// Time for the link itself, after which another one brings its acknowledgements.
fn elsewhere_delay(base_rtt: Duration) -> Duration {
    (base_rtt / 2).max(ELSEWHERE_DELAY_MIN)
}

#[derive(Debug, Default)]
pub(crate) struct Acks {
    received: RangeSet,
    highest_at: Instant,
    /// Ack-eliciting packets since the last acknowledgement.
    owed: u32,
    /// Something arrived that no other link was told of.
    owed_elsewhere: bool,
    elsewhere: Elsewhere,
    /// A gap was seen: do not wait.
    urgent: bool,
    deadline: Option<Instant>,
    bare_acks: u32,
}

/// Whether another link is to bring what this one owes.
#[derive(Debug, Default, PartialEq, Eq)]
enum Elsewhere {
    /// No.
    #[default]
    No,
    /// Should this link take no packet until then.
    After(Instant),
    /// Now. It needs no timer any more: there may be no other link.
    Due,
}

impl Acks {
    /// Records a packet. The caller has checked that `number` is above all before it.
    pub(crate) fn on_packet(&mut self, now: Instant, number: u64, eliciting: bool, base_rtt: Duration) {
        let expected = self.received.last().map_or(0, |last| last.end);
        self.received.insert(number..number + 1);
        self.received.retain_last(limits::ACK_RANGES_MAX);
        self.highest_at = now;
        if number != expected {
            self.urgent = true;
        }
        if eliciting {
            self.owed += 1;
            self.owed_elsewhere = true;
            let delay = (base_rtt / 4).min(limits::ACK_DELAY_MAX);
            self.deadline.get_or_insert(now + delay);
            if self.elsewhere == Elsewhere::No {
                self.elsewhere = Elsewhere::After(now + delay + elsewhere_delay(base_rtt));
            }
        }
    }

    /// Highest number received.
    pub(crate) fn highest(&self) -> Option<u64> {
        self.received.last().map(|last| last.end - 1)
    }

    /// Whether an acknowledgement should go out without waiting for company.
    pub(crate) fn is_due(&self) -> bool {
        self.owed > 0 && (self.urgent || self.owed >= EVERY)
    }

    /// Whether an acknowledgement would tell anything new.
    pub(crate) fn is_owed(&self) -> bool {
        self.owed > 0
    }

    /// Whether an acknowledgement over another link would tell anything new.
    pub(crate) fn is_owed_elsewhere(&self) -> bool {
        self.owed_elsewhere
    }

    /// Whether the link has not taken an acknowledgement in time, so that another is to bring it.
    pub(crate) fn is_due_elsewhere(&self) -> bool {
        self.elsewhere == Elsewhere::Due
    }

    /// An acknowledgement went out over another link. It may still be needed on this one, which gives the peer a
    /// round-trip sample.
    pub(crate) fn on_told_elsewhere(&mut self) {
        self.owed_elsewhere = false;
        self.elsewhere = Elsewhere::No;
    }

    /// The peer sent again what it had sent over this link. If the link has been quiet since, its acknowledgements got lost with
    /// it; if not, they are on their way.
    pub(crate) fn on_sent_again(&mut self, now: Instant, base_rtt: Duration) {
        if self.owed_elsewhere && self.highest_at + elsewhere_delay(base_rtt) <= now {
            self.elsewhere = Elsewhere::Due;
        }
    }

    /// When an acknowledgement must go out.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// When another link must bring the acknowledgement.
    pub(crate) fn elsewhere_deadline(&self) -> Option<Instant> {
        match self.elsewhere {
            Elsewhere::After(at) => Some(at),
            Elsewhere::No | Elsewhere::Due => None,
        }
    }

    /// A deadline has passed: an acknowledgement goes out as soon as this link, or another, takes it.
    pub(crate) fn on_timeout(&mut self, now: Instant) {
        if self.elsewhere_deadline().is_some_and(|at| at <= now) {
            self.elsewhere = Elsewhere::Due;
        }
        if self.deadline.is_some_and(|at| at <= now) {
            self.deadline = None;
            self.urgent = true;
        }
    }

    /// What is owed goes out without waiting for company.
    pub(crate) fn hurry(&mut self) {
        self.urgent = true;
    }

    /// What to acknowledge, and when the newest packet arrived; `None` if nothing was ever received.
    pub(crate) fn report(&self) -> Option<(&RangeSet, Instant)> {
        (!self.received.is_empty()).then_some((&self.received, self.highest_at))
    }

    /// An acknowledgement went out. Returns whether it should ask to be acknowledged itself, given that it is `bare`.
    pub(crate) fn on_sent(&mut self, bare: bool) -> bool {
        self.owed = 0;
        self.urgent = false;
        self.deadline = None;
        self.elsewhere = Elsewhere::No;
        if !bare {
            self.bare_acks = 0;
            return false;
        }
        self.bare_acks += 1;
        if self.bare_acks >= PING_EVERY {
            self.bare_acks = 0;
            return true;
        }
        false
    }

    /// The peer has seen an acknowledgement up to `highest`: those numbers need not be told again.
    pub(crate) fn on_ack_acked(&mut self, highest: u64) {
        // The highest number stays, so that gaps are still seen.
        let keep_from = highest.min(self.highest().unwrap_or(0));
        self.received.remove(0..keep_from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(8);

    #[test]
    fn every_second_packet_or_after_a_quarter_round_trip() {
        let mut acks = Acks::default();
        let now = Instant::from_nanos(1000);
        acks.on_packet(now, 0, true, RTT);
        assert!(!acks.is_due());
        assert_eq!(acks.deadline(), Some(now + RTT / 4));
        acks.on_timeout(now + RTT / 4);
        assert!(acks.is_due() && acks.deadline().is_none());
        acks.on_packet(now, 1, true, RTT);
        assert!(acks.is_due());
        acks.on_sent(true);
        assert!(!acks.is_due() && acks.deadline().is_none());
    }

    #[test]
    fn what_the_link_does_not_take_in_time_goes_elsewhere() {
        let mut acks = Acks::default();
        let (now, late) = (Instant::from_nanos(1000), RTT / 4 + ELSEWHERE_DELAY_MIN);
        acks.on_packet(now, 0, true, RTT);
        assert_eq!(acks.elsewhere_deadline(), Some(now + late));
        acks.on_timeout(now + late);
        assert!(acks.is_due_elsewhere() && acks.elsewhere_deadline().is_none());
        acks.on_packet(now + late, 1, true, RTT);
        assert!(acks.elsewhere_deadline().is_none(), "no timer while nobody brings it");
        acks.on_told_elsewhere();
        assert!(!acks.is_due_elsewhere() && acks.is_owed());
        acks.on_packet(now + late, 2, true, RTT);
        assert_eq!(acks.elsewhere_deadline(), Some(now + late * 2));
        acks.on_sent(true);
        assert!(!acks.is_due_elsewhere() && acks.elsewhere_deadline().is_none());
    }

    #[test]
    fn what_is_sent_again_tells_of_acknowledgements_that_got_lost() {
        let mut acks = Acks::default();
        let (now, later) = (Instant::from_nanos(1000), Instant::from_nanos(1000) + ELSEWHERE_DELAY_MIN);
        acks.on_packet(now, 0, true, RTT);
        acks.on_sent(true);
        acks.on_sent_again(now + RTT, RTT);
        assert!(!acks.is_due_elsewhere(), "it can be on its way");
        acks.on_sent_again(later, RTT);
        assert!(acks.is_due_elsewhere());
        acks.on_told_elsewhere();
        acks.on_sent_again(later, RTT);
        assert!(!acks.is_due_elsewhere(), "the peer knows");
    }

    #[test]
    fn a_gap_is_told_at_once() {
        let mut acks = Acks::default();
        acks.on_packet(Instant::ZERO, 0, true, RTT);
        acks.on_sent(true);
        acks.on_packet(Instant::ZERO, 2, true, RTT);
        assert!(acks.is_due());
        let (ranges, _) = acks.report().unwrap();
        assert_eq!(ranges.iter().collect::<alloc::vec::Vec<_>>(), [0..1, 2..3]);
    }

    #[test]
    fn acknowledgements_alone_owe_nothing() {
        let mut acks = Acks::default();
        for n in 0..10 {
            acks.on_packet(Instant::ZERO, n, false, RTT);
        }
        assert!(!acks.is_owed() && acks.deadline().is_none());
    }

    #[test]
    fn ranges_stay_bounded_and_are_pruned() {
        let mut acks = Acks::default();
        for n in 0..1000 {
            acks.on_packet(Instant::ZERO, n * 2, true, RTT);
        }
        assert_eq!(acks.report().unwrap().0.len(), limits::ACK_RANGES_MAX);
        acks.on_ack_acked(1990);
        assert_eq!(acks.report().unwrap().0.len(), 5);
        acks.on_ack_acked(5000);
        assert_eq!(acks.highest(), Some(1998));
    }

    #[test]
    fn every_sixteenth_bare_acknowledgement_asks_for_one() {
        let mut acks = Acks::default();
        let asked: usize = (0..32).filter(|_| acks.on_sent(true)).count();
        assert_eq!(asked, 2);
        for _ in 0..15 {
            assert!(!acks.on_sent(true));
        }
        assert!(!acks.on_sent(false));
        assert!(!acks.on_sent(true), "a packet with data starts the count anew");
    }
}
