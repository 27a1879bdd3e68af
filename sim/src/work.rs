//! The work of a run: streams both ways and datagrams, decided beforehand.

use crate::content::Content;
use crate::dice::Dice;
use bondwire_core::id::{Class, Role};
use bondwire_core::time::Duration;

/// Streams of one bond at most.
const STREAMS_MAX: usize = 60;
/// Largest half of a stream, in bytes.
const HALF_MAX_BYTES: u64 = 4 << 20;

/// How one direction of a stream is meant to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// All bytes, then the end.
    Finish,
    /// The writer gives up after this many bytes, with this code.
    Reset { at: u64, code: u64 },
    /// The reader has enough after this many bytes, with this code.
    Stop { at: u64, code: u64 },
}

/// How one end treats its side: in pieces, perhaps with pauses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pace {
    /// Most bytes of one call.
    pub(crate) piece_bytes: usize,
    /// After this many bytes comes a pause.
    pub(crate) pause_every_bytes: u64,
    /// Length of a pause; zero for none.
    pub(crate) pause: Duration,
}

/// One direction of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HalfPlan {
    pub(crate) bytes: u64,
    pub(crate) ending: Ending,
    pub(crate) writer: Pace,
    pub(crate) reader: Pace,
    /// Whether the writer hands over its buffers instead of lending them.
    pub(crate) gives_chunks: bool,
}

/// One stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StreamPlan {
    pub(crate) opener: Role,
    pub(crate) class: Class,
    pub(crate) priority: u8,
    /// When it is opened, after its bond began.
    pub(crate) start: Duration,
    /// From the opener, and to it.
    pub(crate) halves: [HalfPlan; 2],
}

/// One datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DatagramPlan {
    pub(crate) sender: Role,
    pub(crate) flow: u64,
    pub(crate) len: usize,
    pub(crate) at: Duration,
}

/// Everything the applications of one bond do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Work {
    pub(crate) seed: u64,
    pub(crate) generation: u64,
    pub(crate) streams: Vec<StreamPlan>,
    pub(crate) datagrams: Vec<DatagramPlan>,
}

impl Work {
    /// Work of about `bytes` bytes that begins within `span`.
    pub(crate) fn roll(seed: u64, generation: u64, bytes: u64, span: Duration) -> Self {
        let mut dice = Dice::new(seed, 100 + generation);
        let mut streams = Vec::new();
        let mut left = bytes;
        while left > 0 && streams.len() < STREAMS_MAX {
            let stream = roll_stream(&mut dice, span, left);
            left = left.saturating_sub(stream.halves.iter().map(|half| half.bytes).sum());
            streams.push(stream);
        }
        let datagrams = if dice.percent(40) { roll_datagrams(&mut dice, span) } else { Vec::new() };
        Self { seed, generation, streams, datagrams }
    }

    /// The contents of one direction of a stream.
    pub(crate) fn content(&self, stream: usize, half: usize) -> Content {
        Content::new(self.seed ^ self.generation << 48, half as u64, stream as u64)
    }

    /// The contents of a datagram.
    pub(crate) fn datagram_content(&self, index: usize) -> Content {
        Content::new(self.seed ^ self.generation << 48, 2, index as u64)
    }

    /// What the acceptor of a stream knows it by.
    pub(crate) fn label(&self, stream: usize) -> String {
        format!("{}.{stream}", self.generation)
    }

    /// The stream of a label.
    pub(crate) fn stream_of(&self, label: &str) -> Option<usize> {
        let (generation, stream) = label.split_once('.')?;
        let stream = stream.parse().ok()?;
        (generation.parse() == Ok(self.generation) && stream < self.streams.len()).then_some(stream)
    }

    /// All bytes of all streams.
    pub(crate) fn bytes(&self) -> u64 {
        self.streams.iter().flat_map(|stream| stream.halves).map(|half| half.bytes).sum()
    }

    /// All pauses, one after another.
    pub(crate) fn pauses(&self) -> Duration {
        let of = |pace: Pace, bytes: u64| {
            pace.pause
                .saturating_mul(u32::try_from(bytes / pace.pause_every_bytes.max(1)).unwrap_or(u32::MAX))
        };
        let halves = self.streams.iter().flat_map(|stream| stream.halves);
        halves.map(|half| of(half.writer, half.bytes) + of(half.reader, half.bytes)).sum()
    }
}

fn roll_stream(dice: &mut Dice, span: Duration, left: u64) -> StreamPlan {
    let class = dice.pick(&[Class::Bulk, Class::Bulk, Class::Bulk, Class::Interactive, Class::Redundant]);
    let most = match class {
        Class::Bulk => HALF_MAX_BYTES.min(left * 2),
        Class::Interactive | Class::Redundant => 200_000,
    };
    let first = roll_half(dice, most);
    let second = if dice.percent(50) { roll_half(dice, most) } else { roll_half(dice, 0) };
    let start = if dice.percent(30) {
        Duration::ZERO
    } else {
        Duration::from_micros(dice.below(u64::try_from(span.as_micros()).unwrap_or(0)))
    };
    StreamPlan {
        opener: dice.pick(&[Role::Initiator, Role::Responder]),
        class,
        priority: dice.pick(&[0, 1, 100, 128, 128, 255]),
        start,
        halves: [first, second],
    }
}

fn roll_half(dice: &mut Dice, most: u64) -> HalfPlan {
    let bytes = if most == 0 { 0 } else { dice.skewed(1, most) };
    let at = dice.below(bytes.max(1));
    let code = dice.below(1000);
    let ending = match dice.below(100) {
        0..8 => Ending::Reset { at, code },
        8..16 if bytes > 0 => Ending::Stop { at, code },
        _ => Ending::Finish,
    };
    let (writer, reader) = (roll_pace(dice, bytes, 10), roll_pace(dice, bytes, 25));
    HalfPlan { bytes, ending, writer, reader, gives_chunks: dice.percent(50) }
}

fn roll_pace(dice: &mut Dice, bytes: u64, pausing_percent: u64) -> Pace {
    // At most a few thousand calls per half: a run is to spend its time in the engine.
    let piece = dice.skewed(1, 256 << 10).max(bytes / 2000);
    let pauses = if dice.percent(pausing_percent) { dice.between(1, 8) } else { 0 };
    Pace {
        piece_bytes: usize::try_from(piece).unwrap_or(usize::MAX).max(1),
        pause_every_bytes: (bytes / (pauses + 1)).max(1),
        pause: if pauses == 0 {
            Duration::ZERO
        } else {
            dice.duration(Duration::from_millis(1), Duration::from_millis(400))
        },
    }
}

fn roll_datagrams(dice: &mut Dice, span: Duration) -> Vec<DatagramPlan> {
    let count = dice.skewed(1, 200);
    let micros = u64::try_from(span.as_micros()).unwrap_or(0);
    let largest = dice.pick(&[200, 1200, 20_000, 60_000]);
    let one = |_| DatagramPlan {
        sender: dice.pick(&[Role::Initiator, Role::Responder]),
        flow: dice.below(4),
        len: usize::try_from(dice.skewed(16, largest)).unwrap_or(16),
        at: Duration::from_micros(dice.below(micros)),
    };
    (0..count).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_streams_of_their_generation_only() {
        let work = Work::roll(1, 2, 500_000, Duration::from_secs(1));
        assert_eq!(work.stream_of(&work.label(0)), Some(0));
        assert_eq!(work.stream_of("1.0"), None);
        assert_eq!(work.stream_of("2.1000"), None);
        assert_eq!(work.stream_of("x"), None);
    }

    #[test]
    fn median_work_is_over_a_megabyte() {
        let mut bytes: Vec<u64> = (0..400).map(|seed| crate::plan::Plan::new(seed).work(0).bytes()).collect();
        bytes.sort_unstable();
        assert!(bytes[200] > 1_000_000, "{}", bytes[200]);
    }
}
