//! Variable-length integers of RFC 9000 section 16: the first two bits tell the length, 1, 2, 4 or 8 bytes.

use bytes::{Buf, BufMut, Bytes};

/// Largest value that a variable-length integer carries: 2⁶² − 1.
pub const VARINT_MAX: u64 = (1 << 62) - 1;

/// Bytes that [`encode`] writes for `value`: the shortest form.
pub const fn len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Appends `value` in its shortest form, which takes [`len`] bytes of room in `out`.
///
/// A value above [`VARINT_MAX`] is an error of the caller; it is written as `VARINT_MAX`.
pub fn encode(value: u64, out: &mut impl BufMut) {
    debug_assert!(value <= VARINT_MAX, "{value} does not fit a varint");
    let value = value.min(VARINT_MAX);
    match len(value) {
        1 => out.put_u8(value as u8),
        2 => out.put_u16(0b01 << 14 | value as u16),
        4 => out.put_u32(0b10 << 30 | value as u32),
        _ => out.put_u64(0b11 << 62 | value),
    }
}

/// Takes an integer of any of the four lengths off the front of `input`; if it is incomplete, returns `None` and
/// leaves `input` alone.
pub fn decode_slice(input: &mut &[u8]) -> Option<u64> {
    let first = *input.first()?;
    let (encoded, rest) = input.split_at_checked(1 << (first >> 6))?;
    *input = rest;
    let value = encoded.iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
    // The two bits of the length sit on top of the value.
    let value_bits = encoded.len() as u32 * 8 - 2;
    Some(value & (u64::MAX >> (64 - value_bits)))
}

/// As [`decode_slice`], for `Bytes`.
pub fn decode(input: &mut Bytes) -> Option<u64> {
    let mut rest: &[u8] = input;
    let value = decode_slice(&mut rest)?;
    let taken = input.len() - rest.len();
    input.advance(taken);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// Values spread over all four lengths, with the edges of each.
    pub(crate) fn any_value() -> impl Strategy<Value = u64> {
        let edges = [0, 0x3f, 0x40, 0x3fff, 0x4000, 0x3fff_ffff, 0x4000_0000, VARINT_MAX];
        prop_oneof![
            prop::sample::select(edges.to_vec()),
            (0u32..62).prop_flat_map(|bits| 0..=(2u64 << bits) - 1)
        ]
    }

    proptest! {
        #[test]
        fn round_trip(value in any_value(), tail in prop::collection::vec(any::<u8>(), 0..4)) {
            let mut encoded = Vec::new();
            encode(value, &mut encoded);
            prop_assert_eq!(encoded.len(), len(value));
            let whole = encoded.len();
            encoded.extend_from_slice(&tail);

            let mut input = &encoded[..];
            prop_assert_eq!(decode_slice(&mut input), Some(value));
            prop_assert_eq!(input, &tail[..]);

            let mut input = Bytes::from(encoded.clone());
            prop_assert_eq!(decode(&mut input), Some(value));
            prop_assert_eq!(&input[..], &tail[..]);

            for cut in 0..whole {
                let mut input = &encoded[..cut];
                prop_assert_eq!(decode_slice(&mut input), None);
                prop_assert_eq!(input, &encoded[..cut]);
            }
        }
    }

    #[test]
    fn longer_forms_than_needed_decode() {
        for encoded in [&[0x25][..], &[0x40, 0x25], &[0x80, 0, 0, 0x25], &[0xc0, 0, 0, 0, 0, 0, 0, 0x25]] {
            assert_eq!(decode_slice(&mut &encoded[..]), Some(37));
        }
    }
}
