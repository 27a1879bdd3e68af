use std::fmt;

use bondwire_frame::FRAME_OVERHEAD_BYTES;
use bondwire_frame::transfer::LENGTH_BYTES;

use crate::limits::{RECEIVE_BUFFER_BYTES, TRANSFER_MAX_BYTES, TRANSFERS_MAX};

/// Speed of a cable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Speed {
    /// 1.5 Mbit/s: has no bulk endpoints.
    Low,
    /// 12 Mbit/s.
    Full,
    /// 480 Mbit/s.
    High,
    /// 5 Gbit/s and more.
    Super,
}

/// How a link uses a cable of some speed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    /// Length of transfers both ways, in bytes.
    pub(crate) transfer_bytes: usize,
    /// Transfers under way each way.
    pub(crate) transfers: usize,
    pub(crate) receive_buffer_bytes: u32,
    /// What the cable moves at most, in bytes per second.
    pub(crate) rate_hint: u64,
}

impl Speed {
    /// The speed of a cable whose bulk endpoints have packets of so many bytes (USB 2.0, 5.8.3; USB 3.2, 8.12.1).
    pub fn of_packets(packet_bytes: usize) -> Self {
        match packet_bytes {
            0..=64 => Self::Full,
            65..=512 => Self::High,
            _ => Self::Super,
        }
    }

    /// What is under way stays below about 4 ms of the cable: the bond decides what to send as late as it can.
    pub(crate) fn shape(self) -> Shape {
        match self {
            // 19 packets of 64 bytes in each millisecond at best (USB 2.0, table 5-9).
            Self::Low | Self::Full => Shape {
                transfer_bytes: 2 << 10,
                transfers: 4,
                receive_buffer_bytes: 64 << 10,
                rate_hint: 1_000_000,
            },
            // 13 packets of 512 bytes in each 125 µs at best (table 5-10); controllers come to about 40 MB/s.
            Self::High => Shape {
                transfer_bytes: TRANSFER_MAX_BYTES,
                transfers: TRANSFERS_MAX,
                receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
                rate_hint: 40_000_000,
            },
            Self::Super => Shape {
                transfer_bytes: TRANSFER_MAX_BYTES,
                transfers: 2 * TRANSFERS_MAX,
                receive_buffer_bytes: 2 * RECEIVE_BUFFER_BYTES,
                rate_hint: 350_000_000,
            },
        }
    }
}

impl Shape {
    /// Longest packet for which a frame fits into one transfer, with the byte of padding that it may need.
    pub(crate) fn mtu_bytes(&self) -> usize {
        mtu_bytes(self.transfer_bytes)
    }
}

/// The same for a transfer of any length.
pub(crate) fn mtu_bytes(transfer_bytes: usize) -> usize {
    transfer_bytes.saturating_sub(LENGTH_BYTES + FRAME_OVERHEAD_BYTES + 1)
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "low speed (1.5 Mbit/s)",
            Self::Full => "full speed (12 Mbit/s)",
            Self::High => "high speed (480 Mbit/s)",
            Self::Super => "super speed (5 Gbit/s or more)",
        })
    }
}

#[cfg(test)]
mod tests {
    use bondwire_frame::limits::CREDIT_STEPS;

    use super::*;

    #[test]
    fn every_shape_is_possible() {
        for (packet_bytes, speed) in [(64, Speed::Full), (512, Speed::High), (1024, Speed::Super)] {
            assert_eq!(Speed::of_packets(packet_bytes), speed);
            let shape = speed.shape();
            assert!(shape.mtu_bytes() >= bondwire::limits::MTU_MIN_BYTES);
            assert!(shape.transfer_bytes.is_multiple_of(packet_bytes), "reads must be whole packets");
            assert!(shape.transfer_bytes <= TRANSFER_MAX_BYTES);
            assert!(
                shape.transfers <= crate::limits::TRANSFERS_PER_TURN,
                "what came during a pause is one turn's"
            );
            let told_at_bytes = shape.receive_buffer_bytes / CREDIT_STEPS;
            let both_ways_bytes = 2 * shape.transfers * shape.transfer_bytes;
            assert!(
                (shape.receive_buffer_bytes - told_at_bytes) as usize >= both_ways_bytes,
                "a limit comes back in time, behind data of its own direction"
            );
        }
    }
}
