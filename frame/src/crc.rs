//! CRC-32C (Castagnoli, RFC 3720 appendix B.4), which guards each frame.

/// A CRC-32C under way. Copies are cheap: a session keeps one that has taken the epoch, and goes on from there for each
/// frame.
///
/// ```
/// use bondwire_frame::crc::Crc32c;
/// let whole = Crc32c::new().with(b"123456789");
/// assert_eq!(whole.value(), 0xe306_9283);
/// assert_eq!(Crc32c::new().with(b"1234").with(b"56789").value(), whole.value());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Crc32c(implementation::State);

impl Crc32c {
    /// Of no bytes yet.
    pub fn new() -> Self {
        Self(implementation::State::new())
    }

    /// Goes on with `bytes`.
    #[must_use]
    pub fn with(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    /// The checksum of all bytes so far.
    pub fn value(&self) -> u32 {
        self.0.value()
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(not(feature = "hardware-crc"))]
use portable as implementation;

#[cfg(feature = "hardware-crc")]
use hardware as implementation;

#[cfg(any(not(feature = "hardware-crc"), test))]
mod portable {
    use crc::{CRC_32_ISCSI, Crc};

    static TABLE: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    /// The state before the first byte. The algorithm starts with all bits set, whichever end they are counted from.
    const START: u32 = CRC_32_ISCSI.init;

    /// The state between two bytes: the value so far, before the final inversion.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct State(u32);

    impl State {
        pub(super) fn new() -> Self {
            Self(START)
        }

        pub(super) fn update(&mut self, bytes: &[u8]) {
            // The crate wants the initial value with its bits in the order of the polynomial, and gives the result
            // reflected and inverted.
            let mut digest = TABLE.digest_with_initial(self.0.reverse_bits());
            digest.update(bytes);
            self.0 = digest.finalize() ^ CRC_32_ISCSI.xorout;
        }

        pub(super) fn value(self) -> u32 {
            self.0 ^ CRC_32_ISCSI.xorout
        }
    }
}

#[cfg(feature = "hardware-crc")]
mod hardware {
    use crc_fast::{CrcAlgorithm, Digest};

    #[derive(Clone, Copy, Debug)]
    pub(super) struct State(Digest);

    impl State {
        pub(super) fn new() -> Self {
            Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
        }

        pub(super) fn update(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        pub(super) fn value(self) -> u32 {
            // The algorithm's 32 bits stand in the low half.
            self.0.finalize() as u32
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// The feature's implementation, whichever it is, against the table.
    #[test]
    fn both_implementations_give_the_same_answers() {
        for len in (0..700).chain([4096, 65_544]) {
            let data: Vec<u8> =
                (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let (front, back) = data.split_at(len / 3);
            let mut portable = portable::State::new();
            portable.update(front);
            portable.update(back);
            assert_eq!(Crc32c::new().with(front).with(back).value(), portable.value(), "{len} bytes");
            assert_eq!(Crc32c::new().with(&data).value(), portable.value(), "{len} bytes in one");
        }
    }

    #[test]
    fn the_check_value_of_the_catalogue() {
        assert_eq!(Crc32c::new().with(b"123456789").value(), 0xe306_9283);
        // RFC 3720, B.4: 32 bytes of zero.
        assert_eq!(Crc32c::new().with(&[0; 32]).value().to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
    }
}
