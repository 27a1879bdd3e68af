//! Test data that is derived from its position, so that lost, doubled, moved or damaged bytes are all found.
//!
//! Word `i` of the data is `base[i mod 512] ^ mix(i / 512)`: 512 pseudo-random words that never repeat, because a
//! bijection of the block's number changes every word from block to block. Both filling and checking run at the
//! speed of memory, far above any link.

use bytes::BufMut;

/// Words of the base block: 4 KiB stay in the first-level cache.
const BLOCK_WORDS: usize = 512;
const BLOCK_BYTES: usize = BLOCK_WORDS * 8;

/// The data of one stream.
pub(crate) struct Pattern {
    base: Box<[u64; BLOCK_WORDS]>,
    /// The block made last, for parts of a block.
    block: Box<[u8; BLOCK_BYTES]>,
    /// Its number.
    block_number: Option<u64>,
}

impl Pattern {
    /// The data that `seed` names.
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut base = Box::new([0; BLOCK_WORDS]);
        base.fill_with(|| {
            state = state.wrapping_add(GOLDEN);
            mix(state)
        });
        Self { base, block: Box::new([0; BLOCK_BYTES]), block_number: None }
    }

    /// Appends `length` bytes of the data, from byte `offset` on, to `buffer`.
    pub(crate) fn append(&mut self, offset: u64, length: usize, buffer: &mut impl BufMut) {
        self.for_each_block(offset, length, |expected, _| buffer.put_slice(expected));
    }

    /// Compares `data` with what belongs at byte `offset`; an error holds the position of the first wrong byte.
    pub(crate) fn check(&mut self, offset: u64, data: &[u8]) -> Result<(), u64> {
        let mut wrong = None;
        self.for_each_block(offset, data.len(), |expected, range| {
            if wrong.is_none() && data[range.clone()] != *expected {
                let same = data[range.clone()].iter().zip(expected).take_while(|(a, b)| a == b).count();
                wrong = Some(offset.wrapping_add((range.start + same) as u64));
            }
        });
        wrong.map_or(Ok(()), Err)
    }

    /// Calls `visit` with the data of each block that `offset..offset + length` touches and its place in that range.
    fn for_each_block(
        &mut self,
        offset: u64,
        length: usize,
        mut visit: impl FnMut(&[u8], std::ops::Range<usize>),
    ) {
        let mut done = 0;
        while done < length {
            let position = offset.wrapping_add(done as u64);
            let start = (position % BLOCK_BYTES as u64) as usize;
            let part = (BLOCK_BYTES - start).min(length - done);
            visit(&self.block(position / BLOCK_BYTES as u64)[start..start + part], done..done + part);
            done += part;
        }
    }

    fn block(&mut self, number: u64) -> &[u8; BLOCK_BYTES] {
        if self.block_number != Some(number) {
            let mask = mix(number.wrapping_mul(GOLDEN));
            for (to, word) in self.block.chunks_exact_mut(8).zip(self.base.iter()) {
                to.copy_from_slice(&(word ^ mask).to_le_bytes());
            }
            self.block_number = Some(number);
        }
        &self.block
    }
}

/// 2⁶⁴ divided by the golden ratio, made odd: the increment of SplitMix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64, a bijection (Steele, Lea, Flood 2014).
fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(seed: u64, offset: u64, length: usize) -> Vec<u8> {
        let mut data = Vec::new();
        Pattern::new(seed).append(offset, length, &mut data);
        data
    }

    #[test]
    fn the_data_is_as_documented() {
        assert_eq!(data(7, 0, 8), u64::to_be_bytes(0xd70d_3259_e4e1_cb63));
        assert_eq!(data(7, 4096, 8), u64::to_be_bytes(0x78c0_2f22_dd49_eb81));
    }

    #[test]
    fn any_cut_gives_the_same_bytes() {
        let whole = data(7, 0, 20_000);
        for (offset, length) in [(0, 1), (1, 9), (4095, 2), (4096, 4096), (5000, 15_000), (19_999, 1)] {
            assert_eq!(data(7, offset as u64, length), whole[offset..offset + length]);
            assert_eq!(Pattern::new(7).check(offset as u64, &whole[offset..offset + length]), Ok(()));
        }
    }

    #[test]
    fn every_wrong_byte_is_found_at_its_place() {
        let whole = data(7, 0, 10_000);
        for place in [0, 1, 4095, 4096, 9999] {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x10;
            assert_eq!(Pattern::new(7).check(0, &damaged), Err(place as u64));
            assert_eq!(Pattern::new(7).check(1 << 40, &data(7, 1 << 40, 100)), Ok(()));
        }
    }

    #[test]
    fn misplaced_bytes_are_found() {
        let whole = data(7, 0, 1 << 20);
        for shift in [1, 8, 64, 4096, 8192, 65_536, 1 << 19] {
            let moved = &whole[shift..shift + 64];
            assert!(Pattern::new(7).check(0, moved).is_err(), "shift {shift}");
        }
        assert!(Pattern::new(8).check(0, &whole[..64]).is_err(), "another seed");
    }

    #[test]
    fn the_end_of_the_number_space_does_not_overflow() {
        let data = data(7, u64::MAX - 10, 100);
        assert_eq!(Pattern::new(7).check(u64::MAX - 10, &data), Ok(()));
    }
}
