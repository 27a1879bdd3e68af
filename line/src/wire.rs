use std::collections::VecDeque;

/// Bits on the wire for each byte: 8N1 has a start and a stop bit.
const BITS_PER_BYTE: u64 = 10;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// What a wire does to the bytes on it. Chances are for each bit or byte, 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Noise {
    /// A data bit arrives wrong.
    pub bit_flip: f64,
    /// A byte does not arrive.
    pub byte_drop: f64,
    /// A byte arrives that nobody sent.
    pub byte_insert: f64,
    /// A burst begins, in which every byte arrives as another.
    pub burst: f64,
    /// Length of a burst, in byte times: it passes on an idle wire, too.
    pub burst_bytes: u32,
    /// Rates above this arrive as garbage: the cable is too long for them. Zero for none.
    pub baud_max: u32,
}

impl Noise {
    /// A good cable.
    pub const NONE: Self =
        Self { bit_flip: 0.0, byte_drop: 0.0, byte_insert: 0.0, burst: 0.0, burst_bytes: 0, baud_max: 0 };
}

/// One direction of a line. Time is nanoseconds since any origin.
#[derive(Clone, Debug)]
pub struct Wire {
    noise: Noise,
    dice: Dice,
    /// When the last byte sent so far has left.
    free_at: u64,
    /// Bytes under way, each with the time of its arrival and the rate that it was sent at.
    under_way: VecDeque<(u64, u32, u8)>,
    burst_left: u32,
    /// When the last byte arrived.
    arrived_at: u64,
    carried_bytes: u64,
    damaged_bytes: u64,
}

impl Wire {
    /// A wire whose noise follows from `seed`.
    pub fn new(noise: Noise, seed: u64) -> Self {
        Self {
            noise,
            dice: Dice(seed),
            free_at: 0,
            under_way: VecDeque::new(),
            burst_left: 0,
            arrived_at: 0,
            carried_bytes: 0,
            damaged_bytes: 0,
        }
    }

    /// Changes the noise from now on.
    pub fn set_noise(&mut self, noise: Noise) {
        self.noise = noise;
    }

    /// Sends `bytes` one behind the other at `baud`, beginning now or when those before have left.
    pub fn send(&mut self, now_ns: u64, baud: u32, bytes: &[u8]) {
        let mut at = self.free_at.max(now_ns);
        for byte in bytes {
            at += byte_ns(baud);
            self.under_way.push_back((at, baud, *byte));
        }
        self.free_at = at;
    }

    /// Bytes that were sent and have not left yet.
    pub fn queued_bytes(&self, now_ns: u64) -> usize {
        self.under_way.len() - self.under_way.partition_point(|(at, ..)| *at <= now_ns)
    }

    /// When the last byte sent so far has left.
    pub fn free_at(&self) -> u64 {
        self.free_at
    }

    /// When the next byte arrives.
    pub fn next_at(&self) -> Option<u64> {
        self.under_way.front().map(|(at, ..)| *at)
    }

    /// What has arrived by now, as an end with rate `baud` reads it, is appended to `out`.
    pub fn receive(&mut self, now_ns: u64, baud: u32, out: &mut Vec<u8>) {
        while self.under_way.front().is_some_and(|(at, ..)| *at <= now_ns) {
            if let Some((at, sent_baud, byte)) = self.under_way.pop_front() {
                self.idle((at - self.arrived_at).saturating_sub(byte_ns(sent_baud)) / byte_ns(sent_baud));
                self.arrived_at = at;
                self.arrive(sent_baud, byte, baud, out);
            }
        }
    }

    /// Loses what is under way: the cable is out.
    pub fn cut(&mut self) {
        self.under_way.clear();
    }

    /// Nothing was sent for so many byte times.
    pub fn idle(&mut self, byte_times: u64) {
        self.burst_left = self.burst_left.saturating_sub(u32::try_from(byte_times).unwrap_or(u32::MAX));
    }

    /// Puts one byte, sent at `sent_baud`, straight to an end that reads at `baud`.
    pub fn arrive(&mut self, sent_baud: u32, byte: u8, baud: u32, out: &mut Vec<u8>) {
        self.carried_bytes += 1;
        let too_fast = self.noise.baud_max > 0 && sent_baud > self.noise.baud_max;
        if too_fast || !rates_match(sent_baud, baud) {
            return self.garble(sent_baud, baud, out);
        }
        let noise = self.noise;
        if noise.burst > 0.0 && self.burst_left == 0 && self.dice.hits(noise.burst) {
            self.burst_left = noise.burst_bytes;
        }
        if self.burst_left > 0 {
            self.burst_left -= 1;
            self.damaged_bytes += 1;
            out.push(byte ^ (self.dice.next() % 255 + 1) as u8);
            return;
        }
        if self.dice.hits(noise.byte_drop) {
            self.damaged_bytes += 1;
            return;
        }
        if self.dice.hits(noise.byte_insert) {
            self.damaged_bytes += 1;
            out.push(self.dice.next() as u8);
        }
        let flipped = if self.dice.hits(8.0 * noise.bit_flip) { 1 << (self.dice.next() % 8) } else { 0 };
        self.damaged_bytes += u64::from(flipped != 0);
        out.push(byte ^ flipped);
    }

    /// What a receiver at the wrong rate makes of a byte: fewer bytes if it is slower, more if it is faster.
    fn garble(&mut self, sent_baud: u32, baud: u32, out: &mut Vec<u8>) {
        self.damaged_bytes += 1;
        let per_byte = f64::from(baud) / f64::from(sent_baud.max(1));
        let whole = (per_byte as u32).clamp(0, 4);
        let more = u32::from(self.dice.hits(per_byte.fract()));
        for _ in 0..whole + more {
            out.push(self.dice.next() as u8);
        }
    }

    /// Bytes that were sent and have arrived, in whatever shape.
    pub fn carried_bytes(&self) -> u64 {
        self.carried_bytes
    }

    /// Bytes that were damaged, lost or added.
    pub fn damaged_bytes(&self) -> u64 {
        self.damaged_bytes
    }
}

/// UARTs tolerate about this much between them: half a bit in ten.
fn rates_match(a: u32, b: u32) -> bool {
    u64::from(a.abs_diff(b)) * 25 <= u64::from(a.max(b))
}

fn byte_ns(baud: u32) -> u64 {
    BITS_PER_BYTE * NANOS_PER_SECOND / u64::from(baud.max(1))
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn hits(&mut self, chance: f64) -> bool {
        chance > 0.0 && ((self.next() >> 11) as f64) < chance * (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(wire: &mut Wire, sent: u32, read: u32, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        wire.send(wire.free_at(), sent, bytes);
        wire.receive(u64::MAX, read, &mut out);
        out
    }

    #[test]
    fn a_byte_takes_ten_bits() {
        let mut wire = Wire::new(Noise::NONE, 1);
        wire.send(1000, 100_000, &[1, 2, 3]);
        assert_eq!((wire.next_at(), wire.free_at()), (Some(101_000), 301_000));
        let mut out = Vec::new();
        wire.receive(201_000, 100_000, &mut out);
        assert_eq!((out.as_slice(), wire.queued_bytes(201_000)), (&[1, 2][..], 1));
    }

    #[test]
    fn a_good_wire_changes_nothing_and_a_mismatch_everything() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut wire = Wire::new(Noise::NONE, 1);
        assert_eq!(through(&mut wire, 115_200, 115_200, &bytes), bytes);
        assert_eq!(through(&mut wire, 115_200, 117_000, &bytes), bytes, "within the tolerance of UARTs");
        let garbage = through(&mut wire, 115_200, 57_600, &bytes);
        assert!((90..170).contains(&garbage.len()) && !bytes.starts_with(&garbage), "{}", garbage.len());
        assert!(through(&mut wire, 115_200, 230_400, &bytes).len() > 300);
        wire.set_noise(Noise { baud_max: 57_600, ..Noise::NONE });
        assert_ne!(through(&mut wire, 115_200, 115_200, &bytes), bytes);
    }

    #[test]
    fn noise_has_the_chances_asked_for() {
        let bytes = vec![0x55; 1_000_000];
        let flips = Noise { bit_flip: 1e-4, ..Noise::NONE };
        let out = through(&mut Wire::new(flips, 7), 9600, 9600, &bytes);
        let flipped: u32 = out.iter().map(|byte| (byte ^ 0x55).count_ones()).sum();
        assert!((700..900).contains(&flipped), "{flipped}");
        let drops = Noise { byte_drop: 1e-3, ..Noise::NONE };
        let out = through(&mut Wire::new(drops, 7), 9600, 9600, &bytes);
        assert!((998_800..999_200).contains(&out.len()), "{}", out.len());
        let bursts = Noise { burst: 1e-4, burst_bytes: 50, ..Noise::NONE };
        let out = through(&mut Wire::new(bursts, 7), 9600, 9600, &bytes);
        let wrong = out.iter().filter(|byte| **byte != 0x55).count();
        assert!((4_000..6_000).contains(&wrong), "{wrong}");
    }

    /// It once lasted for so many bytes: on the quieter direction of a line, for seconds, and who listened there hung up.
    #[test]
    fn a_burst_passes_on_an_idle_wire() {
        let mut wire = Wire::new(Noise { burst: 1.0, burst_bytes: 100, ..Noise::NONE }, 1);
        let mut out = Vec::new();
        wire.send(0, 10_000, &[0x55]);
        wire.receive(1_000_000, 10_000, &mut out);
        assert_ne!(out, [0x55]);
        wire.set_noise(Noise { burst: 1e-9, burst_bytes: 100, ..Noise::NONE });
        for (sent_ms, is_wrong) in [(50, true), (99, true), (100, false)] {
            out.clear();
            wire.send(sent_ms * 1_000_000, 10_000, &[0x55]);
            wire.receive(u64::MAX, 10_000, &mut out);
            assert_eq!(out != [0x55], is_wrong, "{sent_ms} ms after it began");
        }
    }
}
