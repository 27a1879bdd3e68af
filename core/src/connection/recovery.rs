//! What acknowledgements settle, and where the bytes of a late, silent or dead link go.
//!
//! A link is a FIFO, so a gap in what was acknowledged *is* loss: those frames go out again at once, on whichever
//! link delivers them first. What a link holds whose answer is overdue goes to other links as long as that makes few bytes
//! redundant, should it only have been late. A link that answers nothing becomes suspect, and all it holds moves. The three
//! are the same act: the bytes become unsent again.

use super::Connection;
use crate::error::Violation;
use crate::event::{Change, Event, LinkState};
use crate::id::{Class, LinkId};
use crate::link::sent::{SentFrame, SentFrames, SentPacket};
use crate::link::{Link, Settled};
use crate::policy::Rank;
use crate::time::Instant;
use crate::wire::ack::Ack;

/// Late bytes go to other links as long as they are at most one in so many.
const REINJECTED_SHARE: u64 = 20;
/// The same for those of a link that answers, when the other links have enough to carry as it is.
const REINJECTED_SHARE_BUSY: u64 = 100;
/// Bytes of late data that may do so before that share counts.
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
        let is_outpaced = self.links.iter().any(|other| self.links[index].is_outpaced_by(other));
        self.links[index].finish_settling(now, &settled, (via == ack.link).then_some(ack), is_outpaced);
        if let Some(newest) = settled.newest {
            self.on_progress(now, index, newest.sent_at);
        }
        Ok(())
    }

    /// The link brought something to the peer that was sent at `sent_at`.
    fn on_progress(&mut self, now: Instant, index: usize, sent_at: Instant) {
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
                SentFrame::Stream(sent) => {
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
                // Newer acknowledgements take care of themselves.
                SentFrame::Ack { .. } => {}
            }
        }
        bytes
    }

    /// A link's answer is overdue. It may be late or gone; those who wait for its data should not have to find out: it goes to
    /// other links, oldest first and within bounds, and a late answer still counts.
    pub(super) fn resend_late(&mut self, index: usize) {
        let bytes = self.requeue_sent(index, self.reinjectable_bytes(REINJECTED_SHARE));
        self.on_reinjected(index, bytes);
    }

    /// A link answers, but packets of it are overdue: it has become slower than what it holds allows for. They go to other
    /// links, too: within the same bounds where somebody waits for them, or the other links have nothing else to carry.
    pub(super) fn resend_overdue(&mut self, now: Instant, index: usize) {
        let Some(until) = self.links[index].overdue_until(now) else { return };
        let id = self.links[index].id;
        let can_move = self.has_other_link(id);
        let urgent_bytes = self.reinjectable_bytes(REINJECTED_SHARE);
        let busy = self.streams.has_work(Class::Bulk);
        let bulk_bytes = if busy { self.reinjectable_bytes(REINJECTED_SHARE_BUSY) } else { urgent_bytes };
        let mut sent = core::mem::take(&mut self.links[index].sent);
        let mut bytes = 0;
        for packet in sent.find_overdue(until).filter(|packet| can_move && !packet.moved) {
            if bytes < if packet.is_urgent() { urgent_bytes } else { bulk_bytes } {
                packet.moved = true;
                bytes += self.requeue(id, &packet.frames);
            }
        }
        self.links[index].sent = sent;
        self.on_reinjected(index, bytes);
    }

    /// How much late data may still go to other links, in bytes, if it is to be one byte in `share` at the most.
    fn reinjectable_bytes(&self, share: u64) -> u64 {
        let allowed = self.stats.acked_bytes / share + REINJECTED_FREE_BYTES;
        allowed.saturating_sub(self.reinjected_bytes)
    }

    fn on_reinjected(&mut self, index: usize, bytes: u64) {
        self.reinjected_bytes += bytes;
        self.links[index].stats.reinjected_bytes += bytes;
    }

    /// A link became suspect: all it holds goes to other links, if there are any. A late answer still counts.
    pub(super) fn move_frames(&mut self, index: usize) -> u64 {
        let bytes = self.requeue_sent(index, u64::MAX);
        self.links[index].stats.moved_bytes += bytes;
        let from = self.links[index].id;
        if self.has_other_link(from) {
            self.datagrams.link_unusable(from);
        }
        bytes
    }

    /// Makes unsent what a link has in flight, oldest first and not much more than `max_bytes`, if another link can carry it.
    fn requeue_sent(&mut self, index: usize, max_bytes: u64) -> u64 {
        let from = self.links[index].id;
        if !self.has_other_link(from) {
            return 0;
        }
        let mut sent = core::mem::take(&mut self.links[index].sent);
        let mut bytes = 0;
        for packet in sent.iter_mut().filter(|packet| !packet.moved) {
            if bytes >= max_bytes {
                break;
            }
            packet.moved = true;
            bytes += self.requeue(from, &packet.frames);
        }
        self.links[index].sent = sent;
        bytes
    }

    /// Whether a link other than `from` carries data now; one in reserve does not while `from` is active.
    fn has_other_link(&self, from: LinkId) -> bool {
        let Some(rank) = self.rank_in_use() else { return false };
        let carries = |link: &Link| link.state() == LinkState::Active && link.rank() == Some(rank);
        self.links.iter().any(|link| link.id != from && carries(link))
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

    /// The rank of the links that carry data now: the lowest one that has a usable link.
    pub(super) fn rank_in_use(&self) -> Option<Rank> {
        let active = self.links.iter().filter(|link| link.state() == LinkState::Active);
        active.filter_map(Link::rank).min()
    }
}
