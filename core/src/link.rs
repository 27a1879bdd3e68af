//! One link of a bond: what it has in flight, what it has received, and what it is good for.

pub(crate) mod ack;
mod hold;
mod pace;
pub(crate) mod rate;
pub(crate) mod rtt;
pub(crate) mod sent;
mod state;
pub(crate) mod way_back;
pub(crate) mod window;

pub(crate) use state::Expired;

use self::ack::Acks;
use self::hold::Hold;
use self::pace::Pace;
use self::rate::{Growth, Rate, RateSample, transmit_time};
use self::rtt::Rtt;
use self::sent::{Sent, SentFrames, SentPacket};
use self::way_back::WayBack;
use self::window::{Conditions, Window};
use crate::config::{LinkInfo, LinkPolicy};
use crate::event::{LinkSnapshot, LinkState, LinkStats};
use crate::id::LinkId;
use crate::limits;
use crate::policy::Rank;
use crate::scheduler::Candidate;
use crate::time::{Duration, Instant};
use crate::wire::ack::Ack;

/// What a link of unknown rate is guessed to carry in a round trip, in bytes, while others carry the bond.
const PROBATION_BYTES: u64 = 1200;
/// A link with one part in so many of another's rate is much slower: what it holds in a search is long for the other.
const OUTPACED_BY: u64 = 16;

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) info: LinkInfo,
    /// The link whose place this one takes as soon as it is active.
    pub(crate) replaces: Option<LinkId>,
    /// Changed by `state.rs` alone.
    state: LinkState,
    since: Instant,

    /// Policy set at this end.
    policy: LinkPolicy,
    /// Policy the peer asked for, and the sequence number of its wish.
    peer_policy: LinkPolicy,
    peer_policy_sequence: Option<u64>,
    /// Time without traffic after which this link is probed, where it differs from the bond's.
    pub(crate) keep_alive: Option<Duration>,
    hold: Hold,
    pace: Pace,
    /// Bytes of bulk data sent since weights were last set or links changed.
    pub(crate) share_bytes: u64,
    /// Bytes of ordered datagrams that it was given.
    pub(crate) ordered_bytes: u64,

    next_number: u64,
    /// Highest number the peer has acknowledged.
    pub(crate) largest_acked: Option<u64>,
    phase: KeyPhase,
    pub(crate) sent: Sent,
    pub(crate) rtt: Rtt,
    way_back: WayBack,
    rate: Rate,
    growth: Growth,
    window: Window,
    watch: Watch,

    pub(crate) acks: Acks,
    /// The connection's epoch at which this link was told "nothing for you"; `None` while it is busy.
    pub(crate) idle_since_epoch: Option<u64>,
    /// It was woken because it has data to send, and has not asked for any yet: until then others leave small writes to it.
    pub(crate) comes_for_data_by: Option<Instant>,
    /// The code of the LINK_CLOSE that a closed link still has to send.
    pub(crate) farewell: Option<u64>,
    pub(crate) stats: LinkStats,
}

/// Which key seals what is sent. An update is begun only once the one before was acknowledged.
#[derive(Debug, Default)]
struct KeyPhase {
    phase: u64,
    first_number: u64,
}

/// What decides whether the link is still trusted. Deadlines are derived from these in `state.rs`.
#[derive(Debug)]
struct Watch {
    /// When the peer last acknowledged something new.
    progress_at: Instant,
    /// When the last ack-eliciting packet left.
    eliciting_at: Instant,
    /// When anything last arrived.
    heard_at: Instant,
    /// Unanswered probes in a row, and when the first of them became due.
    probes: u32,
    first_probe_at: Instant,
    /// A probe is to be sent as soon as the link takes a packet.
    probe_wanted: bool,
    /// After a late call no deadline lies before this, so that inputs that waited are seen first.
    grace_until: Instant,
}

/// What a link must know of the bond it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BondState {
    /// An interactive stream was active lately.
    pub(crate) interactive: bool,
    /// There is a link whose rate is known.
    pub(crate) has_proven_link: bool,
}

/// The newest packet that an acknowledgement names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Newest {
    number: u64,
    pub(crate) sent_at: Instant,
    /// Its round trip says something.
    sampled: bool,
}

/// What a caller must do about packets that an acknowledgement settled.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) acked_bytes: u64,
    pub(crate) newest: Option<Newest>,
}

impl Link {
    pub(crate) fn new(now: Instant, id: LinkId, info: LinkInfo, state: LinkState) -> Self {
        let rtt = Rtt::new(now, info.rtt);
        let window = Window::new(info.rate_hint, info.reliable, &rtt);
        Self {
            id,
            info,
            replaces: None,
            state,
            since: now,
            policy: LinkPolicy::default(),
            peer_policy: LinkPolicy::default(),
            peer_policy_sequence: None,
            keep_alive: None,
            hold: Hold::default(),
            pace: Pace::new(now),
            share_bytes: 0,
            ordered_bytes: 0,
            next_number: 0,
            largest_acked: None,
            phase: KeyPhase::default(),
            sent: Sent::default(),
            rtt,
            way_back: WayBack::default(),
            rate: Rate::new(now),
            growth: Growth::default(),
            window,
            watch: Watch::new(now),
            acks: Acks::default(),
            idle_since_epoch: None,
            comes_for_data_by: None,
            farewell: None,
            stats: LinkStats::default(),
        }
    }

    pub(crate) fn state(&self) -> LinkState {
        self.state
    }

    /// What this end wants the link used for.
    pub(crate) fn policy(&self) -> &LinkPolicy {
        &self.policy
    }

    /// What holds of both ends' policies.
    pub(crate) fn effective_policy(&self) -> LinkPolicy {
        self.policy.with_peer(self.peer_policy)
    }

    /// The link's place among others; `None` if it carries no data.
    pub(crate) fn rank(&self) -> Option<Rank> {
        let rank = self.effective_policy().rank()?;
        Some(if self.hold.until().is_some() { Rank::LAST } else { rank })
    }

    /// Sets this end's policy.
    pub(crate) fn set_policy(&mut self, now: Instant, policy: LinkPolicy) {
        self.policy = policy;
        self.pace.set_cap(now, self.effective_policy().cap_bytes_per_second);
    }

    /// The peer said what it wants the link used for. Wishes may arrive out of order.
    pub(crate) fn on_peer_policy(&mut self, now: Instant, sequence: u64, policy: LinkPolicy) {
        if self.peer_policy_sequence < Some(sequence) {
            self.peer_policy_sequence = Some(sequence);
            self.peer_policy = policy;
            self.pace.set_cap(now, self.effective_policy().cap_bytes_per_second);
        }
    }

    /// Time until the link's cap lets it send data again, if it does not now.
    pub(crate) fn time_to_send(&self, now: Instant) -> Option<Duration> {
        self.pace.time_to_send(now)
    }

    /// Number of the next packet, and the phase of the key that seals it.
    pub(crate) fn next_packet(&mut self) -> (u64, u64) {
        let update_acked = self.phase.phase == 0 || self.largest_acked >= Some(self.phase.first_number);
        if self.next_number - self.phase.first_number >= limits::KEY_PHASE_PACKETS && update_acked {
            self.phase = KeyPhase { phase: self.phase.phase + 1, first_number: self.next_number };
        }
        (self.next_number, self.phase.phase)
    }

    /// Number that the next packet will have.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// A packet left with the number of [`Self::next_packet`].
    pub(crate) fn on_sent(&mut self, now: Instant, bytes: usize, eliciting: bool, frames: SentFrames) {
        let number = self.next_number;
        self.next_number += 1;
        self.stats.sent_packets += 1;
        self.stats.sent_bytes += bytes as u64;
        self.pace.on_sent(now, bytes as u64);
        if !eliciting {
            return;
        }
        let stamp = self.rate.on_sent(now, self.sent.bytes());
        let (sampled, bytes) = (self.state == LinkState::Active, bytes as u32);
        self.watch.on_eliciting_sent(now);
        self.sent.push(SentPacket { number, at: now, bytes, frames, stamp, sampled, moved: false });
    }

    /// Books one packet that the peer has.
    pub(crate) fn settle_acked(&mut self, now: Instant, packet: &SentPacket, settled: &mut Settled) {
        settled.acked_bytes += u64::from(packet.bytes);
        let SentPacket { number, at, sampled, .. } = *packet;
        settled.newest = Some(Newest { number, sent_at: at, sampled });
        if packet.sampled {
            self.rate.on_acked(now, packet.stamp, packet.at, u64::from(packet.bytes));
        }
    }

    /// Feeds the estimators once all packets of an acknowledgement are booked; `ack` is that, if it came over this link:
    /// others say nothing about its round trip. With `is_outpaced` another link of the bond is much faster.
    pub(crate) fn finish_settling(
        &mut self,
        now: Instant,
        settled: &Settled,
        ack: Option<&Ack>,
        is_outpaced: bool,
    ) {
        let Some(Newest { number, sent_at, sampled }) = settled.newest else { return };
        if sampled && let Some(ack) = ack {
            let delay = Duration::from_micros(ack.delay_us);
            self.rtt.on_sample(now, now - sent_at, delay.min(self.info.peer_ack_delay));
            if number == ack.largest {
                self.way_back.on_sample(now, sent_at, ack.arrival_us, now - sent_at, self.rtt.base());
            }
        }
        if let Some(sample) = self.rate.finish_ack(self.rtt.base()) {
            // The age counts whatever way the acknowledgement took.
            self.on_rate_sample(sample, settled.acked_bytes, is_outpaced.then_some(now - sent_at));
        }
        self.watch.on_progress(now);
    }

    fn on_rate_sample(&mut self, sample: RateSample, acked: u64, age: Option<Duration>) {
        let in_flight = self.sent.bytes();
        let conditions = self.conditions(BondState::default());
        let was_full = !sample.app_limited
            || self.window.is_filled_by(in_flight.saturating_add(acked), &self.rtt, conditions);
        if sample.round_started {
            self.growth.on_round(conditions.rate.unwrap_or(0), was_full);
        }
        if was_full {
            let bytes = in_flight.saturating_add(acked);
            let is_queued = age.is_some_and(|age| Window::is_queue(age, bytes, conditions.rate, &self.rtt));
            self.window.on_ack(acked, in_flight, &self.growth, is_queued);
        }
    }

    /// Whether this link still searches for its rate while `other` is known to be much faster.
    pub(crate) fn is_outpaced_by(&self, other: &Self) -> bool {
        let rates = self.rate.bytes_per_second().zip(other.rate.bytes_per_second());
        !self.growth.is_over() && rates.is_some_and(|(mine, others)| others / OUTPACED_BY >= mine)
    }

    /// The rate in bytes per second, if the link is kept full and carries no more.
    pub(crate) fn rate_found(&self) -> Option<u64> {
        self.rate.bytes_per_second().filter(|_| self.growth.is_over())
    }

    /// The link was offered less than it would take.
    pub(crate) fn on_app_limited(&mut self) {
        self.rate.on_app_limited(self.sent.bytes());
    }

    /// Bytes that may be in flight.
    pub(crate) fn window_bytes(&self, bond: BondState) -> u64 {
        self.window.limit(&self.rtt, self.conditions(bond))
    }

    /// Whether another packet may go out.
    pub(crate) fn has_room(&self, bond: BondState) -> bool {
        self.sent.len() < limits::SENT_PACKETS_MAX && self.sent.bytes() < self.window_bytes(bond)
    }

    /// Largest packet to make now, in bytes, tag included.
    pub(crate) fn packet_bytes(&self, bond: BondState) -> usize {
        let bytes = self.window.packet_bytes(self.conditions(bond));
        // A packet much larger than the burst of a cap would hold up the link for long.
        let capped = self.pace.burst_bytes().map_or(bytes, |burst| bytes.min(burst));
        capped.max(limits::MTU_MIN_BYTES as u64).min(bytes) as usize
    }

    /// Whether anything is known of the link's rate.
    pub(crate) fn is_proven(&self) -> bool {
        self.known_rate().is_some()
    }

    fn known_rate(&self) -> Option<u64> {
        self.rate.bytes_per_second().or(self.info.rate_hint)
    }

    fn conditions(&self, bond: BondState) -> Conditions {
        Conditions {
            rate: self.rate.bytes_per_second(),
            reliable: self.info.reliable,
            interactive: bond.interactive,
            way_back: self.way_back.excess(),
            on_probation: bond.has_proven_link && !self.is_proven(),
            mtu: self.info.mtu_bytes as u64,
        }
    }

    /// The estimated rate. Before the first sample, that at which the first window would arrive; on probation the
    /// cautious guess of one small packet each round trip.
    pub(crate) fn rate_or_guess(&self, bond: BondState) -> u64 {
        self.known_rate().unwrap_or_else(|| {
            let first = if bond.has_proven_link { PROBATION_BYTES } else { limits::INITIAL_WINDOW_BYTES };
            first.saturating_mul(1_000_000_000) / (self.rtt.base().as_nanos().max(1) as u64)
        })
    }

    /// The link as the scheduler sees it.
    pub(crate) fn candidate(&self, now: Instant, bond: BondState) -> Candidate {
        let age = self.sent.oldest_at().map_or(Duration::ZERO, |at| now - at);
        let explained = self.rtt.smoothed() + self.rtt.variation4() + self.info.peer_ack_delay;
        let cap = self.pace.cap().unwrap_or(u64::MAX);
        let measured = self.rate.bytes_per_second().map(|rate| self.window.rate_expected(rate, &self.rtt));
        let rate = measured.unwrap_or_else(|| self.rate_or_guess(bond)).min(cap);
        Candidate {
            id: self.id,
            half_rtt: self.rtt.base() / 2,
            rate,
            is_on_trial: self.info.rate_hint.is_none() && self.ordered_bytes < limits::ORDERED_TRIAL_BYTES,
            rate_soon: self.window.rate_soon(&self.rtt).min(cap).max(rate),
            weight: self.effective_policy().weight,
            share_bytes: self.share_bytes,
            in_flight: self.sent.bytes(),
            overdue: age.saturating_sub(explained) + self.pace.time_to_send(now).unwrap_or_default(),
            late_in: if self.sent.is_empty() { Duration::MAX } else { explained.saturating_sub(age) },
            packet: self.packet_bytes(bond) as u64,
        }
    }

    /// Silence that makes the link suspect, with what it holds.
    fn silence_limit(&self) -> Duration {
        let queue = transmit_time(self.sent.bytes(), self.rate_or_guess(BondState::default()));
        self.rtt.silence_limit(queue.min(limits::SILENCE_QUEUE_MAX))
    }

    pub(crate) fn snapshot(&self, bond: BondState) -> LinkSnapshot {
        LinkSnapshot {
            id: self.id,
            name: self.info.name.clone(),
            kind: self.info.kind,
            state: self.state,
            since: self.since,
            policy: self.policy,
            peer_policy: self.peer_policy,
            held_until: self.hold.until(),
            rate: self.rate.bytes_per_second(),
            rtt: self.rtt.measured(),
            rtt_base: self.rtt.base(),
            in_flight_bytes: self.sent.bytes(),
            window_bytes: self.window_bytes(bond),
            mtu_bytes: self.info.mtu_bytes,
            idle: None,
            stats: self.stats,
        }
    }
}
