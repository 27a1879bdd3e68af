//! What a link's next packet is for: decided without changing anything.

use smallvec::SmallVec;

use super::Connection;
use crate::event::LinkState;
use crate::id::{Class, LinkId};
use crate::limits::{
    MTU_MIN_BYTES, ORDERED_QUEUE_MAX_BYTES, ORDERED_QUEUE_MIN_BYTES, ORDERED_QUEUE_TIME, ORDERED_SPREAD_MAX,
};
use crate::link::rate::bytes_in;
use crate::link::{BondState, Link};
use crate::scheduler::{self, Candidate, Decision};
use crate::time::{Duration, Instant};

/// Time after the last interactive data during which links keep their queues short.
const INTERACTIVE_TIME: Duration = Duration::from_secs(2);

/// All links at one moment, as far as the choice among them needs.
pub(super) struct Field {
    /// Links that carry data, in the order of their ids.
    pub(super) candidates: SmallVec<[Candidate; 8]>,
    /// The link that carries what may go anywhere.
    pub(super) control: Option<LinkId>,
    pub(super) bond: BondState,
}

impl Field {
    /// Whether `length` bytes would arrive first over `link`. The same length for every link: were it a packet of each, all
    /// could take another for the first.
    pub(super) fn is_first_for(&self, link: LinkId, length: u64) -> bool {
        scheduler::earliest(&self.candidates, length).is_some_and(|first| first.id == link)
    }

    /// Links that deliver little later than the first one, for ordered datagrams. What a much later one carries would be waited for
    /// in vain. Of what is in flight only that counts which waits: a link with a long round trip holds much, and is not late. One whose
    /// rate is yet unknown is tried ([`Candidate::bold`]): nobody else would find it out, since the queue is short.
    fn near(&self) -> SmallVec<[Candidate; 8]> {
        let mut near: SmallVec<[Candidate; 8]> =
            self.candidates.iter().map(|candidate| candidate.bold().without_way()).collect();
        let arrival = |candidate: &Candidate| candidate.arrival(MTU_MIN_BYTES as u64);
        let latest = near.iter().map(arrival).min().unwrap_or_default() + ORDERED_SPREAD_MAX;
        near.retain(|candidate| arrival(candidate) <= latest);
        near
    }

    /// Bytes of ordered datagrams that may wait.
    pub(super) fn ordered_queue_bytes(&self) -> usize {
        let rates = self.candidates.iter().fold(0_u64, |sum, candidate| sum.saturating_add(candidate.rate));
        let bytes = usize::try_from(bytes_in(rates, ORDERED_QUEUE_TIME)).unwrap_or(usize::MAX);
        bytes.clamp(ORDERED_QUEUE_MIN_BYTES, ORDERED_QUEUE_MAX_BYTES)
    }
}

/// What a link's next packet is for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// An acknowledgement for the link itself.
    pub(super) ack: bool,
    /// Acknowledgements for links on which nothing comes back, or that take none.
    pub(super) foreign_acks: bool,
    pub(super) close: bool,
    pub(super) control: bool,
    pub(super) probe: bool,
    pub(super) datagrams: bool,
    /// An ordered datagram of a flow that had nothing waiting.
    pub(super) ordered_fresh: bool,
    /// Those of other flows, from so many bytes behind the first.
    pub(super) ordered: Option<u64>,
    pub(super) interactive: bool,
    /// Second copies of what other links sent.
    pub(super) copies: bool,
    pub(super) redundant: bool,
    /// Bulk data from this many unsent bytes behind the first.
    pub(super) bulk: Option<u64>,
    /// There is data, but other links are to send it: look again then, should they not have.
    pub(super) think_again: Option<Duration>,
}

impl Plan {
    pub(super) fn has_data(&self) -> bool {
        let ordered = self.ordered_fresh || self.ordered.is_some();
        self.datagrams || ordered || self.interactive || self.copies || self.redundant || self.bulk.is_some()
    }

    pub(super) fn is_nothing(&self) -> bool {
        let Self { ack, foreign_acks, close, control, probe, .. } = *self;
        !(ack || foreign_acks || close || control || probe || self.has_data())
    }
}

impl Connection {
    pub(super) fn plan(&self, now: Instant, link: &Link, field: &Field) -> Plan {
        if link.state() == LinkState::Joining {
            return Plan::default();
        }
        let anywhere = field.control == Some(link.id);
        let mut plan = Plan {
            ack: link.acks.is_due(),
            foreign_acks: self.brings_foreign_acks(link.id, field),
            close: self.closing.wants(now, link.id),
            ..Plan::default()
        };
        if !self.closing.is_open() {
            return plan;
        }
        plan.probe = link.wants_probe();
        let last_resort = link.state() == LinkState::Suspect && anywhere && plan.probe;
        let may_control = last_resort || (anywhere && link.state() == LinkState::Active);
        plan.control = may_control && self.has_control(field);
        if last_resort {
            self.plan_last_resort(&mut plan, link.id);
        } else if let Some(me) = field.candidates.iter().find(|candidate| candidate.id == link.id) {
            if let Some(wait) = link.time_to_send(now) {
                plan.think_again = Some(wait).filter(|_| self.has_data(link.id));
            } else if link.has_room(field.bond) {
                self.plan_data(now, &mut plan, me, field);
            } else if self.has_data(link.id) {
                // Its window grows when interactive data has not been sent for a while, whatever waits here.
                plan.think_again = self.interactive_time_left(now);
            }
        }
        plan
    }

    /// When a link that leaves control frames to a better one looks again: that one may take no packet, and get late.
    pub(super) fn time_to_think_of_control(&self, id: LinkId, field: &Field) -> Option<Duration> {
        if !self.closing.is_open() || field.control == Some(id) || !self.has_control(field) {
            return None;
        }
        let me = field.candidates.iter().find(|candidate| candidate.id == id)?;
        scheduler::time_to_think(&field.candidates, me, 0)
    }

    /// The plan for a link while there is no shared work: what it owes for itself.
    pub(super) fn plan_own(&self, now: Instant, link: &Link) -> Plan {
        let is_in = link.state() != LinkState::Joining;
        let plan =
            Plan { ack: is_in && link.acks.is_due(), probe: is_in && link.wants_probe(), ..Plan::default() };
        debug_assert_eq!(plan, self.plan(now, link, &self.field(now)), "there is shared work");
        plan
    }

    /// All links are silent, and this one is probed: the probe carries what waits most.
    fn plan_last_resort(&self, plan: &mut Plan, id: LinkId) {
        plan.interactive = self.streams.has_work(Class::Interactive);
        plan.redundant = self.streams.has_redundant_work(id);
        plan.bulk = self.streams.has_work(Class::Bulk).then_some(0);
    }

    fn plan_data(&self, now: Instant, plan: &mut Plan, me: &Candidate, field: &Field) {
        let first_for = |length: u64| field.is_first_for(me.id, length);
        let (interactive, datagram) = (self.streams.backlog(Class::Interactive), self.datagrams.next_bytes());
        plan.interactive = interactive > 0
            && (first_for(interactive) || self.is_one_of_two_copies(now, me, interactive, field));
        plan.think_again = [(interactive, plan.interactive), (datagram, first_for(datagram))]
            .into_iter()
            .filter(|&(bytes, takes)| bytes > 0 && !takes)
            .filter_map(|(bytes, _)| scheduler::time_to_think(&field.candidates, me, bytes))
            .min();
        plan.datagrams = self.datagrams.has_work(me.id, first_for(datagram));
        plan.copies = self.copies.are_for(me.id);
        plan.redundant = self.streams.has_redundant_work(me.id);
        self.plan_ordered(plan, me, field);
        if self.streams.has_work(Class::Bulk) {
            match scheduler::decide(&field.candidates, me, self.streams.backlog(Class::Bulk)) {
                Decision::Take { skip } => plan.bulk = Some(skip),
                Decision::Wait { think_again } => {
                    plan.think_again = plan.think_again.into_iter().chain(think_again).min();
                }
            }
        }
    }

    /// Ordered datagrams are spread as bulk data is, over links that deliver them soon enough after the first.
    fn plan_ordered(&self, plan: &mut Plan, me: &Candidate, field: &Field) {
        let mut think_again = |after: Option<Duration>| {
            plan.think_again = plan.think_again.into_iter().chain(after).min();
        };
        if let Some(bytes) = self.ordered.next_fresh_bytes() {
            plan.ordered_fresh = field.is_first_for(me.id, bytes);
            if !plan.ordered_fresh {
                think_again(scheduler::time_to_think(&field.candidates, me, bytes));
            }
        }
        let backlog = self.ordered.backlog();
        if backlog == 0 {
            return;
        }
        let near = field.near();
        let Some(me) = near.iter().find(|candidate| candidate.id == me.id) else {
            return think_again(scheduler::time_to_think(&field.candidates, me, MTU_MIN_BYTES as u64));
        };
        match scheduler::decide(&near, me, backlog) {
            Decision::Take { skip } => plan.ordered = Some(skip),
            Decision::Wait { think_again: after } => think_again(after),
        }
    }

    /// Whether anything waits that more than one link could carry.
    pub(super) fn has_shared_work(&self) -> bool {
        let classes = [Class::Interactive, Class::Bulk, Class::Redundant];
        !self.closing.is_open()
            || classes.into_iter().any(|class| self.streams.has_work(class))
            || !self.copies.is_empty()
            || self.streams.has_control()
            || self.control.has_status()
            || !self.datagrams.is_all_sent()
            || !self.ordered.is_all_sent()
            || self.links.iter().any(is_foreign_ack_due)
    }

    /// Looks at all links at once.
    pub(super) fn field(&self, now: Instant) -> Field {
        let bond = self.bond_state(now);
        let rank = self.rank_in_use();
        let mut candidates: SmallVec<[Candidate; 8]> = self
            .links
            .iter()
            .filter(|link| link.state() == LinkState::Active && rank.is_some() && link.rank() == rank)
            .map(|link| link.candidate(now, bond))
            .collect();
        scheduler::apply_weights(&mut candidates);
        let control = scheduler::earliest(&candidates, 0)
            .map(|candidate| candidate.id)
            .or_else(|| self.links.iter().find(|link| link.state() == LinkState::Active).map(|link| link.id))
            .or_else(|| self.least_late());
        Field { candidates, control, bond }
    }

    pub(super) fn bond_state(&self, now: Instant) -> BondState {
        BondState {
            interactive: self.interactive_at.is_some_and(|at| now - at < INTERACTIVE_TIME),
            has_proven_link: self
                .links
                .iter()
                .any(|link| link.state() == LinkState::Active && link.is_proven()),
        }
    }

    /// Among suspect links the one that answered last: it goes on with one packet for each probe.
    fn least_late(&self) -> Option<LinkId> {
        let suspects = self.links.iter().filter(|link| link.state() == LinkState::Suspect);
        suspects.max_by_key(|link| (link.progress_at(), core::cmp::Reverse(link.id))).map(|link| link.id)
    }

    /// Time until links may fill their queues again, if interactive data keeps them short now.
    fn interactive_time_left(&self, now: Instant) -> Option<Duration> {
        let left = self.interactive_at? + INTERACTIVE_TIME - now;
        (!left.is_zero()).then_some(left)
    }

    /// Whether anything waits that `id` could carry.
    pub(super) fn has_data(&self, id: LinkId) -> bool {
        self.streams.has_work(Class::Interactive)
            || self.streams.has_work(Class::Bulk)
            || self.copies.are_for(id)
            || self.streams.has_redundant_work(id)
            || self.datagrams.has_work(id, true)
            || !self.ordered.is_all_sent()
    }

    fn has_control(&self, field: &Field) -> bool {
        self.streams.has_control() || self.control.has_status() || self.window_to_tell(field).is_some()
    }

    /// The window to ask the peer for. Asked only while there is bulk data, which is what it serves.
    pub(super) fn window_to_tell(&self, field: &Field) -> Option<u64> {
        if !self.streams.has_work(Class::Bulk) {
            return None;
        }
        self.control.window_to_tell(self.window_wanted(field))
    }

    pub(super) fn window_wanted(&self, field: &Field) -> u64 {
        scheduler::window_wanted(&field.candidates).min(self.config.send_buffer_bytes)
    }

    /// Acknowledgements of links that do not bring them travel on the best other link; on any other one if the best is among
    /// those links.
    fn brings_foreign_acks(&self, id: LinkId, field: &Field) -> bool {
        if !self.links.iter().any(|link| link.id != id && is_foreign_ack_due(link)) {
            return false;
        }
        let is_late = |id: LinkId| self.links.iter().any(|link| link.id == id && is_foreign_ack_due(link));
        field.control.is_some_and(|control| control == id || (is_late(control) && !is_late(id)))
    }
}

/// A link on which this end's own packets go unanswered cannot be trusted to bring back acknowledgements either. Nor does
/// one that takes no packet: the peer would think that its own do not arrive.
pub(super) fn is_foreign_ack_due(link: &Link) -> bool {
    match link.state() {
        LinkState::Suspect => link.acks.is_owed_elsewhere(),
        LinkState::Active => link.acks.is_due_elsewhere(),
        LinkState::Joining | LinkState::Closed => false,
    }
}
