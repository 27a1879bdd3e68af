//! HELLO: how two ends begin a session.

use crate::limits::{FRAME_OVERHEAD_BYTES, KEEP_ALIVE_MAX, MTU_MIN_BYTES, RECEIVE_BUFFER_MAX_BYTES};
use crate::time::Duration;

/// Version of the frame layer.
pub const VERSION: u8 = 1;
/// Bytes of a HELLO's payload in this version. A later one may have more behind.
pub const HELLO_BYTES: usize = 31;

/// Flag: the sender is not established yet and wants an answer.
const ANSWER_WANTED: u8 = 1;

/// Who begins. Of two ends one dials and one accepts: on USB the host dials, on a serial line the one that connects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Role {
    /// Sends HELLO until it is answered.
    Dialer,
    /// Waits for a HELLO, and says nothing before.
    Acceptor,
}

/// What a HELLO says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Role of the sender.
    pub role: Role,
    /// The sender has not heard yet that it was heard.
    pub answer_wanted: bool,
    /// Largest packet that the sender takes, in bytes.
    pub mtu_bytes: u16,
    /// Bytes of DATA frames that the sender has room for at first.
    pub receive_buffer_bytes: u32,
    /// Length of the sender's reads, in bytes: no transfer to it may be longer. Zero where it does not matter.
    pub read_bytes: u32,
    /// Longest time that the sender lets pass without a frame.
    pub keep_alive: Duration,
    /// Chosen anew whenever the sender opens its end; not zero.
    pub nonce: u64,
    /// The nonce of the receiver, if the sender has heard it.
    pub peer_nonce: Option<u64>,
}

/// Why a payload is no HELLO that this version can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HelloError {
    /// Another version of the frame layer.
    #[error("version {0}")]
    Version(u8),
    /// Too short, or with values that cannot be.
    #[error("malformed")]
    Malformed,
}

impl Hello {
    /// Reads the payload of a HELLO frame. Bytes behind what this version knows are ignored.
    pub fn read(payload: &[u8]) -> Result<Self, HelloError> {
        let version = *payload.first().ok_or(HelloError::Malformed)?;
        if version != VERSION {
            return Err(HelloError::Version(version));
        }
        let fields = payload.first_chunk::<HELLO_BYTES>().ok_or(HelloError::Malformed)?;
        Self::parse(fields).filter(Self::is_sane).ok_or(HelloError::Malformed)
    }

    fn parse(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let [_, role, flags, fields @ ..] = bytes;
        let (mtu, rest) = fields.split_first_chunk()?;
        let (receive_buffer, rest) = rest.split_first_chunk()?;
        let (read, rest) = rest.split_first_chunk()?;
        let (keep_alive, rest) = rest.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (peer_nonce, _) = rest.split_first_chunk()?;
        Some(Self {
            role: match role {
                0 => Role::Dialer,
                1 => Role::Acceptor,
                _ => return None,
            },
            answer_wanted: flags & ANSWER_WANTED != 0,
            mtu_bytes: u16::from_be_bytes(*mtu),
            receive_buffer_bytes: u32::from_be_bytes(*receive_buffer),
            read_bytes: u32::from_be_bytes(*read),
            keep_alive: Duration::from_millis(u16::from_be_bytes(*keep_alive).into()),
            nonce: u64::from_be_bytes(*nonce),
            peer_nonce: Some(u64::from_be_bytes(*peer_nonce)).filter(|nonce| *nonce != 0),
        })
    }

    /// Whether a session is possible with these values.
    fn is_sane(&self) -> bool {
        let frame_min = u32::from(MTU_MIN_BYTES) + FRAME_OVERHEAD_BYTES as u32;
        self.nonce != 0
            && self.mtu_bytes >= MTU_MIN_BYTES
            && (frame_min..=RECEIVE_BUFFER_MAX_BYTES).contains(&self.receive_buffer_bytes)
            && !self.keep_alive.is_zero()
    }

    /// The payload of a HELLO frame.
    pub fn write(&self) -> [u8; HELLO_BYTES] {
        let mut payload = [0; HELLO_BYTES];
        let keep_alive_ms = self.keep_alive.min(KEEP_ALIVE_MAX).as_millis() as u16;
        let fields: [&[u8]; 7] = [
            &[VERSION, self.role as u8, if self.answer_wanted { ANSWER_WANTED } else { 0 }],
            &self.mtu_bytes.to_be_bytes(),
            &self.receive_buffer_bytes.to_be_bytes(),
            &self.read_bytes.to_be_bytes(),
            &keep_alive_ms.to_be_bytes(),
            &self.nonce.to_be_bytes(),
            &self.peer_nonce.unwrap_or(0).to_be_bytes(),
        ];
        for (place, byte) in payload.iter_mut().zip(fields.into_iter().flatten()) {
            *place = *byte;
        }
        payload
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::HELLO_MAX_BYTES;
    use crate::transfer::LENGTH_BYTES;

    const _: () = assert!(LENGTH_BYTES + HELLO_BYTES + FRAME_OVERHEAD_BYTES <= HELLO_MAX_BYTES);

    fn hello() -> impl Strategy<Value = Hello> {
        let sizes = (MTU_MIN_BYTES.., 265..=RECEIVE_BUFFER_MAX_BYTES, any::<u32>(), 1u16..);
        (any::<[bool; 2]>(), sizes, 1u64.., any::<u64>()).prop_map(
            |([dials, answer_wanted], (mtu, buffer, read, keep_alive), nonce, peer_nonce)| Hello {
                role: if dials { Role::Dialer } else { Role::Acceptor },
                answer_wanted,
                mtu_bytes: mtu,
                receive_buffer_bytes: buffer,
                read_bytes: read,
                keep_alive: Duration::from_millis(keep_alive.into()),
                nonce,
                peer_nonce: Some(peer_nonce).filter(|nonce| *nonce != 0),
            },
        )
    }

    proptest! {
        #[test]
        fn reading_undoes_writing(hello in hello(), more in prop::collection::vec(any::<u8>(), 0..20)) {
            let payload = hello.write();
            prop_assert_eq!(Hello::read(&payload), Ok(hello));
            prop_assert_eq!(Hello::read(&[&payload[..], &more].concat()), Ok(hello));
            for len in 0..HELLO_BYTES {
                prop_assert_eq!(Hello::read(&payload[..len]), Err(HelloError::Malformed));
            }
        }

        #[test]
        fn any_payload_is_survived(payload in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(hello) = Hello::read(&payload) {
                prop_assert_eq!(Hello::read(&hello.write()), Ok(hello));
            }
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let good = Hello {
            role: Role::Dialer,
            answer_wanted: true,
            mtu_bytes: 631,
            receive_buffer_bytes: 8192,
            read_bytes: 0,
            keep_alive: Duration::from_secs(1),
            nonce: 1,
            peer_nonce: None,
        };
        assert_eq!(Hello::read(&good.write()), Ok(good));
        for bad in [
            Hello { mtu_bytes: 255, ..good },
            Hello { receive_buffer_bytes: 264, ..good },
            Hello { receive_buffer_bytes: RECEIVE_BUFFER_MAX_BYTES + 1, ..good },
            Hello { keep_alive: Duration::ZERO, ..good },
            Hello { nonce: 0, ..good },
        ] {
            assert_eq!(Hello::read(&bad.write()), Err(HelloError::Malformed), "{bad:?}");
        }
        let mut other = good.write();
        other[1] = 2;
        assert_eq!(Hello::read(&other), Err(HelloError::Malformed));
        other[0] = 9;
        assert_eq!(Hello::read(&other), Err(HelloError::Version(9)));
    }
}
