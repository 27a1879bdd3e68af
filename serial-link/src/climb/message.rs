//! What the two ends say to each other about the rate, as messages of the frame layer.

/// Random bytes of a challenge.
pub(super) const CHALLENGE_BYTES: usize = 24;

/// One message. PROTOCOL.md, section 12.7, has the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    Switch { id: u8, rate: u32 },
    Ready { id: u8 },
    Refuse { id: u8 },
    Challenge { id: u8, index: u8, bytes: [u8; CHALLENGE_BYTES] },
    Echo { id: u8, index: u8, bytes: [u8; CHALLENGE_BYTES] },
    Commit { id: u8 },
    Committed { id: u8 },
    Slower { rate: u32 },
    Done { rate: u32 },
    Ping,
    Pong,
}

impl Message {
    /// Reads a message; none if it is malformed or of a later version.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        Some(match *bytes {
            [1, id, a, b, c, d] => Self::Switch { id, rate: u32::from_be_bytes([a, b, c, d]) },
            [2, id] => Self::Ready { id },
            [3, id] => Self::Refuse { id },
            [4, id, index, ref bytes @ ..] => Self::Challenge { id, index, bytes: bytes.try_into().ok()? },
            [5, id, index, ref bytes @ ..] => Self::Echo { id, index, bytes: bytes.try_into().ok()? },
            [6, id] => Self::Commit { id },
            [7, id] => Self::Committed { id },
            [8, a, b, c, d] => Self::Slower { rate: u32::from_be_bytes([a, b, c, d]) },
            [9, a, b, c, d] => Self::Done { rate: u32::from_be_bytes([a, b, c, d]) },
            [10] => Self::Ping,
            [11] => Self::Pong,
            _ => return None,
        })
    }

    /// The bytes of the message.
    pub(crate) fn write(&self) -> Vec<u8> {
        let rate_of = |kind: u8, rate: u32| [&[kind][..], &rate.to_be_bytes()].concat();
        match self {
            Self::Switch { id, rate } => [&[1, *id][..], &rate.to_be_bytes()].concat(),
            Self::Ready { id } => vec![2, *id],
            Self::Refuse { id } => vec![3, *id],
            Self::Challenge { id, index, bytes } => [&[4, *id, *index][..], bytes].concat(),
            Self::Echo { id, index, bytes } => [&[5, *id, *index][..], bytes].concat(),
            Self::Commit { id } => vec![6, *id],
            Self::Committed { id } => vec![7, *id],
            Self::Slower { rate } => rate_of(8, *rate),
            Self::Done { rate } => rate_of(9, *rate),
            Self::Ping => vec![10],
            Self::Pong => vec![11],
        }
    }
}

/// The bytes of one challenge: they look random, and need not be secret.
pub(super) fn challenge(seed: u64, id: u8, index: u8) -> [u8; CHALLENGE_BYTES] {
    let mut bytes = [0; CHALLENGE_BYTES];
    let mut state = seed ^ (u64::from(id) << 8 | u64::from(index)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for word in bytes.chunks_exact_mut(8) {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_undoes_writing() {
        let bytes = challenge(7, 1, 2);
        assert_ne!(bytes, challenge(7, 1, 3));
        for message in [
            Message::Switch { id: 1, rate: 921_600 },
            Message::Ready { id: 2 },
            Message::Refuse { id: 3 },
            Message::Challenge { id: 4, index: 5, bytes },
            Message::Echo { id: 4, index: 5, bytes },
            Message::Commit { id: 6 },
            Message::Committed { id: 7 },
            Message::Slower { rate: 3_000_000 },
            Message::Done { rate: 115_200 },
            Message::Ping,
            Message::Pong,
        ] {
            let written = message.write();
            assert!(written.len() <= bondwire_frame::limits::MESSAGE_MAX_BYTES);
            assert_eq!(Message::read(&written), Some(message));
            assert_eq!(Message::read(&[&written[..], &[0]].concat()), None);
        }
        assert_eq!(Message::read(&[]), None);
        assert_eq!(Message::read(&[99]), None);
    }
}
