//! Two endpoints and the wires between them, in virtual time; everything follows from a seed.

use bondwire_line::{Noise, Wire};

use super::*;
use crate::limits::LADDER;

const MILLISECOND: Duration = Duration::from_millis(1);

/// One end with its port.
struct Side {
    endpoint: Endpoint,
    setup: Setup,
    baud: u32,
    /// To the other end.
    wire: Wire,
    /// Rates that the port refuses.
    port_max: u32,
    received: u64,
    sent: u64,
    /// Nothing of what this end sends arrives.
    is_cut: bool,
    sessions: u32,
    sends: bool,
    /// Least time between two packets.
    pause: Duration,
    next_at: Instant,
}

struct World {
    now: Instant,
    sides: [Side; 2],
    dice: u64,
    tick: Duration,
}

/// What can go wrong, and until when.
#[derive(Clone, Copy)]
struct Plan {
    max: [u32; 2],
    port_max: [u32; 2],
    cable_max: u32,
}

const GOOD: Plan = Plan { max: [3_000_000; 2], port_max: [u32::MAX; 2], cable_max: 0 };

impl World {
    fn new(plan: Plan, seed: u64) -> Self {
        let now = Instant::from_millis(5);
        let noise = Noise { baud_max: plan.cable_max, ..Noise::NONE };
        let side = |role: Role| {
            let index = role as usize;
            let nonce = seed.wrapping_mul(2).wrapping_add(index as u64 + 1);
            let setup = Setup { role, start: 115_200, max: plan.max[index], paced: true, nonce };
            Side {
                endpoint: Endpoint::new(now, setup),
                setup,
                baud: 115_200,
                wire: Wire::new(noise, nonce),
                port_max: plan.port_max[index],
                received: 0,
                sent: 0,
                is_cut: false,
                sessions: 1,
                sends: true,
                pause: Duration::ZERO,
                next_at: now,
            }
        };
        Self { now, sides: [side(Role::Dialer), side(Role::Acceptor)], dice: seed, tick: MILLISECOND }
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % below
    }

    fn set_noise(&mut self, noise: Noise) {
        self.sides.iter_mut().for_each(|side| side.wire.set_noise(noise));
    }

    fn ns(&self) -> u64 {
        self.now.as_micros() * 1000
    }

    fn step(&mut self) {
        let ns = self.ns();
        for to in [0, 1] {
            let mut bytes = Vec::new();
            let baud = self.sides[to].baud;
            let from = &mut self.sides[1 - to];
            from.wire.receive(ns, baud, &mut bytes);
            if from.is_cut {
                bytes.clear();
            }
            self.sides[to].run(self.now, &bytes);
        }
        self.now = self.now + self.tick;
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    /// Runs until `done`, and answers how long that took; at most `limit`.
    fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let begun = self.now;
        while self.now - begun < limit {
            self.step();
            if done(self) {
                return Some(self.now - begun);
            }
        }
        None
    }

    fn rates(&self) -> [u32; 2] {
        self.sides.each_ref().map(|side| side.baud)
    }

    fn is_settled(&self) -> bool {
        self.sides.iter().all(|side| side.endpoint.is_settled())
    }

    /// Packets flow both ways for a while.
    fn flows(&mut self, time: Duration) -> bool {
        let before = self.sides.each_ref().map(|side| side.received);
        self.run(time);
        self.sides.iter().zip(before).all(|(side, before)| side.received > before)
    }
}

impl Side {
    fn run(&mut self, now: Instant, bytes: &[u8]) {
        let ns = now.as_micros() * 1000;
        self.endpoint.handle_bytes(now, bytes);
        if self.endpoint.poll_timeout(now).is_some_and(|at| at <= now) {
            self.endpoint.handle_timeout(now);
        }
        if let Some(rate) = self.endpoint.poll_rate(now, self.wire.queued_bytes(ns)) {
            let can = rate <= self.port_max;
            if can {
                self.baud = rate;
            }
            self.endpoint.rate_changed(now, can);
        }
        while let Some(packet) = self.endpoint.take_packet() {
            assert!(packet.iter().all(|byte| *byte == packet[0]), "a wrong byte");
            self.received += 1;
        }
        while self.sends && self.next_at <= now && self.endpoint.room_at().is_some_and(|at| at <= now) {
            self.sent += 1;
            self.next_at = now + self.pause;
            self.endpoint.send_packet(now, &[self.sent as u8; 500]).unwrap();
        }
        let outgoing = self.endpoint.outgoing().to_vec();
        self.wire.send(ns, self.baud, &outgoing);
        self.endpoint.written(now, outgoing.len());
        if self.endpoint.end().is_some() {
            // As a dialer and an acceptor do: open again, at the first rate.
            self.setup.nonce = self.setup.nonce.wrapping_add(1 << 40);
            self.sessions += 1;
            self.endpoint = Endpoint::new(now, self.setup);
            self.baud = self.setup.start;
        }
    }
}

#[test]
fn a_good_cable_is_climbed_to_the_top_within_a_second() {
    let mut world = World::new(GOOD, 1);
    let took = world.run_until(Duration::from_secs(5), World::is_settled).unwrap();
    assert_eq!(world.rates(), [3_000_000; 2]);
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert!(world.flows(Duration::from_secs(1)));
    // 300 kB/s in packets of 500 bytes.
    let before = world.sides[1].received;
    world.run(Duration::from_secs(1));
    assert!(world.sides[1].received - before > 560, "{}", world.sides[1].received - before);
}

#[test]
fn the_climb_ends_where_the_cable_or_an_end_does() {
    for (plan, rate) in [
        (Plan { cable_max: 1_000_000, ..GOOD }, 921_600),
        (Plan { cable_max: 115_200, ..GOOD }, 115_200),
        (Plan { max: [3_000_000, 460_800], ..GOOD }, 460_800),
        (Plan { max: [1_000_000, 3_000_000], ..GOOD }, 1_000_000),
        (Plan { port_max: [u32::MAX, 230_400], ..GOOD }, 230_400),
        (Plan { port_max: [230_400, u32::MAX], ..GOOD }, 230_400),
        (Plan { max: [115_200, 3_000_000], ..GOOD }, 115_200),
    ] {
        let mut world = World::new(plan, 2);
        world.run_until(Duration::from_secs(8), World::is_settled).unwrap();
        world.run(Duration::from_secs(1));
        assert_eq!(world.rates(), [rate; 2]);
        assert!(world.flows(Duration::from_secs(1)));
        assert_eq!(world.sides.each_ref().map(|side| side.sessions), [1, 1], "the session went on");
    }
}

#[test]
fn noise_at_a_high_rate_steps_down_without_losing_the_session() {
    let mut world = World::new(GOOD, 3);
    world.run_until(Duration::from_secs(5), World::is_settled).unwrap();
    // The cable warmed up: what is above a megabaud arrives as garbage now.
    world.set_noise(Noise { baud_max: 1_000_000, ..Noise::NONE });
    let took =
        world.run_until(Duration::from_secs(20), |world| world.rates() == [921_600; 2] && world.is_settled());
    assert!(took.is_some(), "{:?}", world.rates());
    assert!(world.flows(Duration::from_secs(1)));
    // Half of the frames damaged, at a rate that both can still talk at.
    world.set_noise(Noise { bit_flip: 1.5e-4, ..Noise::NONE });
    let took = world.run_until(Duration::from_secs(20), |world| world.rates()[0] < 921_600);
    assert!(took.is_some(), "{:?}", world.rates());
    assert_eq!(world.sides.each_ref().map(|side| side.sessions), [1, 1], "the session went on");
    // The noise ends, and in time the rate comes back.
    world.set_noise(Noise::NONE);
    let took = world.run_until(Duration::from_secs(600), |world| world.rates() == [3_000_000; 2]);
    assert!(took.is_some(), "{:?}", world.rates());
    assert!(world.flows(Duration::from_secs(1)));
}

#[test]
fn little_noise_is_no_reason_to_step_down() {
    let mut world = World::new(GOOD, 4);
    world.run_until(Duration::from_secs(5), World::is_settled).unwrap();
    world.set_noise(Noise { bit_flip: 1e-5, byte_drop: 1e-5, ..Noise::NONE });
    world.run(Duration::from_secs(30));
    assert_eq!(world.rates(), [3_000_000; 2]);
}

#[test]
fn an_end_without_these_messages_is_talked_to_at_the_first_rate() {
    let mut world = World::new(GOOD, 5);
    // It answers nothing about rates: it only has packets.
    world.sides[1].setup.max = 115_200;
    world.sides[1].endpoint = Endpoint::new(world.now, world.sides[1].setup);
    world.run_until(Duration::from_secs(5), |world| world.sides[0].endpoint.is_settled()).unwrap();
    assert_eq!(world.rates(), [115_200; 2]);
    assert!(world.flows(Duration::from_secs(1)));
}

/// Whatever happens to cable and ports: when it ends, packets flow again, at one rate.
fn survive(seed: u64) {
    let mut world = World::new(GOOD, seed);
    let ladder = |world: &mut World| LADDER[1 + world.roll(LADDER.len() as u64 - 1) as usize];
    let plan = Plan {
        max: [ladder(&mut world), ladder(&mut world)],
        port_max: [0; 2].map(|_| if world.roll(4) == 0 { ladder(&mut world) } else { u32::MAX }),
        cable_max: if world.roll(3) == 0 { ladder(&mut world) } else { 0 },
    };
    world = World::new(plan, seed);
    // Not every byte of a fast line, or a thousand seeds would take minutes.
    world.sides.iter_mut().for_each(|side| side.pause = Duration::from_millis(15));
    world.tick = 3 * MILLISECOND;
    world.sides[0].sends = world.roll(4) > 0;
    world.sides[1].sends = world.roll(4) > 0;
    let good = Noise { baud_max: plan.cable_max, ..Noise::NONE };
    for _ in 0..1 + world.roll(6) {
        let length =
            Duration::from_millis(1 + world.roll(if world.dice.is_multiple_of(3) { 5000 } else { 300 }));
        match world.roll(6) {
            0 => {
                let chance = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2][world.roll(5) as usize];
                world.set_noise(Noise {
                    bit_flip: chance,
                    byte_drop: chance / 2.0,
                    byte_insert: chance / 2.0,
                    ..good
                });
            }
            1 => world.set_noise(Noise { burst: 1e-4, burst_bytes: 1000, ..good }),
            2 => world.set_noise(Noise { baud_max: 100_000, ..good }),
            3 => world.sides[0].is_cut = true,
            4 => world.sides[1].is_cut = true,
            // The program at one end dies, and is started again.
            _ => {
                let side = world.roll(2) as usize;
                let now = world.now;
                let side = &mut world.sides[side];
                side.setup.nonce = side.setup.nonce.wrapping_add(1 << 50);
                (side.endpoint, side.baud) = (Endpoint::new(now, side.setup), side.setup.start);
            }
        }
        world.run(length);
        world.set_noise(good);
        world.sides.iter_mut().for_each(|side| side.is_cut = false);
        let pause = Duration::from_millis(world.roll(2000));
        world.run(pause);
    }
    world.sides.iter_mut().for_each(|side| side.sends = true);
    // Four seconds to notice, a step or two, and a test that fails now and then where the cable ends.
    world.run(Duration::from_secs(12));
    let rates = world.rates();
    assert!(world.flows(Duration::from_secs(4)), "seed {seed}: stuck at {rates:?}");
    let sessions = world.sides.each_ref().map(|side| side.sessions);
    world.run(Duration::from_secs(8));
    assert!(world.flows(Duration::from_secs(4)), "seed {seed}: stuck at {:?}", world.rates());
    assert_eq!(world.sides.each_ref().map(|side| side.sessions), sessions, "seed {seed}: no peace");
}

#[test]
fn a_thousand_seeds_never_get_stuck() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || (0..1000).filter(|seed| seed % threads == thread).for_each(survive));
        }
    });
}
