//! Ordered datagrams that arrive: put together, and put in order.

use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::OrderedStats;
use super::send::OrderedFragment;
use crate::limits::{
    DATAGRAM_OVERHEAD_BYTES, DATAGRAM_REASSEMBLY_BYTES, ORDERED_AGE_MAX, ORDERED_HOLD_BYTES,
    ORDERED_HOLD_TIME, ORDERED_MAX_BYTES, ORDERED_UNREAD_BYTES,
};
use crate::range_set::RangeSet;
use crate::time::Instant;

/// A datagram of which fragments are missing.
#[derive(Debug)]
struct Partial {
    /// When its last fragment came.
    at: Instant,
    bytes: Vec<u8>,
    received: RangeSet,
}

/// A datagram that came early.
#[derive(Debug)]
struct Held {
    at: Instant,
    data: Bytes,
}

#[derive(Debug, Default)]
struct Flow {
    /// The number that is next in order.
    next: u64,
    held: BTreeMap<u64, Held>,
    /// Since when it holds something for the one that is missing.
    since: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Receiver {
    partial: BTreeMap<(u8, u64), Partial>,
    /// The same by age, the oldest first.
    by_age: BTreeSet<(Instant, (u8, u64))>,
    partial_bytes: usize,
    /// Those that were ever used, at most 256.
    flows: BTreeMap<u8, Flow>,
    held_bytes: usize,
    /// Flows that hold something, by since when.
    waiting: BTreeSet<(Instant, u8)>,
    ready: VecDeque<Bytes>,
    ready_bytes: usize,
    /// The application has been told, or will be, that there are datagrams.
    announced: bool,
    to_announce: bool,
}

/// What a datagram counts, so that many small ones are bounded too.
fn cost(len: usize) -> usize {
    len + DATAGRAM_OVERHEAD_BYTES
}

impl Receiver {
    pub(super) fn insert(&mut self, now: Instant, fragment: OrderedFragment, stats: &mut OrderedStats) {
        let OrderedFragment { flow, number, offset, total, data } = fragment;
        let key = (flow, number);
        let end = offset.saturating_add(data.len());
        let contradicts = self.partial.get(&key).is_some_and(|known| known.bytes.len() != total);
        if contradicts || total > ORDERED_MAX_BYTES || end > total || data.is_empty() && total > 0 {
            stats.contradicting_fragments += 1;
            return;
        }
        self.expire(now, stats);
        if data.len() == total {
            self.remove(key);
            return self.arrived(now, flow, number, data, stats);
        }
        self.make_room(now, key, total, stats);
        let Some(partial) = self.partial.get_mut(&key) else { return };
        partial.bytes[offset..end].copy_from_slice(&data);
        partial.received.insert(offset as u64..end as u64);
        if partial.received.covered_bytes() == total as u64
            && let Some(partial) = self.remove(key)
        {
            self.arrived(now, flow, number, partial.bytes.into(), stats);
        }
    }

    /// Finds a datagram that is under way, or begins one, and notes that a fragment came.
    fn make_room(&mut self, now: Instant, key: (u8, u64), total: usize, stats: &mut OrderedStats) {
        match self.partial.get_mut(&key) {
            Some(partial) => {
                self.by_age.remove(&(partial.at, key));
                partial.at = now;
            }
            None => {
                while self.partial_bytes + cost(total) > DATAGRAM_REASSEMBLY_BYTES
                    && let Some(&(_, oldest)) = self.by_age.first()
                {
                    self.remove(oldest);
                    stats.incomplete += 1;
                }
                self.partial_bytes += cost(total);
                let (bytes, received) = (vec![0; total], RangeSet::new());
                self.partial.insert(key, Partial { at: now, bytes, received });
            }
        }
        self.by_age.insert((now, key));
    }

    fn remove(&mut self, key: (u8, u64)) -> Option<Partial> {
        let partial = self.partial.remove(&key)?;
        self.by_age.remove(&(partial.at, key));
        self.partial_bytes -= cost(partial.bytes.len());
        Some(partial)
    }

    /// A whole datagram: hands it on if it is next, and what was held for it.
    fn arrived(&mut self, now: Instant, flow: u8, number: u64, data: Bytes, stats: &mut OrderedStats) {
        stats.received += 1;
        let state = self.flows.entry(flow).or_default();
        if number > state.next {
            // A copy, so that it does not keep a whole receive buffer.
            let held = Held { at: now, data: Bytes::copy_from_slice(&data) };
            if state.since.is_none() {
                state.since = Some(now);
                self.waiting.insert((now, flow));
            }
            if let Entry::Vacant(place) = state.held.entry(number) {
                place.insert(held);
                stats.held += 1;
                self.held_bytes += cost(data.len());
            }
            while self.held_bytes > ORDERED_HOLD_BYTES && self.give_up_first(stats) {}
            return;
        }
        if number < state.next {
            stats.late += 1;
            return self.hand_on(data, stats);
        }
        state.next += 1;
        self.hand_on(data, stats);
        self.hand_on_held(flow, stats);
    }

    /// Hands on what is next in order of what a flow holds. What is left waits for another gap.
    fn hand_on_held(&mut self, flow: u8, stats: &mut OrderedStats) {
        let Some(state) = self.flows.get_mut(&flow) else { return };
        let Some(since) = state.since.take() else { return };
        self.waiting.remove(&(since, flow));
        let mut ready = Vec::new();
        while let Some(held) = state.held.remove(&state.next) {
            state.next += 1;
            self.held_bytes -= cost(held.data.len());
            ready.push(held.data);
        }
        if let Some((_, first)) = state.held.first_key_value() {
            state.since = Some(if ready.is_empty() { since } else { first.at });
            self.waiting.extend(state.since.map(|since| (since, flow)));
        }
        ready.into_iter().for_each(|data| self.hand_on(data, stats));
    }

    /// Waits no longer for what is missing in the flow that has waited for the longest.
    fn give_up_first(&mut self, stats: &mut OrderedStats) -> bool {
        let Some(&(_, flow)) = self.waiting.first() else { return false };
        if let Some(state) = self.flows.get_mut(&flow)
            && let Some((&first, _)) = state.held.first_key_value()
        {
            stats.missed = stats.missed.saturating_add(first - state.next);
            state.next = first;
        }
        self.hand_on_held(flow, stats);
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let held = self.waiting.first().map(|(at, _)| *at + ORDERED_HOLD_TIME);
        let partial = self.by_age.first().map(|(at, _)| *at + ORDERED_AGE_MAX);
        held.into_iter().chain(partial).min()
    }

    pub(super) fn expire(&mut self, now: Instant, stats: &mut OrderedStats) {
        while self.waiting.first().is_some_and(|(at, _)| now - *at >= ORDERED_HOLD_TIME)
            && self.give_up_first(stats)
        {}
        while let Some(&(at, oldest)) = self.by_age.first()
            && now - at >= ORDERED_AGE_MAX
        {
            self.remove(oldest);
            stats.incomplete += 1;
        }
    }

    fn hand_on(&mut self, data: Bytes, stats: &mut OrderedStats) {
        while self.ready_bytes + cost(data.len()) > ORDERED_UNREAD_BYTES && self.pop_ready().is_some() {
            stats.dropped_unread += 1;
        }
        self.ready_bytes += cost(data.len());
        self.ready.push_back(data);
        self.to_announce |= !self.announced;
        self.announced = true;
    }

    fn pop_ready(&mut self) -> Option<Bytes> {
        let data = self.ready.pop_front()?;
        self.ready_bytes -= cost(data.len());
        Some(data)
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let data = self.pop_ready();
        self.announced = data.is_some();
        data
    }

    pub(super) fn poll_readable(&mut self) -> bool {
        core::mem::take(&mut self.to_announce)
    }
}
