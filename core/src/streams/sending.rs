//! Which bytes go next, and what became of those that went.

use core::ops::Range;

use super::ready::{ReadyQueue, STREAMS_TRIED_MAX};
use super::send::SendState;
use super::{Pieces, Streams, events};
use crate::id::{Class, LinkId, StreamId};
use crate::wire::packet::stream_overhead;

/// Pieces of a stream shorter than this are not cut off to fill up a packet: their header would outweigh them.
const PIECE_MIN_BYTES: u64 = 32;

/// What a link wants to send.
#[derive(Clone, Copy, Debug)]
pub struct Take {
    /// The link.
    pub link: LinkId,
    /// Of which class.
    pub class: Class,
    /// Bytes of the class's backlog to leave to faster links; the bytes taken lie behind them.
    pub skip_bytes: u64,
    /// Room for the whole STREAM frame, header included.
    pub max_bytes: usize,
}

/// A STREAM frame that was sent: what to remember to tell its fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentStream {
    /// The stream.
    pub id: StreamId,
    /// Place of the first byte in the stream.
    pub offset: u64,
    /// Bytes of data.
    pub len: u32,
    /// The stream ends behind them.
    pub fin: bool,
    /// The stream's class.
    pub class: Class,
}

impl SentStream {
    /// The places of the stream, that of the FIN included.
    fn places(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.len) + u64::from(self.fin)
    }
}

impl Streams {
    /// How much of `class` could be sent now, in bytes: unsent or lost, and within the windows of its streams. An unsent
    /// FIN counts as one byte. In O(1). Of the redundant class, which each link sends whole, it is what the link with
    /// the most to send could send.
    pub fn backlog(&self, class: Class) -> u64 {
        match class {
            Class::Bulk => self.queues.bulk.backlog_bytes(),
            Class::Interactive => self.queues.interactive.backlog_bytes(),
            Class::Redundant => {
                self.queues.redundant.values().map(ReadyQueue::backlog_bytes).max().unwrap_or_default()
            }
        }
    }

    /// Whether [`take`](Self::take) without a skip and with enough room finds something of `class` on some link.
    pub fn has_work(&self, class: Class) -> bool {
        self.backlog(class) > 0
    }

    /// Whether `link` has something of a redundant stream to send.
    pub fn has_redundant_work(&self, link: LinkId) -> bool {
        self.queues.redundant.get(&link).is_some_and(|queue| queue.backlog_bytes() > 0)
    }

    /// Takes the bytes of one STREAM frame, and appends them to `pieces`. They count as sent.
    ///
    /// Streams of a class take turns, those with a lower priority number first. With `skip_bytes` the bytes lie further
    /// back: each of the n streams with a backlog is assumed to have 1/n of the skipped bytes. `None` if there are none
    /// so far back, or the room is too small.
    pub fn take(&mut self, take: Take, pieces: &mut Pieces) -> Option<SentStream> {
        let queue = self.queues.get(take.class, take.link)?;
        let share = take.skip_bytes / (queue.len() as u64).max(1);
        let tried_max = if take.skip_bytes == 0 { 1 } else { STREAMS_TRIED_MAX };
        let candidates = queue.first(tried_max);
        candidates.into_iter().find_map(|id| self.take_from(id, &take, share, pieces))
    }

    fn take_from(
        &mut self,
        id: StreamId,
        take: &Take,
        share: u64,
        pieces: &mut Pieces,
    ) -> Option<SentStream> {
        let stream = self.streams.get_mut(&id)?;
        let places = stream.send.pick(take.class, take.link, share)?;
        let end = stream.send.buffer.end();
        let available = places.end.min(end) - places.start;
        let room = take.max_bytes.checked_sub(stream_overhead(id, places.start))? as u64;
        let len = u32::try_from(available.min(room)).ok()?;
        if u64::from(len) < available.min(PIECE_MIN_BYTES) || len == 0 && take.skip_bytes > 0 {
            return None;
        }
        let data = places.start..places.start + u64::from(len);
        let fin = data.end == end && places.end > end;
        let sent = SentStream { id, offset: data.start, len, fin, class: take.class };
        stream.send.buffer.copy_pieces(data, pieces);
        stream.send.sent(take.link, sent.places());
        let priority = stream.priority;
        self.settle(id);
        if let Some(queue) = self.queues.get_mut(take.class, take.link)
            && let Some(place) =
                self.streams.get_mut(&id).and_then(|stream| stream.send.place_mut(take.class, take.link))
        {
            queue.rotate(id, priority, place);
        }
        Some(sent)
    }

    /// Copies what is in flight of `sent`, for another link to send as well: its first stretch, or what of it fits a STREAM
    /// frame of `max_bytes`. `None` if the peer has it all, it is to be sent again anyway, or the room is too small.
    pub fn copy(&mut self, sent: &SentStream, max_bytes: usize, pieces: &mut Pieces) -> Option<SentStream> {
        let buffer = &mut self.streams.get_mut(&sent.id)?.send.buffer;
        let places = buffer.in_flight_of(sent.places()).into_iter().next()?;
        let end = buffer.end();
        let room = max_bytes.checked_sub(stream_overhead(sent.id, places.start))? as u64;
        let len = u32::try_from((places.end.min(end) - places.start).min(room)).ok()?;
        let data = places.start..places.start + u64::from(len);
        let fin = data.end == end && places.end > end;
        if data.is_empty() && !fin {
            return None;
        }
        buffer.copy_pieces(data.clone(), pieces);
        Some(SentStream { offset: data.start, len, fin, ..*sent })
    }

    /// The peer has what was sent. Returns how many bytes it did not have before (a FIN counts as one).
    pub fn on_acked(&mut self, _link: LinkId, sent: &SentStream) -> u64 {
        let Some(stream) = self.streams.get_mut(&sent.id) else { return 0 };
        let was_delivered = stream.send.state == SendState::Delivered;
        let newly = stream.send.acked(sent.places());
        if newly == 0 {
            return 0;
        }
        if stream.send.state == SendState::Delivered && !was_delivered {
            self.events.add(sent.id, stream, events::FINISHED);
        }
        self.settle(sent.id);
        self.wake_writer(sent.id);
        newly
    }

    /// What was sent on `link` did not arrive, or its link is suspect: what is not acknowledged goes again, ahead of
    /// later bytes. Returns how many bytes that are (a FIN counts as one).
    pub fn on_lost(&mut self, link: LinkId, sent: &SentStream) -> u64 {
        let Some(stream) = self.streams.get_mut(&sent.id) else { return 0 };
        let lost = stream.send.lost(stream.class, link, sent.places());
        self.settle(sent.id);
        lost
    }

    /// A link joined: it gets its own cursor in every redundant stream.
    pub fn link_added(&mut self, link: LinkId) {
        if !self.links.insert(link) {
            return;
        }
        for (id, stream) in self.streams.iter_mut().filter(|(_, stream)| stream.class == Class::Redundant) {
            stream.send.link_added(link);
            stream.settle_send(*id, &mut self.queues, &mut self.send_budget);
        }
    }

    /// A link is gone. What only it had to send of redundant streams waits for the next one; bulk and interactive
    /// bytes that were in flight on it come back by [`on_lost`](Self::on_lost).
    pub fn link_removed(&mut self, link: LinkId) {
        self.links.remove(&link);
        self.queues.redundant.remove(&link);
        self.streams.values_mut().for_each(|stream| stream.send.link_removed(link));
    }

    /// Sets the send buffer that the links can use, over all streams: twice what they deliver in the time that the
    /// slowest of them takes. Bounded by the configuration, and never less than a minimum for each stream.
    pub fn set_send_buffer(&mut self, bytes: u64) {
        self.send_tuned_bytes = bytes;
    }
}
