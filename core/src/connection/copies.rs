//! Second copies of interactive data.
//!
//! A link can stall without a sign: a loss that its medium repairs, or congestion control that empties its path for a
//! moment to measure it (BBR does so for 200 ms every ten seconds). That shows when an answer is overdue, and by then who
//! sits at the keys has felt it. Keys are few bytes. So while bulk data fills the links, what an interactive stream sends
//! also goes over the second best link, and the first copy to arrive counts.

use alloc::collections::VecDeque;

use super::Connection;
use super::plan::Field;
use super::transmit::{STREAM_ROOM_MIN, push_stream};
use crate::id::LinkId;
use crate::limits;
use crate::link::sent::{SentFrame, SentFrames};
use crate::scheduler::{self, Candidate};
use crate::streams::{Pieces, SentStream};
use crate::time::{Duration, Instant};
use crate::wire::packet::Packet;

/// Copies are at most one byte in so many.
const COPIED_SHARE: u64 = 100;
/// Bytes of copies before that share counts.
const COPIED_FREE_BYTES: u64 = 64 << 10;
/// Time after the last bulk data during which links may be full of it. When a link stalls, all that may be sent soon is in
/// flight, and nothing new goes out just when a copy is needed most.
const BULK_TIME: Duration = Duration::from_secs(1);

/// Interactive data that one link sent and another is to send as well.
#[derive(Debug)]
struct Copy {
    first: LinkId,
    /// Chosen when the first went out: a choice that changed with time would have to wake links when it does.
    second: LinkId,
    sent: SentStream,
}

/// The copies that are to be sent, oldest first.
#[derive(Debug, Default)]
pub(super) struct Copies {
    waiting: VecDeque<Copy>,
    sent_bytes: u64,
    bulk_at: Option<Instant>,
}

impl Copies {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bulk data went out.
    pub(super) fn on_bulk(&mut self, now: Instant) {
        self.bulk_at = Some(now);
    }

    fn is_bulk_about(&self, now: Instant) -> bool {
        self.bulk_at.is_some_and(|at| now - at < BULK_TIME)
    }

    /// Whether `link` has copies to send.
    pub(super) fn are_for(&self, link: LinkId) -> bool {
        self.waiting.iter().any(|copy| copy.second == link)
    }

    /// `link` has left.
    pub(super) fn forget(&mut self, link: LinkId) {
        self.waiting.retain(|copy| copy.second != link);
    }

    fn add(&mut self, copy: Copy) {
        if self.waiting.len() >= limits::COPIES_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(copy);
    }

    fn next(&mut self, link: LinkId) -> Option<Copy> {
        let at = self.waiting.iter().position(|copy| copy.second == link)?;
        self.waiting.remove(at)
    }
}

impl Connection {
    /// Whether interactive data goes over this link and one more anyway, so that it need not wait for the better one of the two: that
    /// may be the one which stalls, and then takes no packet either.
    pub(super) fn is_one_of_two_copies(
        &self,
        now: Instant,
        me: &Candidate,
        bytes: u64,
        field: &Field,
    ) -> bool {
        let better = |other: &&Candidate| other.id != me.id && other.is_before(me, bytes);
        self.copies.is_bulk_about(now)
            && self.may_copy(bytes)
            && field.candidates.iter().filter(better).take(2).count() < 2
    }

    /// Whether so many bytes more may be sent twice.
    fn may_copy(&self, bytes: u64) -> bool {
        let allowed = self.stats.acked_bytes / COPIED_SHARE + COPIED_FREE_BYTES;
        self.copies.sent_bytes.saturating_add(bytes) <= allowed
    }

    /// Interactive data went out on `first` in `frames`, from the `from`th on. Without bulk data no link has a queue that could
    /// stall it, and a copy would be much beside what there is.
    pub(super) fn want_copies(
        &mut self,
        now: Instant,
        first: LinkId,
        candidates: &[Candidate],
        frames: &SentFrames,
        from: usize,
    ) {
        let others = candidates.iter().filter(|candidate| candidate.id != first);
        let Some(second) = scheduler::earliest(others, 0).map(|candidate| candidate.id) else { return };
        if !self.copies.is_bulk_about(now) {
            return;
        }
        for frame in &frames[from..] {
            if let SentFrame::Stream(sent) = frame {
                self.copies.add(Copy { first, second, sent: *sent });
            }
        }
    }

    /// Fills the packet with copies that are for `link`. Their share is their own: late data must not use it up, since then
    /// they are needed most.
    pub(super) fn push_copies(&mut self, link: LinkId, packet: &mut Packet, frames: &mut SentFrames) {
        while packet.remaining() >= STREAM_ROOM_MIN
            && let Some(Copy { first, sent, .. }) = self.copies.next(link)
        {
            if !self.may_copy(sent.len.into()) {
                continue;
            }
            let mut pieces = Pieces::new();
            // Nothing is left to copy if the peer has it by now, or it is to be sent again anyway.
            let Some(copy) = self.streams.copy(&sent, packet.remaining(), &mut pieces) else { continue };
            push_stream(copy, pieces, packet, frames);
            self.copies.sent_bytes += u64::from(copy.len);
            if let Some(index) = self.index_of(first) {
                self.links[index].stats.reinjected_bytes += u64::from(copy.len);
            }
        }
    }
}
