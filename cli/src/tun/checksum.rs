//! The checksum of the Internet protocols (RFC 1071).

/// The sum of 16-bit words, not yet folded; an odd last byte has a zero behind it.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2).map(|word| u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
    words.map(u64::from).sum()
}

/// What stands in a header for words that add up to `sum`.
pub(super) fn of(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What stands there when one word has changed (RFC 1624).
pub(super) fn after_change(checksum: u16, old: u16, new: u16) -> u16 {
    of(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_that_of_the_standard() {
        // RFC 1071 section 3, and one more byte.
        let words = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(of(sum(&words)), !0xddf2);
        assert_eq!(sum(&[1]), 0x100);
    }

    proptest! {
        #[test]
        fn a_change_has_the_checksum_of_the_whole(mut words in proptest::collection::vec(any::<u8>(), 40), place in 0_usize..20, new: u16) {
            // All zero has two sums.
            words[0] |= 1;
            let place = place.max(1) * 2;
            let before = of(sum(&words));
            let old = u16::from_be_bytes([words[place], words[place + 1]]);
            words[place..place + 2].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(after_change(before, old, new), of(sum(&words)));
        }
    }
}
