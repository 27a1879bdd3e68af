//! The ACK frame: which packets of one link arrived. Ranges are written as in RFC 9000 section 19.3, newest first.

use alloc::vec::Vec;
use bytes::{BufMut, Bytes};
use core::iter::FusedIterator;
use core::ops::RangeInclusive;

use crate::id::LinkId;
use crate::limits::ACK_RANGES_MAX;
use crate::range_set::RangeSet;
use crate::wire::fields::Fields;
use crate::wire::frame::{FrameError, kind};
use crate::wire::varint::{self, VARINT_MAX};

/// Ranges that an ACK frame may have behind its first.
const MORE_RANGES_MAX: usize = ACK_RANGES_MAX - 1;

/// Packets of one link that arrived at the sender of this frame. The link is not always the one that brings the frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ack {
    /// The link whose packets these are.
    pub link: LinkId,
    /// Largest packet number that arrived.
    pub largest: u64,
    /// Time that the sender held this acknowledgement back after `largest` arrived, in microseconds.
    pub delay_us: u64,
    /// When `largest` arrived by the clock of the sender of this frame: microseconds, counted from anything, the low 30 bits.
    pub arrival_us: u64,
    /// Packets directly below `largest` that arrived too.
    first_range: u64,
    /// Ranges behind the first.
    more_ranges: u64,
    /// A gap and a range for each of those; checked when the frame was read.
    pairs: Bytes,
}

impl Ack {
    /// The acknowledged packet numbers, highest range first; 1 to [`ACK_RANGES_MAX`] ranges, apart from each other.
    pub fn ranges(&self) -> AckRanges<'_> {
        AckRanges { next: Some((self.largest, self.first_range)), pairs: &self.pairs }
    }

    pub(super) fn decode(payload: &Bytes, fields: &mut Fields<'_>) -> Result<Self, FrameError> {
        let link = fields.link()?;
        let largest = fields.varint("largest")?;
        let delay_us = fields.varint("delay")?;
        let arrival_us = fields.varint("arrival")?;
        let more_ranges = fields.at_most("range count", MORE_RANGES_MAX as u64)?;
        let mut lowest = fields.step_down("first range", Some(largest))?;
        let first_range = largest - lowest;

        let before = fields.rest();
        for _ in 0..more_ranges {
            // Ranges that touch would be one, so a gap of 0 stands for one missing packet.
            let highest = fields.step_down("gap", lowest.checked_sub(2))?;
            lowest = fields.step_down("range", Some(highest))?;
        }
        let pairs = before.get(..before.len() - fields.remaining()).unwrap_or_default();
        Ok(Self {
            link,
            largest,
            delay_us,
            arrival_us,
            first_range,
            more_ranges,
            pairs: payload.slice_ref(pairs),
        })
    }

    /// Appends the frame as it was read.
    pub(super) fn encode_whole(&self, out: &mut Vec<u8>) {
        out.put_u8(kind::ACK);
        let Self { largest, delay_us, arrival_us, more_ranges, first_range, .. } = *self;
        for field in [self.link.0.into(), largest, delay_us, arrival_us, more_ranges, first_range] {
            varint::encode(field, out);
        }
        out.put_slice(&self.pairs);
    }
}

/// The ranges of an ACK frame, see [`Ack::ranges`].
#[derive(Clone, Debug)]
pub struct AckRanges<'a> {
    /// Highest number of the next range, and how many follow below it.
    next: Option<(u64, u64)>,
    pairs: &'a [u8],
}

impl Iterator for AckRanges<'_> {
    type Item = RangeInclusive<u64>;

    fn next(&mut self) -> Option<Self::Item> {
        let (highest, more) = self.next?;
        let lowest = highest.saturating_sub(more);
        self.next = varint::decode_slice(&mut self.pairs)
            .zip(varint::decode_slice(&mut self.pairs))
            .map(|(gap, range)| (lowest.saturating_sub(gap).saturating_sub(2), range));
        Some(lowest..=highest)
    }
}

impl FusedIterator for AckRanges<'_> {}

/// Appends an ACK frame of the highest ranges of `received`; returns false, and writes nothing, if not even one fits
/// into `room` bytes. Further ranges take half of the room at most: on a lossy link with small packets, what they
/// leave must do for a PING that lets them be pruned, and for data.
pub(super) fn encode(
    link: LinkId,
    (delay_us, arrival_us): (u64, u64),
    received: &RangeSet,
    room: usize,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    let mut ranges = received.iter().rev().take(ACK_RANGES_MAX);
    let Some(first) = ranges.next() else {
        return false;
    };
    out.put_u8(kind::ACK);
    for field in [link.0.into(), first.end - 1, delay_us.min(VARINT_MAX), arrival_us.min(VARINT_MAX)] {
        varint::encode(field, out);
    }
    let count_at = out.len();
    out.put_u8(0);
    varint::encode(first.end - 1 - first.start, out);
    if out.len() - start > room {
        out.truncate(start);
        return false;
    }
    let (mut lowest, mut more_ranges) = (first.start, 0);
    for range in ranges {
        // Ranges of a set lie apart and hold a number each, so neither falls below 0.
        let (gap, more) = (lowest - range.end - 1, range.end - 1 - range.start);
        if out.len() - start + varint::len(gap) + varint::len(more) > room / 2 {
            break;
        }
        varint::encode(gap, out);
        varint::encode(more, out);
        lowest = range.start;
        more_ranges += 1;
    }
    // At most 63, which is one byte as a varint.
    if let Some(count) = out.get_mut(count_at) {
        *count = more_ranges;
    }
    true
}
