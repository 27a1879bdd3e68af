//! What acknowledgements settle, and where the bytes of a silent or dead link go.
//!
//! A link is a FIFO, so a gap in what was acknowledged *is* loss: those frames go out again at once, on whichever
//! link delivers them first. A link that answers nothing becomes suspect; all it holds moves to other links. Both are
//! the same act: the bytes become unsent again.

use super::Connection;
use super::plan::Field;
use crate::error::Violation;
use crate::event::{Change, Event, LinkState};
use crate::id::LinkId;
use crate::link::sent::{SentFrame, SentFrames, SentPacket};
use crate::link::{Link, Settled};
use crate::policy::Rank;
use crate::time::{Duration, Instant};
use crate::wire::ack::Ack;
use crate::wire::packet::Packet;

/// Late bytes may be sent once more as long as they are at most one in so many.
const REINJECTED_SHARE: u64 = 20;
/// Bytes of late data that may be sent once more before that share counts.
const REINJECTED_FREE_BYTES: u64 = 64 << 10;

impl Connection {
    /// Settles what an acknowledgement names. It came over `via`.
    pub(super) fn on_ack(&mut self, now: Instant, via: LinkId, ack: &Ack) -> Result<(), Violation> {
        // A link that has left is settled already.
        let Some(index) = self.index_of(ack.link) else { return Ok(()) };
        let link = &mut self.links[index];
        let (largest, next) = (ack.largest, link.next_number());
        if largest >= next {
            return Err(Violation::AckOfUnsent { link: ack.link, largest, next });
        }
        link.largest_acked = link.largest_acked.max(Some(largest));
        let mut settled = Settled::default();
        while let Some(packet) = self.links[index].sent.pop_up_to(largest) {
            if ack.ranges().any(|range| range.contains(&packet.number)) {
                self.links[index].settle_acked(now, &packet, &mut settled);
                self.on_packet_acked(ack.link, packet);
            } else {
                self.links[index].stats.lost_packets += 1;
                self.on_packet_lost(ack.link, packet);
            }
        }
        let delay = (via == ack.link).then(|| Duration::from_micros(ack.delay_us));
        self.links[index].finish_settling(now, &settled, delay);
        if let Some((sent_at, _)) = settled.newest {
            self.on_progress(now, index, sent_at);
        }
        Ok(())
    }

    /// The link brought something to the peer that was sent at `sent_at`.
    fn on_progress(&mut self, now: Instant, index: usize, sent_at: Instant) {
        self.late_link = self.late_link.filter(|&late| late != self.links[index].id);
        let link = &mut self.links[index];
        if let Some(suspect) = link.on_answered(now, sent_at) {
            let (id, name) = (link.id, link.info.name.clone());
            let why = Change::Answered { suspect };
            self.event(Event::Link { id, name, from: LinkState::Suspect, to: LinkState::Active, why });
            self.on_link_usable(now);
        } else if link.state() == LinkState::Active {
            self.usable_at = now;
            self.refresh_base(now, index);
        }
    }

    /// Looks for a longer base round trip, one link at a time.
    fn refresh_base(&mut self, now: Instant, index: usize) {
        if self.links[index].rtt.needs_refresh(now) && !self.links.iter().any(|link| link.rtt.is_refreshing())
        {
            self.links[index].rtt.begin_refresh(now);
        }
    }

    fn on_packet_acked(&mut self, link: LinkId, packet: SentPacket) {
        for frame in packet.frames {
            match frame {
                SentFrame::Stream(sent) | SentFrame::StreamCopy(sent) => {
                    self.stats.acked_bytes += u64::from(sent.len);
                    self.streams.on_acked(link, &sent);
                }
                SentFrame::Control(key) => self.streams.control_acked(&key),
                SentFrame::Ack { link, highest } => {
                    if let Some(index) = self.index_of(link) {
                        self.links[index].acks.on_ack_acked(highest);
                    }
                }
                SentFrame::Close => self.closing.on_acked(),
                SentFrame::WindowWanted | SentFrame::LinkStatus { .. } => {}
            }
        }
    }

    fn on_packet_lost(&mut self, link: LinkId, packet: SentPacket) {
        if !packet.moved {
            self.requeue(link, &packet.frames);
        }
    }

    /// Makes the frames unsent again. Returns the stream bytes among them.
    fn requeue(&mut self, link: LinkId, frames: &SentFrames) -> u64 {
        let mut bytes = 0;
        for frame in frames {
            match frame {
                SentFrame::Stream(sent) => {
                    bytes += u64::from(sent.len);
                    self.streams.on_lost(link, sent);
                }
                SentFrame::Control(key) => self.streams.control_lost(key),
                SentFrame::WindowWanted => self.control.on_window_lost(),
                SentFrame::LinkStatus { link, sequence } => self.control.on_status_lost(*link, *sequence),
                SentFrame::Close => self.closing.on_lost(link),
                // The original of a copy, and newer acknowledgements, take care of themselves.
                SentFrame::StreamCopy(_) | SentFrame::Ack { .. } => {}
            }
        }
        bytes
    }

    /// A link became suspect: all it holds goes to other links, if there are any. A late answer still counts.
    pub(super) fn move_frames(&mut self, index: usize) -> u64 {
        let from = self.links[index].id;
        let elsewhere = self
            .links
            .iter()
            .any(|link| link.id != from && link.state() == LinkState::Active && link.rank().is_some());
        if !elsewhere {
            return 0;
        }
        let mut sent = core::mem::take(&mut self.links[index].sent);
        let mut bytes = 0;
        for packet in sent.iter_mut().filter(|packet| !packet.moved) {
            packet.moved = true;
            bytes += self.requeue(from, &packet.frames);
        }
        let link = &mut self.links[index];
        link.sent = sent;
        link.stats.moved_bytes += bytes;
        self.datagrams.link_unusable(from);
        bytes
    }

    /// A link has left: what it held is unsent again.
    pub(super) fn release_frames(&mut self, index: usize) {
        let id = self.links[index].id;
        let mut bytes = 0;
        for packet in self.links[index].sent.drain() {
            if !packet.moved {
                bytes += self.requeue(id, &packet.frames);
            }
        }
        self.links[index].stats.moved_bytes += bytes;
    }

    /// Whether `id` may send late bytes of another link once more: after an unanswered probe, one packet each time.
    /// It is the best link besides the late one.
    pub(super) fn may_reinject(&self, id: LinkId, field: &Field) -> bool {
        let within = self.reinjected_bytes.saturating_mul(REINJECTED_SHARE)
            <= self.stats.acked_bytes.saturating_add(REINJECTED_FREE_BYTES * REINJECTED_SHARE);
        let Some(late) = self.late_link.filter(|_| within) else { return false };
        let others = field.candidates.iter().filter(|candidate| candidate.id != late);
        others.min_by_key(|candidate| (candidate.arrival(0), candidate.id)).is_some_and(|best| best.id == id)
    }

    pub(super) fn push_reinjected(&mut self, index: usize, packet: &mut Packet, frames: &mut SentFrames) {
        self.late_link = None;
        let mut pieces = smallvec::SmallVec::new();
        let id = self.links[index].id;
        let Some(sent) = self.streams.duplicate_oldest(id, packet.remaining(), &mut pieces) else { return };
        packet.push_stream_header(sent.id, sent.offset, sent.len as usize, sent.fin);
        pieces.into_iter().for_each(|piece| {
            packet.push_data(piece);
        });
        self.links[index].stats.reinjected_bytes += u64::from(sent.len);
        self.reinjected_bytes += u64::from(sent.len);
        frames.push(SentFrame::StreamCopy(sent));
    }

    /// The rank of the links that carry data now: the lowest one that has a usable link.
    pub(super) fn rank_in_use(&self) -> Option<Rank> {
        let active = self.links.iter().filter(|link| link.state() == LinkState::Active);
        active.filter_map(Link::rank).min()
    }
}
