//! Two ends, and between them links that lose, delay, reorder and repeat.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{byte_at, contents, join, streams};
use crate::id::{Class, LinkId, Role, StreamId};
use crate::streams::{
    Control, Pieces, ReadError, SentStream, StreamEvent, Streams, Take, Violation, WriteError,
};

/// Small and good enough; the same numbers for the same seed everywhere (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone)]
enum Frame {
    Stream { link: LinkId, sent: SentStream, data: Bytes, moved: bool },
    Control(Control),
}

struct End {
    streams: Streams,
    links: Vec<LinkId>,
    /// What is on its way to the other end.
    under_way: Vec<Frame>,
    /// What has arrived there, or was lost, and is not settled here.
    unsettled: Vec<(Frame, bool)>,
    /// Bytes still to be written.
    to_write: BTreeMap<StreamId, (u64, u64)>,
    read: BTreeMap<StreamId, u64>,
    ended: BTreeMap<StreamId, u64>,
    finished: Vec<StreamId>,
    /// Streams may be given up before their end, by either application.
    rude: bool,
}

impl End {
    fn new(role: Role, receive_buffer_bytes: u64, rude: bool) -> Self {
        Self {
            rude,
            streams: streams(role, receive_buffer_bytes),
            links: Vec::new(),
            under_way: Vec::new(),
            unsettled: Vec::new(),
            to_write: BTreeMap::new(),
            read: BTreeMap::new(),
            ended: BTreeMap::new(),
            finished: Vec::new(),
        }
    }

    fn open(&mut self, random: &mut Random, len: u64) -> Option<StreamId> {
        let class = [Class::Bulk, Class::Interactive, Class::Redundant][random.below(3)];
        let id = self.streams.open(class, random.below(3) as u8, "test").ok()?;
        self.to_write.insert(id, (0, len));
        self.read.insert(id, 0);
        Some(id)
    }

    fn write(&mut self, random: &mut Random) {
        let Some((&id, &(done, len))) = self.to_write.iter().nth(random.below(self.to_write.len())) else {
            return;
        };
        if done == len {
            let ended = self.streams.finish(id);
            assert!(ended.is_ok() || self.rude, "{ended:?}");
            self.to_write.remove(&id);
            return;
        }
        let end = len.min(done + 1 + random.below(5000) as u64);
        let mut data = Bytes::from(contents(id.0, done..end));
        let result = if random.one_in(2) {
            self.streams.write(id, &data)
        } else {
            self.streams.write_chunk(id, &mut data)
        };
        match result {
            Ok(written) => self.to_write.insert(id, (done + written as u64, len)),
            Err(WriteError::Blocked(_)) => None,
            Err(error) => {
                assert!(self.rude, "{error}");
                self.to_write.remove(&id)
            }
        };
    }

    fn send(&mut self, random: &mut Random) {
        while let Some(control) = self.streams.next_control() {
            if random.one_in(8) {
                self.streams.control_lost(&control.key());
                break;
            }
            self.under_way.push(Frame::Control(control));
        }
        let Some(&link) = self.links.get(random.below(self.links.len())) else { return };
        let class = [Class::Bulk, Class::Interactive, Class::Redundant][random.below(3)];
        let skip_bytes = if random.one_in(3) { random.below(6000) as u64 } else { 0 };
        let room = [60, 1400, 1400, 1400][random.below(4)];
        let max_bytes = 3 + random.below(room);
        let mut pieces = Pieces::new();
        if let Some(sent) = self.streams.take(Take { link, class, skip_bytes, max_bytes }, &mut pieces) {
            self.check(&sent, &pieces, max_bytes);
            self.under_way.push(Frame::Stream { link, sent, data: join(&pieces), moved: false });
        } else if random.one_in(4) {
            self.give_up_one(random);
        }
    }

    /// Something under way is late: it goes again, and may arrive all the same.
    fn give_up_one(&mut self, random: &mut Random) {
        let count = self.under_way.len();
        if count == 0 {
            return;
        }
        if let Frame::Stream { link, sent, moved: moved @ false, .. } =
            &mut self.under_way[random.below(count)]
        {
            *moved = true;
            self.streams.on_lost(*link, sent);
        }
    }

    fn check(&self, sent: &SentStream, pieces: &Pieces, max_bytes: usize) {
        let data = join(pieces);
        assert_eq!(data, contents(sent.id.0, sent.offset..sent.offset + u64::from(sent.len)));
        let overhead = crate::wire::packet::stream_overhead(sent.id, sent.offset);
        assert!(overhead + data.len() <= max_bytes);
        assert!(!data.is_empty() || sent.fin);
    }

    fn settle(&mut self, random: &mut Random) {
        if self.unsettled.is_empty() {
            return;
        }
        let (frame, arrived) = self.unsettled.swap_remove(random.below(self.unsettled.len()));
        match (frame, arrived) {
            (Frame::Stream { link, sent, .. }, true) => {
                self.streams.on_acked(link, &sent);
            }
            (Frame::Stream { link, sent, moved: false, .. }, false) => {
                self.streams.on_lost(link, &sent);
            }
            (Frame::Stream { moved: true, .. }, false) => {}
            (Frame::Control(control), true) => self.streams.control_acked(&control.key()),
            (Frame::Control(control), false) => self.streams.control_lost(&control.key()),
        }
    }

    fn read(&mut self, random: &mut Random) {
        while let Some(accepted) = self.streams.accept() {
            assert_eq!(accepted.label, "test");
            assert!(self.read.insert(accepted.id, 0).is_none());
            // An answer in the other direction.
            let len = random.below(9000) as u64;
            self.to_write.insert(accepted.id, (0, len));
        }
        let ids: Vec<StreamId> = self.read.keys().copied().collect();
        let Some(&id) = ids.get(random.below(ids.len())) else { return };
        match self.streams.read_chunk(id, 1 + random.below(3000)) {
            Ok(Some(bytes)) => {
                let read = self.read.get_mut(&id).unwrap();
                assert!(
                    bytes.iter().zip(*read..).all(|(byte, at)| *byte == byte_at(id.0, at)),
                    "{id} at {read}"
                );
                *read += bytes.len() as u64;
            }
            Ok(None) => {
                self.ended.insert(id, self.read.remove(&id).unwrap());
            }
            Err(ReadError::Blocked(_)) => {}
            Err(error) => {
                assert!(self.rude, "{error}");
                self.read.remove(&id);
            }
        }
    }

    /// The application gives up a stream, or a half of one.
    fn give_up(&mut self, random: &mut Random) {
        let ids: Vec<StreamId> = self.read.keys().chain(self.to_write.keys()).copied().collect();
        let Some(&id) = ids.get(random.below(ids.len())) else { return };
        match random.below(3) {
            0 => {
                let _ = self.streams.reset(id, 1);
                self.to_write.remove(&id);
            }
            1 => {
                let _ = self.streams.stop_sending(id, 2);
                self.read.remove(&id);
            }
            _ => {
                self.streams.close(id);
                self.to_write.remove(&id);
                self.read.remove(&id);
            }
        }
    }

    fn hear(&mut self) {
        while let Some(event) = self.streams.poll_event() {
            if let StreamEvent::Finished(id) = event {
                assert!(!self.finished.contains(&id));
                self.finished.push(id);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.to_write.is_empty() && self.read.is_empty() && self.streams.stats().open == 0
    }

    fn assert_empty(&self) {
        assert!(self.streams.streams.is_empty());
        let stats = self.streams.stats();
        assert_eq!((stats.send_buffered_bytes, stats.receive_granted_bytes, stats.lost_bytes), (0, 0, 0));
        assert_eq!(stats.waiting_pieces, 0);
        assert!(self.streams.is_all_acknowledged());
        for class in [Class::Bulk, Class::Interactive, Class::Redundant] {
            assert!(!self.streams.has_work(class));
        }
        assert!(self.streams.borrowers.is_empty());
    }
}

/// Takes in a frame of the other end's.
fn arrive(streams: &mut Streams, frame: Frame) -> Result<(), Violation> {
    match frame {
        Frame::Stream { sent, data, .. } => {
            let received = streams.on_stream(sent.id, sent.offset, data, sent.fin)?;
            assert_eq!(received.new_bytes + received.duplicate_bytes, u64::from(sent.len));
            Ok(())
        }
        Frame::Control(Control::OpenStream { id, class, priority, label }) => {
            streams.on_open(id, class, priority, label)
        }
        Frame::Control(Control::MaxStreamData { id, maximum }) => streams.on_max_stream_data(id, maximum),
        Frame::Control(Control::MaxStreams { count }) => {
            streams.on_max_streams(count);
            Ok(())
        }
        Frame::Control(Control::ResetStream { id, code, final_size }) => {
            streams.on_reset_stream(id, code, final_size)
        }
        Frame::Control(Control::StopSending { id, code }) => streams.on_stop_sending(id, code),
    }
}

/// One frame from `from` to `to`: lost, delivered, or delivered and taken for lost.
fn carry(random: &mut Random, loss_one_in: usize, from: &mut End, to: &mut End) {
    if from.under_way.is_empty() {
        return;
    }
    let frame = from.under_way.swap_remove(random.below(from.under_way.len()));
    if loss_one_in > 0 && random.one_in(loss_one_in) {
        from.unsettled.push((frame, false));
        return;
    }
    arrive(&mut to.streams, frame.clone()).unwrap();
    if loss_one_in > 0 && random.one_in(20) {
        // Repeated by a sender that gave up too early.
        from.unsettled.push((frame.clone(), false));
    }
    from.unsettled.push((frame, true));
}

fn change_links(random: &mut Random, end: &mut End) {
    let link = LinkId(random.below(4) as u32);
    if let Some(index) = end.links.iter().position(|there| *there == link) {
        end.links.remove(index);
        // All that the link held is lost, as far as this end knows. Some of it arrives even so.
        for frame in core::mem::take(&mut end.under_way) {
            match frame {
                Frame::Stream { link: on, sent, moved, .. } if on == link => {
                    if !moved {
                        end.streams.on_lost(link, &sent);
                    }
                }
                other => end.under_way.push(other),
            }
        }
        end.streams.link_removed(link);
    } else {
        end.links.push(link);
        end.streams.link_added(link);
    }
}

fn run(seed: u64, rude: bool) {
    let mut random = Random(seed);
    let buffer = [64 << 10, 1 << 20][random.below(2)];
    let mut ends = [End::new(Role::Initiator, buffer, rude), End::new(Role::Responder, buffer, rude)];
    for end in &mut ends {
        end.streams.link_added(LinkId(0));
        end.links.push(LinkId(0));
    }
    let mut lengths = BTreeMap::new();
    for step in 0..400_000 {
        let [a, b] = &mut ends;
        let (from, to) = if random.one_in(2) { (a, b) } else { (b, a) };
        let calm = step > 3000;
        match random.below(if calm { 6 } else { 7 }) {
            0 => from.write(&mut random),
            1 => from.send(&mut random),
            2 => carry(&mut random, if calm { 0 } else { 6 }, from, to),
            3 => from.settle(&mut random),
            4 => from.read(&mut random),
            5 => from.hear(),
            _ if rude && random.one_in(40) => from.give_up(&mut random),
            _ if random.one_in(30) => change_links(&mut random, from),
            _ if random.one_in(60) && from.streams.stats().opened < 6 => {
                let len = [0, 1, 3000, 20_000][random.below(4)];
                lengths.extend(from.open(&mut random, len).map(|id| (id, len)));
            }
            _ => {}
        }
        if calm {
            for end in &mut ends {
                if end.links.is_empty() {
                    end.links.push(LinkId(7));
                    end.streams.link_added(LinkId(7));
                }
            }
            let quiet = ends.iter().all(|end| end.under_way.is_empty() && end.unsettled.is_empty());
            if quiet && ends.iter().all(End::is_done) {
                ends.iter().for_each(End::assert_empty);
                for (id, len) in lengths.into_iter().filter(|_| !rude) {
                    let accepter = if id.opener() == Role::Initiator { 1 } else { 0 };
                    assert_eq!(ends[accepter].ended[&id], len);
                    assert!(ends.iter().all(|end| end.finished.contains(&id)));
                }
                return;
            }
        }
    }
    panic!("seed {seed}: not done; {:#?}", ends.map(|end| (end.to_write, end.read, end.streams.stats())));
}

#[test]
fn everything_arrives_whatever_the_links_do() {
    for seed in 0..150 {
        run(seed, false);
    }
}

#[test]
fn streams_that_are_given_up_leave_nothing() {
    for seed in 0..150 {
        run(seed, true);
    }
}

/// Carries one frame, and acknowledges it. Returns whether there was one.
fn exchange_one(from: &mut Streams, to: &mut Streams) -> bool {
    if let Some(control) = from.next_control() {
        let key = control.key();
        arrive(to, Frame::Control(control)).unwrap();
        from.control_acked(&key);
        return true;
    }
    [Class::Interactive, Class::Redundant, Class::Bulk].into_iter().any(|class| {
        let mut pieces = Pieces::new();
        let take = Take { link: LinkId(0), class, skip_bytes: 0, max_bytes: 1200 };
        let Some(sent) = from.take(take, &mut pieces) else { return false };
        to.on_stream(sent.id, sent.offset, join(&pieces), sent.fin).unwrap();
        from.on_acked(LinkId(0), &sent);
        true
    })
}

/// Carries everything both ways until nothing moves any more.
fn exchange([a, b]: &mut [Streams; 2]) {
    while exchange_one(a, b) || exchange_one(b, a) {}
}

fn pair(receive_buffer_bytes: u64) -> [Streams; 2] {
    let mut ends =
        [streams(Role::Initiator, receive_buffer_bytes), streams(Role::Responder, receive_buffer_bytes)];
    ends.iter_mut().for_each(|end| end.link_added(LinkId(0)));
    ends
}

#[test]
fn many_short_streams_one_after_another_leave_nothing() {
    let mut ends = pair(64 << 10);
    for n in 0..10_000_u64 {
        let id = ends[0]
            .open([Class::Bulk, Class::Interactive, Class::Redundant][n as usize % 3], 0, "x")
            .unwrap();
        ends[0].write(id, b"question").unwrap();
        ends[0].finish(id).unwrap();
        exchange(&mut ends);
        assert_eq!(ends[1].accept().unwrap().id, id);
        assert_eq!(ends[1].read_chunk(id, 99).unwrap().unwrap(), "question");
        assert_eq!(ends[1].read_chunk(id, 99), Ok(None));
        match n % 4 {
            0 => ends[1].reset(id, 1).unwrap(),
            1 => ends[1].close(id),
            _ => {
                ends[1].write(id, b"answer").unwrap();
                ends[1].finish(id).unwrap();
            }
        }
        exchange(&mut ends);
        match n % 4 {
            0 => assert_eq!(ends[0].read_chunk(id, 99), Err(ReadError::Reset { id, code: 1 })),
            1 => assert_eq!(ends[0].read_chunk(id, 99), Ok(None)),
            2 => ends[0].close(id),
            _ => {
                assert_eq!(ends[0].read_chunk(id, 99).unwrap().unwrap(), "answer");
                assert_eq!(ends[0].read_chunk(id, 99), Ok(None));
            }
        }
        exchange(&mut ends);
        for end in &mut ends {
            while end.poll_event().is_some() {}
        }
        exchange(&mut ends);
        assert_eq!([ends[0].stats().open, ends[1].stats().open], [0, 0], "stream {n}");
    }
    for end in &ends {
        assert!(end.streams.is_empty() && end.events_are_empty());
        assert_eq!(end.peer_over.len(), usize::from(end.role == Role::Responder));
        assert_eq!(end.stats().receive_granted_bytes + end.stats().send_buffered_bytes, 0);
    }
    // Late frames of streams that are over are ignored.
    let late = StreamId::new(Role::Initiator, 17);
    ends[1].on_stream(late, 0, Bytes::from_static(b"late"), false).unwrap();
    ends[1].on_open(late, Class::Bulk, 0, "x".into()).unwrap();
    ends[0].on_reset_stream(late, 0, 0).unwrap();
    ends[0].on_stop_sending(late, 0).unwrap();
    ends[0].on_max_stream_data(late, 1 << 30).unwrap();
    assert_eq!([ends[0].stats().open, ends[1].stats().open], [0, 0]);
}

#[test]
fn closing_both_ends_in_the_middle_frees_everything() {
    let mut ends = pair(1 << 20);
    for first in [0, 1] {
        let id = ends[0].open(Class::Bulk, 0, "").unwrap();
        ends[0].write(id, &[0; 50_000]).unwrap();
        exchange(&mut ends);
        ends[1].accept().unwrap();
        ends[1].write(id, &[0; 50_000]).unwrap();
        exchange(&mut ends);
        ends[first].close(id);
        exchange(&mut ends);
        ends[1 - first].close(id);
        exchange(&mut ends);
        for end in &mut ends {
            while end.poll_event().is_some() {}
        }
        assert_eq!([ends[0].stats().open, ends[1].stats().open], [0, 0]);
    }
}

#[test]
fn ten_thousand_open_streams_share_the_buffer() {
    let mut ends = pair(160 << 20);
    let ids: Vec<StreamId> = (0..10_000).map(|_| ends[0].open(Class::Bulk, 0, "").unwrap()).collect();
    for id in &ids {
        ends[0].write(*id, &contents(id.0, 0..200)).unwrap();
    }
    assert_eq!(ends[0].backlog(Class::Bulk), 10_000 * 200);
    exchange(&mut ends);
    for id in &ids {
        assert!(ends[1].accept().is_some());
        let mut read = 0;
        while read < 200 {
            let bytes = ends[1].read_chunk(*id, 9999).unwrap().unwrap();
            assert_eq!(bytes, contents(id.0, read..read + bytes.len() as u64));
            read += bytes.len() as u64;
        }
    }
}
