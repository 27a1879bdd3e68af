//! Two engines joined by simple links in virtual time. Whole worlds with faults are the simulator's; here a test sees
//! one mechanism at work.

mod ordered;
mod policies;

use alloc::collections::{BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;

use super::{Connection, Transmit};
use crate::config::{Config, LinkInfo, Policy};
use crate::crypto::{BondKeys, BondOrigin};
use crate::error::{CloseReason, DownReason, Violation};
use crate::event::{Event, LinkState};
use crate::handshake::Parameters;
use crate::id::{Class, LinkId, PublicKey, Role, StreamId};
use crate::scheduler;
use crate::streams::{ReadError, WriteError};
use crate::time::{Duration, Instant};
use crate::wire::header;
use crate::wire::packet::Packet;

const MS: Duration = Duration::from_millis(1);

/// One direction of a link: a serialiser behind a queue, then a delay.
struct Pipe {
    rate: u64,
    delay: Duration,
    queue_bytes: u64,
    free_at: Instant,
    waiting: VecDeque<(Instant, u64, Bytes)>,
    blackhole: bool,
    delivered_bytes: u64,
}

impl Pipe {
    fn backlog(&self, now: Instant) -> u64 {
        crate::link::rate::bytes_in(self.rate, self.free_at - now)
    }

    fn ready(&self, now: Instant) -> bool {
        self.backlog(now) < self.queue_bytes
    }

    fn send(&mut self, now: Instant, number: u64, payload: Bytes) {
        let time = crate::link::rate::transmit_time(payload.len() as u64 + 20, self.rate);
        self.free_at = self.free_at.max(now) + time;
        if !self.blackhole {
            self.waiting.push_back((self.free_at + self.delay, number, payload));
        }
    }
}

struct World {
    now: Instant,
    ends: [Connection; 2],
    /// Of each link: its id, from end 0 to 1, and back.
    links: Vec<(LinkId, [Pipe; 2])>,
    events: [Vec<Event>; 2],
    packet: Packet,
    /// Ends and their links that had nothing to send. They are not asked again before they are woken.
    asleep: BTreeSet<(usize, LinkId)>,
    /// Ends and their links that were told that they are closed.
    over: BTreeSet<(usize, LinkId)>,
}

impl World {
    fn new(config: &Config) -> Self {
        let keys = BondKeys::derive(&BondOrigin {
            initiator_random: &[1; 32],
            responder_random: &[2; 32],
            initiator: PublicKey([3; 32]),
            responder: PublicKey([4; 32]),
        });
        let end = |role| {
            let mut end = Connection::new(Instant::ZERO, role, config.clone());
            end.establish(&keys, &Parameters { streams_max: 100, ..Parameters::default() });
            end
        };
        Self {
            now: Instant::ZERO,
            ends: [end(Role::Initiator), end(Role::Responder)],
            links: Vec::new(),
            events: [Vec::new(), Vec::new()],
            packet: Packet::new(),
            asleep: BTreeSet::new(),
            over: BTreeSet::new(),
        }
    }

    fn add_link(&mut self, id: u32, rate: u64, delay_ms: u32) {
        let pipe = || Pipe {
            rate,
            delay: MS * delay_ms,
            queue_bytes: 64 << 10,
            free_at: Instant::ZERO,
            waiting: VecDeque::new(),
            blackhole: false,
            delivered_bytes: 0,
        };
        let info = LinkInfo {
            name: format!("test {id}"),
            kind: "test",
            mtu_bytes: 65_535,
            tag_bytes: 16,
            rate_hint: None,
            reliable: true,
            rtt: Some(MS * delay_ms * 2),
            peer_ack_delay: MS * 5,
        };
        for end in &mut self.ends {
            end.link_up(self.now, LinkId(id), info.clone(), None).unwrap();
        }
        self.links.push((LinkId(id), [pipe(), pipe()]));
    }

    fn pipes(&mut self, id: u32) -> &mut [Pipe; 2] {
        &mut self.links.iter_mut().find(|link| link.0 == LinkId(id)).unwrap().1
    }

    fn cut(&mut self, id: u32, cut: bool) {
        for pipe in self.pipes(id) {
            pipe.blackhole = cut;
            if cut {
                pipe.waiting.clear();
            }
        }
    }

    /// Holds everything on the link up for so long.
    fn pause(&mut self, id: u32, time: Duration) {
        let now = self.now;
        for pipe in self.pipes(id) {
            pipe.free_at = pipe.free_at.max(now) + time;
            pipe.waiting.iter_mut().for_each(|(at, ..)| *at += time);
        }
    }

    /// Lets end `from` send nothing more on the link for so long; what is under way arrives.
    fn hold_up(&mut self, id: u32, from: usize, time: Duration) {
        let now = self.now;
        let pipe = &mut self.pipes(id)[from];
        pipe.free_at = pipe.free_at.max(now) + time;
    }

    /// Lets all ends send what they want and can at this moment.
    fn transmit(&mut self) {
        for end in 0..2 {
            while self.transmit_from(end) {}
            while let Some(event) = self.ends[end].poll_event() {
                self.events[end].push(event);
            }
        }
    }

    /// One round over the links of an end that are awake. The answer is whether another one was woken meanwhile.
    fn transmit_from(&mut self, end: usize) -> bool {
        while let Some(id) = self.ends[end].poll_wake(self.now) {
            self.asleep.remove(&(end, id));
        }
        for (id, pipes) in &mut self.links {
            while pipes[end].ready(self.now) && !self.asleep.contains(&(end, *id)) {
                match self.ends[end].poll_transmit(self.now, *id, &mut self.packet) {
                    Transmit::Packet => {}
                    Transmit::Idle => {
                        self.asleep.insert((end, *id));
                        break;
                    }
                    Transmit::LinkClosed => {
                        self.asleep.insert((end, *id));
                        self.over.insert((end, *id));
                        break;
                    }
                }
                let mut bytes = Vec::new();
                self.packet.gather(&mut bytes);
                let (_, header_len) = header::decode(&bytes, None).unwrap();
                let payload = Bytes::from(bytes).slice(header_len..);
                pipes[end].send(self.now, self.packet.number(), payload);
            }
        }
        self.woken(end)
    }

    /// Whether a sleeping link of an end is woken.
    fn woken(&mut self, end: usize) -> bool {
        let id = self.ends[end].poll_wake(self.now);
        id.is_some_and(|id| self.asleep.remove(&(end, id)))
    }

    /// Goes to the next moment at which something happens, at most to `until`.
    fn step(&mut self, until: Instant) {
        self.transmit();
        let mut next = until;
        for (_, pipes) in &self.links {
            for pipe in pipes {
                next = pipe.waiting.front().map_or(next, |packet| next.min(packet.0));
                if !pipe.ready(self.now) {
                    next = next.min(
                        pipe.free_at - crate::link::rate::transmit_time(pipe.queue_bytes - 1, pipe.rate),
                    );
                }
            }
        }
        for end in &self.ends {
            next = end.poll_timeout().map_or(next, |(at, _)| next.min(at));
        }
        self.now = next.max(self.now + Duration::from_nanos(1)).min(until);
        for (id, pipes) in &mut self.links {
            for (from, pipe) in pipes.iter_mut().enumerate() {
                while pipe.waiting.front().is_some_and(|packet| packet.0 <= self.now) {
                    let (_, number, payload) = pipe.waiting.pop_front().unwrap();
                    pipe.delivered_bytes += payload.len() as u64;
                    self.ends[1 - from].handle_packet(self.now, *id, number, payload).unwrap();
                }
            }
        }
        for end in &mut self.ends {
            end.handle_timeout(self.now);
        }
    }

    fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step(until);
        }
    }

    fn link_events(&self, end: usize) -> Vec<String> {
        self.events[end]
            .iter()
            .filter_map(|event| match event {
                Event::Link { id, from, to, .. } => Some(format!("{id}: {from} -> {to}")),
                _ => None,
            })
            .collect()
    }

    /// A link that has left is closed.
    fn state(&self, end: usize, id: u32) -> LinkState {
        self.ends[end].link(self.now, LinkId(id)).map_or(LinkState::Closed, |link| link.state)
    }
}

fn pattern(offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(|n| (n.wrapping_mul(0x9E37_79B9) >> 16) as u8).collect()
}

/// A sender that always has more, and a reader that checks and counts.
struct Transfer {
    /// The end that writes.
    from: usize,
    stream: StreamId,
    written: u64,
    total: u64,
    read: u64,
    /// Longest time without a byte, and when the last one came.
    longest_gap: Duration,
    last_at: Instant,
}

impl Transfer {
    fn start(world: &mut World, class: Class, total: u64) -> Self {
        Self::start_from(world, 0, class, total)
    }

    fn start_from(world: &mut World, from: usize, class: Class, total: u64) -> Self {
        let stream = world.ends[from].open_stream(class, 0, "test").unwrap();
        Self { from, stream, written: 0, total, read: 0, longest_gap: Duration::ZERO, last_at: world.now }
    }

    fn pump(&mut self, world: &mut World) {
        while self.written < self.total {
            let data = pattern(self.written, 16_384.min(self.total - self.written) as usize);
            match world.ends[self.from].write(self.stream, &data) {
                Ok(n) => self.written += n as u64,
                Err(WriteError::Blocked(_)) => break,
                Err(error) => panic!("{error}"),
            }
            if self.written == self.total {
                world.ends[self.from].finish(self.stream).unwrap();
            }
        }
        loop {
            match world.ends[1 - self.from].read_chunk(self.stream, 1 << 20) {
                Ok(Some(chunk)) => {
                    assert!(chunk == pattern(self.read, chunk.len()), "wrong bytes at {}", self.read);
                    self.read += chunk.len() as u64;
                    self.longest_gap = self.longest_gap.max(world.now - self.last_at);
                    self.last_at = world.now;
                }
                Ok(None) | Err(ReadError::Blocked(_) | ReadError::Unknown(_)) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn run(&mut self, world: &mut World, limit: Duration) -> Duration {
        let (start, until) = (world.now, world.now + limit);
        while self.read < self.total && world.now < until {
            self.pump(world);
            world.step(until);
        }
        self.pump(world);
        world.now - start
    }
}

#[test]
fn one_link_carries_a_stream() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 10_000_000, 10);
    let mut transfer = Transfer::start(&mut world, Class::Bulk, 20_000_000);
    let took = transfer.run(&mut world, MS * 60_000);
    assert_eq!(transfer.read, 20_000_000);
    assert!(took < MS * 2300, "{took:?}");
}

#[test]
fn two_links_carry_the_sum() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 12_500_000, 2);
    world.add_link(1, 5_000_000, 40);
    let mut transfer = Transfer::start(&mut world, Class::Bulk, u64::MAX);
    transfer.run(&mut world, MS * 2000);
    let before = transfer.read;
    transfer.run(&mut world, MS * 10_000);
    let rate = (transfer.read - before) / 10;
    assert!(rate > 17_500_000 * 97 / 100, "{rate}");
    assert!(transfer.longest_gap < MS * 60, "{:?}", transfer.longest_gap);
}

#[test]
fn a_very_slow_link_does_no_harm() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 40_000_000, 1);
    world.add_link(1, 11_500, 5);
    let mut transfer = Transfer::start(&mut world, Class::Bulk, u64::MAX);
    transfer.run(&mut world, MS * 3000);
    let (before, _) = (transfer.read, transfer.longest_gap = Duration::ZERO);
    transfer.run(&mut world, MS * 5000);
    let rate = (transfer.read - before) / 5;
    assert!(rate > 40_000_000 * 99 / 100, "{rate}");
    assert!(transfer.longest_gap < MS * 10, "{:?}", transfer.longest_gap);
}

#[test]
fn a_very_slow_link_is_found_to_be_one_by_its_first_answers() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 12_500_000, 2);
    world.add_link(1, 11_500, 5);
    let mut transfer = Transfer::start(&mut world, Class::Bulk, u64::MAX);
    // What it was given at first, as any link, takes two seconds.
    transfer.run(&mut world, MS * 2500);
    let mut held = 0;
    for _ in 0..100 {
        transfer.run(&mut world, MS * 10);
        held = held.max(world.ends[0].link(world.now, LinkId(1)).unwrap().in_flight_bytes);
    }
    assert!(held < 3000, "a quarter of a second's worth: {held}");
}

#[test]
fn a_silent_link_is_suspected_and_comes_back() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 6_250_000, 10);
    world.add_link(1, 6_250_000, 10);
    let mut transfer = Transfer::start(&mut world, Class::Bulk, u64::MAX);
    transfer.run(&mut world, MS * 1000);
    transfer.longest_gap = Duration::ZERO;
    world.cut(0, true);
    transfer.run(&mut world, MS * 1000);
    assert!(transfer.longest_gap < MS * 300, "{:?}", transfer.longest_gap);
    assert_eq!(world.state(0, 0), LinkState::Suspect);
    let before = transfer.read;
    world.cut(0, false);
    transfer.run(&mut world, MS * 3000);
    assert_eq!(world.state(0, 0), LinkState::Active);
    assert!(transfer.read - before > 3 * 12_500_000 * 80 / 100);
    assert_eq!(world.link_events(0)[2..], ["0: active -> suspect", "0: suspect -> active"]);
}

/// Writes 2500 bytes each millisecond and reads them; `event` happens before each, and has its number. Answers the longest
/// time without any.
fn longest_gap_of_a_paced_stream(world: &mut World, mut event: impl FnMut(&mut World, u32)) -> Duration {
    let stream = world.ends[0].open_stream(Class::Bulk, 0, "").unwrap();
    let (mut offset, mut read, mut last, mut gap) = (0, 0, world.now, Duration::ZERO);
    for round in 0..2000 {
        offset += world.ends[0].write(stream, &pattern(offset, 2500)).unwrap() as u64;
        event(world, round);
        world.run_for(MS);
        while let Ok(Some(chunk)) = world.ends[1].read_chunk(stream, 1 << 16) {
            assert!(chunk == pattern(read, chunk.len()));
            read += chunk.len() as u64;
            gap = if round > 500 { gap.max(world.now - last) } else { gap };
            last = world.now;
        }
    }
    assert!(read > offset - 100_000);
    gap
}

#[test]
fn a_paced_stream_hardly_notices_a_cut() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 6_250_000, 10);
    world.add_link(1, 6_250_000, 10);
    let gap = longest_gap_of_a_paced_stream(&mut world, |world, round| {
        if round == 1000 {
            world.cut(0, true);
        }
    });
    // The way there and back, a quarter of that for the acknowledgement and half for its variation, and the other link.
    assert!(gap <= MS * 60, "{gap:?}");
    let link = world.ends[0].links(world.now).find(|link| link.id == LinkId(0)).unwrap();
    assert!(link.stats.reinjected_bytes > 0, "it went elsewhere before the link was suspect");
}

#[test]
fn a_paced_stream_hardly_notices_a_link_that_crawls() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 6_250_000, 10);
    world.add_link(1, 6_250_000, 10);
    // As TCP with BBR does every ten seconds: it goes on, and so is never silent, at a small part of its rate.
    let gap = longest_gap_of_a_paced_stream(&mut world, |world, round| match round {
        1000 => world.pipes(0)[0].rate = 100_000,
        1200 => world.pipes(0)[0].rate = 6_250_000,
        _ => {}
    });
    assert!(gap <= MS * 60, "{gap:?}");
}

#[test]
fn a_link_that_is_only_late_makes_few_bytes_redundant() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 6_250_000, 10);
    world.add_link(1, 6_250_000, 10);
    let mut transfer = Transfer::start(&mut world, Class::Bulk, u64::MAX);
    transfer.run(&mut world, MS * 1000);
    for _ in 0..40 {
        // Longer than a probe time-out, shorter than what makes it suspect.
        world.pause(0, MS * 45);
        transfer.run(&mut world, MS * 200);
    }
    let (stats, read) = (world.ends[1].links(world.now), transfer.read);
    let twice: u64 = stats.map(|link| link.stats.duplicate_data_bytes).sum();
    assert!(twice > 0 && twice <= read / 20, "{twice} of {read} bytes");
    assert!(world.link_events(0).len() <= 4, "it was not suspect: {:?}", world.link_events(0));
}

/// What a link brought in its last round trip is acknowledged, but the acknowledgements get lost with the link: sent again over a
/// line of a hundredth of its rate, it would stop the stream for a third of a second.
#[test]
fn a_slow_link_goes_on_at_once_when_a_fast_one_falls_silent() {
    for start in 0..8 {
        let mut world = World::new(&Config::default());
        world.add_link(0, 92_160, 1);
        world.pipes(0).iter_mut().for_each(|pipe| pipe.queue_bytes = 2048);
        world.add_link(1, 12_500_000, 1);
        let mut transfer = Transfer::start(&mut world, Class::Bulk, u64::MAX);
        transfer.run(&mut world, MS * (3000 + 7 * start));
        transfer.longest_gap = Duration::ZERO;
        world.cut(1, true);
        transfer.run(&mut world, MS * 1000);
        assert!(transfer.longest_gap < MS * 120, "start {start}: {:?}", transfer.longest_gap);
    }
}

#[test]
fn a_link_that_ends_gives_its_bytes_back() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 10_000_000, 5);
    world.add_link(1, 10_000_000, 5);
    let mut transfer = Transfer::start(&mut world, Class::Bulk, 30_000_000);
    transfer.run(&mut world, MS * 500);
    world.links.retain(|link| link.0 != LinkId(0));
    for end in &mut world.ends {
        end.link_down(world.now, LinkId(0), DownReason::Eof);
    }
    transfer.run(&mut world, MS * 60_000);
    assert_eq!(transfer.read, 30_000_000);
}

#[test]
fn a_replaced_link_leaves_when_its_successor_is_active() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 1_000_000, 10);
    world.run_for(MS * 100);
    let info = LinkInfo { name: String::from("new"), ..world.ends[1].links[0].info.clone() };
    let now = world.now;
    world.ends[1].link_up(now, LinkId(1), info, Some(LinkId(0))).unwrap();
    assert_eq!(world.state(1, 0), LinkState::Active, "the join may be an old one sent again");
    world.ends[1].handle_packet(now, LinkId(1), 0, Bytes::from_static(&[1])).unwrap();
    assert_eq!(world.state(1, 0), LinkState::Closed);
    assert_eq!(world.state(1, 1), LinkState::Active);
}

#[test]
fn without_links_the_bond_waits_and_resumes() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 10_000_000, 5);
    let mut transfer = Transfer::start(&mut world, Class::Bulk, 5_000_000);
    transfer.run(&mut world, MS * 100);
    world.links.clear();
    for end in &mut world.ends {
        end.link_down(world.now, LinkId(0), DownReason::Eof);
    }
    transfer.run(&mut world, MS * 60_000);
    assert!(transfer.read < 5_000_000);
    world.add_link(1, 10_000_000, 5);
    transfer.run(&mut world, MS * 10_000);
    assert_eq!(transfer.read, 5_000_000);
}

#[test]
fn without_links_for_too_long_the_bond_ends() {
    let mut world = World::new(&Config { idle_timeout: Some(MS * 1000), ..Config::default() });
    world.run_for(MS * 999);
    assert!(!world.ends[0].is_closed());
    world.run_for(MS * 2);
    assert!(world.ends[0].is_closed());
    assert_eq!(world.ends[0].close_reason(), Some(&CloseReason::IdleTimeout(MS * 1000)));
}

#[test]
fn interactive_data_overtakes_bulk() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 5_000_000, 10);
    let mut bulk = Transfer::start(&mut world, Class::Bulk, u64::MAX);
    let echo = world.ends[0].open_stream(Class::Interactive, 0, "echo").unwrap();
    bulk.run(&mut world, MS * 1000);
    let mut worst = Duration::ZERO;
    for round in 0..100 {
        world.ends[0].write(echo, &[7; 64]).unwrap();
        let (sent_at, mut got) = (world.now, 0);
        while got < 64 {
            bulk.pump(&mut world);
            world.step(sent_at + MS * 1000);
            if let Ok(Some(chunk)) = world.ends[1].read_chunk(echo, 1 << 16) {
                got += chunk.len();
            }
            assert!(world.now - sent_at < MS * 1000, "round {round} never arrived");
        }
        if round > 20 {
            worst = worst.max(world.now - sent_at);
        }
        bulk.run(&mut world, MS * 20);
    }
    assert!(worst < MS * 25, "{worst:?} for 10 ms one way");
}

/// The worst time that a key takes, 10 ms one way, while bulk data goes over two links that stall in turn.
fn worst_key_while_links_stall(stall: Duration, config: &Config) -> Duration {
    let starts = [0, 7, 13, 29, 41];
    starts
        .into_iter()
        .map(|start| worst_key_while_two_links_stall(stall, start, config))
        .max()
        .unwrap_or_default()
}

/// Each link stalls twice: one that comes and goes more often is held back, and is not there for a second copy.
fn worst_key_while_two_links_stall(stall: Duration, start: u32, config: &Config) -> Duration {
    let mut world = World::new(config);
    world.add_link(0, 6_250_000, 10);
    world.add_link(1, 6_250_000, 10);
    let mut bulk = Transfer::start(&mut world, Class::Bulk, u64::MAX);
    let keys = world.ends[0].open_stream(Class::Interactive, 0, "keys").unwrap();
    let mut worst = Duration::ZERO;
    for round in 0..500 {
        if round > 100 && round % 100 == start {
            world.pause(round / 100 % 2, stall);
        }
        world.ends[0].write(keys, &[7; 64]).unwrap();
        let (sent_at, mut got) = (world.now, 0);
        while got < 64 {
            bulk.pump(&mut world);
            world.step(sent_at + MS * 1000);
            if let Ok(Some(chunk)) = world.ends[1].read_chunk(keys, 1 << 16) {
                got += chunk.len();
            }
            assert!(world.now - sent_at < MS * 1000, "round {round} never arrived");
        }
        worst = if round > 50 { worst.max(world.now - sent_at) } else { worst };
        bulk.run(&mut world, MS * 10);
    }
    let again: u64 = world.ends[0].links(world.now).map(|link| link.stats.reinjected_bytes).sum();
    assert!(again < bulk.read / 50, "{again} of {} bytes went twice", bulk.read);
    worst
}

#[test]
fn keys_hardly_notice_a_link_that_stalls_under_bulk() {
    let worst = worst_key_while_links_stall(MS * 100, &Config::default());
    assert!(worst < MS * 25, "{worst:?} for 10 ms one way");
}

#[test]
fn keys_hardly_notice_it_either_when_the_peer_grants_no_more_bulk() {
    // Less than makes a link suspect: one that comes and goes is held back for a while.
    let config = Config { receive_buffer_bytes: 150_000, ..Config::default() };
    let worst = worst_key_while_links_stall(MS * 40, &config);
    assert!(worst < MS * 25, "{worst:?} for 10 ms one way");
}

#[test]
fn keys_do_not_wait_until_the_better_link_takes_a_packet() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 6_250_000, 10);
    world.add_link(1, 6_250_000, 10);
    let mut bulk = Transfer::start(&mut world, Class::Bulk, u64::MAX);
    let keys = world.ends[0].open_stream(Class::Interactive, 0, "keys").unwrap();
    world.ends[0].write(keys, &[7; 64]).unwrap();
    bulk.run(&mut world, MS * 1000);
    assert!(world.ends[1].read_chunk(keys, 1 << 16).unwrap().is_some());
    for id in [0, 1] {
        world.hold_up(id, 0, MS * 100);
        for _ in 0..4 {
            world.ends[0].write(keys, &[7; 64]).unwrap();
            bulk.run(&mut world, MS * 25);
            let chunk = world.ends[1].read_chunk(keys, 1 << 16).unwrap();
            assert!(chunk.is_some(), "link {id}: nothing within 25 ms, 10 of them the way");
        }
        bulk.run(&mut world, MS * 2000);
        world.ends[0].write(keys, &[7; 64]).unwrap();
        bulk.run(&mut world, MS * 500);
        assert!(world.ends[1].read_chunk(keys, 1 << 16).unwrap().is_some());
    }
}

#[test]
fn another_link_acknowledges_for_one_that_takes_no_packet() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 6_250_000, 10);
    world.add_link(1, 6_250_000, 10);
    let mut bulk = [0, 1].map(|from| Transfer::start_from(&mut world, from, Class::Bulk, u64::MAX));
    for round in 0..260 {
        if round == 200 {
            world.hold_up(0, 1, MS * 300);
        }
        for transfer in &mut bulk {
            transfer.run(&mut world, MS * 5);
        }
        assert_eq!(world.state(0, 0), LinkState::Active, "what it sends arrives");
    }
}

#[test]
fn with_interactive_data_about_full_links_stay_full_both_ways() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 6_250_000, 10);
    world.add_link(1, 6_250_000, 10);
    let mut bulk = [0, 1].map(|from| Transfer::start_from(&mut world, from, Class::Bulk, u64::MAX));
    let keys = [0, 1].map(|from| world.ends[from].open_stream(Class::Interactive, 0, "keys").unwrap());
    let mut carried = [0; 2];
    for round in 0..500 {
        for from in 0..2 {
            world.ends[from].write(keys[from], &[7; 64]).unwrap();
            while let Ok(Some(_)) = world.ends[1 - from].read_chunk(keys[from], 1 << 16) {}
            bulk[from].run(&mut world, MS * 5);
        }
        if round == 100 {
            carried = bulk.each_ref().map(|bulk| bulk.read);
        }
    }
    for (from, bulk) in bulk.iter().enumerate() {
        let share = (bulk.read - carried[from]) as f64 / (399.0 * 0.010 * 12_500_000.0);
        assert!(share > 0.95, "{share:.3} of the links' sum from end {from}");
    }
}

#[test]
fn a_datagram_goes_by_the_link_on_which_the_whole_of_it_is_first() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 50_000, 1);
    world.add_link(1, 10_000_000, 5);
    Transfer::start(&mut world, Class::Bulk, 4 << 20).run(&mut world, MS * 30_000);
    // The first byte would be earlier on the slow link, the last one on the other.
    for (flow, length) in [(1, 20_000), (2, 10), (3, 20_000)] {
        world.run_for(MS * 1000);
        let now = world.now;
        world.ends[0].send_datagram(now, flow, pattern(0, length).into()).unwrap();
        world.run_for(MS * 100);
        let arrived = world.ends[1].read_datagram().map(|(flow, data)| (flow, data.len()));
        assert_eq!(arrived, Some((flow, length)));
    }
}

#[test]
fn a_redundant_stream_survives_a_cut_without_a_gap() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 6_250_000, 10);
    world.add_link(1, 6_250_000, 12);
    let stream = world.ends[0].open_stream(Class::Redundant, 0, "").unwrap();
    let (mut offset, mut read, mut last, mut gap) = (0, 0, world.now, Duration::ZERO);
    for round in 0..400 {
        let data = pattern(offset, 1000);
        offset += world.ends[0].write(stream, &data).unwrap() as u64;
        if round == 200 {
            world.cut(0, true);
        }
        world.run_for(MS * 5);
        while let Ok(Some(chunk)) = world.ends[1].read_chunk(stream, 1 << 16) {
            assert!(chunk == pattern(read, chunk.len()));
            read += chunk.len() as u64;
            gap = if round > 20 { gap.max(world.now - last) } else { gap };
            last = world.now;
        }
    }
    assert!(gap <= MS * 10, "{gap:?}");
    assert!(read > offset - 5000);
}

#[test]
fn close_is_told_and_acknowledged() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 1_000_000, 10);
    world.add_link(1, 1_000_000, 10);
    world.run_for(MS * 100);
    let now = world.now;
    world.ends[0].close(now, 300, "done");
    world.run_for(MS * 30);
    assert!(world.ends[0].is_closed(), "acknowledged");
    let reason = CloseReason::Peer { code: 300, reason: String::from("done") };
    assert_eq!(world.ends[1].close_reason(), Some(&reason));
    world.run_for(MS * 1000);
    assert!(world.ends[1].is_closed());
    assert_eq!(world.over.len(), 4, "all links hear of it: {:?}", world.over);
}

#[test]
fn a_close_that_nobody_answers_ends_all_the_same() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 1_000_000, 10);
    world.run_for(MS * 100);
    world.cut(0, true);
    let now = world.now;
    world.ends[0].close(now, 300, "done");
    world.run_for(MS * 3000);
    assert!(world.ends[0].is_closed() && world.over.contains(&(0, LinkId(0))));
}

#[test]
fn a_close_gives_a_busy_host_time_to_answer() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 1_000_000_000, 0);
    world.run_for(MS * 100);
    world.cut(0, true);
    let now = world.now;
    world.ends[0].close(now, 300, "done");
    world.run_for(MS * 200);
    assert!(!world.ends[0].is_closed(), "three probe time-outs have long passed");
    world.run_for(MS * 100);
    assert!(world.ends[0].is_closed());
}

#[test]
fn a_host_too_busy_to_send_its_close_has_not_told_anybody() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 1_000_000_000, 0);
    world.run_for(MS * 100);
    let now = world.now;
    world.ends[0].close(now, 300, "done");
    // None of its tasks had a turn but the one that counts the time.
    world.now += MS * 600;
    let now = world.now;
    world.ends[0].handle_timeout(now);
    assert!(!world.ends[0].is_closed(), "nothing was said");
    world.run_for(MS * 10);
    assert!(world.ends[0].is_closed(), "acknowledged");
    assert!(matches!(world.ends[1].close_reason(), Some(CloseReason::Peer { code: 300, .. })));
}

#[test]
fn whatever_there_is_to_send_wakes_an_idle_link() {
    type Act = fn(&mut Connection, StreamId, Instant);
    let acts: [(&str, Act); 10] = [
        ("a write", |end, id, _| assert_eq!(end.write(id, b"x"), Ok(1))),
        ("the end of a stream", |end, id, _| end.finish(id).unwrap()),
        ("a reset", |end, id, _| end.reset(id, 1).unwrap()),
        ("a stop", |end, id, _| end.stop_sending(id, 1).unwrap()),
        ("a stream let go", |end, id, _| end.close_stream(id)),
        ("a new stream", |end, _, _| assert!(end.open_stream(Class::Bulk, 0, "").is_ok())),
        ("a datagram", |end, _, now| end.send_datagram(now, 0, Bytes::from_static(b"x")).unwrap()),
        ("a policy", |end, _, now| assert!(end.set_link_policy(now, LinkId(0), Policy::Backup.into()))),
        ("a close", |end, _, now| end.close(now, 0, "")),
        ("the loss of the bond", |end, _, _| end.fail(CloseReason::PeerRestarted)),
    ];
    for (what, act) in acts {
        let mut world = World::new(&Config::default());
        world.add_link(0, 1_000_000, 10);
        let stream = world.ends[0].open_stream(Class::Bulk, 0, "").unwrap();
        world.ends[0].write(stream, b"x").unwrap();
        world.run_for(MS * 1000);
        let idle = world.asleep.contains(&(0, LinkId(0))) && !world.woken(0);
        assert!(idle, "busy before {what}");
        let now = world.now;
        act(&mut world.ends[0], stream, now);
        assert!(world.woken(0), "{what}");
    }
}

#[test]
fn acknowledgements_go_around_a_direction_that_died() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 6_250_000, 10);
    world.add_link(1, 6_250_000, 10);
    let mut transfer = Transfer::start(&mut world, Class::Bulk, u64::MAX);
    transfer.run(&mut world, MS * 1000);
    // Data still gets through on link 0, but nothing comes back on it.
    world.pipes(0)[1].blackhole = true;
    transfer.run(&mut world, MS * 1000);
    let before = world.pipes(0)[0].delivered_bytes;
    transfer.run(&mut world, MS * 2000);
    let carried = world.pipes(0)[0].delivered_bytes - before;
    assert!(carried > 1_000_000, "only {carried} bytes in two seconds");
}

#[test]
fn an_idle_bond_only_keeps_alive() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 1_000_000, 10);
    world.run_for(MS * 1000);
    let before = world.ends[0].link(world.now, LinkId(0)).unwrap().stats.sent_packets;
    world.run_for(MS * 60_000);
    let packets = world.ends[0].link(world.now, LinkId(0)).unwrap().stats.sent_packets - before;
    assert!(packets <= 8, "{packets} packets in an idle minute");
}

#[test]
fn violations_end_the_link_and_nothing_else() {
    let bad: [(&str, &[u8]); 4] = [
        ("an unknown frame", &[0x3f]),
        ("an acknowledgement of packet 60 that was never sent", &[0x02, 0, 60, 0, 0, 0]),
        ("a CLOSE with a made-up code", &[0x1c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("bytes for a stream of ours that was never opened", &[0x0a, 8, 0, 1, 9]),
    ];
    for (what, payload) in bad {
        let mut world = World::new(&Config::default());
        world.add_link(0, 1_000_000, 10);
        world.add_link(1, 1_000_000, 10);
        world.run_for(MS * 100);
        let now = world.now;
        let result = world.ends[0].handle_packet(now, LinkId(1), 1000, Bytes::copy_from_slice(payload));
        assert!(result.is_err(), "{what}");
        assert_eq!(world.state(0, 1), LinkState::Closed, "{what}");
        world.run_for(MS * 100);
        assert_eq!(world.state(0, 0), LinkState::Active, "{what}");
        assert_eq!(world.state(1, 1), LinkState::Closed, "{what}: the peer is told");
        assert_eq!(world.ends[0].stats().violations, 1);
    }
}

#[test]
fn a_packet_number_is_taken_once() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 1_000_000, 10);
    let (now, ping) = (world.now, Bytes::from_static(&[1]));
    world.ends[1].handle_packet(now, LinkId(0), 5, ping.clone()).unwrap();
    let again = world.ends[1].handle_packet(now, LinkId(0), 5, ping);
    assert_eq!(again, Err(Violation::PacketNumber { number: 5, highest: 5 }));
}

#[test]
fn a_link_that_leaves_bytes_to_a_faster_one_thinks_again() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 6_250_000, 10);
    world.add_link(1, 6_250_000, 40);
    let stream = world.ends[0].open_stream(Class::Interactive, 0, "").unwrap();
    world.run_for(MS * 1000);
    let (now, end, mut packet) = (world.now, &mut world.ends[0], Packet::new());
    assert_eq!(end.poll_transmit(now, LinkId(1), &mut packet), Transmit::Idle);
    assert_eq!(end.think_again, None, "there is nothing to send");
    end.write(stream, &[1; 4000]).unwrap();
    assert_eq!(end.poll_transmit(now, LinkId(1), &mut packet), Transmit::Idle);
    let field = end.field(now);
    let waiting = field.candidates.iter().find(|candidate| candidate.id == LinkId(1)).unwrap();
    let after = scheduler::time_to_think(&field.candidates, waiting, 4000).unwrap();
    assert_eq!(end.think_again, Some(now + after));
}

#[test]
fn when_all_links_are_silent_the_one_that_answered_last_goes_on() {
    for first in [0, 1] {
        let mut world = World::new(&Config::default());
        world.add_link(0, 6_250_000, 10);
        world.add_link(1, 6_250_000, 10);
        let mut transfer = Transfer::start(&mut world, Class::Bulk, u64::MAX);
        transfer.run(&mut world, MS * 1000);
        world.cut(first, true);
        transfer.run(&mut world, MS * 300);
        world.cut(1 - first, true);
        transfer.run(&mut world, MS * 1000);
        assert_eq!([world.state(0, 0), world.state(0, 1)], [LinkState::Suspect; 2]);
        assert_eq!(world.ends[0].field(world.now).control, Some(LinkId(1 - first)));
    }
}
