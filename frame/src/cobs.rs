//! Frames on a byte stream: Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999), each frame ended by a zero.
//!
//! A reader that lost its place finds it again at the next zero, so damage costs the frames that it touches.

use crate::{FrameSink, NoRoom};

/// What ends a frame, and occurs nowhere within one.
const DELIMITER: u8 = 0;
/// Longest run of bytes without a zero behind one code byte.
const RUN_MAX: usize = 254;

/// Most bytes that a frame of `frame_bytes` takes on the line, delimiter included.
pub const fn encoded_max_bytes(frame_bytes: usize) -> usize {
    let codes = frame_bytes.div_ceil(RUN_MAX);
    frame_bytes + if codes == 0 { 1 } else { codes } + 1
}

/// Encodes frames into a buffer of the caller, one behind the other.
#[derive(Debug)]
pub struct Writer<'b> {
    buffer: &'b mut [u8],
    len: usize,
}

impl<'b> Writer<'b> {
    /// Nothing is in `buffer` yet.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Starts with a zero. After the line was idle this ends whatever noise it brought meanwhile, so that the first frame
    /// is not taken for the rest of it.
    pub fn after_idle(buffer: &'b mut [u8]) -> Self {
        let mut writer = Self::new(buffer);
        if let Some(first) = writer.buffer.first_mut() {
            *first = DELIMITER;
            writer.len = 1;
        }
        writer
    }

    /// Bytes written so far: send the first so many of the buffer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl FrameSink for Writer<'_> {
    fn put(&mut self, parts: [&[u8]; 3]) -> Result<(), NoRoom> {
        let frame_bytes = parts.iter().map(|part| part.len()).sum();
        let out = self.buffer.get_mut(self.len..).unwrap_or_default();
        if out.len() < encoded_max_bytes(frame_bytes) {
            return Err(NoRoom);
        }
        self.len += encode(parts, frame_bytes, out);
        Ok(())
    }
}

/// Encodes `parts`, whose length is `frame_bytes`, into `out`, which has room; answers how many bytes that took.
fn encode(parts: [&[u8]; 3], frame_bytes: usize, out: &mut [u8]) -> usize {
    // `code_at` is the place of the code byte of the run under way.
    let (mut code_at, mut len, mut left) = (0, 1, frame_bytes);
    for byte in parts.into_iter().flatten() {
        left -= 1;
        if *byte != DELIMITER {
            out[len] = *byte;
            len += 1;
        }
        let run_is_full = len - code_at > RUN_MAX;
        // A full run stands for no zero, so a frame may end with it; but not with a zero.
        if *byte == DELIMITER || (run_is_full && left > 0) {
            out[code_at] = (len - code_at) as u8;
            code_at = len;
            len += 1;
        }
    }
    out[code_at] = (len - code_at) as u8;
    out[len] = DELIMITER;
    len + 1
}

/// Finds frames in a byte stream that comes in pieces. `B` is the memory for one frame, at least as long as the longest
/// frame that may come: an array, a `Vec<u8>`, a slice.
#[derive(Clone, Debug)]
pub struct Decoder<B> {
    buffer: B,
    len: usize,
    /// Bytes left of the run under way.
    run_left: u8,
    /// A zero stands between the run under way and the next.
    zero_follows: bool,
    /// What is here is no frame: nothing counts up to the next delimiter.
    skipping: bool,
    /// The frame was handed out with the last call; its memory is used again now.
    is_out: bool,
    resyncs: u64,
    too_long: u64,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Decoder<B> {
    /// Starts at the beginning of a frame, or anywhere: the checksum will tell.
    pub fn new(buffer: B) -> Self {
        Self {
            buffer,
            len: 0,
            run_left: 0,
            zero_follows: false,
            skipping: false,
            is_out: false,
            resyncs: 0,
            too_long: 0,
        }
    }

    /// Takes bytes from the front of `input` up to the end of the next frame, and answers that frame; `None` when the
    /// input is used up. What is malformed or does not fit the buffer is skipped and counted.
    pub fn next_frame(&mut self, input: &mut &[u8]) -> Option<&mut [u8]> {
        if core::mem::take(&mut self.is_out) {
            self.restart();
        }
        while let Some((&first, rest)) = input.split_first() {
            if first == DELIMITER {
                *input = rest;
                if self.end_frame() {
                    self.is_out = true;
                    return self.buffer.as_mut().get_mut(..self.len);
                }
            } else if self.skipping {
                skip(input);
            } else if self.run_left == 0 {
                *input = rest;
                self.begin_run(first);
            } else {
                self.take_run(input);
            }
        }
        None
    }

    /// Longest frame that its memory is enough for, in bytes.
    pub fn frame_max_bytes(&self) -> usize {
        self.buffer.as_ref().len()
    }

    /// Times that the decoder lost its place, and found it again at the next zero.
    pub fn resyncs(&self) -> u64 {
        self.resyncs
    }

    /// Frames that did not fit the buffer.
    pub fn too_long(&self) -> u64 {
        self.too_long
    }

    /// Forgets the frame under way: what comes next has nothing to do with it.
    pub fn restart(&mut self) {
        (self.len, self.run_left, self.zero_follows, self.skipping) = (0, 0, false, false);
    }

    /// At a delimiter: whether a frame ended here. The decoder is ready for the next one if not.
    fn end_frame(&mut self) -> bool {
        let cut_short = self.run_left > 0 && !self.skipping;
        self.resyncs += u64::from(cut_short || self.skipping);
        // A lone delimiter is what is sent after idle.
        let is_frame = !cut_short && !self.skipping && self.len > 0;
        if !is_frame {
            self.restart();
        }
        is_frame
    }

    fn begin_run(&mut self, code: u8) {
        if core::mem::replace(&mut self.zero_follows, code != u8::MAX) {
            self.push(&[DELIMITER]);
        }
        self.run_left = code - 1;
    }

    /// Takes what there is of the run under way, up to a delimiter that should not be there.
    fn take_run(&mut self, input: &mut &[u8]) {
        let most = usize::from(self.run_left).min(input.len());
        let (run, _) = input.split_at(most);
        let taken = run.iter().position(|byte| *byte == DELIMITER).unwrap_or(most);
        let (run, rest) = input.split_at(taken);
        self.run_left -= taken as u8;
        self.push(run);
        *input = rest;
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.buffer.as_mut().get_mut(self.len..end) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len = end;
            }
            None => {
                self.too_long += 1;
                self.skipping = true;
            }
        }
    }
}

/// Drops bytes up to the next delimiter.
fn skip(input: &mut &[u8]) {
    let skipped = input.iter().position(|byte| *byte == DELIMITER).unwrap_or(input.len());
    *input = input.split_at(skipped).1;
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn encoded(frame: &[u8]) -> Vec<u8> {
        let mut out = vec![0xaa; encoded_max_bytes(frame.len())];
        let mut writer = Writer::new(&mut out);
        writer.put([&[], frame, &[]]).unwrap();
        let len = writer.len();
        out.truncate(len);
        out
    }

    fn decoded(decoder: &mut Decoder<Vec<u8>>, mut line: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next_frame(&mut line) {
            frames.push(frame.to_vec());
        }
        frames
    }

    fn decoder(frame_max_bytes: usize) -> Decoder<Vec<u8>> {
        Decoder::new(vec![0; frame_max_bytes])
    }

    /// The examples of the paper and the borders of a run.
    #[test]
    fn known_encodings() {
        let run = |from: u8, to: u8| (from..=to).collect::<Vec<_>>();
        for (frame, line) in [
            (vec![0], vec![1, 1, 0]),
            (vec![0, 0], vec![1, 1, 1, 0]),
            (vec![0x11, 0x22, 0, 0x33], vec![3, 0x11, 0x22, 2, 0x33, 0]),
            (vec![0x11, 0, 0, 0], vec![2, 0x11, 1, 1, 1, 0]),
            (run(1, 254), [vec![255], run(1, 254), vec![0]].concat()),
            (run(1, 255), [vec![255], run(1, 254), vec![2, 255, 0]].concat()),
            ([run(1, 254), vec![0]].concat(), [vec![255], run(1, 254), vec![1, 1, 0]].concat()),
            ([vec![0], run(1, 254)].concat(), [vec![1, 255], run(1, 254), vec![0]].concat()),
        ] {
            assert_eq!(encoded(&frame), line, "{frame:?}");
            assert_eq!(decoded(&mut decoder(frame.len()), &line), [frame]);
        }
    }

    #[test]
    fn a_full_run_may_be_followed_by_an_empty_one() {
        let frame: Vec<u8> = (1..=254).collect();
        let line = [vec![255], frame.clone(), vec![1, 0]].concat();
        assert_eq!(decoded(&mut decoder(254), &line), [frame]);
    }

    #[test]
    fn what_does_not_fit_is_skipped_and_counted() {
        let mut decoder = decoder(10);
        let line = [encoded(&[7; 11]), encoded(&[8; 10])].concat();
        assert_eq!(decoded(&mut decoder, &line), [vec![8; 10]]);
        assert_eq!((decoder.too_long(), decoder.resyncs()), (1, 1));
    }

    #[test]
    fn a_frame_cut_short_is_skipped_and_counted() {
        let mut decoder = decoder(10);
        let mut line = encoded(&[7; 10]);
        line.remove(4);
        line.extend(encoded(&[8; 10]));
        assert_eq!(decoded(&mut decoder, &line), [vec![8; 10]]);
        assert_eq!((decoder.too_long(), decoder.resyncs()), (0, 1));
    }

    #[test]
    fn idle_delimiters_mean_nothing() {
        let mut out = [0; 8];
        let mut writer = Writer::after_idle(&mut out);
        writer.put([&[], b"x", &[]]).unwrap();
        assert_eq!(writer.put([&[], b"longer", &[]]), Err(NoRoom));
        let len = writer.len();
        let mut decoder = decoder(10);
        assert_eq!(decoded(&mut decoder, &out[..len]), [b"x"]);
        assert_eq!(decoder.resyncs(), 0);
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(
            frames in prop::collection::vec(prop::collection::vec(prop::sample::select(&[0u8, 0, 1, 7, 255][..]), 1..700), 1..8),
            step in 1usize..200,
        ) {
            let line: Vec<u8> = frames.iter().flat_map(|frame| {
                let line = encoded(frame);
                assert!(line.len() <= encoded_max_bytes(frame.len()));
                assert!(!line[..line.len() - 1].contains(&0));
                line
            }).collect();
            let mut decoder = decoder(700);
            let mut seen = Vec::new();
            for piece in line.chunks(step) {
                seen.extend(decoded(&mut decoder, piece));
            }
            prop_assert_eq!(seen, frames);
            prop_assert_eq!(decoder.resyncs(), 0);
        }

        /// Garbage costs at most the frame that it runs into; behind a zero it costs none.
        #[test]
        fn garbage_between_frames_costs_at_most_the_frames_it_touches(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 2..8),
            garbage in prop::collection::vec(any::<u8>(), 1..1000),
            at in any::<prop::sample::Index>(),
            ended in any::<bool>(),
        ) {
            let at = at.index(frames.len());
            let mut line = Vec::new();
            for (n, frame) in frames.iter().enumerate() {
                if n == at {
                    line.extend(&garbage);
                    line.extend(ended.then_some(0));
                }
                line.extend(encoded(frame));
            }
            let seen = decoded(&mut decoder(300), &line);
            let lost = usize::from(!ended && *garbage.last().unwrap() != 0);
            let kept: Vec<_> = frames[..at].iter().chain(&frames[at + lost..]).collect();
            // Garbage may look like frames, in its place only.
            prop_assert!(seen.len() >= kept.len());
            prop_assert_eq!(&seen[..at].iter().collect::<Vec<_>>(), &kept[..at]);
            prop_assert_eq!(&seen[seen.len() - (kept.len() - at)..].iter().collect::<Vec<_>>(), &kept[at..]);
        }

        #[test]
        fn any_bytes_are_survived(line in prop::collection::vec(any::<u8>(), 0..2000), step in 1usize..50) {
            let (mut whole, mut pieces) = (decoder(100), decoder(100));
            let expected = decoded(&mut whole, &line);
            let mut seen = Vec::new();
            for piece in line.chunks(step) {
                seen.extend(decoded(&mut pieces, piece));
            }
            prop_assert_eq!(seen, expected);
            prop_assert_eq!(whole.resyncs(), pieces.resyncs());
        }
    }
}
