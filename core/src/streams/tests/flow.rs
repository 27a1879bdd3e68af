//! How streams share the receive buffer.

use alloc::collections::BTreeMap;
use alloc::string::String;

use bytes::Bytes;
use proptest::prelude::*;

use super::{byte_at, contents, streams, streams_in};
use crate::id::{Class, Role, StreamId};
use crate::limits::STREAM_WINDOW_MIN_BYTES;
use crate::pool::BufferPool;
use crate::streams::{Control, ReadError, Streams, Violation};

const MIN: u64 = STREAM_WINDOW_MIN_BYTES;

/// One receiving end, and what an honest peer knows of it.
struct Receiver {
    streams: Streams,
    limits: BTreeMap<StreamId, u64>,
    sent: BTreeMap<StreamId, u64>,
    read: BTreeMap<StreamId, u64>,
    buffer_bytes: u64,
}

impl Receiver {
    fn new(buffer_bytes: u64) -> Self {
        Self::with(streams(Role::Responder, buffer_bytes), buffer_bytes)
    }

    fn with(streams: Streams, buffer_bytes: u64) -> Self {
        Self { streams, limits: BTreeMap::new(), sent: BTreeMap::new(), read: BTreeMap::new(), buffer_bytes }
    }

    fn open(&mut self, index: u64) -> StreamId {
        let id = StreamId::new(Role::Initiator, index);
        self.streams.on_open(id, Class::Bulk, 0, String::new()).unwrap();
        self.limits.entry(id).or_insert(MIN);
        id
    }

    /// The peer sends `len` bytes, or up to its limit, in packets of 1200. Returns how many.
    fn fill(&mut self, id: StreamId, len: u64) -> u64 {
        let sent = self.sent.entry(id).or_default();
        let start = *sent;
        let end = self.limits[&id].min(start.saturating_add(len));
        while *sent < end {
            let to = end.min(*sent + 1200);
            self.streams.on_stream(id, *sent, Bytes::from(contents(id.0, *sent..to)), false).unwrap();
            *sent = to;
        }
        end - start
    }

    /// The application reads up to `max` bytes. Returns how many.
    fn read(&mut self, id: StreamId, max: u64) -> u64 {
        let mut left = max;
        while left > 0 {
            match self.streams.read_chunk(id, left as usize) {
                Ok(Some(bytes)) => {
                    let read = self.read.entry(id).or_default();
                    assert!(bytes.iter().zip(*read..).all(|(byte, at)| *byte == byte_at(id.0, at)));
                    *read += bytes.len() as u64;
                    left -= bytes.len() as u64;
                }
                Ok(None) | Err(ReadError::Blocked(_)) => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.tell();
        max - left
    }

    /// The peer hears of new limits; they only rise, and their sum is bounded.
    fn tell(&mut self) {
        while let Some(control) = self.streams.next_control() {
            if let Control::MaxStreamData { id, maximum } = control {
                let old = self.limits.insert(id, maximum);
                assert!(old.is_some_and(|old| maximum > old));
            }
        }
        let committed: u64 = self
            .limits
            .iter()
            .map(|(id, limit)| limit - self.read.get(id).copied().unwrap_or_default())
            .sum();
        assert!(committed <= self.buffer_bytes, "{committed} granted of {}", self.buffer_bytes);
        assert_eq!(committed, self.streams.stats().receive_granted_bytes);
    }

    fn window(&self, id: StreamId) -> u64 {
        self.limits[&id] - self.read.get(&id).copied().unwrap_or_default()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Open(u64),
    Fill(u64, u64),
    Read(u64, u64),
    Wanted(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..12_u64).prop_map(Step::Open),
        (0..12_u64, 0..60_000_u64).prop_map(|(index, len)| Step::Fill(index, len)),
        (0..12_u64, prop_oneof![0..5000_u64, Just(1 << 20)]).prop_map(|(index, len)| Step::Read(index, len)),
        (0..400_000_u64).prop_map(Step::Wanted),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn grants_never_exceed_the_buffer(steps in prop::collection::vec(step(), 1..200)) {
        let mut receiver = Receiver::new(256 << 10);
        for step in steps {
            match step {
                Step::Open(index) => {
                    receiver.open(index);
                }
                Step::Fill(index, len) => {
                    let id = receiver.open(index);
                    receiver.fill(id, len);
                }
                Step::Read(index, len) => {
                    let id = receiver.open(index);
                    receiver.read(id, len);
                }
                Step::Wanted(bytes) => receiver.streams.on_window_wanted(bytes),
            }
            receiver.tell();
        }
    }
}

#[test]
fn one_reader_gets_nearly_all_with_its_first_read() {
    let mut receiver = Receiver::new(48 << 20);
    let id = receiver.open(0);
    receiver.streams.on_window_wanted(1 << 30);
    receiver.fill(id, u64::MAX);
    receiver.read(id, u64::MAX);
    assert!(receiver.window(id) >= (48 << 20) / 2 / 8 * 7, "{}", receiver.window(id));
}

#[test]
fn a_reader_that_keeps_pace_with_the_packets_gets_it_too() {
    let mut receiver = Receiver::new(48 << 20);
    let id = receiver.open(0);
    receiver.streams.on_window_wanted(1 << 20);
    let first_limit = MIN;
    for end in [1200, 2400, 3600, first_limit, first_limit + 1200] {
        let sent = receiver.sent.entry(id).or_default();
        receiver.streams.on_stream(id, *sent, Bytes::from(contents(id.0, *sent..end)), false).unwrap();
        *sent = end;
        receiver.read(id, u64::MAX);
    }
    assert!(receiver.window(id) >= 3 << 18);
}

#[test]
fn a_stream_that_says_little_at_a_time_borrows_nothing() {
    let mut receiver = Receiver::new(48 << 20);
    let id = receiver.open(0);
    receiver.streams.on_window_wanted(1 << 30);
    for _ in 0..5000 {
        receiver.fill(id, 50 + id.0);
        receiver.read(id, u64::MAX);
    }
    // 4096 and its multiples happen to be hit now and then: not more than a doubling for each window's worth.
    let window = receiver.window(id);
    let mut greedy = Receiver::new(48 << 20);
    let id = greedy.open(0);
    greedy.streams.on_window_wanted(1 << 30);
    greedy.fill(id, u64::MAX);
    greedy.read(id, u64::MAX);
    assert!(window <= 2 * MIN, "{window}");
    assert!(greedy.window(id) > 1 << 20);
}

#[test]
fn wanted_bytes_bound_the_window_until_it_proves_too_small() {
    let mut receiver = Receiver::new(48 << 20);
    let id = receiver.open(0);
    receiver.streams.on_window_wanted(100_000);
    receiver.fill(id, u64::MAX);
    receiver.read(id, u64::MAX);
    // A new limit is told once it is a quarter of the window above the last.
    assert!((75_000..=100_000).contains(&receiver.window(id)));
    // More is wanted: granted at once, without another read.
    receiver.streams.on_window_wanted(300_000);
    receiver.tell();
    assert_eq!(receiver.window(id), 300_000);
    // The whole window was used: it doubles.
    receiver.fill(id, u64::MAX);
    receiver.read(id, u64::MAX);
    assert!((450_000..=600_000).contains(&receiver.window(id)));
}

#[test]
fn a_paused_reader_freezes_nobody() {
    let mut receiver = Receiver::new(2 << 20);
    receiver.streams.on_window_wanted(1 << 30);
    let paused = receiver.open(0);
    receiver.fill(paused, u64::MAX);
    receiver.read(paused, u64::MAX);
    // It took what it could, filled it, and is not read any more.
    let hoard = receiver.fill(paused, u64::MAX);
    assert!(hoard > 700_000);
    let before = receiver.window(paused);
    let others: [StreamId; 10] = core::array::from_fn(|n| receiver.open(1 + n as u64));
    for _ in 0..20 {
        for id in others {
            assert!(receiver.fill(id, u64::MAX) >= MIN / 4);
            receiver.read(id, u64::MAX);
        }
    }
    let windows = others.map(|id| receiver.window(id));
    assert!(windows.iter().all(|window| *window >= 8_000), "{windows:?}");
    assert_eq!(receiver.window(paused), before);
    // Once it is read again it goes on.
    receiver.read(paused, u64::MAX);
    assert!(receiver.fill(paused, u64::MAX) > 0);
}

#[test]
fn greedy_readers_end_up_with_equal_parts() {
    let mut receiver = Receiver::new(256 << 10);
    receiver.streams.on_window_wanted(1 << 30);
    let ids: [StreamId; 4] = core::array::from_fn(|n| receiver.open(n as u64));
    for round in 0..150 {
        for (n, id) in ids.into_iter().enumerate() {
            // The first has the buffer to itself for a while.
            if n == 0 || round > 20 {
                receiver.fill(id, 6000);
                receiver.read(id, u64::MAX);
            }
        }
    }
    let windows = ids.map(|id| receiver.window(id));
    let (least, most) = (windows.iter().min().unwrap(), windows.iter().max().unwrap());
    assert!(*most < 2 * *least, "{windows:?}");
}

#[test]
fn ended_streams_give_their_window_back() {
    let mut receiver = Receiver::new(1 << 20);
    receiver.streams.on_window_wanted(1 << 30);
    let id = receiver.open(0);
    receiver.fill(id, u64::MAX);
    receiver.read(id, u64::MAX);
    let sent = receiver.sent[&id];
    assert!(receiver.streams.stats().receive_granted_bytes > 100_000);
    receiver.streams.on_stream(id, sent, Bytes::new(), true).unwrap();
    assert_eq!(receiver.streams.stats().receive_granted_bytes, 0);

    let id = StreamId::new(Role::Initiator, 1);
    receiver.streams.on_stream(id, 0, Bytes::from_static(b"abc"), false).unwrap();
    assert_eq!(receiver.streams.stats().receive_granted_bytes, MIN);
    receiver.streams.on_reset_stream(id, 7, 10).unwrap();
    assert_eq!(receiver.streams.stats().receive_granted_bytes, 0);

    let id = StreamId::new(Role::Initiator, 2);
    receiver.streams.on_stream(id, 0, Bytes::from_static(b"abc"), false).unwrap();
    receiver.streams.stop_sending(id, 7).unwrap();
    assert_eq!(receiver.streams.stats().receive_granted_bytes, 0);
}

#[test]
fn bytes_beyond_the_window_are_a_violation() {
    let mut receiver = Receiver::new(1 << 20);
    let id = receiver.open(0);
    let result = receiver.streams.on_stream(id, MIN - 1, Bytes::from_static(b"ab"), false);
    assert_eq!(result, Err(Violation::FlowControl { id, end: MIN + 1, granted: MIN }));
    let result = receiver.streams.on_stream(id, u64::MAX, Bytes::from_static(b"ab"), false);
    assert!(matches!(result, Err(Violation::FlowControl { .. })));
    let result = receiver.streams.on_reset_stream(id, 0, MIN + 1);
    assert_eq!(result, Err(Violation::FlowControl { id, end: MIN + 1, granted: MIN }));
    assert!(receiver.streams.on_stream(id, MIN - 2, Bytes::from_static(b"ab"), false).is_ok());
}

/// Fills and reads the first stream until its window no longer grows. Returns that window.
fn grow(receiver: &mut Receiver) -> u64 {
    let id = receiver.open(0);
    receiver.streams.on_window_wanted(1 << 30);
    for _ in 0..20 {
        receiver.fill(id, u64::MAX);
        receiver.read(id, u64::MAX);
    }
    receiver.window(id)
}

#[test]
fn bonds_share_what_their_process_has() {
    let pool = BufferPool::new(1 << 20);
    let bond = || Receiver::with(streams_in(pool.clone(), Role::Responder, 8 << 20), 8 << 20);
    let mut bonds = [bond(), bond(), bond(), bond()];
    let alone = grow(&mut bonds[0]);
    assert!((600_000..=(1 << 20) + MIN).contains(&alone), "{alone}");
    for _ in 0..10 {
        bonds.iter_mut().for_each(|bond| {
            grow(bond);
        });
    }
    let windows = bonds.each_mut().map(grow);
    assert!(windows.iter().all(|window| (150_000..=300_000).contains(window)), "{windows:?}");
    assert!(pool.lent_bytes() <= 1 << 20, "{}", pool.lent_bytes());
    drop(bonds);
    assert_eq!(pool.lent_bytes(), 0);
}

#[test]
fn a_bond_goes_on_when_others_hold_all_there_is() {
    let pool = BufferPool::new(1 << 20);
    pool.change(0, 1 << 20);
    let mut bond = Receiver::with(streams_in(pool.clone(), Role::Responder, 8 << 20), 8 << 20);
    assert_eq!(grow(&mut bond), MIN);
    pool.change(1 << 20, 0);
    assert!(grow(&mut bond) > 600_000);
}
