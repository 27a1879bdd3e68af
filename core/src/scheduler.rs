//! Which link takes the next bytes: a pure function of snapshots.
//!
//! Choice is by earliest arrival: `A = T/2 + (in flight + length)/R`, with the base round trip `T` and the rate `R`.
//! A slower link does not take the next bytes, which the reader waits for, but those that the faster links will
//! reach only when its own would arrive. If there are not that many, it waits. So bulk data fills every link, the
//! reader sees no stall, and the tail of a transfer avoids slow links.

use core::num::NonZeroU8;

use crate::id::LinkId;
use crate::limits::{INITIAL_WINDOW_BYTES, MTU_MIN_BYTES};
use crate::link::rate::{bytes_in, transmit_time};
use crate::time::Duration;

/// Shortest time after which a link that waits for a faster one thinks again.
const THINK_AGAIN_MIN: Duration = Duration::from_millis(2);

/// A slower link is taken to arrive later than estimated by one part in so many.
const MARGIN_SHARE: u32 = 8;

/// Packets by which a link may be ahead of its share: both ends of a swing are far below what anyone measures.
const SHARE_SLACK_PACKETS: u64 = 2;

/// A link that may carry data, as the scheduler sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) id: LinkId,
    /// Half of the base round trip.
    pub(crate) half_rtt: Duration,
    /// Bytes per second.
    pub(crate) rate: u64,
    /// It has not carried enough ordered datagrams yet for the rate to be more than a lower bound.
    pub(crate) is_on_trial: bool,
    /// Bytes per second that it may have reached when the peer hears of it: more than `rate` while it searches.
    pub(crate) rate_soon: u64,
    /// Bytes sent and not acknowledged.
    pub(crate) in_flight: u64,
    /// By how much the link delivers later than its rate and round trip say: the oldest packet in flight is late, or its
    /// cap lets nothing out for the moment.
    pub(crate) overdue: Duration,
    /// Time after which it gets ever later by the time that passes, unless something is acknowledged.
    pub(crate) late_in: Duration,
    /// Bytes of the packet this link would make.
    pub(crate) packet: u64,
    /// Share of bulk data, if one is set.
    pub(crate) weight: Option<NonZeroU8>,
    /// Bytes of bulk data that it sent since shares were last counted from anew.
    pub(crate) share_bytes: u64,
}

/// What a link with room is to do about unsent bulk data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Take the bytes that lie `skip` unsent bytes behind the first.
    Take { skip: u64 },
    /// Other links are to send it: faster ones will have done so before this one could deliver, or one that is behind
    /// its share. Think again after the time, should they have failed.
    Wait { think_again: Option<Duration> },
}

impl Candidate {
    fn weight_or_one(&self) -> u64 {
        self.weight.map_or(1, |weight| weight.get().into())
    }

    /// When the last of `length` bytes would arrive if sent now.
    pub(crate) fn arrival(&self, length: u64) -> Duration {
        self.half_rtt + self.overdue + transmit_time(self.in_flight.saturating_add(length), self.rate)
    }

    /// The same with what waits at the link in place of all that is in flight: without what fills its way.
    pub(crate) fn without_way(&self) -> Self {
        let way = bytes_in(self.rate, self.half_rtt.saturating_add(self.half_rtt));
        Self { in_flight: self.in_flight.saturating_sub(way), ..*self }
    }

    /// The same with a bold guess of its rate while that is to be found out: a window in each round trip. In flight it has at most
    /// twice what its rate so far would bring there, as a connection that begins slowly (RFC 5681).
    pub(crate) fn bold(&self) -> Self {
        let rtt = self.half_rtt.saturating_add(self.half_rtt);
        if !self.is_on_trial || self.in_flight > 2 * bytes_in(self.rate, rtt).max(MTU_MIN_BYTES as u64) {
            return *self;
        }
        let rate = INITIAL_WINDOW_BYTES.saturating_mul(1_000_000_000) / (rtt.as_nanos().max(1) as u64);
        Self { rate: self.rate.max(rate), ..*self }
    }

    /// Whether this link delivers `length` bytes before `other` does; ids break a tie.
    pub(crate) fn is_before(&self, other: &Self, length: u64) -> bool {
        (self.arrival(length), self.id) < (other.arrival(length), other.id)
    }
}

/// The link on which `length` bytes arrive first.
pub(crate) fn earliest<'a>(
    candidates: impl IntoIterator<Item = &'a Candidate>,
    length: u64,
) -> Option<&'a Candidate> {
    candidates.into_iter().min_by_key(|c| (c.arrival(length), c.id))
}

/// Time after which link `me`, which leaves `length` bytes to the earliest one, looks again, should that one have failed or
/// got so late that `me` is the earlier one.
pub(crate) fn time_to_think(candidates: &[Candidate], me: &Candidate, length: u64) -> Option<Duration> {
    let first = earliest(candidates, length)?;
    let ahead = me.arrival(length).saturating_sub(first.arrival(length));
    Some(first.arrival(length).min(first.late_in.saturating_add(ahead)).max(THINK_AGAIN_MIN))
}

/// What link `me` is to do about `backlog` bytes of unsent bulk data.
pub(crate) fn decide(candidates: &[Candidate], me: &Candidate, backlog: u64) -> Decision {
    if !is_its_turn(candidates, me.id) {
        // The link that is to catch up wakes this one by what it sends.
        return Decision::Wait { think_again: None };
    }
    let length = me.packet.min(backlog);
    let mine = me.arrival(length);
    // Estimates err. Bytes that arrive a little early only wait; late ones hold up the reader.
    let at_latest = mine + mine / MARGIN_SHARE;
    let mut skip = 0_u64;
    let (mut soonest, mut late_in, mut rates) = (Duration::MAX, Duration::MAX, 0_u64);
    // Who is before whom is asked for one length. Were it each link's own, all could take another for the first, and wait.
    let common = candidates.iter().map(|c| c.packet).min().unwrap_or(length).min(length);
    for other in candidates.iter().filter(|c| c.id != me.id && c.is_before(me, common)) {
        let starts = other.arrival(0);
        skip = skip.saturating_add(bytes_in(other.rate, at_latest.saturating_sub(starts)));
        soonest = soonest.min(other.arrival(length));
        late_in = late_in.min(other.late_in);
        rates = rates.saturating_add(other.rate);
    }
    if skip < backlog || skip == 0 {
        Decision::Take { skip }
    } else if has_weights(candidates) {
        // The faster links may have to wait for this one: it takes what is left.
        Decision::Take { skip: 0 }
    } else {
        // Links that get later can do ever less of it before this one's bytes arrive.
        let too_late = late_in.saturating_add(transmit_time(skip - backlog, rates));
        Decision::Wait { think_again: Some(soonest.min(too_late).max(THINK_AGAIN_MIN)) }
    }
}

fn has_weights(candidates: &[Candidate]) -> bool {
    candidates.iter().any(|c| c.weight.is_some())
}

/// Where links have weights, none is faster than its share of what the slowest one allows.
pub(crate) fn apply_weights(candidates: &mut [Candidate]) {
    if !has_weights(candidates) {
        return;
    }
    let unit = candidates.iter().map(|c| c.rate / c.weight_or_one()).min().unwrap_or(0);
    for candidate in candidates {
        candidate.rate = candidate.rate.min(unit.saturating_mul(candidate.weight_or_one())).max(1);
    }
}

/// Whether `id` may take bulk data without getting ahead of its share by weight. Of all candidates the one that is
/// furthest behind always may.
pub(crate) fn is_its_turn(candidates: &[Candidate], id: LinkId) -> bool {
    let Some(me) = candidates.iter().find(|c| c.id == id).filter(|_| has_weights(candidates)) else {
        return true;
    };
    let slack = SHARE_SLACK_PACKETS.saturating_mul(me.packet);
    // The bytes that this link would have sent, were it as far as the other.
    let level =
        |other: &Candidate| other.share_bytes.saturating_mul(me.weight_or_one()) / other.weight_or_one();
    candidates.iter().all(|other| me.share_bytes <= level(other).saturating_add(slack))
}

/// Bytes that must be unacknowledged at once to keep all links busy: twice the sum of rates times the longest way. The
/// peer's answer takes a round trip, so links that still search are taken for what they may have found by then.
pub(crate) fn window_wanted(candidates: &[Candidate]) -> u64 {
    let rates = candidates.iter().fold(0_u64, |sum, c| sum.saturating_add(c.rate_soon));
    // A late link is not a longer one.
    let on_time = |c: &Candidate| Candidate { overdue: Duration::ZERO, ..*c }.arrival(c.packet);
    let longest = candidates.iter().map(on_time).max().unwrap_or_default();
    bytes_in(rates, longest).saturating_mul(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn link(id: u32, rate: u64, half_rtt_ms: u64) -> Candidate {
        let half_rtt = Duration::from_millis(half_rtt_ms);
        Candidate {
            id: LinkId(id),
            half_rtt,
            rate,
            rate_soon: rate,
            is_on_trial: false,
            in_flight: 0,
            overdue: Duration::ZERO,
            late_in: Duration::MAX,
            packet: 10_000,
            weight: None,
            share_bytes: 0,
        }
    }

    #[test]
    fn weights_share_out_and_someone_may_always_go_on() {
        let mut links = [link(0, 1_000_000, 10), link(1, 4_000_000, 1)];
        assert!(is_its_turn(&links, LinkId(0)) && is_its_turn(&links, LinkId(1)), "no weights, no turns");
        links[0].weight = NonZeroU8::new(3);
        apply_weights(&mut links);
        assert_eq!(links.map(|c| c.rate), [999_999, 333_333]);
        for _ in 0..1000 {
            let turns = links.map(|c| is_its_turn(&links, c.id));
            assert!(turns.contains(&true));
            for (link, turn) in links.iter_mut().zip(turns) {
                link.share_bytes += if turn { 10_000 } else { 0 };
            }
        }
        let [first, second] = links.map(|c| c.share_bytes);
        assert!(first.abs_diff(3 * second) <= 3 * 30_000, "{first} and {second}");
        // A short rest is taken by the one whose turn it is, though the other would be faster.
        links[0].share_bytes = u64::MAX / 2;
        assert!(matches!(decide(&links, &links[0], 100), Decision::Wait { .. }));
        assert_eq!(decide(&links, &links[1], 100), Decision::Take { skip: 0 });
    }

    #[test]
    fn a_small_write_goes_to_one_link_only() {
        let links = [link(0, 1_000_000, 10), link(1, 1_000_000, 10)];
        assert_eq!(decide(&links, &links[0], 100), Decision::Take { skip: 0 });
        assert!(matches!(decide(&links, &links[1], 100), Decision::Wait { .. }));
        assert_eq!(earliest(&links, 100).unwrap().id, LinkId(0));
    }

    #[test]
    fn who_waits_for_a_link_that_gets_later_looks_again_before_it_is_too_late() {
        let (mut fast, slow) = (link(0, 1_000_000, 10), link(1, 10_000, 50));
        fast.in_flight = 1_000_000;
        // 1.01 s against 60 ms and what slow itself needs for 1000 bytes: it is the earlier one by far.
        assert_eq!(earliest(&[fast, slow], 1000).unwrap().id, slow.id);
        fast.in_flight = 100_000;
        let wait = time_to_think(&[fast, slow], &slow, 1000).unwrap();
        assert_eq!(wait, MS * 111, "when it should have arrived");
        fast.late_in = MS * 5;
        assert_eq!(time_to_think(&[fast, slow], &slow, 1000).unwrap(), MS * (5 + 150 - 111));
        // 10 kB of slow would arrive when fast has carried 1.07 MB: 10 ms later it will carry less than this backlog by then.
        let Decision::Wait { think_again } = decide(&[fast, slow], &slow, 1_060_000) else {
            panic!("it waits")
        };
        assert!(think_again < Some(MS * 30), "{think_again:?}");
    }

    #[test]
    fn links_with_packets_of_their_own_length_do_not_wait_for_each_other() {
        // For 512 bytes the near one is the first, for 675 the fast one.
        let fast = Candidate { half_rtt: MS * 549 / 1000, packet: 512, ..link(5, 216_954_936, 0) };
        let near = Candidate { half_rtt: MS * 69 / 1000, packet: 2544, ..link(9, 1_272_497, 0) };
        let links = [fast, near];
        let takes = |me| matches!(decide(&links, me, 675), Decision::Take { .. });
        assert!(takes(&links[0]) || takes(&links[1]));
    }

    #[test]
    fn a_large_write_goes_to_both_side_by_side() {
        let links = [link(0, 1_000_000, 10), link(1, 1_000_000, 10)];
        assert_eq!(decide(&links, &links[0], 1 << 20), Decision::Take { skip: 0 });
        assert_eq!(decide(&links, &links[1], 1 << 20), Decision::Take { skip: 12_500 });
    }

    #[test]
    fn a_slow_link_takes_what_the_fast_one_reaches_when_it_arrives() {
        let links = [link(0, 10_000_000, 1), link(1, 100_000, 50)];
        // Its 10 kB arrive after 50 + 100 ms, at the latest 1/8 later; the fast link starts after 1 ms.
        let Decision::Take { skip } = decide(&links, &links[1], 10 << 20) else { panic!("must take") };
        assert_eq!(skip, 10_000_000 * 167_750 / 1_000_000);
        assert!(matches!(decide(&links, &links[1], skip), Decision::Wait { .. }), "the tail avoids it");
    }

    #[test]
    fn the_only_link_always_takes() {
        let links = [link(0, 1, 1000)];
        assert_eq!(decide(&links, &links[0], 1), Decision::Take { skip: 0 });
    }

    #[test]
    fn an_overdue_link_loses_its_place() {
        let mut links = [link(0, 1_000_000, 10), link(1, 1_000_000, 20)];
        assert_eq!(earliest(&links, 100).unwrap().id, LinkId(0));
        links[0].overdue = MS * 11;
        assert_eq!(earliest(&links, 100).unwrap().id, LinkId(1));
    }

    #[test]
    fn the_window_covers_the_slowest_way() {
        let mut links = [link(0, 10_000_000, 1), link(1, 100_000, 50)];
        assert_eq!(window_wanted(&links), 2 * 10_100_000 * 150 / 1000);
        links[1].overdue = MS * 500;
        assert_eq!(window_wanted(&links), 2 * 10_100_000 * 150 / 1000, "a late link is not a longer one");
    }
}
