//! What each end tells the other about itself during a handshake.

use alloc::vec::Vec;

use crate::limits::{self, MTU_MAX_BYTES, MTU_MIN_BYTES, STREAM_WINDOW_MIN_BYTES};
use crate::time::Duration;
use crate::wire::varint;

/// What one end tells the other: of the link (its MTU) and of the bond (the rest). What an end does not tell has the
/// value of [`Parameters::default`]. The bond takes its values from the handshake that opened it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// Largest packet this end takes on this link, in bytes, header and tag included.
    pub mtu_bytes: usize,
    /// Longest time this end holds an acknowledgement back; whole microseconds travel.
    pub ack_delay_max: Duration,
    /// Streams that the other end may open at first.
    pub streams_max: u64,
    /// Time without a link after which this end gives the bond up; `None` for never. Whole milliseconds travel.
    pub idle_timeout: Option<Duration>,
    /// Bytes the other end may send at first on each stream.
    pub stream_window_bytes: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            mtu_bytes: MTU_MIN_BYTES,
            ack_delay_max: limits::ACK_DELAY_MAX,
            streams_max: 0,
            idle_timeout: Some(limits::IDLE_TIMEOUT),
            stream_window_bytes: STREAM_WINDOW_MIN_BYTES,
        }
    }
}

/// Ends the list: what follows is padding.
const PADDING: u64 = 0;
const MTU: u64 = 1;
const ACK_DELAY: u64 = 2;
const STREAMS_MAX: u64 = 3;
const IDLE_TIMEOUT: u64 = 4;
const STREAM_WINDOW: u64 = 5;

impl Parameters {
    /// Appends the list: each parameter is an id, a length, and a value, which is a varint too.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let idle_timeout_ms = self.idle_timeout.map_or(0, |time| whole(time.as_millis()).max(1));
        let values = [
            (MTU, self.mtu_bytes.min(MTU_MAX_BYTES) as u64),
            (ACK_DELAY, whole(self.ack_delay_max.min(limits::ACK_DELAY_TOLD_MAX).as_micros())),
            (STREAMS_MAX, self.streams_max.min(varint::VARINT_MAX)),
            (IDLE_TIMEOUT, idle_timeout_ms),
            (STREAM_WINDOW, self.stream_window_bytes.min(varint::VARINT_MAX)),
        ];
        for (id, value) in values {
            varint::encode(id, out);
            varint::encode(varint::len(value) as u64, out);
            varint::encode(value, out);
        }
    }

    /// Reads a list up to its padding or the end. `None` if it is broken, names a parameter twice, or has a value that
    /// no end can mean.
    pub(super) fn decode(mut input: &[u8]) -> Option<Self> {
        let mut parameters = Self::default();
        let mut seen = 0_u8;
        while !input.is_empty() {
            let id = super::message::varint(&mut input)?;
            if id == PADDING {
                break;
            }
            let len = usize::try_from(super::message::varint(&mut input)?).ok()?;
            let (mut value, rest) = input.split_at_checked(len)?;
            input = rest;
            if id <= STREAM_WINDOW {
                let bit = 1 << id;
                if seen & bit != 0 {
                    return None;
                }
                seen |= bit;
                let number = super::message::varint(&mut value).filter(|_| value.is_empty())?;
                parameters.set(id, number)?;
            }
        }
        Some(parameters)
    }

    fn set(&mut self, id: u64, value: u64) -> Option<()> {
        match id {
            MTU => {
                self.mtu_bytes = usize::try_from(value).unwrap_or(MTU_MAX_BYTES).min(MTU_MAX_BYTES);
                if self.mtu_bytes < MTU_MIN_BYTES {
                    return None;
                }
            }
            ACK_DELAY => self.ack_delay_max = Duration::from_micros(value).min(limits::ACK_DELAY_TOLD_MAX),
            STREAMS_MAX => self.streams_max = value,
            IDLE_TIMEOUT => self.idle_timeout = (value != 0).then(|| Duration::from_millis(value)),
            STREAM_WINDOW => self.stream_window_bytes = value,
            _ => {}
        }
        Some(())
    }
}

/// The number if a varint holds it, else the largest that one holds.
fn whole(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(varint::VARINT_MAX).min(varint::VARINT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn encoded(parameters: &Parameters) -> Vec<u8> {
        let mut out = Vec::new();
        parameters.encode(&mut out);
        out
    }

    #[test]
    fn an_empty_list_means_the_defaults() {
        assert_eq!(Parameters::decode(&[]), Some(Parameters::default()));
        assert_eq!(Parameters::decode(&[0, 0xff, 0xff]), Some(Parameters::default()));
    }

    #[test]
    fn unknown_parameters_are_ignored() {
        let mut list = vec![0x3f, 3, 1, 2, 3];
        Parameters { streams_max: 77, ..Parameters::default() }.encode(&mut list);
        assert_eq!(Parameters::decode(&list).unwrap().streams_max, 77);
    }

    #[test]
    fn broken_lists_are_refused() {
        assert_eq!(Parameters::decode(&[1]), None, "no length");
        assert_eq!(Parameters::decode(&[1, 9, 0]), None, "cut short");
        assert_eq!(
            Parameters::decode(&[1, 2, 0x41, 0]),
            Some(Parameters { mtu_bytes: 256, ..Default::default() })
        );
        assert_eq!(Parameters::decode(&[1, 2, 0x40, 0xff]), None, "an MTU of 255");
        assert_eq!(Parameters::decode(&[1, 2, 0x3f, 0]), None, "a byte behind the value");
        assert_eq!(Parameters::decode(&[3, 1, 5, 3, 1, 5]), None, "twice the same");
    }

    #[test]
    fn the_longest_list_fits_a_handshake_message() {
        let longest = Parameters {
            mtu_bytes: usize::MAX,
            ack_delay_max: Duration::MAX,
            streams_max: u64::MAX,
            idle_timeout: Some(Duration::MAX),
            stream_window_bytes: u64::MAX,
        };
        assert_eq!(encoded(&longest).len(), 42);
        assert!(Parameters::decode(&encoded(&longest)).is_some());
    }

    proptest! {
        #[test]
        fn what_is_told_is_heard(mtu in 256..=65_535_usize, ack in 0..16_000_000_u64, streams in 0..1_u64 << 62,
                                 idle in proptest::option::of(1..1_u64 << 40), window in 0..1_u64 << 62) {
            let told = Parameters {
                mtu_bytes: mtu,
                ack_delay_max: Duration::from_micros(ack),
                streams_max: streams,
                idle_timeout: idle.map(Duration::from_millis),
                stream_window_bytes: window,
            };
            prop_assert_eq!(Parameters::decode(&encoded(&told)), Some(told));
        }

        #[test]
        fn garbage_never_panics(list in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Parameters::decode(&list);
        }
    }
}
