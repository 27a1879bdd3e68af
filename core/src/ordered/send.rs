//! Ordered datagrams that wait to be sent.

use alloc::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::OrderedStats;
use crate::fragments::{Unsent, cost};
use crate::limits::{ORDERED_AGE_MAX, ORDERED_QUANTUM_BYTES, ORDERED_QUEUE_MIN_BYTES};
use crate::time::Instant;

/// An ORDERED_DATAGRAM frame: a whole datagram, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderedFragment {
    /// The flow.
    pub flow: u8,
    /// The datagram's number within the flow.
    pub number: u64,
    /// Place of the first byte of `data` in the datagram.
    pub offset: usize,
    /// Bytes of the whole datagram.
    pub total: usize,
    /// The bytes.
    pub data: Bytes,
}

/// What a link can take.
#[derive(Clone, Copy, Debug)]
pub struct TakeOrdered {
    /// A datagram of a flow that had nothing waiting until now.
    pub fresh: bool,
    /// One of the other flows, with about so many bytes before it that other links will have sent when it arrives.
    pub ahead: Option<u64>,
    /// Room for the whole frame, header included.
    pub max_bytes: usize,
    /// The packet holds no other data, so a later one will have no more room: a datagram that does not fit is cut.
    pub may_split: bool,
}

#[derive(Debug)]
struct Outgoing {
    number: u64,
    at: Instant,
    unsent: Unsent,
}

/// In which list a flow stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Turn {
    #[default]
    Idle,
    Fresh,
    Busy,
}

#[derive(Debug, Default)]
struct Flow {
    next_number: u64,
    waiting: VecDeque<Outgoing>,
    bytes: usize,
    turn: Turn,
    /// Bytes that it may send before others have their turn.
    credit_bytes: usize,
}

#[derive(Debug)]
pub(super) struct SendQueue {
    /// Those that were ever used, at most 256: they keep their numbers.
    flows: BTreeMap<u8, Flow>,
    bytes: usize,
    limit_bytes: usize,
    /// Flows with datagrams, in the order of their turns.
    fresh: VecDeque<u8>,
    busy: VecDeque<u8>,
    /// When to look for what is too old.
    look_at: Option<Instant>,
}

impl Default for SendQueue {
    fn default() -> Self {
        Self {
            flows: BTreeMap::new(),
            bytes: 0,
            limit_bytes: ORDERED_QUEUE_MIN_BYTES,
            fresh: VecDeque::new(),
            busy: VecDeque::new(),
            look_at: None,
        }
    }
}

impl SendQueue {
    pub(super) fn set_limit(&mut self, bytes: usize) {
        self.limit_bytes = bytes;
    }

    pub(super) fn push(&mut self, now: Instant, flow: u8, data: Bytes, stats: &mut OrderedStats) {
        stats.sent += 1;
        while self.bytes + cost(data.len()) > self.limit_bytes && self.bytes > 0 {
            stats.dropped_queue_full += 1;
            if !self.drop_instead_of(flow) {
                return;
            }
        }
        self.sort();
        let state = self.flows.entry(flow).or_default();
        self.bytes += cost(data.len());
        state.bytes += cost(data.len());
        state.waiting.push_back(Outgoing { number: state.next_number, at: now, unsent: Unsent::new(data) });
        state.next_number += 1;
        if state.turn == Turn::Idle {
            state.turn = Turn::Fresh;
            state.credit_bytes = ORDERED_QUANTUM_BYTES;
            self.fresh.push_back(flow);
        }
        self.look_at.get_or_insert(now + ORDERED_AGE_MAX);
    }

    /// Makes room for a datagram of `flow`: the longest flow loses its last one. False if that is the new one itself. A number
    /// that was given is dropped only if none after it has been sent, so that the other end need not wait for it.
    fn drop_instead_of(&mut self, flow: u8) -> bool {
        let Some((&longest, state)) = self.flows.iter_mut().max_by_key(|(_, state)| state.bytes) else {
            return false;
        };
        let is_last = |last: &Outgoing| last.number + 1 == state.next_number && !last.unsent.is_begun();
        if longest == flow || !state.waiting.back().is_some_and(is_last) {
            return false;
        }
        if let Some(last) = state.waiting.pop_back() {
            state.next_number = last.number;
            state.bytes -= last.unsent.cost();
            self.bytes -= last.unsent.cost();
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(super) fn next_fresh_bytes(&self) -> Option<u64> {
        let flow = self.fresh.front()?;
        let first = self.flows.get(flow)?.waiting.front()?;
        Some(first.unsent.rest() as u64)
    }

    pub(super) fn backlog(&self) -> u64 {
        // What counts for itself is little beside this.
        let fresh: usize =
            self.fresh.iter().filter_map(|flow| self.flows.get(flow)).map(|flow| flow.bytes).sum();
        (self.bytes - fresh) as u64
    }

    pub(super) fn take(&mut self, take: TakeOrdered) -> Option<OrderedFragment> {
        self.sort();
        let (flow, ahead) = match (self.fresh.front().filter(|_| take.fresh), take.ahead) {
            (Some(&flow), _) => (flow, 0),
            (None, Some(ahead)) => (*self.busy.front()?, ahead),
            (None, None) => return None,
        };
        let backlog = self.backlog();
        let state = self.flows.get_mut(&flow)?;
        let place = state.place(ahead, backlog);
        let Outgoing { number, unsent, .. } = state.waiting.get_mut(place)?;
        let (number, total) = (*number, unsent.data.len());
        let part = unsent.cut(flow.into(), number, take.max_bytes, take.may_split)?;
        state.credit_bytes = state.credit_bytes.saturating_sub(part.data.len().max(1));
        if part.is_last
            && let Some(sent) = state.waiting.remove(place)
        {
            state.bytes -= sent.unsent.cost();
            self.bytes -= sent.unsent.cost();
        }
        self.sort();
        Some(OrderedFragment { flow, number, offset: part.offset, total, data: part.data })
    }

    /// Puts flows that have had their turn, or have nothing left, where they belong.
    fn sort(&mut self) {
        while let Some(&flow) = self.fresh.front()
            && let Some(state) = self.flows.get_mut(&flow)
            && (state.waiting.is_empty() || state.credit_bytes == 0)
        {
            // One that has nothing left stays for a round, too, or it would be fresh, and first, again and again.
            self.fresh.pop_front();
            state.turn = Turn::Busy;
            state.credit_bytes = ORDERED_QUANTUM_BYTES;
            self.busy.push_back(flow);
        }
        while let Some(&flow) = self.busy.front()
            && let Some(state) = self.flows.get_mut(&flow)
        {
            if state.waiting.is_empty() {
                self.busy.pop_front();
                state.turn = Turn::Idle;
                state.waiting = VecDeque::new();
            } else if state.credit_bytes == 0 {
                state.credit_bytes = ORDERED_QUANTUM_BYTES;
                self.busy.rotate_left(1);
            } else {
                break;
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.look_at
    }

    /// Drops what is too old. The other end waits for its numbers for a moment, if there is anything to wait with.
    pub(super) fn expire(&mut self, now: Instant, stats: &mut OrderedStats) {
        if self.look_at.is_none_or(|at| at > now) {
            return;
        }
        for state in self.flows.values_mut() {
            while state.waiting.front().is_some_and(|first| now - first.at >= ORDERED_AGE_MAX)
                && let Some(old) = state.waiting.pop_front()
            {
                state.bytes -= old.unsent.cost();
                self.bytes -= old.unsent.cost();
                stats.dropped_too_old += 1;
            }
        }
        let oldest =
            self.flows.values().filter_map(|state| state.waiting.front()).map(|first| first.at).min();
        self.look_at = oldest.map(|at| at + ORDERED_AGE_MAX);
        self.sort();
    }
}

impl Flow {
    /// The datagram before which `ahead` of `backlog` bytes lie, if each flow has its share of them.
    fn place(&self, ahead: u64, backlog: u64) -> usize {
        let ahead = u128::from(ahead) * self.bytes as u128 / u128::from(backlog.max(1));
        let mut before = 0_u128;
        let reaches = |datagram: &Outgoing| {
            before += datagram.unsent.cost() as u128;
            before > ahead
        };
        self.waiting.iter().position(reaches).unwrap_or(self.waiting.len().saturating_sub(1))
    }
}
