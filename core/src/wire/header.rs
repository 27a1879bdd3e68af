//! The header of a data packet: one byte of flags, then the packet number cut to one to four bytes.
//!
//! Numbers are shortened and restored as in RFC 9000 appendices A.2 and A.3. There is no header protection: whoever
//! sees a link's bytes sees its packet numbers.

use bytes::BufMut;

use crate::wire::varint::VARINT_MAX;

const HANDSHAKE: u8 = 0x80;
const RESERVED: u8 = 0x78;
const PHASE: u8 = 0x04;
const NUMBER_LEN: u8 = 0x03;

/// What the header of a data packet says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The packet number, whole.
    pub number: u64,
    /// The lowest bit of the key phase that sealed the packet.
    pub phase_bit: bool,
}

/// Why a packet has no header to be read. None of these has been authenticated: drop the packet and count it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// The packet has no bytes.
    #[error("the packet is empty")]
    Empty,
    /// It is a message of the handshake, not a data packet.
    #[error("the packet is a handshake message ({0:#04x}), not data")]
    Handshake(u8),
    /// Bits that must be zero are not.
    #[error("the packet's first byte, {0:#04x}, has reserved bits set")]
    Reserved(u8),
    /// It ends within the packet number.
    #[error("the packet ends within its packet number")]
    Truncated,
}

/// Whether `packet` is a handshake message by its first bit. An empty packet is none.
pub const fn is_handshake(packet: &[u8]) -> bool {
    matches!(packet, [first, ..] if *first & HANDSHAKE != 0)
}

/// Bytes of packet number that a header needs for a receiver that has seen `largest_acked`, or nothing yet.
///
/// That is enough to tell apart twice as many numbers as are unacknowledged, and never more than four.
pub const fn number_len(number: u64, largest_acked: Option<u64>) -> usize {
    let unacked = match largest_acked {
        Some(acked) => number.saturating_sub(acked),
        None => number.saturating_add(1),
    };
    debug_assert!(unacked <= 1 << 31, "more packets unacknowledged than a packet number can tell apart");
    match unacked {
        0..=0x80 => 1,
        0x81..=0x8000 => 2,
        0x8001..=0x80_0000 => 3,
        _ => 4,
    }
}

/// Appends `header` and returns its length, at most [`HEADER_MAX_BYTES`](crate::limits::HEADER_MAX_BYTES).
///
/// `largest_acked` is the largest number of this link and direction that the peer has acknowledged.
pub fn encode(header: Header, largest_acked: Option<u64>, out: &mut impl BufMut) -> usize {
    let number_len = number_len(header.number, largest_acked);
    let phase = if header.phase_bit { PHASE } else { 0 };
    out.put_u8(phase | (number_len as u8 - 1));
    out.put_uint(header.number & mask(number_len), number_len);
    1 + number_len
}

/// Reads the header at the front of `packet`; returns it and its length.
///
/// `largest_authenticated` is the largest number that this end has opened on the same link and direction. A number at
/// or below it may come back; the caller refuses those.
///
/// # Errors
/// Each [`HeaderError`]: the packet cannot be opened and is to be dropped.
pub fn decode(packet: &[u8], largest_authenticated: Option<u64>) -> Result<(Header, usize), HeaderError> {
    let (&flags, rest) = packet.split_first().ok_or(HeaderError::Empty)?;
    if flags & HANDSHAKE != 0 {
        return Err(HeaderError::Handshake(flags));
    }
    if flags & RESERVED != 0 {
        return Err(HeaderError::Reserved(flags));
    }
    let number_len = usize::from(flags & NUMBER_LEN) + 1;
    let truncated = rest.get(..number_len).ok_or(HeaderError::Truncated)?;
    let truncated = truncated.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    let number = restore(truncated, number_len, largest_authenticated);
    Ok((Header { number, phase_bit: flags & PHASE != 0 }, 1 + number_len))
}

/// The number nearest to the one expected next among all that end in `truncated` (RFC 9000 appendix A.3); at most
/// [`VARINT_MAX`].
const fn restore(truncated: u64, number_len: usize, largest: Option<u64>) -> u64 {
    let expected = match largest {
        Some(largest) if largest < VARINT_MAX => largest + 1,
        Some(_) => VARINT_MAX,
        None => 0,
    };
    let window = mask(number_len) + 1;
    let candidate = expected & !mask(number_len) | truncated;
    // All terms lie below 2⁶² + 2³³, so nothing here overflows.
    if candidate + window / 2 <= expected && candidate + window <= VARINT_MAX {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

const fn mask(number_len: usize) -> u64 {
    (1 << (8 * number_len)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HEADER_MAX_BYTES;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn examples_of_rfc_9000() {
        assert_eq!(number_len(0xac5c02, Some(0xabe8b3)), 2);
        assert_eq!(number_len(0xace8fe, Some(0xabe8b3)), 3);
        assert_eq!(restore(0x9b32, 2, Some(0xa82f30ea)), 0xa82f9b32);
    }

    #[test]
    fn numbers_are_as_long_as_their_distance_needs() {
        for (number_len, most) in [(1, 0x80), (2, 0x8000), (3, 0x80_0000)] {
            assert_eq!(super::number_len(1000 + most, Some(1000)), number_len);
            assert_eq!(super::number_len(1000 + most + 1, Some(1000)), number_len + 1);
            assert_eq!(super::number_len(most - 1, None), number_len);
            assert_eq!(super::number_len(most, None), number_len + 1);
        }
    }

    #[test]
    fn the_nearest_number_is_restored() {
        // Of the 256 numbers that one byte tells apart, 128 lie above the expected one and 127 below.
        for expected in 900..1200 {
            for number in expected - 127..=expected + 128 {
                assert_eq!(restore(number & 0xff, 1, Some(expected - 1)), number);
            }
        }
    }

    #[test]
    fn bad_headers_are_named() {
        assert_eq!(decode(&[], None), Err(HeaderError::Empty));
        assert_eq!(decode(&[0x81, 0], None), Err(HeaderError::Handshake(0x81)));
        for bit in 3..7 {
            assert_eq!(decode(&[1 << bit, 0], None), Err(HeaderError::Reserved(1 << bit)));
        }
        for number_len in 1..=4u8 {
            let short = alloc::vec![0u8; usize::from(number_len)];
            let packet = [&[number_len - 1][..], &short[1..]].concat();
            assert_eq!(decode(&packet, None), Err(HeaderError::Truncated));
        }
        assert_eq!(
            decode(&[0, 5], Some(VARINT_MAX)),
            Ok((Header { number: VARINT_MAX - 250, phase_bit: false }, 2))
        );
        assert!(is_handshake(&[0x85]) && !is_handshake(&[0x07]) && !is_handshake(&[]));
    }

    proptest! {
        /// Whatever the receiver has seen between the last acknowledged packet and the one before this, it restores
        /// the number.
        #[test]
        fn round_trip(
            acked in prop_oneof![Just(None), (0..VARINT_MAX - (1 << 31)).prop_map(Some)],
            ahead in prop_oneof![1u64..=0x81, 1u64..=0x8001, 1u64..=0x80_0001, 1u64..=1 << 31],
            seen in 0.0..=1.0f64,
            phase_bit: bool,
        ) {
            let number = acked.map_or(ahead - 1, |acked| acked + ahead);
            let mut packet = Vec::new();
            let header = Header { number, phase_bit };
            let len = encode(header, acked, &mut packet);
            prop_assert_eq!(packet.len(), len);
            prop_assert!(len <= HEADER_MAX_BYTES);

            let unseen = ((ahead - 1) as f64 * seen) as u64;
            let largest = (number - unseen).checked_sub(1).or(acked);
            prop_assert_eq!(decode(&packet, largest), Ok((header, len)));
        }

        #[test]
        fn any_bytes_decode_or_are_named(packet in prop::collection::vec(any::<u8>(), 0..8), largest: Option<u64>) {
            if let Ok((header, len)) = decode(&packet, largest) {
                prop_assert!(header.number <= VARINT_MAX && len <= packet.len());
            }
        }
    }
}
