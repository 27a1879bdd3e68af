//! Datagrams that wait to be sent.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::DatagramStats;
use crate::fragments::{Unsent, cost};
use crate::id::LinkId;
use crate::limits::{DATAGRAM_AGE_MAX, DATAGRAM_FLOWS_MAX, DATAGRAM_MAX_BYTES, DATAGRAM_QUEUE_BYTES};
use crate::time::Instant;
use crate::wire::varint;

/// A datagram could not be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendDatagramError {
    /// It is too large.
    #[error(
        "a datagram of {len} bytes is too large: at most {DATAGRAM_MAX_BYTES} are possible; use a stream"
    )]
    TooLarge {
        /// Its length in bytes.
        len: usize,
    },
    /// The flow's number does not fit the wire format.
    #[error("flow {flow} is too large: at most {} is possible", varint::VARINT_MAX)]
    Flow {
        /// The flow.
        flow: u64,
    },
}

/// A DATAGRAM frame: a whole datagram, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The flow.
    pub flow: u64,
    /// The datagram's number within the bond and direction.
    pub sequence: u64,
    /// Place of the first byte of `data` in the datagram.
    pub offset: usize,
    /// Bytes of the whole datagram.
    pub total: usize,
    /// The bytes.
    pub data: Bytes,
}

/// What a link can take.
#[derive(Clone, Copy, Debug)]
pub struct TakeDatagram {
    /// The link.
    pub link: LinkId,
    /// Flows that have no link yet may choose this one.
    pub takes_new_flows: bool,
    /// Room for the whole DATAGRAM frame, header included.
    pub max_bytes: usize,
    /// The packet holds no other data, so a later one will have no more room: a datagram that does not fit is cut.
    pub may_split: bool,
}

#[derive(Debug)]
struct Outgoing {
    flow: u64,
    at: Instant,
    unsent: Unsent,
}

/// The link of a flow and the numbers of its datagrams that wait.
#[derive(Debug, Default)]
struct Flow {
    link: Option<LinkId>,
    waiting: VecDeque<u64>,
    /// Its place among the flows that wait, or among those that are idle.
    turn: u64,
}

#[derive(Debug, Default)]
pub(super) struct SendQueue {
    /// By their numbers, so the oldest first.
    waiting: BTreeMap<u64, Outgoing>,
    waiting_bytes: usize,
    next_sequence: u64,
    flows: BTreeMap<u64, Flow>,
    next_turn: u64,
    /// Flows with datagrams, by their link (`None`: no link yet), in the order of their turns. No set is empty.
    ready: BTreeMap<Option<LinkId>, BTreeSet<(u64, u64)>>,
    /// Flows without datagrams, idle for the longest first.
    idle: BTreeSet<(u64, u64)>,
}

impl SendQueue {
    pub(super) fn push(
        &mut self,
        now: Instant,
        flow: u64,
        data: Bytes,
        stats: &mut DatagramStats,
    ) -> Result<(), SendDatagramError> {
        if data.len() > DATAGRAM_MAX_BYTES {
            return Err(SendDatagramError::TooLarge { len: data.len() });
        }
        if flow > varint::VARINT_MAX {
            return Err(SendDatagramError::Flow { flow });
        }
        stats.sent += 1;
        self.expire(now, stats);
        while self.waiting_bytes + cost(data.len()) > DATAGRAM_QUEUE_BYTES && self.drop_oldest() {
            stats.dropped_queue_full += 1;
        }
        self.waiting_bytes += cost(data.len());
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.waiting.insert(sequence, Outgoing { flow, at: now, unsent: Unsent::new(data) });
        self.update(flow, |state| state.waiting.push_back(sequence));
        Ok(())
    }

    /// Changes a flow, gives it a new turn, and sorts it in anew.
    fn update(&mut self, flow: u64, change: impl FnOnce(&mut Flow)) {
        let state = self.flows.entry(flow).or_default();
        if state.waiting.is_empty() {
            self.idle.remove(&(state.turn, flow));
        } else if let Some(ready) = self.ready.get_mut(&state.link) {
            ready.remove(&(state.turn, flow));
            if ready.is_empty() {
                self.ready.remove(&state.link);
            }
        }
        let was_ready = !state.waiting.is_empty();
        let link = state.link;
        change(state);
        // More datagrams do not put a flow back in the queue; being served does.
        if !was_ready || state.link != link || state.waiting.is_empty() {
            self.next_turn += 1;
            state.turn = self.next_turn;
        }
        if state.waiting.is_empty() {
            state.waiting = VecDeque::new();
            self.idle.insert((state.turn, flow));
            self.forget_idle();
        } else {
            self.ready.entry(state.link).or_default().insert((state.turn, flow));
        }
    }

    #[cfg(test)]
    pub(super) fn flows(&self) -> usize {
        self.flows.len()
    }

    fn forget_idle(&mut self) {
        while self.idle.len() > DATAGRAM_FLOWS_MAX {
            if let Some((_, flow)) = self.idle.pop_first() {
                self.flows.remove(&flow);
            }
        }
    }

    /// When the oldest datagram was handed in.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(_, datagram)| datagram.at)
    }

    pub(super) fn expire(&mut self, now: Instant, stats: &mut DatagramStats) {
        while self.oldest().is_some_and(|at| now - at >= DATAGRAM_AGE_MAX) && self.drop_oldest() {
            stats.dropped_too_old += 1;
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((_, oldest)) = self.waiting.pop_first() else { return false };
        self.waiting_bytes -= oldest.unsent.cost();
        // The oldest of all is the oldest of its flow.
        self.update(oldest.flow, |state| {
            state.waiting.pop_front();
        });
        true
    }

    pub(super) fn has_work(&self, link: LinkId, takes_new_flows: bool) -> bool {
        self.ready.contains_key(&Some(link)) || takes_new_flows && self.ready.contains_key(&None)
    }

    pub(super) fn is_all_sent(&self) -> bool {
        self.ready.is_empty()
    }

    fn first_of(&self, link: Option<LinkId>) -> Option<(u64, u64)> {
        self.ready.get(&link)?.first().copied()
    }

    pub(super) fn next_bytes(&self) -> u64 {
        let next = || {
            let (_, flow) = self.first_of(None)?;
            let sequence = self.flows.get(&flow)?.waiting.front()?;
            self.waiting.get(sequence).map(|datagram| datagram.unsent.data.len() as u64)
        };
        next().unwrap_or_default()
    }

    pub(super) fn take(&mut self, take: TakeDatagram) -> Option<Fragment> {
        let own = self.first_of(Some(take.link));
        let new = self.first_of(None).filter(|_| take.takes_new_flows);
        let (_, flow) = own.into_iter().chain(new).min()?;
        let sequence = *self.flows.get(&flow)?.waiting.front()?;
        let unsent = &mut self.waiting.get_mut(&sequence)?.unsent;
        let total = unsent.data.len();
        let part = unsent.cut(flow, sequence, take.max_bytes, take.may_split)?;
        if part.is_last
            && let Some(datagram) = self.waiting.remove(&sequence)
        {
            self.waiting_bytes -= datagram.unsent.cost();
        }
        self.serve(flow, take.link, part.is_last);
        Some(Fragment { flow, sequence, offset: part.offset, total, data: part.data })
    }

    /// A flow was served: it stays on the link, and after a whole datagram others have their turn.
    fn serve(&mut self, flow: u64, link: LinkId, is_last: bool) {
        self.update(flow, |state| {
            state.link = Some(link);
            if is_last {
                state.waiting.pop_front();
            }
        });
        if is_last {
            self.requeue(flow);
        }
    }

    /// Gives a flow the last turn on its link.
    fn requeue(&mut self, flow: u64) {
        let Some(state) = self.flows.get_mut(&flow) else { return };
        if let Some(ready) = self.ready.get_mut(&state.link)
            && ready.remove(&(state.turn, flow))
        {
            self.next_turn += 1;
            state.turn = self.next_turn;
            ready.insert((state.turn, flow));
        }
    }

    pub(super) fn link_unusable(&mut self, link: LinkId) {
        for state in self.flows.values_mut().filter(|state| state.link == Some(link)) {
            state.link = None;
        }
        if let Some(ready) = self.ready.remove(&Some(link)) {
            self.ready.entry(None).or_default().extend(ready);
        }
    }
}
