//! Devices and hosts in virtual time: what passes, what does not, and every kind of bad host.

mod host;

use std::vec;
use std::vec::Vec;

use bondwire_frame::hello::Hello;
use bondwire_frame::limits::RECEIVE_BUFFER_MAX_BYTES;
use proptest::prelude::*;

use crate::{
    Bridge, Duration, Echo, End, Framing, Instant, Line, Port, PortConfig, Role, Roles, TooSmall, Transfers,
    line_frame_bytes, line_outgoing_bytes, queue_bytes,
};
use host::{Host, Medium};

const MTU_BYTES: u16 = 631;
/// Bytes of packets, 9 counted for each, that a port of these tests keeps.
const BUFFER_BYTES: usize = 4096;
const TRANSFER_BYTES: usize = 2048;
const PACKET_BYTES: usize = 64;
const TICK: Duration = Duration::from_millis(1);

fn leaked(bytes: usize) -> &'static mut [u8] {
    vec![0; bytes].leak()
}

fn line_port(roles: Roles, seed: u64) -> Port<'static, Line<'static>> {
    let line =
        Line::new(leaked(line_frame_bytes(MTU_BYTES)), leaked(line_outgoing_bytes(MTU_BYTES)), 115_200);
    port(line, roles, seed)
}

fn usb_port(seed: u64) -> Port<'static, Transfers<'static>> {
    let transfers = Transfers::new(leaked(TRANSFER_BYTES), leaked(TRANSFER_BYTES), PACKET_BYTES);
    port(transfers, Roles::HostDials, seed)
}

fn port<F: Framing>(framing: F, roles: Roles, seed: u64) -> Port<'static, F> {
    let config = PortConfig { roles, mtu_bytes: MTU_BYTES, seed };
    Port::new(Instant::ZERO, framing, leaked(queue_bytes(MTU_BYTES, BUFFER_BYTES)), config).unwrap()
}

/// Moves what there is between a port and its host, until both are silent.
fn exchange<F: Framing>(now: Instant, port: &mut Port<'_, F>, host: &mut Host) {
    for _ in 0..1000 {
        host.step(now);
        let mut moved = false;
        while let Some(piece) = host.take_sent() {
            port.handle_bytes(now, &piece);
            moved = true;
        }
        while !port.outgoing().is_empty() {
            let piece = &port.outgoing()[..port.outgoing().len().min(host.piece_bytes())];
            let bytes = piece.len();
            host.receive(now, piece);
            port.sent(bytes);
            moved = true;
        }
        port.step(now);
        if !moved {
            return;
        }
    }
    unreachable!("they never stop talking");
}

/// A bridge between two hosts.
struct World<A, B> {
    now: Instant,
    bridge: Bridge<'static, A, B>,
    a: Option<Host>,
    b: Option<Host>,
}

impl<A: Framing, B: Framing> World<A, B> {
    fn new(a: Port<'static, A>, b: Port<'static, B>) -> Self {
        Self { now: Instant::ZERO, bridge: Bridge::new(a, b), a: None, b: None }
    }

    /// Lets everything happen that can happen now.
    fn settle(&mut self) {
        for _ in 0..5 {
            match &mut self.a {
                Some(host) => exchange(self.now, &mut self.bridge.a, host),
                None => discard(&mut self.bridge.a),
            }
            match &mut self.b {
                Some(host) => exchange(self.now, &mut self.bridge.b, host),
                None => discard(&mut self.bridge.b),
            }
            self.bridge.step(self.now);
        }
    }

    fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.now < until {
            self.now = self.now + TICK;
            self.settle();
        }
    }

    /// Until the device has joined its hosts.
    fn run_until_joined(&mut self) {
        for _ in 0..5000 {
            if self.bridge.is_joined()
                && [&self.a, &self.b].iter().all(|host| host.as_ref().is_some_and(Host::is_up))
            {
                return;
            }
            self.run(TICK);
        }
        panic!("not joined: {:?} {:?}", self.bridge.a.last_end(), self.bridge.b.last_end());
    }

    fn hosts(&mut self) -> (&mut Host, &mut Host) {
        (self.a.as_mut().unwrap(), self.b.as_mut().unwrap())
    }
}

/// Nobody is plugged in.
fn discard<F: Framing>(port: &mut Port<'_, F>) {
    while !port.outgoing().is_empty() {
        port.sent(port.outgoing().len());
    }
}

fn numbered(count: u32, bytes: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| n.to_be_bytes().into_iter().cycle().take(bytes.max(4)).collect()).collect()
}

/// Sends packets both ways through a bridge, and sees that they come out as they went in.
fn carry<A: Framing, B: Framing>(world: &mut World<A, B>, packets: &[Vec<u8>]) {
    let (a, b) = world.hosts();
    a.queue.extend(packets.iter().cloned());
    b.queue.extend(packets.iter().rev().cloned());
    for _ in 0..10_000 {
        let (a, b) = world.hosts();
        if a.received.len() == packets.len() && b.received.len() == packets.len() {
            break;
        }
        world.run(TICK);
    }
    let (a, b) = world.hosts();
    assert_eq!(core::mem::take(&mut b.received), packets);
    a.received.reverse();
    assert_eq!(core::mem::take(&mut a.received), packets);
}

#[test]
fn two_uarts_are_a_cable_either_way_round() {
    // Two that dial have a link each, too, whatever a bond makes of it.
    for (a, b) in
        [(Role::Dialer, Role::Acceptor), (Role::Acceptor, Role::Dialer), (Role::Dialer, Role::Dialer)]
    {
        let mut world = World::new(line_port(Roles::Either, 1), line_port(Roles::Either, 2));
        world.a = Some(Host::new(world.now, Medium::Line, a, 1));
        world.b = Some(Host::new(world.now, Medium::Line, b, 2));
        world.run_until_joined();
        carry(&mut world, &numbered(200, 631));
        carry(&mut world, &numbered(500, 5));
    }
}

#[test]
fn usb_and_uart_are_a_cable() {
    for serial in [Role::Acceptor, Role::Dialer] {
        let mut world = World::new(usb_port(1), line_port(Roles::Either, 2));
        world.a = Some(Host::new(world.now, Medium::Usb, Role::Dialer, 1));
        world.b = Some(Host::new(world.now, Medium::Line, serial, 2));
        world.run_until_joined();
        carry(&mut world, &numbered(200, 631));
        carry(&mut world, &numbered(500, 5));
    }
}

#[test]
fn two_usb_hosts_are_joined() {
    let mut world = World::new(usb_port(1), usb_port(2));
    world.a = Some(Host::new(world.now, Medium::Usb, Role::Dialer, 1));
    world.b = Some(Host::new(world.now, Medium::Usb, Role::Dialer, 2));
    world.run_until_joined();
    carry(&mut world, &numbered(300, 631));
}

#[test]
fn an_echo_sends_back_what_came() {
    for medium in [Medium::Line, Medium::Usb] {
        let packets = numbered(300, 400);
        let mut host = Host::new(Instant::ZERO, medium, Role::Dialer, 1);
        host.queue.extend(packets.iter().cloned());
        let received = match medium {
            Medium::Line => echoed(Echo::new(line_port(Roles::HostDials, 1)), host, packets.len()),
            Medium::Usb => echoed(Echo::new(usb_port(1)), host, packets.len()),
        };
        assert_eq!(received, packets);
    }
}

fn echoed<F: Framing>(mut echo: Echo<'static, F>, mut host: Host, count: usize) -> Vec<Vec<u8>> {
    let mut now = Instant::ZERO;
    for _ in 0..5000 {
        exchange(now, &mut echo.port, &mut host);
        echo.step(now);
        if host.received.len() == count {
            break;
        }
        now = now + TICK;
    }
    host.received
}

#[test]
fn nothing_is_said_to_a_port_before_there_is_a_host_at_either() {
    let mut world = World::new(line_port(Roles::Either, 1), line_port(Roles::Either, 2));
    for _ in 0..30_000 {
        world.now = world.now + TICK;
        world.bridge.step(world.now);
        assert!(world.bridge.a.outgoing().is_empty() && world.bridge.b.outgoing().is_empty());
    }
    world.a = Some(Host::new(world.now, Medium::Line, Role::Dialer, 1));
    world.run(Duration::from_millis(20));
    assert!(world.bridge.a.is_established() && !world.bridge.b.is_established());
    world.bridge.step(world.now + Duration::from_secs(1));
    assert!(!world.bridge.b.outgoing().is_empty(), "now it dials at the other port");
}

/// While one side is down, the other one can send what the device keeps, and no more. Nothing of it is lost when that side
/// comes, and all of the credit comes back.
#[test]
fn a_side_that_is_down_stops_the_other_one_without_loss() {
    let mut world = World::new(line_port(Roles::Either, 1), line_port(Roles::Either, 2));
    let packets = numbered(400, 300);
    let mut host = Host::new(world.now, Medium::Line, Role::Dialer, 1);
    host.queue.extend(packets.iter().cloned());
    world.a = Some(host);
    world.run(Duration::from_secs(30));
    let kept = world.bridge.a.waiting();
    assert_eq!(kept, BUFFER_BYTES / (300 + 9), "as many as fit");
    assert_eq!(world.a.as_ref().unwrap().queue.len(), packets.len() - kept, "the others wait in the host");
    assert!(world.a.as_ref().unwrap().is_up(), "the link does not end for that");
    world.b = Some(Host::new(world.now, Medium::Line, Role::Acceptor, 2));
    world.run_until_joined();
    world.run(Duration::from_millis(100));
    let (a, b) = world.hosts();
    assert_eq!(core::mem::take(&mut b.received), packets);
    assert_eq!((a.queue.len(), b.session.counters().lost_bytes), (0, 0));
    carry(&mut world, &numbered(400, 300));
}

#[test]
fn a_host_that_takes_nothing_stops_the_other_one_without_loss() {
    let mut world = World::new(usb_port(1), line_port(Roles::Either, 2));
    world.a = Some(Host::new(world.now, Medium::Usb, Role::Dialer, 1));
    let mut lazy = Host::new(world.now, Medium::Line, Role::Acceptor, 2);
    lazy.takes = false;
    world.b = Some(lazy);
    world.run_until_joined();
    let packets = numbered(1000, 300);
    world.hosts().0.queue.extend(packets.iter().cloned());
    world.run(Duration::from_secs(30));
    let (a, b) = world.hosts();
    assert!(a.is_up() && b.is_up());
    assert!(!a.queue.is_empty() && b.received.is_empty());
    b.take_all();
    b.takes = true;
    for _ in 0..5000 {
        if world.hosts().1.received.len() == packets.len() {
            break;
        }
        world.run(TICK);
    }
    assert_eq!(world.hosts().1.received, packets);
}

/// The program at one end dies, says nothing, and starts anew in the midst of a frame.
#[test]
fn a_host_that_disappears_in_mid_frame_returns_with_a_new_session() {
    for usb in [false, true] {
        let medium = if usb { Medium::Usb } else { Medium::Line };
        if usb {
            returns(World::new(usb_port(1), line_port(Roles::Either, 2)), medium);
        } else {
            returns(World::new(line_port(Roles::Either, 1), line_port(Roles::Either, 2)), medium);
        }
    }
}

fn returns<A: Framing>(mut world: World<A, Line<'static>>, medium: Medium) {
    world.a = Some(Host::new(world.now, medium, Role::Dialer, 1));
    world.b = Some(Host::new(world.now, Medium::Line, Role::Acceptor, 2));
    world.run_until_joined();
    // Half of a frame, and then no more. The other host has sent packets that nobody takes any more.
    let now = world.now;
    let (a, b) = world.hosts();
    b.queue.extend(numbered(50, 600));
    a.queue.push_back(vec![7; 600]);
    a.step(now);
    let piece = a.take_sent().unwrap();
    world.a = None;
    world.bridge.a.handle_bytes(world.now, &piece[..piece.len() / 2]);
    world.settle();
    // It comes back before anybody has noticed.
    let mut back = Host::new(world.now, medium, Role::Dialer, 3);
    back.queue.push_back(b"fresh".to_vec());
    world.a = Some(back);
    world.run(Duration::from_millis(300));
    assert_eq!(world.bridge.a.last_end(), Some(End::PeerReopened));
    let b = world.b.take().unwrap();
    assert_eq!(b.session.end(), Some(End::ClosedByPeer(0)), "the other end of the cable hears of it");
    assert!(b.received.is_empty());
    world.b = Some(Host::new(world.now, Medium::Line, Role::Acceptor, 4));
    world.run_until_joined();
    world.run(Duration::from_millis(100));
    let (a, b) = world.hosts();
    assert_eq!(core::mem::take(&mut b.received), [b"fresh"]);
    assert_eq!(a.received.len(), 0, "nothing of an earlier session");
    carry(&mut world, &numbered(100, 631));
}

/// It says nothing any more, and does not come back: both ends are free again.
#[test]
fn a_host_that_falls_silent_is_given_up_and_the_other_one_hears_of_it() {
    let mut world = World::new(usb_port(1), line_port(Roles::Either, 2));
    world.a = Some(Host::new(world.now, Medium::Usb, Role::Dialer, 1));
    world.b = Some(Host::new(world.now, Medium::Line, Role::Acceptor, 2));
    world.run_until_joined();
    world.b = None;
    world.run(Duration::from_secs(5));
    assert_eq!(world.bridge.b.last_end(), Some(End::Silent));
    assert_eq!(world.a.as_ref().unwrap().session.end(), Some(End::ClosedByPeer(0)));
    assert!(!world.bridge.is_joined());
    assert_eq!((world.bridge.a.waiting(), world.bridge.b.waiting()), (0, 0));
}

#[test]
fn a_shorter_mtu_of_one_host_holds_for_the_other() {
    let mut world = World::new(line_port(Roles::Either, 1), line_port(Roles::Either, 2));
    world.a = Some(Host::new(world.now, Medium::Line, Role::Dialer, 1));
    let mut small = Host::new(world.now, Medium::Line, Role::Acceptor, 2);
    small.reopen_with_mtu(world.now, 300, 2);
    world.b = Some(small);
    // The host at A is told that its link is over, and dials again.
    world.run(Duration::from_millis(500));
    assert_eq!(world.a.as_ref().unwrap().session.end(), Some(End::ClosedByPeer(0)));
    world.a = Some(Host::new(world.now, Medium::Line, Role::Dialer, 3));
    world.run_until_joined();
    assert_eq!((world.bridge.a.mtu_bytes(), world.bridge.b.mtu_bytes()), (Some(300), Some(300)));
    carry(&mut world, &numbered(100, 300));
    assert_eq!(world.bridge.a.dropped_packets(), 0);
}

#[test]
fn who_sends_more_than_it_has_credit_for_is_cut_off() {
    let mut world = World::new(line_port(Roles::Either, 1), line_port(Roles::Either, 2));
    let mut host = Host::new(world.now, Medium::Line, Role::Dialer, 1);
    // It believes in a larger buffer than the device said.
    host.alter_hello = Some(|hello: &mut Hello| hello.receive_buffer_bytes = RECEIVE_BUFFER_MAX_BYTES);
    host.queue.extend(numbered(200, 600));
    world.a = Some(host);
    world.run(Duration::from_secs(1));
    assert_eq!(world.bridge.a.last_end(), Some(End::Overrun));
    assert_eq!(world.a.as_ref().unwrap().session.end(), Some(End::ClosedByPeer(4)), "and is told why");
    assert_eq!(world.bridge.a.waiting(), 0);
    // The port serves the next one.
    world.a = Some(Host::new(world.now, Medium::Line, Role::Dialer, 3));
    world.b = Some(Host::new(world.now, Medium::Line, Role::Acceptor, 2));
    world.run_until_joined();
    carry(&mut world, &numbered(20, 600));
}

/// A host that takes longer packets than this end says it does not send them, or is cut off if they fit the memory. What does
/// not fit is skipped.
#[test]
fn a_frame_longer_than_agreed_is_not_taken() {
    for (medium, mtu_bytes) in [(Medium::Line, 2000), (Medium::Usb, 1500), (Medium::Usb, 8000)] {
        let mut host = Host::new(Instant::ZERO, medium, Role::Dialer, 1);
        host.reopen_with_mtu(Instant::ZERO, mtu_bytes, 1);
        host.alter_hello = Some(|hello: &mut Hello| {
            hello.mtu_bytes = 10_000;
            hello.read_bytes = 16 << 10;
        });
        if mtu_bytes > 4000 {
            // Longer than the buffer that the device has.
            host.alter_hello = Some(|hello: &mut Hello| {
                hello.mtu_bytes = 10_000;
                hello.receive_buffer_bytes = 20_000;
                hello.read_bytes = 16 << 10;
            });
        }
        host.queue.push_back(vec![1; usize::from(mtu_bytes)]);
        host.queue.push_back(vec![2; 100]);
        let (waiting, end, bad) = match medium {
            Medium::Line => {
                let mut port = line_port(Roles::HostDials, 1);
                exchange(Instant::ZERO, &mut port, &mut host);
                (port.waiting(), port.last_end(), port.framing().resyncs())
            }
            Medium::Usb => {
                let mut port = usb_port(1);
                exchange(Instant::ZERO, &mut port, &mut host);
                (port.waiting(), port.last_end(), port.framing().bad_transfers())
            }
        };
        match (medium, mtu_bytes) {
            (Medium::Usb, 1500) => assert_eq!((waiting, end), (0, Some(End::TooLong))),
            // Skipped, and the next one is good.
            (Medium::Line, _) => assert_eq!((waiting, end, bad), (1, None, 1)),
            (Medium::Usb, _) => {
                assert_eq!((waiting, end, bad), (0, None, 1), "both were in the one transfer");
            }
        }
    }
}

#[test]
fn hello_for_ever_ends_the_session() {
    let mut port = line_port(Roles::HostDials, 1);
    let mut host = Host::new(Instant::ZERO, Medium::Line, Role::Dialer, 1);
    exchange(Instant::ZERO, &mut port, &mut host);
    assert!(port.is_established());
    let hello = host.first_sent.clone();
    let mut now = Instant::ZERO;
    while port.last_end().is_none() {
        now = now + Duration::from_millis(100);
        assert!(now < Instant::from_millis(15_000));
        port.handle_bytes(now, &hello);
        port.step(now);
        let answers = port.outgoing().len();
        assert!(answers <= 100, "{answers} bytes of answers");
        port.sent(answers);
    }
    assert_eq!(port.last_end(), Some(End::HelloForEver));
}

/// New sessions without end cost nothing but their answers.
#[test]
fn a_host_that_starts_over_for_ever_is_answered_each_time() {
    let mut port = line_port(Roles::HostDials, 1);
    let mut now = Instant::ZERO;
    for seed in 1..500 {
        let mut host = Host::new(now, Medium::Line, Role::Dialer, seed);
        host.queue.extend(numbered(3, 600));
        exchange(now, &mut port, &mut host);
        assert!(host.is_up());
        assert_eq!(port.waiting(), 3);
        now = now + TICK;
    }
}

#[test]
fn a_loop_plug_is_no_flood() {
    let mut port = line_port(Roles::DeviceDials, 1);
    let (mut now, mut bytes) = (Instant::ZERO, 0);
    for _ in 0..10_000 {
        port.step(now);
        let out = port.outgoing().to_vec();
        port.sent(out.len());
        bytes += out.len();
        port.handle_bytes(now, &out);
        now = now + TICK;
    }
    assert_eq!(port.last_end(), Some(End::Loop));
    assert!(bytes < 10 * 10 * 50, "{bytes} bytes in ten seconds");
}

/// Whatever is due, the device may sleep while its hardware takes nothing.
#[test]
fn hardware_that_is_stuck_keeps_nothing_awake() {
    let mut port = line_port(Roles::DeviceDials, 1);
    let mut now = Instant::ZERO;
    for _ in 0..1000 {
        port.step(now);
        now = now + Duration::from_millis(50);
    }
    port.step(now);
    let full = port.outgoing().len();
    assert!(full > line_outgoing_bytes(MTU_BYTES) - 50, "only {full} bytes wait");
    assert!(port.poll_timeout(now).is_some_and(|at| at > now));
}

#[test]
fn too_little_memory_is_refused() {
    let config = PortConfig { roles: Roles::HostDials, mtu_bytes: MTU_BYTES, seed: 1 };
    let line = |frame, outgoing| Line::new(leaked(frame), leaked(outgoing), 115_200);
    let (frame, outgoing) = (line_frame_bytes(MTU_BYTES), line_outgoing_bytes(MTU_BYTES));
    for (frame, outgoing) in [(frame - 1, outgoing), (frame, outgoing - 1), (0, 0)] {
        let refused = Port::new(Instant::ZERO, line(frame, outgoing), leaked(10_000), config).unwrap_err();
        assert!(matches!(refused, TooSmall::Frames { mtu_bytes: MTU_BYTES, .. }), "{refused}");
    }
    let min_bytes = queue_bytes(MTU_BYTES, usize::from(MTU_BYTES) + 9);
    let refused = Port::new(Instant::ZERO, line(frame, outgoing), leaked(min_bytes - 1), config).unwrap_err();
    assert_eq!(refused, TooSmall::Queue { bytes: min_bytes - 1, min_bytes });
    assert!(Port::new(Instant::ZERO, line(frame, outgoing), leaked(min_bytes), config).is_ok());
    let short = Transfers::new(leaked(600), leaked(2048), PACKET_BYTES);
    assert!(Port::new(Instant::ZERO, short, leaked(10_000), config).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever comes, a port survives it, says nothing but frames, and serves a host afterwards.
    #[test]
    fn garbage_is_survived(
        pieces in prop::collection::vec(prop::collection::vec(prop::sample::select(&[0u8, 1, 2, 5, 40, 255][..]), 0..64), 0..200),
        random in prop::collection::vec(any::<u8>(), 0..3000),
        while_established in any::<bool>(),
    ) {
        let mut world = World::new(usb_port(1), line_port(Roles::Either, 2));
        if while_established {
            world.a = Some(Host::new(world.now, Medium::Usb, Role::Dialer, 1));
            world.b = Some(Host::new(world.now, Medium::Line, Role::Acceptor, 2));
            world.run_until_joined();
        }
        for piece in pieces.iter().map(Vec::as_slice).chain(random.chunks(PACKET_BYTES)) {
            world.bridge.a.handle_bytes(world.now, piece);
            world.bridge.b.handle_bytes(world.now, piece);
            world.bridge.step(world.now);
        }
        // On USB what comes next is behind the garbage's last transfer.
        world.bridge.a.handle_bytes(world.now, &[]);
        world.a = Some(Host::new(world.now, Medium::Usb, Role::Dialer, 3));
        world.b = Some(Host::new(world.now, Medium::Line, Role::Acceptor, 4));
        world.run_until_joined();
        carry(&mut world, &numbered(20, 600));
    }

    /// On a line that flips bits and swallows bytes, not one wrong packet passes, and what it swallowed gives its credit back.
    #[test]
    fn noise_costs_packets_and_no_credit(seed in any::<u64>()) {
        let mut world = World::new(line_port(Roles::Either, 1), line_port(Roles::Either, 2));
        let mut noisy = Host::new(world.now, Medium::Line, Role::Dialer, 1);
        noisy.noise = Some(seed);
        world.a = Some(noisy);
        world.b = Some(Host::new(world.now, Medium::Line, Role::Acceptor, 2));
        world.run_until_joined();
        let packets = numbered(1000, 200);
        world.hosts().0.queue.extend(packets.iter().cloned());
        for _ in 0..20_000 {
            if world.hosts().0.queue.is_empty() {
                break;
            }
            world.run(TICK);
        }
        world.hosts().0.noise = None;
        world.run(Duration::from_secs(2));
        let (a, b) = world.hosts();
        prop_assert!(a.queue.is_empty() && a.is_up());
        let received = core::mem::take(&mut b.received);
        prop_assert!(received.len() < packets.len(), "there was noise");
        prop_assert!(received.iter().all(|packet| packets.contains(packet)));
        carry(&mut world, &numbered(100, 600));
    }
}
