//! Ordered datagrams over several links.

use super::*;
use crate::ordered::OrderedStats;

/// Bytes of a packet.
const PACKET: usize = 1400;

/// A flow whose sender always has more, as a TCP inside, and a reader that watches the order.
struct Packets {
    flow: u8,
    /// Packets that may be under way or wait: all that the queue takes, if its window is large enough.
    window: u64,
    sent: u64,
    read: u64,
    next: u64,
    early: u64,
}

impl Packets {
    fn new(flow: u8) -> Self {
        Self { flow, window: u64::MAX, sent: 0, read: 0, next: 0, early: 0 }
    }

    /// Runs with the queue kept full.
    fn run(&mut self, world: &mut World, time: Duration) {
        let until = world.now + time;
        while world.now < until {
            self.fill(world);
            world.step(until);
            self.read(world);
        }
    }

    fn fill(&mut self, world: &mut World) {
        while self.sent - self.read < self.window {
            let before = dropped(world);
            let mut data = alloc::vec![self.flow; PACKET];
            data[..8].copy_from_slice(&self.sent.to_be_bytes());
            world.ends[0].send_ordered(world.now, self.flow, data.into()).unwrap();
            if dropped(world) > before {
                break;
            }
            self.sent += 1;
        }
    }

    fn read(&mut self, world: &mut World) {
        while let Some(data) = world.ends[1].read_ordered() {
            if data[8] != self.flow {
                continue;
            }
            let number = u64::from_be_bytes(data[..8].try_into().unwrap());
            self.early += u64::from(number != self.next);
            self.next = number + 1;
            self.read += 1;
        }
    }
}

fn dropped(world: &World) -> u64 {
    world.ends[0].ordered_stats().dropped_queue_full
}

fn arrived(world: &World) -> OrderedStats {
    world.ends[1].ordered_stats()
}

/// Share of these rates that one flow uses in ten seconds.
fn share(links: &[(u64, u32)]) -> (f64, Packets, World) {
    share_of(links, Packets::new(100))
}

fn share_of(links: &[(u64, u32)], mut packets: Packets) -> (f64, Packets, World) {
    let mut world = World::new(&Config::default());
    for (id, (rate, delay_ms)) in (0..).zip(links) {
        world.add_link(id, *rate, *delay_ms);
    }
    packets.run(&mut world, MS * 3000);
    let before = packets.read;
    packets.run(&mut world, MS * 10_000);
    let rate = (packets.read - before) * PACKET as u64 / 10;
    let sum: u64 = links.iter().map(|(rate, _)| rate).sum();
    (rate as f64 / sum as f64, packets, world)
}

#[test]
fn one_flow_uses_the_sum_of_unequal_links_and_keeps_its_order() {
    for links in [
        [(10_000_000, 5), (5_000_000, 5)],
        [(10_000_000, 5), (5_000_000, 15)],
        [(10_000_000, 2), (4_000_000, 35)],
    ] {
        let (share, packets, world) = share(&links);
        assert!(share > 0.93, "{links:?}: {share}");
        let stats = arrived(&world);
        assert_eq!((packets.early, stats.missed, stats.late), (0, 0, 0), "{links:?}: {stats:?}");
    }
}

/// A link of which nobody knows more than that a probe got through, beside one that is full: it is tried, and then used. Were its
/// rate that of the probe for ever, the nearer link would carry all: 71 % of the second sum.
#[test]
fn a_link_that_carried_only_a_probe_is_used_too() {
    for (first, second) in [((10_000_000, 5), (5_000_000, 15)), ((10_000_000, 2), (4_000_000, 35))] {
        let mut world = World::new(&Config::default());
        world.add_link(0, first.0, first.1);
        let mut packets = Packets::new(100);
        packets.run(&mut world, MS * 1000);
        world.add_link(1, second.0, second.1);
        world.run_for(MS * 60_000);
        packets.read(&mut world);
        packets.run(&mut world, MS * 3000);
        let before = packets.read;
        packets.run(&mut world, MS * 5000);
        let share = ((packets.read - before) * PACKET as u64 / 5) as f64 / (first.0 + second.0) as f64;
        assert!(share > 0.9, "{first:?} and {second:?}: {share}");
    }
}

/// A sender that keeps little under way, twice what the nearer link's way holds, as BBR does while it knows that one only. Were the
/// further link to take from such a short queue whenever the nearer one is full, that one would run dry while the reader waits: then
/// it was 63 and 35 % of the sum.
#[test]
fn a_short_queue_is_left_to_the_nearer_link() {
    for (links, least) in
        [([(10_000_000, 5), (5_000_000, 15)], 0.75), ([(10_000_000, 2), (4_000_000, 25)], 0.65)]
    {
        let (rate, delay_ms) = links[0];
        let way = rate * 2 * u64::from(delay_ms) / 1000;
        let window = 2 * way / PACKET as u64;
        let (share, packets, _) = share_of(&links, Packets { window, ..Packets::new(100) });
        assert!(share > least, "{links:?}: {share}");
        assert_eq!(packets.early, 0, "{links:?}");
    }
}

#[test]
fn a_link_that_is_too_late_carries_none_while_the_other_works() {
    let (share, packets, mut world) = share(&[(10_000_000, 5), (11_500, 30)]);
    assert!(share > 0.93, "{share}");
    // While it was not known yet it had some.
    assert!(packets.early < 20 && arrived(&world).late < 20, "{} {:?}", packets.early, arrived(&world));
    world.cut(0, true);
    let mut packets = packets;
    packets.run(&mut world, MS * 2000);
    let before = packets.read;
    packets.run(&mut world, MS * 10_000);
    let rate = (packets.read - before) * PACKET as u64 / 10;
    assert!(rate > 9_000, "{rate} of 11500 bytes a second");
}

#[test]
fn a_packet_of_another_flow_does_not_wait_behind_a_full_queue() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 1_000_000, 10);
    let mut packets = Packets::new(100);
    packets.run(&mut world, MS * 3000);
    for _ in 0..20 {
        world.ends[0].send_ordered(world.now, 5, alloc::vec![5; 84].into()).unwrap();
        let sent = world.now;
        loop {
            packets.fill(&mut world);
            world.step(sent + MS * 1000);
            let mut came = false;
            while let Some(data) = world.ends[1].read_ordered() {
                came |= data[8] == 5;
            }
            if came {
                break;
            }
            assert!(world.now < sent + MS * 500, "half a second");
        }
        let took = world.now - sent;
        // The way, what the link itself holds, and the packet before it.
        assert!(took < MS * 60, "{took:?}");
        world.run_for(MS * 100);
    }
}

#[test]
fn packets_and_streams_share_the_links() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 4_000_000, 5);
    world.add_link(1, 2_000_000, 10);
    let mut packets = Packets::new(100);
    let mut transfer = Transfer::start(&mut world, Class::Bulk, u64::MAX);
    let until = world.now + MS * 10_000;
    while world.now < until {
        packets.fill(&mut world);
        transfer.pump(&mut world);
        world.step(until);
        packets.read(&mut world);
    }
    let (of_packets, of_stream) = (packets.read * PACKET as u64, transfer.read);
    assert!(of_packets + of_stream > 50_000_000, "{of_packets} and {of_stream}");
    // Turns go by packets of links, not by bytes, and a queue may be empty at its turn: so not half each, but neither starves.
    assert!(of_packets > 10_000_000 && of_stream > 10_000_000, "{of_packets} and {of_stream}");
}

#[test]
fn a_cut_costs_what_was_under_way_and_no_more() {
    let mut world = World::new(&Config::default());
    world.add_link(0, 5_000_000, 10);
    world.add_link(1, 5_000_000, 10);
    let mut packets = Packets::new(100);
    packets.run(&mut world, MS * 2000);
    world.cut(0, true);
    let before = packets.read;
    packets.run(&mut world, MS * 1000);
    assert!(packets.read - before > 2_500, "{}", packets.read - before);
    let missed = arrived(&world).missed;
    assert!(missed < 400, "{missed}");
    packets.run(&mut world, MS * 1000);
    assert_eq!(arrived(&world).missed, missed);
}
