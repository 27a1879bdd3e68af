use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::{cobs, transfer};

/// Time for a frame over the line.
const LINE: Duration = Duration::from_millis(2);

/// One end: a session, what it has received, and its deframer.
struct Side {
    session: Session,
    decoder: cobs::Decoder<Vec<u8>>,
    packets: Vec<Vec<u8>>,
    messages: Vec<Vec<u8>>,
    /// Packets are released as they come.
    reads: bool,
    /// What was sent and has not arrived.
    outgoing: Vec<u8>,
}

impl Side {
    fn new(now: Instant, config: Config, nonce: u64) -> Self {
        Self {
            session: Session::new(now, config, nonce),
            decoder: cobs::Decoder::new(vec![0; 700]),
            packets: Vec::new(),
            messages: Vec::new(),
            reads: true,
            outgoing: Vec::new(),
        }
    }

    fn put<T>(&mut self, write: impl FnOnce(&mut Session, &mut cobs::Writer<'_>) -> T) -> T {
        let mut buffer = [0; 4096];
        let mut writer = cobs::Writer::new(&mut buffer);
        let result = write(&mut self.session, &mut writer);
        let len = writer.len();
        self.outgoing.extend(&buffer[..len]);
        result
    }

    fn send(&mut self, packet: &[u8]) -> Result<(), SendError> {
        self.put(|session, sink| session.send_packet(packet, sink))
    }

    /// A frame of any kind and count, sealed for this session.
    fn forge(&mut self, kind: u8, count: u32, payload: &[u8]) {
        let seed = self.session.established().unwrap().seed;
        self.put(|_, sink| frame::write(seed, kind, count, payload, sink)).unwrap();
    }

    fn receive(&mut self, now: Instant, mut line: &[u8]) {
        while let Some(frame) = self.decoder.next_frame(&mut line) {
            match self.session.handle_frame(now, frame) {
                Ok(Received::Packet(packet)) => {
                    let len = packet.len();
                    self.packets.push(packet.to_vec());
                    if self.reads {
                        self.session.release(len);
                    }
                }
                Ok(Received::Message(message)) => self.messages.push(message.to_vec()),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// What a driver does each time it wakes up.
    fn drive(&mut self, now: Instant) {
        if self.session.poll_timeout().is_some_and(|at| at <= now) {
            let _ = self.session.handle_timeout(now);
        }
        while self.put(|session, sink| session.poll_control(now, sink)).unwrap() {}
        let next = self.session.poll_timeout();
        assert!(next.is_none_or(|at| at > now), "a timer that has passed remains: {:?}", self.session);
    }
}

struct Pair {
    now: Instant,
    a: Side,
    b: Side,
}

fn small(role: Role) -> Config {
    Config { mtu_bytes: 256, receive_buffer_bytes: 1200, ..Config::serial(role) }
}

impl Pair {
    fn new() -> Self {
        let now = Instant::from_millis(1000);
        Self {
            now,
            a: Side::new(now, small(Role::Dialer), 0xa),
            b: Side::new(now, small(Role::Acceptor), 0xb),
        }
    }

    fn established() -> Self {
        let mut pair = Self::new();
        pair.run(Duration::from_millis(100));
        assert!(pair.a.session.is_established() && pair.b.session.is_established());
        pair
    }

    fn step(&mut self, mut line: impl FnMut(bool, Vec<u8>) -> Vec<u8>) {
        self.a.drive(self.now);
        self.b.drive(self.now);
        let (there, back) = (std::mem::take(&mut self.a.outgoing), std::mem::take(&mut self.b.outgoing));
        let (there, back) = (line(true, there), line(false, back));
        self.now = self.now + LINE;
        self.b.receive(self.now, &there);
        self.a.receive(self.now, &back);
    }

    fn run(&mut self, time: Duration) {
        self.run_over(time, |_, bytes| bytes);
    }

    fn run_over(&mut self, time: Duration, mut line: impl FnMut(bool, Vec<u8>) -> Vec<u8>) {
        let end = self.now + time;
        while self.now < end {
            self.step(&mut line);
        }
    }

    fn ends(&self) -> (Option<End>, Option<End>) {
        (self.a.session.end(), self.b.session.end())
    }
}

#[test]
fn three_hellos_establish_both_ends() {
    let mut pair = Pair::new();
    let mut hellos = (0, 0);
    pair.run_over(Duration::from_millis(200), |there, bytes| {
        *if there { &mut hellos.0 } else { &mut hellos.1 } += usize::from(!bytes.is_empty());
        bytes
    });
    assert_eq!(hellos, (2, 1));
    assert_eq!((pair.a.session.mtu_bytes(), pair.b.session.mtu_bytes()), (Some(256), Some(256)));
}

#[test]
fn an_acceptor_is_silent_until_it_hears_a_hello() {
    let mut pair = Pair::new();
    pair.run_over(Duration::from_secs(5), |there, bytes| {
        assert!(there || bytes.is_empty());
        Vec::new()
    });
    assert!(!pair.b.session.has_heard_peer());
}

#[test]
fn an_acceptor_falls_silent_again_when_the_peer_does() {
    let mut pair = Pair::new();
    pair.step(|_, bytes| bytes);
    assert!(pair.b.session.has_heard_peer());
    pair.run_over(HELLO_TIMEOUT + LINE, |_, _| Vec::new());
    pair.run_over(Duration::from_secs(5), |there, bytes| {
        assert!(there || bytes.is_empty());
        Vec::new()
    });
    assert!(!pair.b.session.has_heard_peer() && pair.b.session.end().is_none());
}

#[test]
fn any_hello_may_be_lost() {
    for lost in 0u32..256 {
        let mut pair = Pair::new();
        let mut sent = 0;
        pair.run_over(Duration::from_secs(6), |_, bytes| {
            if bytes.is_empty() {
                return bytes;
            }
            sent += 1;
            if lost >> (sent - 1) & 1 == 1 && sent <= 8 { Vec::new() } else { bytes }
        });
        assert!(pair.a.session.is_established() && pair.b.session.is_established(), "{lost:08b}");
        pair.a.send(b"after all").unwrap();
        pair.run(LINE);
        assert_eq!(pair.b.packets, [b"after all"]);
    }
}

#[test]
fn repeated_hellos_change_nothing() {
    let mut pair = Pair::new();
    let mut first = Vec::<u8>::new();
    pair.run_over(Duration::from_millis(100), |there, bytes| {
        if there {
            first.extend(&bytes);
        }
        bytes
    });
    pair.a.send(b"one").unwrap();
    pair.a.outgoing.extend(first.repeat(3));
    pair.a.send(b"two").unwrap();
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.b.packets, [b"one", b"two"]);
    assert_eq!(pair.ends(), (None, None));
}

#[test]
fn own_nonce_back_is_a_loop() {
    let mut pair = Pair::new();
    pair.a.drive(pair.now);
    let line = std::mem::take(&mut pair.a.outgoing);
    pair.a.receive(pair.now, &line);
    assert_eq!(pair.a.session.end(), Some(End::Loop));
}

#[test]
fn a_loop_plug_on_a_running_session_ends_it() {
    let mut pair = Pair::established();
    let mut looped = Side::new(pair.now, small(Role::Dialer), 0xa);
    looped.drive(pair.now);
    pair.a.receive(pair.now, &looped.outgoing);
    assert_eq!(pair.a.session.end(), Some(End::Loop));
}

#[test]
fn two_ends_with_one_role_are_told() {
    let now = Instant::ZERO;
    let mut pair =
        Pair { now, a: Side::new(now, small(Role::Dialer), 1), b: Side::new(now, small(Role::Dialer), 2) };
    pair.run(Duration::from_millis(100));
    let end = End::SameRole(Role::Dialer);
    assert_eq!(pair.ends(), (Some(end), Some(end)));
    assert!(std::format!("{end}").contains("both ends dial"));
}

#[test]
fn another_version_is_named() {
    let mut pair = Pair::new();
    let mut hello = [0; 40];
    hello[0] = 7;
    pair.b.put(|_, sink| frame::write(Crc32c::new(), kind::HELLO, 0, &hello, sink)).unwrap();
    pair.run(LINE);
    assert_eq!(pair.a.session.end(), Some(End::Version(7)));
}

#[test]
fn a_senseless_hello_ends_an_opening_but_no_running_session() {
    for established in [false, true] {
        let mut pair = if established { Pair::established() } else { Pair::new() };
        pair.b.put(|_, sink| frame::write(Crc32c::new(), kind::HELLO, 0, &[1, 1, 1], sink)).unwrap();
        pair.run(LINE);
        assert_eq!(pair.a.session.end(), (!established).then_some(End::BadHello));
    }
}

#[test]
fn a_dialer_gives_up_and_says_whether_it_heard_something() {
    let mut pair = Pair::new();
    pair.run_over(HELLO_TIMEOUT + LINE, |_, _| Vec::new());
    assert_eq!(pair.a.session.end(), Some(End::NoAnswer));
    // The acceptor answered one HELLO; then this end's wire broke, and the acceptor never heard that it was heard.
    let mut pair = Pair::new();
    let mut other = Side::new(pair.now, small(Role::Dialer), 0xc);
    other.drive(pair.now);
    pair.b.receive(pair.now, &other.outgoing);
    pair.run_over(HELLO_TIMEOUT + LINE, |there, bytes| if there { Vec::new() } else { bytes });
    assert_eq!(pair.a.session.end(), Some(End::NotHeard));
}

#[test]
fn what_an_earlier_session_left_in_the_pipe_is_discarded() {
    let mut pair = Pair::established();
    pair.a.send(b"old").unwrap();
    let (old_there, old_back) = {
        pair.b.send(b"old too").unwrap();
        (std::mem::take(&mut pair.a.outgoing), std::mem::take(&mut pair.b.outgoing))
    };
    // Both open anew, with the old bytes still to come.
    let mut pair = Pair {
        now: pair.now,
        a: Side::new(pair.now, small(Role::Dialer), 0xaa),
        b: Side::new(pair.now, small(Role::Acceptor), 0xbb),
    };
    pair.b.outgoing.extend(&old_back);
    pair.run(Duration::from_millis(100));
    // And once more, in the middle of the new session.
    pair.a.outgoing.extend(&old_there);
    pair.a.send(b"new").unwrap();
    pair.run(LINE);
    assert_eq!(pair.b.packets, [b"new"]);
    assert!(pair.a.packets.is_empty());
    assert_eq!(pair.a.session.counters().checksum_errors, 1);
    assert_eq!(pair.b.session.counters().checksum_errors, 1);
}

#[test]
fn a_peer_that_opens_anew_ends_the_session() {
    let mut pair = Pair::established();
    pair.a = Side::new(pair.now, small(Role::Dialer), 0xaa);
    pair.run(Duration::from_millis(20));
    assert_eq!(pair.b.session.end(), Some(End::PeerReopened));
    pair.b = Side::new(pair.now, small(Role::Acceptor), 0xbb);
    pair.run(Duration::from_secs(1));
    assert!(pair.a.session.is_established() && pair.b.session.is_established());
}

#[test]
fn a_peer_that_says_hello_for_ever_is_given_up() {
    let mut pair = Pair::established();
    let hello = Hello {
        role: Role::Dialer,
        answer_wanted: true,
        mtu_bytes: 256,
        receive_buffer_bytes: 1000,
        read_bytes: 0,
        keep_alive: KEEP_ALIVE,
        nonce: 0xa,
        peer_nonce: None,
    };
    let mut answers = 0;
    let end = pair.now + HELLO_TIMEOUT + Duration::from_secs(1);
    while pair.now < end && pair.b.session.end().is_none() {
        pair.b.drive(pair.now);
        answers += std::mem::take(&mut pair.b.outgoing).len() / 40;
        let mut flood = Side::new(pair.now, small(Role::Dialer), 1);
        for _ in 0..10 {
            flood.put(|_, sink| frame::write(Crc32c::new(), kind::HELLO, 0, &hello.write(), sink)).unwrap();
        }
        pair.now = pair.now + LINE;
        pair.b.receive(pair.now, &flood.outgoing);
    }
    assert_eq!(pair.b.session.end(), Some(End::HelloForEver));
    assert!(answers <= 11_000 / 20, "{answers} answers in 11 s");
    assert!(pair.b.session.counters().hellos > 10_000);
}

#[test]
fn a_receiver_that_does_not_read_stops_the_sender() {
    let mut pair = Pair::established();
    pair.b.reads = false;
    let mut sent = 0;
    while pair.a.send(&[7; 100]).is_ok() {
        sent += 1;
        pair.run(LINE);
    }
    assert_eq!(sent, 1200 / 109);
    assert_eq!(pair.a.send(&[7; 100]), Err(SendError::NoCredit));
    assert_eq!(pair.a.session.counters().credit_stalls, 1, "one wait counts once");
    pair.a.put(|session, sink| session.send_message(b"exempt", sink)).unwrap();
    pair.run(Duration::from_secs(20));
    assert_eq!(pair.b.messages, [b"exempt"]);
    assert_eq!(pair.ends(), (None, None), "a wait is not a fault");

    // The first update is lost.
    pair.b.session.release(100 * sent - 100 * (sent - 3));
    pair.step(|_, _| Vec::new());
    assert!(!pair.a.session.can_send(100));
    pair.run(Duration::from_millis(60));
    assert!(pair.a.session.can_send(100));
}

/// Found by the simulator of serial links: keep-alives that only went out on an idle line never told the limit again while
/// this end had packets to send.
#[test]
fn a_lost_limit_heals_while_the_other_direction_is_busy() {
    let mut pair = Pair::established();
    // Enough room is left for b not to see that a will wait.
    for _ in 0..3 {
        pair.a.send(&[7; 100]).unwrap();
    }
    pair.step(|_, bytes| bytes);
    pair.step(|there, bytes| if there { bytes } else { Vec::new() });
    for _ in 0..8 {
        pair.a.send(&[7; 100]).unwrap();
    }
    pair.step(|_, _| Vec::new());
    assert!(!pair.a.session.can_send(100));
    for _ in 0..600 {
        let _ = pair.b.send(&[1]);
        pair.run(LINE);
    }
    assert!(pair.a.session.can_send(100));
}

#[test]
fn a_sender_that_overruns_is_cut_off() {
    let mut pair = Pair::established();
    pair.b.reads = false;
    for _ in 0..11 {
        pair.a.send(&[7; 100]).unwrap();
    }
    let count = pair.a.session.established().unwrap().sending.count();
    pair.a.forge(kind::DATA, count, &[7; 100]);
    pair.run(2 * LINE);
    assert_eq!(pair.ends(), (Some(End::ClosedByPeer(4)), Some(End::Overrun)));
    assert_eq!(pair.b.packets.len(), 11);
    assert_eq!(pair.b.session.handle_frame(pair.now, &[]), Err(End::Overrun), "it stays over");
}

#[test]
fn broken_rules_end_the_session_and_the_peer_hears_why() {
    let cases: [(u8, u32, &[u8], End, u8); 8] = [
        (kind::DATA, 0, &[7; 257], End::TooLong, 1),
        (kind::DATA, 0, &[], End::Malformed, 5),
        (kind::DATA, u32::MAX, &[7], End::CountBackwards, 2),
        (kind::CREDIT, u32::MAX, &[0, 0, 4, 176], End::CountBackwards, 2),
        (kind::CREDIT, 0, &[0, 0, 0, 1], End::CreditBackwards, 3),
        (kind::CREDIT, 0, &[0, 1, 0, 0], End::CreditBackwards, 3),
        (kind::CREDIT, 0, &[0, 0], End::Malformed, 5),
        (kind::MESSAGE, 0, &[7; 33], End::Malformed, 5),
    ];
    for (kind, count, payload, end, code) in cases {
        let mut pair = Pair::established();
        pair.a.forge(kind, count, payload);
        pair.run(2 * LINE);
        assert_eq!(pair.ends(), (Some(End::ClosedByPeer(code)), Some(end)));
        assert!(pair.b.packets.is_empty());
    }
}

#[test]
fn frames_of_later_versions_are_ignored_and_counted() {
    let mut pair = Pair::established();
    pair.a.forge(99, 0, b"from the future");
    pair.a.send(b"now").unwrap();
    pair.run(LINE);
    assert_eq!(pair.b.packets, [b"now"]);
    assert_eq!(pair.b.session.counters().unknown_frames, 1);
}

#[test]
fn silence_ends_the_session_and_keep_alives_prevent_it() {
    let mut pair = Pair::established();
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.ends(), (None, None));
    let frames = pair.a.session.counters().sent.frames;
    assert!((60..70).contains(&frames), "{frames} frames in a minute");
    pair.run_over(4 * KEEP_ALIVE + LINE, |_, _| Vec::new());
    assert_eq!(pair.ends(), (Some(End::Silent), Some(End::Silent)));
}

#[test]
fn close_reaches_the_peer() {
    let mut pair = Pair::established();
    pair.a.session.close();
    pair.run(LINE);
    assert_eq!(pair.ends(), (Some(End::Closed), Some(End::ClosedByPeer(0))));
    assert_eq!(pair.b.send(b"x"), Err(SendError::NotEstablished));
}

#[test]
fn packets_of_bad_length_are_refused() {
    let mut pair = Pair::established();
    assert_eq!(pair.a.send(&[]), Err(SendError::BadLength));
    assert_eq!(pair.a.send(&[0; 257]), Err(SendError::BadLength));
    let small = pair.a.session.send_packet(&[0; 256], &mut cobs::Writer::new(&mut [0; 100]));
    assert_eq!(small, Err(SendError::NoRoom(NoRoom)));
    assert_eq!(pair.a.session.established().unwrap().sending.count(), 0, "nothing was sent");
}

#[test]
fn sessions_run_over_transfers_too() {
    let now = Instant::ZERO;
    let config = |role| Config { read_bytes: 512, ..small(role) };
    let mut ends = [Session::new(now, config(Role::Dialer), 1), Session::new(now, config(Role::Acceptor), 2)];
    let mut got = Vec::new();
    for turn in 0..8 {
        let (from, to) = (turn % 2, 1 - turn % 2);
        let mut buffer = [0; 2048];
        let mut writer = transfer::Writer::new(&mut buffer, 512, 64);
        while ends[from].poll_control(now, &mut writer).unwrap() {}
        while writer.len() < 200 && ends[from].send_packet(&[turn as u8; 70], &mut writer).is_ok() {}
        let len = writer.finish();
        assert!(len <= 512 && (len == 0 || !len.is_multiple_of(64)));
        for frame in transfer::frames(&buffer[..len]) {
            if let Ok(Received::Packet(packet)) = ends[to].handle_frame(now, frame.unwrap()) {
                got.push(packet[0]);
                ends[to].release(70);
            }
        }
    }
    assert!(got.len() >= 10, "{got:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a line does to its bytes: what arrives was sent, in order, and when the noise ends all is well again.
    #[test]
    fn noise_costs_packets_and_nothing_else(
        lengths in prop::collection::vec(1usize..256, 40..120),
        noise in prop::collection::vec((any::<u16>(), 0u8..4, 1u8..), 0..60),
    ) {
        let mut pair = Pair::established();
        let (mut sent, mut at) = (Vec::new(), 0);
        let (mut noise, mut turns) = (noise.into_iter(), [0, 0]);
        let mut damage = |there: bool, bytes: &mut Vec<u8>| {
            // Noise that lets nothing through for four seconds ends a session, and should. This lets two in four through, as
            // a lost delimiter takes the next frame with it.
            let turn = &mut turns[usize::from(there)];
            *turn += 1;
            let Some((place, what, bits)) = noise.next().filter(|_| *turn % 4 < 2) else { return };
            let place = usize::from(place) % (bytes.len() + 1);
            match what {
                0 if place < bytes.len() => bytes[place] ^= bits,
                1 if place < bytes.len() => drop(bytes.remove(place)),
                2 => bytes.insert(place, bits),
                _ => bytes.truncate(place),
            }
        };
        while at < lengths.len() {
            let packet: Vec<u8> = (0..lengths[at]).map(|n| (n * 7 + at) as u8).collect();
            if pair.a.send(&packet).is_ok() {
                sent.push(packet);
                at += 1;
            }
            pair.step(|there, mut bytes| {
                if !bytes.is_empty() {
                    damage(there, &mut bytes);
                }
                bytes
            });
            prop_assert_eq!(pair.ends(), (None, None));
        }
        let mut rest = sent.iter();
        for packet in &pair.b.packets {
            prop_assert!(rest.any(|candidate| candidate == packet), "a packet that was not sent, or out of order");
        }
        // Credits do not leak: with the noise gone, everything goes through.
        pair.run(Duration::from_millis(2100));
        pair.b.packets.clear();
        for n in 0..50 {
            pair.a.send(&[n; 100]).unwrap();
            pair.run(2 * LINE);
        }
        prop_assert_eq!(pair.b.packets.len(), 50);
    }
}
