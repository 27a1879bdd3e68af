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

    /// Appends the bytes from `position` to `out`.
    pub(crate) fn write(self, position: u64, len: usize, out: &mut Vec<u8>) {
        let mut at = position;
        let mut left = len;
        while left > 0 {
            let (word, skip) = self.word(at);
            let take = left.min(8 - skip);
            out.extend_from_slice(&word[skip..skip + take]);
            at += take as u64;
            left -= take;
        }
    }

    /// Where `piece`, which should be the bytes from `position`, first differs.
    pub(crate) fn mismatch(self, position: u64, piece: &[u8]) -> Option<u64> {
        let mut at = position;
        let mut rest = piece;
        while !rest.is_empty() {
            let (word, skip) = self.word(at);
            let take = rest.len().min(8 - skip);
            if rest[..take] != word[skip..skip + take] {
                let off = rest[..take].iter().zip(&word[skip..]).take_while(|(a, b)| a == b).count();
                return Some(at + off as u64);
            }
            at += take as u64;
            rest = &rest[take..];
        }
        None
    }

    /// The eight bytes around `position`, and where among them it stands.
    fn word(self, position: u64) -> ([u8; 8], usize) {
        let word = mix(self.key ^ (position >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        (word.to_le_bytes(), (position & 7) as usize)
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
        let mut whole = Vec::new();
        content.write(0, 300, &mut whole);
        for from in 0..40 {
            for len in 0..60 {
                let mut part = Vec::new();
                content.write(from as u64, len, &mut part);
                assert_eq!(part, whole[from..from + len]);
                assert_eq!(content.mismatch(from as u64, &part), None);
            }
        }
    }

    #[test]
    fn a_changed_or_moved_byte_shows() {
        let content = Content::new(9, 0, 4);
        let mut bytes = Vec::new();
        content.write(5, 100, &mut bytes);
        assert!(content.mismatch(6, &bytes).is_some());
        assert!(Content::new(9, 0, 5).mismatch(5, &bytes).is_some());
        for at in 0..100 {
            bytes[at] ^= 1;
            assert_eq!(content.mismatch(5, &bytes), Some(5 + at as u64));
            bytes[at] ^= 1;
        }
    }
}
