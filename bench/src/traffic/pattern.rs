//! Pseudo-random content derived from position alone, so that any part of it can be made and checked anywhere.

use std::io::{self, Read};

/// Fills `bytes` with the content of stream `seed` from `offset` on.
pub fn fill(seed: u64, offset: u64, bytes: &mut [u8]) {
    let mut position = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let word = word(seed, position / 8).to_le_bytes();
        let word = &word[(position % 8) as usize..];
        let length = word.len().min(rest.len());
        let (now, later) = rest.split_at_mut(length);
        now.copy_from_slice(&word[..length]);
        position += length as u64;
        rest = later;
    }
}

/// Scrambles one word into another, evenly (the last steps of SplitMix64).
#[must_use]
pub fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn word(seed: u64, index: u64) -> u64 {
    mix(seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// The content of stream `seed` from 0 to `end`, as a reader.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    seed: u64,
    position: u64,
    end: u64,
}

impl Content {
    /// The bytes from `start` up to, not including, `end`.
    #[must_use]
    pub fn range(seed: u64, start: u64, end: u64) -> Self {
        Self { seed, position: start, end }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        fill(self.seed, self.position, &mut buffer[..length]);
        self.position += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_equals_the_same_part_of_the_whole() {
        let mut whole = [0; 200];
        fill(5, 0, &mut whole);
        for (start, end) in [(0, 1), (3, 9), (8, 16), (7, 200), (150, 150)] {
            let mut part = Vec::new();
            Content::range(5, start as u64, end as u64).read_to_end(&mut part).unwrap();
            assert_eq!(part, whole[start..end]);
        }
    }

    #[test]
    fn streams_differ() {
        let (mut one, mut other) = ([0; 64], [0; 64]);
        fill(1, 0, &mut one);
        fill(2, 0, &mut other);
        assert_ne!(one, other);
    }
}
