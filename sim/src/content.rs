//! Stream contents that anyone can compute from where they stand.

/// The contents of one direction of a stream: every byte follows from the key and its position, so a reader can
/// verify any piece on its own, and a byte moved, lost or repeated shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Content {
    key: u64,
}

impl Content {
    /// The contents named by these three numbers.
    pub(crate) const fn new(seed: u64, kind: u64, index: u64) -> Self {
        Self { key: mix(mix(mix(seed) ^ kind) ^ index) }
    }

    /// Fills `out` with the bytes from `position`.
    pub(crate) fn fill(self, position: u64, out: &mut [u8]) {
        let skip = (position % 8) as usize;
        let mut words = (position / 8..).map(|index| self.word(index));
        let mut next = || words.next().unwrap_or_default();
        let mut rest = out;
        if skip > 0 {
            let (head, behind) = rest.split_at_mut(rest.len().min(8 - skip));
            head.copy_from_slice(&next()[skip..skip + head.len()]);
            rest = behind;
        }
        let (whole, tail) = rest.as_chunks_mut();
        whole.iter_mut().for_each(|word| *word = next());
        tail.copy_from_slice(&next()[..tail.len()]);
    }

    /// Where `piece`, which should be the bytes from `position`, first differs.
    pub(crate) fn mismatch(self, position: u64, piece: &[u8]) -> Option<u64> {
        let mut expected = [0; 512];
        let mut at = position;
        for part in piece.chunks(expected.len()) {
            let expected = &mut expected[..part.len()];
            self.fill(at, expected);
            if part != expected {
                let same = part.iter().zip(expected).take_while(|(a, b)| a == b).count();
                return Some(at + same as u64);
            }
            at += part.len() as u64;
        }
        None
    }

    /// The bytes from position `8 * index`.
    const fn word(self, index: u64) -> [u8; 8] {
        mix(self.key ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()
    }
}

/// Spreads every input bit over the result (the finisher of SplitMix64).
pub(crate) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_gives_the_same_bytes() {
        let content = Content::new(1, 2, 3);
        let mut whole = [0; 300];
        content.fill(0, &mut whole);
        for from in 0..40 {
            for len in 0..60 {
                let mut part = vec![0; len];
                content.fill(from as u64, &mut part);
                assert_eq!(part, whole[from..from + len]);
                assert_eq!(content.mismatch(from as u64, &part), None);
            }
        }
    }

    #[test]
    fn a_changed_or_moved_byte_shows() {
        let content = Content::new(9, 0, 4);
        let mut bytes = [0; 1100];
        content.fill(5, &mut bytes);
        assert!(content.mismatch(6, &bytes).is_some());
        assert!(Content::new(9, 0, 5).mismatch(5, &bytes).is_some());
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert_eq!(content.mismatch(5, &bytes), Some(5 + at as u64));
            bytes[at] ^= 1;
        }
    }
}
