//! What is in flight on a link.
//!
//! A link is a FIFO: once a packet is acknowledged, every earlier one is either acknowledged too or lost. So the
//! record is a queue that only ever loses its front, and there are no holes in it.

use alloc::collections::VecDeque;

use smallvec::SmallVec;

use super::rate::SendStamp;
use crate::id::{Class, LinkId};
use crate::streams::{ControlKey, SentStream};
use crate::time::Instant;

/// A frame whose fate matters to the sender.
#[derive(Clone, Debug)]
pub(crate) enum SentFrame {
    /// Bytes of a stream.
    Stream(SentStream),
    /// A frame of the streams' own (windows, resets, openings): the newest value is sent again.
    Control(ControlKey),
    /// An acknowledgement of `link` up to `highest`.
    Ack {
        link: LinkId,
        highest: u64,
    },
    WindowWanted,
    LinkStatus {
        link: LinkId,
        sequence: u64,
    },
    Close,
}

pub(crate) type SentFrames = SmallVec<[SentFrame; 2]>;

#[derive(Debug)]
pub(crate) struct SentPacket {
    pub(crate) number: u64,
    pub(crate) at: Instant,
    pub(crate) bytes: u32,
    pub(crate) frames: SentFrames,
    pub(crate) stamp: SendStamp,
    /// Sent while the link was trusted, so that its round trip says something.
    pub(crate) sampled: bool,
    /// Its frames have been given to other links.
    pub(crate) moved: bool,
}

impl SentPacket {
    /// Whether it holds more than bulk data: somebody waits for that, or much depends on it.
    pub(crate) fn is_urgent(&self) -> bool {
        self.frames.iter().any(|frame| match frame {
            SentFrame::Stream(sent) => sent.class == Class::Interactive,
            SentFrame::Ack { .. } => false,
            SentFrame::Control(_)
            | SentFrame::WindowWanted
            | SentFrame::LinkStatus { .. }
            | SentFrame::Close => true,
        })
    }
}

/// Ack-eliciting packets that are neither acknowledged nor lost, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    packets: VecDeque<SentPacket>,
    bytes: u64,
    /// How many of them, from the oldest on, were found overdue.
    overdue: usize,
}

impl Sent {
    pub(crate) fn push(&mut self, packet: SentPacket) {
        debug_assert!(self.packets.back().is_none_or(|last| last.number < packet.number), "numbers rise");
        self.bytes += u64::from(packet.bytes);
        self.packets.push_back(packet);
    }

    /// Removes the oldest packet if its number is at most `largest`.
    pub(crate) fn pop_up_to(&mut self, largest: u64) -> Option<SentPacket> {
        if self.packets.front()?.number > largest {
            return None;
        }
        let packet = self.packets.pop_front()?;
        self.overdue = self.overdue.saturating_sub(1);
        self.bytes -= u64::from(packet.bytes);
        debug_assert!(self.bytes_add_up());
        Some(packet)
    }

    /// Removes all, oldest first.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = SentPacket> + use<> {
        (self.bytes, self.overdue) = (0, 0);
        core::mem::take(&mut self.packets).into_iter()
    }

    /// Bytes in flight: the sum over the packets.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(crate) fn oldest_at(&self) -> Option<Instant> {
        self.packets.front().map(|packet| packet.at)
    }

    /// When the oldest packet left that was not found overdue yet.
    pub(crate) fn oldest_awaited_at(&self) -> Option<Instant> {
        self.packets.get(self.overdue).map(|packet| packet.at)
    }

    /// Takes those that left at `until` or before for overdue, and hands out the ones that were not yet.
    pub(crate) fn find_overdue(&mut self, until: Instant) -> impl Iterator<Item = &mut SentPacket> {
        let first = self.overdue;
        self.overdue += self.packets.range(first..).take_while(|packet| packet.at <= until).count();
        self.packets.range_mut(first..self.overdue)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut SentPacket> {
        self.packets.iter_mut()
    }

    /// Checks the sum on short queues, so that long ones stay cheap.
    fn bytes_add_up(&self) -> bool {
        self.packets.len() > 64 || self.bytes == self.packets.iter().map(|p| u64::from(p.bytes)).sum::<u64>()
    }
}
