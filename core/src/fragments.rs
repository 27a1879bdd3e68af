//! What both kinds of datagrams do: cut fragments off, put them together again, and keep for the application what is whole.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::limits::{DATAGRAM_OVERHEAD_BYTES, DATAGRAM_REASSEMBLY_BYTES};
use crate::range_set::RangeSet;
use crate::time::Instant;
use crate::wire::varint;

/// What a datagram of `len` bytes counts in memory, so that many small ones are bounded too.
pub(crate) fn cost(len: usize) -> usize {
    len + DATAGRAM_OVERHEAD_BYTES
}

/// A datagram that waits to be sent, or the rest of it.
#[derive(Debug)]
pub(crate) struct Unsent {
    pub(crate) data: Bytes,
    /// Bytes that went in earlier fragments.
    sent: usize,
}

/// What is cut off for one frame.
pub(crate) struct Part {
    pub(crate) offset: usize,
    pub(crate) data: Bytes,
    /// Nothing is left.
    pub(crate) is_last: bool,
}

impl Unsent {
    pub(crate) fn new(data: Bytes) -> Self {
        Self { data, sent: 0 }
    }

    /// Whether a part of it has been cut off.
    pub(crate) fn is_begun(&self) -> bool {
        self.sent > 0
    }

    /// Bytes that are left.
    pub(crate) fn rest(&self) -> usize {
        self.data.len() - self.sent
    }

    /// What its memory counts.
    pub(crate) fn cost(&self) -> usize {
        cost(self.data.len())
    }

    /// The next part that fits into `max_bytes` with the header of its frame, which has a flow and a number in front. All of the rest,
    /// unless the datagram may be cut.
    pub(crate) fn cut(&mut self, flow: u64, number: u64, max_bytes: usize, may_split: bool) -> Option<Part> {
        let (total, offset, rest) = (self.data.len(), self.sent, self.rest());
        let fields = [flow, number, offset as u64, total as u64, rest as u64];
        let overhead = 1 + fields.map(varint::len).iter().sum::<usize>();
        let room = max_bytes.checked_sub(overhead)?;
        if room < rest && (!may_split || room == 0) {
            return None;
        }
        let data = self.data.slice(offset..offset + rest.min(room));
        self.sent += data.len();
        Some(Part { offset, data, is_last: self.sent == total })
    }
}

#[derive(Debug)]
struct Partial {
    at: Instant,
    bytes: Vec<u8>,
    received: RangeSet,
}

/// Datagrams of which fragments are missing, by a key of their own.
#[derive(Debug)]
pub(crate) struct Partials<K> {
    by_key: BTreeMap<K, Partial>,
    /// The same by age, the oldest first.
    by_age: BTreeSet<(Instant, K)>,
    bytes: usize,
}

impl<K> Default for Partials<K> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), by_age: BTreeSet::new(), bytes: 0 }
    }
}

impl<K: Copy + Ord> Partials<K> {
    /// The first one from this key on, and its length in bytes.
    pub(crate) fn first_from(&self, key: K) -> Option<(K, usize)> {
        self.by_key.range(key..).next().map(|(key, partial)| (*key, partial.bytes.len()))
    }

    /// Whether there is memory for a datagram of this key and length; there is, if it has begun.
    pub(crate) fn has_room(&self, key: K, total: usize) -> bool {
        self.by_key.contains_key(&key) || self.bytes + cost(total) <= DATAGRAM_REASSEMBLY_BYTES
    }

    /// Puts a fragment in, which must lie within `total` bytes; returns how many of its bytes are new. The datagram begins now if it has
    /// not yet.
    pub(crate) fn insert(&mut self, now: Instant, key: K, total: usize, offset: usize, data: &[u8]) -> u64 {
        let partial = self.by_key.entry(key).or_insert_with(|| {
            self.bytes += cost(total);
            self.by_age.insert((now, key));
            Partial { at: now, bytes: vec![0; total], received: RangeSet::new() }
        });
        let end = offset + data.len();
        partial.bytes[offset..end].copy_from_slice(data);
        partial.received.insert(offset as u64..end as u64)
    }

    /// It is no older than this.
    pub(crate) fn renew(&mut self, now: Instant, key: K) {
        if let Some(partial) = self.by_key.get_mut(&key) {
            self.by_age.remove(&(partial.at, key));
            partial.at = now;
            self.by_age.insert((now, key));
        }
    }

    /// Takes the datagram out if it is whole.
    pub(crate) fn take_whole(&mut self, key: K) -> Option<Bytes> {
        let partial = self.by_key.get(&key)?;
        if partial.received.covered_bytes() < partial.bytes.len() as u64 {
            return None;
        }
        self.remove(key).map(Bytes::from)
    }

    /// Forgets it; what there was.
    pub(crate) fn remove(&mut self, key: K) -> Option<Vec<u8>> {
        let partial = self.by_key.remove(&key)?;
        self.by_age.remove(&(partial.at, key));
        self.bytes -= cost(partial.bytes.len());
        Some(partial.bytes)
    }

    /// The oldest, and since when it is there.
    pub(crate) fn oldest(&self) -> Option<(Instant, K)> {
        self.by_age.first().copied()
    }
}

/// Whole datagrams for the application, each with what belongs to it.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    whole: VecDeque<(T, Bytes)>,
    bytes: usize,
    /// The application has been told, or will be, that there are datagrams.
    announced: bool,
    to_announce: bool,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self { whole: VecDeque::new(), bytes: 0, announced: false, to_announce: false }
    }
}

impl<T> Inbox<T> {
    /// Keeps one, in at most `limit_bytes` with those before it; returns how many of these are dropped for it.
    pub(crate) fn push(&mut self, about: T, data: Bytes, limit_bytes: usize) -> u64 {
        let mut dropped = 0;
        while self.bytes + cost(data.len()) > limit_bytes && self.take().is_some() {
            dropped += 1;
        }
        self.bytes += cost(data.len());
        self.whole.push_back((about, data));
        self.to_announce |= !self.announced;
        self.announced = true;
        dropped
    }

    fn take(&mut self) -> Option<(T, Bytes)> {
        let first = self.whole.pop_front()?;
        self.bytes -= cost(first.1.len());
        Some(first)
    }

    /// The first one.
    pub(crate) fn pop(&mut self) -> Option<(T, Bytes)> {
        let first = self.take();
        self.announced = first.is_some();
        first
    }

    /// Whether some have come since [`pop`](Self::pop) found none. True once each time.
    pub(crate) fn poll_readable(&mut self) -> bool {
        core::mem::take(&mut self.to_announce)
    }
}
