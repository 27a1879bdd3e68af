//! Ordered datagrams that arrive: put together, and put in order.

use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;

use super::OrderedStats;
use super::send::OrderedFragment;
use crate::fragments::{Inbox, Partials, cost};
use crate::limits::{
    ORDERED_AGE_MAX, ORDERED_HOLD_BYTES, ORDERED_HOLD_TIME, ORDERED_MAX_BYTES, ORDERED_UNREAD_BYTES,
};
use crate::time::Instant;

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
    /// By flow, and number.
    partial: Partials<(u8, u64)>,
    /// Those that were ever used, at most 256.
    flows: BTreeMap<u8, Flow>,
    held_bytes: usize,
    /// Flows that hold something, by since when.
    waiting: BTreeSet<(Instant, u8)>,
    ready: Inbox<()>,
}

impl Receiver {
    pub(super) fn insert(&mut self, now: Instant, fragment: OrderedFragment, stats: &mut OrderedStats) {
        let OrderedFragment { flow, number, offset, total, data } = fragment;
        let key = (flow, number);
        let end = offset.saturating_add(data.len());
        let known = self.partial.first_from(key).filter(|(found, _)| *found == key);
        let contradicts = known.is_some_and(|(_, known)| known != total);
        if contradicts || total > ORDERED_MAX_BYTES || end > total || data.is_empty() && total > 0 {
            stats.contradicting_fragments += 1;
            return;
        }
        self.expire(now, stats);
        if data.len() == total {
            self.partial.remove(key);
            return self.arrived(now, flow, number, data, stats);
        }
        while !self.partial.has_room(key, total) && self.drop_oldest(stats) {}
        self.partial.insert(now, key, total, offset, &data);
        // A slow line is slow: what still comes is not too old.
        self.partial.renew(now, key);
        if let Some(whole) = self.partial.take_whole(key) {
            self.arrived(now, flow, number, whole, stats);
        }
    }

    fn drop_oldest(&mut self, stats: &mut OrderedStats) -> bool {
        let Some((_, oldest)) = self.partial.oldest() else { return false };
        self.partial.remove(oldest);
        stats.incomplete += 1;
        true
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
        let partial = self.partial.oldest().map(|(at, _)| at + ORDERED_AGE_MAX);
        held.into_iter().chain(partial).min()
    }

    pub(super) fn expire(&mut self, now: Instant, stats: &mut OrderedStats) {
        while self.waiting.first().is_some_and(|(at, _)| now - *at >= ORDERED_HOLD_TIME)
            && self.give_up_first(stats)
        {}
        while self.partial.oldest().is_some_and(|(at, _)| now - at >= ORDERED_AGE_MAX)
            && self.drop_oldest(stats)
        {}
    }

    fn hand_on(&mut self, data: Bytes, stats: &mut OrderedStats) {
        stats.dropped_unread += self.ready.push((), data, ORDERED_UNREAD_BYTES);
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.ready.pop().map(|((), data)| data)
    }

    pub(super) fn poll_readable(&mut self) -> bool {
        self.ready.poll_readable()
    }
}
