//! One direction of a link as a model: no sockets, no clock.
//!
//! A packet waits in a drop-tail queue, is sent bit by bit at the line's rate, then flies for the line's
//! delay. Keeping the two stages apart makes a change of rate or delay act as it would on a real line: on
//! what still waits, not on what has left.

use std::collections::VecDeque;
use std::time::Duration;

use super::shape::Shape;

/// What a direction does with packets apart from its [`Shape`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Carries them.
    #[default]
    Open,
    /// Takes them and loses them, silently, with those under way: a cable cut where neither end notices.
    Blackhole,
    /// As `Blackhole`, and answers each TCP segment with a reset, as a firewall does that has lost its state.
    Reset,
}

/// What became of a direction's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that arrived at the other end.
    pub passed: u64,
    /// Bytes of those packets, IP header included.
    pub passed_bytes: u64,
    /// Packets that found the queue full.
    pub overflowed: u64,
    /// Packets lost at random.
    pub lost: u64,
    /// Packets lost at a closed [`Gate`] or at an interface that is down.
    pub cut: u64,
}

/// One direction of a link. Times are nanoseconds since any fixed moment, and never go backwards.
#[derive(Debug)]
pub struct Line {
    shape: Shape,
    gate: Gate,
    counters: Counters,
    random: Random,
    /// Packets that have not been sent in full; the first one is being sent until `head_sent_at_ns`.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    head_sent_at_ns: u64,
    /// Packets on their way and when each would arrive; none overtakes the one before it, whatever the jitter.
    flying: VecDeque<(u64, Vec<u8>)>,
    /// Buffers of packets that are gone, for the next ones.
    spare: Vec<Vec<u8>>,
}

impl Line {
    /// An idle line. `seed` decides which packets are lost and how much each one jitters.
    #[must_use]
    pub fn new(shape: Shape, seed: u64) -> Self {
        Self {
            shape,
            gate: Gate::Open,
            counters: Counters::default(),
            random: Random(seed),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            head_sent_at_ns: 0,
            flying: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// The shape in force.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The gate in force.
    #[must_use]
    pub fn gate(&self) -> Gate {
        self.gate
    }

    /// What became of the packets so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Changes the shape. What is left of the packet being sent goes at the new rate.
    pub fn set_shape(&mut self, now_ns: u64, shape: Shape) {
        self.send_until(now_ns);
        if !self.waiting.is_empty() {
            let left_ns = u128::from(self.head_sent_at_ns.saturating_sub(now_ns));
            let bits = left_ns * u128::from(self.shape.rate_bits_per_second);
            let left_ns = bits / u128::from(shape.rate_bits_per_second.max(1));
            self.head_sent_at_ns = now_ns.saturating_add(u64::try_from(left_ns).unwrap_or(u64::MAX));
        }
        self.shape = shape;
    }

    /// Changes the gate. Closing it loses what waits and what is under way.
    pub fn set_gate(&mut self, gate: Gate) {
        self.gate = gate;
        if gate == Gate::Open {
            return;
        }
        self.counters.cut += (self.waiting.len() + self.flying.len()) as u64;
        self.spare.extend(self.waiting.drain(..));
        self.spare.extend(self.flying.drain(..).map(|(_, packet)| packet));
        self.waiting_bytes = 0;
    }

    /// A packet arrives at the sending end.
    pub fn offer(&mut self, now_ns: u64, packet: &[u8]) {
        if self.gate != Gate::Open {
            self.counters.cut += 1;
            return;
        }
        if self.random.unit() < self.shape.loss {
            self.counters.lost += 1;
            return;
        }
        self.send_until(now_ns);
        if self.waiting_bytes + packet.len() > self.shape.queue_bytes {
            self.counters.overflowed += 1;
            return;
        }
        if self.waiting.is_empty() {
            self.head_sent_at_ns = now_ns.saturating_add(self.sending_ns(packet.len()));
        }
        self.waiting_bytes += packet.len();
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(packet);
        self.waiting.push_back(buffer);
    }

    /// When the next packet arrives at the receiving end, if there is one.
    #[must_use]
    pub fn next_arrival_ns(&self) -> Option<u64> {
        if let Some(&(arrival_ns, _)) = self.flying.front() {
            return Some(arrival_ns);
        }
        (!self.waiting.is_empty()).then(|| self.head_sent_at_ns.saturating_add(nanoseconds(self.shape.delay)))
    }

    /// The next packet that has arrived by now. Hand its buffer back with [`Line::delivered`].
    pub fn take_arrived(&mut self, now_ns: u64) -> Option<Vec<u8>> {
        self.send_until(now_ns);
        let &(arrival_ns, _) = self.flying.front()?;
        if arrival_ns > now_ns {
            return None;
        }
        self.flying.pop_front().map(|(_, packet)| packet)
    }

    /// Says whether the receiving end took a packet of [`Line::take_arrived`], and gives its buffer back.
    pub fn delivered(&mut self, packet: Vec<u8>, taken: bool) {
        if taken {
            self.counters.passed += 1;
            self.counters.passed_bytes += packet.len() as u64;
        } else {
            self.counters.cut += 1;
        }
        self.spare.push(packet);
    }

    /// Moves every packet that has been sent in full by now from the queue into flight.
    fn send_until(&mut self, now_ns: u64) {
        while self.head_sent_at_ns <= now_ns {
            let Some(packet) = self.waiting.pop_front() else { return };
            self.waiting_bytes -= packet.len();
            let jitter_ns = self.random.below(nanoseconds(self.shape.jitter));
            let flight_ns = nanoseconds(self.shape.delay).saturating_add(jitter_ns);
            self.flying.push_back((self.head_sent_at_ns.saturating_add(flight_ns), packet));
            if let Some(next) = self.waiting.front() {
                self.head_sent_at_ns += self.sending_ns(next.len());
            }
        }
    }

    fn sending_ns(&self, packet_bytes: usize) -> u64 {
        let bits = packet_bytes as u64 * 8;
        bits.saturating_mul(1_000_000_000) / self.shape.rate_bits_per_second.max(1)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// SplitMix64: small, seeded, and even enough for losing packets.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        crate::traffic::pattern::mix(self.0)
    }

    /// Evenly from 0 up to, not including, 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Evenly from 0 up to, not including, `end`; 0 if that is 0.
    fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    fn drain(line: &mut Line, now_ns: u64) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| line.take_arrived(now_ns)).collect()
    }

    #[test]
    fn a_packet_takes_its_sending_time_and_the_delay() {
        let mut line = Line::new(Shape::new(8, Duration::from_millis(5)), 1);
        line.offer(0, &[7; 1000]); // 8 Mbit/s: 1 ms.
        assert_eq!(line.next_arrival_ns(), Some(6 * MS));
        assert!(line.take_arrived(6 * MS - 1).is_none());
        assert_eq!(line.take_arrived(6 * MS), Some(vec![7; 1000]));
    }

    #[test]
    fn the_queue_drops_its_tail() {
        let mut line = Line::new(Shape::new(8, Duration::ZERO).with_queue_kib(2), 1);
        for _ in 0..5 {
            line.offer(0, &[0; 1000]);
        }
        assert_eq!(line.counters().overflowed, 3);
        assert_eq!(drain(&mut line, 2 * MS).len(), 2);
    }

    #[test]
    fn a_new_rate_acts_on_what_is_left() {
        let mut line = Line::new(Shape::new(8, Duration::ZERO), 1);
        line.offer(0, &[0; 1000]);
        line.offer(0, &[0; 1000]);
        line.set_shape(MS / 2, Shape::new(4, Duration::ZERO));
        // Half of the first packet is left: 1 ms at half the rate. Then 2 ms for the second.
        assert_eq!(line.next_arrival_ns(), Some(MS / 2 + MS));
        assert_eq!(drain(&mut line, 7 * MS / 2 - 1).len(), 1);
        assert_eq!(drain(&mut line, 7 * MS / 2).len(), 1);
    }

    #[test]
    fn a_closed_gate_loses_what_is_under_way() {
        let mut line = Line::new(Shape::new(8, Duration::from_millis(5)), 1);
        line.offer(0, &[0; 1000]);
        line.offer(0, &[0; 1000]);
        line.set_gate(Gate::Blackhole);
        line.offer(MS, &[0; 1000]);
        line.set_gate(Gate::Open);
        assert_eq!(drain(&mut line, 100 * MS).len(), 0);
        assert_eq!(line.counters().cut, 3);
        line.offer(100 * MS, &[0; 1000]);
        assert_eq!(drain(&mut line, 106 * MS).len(), 1);
    }

    #[test]
    fn loss_is_the_share_asked_for() {
        let mut line = Line::new(Shape::default().with_loss(0.1), 3);
        for i in 0..100_000 {
            line.offer(i * MS, &[0; 100]);
            while let Some(packet) = line.take_arrived(i * MS) {
                line.delivered(packet, true);
            }
        }
        let lost = line.counters().lost;
        assert!((9_700..10_300).contains(&lost), "{lost} of 100000 lost, want about 10000");
    }

    proptest! {
        /// Whatever is offered and however the line changes: order is kept, and each packet is counted once.
        #[test]
        fn order_is_kept_and_every_packet_is_counted(
            steps in prop::collection::vec((0u64..3 * MS, 20usize..1500, 0u8..20, 1u64..200), 1..300)
        ) {
            let shape = Shape { jitter: Duration::from_millis(2), ..Shape::new(10, Duration::from_millis(3)) };
            let mut line = Line::new(shape.with_loss(0.05).with_queue_kib(16), 9);
            let (mut now_ns, mut next, mut last_seen) = (0, 0u64, None);
            let mut offered = 0;
            for (pause_ns, length, action, rate) in steps {
                now_ns += pause_ns;
                match action {
                    0 => line.set_shape(now_ns, Shape::new(rate, shape.delay)),
                    1 => line.set_gate(Gate::Blackhole),
                    2 | 3 => line.set_gate(Gate::Open),
                    _ => {
                        let mut packet = vec![0; length];
                        packet[..8].copy_from_slice(&next.to_be_bytes());
                        next += 1;
                        offered += 1;
                        line.offer(now_ns, &packet);
                    }
                }
                while let Some(packet) = line.take_arrived(now_ns) {
                    let number = u64::from_be_bytes(packet[..8].try_into().unwrap());
                    prop_assert!(last_seen.is_none_or(|last| number > last));
                    last_seen = Some(number);
                    line.delivered(packet, true);
                }
            }
            while let Some(packet) = line.take_arrived(now_ns + 60_000 * MS) {
                line.delivered(packet, true);
            }
            let Counters { passed, overflowed, lost, cut, .. } = line.counters();
            prop_assert_eq!(passed + overflowed + lost + cut, offered);
        }
    }
}
