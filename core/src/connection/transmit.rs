//! What goes into the next packet of a link.
//!
//! A packet is planned first, without changing anything (`plan.rs`), and then built. The same plan answers whether an idle
//! link must be woken, so the two cannot disagree.

use super::Connection;
use super::plan::{Field, Plan, is_foreign_ack_due};
use crate::datagrams::TakeDatagram;
use crate::event::LinkState;
use crate::id::{Class, LinkId};
use crate::link::Link;
use crate::link::sent::{SentFrame, SentFrames};
use crate::link::way_back::arrival_us;
use crate::ordered::{self, OrderedFragment, TakeOrdered};
use crate::streams::{Control as StreamControl, Pieces, SentStream, Take};
use crate::time::{Duration, Instant};
use crate::wire::packet::Packet;

/// Bytes written since all links were looked at after which they are again: what fits a small packet.
const UNLOOKED_MAX_BYTES: usize = 1200;
/// Time after which a link that was woken for data is no longer waited for: its medium takes no packet now. A woken task runs
/// sooner, and a packet takes longer on most links.
const FETCH_TIME: Duration = Duration::from_millis(5);
/// A stream frame with less room than this is not worth its header.
pub(super) const STREAM_ROOM_MIN: usize = 32;

/// What [`Connection::poll_transmit`] answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transmit {
    /// The packet is to be sealed and sent on the link.
    Packet,
    /// There is nothing for this link now; [`Connection::poll_wake`] will name it.
    Idle,
    /// The link has left the bond: end its medium.
    LinkClosed,
}

impl Connection {
    /// Builds the next packet for `id`, which can take one now.
    pub fn poll_transmit(&mut self, now: Instant, id: LinkId, packet: &mut Packet) -> Transmit {
        let Some(index) = self.index_of(id) else { return Transmit::LinkClosed };
        if self.closing.is_over() {
            return Transmit::LinkClosed;
        }
        if self.links[index].state() == LinkState::Closed {
            return self.build_farewell(now, index, packet);
        }
        let link = &mut self.links[index];
        link.comes_for_data_by = None;
        if link.idle_since_epoch.is_none() {
            // A busy link has no timer for this.
            link.acks.on_timeout(now);
        }
        if core::mem::take(&mut self.unlooked_bytes) > 0 {
            self.epoch += 1;
        }
        let field = self.field(now);
        let plan = self.plan(now, &self.links[index], &field);
        if plan.is_nothing() || !self.build(now, index, &plan, &field, packet) {
            self.go_idle(now, index, &plan, &field);
            return Transmit::Idle;
        }
        self.links[index].idle_since_epoch = None;
        // What this link now has in flight may make another the better choice.
        self.epoch += 1;
        Transmit::Packet
    }

    /// A link that was told [`Transmit::Idle`] and now has something to send.
    pub fn poll_wake(&mut self, now: Instant) -> Option<LinkId> {
        self.stop_waiting_for_fetch(now);
        let epoch = self.epoch;
        let stale = |link: &Link| link.idle_since_epoch.is_some_and(|at| at < epoch);
        if !self.links.iter().any(stale) {
            return None;
        }
        let field = self.has_shared_work().then(|| self.field(now));
        for index in 0..self.links.len() {
            if !stale(&self.links[index]) {
                continue;
            }
            let link = &self.links[index];
            let over = self.closing.is_over() || link.state() == LinkState::Closed;
            let plan = match &field {
                _ if over => Plan::default(),
                Some(field) => self.plan(now, link, field),
                None => self.plan_own(now, link),
            };
            if over || !plan.is_nothing() {
                let link = &mut self.links[index];
                link.idle_since_epoch = None;
                link.comes_for_data_by = plan.has_data().then(|| now + FETCH_TIME);
                return Some(link.id);
            }
            self.links[index].idle_since_epoch = Some(epoch);
            self.note_think_again(now, index, &plan, field.as_ref());
        }
        None
    }

    /// `bytes` more wait to be sent. While a link is on its way to fetch such, that does not change which one it is, and
    /// the links need not all be looked at for each small write; not, that is, until [`FETCH_TIME`] has passed.
    pub(super) fn on_more_to_send(&mut self, bytes: usize) {
        self.unlooked_bytes = self.unlooked_bytes.saturating_add(bytes);
        let nobody_comes = self.links.iter().all(|link| link.comes_for_data_by.is_none());
        if self.unlooked_bytes >= UNLOOKED_MAX_BYTES || nobody_comes {
            self.unlooked_bytes = 0;
            self.epoch += 1;
        }
    }

    /// When to stop waiting for a link that was woken for data. Only what was written since, and nobody was woken for, needs that.
    pub(super) fn fetch_deadline(&self) -> Option<Instant> {
        let first = self.links.iter().filter_map(|link| link.comes_for_data_by).min();
        first.filter(|_| self.unlooked_bytes > 0)
    }

    /// Looks at all links for what was left to one that was to come for it by now and has not.
    pub(super) fn stop_waiting_for_fetch(&mut self, now: Instant) {
        if self.fetch_deadline().is_none_or(|at| at > now) {
            return;
        }
        self.unlooked_bytes = 0;
        self.epoch += 1;
        for link in &mut self.links {
            link.comes_for_data_by = link.comes_for_data_by.filter(|by| *by > now);
        }
    }

    fn go_idle(&mut self, now: Instant, index: usize, plan: &Plan, field: &Field) {
        let link = &mut self.links[index];
        link.idle_since_epoch = Some(self.epoch);
        if link.has_room(field.bond) {
            link.on_app_limited();
        }
        self.note_think_again(now, index, plan, Some(field));
    }

    /// Keeps in mind when an idle link has to look again. Without a `field` there is nothing that it leaves to others.
    fn note_think_again(&mut self, now: Instant, index: usize, plan: &Plan, field: Option<&Field>) {
        let control = field.and_then(|field| self.time_to_think_of_control(self.links[index].id, field));
        if let Some(after) = plan.think_again.into_iter().chain(control).min() {
            let at = now + after;
            self.think_again = Some(self.think_again.map_or(at, |other| other.min(at)));
        }
    }

    /// Puts the planned packet together. Returns false if nothing came of it.
    fn build(&mut self, now: Instant, index: usize, plan: &Plan, field: &Field, packet: &mut Packet) -> bool {
        let mut frames = SentFrames::new();
        let bytes = self.links[index].packet_bytes(field.bond);
        self.begin(index, bytes, packet);
        let acked = self.push_acks(now, index, plan, packet, &mut frames);
        if plan.close {
            self.push_close(now, index, packet, &mut frames);
        }
        if plan.control {
            self.push_control(field, packet, &mut frames);
        }
        let data_before = packet.len();
        self.push_data(now, index, plan, field, packet, &mut frames);
        let data = packet.len() - data_before;
        if plan.probe && !packet.is_ack_eliciting() {
            packet.push_ping();
            self.links[index].stats.probes += 1;
        }
        if packet.is_empty() {
            return false;
        }
        let link = &mut self.links[index];
        if acked && link.acks.on_sent(!packet.is_ack_eliciting()) {
            packet.push_ping();
        }
        link.stats.sent_data_bytes += data as u64;
        let (sealed, eliciting) = (packet.len() + link.info.tag_bytes, packet.is_ack_eliciting());
        link.on_sent(now, sealed, eliciting, frames);
        true
    }

    fn begin(&mut self, index: usize, bytes: usize, packet: &mut Packet) {
        let link = &mut self.links[index];
        let (number, phase) = link.next_packet();
        packet.begin(link.id, number, phase, link.largest_acked, bytes.saturating_sub(link.info.tag_bytes));
    }

    /// Acknowledges this link whenever a packet goes out anyway and there is something to tell. Returns whether it
    /// did.
    fn push_acks(
        &mut self,
        now: Instant,
        index: usize,
        plan: &Plan,
        packet: &mut Packet,
        frames: &mut SentFrames,
    ) -> bool {
        let own = &self.links[index];
        let acked = own.acks.is_owed() && push_ack(now, own, packet, frames);
        if plan.foreign_acks {
            let own = own.id;
            for link in self.links.iter_mut().filter(|link| link.id != own && is_foreign_ack_due(link)) {
                if push_ack(now, link, packet, frames) {
                    link.acks.on_told_elsewhere();
                }
            }
        }
        acked
    }

    fn push_control(&mut self, field: &Field, packet: &mut Packet, frames: &mut SentFrames) {
        while let Some((id, sequence)) = self.control.next_status() {
            let policy = self.index_of(id).map(|index| *self.links[index].policy()).unwrap_or_default();
            if !packet.push_link_status(id, sequence, &policy) {
                break;
            }
            self.control.on_status_sent(id);
            frames.push(SentFrame::LinkStatus { link: id, sequence });
        }
        if let Some(wanted) = self.window_to_tell(field)
            && packet.push_window_wanted(wanted)
        {
            self.control.on_window_told(wanted);
            frames.push(SentFrame::WindowWanted);
        }
        while let Some(control) = self.streams.next_control() {
            if !push_stream_control(&control, packet) {
                self.streams.control_lost(&control.key());
                break;
            }
            frames.push(SentFrame::Control(control.key()));
        }
    }

    fn push_data(
        &mut self,
        now: Instant,
        index: usize,
        plan: &Plan,
        field: &Field,
        packet: &mut Packet,
        frames: &mut SentFrames,
    ) {
        let link = self.links[index].id;
        if plan.datagrams {
            self.push_datagrams(now, link, field, packet);
        }
        if plan.ordered_fresh {
            self.push_ordered(now, index, true, None, packet);
        }
        if plan.interactive {
            let take = Take { link, class: Class::Interactive, skip_bytes: 0, max_bytes: 0 };
            let before = frames.len();
            if self.push_streams(take, packet, frames) {
                self.interactive_at = Some(now);
                self.want_copies(now, link, &field.candidates, frames, before);
            }
        }
        if plan.copies {
            self.push_copies(link, packet, frames);
        }
        if plan.redundant {
            self.push_streams(
                Take { link, class: Class::Redundant, skip_bytes: 0, max_bytes: 0 },
                packet,
                frames,
            );
        }
        if plan.bulk.is_some() && plan.ordered.is_some() {
            self.bulk_first = !self.bulk_first;
        }
        if self.bulk_first {
            self.push_bulk(now, index, plan, field, packet, frames);
        }
        if let Some(ahead) = plan.ordered {
            self.push_ordered(now, index, false, Some(ahead), packet);
            self.ordered.set_queue_bytes(field.ordered_queue_bytes());
        }
        if !self.bulk_first {
            self.push_bulk(now, index, plan, field, packet, frames);
        }
    }

    fn push_bulk(
        &mut self,
        now: Instant,
        index: usize,
        plan: &Plan,
        field: &Field,
        packet: &mut Packet,
        frames: &mut SentFrames,
    ) {
        let Some(skip_bytes) = plan.bulk else { return };
        let take = Take { link: self.links[index].id, class: Class::Bulk, skip_bytes, max_bytes: 0 };
        let before = packet.len();
        if self.push_streams(take, packet, frames) {
            self.links[index].share_bytes += (packet.len() - before) as u64;
            self.copies.on_bulk(now);
            self.streams.set_send_buffer(self.window_wanted(field));
        }
    }

    /// Ordered datagrams, as many as fit; of flows that had nothing waiting only the first, as the plan has it.
    fn push_ordered(
        &mut self,
        now: Instant,
        index: usize,
        fresh: bool,
        ahead: Option<u64>,
        packet: &mut Packet,
    ) {
        let before = packet.len();
        loop {
            let take = TakeOrdered {
                fresh,
                ahead,
                max_bytes: packet.remaining(),
                may_split: !packet.is_ack_eliciting(),
            };
            let Some(fragment) = self.ordered.take(take) else { break };
            let OrderedFragment { flow, number, offset, total, data } = fragment;
            if ordered::is_prompt(flow) {
                self.interactive_at = Some(now);
            }
            let pushed = packet.push_ordered_datagram(flow, number, offset, total, data);
            debug_assert!(pushed, "a fragment fits the room it was taken for");
            if fresh {
                break;
            }
        }
        let (link, bytes) = (&mut self.links[index], (packet.len() - before) as u64);
        link.share_bytes += bytes;
        link.ordered_bytes += bytes;
    }

    /// Fills the packet with streams of one class. Returns whether any byte went in.
    fn push_streams(&mut self, mut take: Take, packet: &mut Packet, frames: &mut SentFrames) -> bool {
        let mut any = false;
        while packet.remaining() >= STREAM_ROOM_MIN {
            let mut pieces = Pieces::new();
            take.max_bytes = packet.remaining();
            let Some(sent) = self.streams.take(take, &mut pieces) else { break };
            push_stream(sent, pieces, packet, frames);
            any = true;
        }
        any
    }

    fn push_datagrams(&mut self, now: Instant, link: LinkId, field: &Field, packet: &mut Packet) {
        loop {
            let take = TakeDatagram {
                link,
                // As in the plan: were the two not to agree, nobody would send it.
                takes_new_flows: field.is_first_for(link, self.datagrams.next_bytes()),
                max_bytes: packet.remaining(),
                may_split: !packet.is_ack_eliciting(),
            };
            let Some(fragment) = self.datagrams.take(now, take) else { break };
            let pushed = packet.push_datagram(
                fragment.flow,
                fragment.sequence,
                fragment.offset,
                fragment.total,
                fragment.data,
            );
            debug_assert!(pushed, "a fragment fits the room it was taken for");
        }
    }

    /// The last words of a link that leaves while its medium is there.
    fn build_farewell(&mut self, now: Instant, index: usize, packet: &mut Packet) -> Transmit {
        let Some(code) = self.links[index].farewell.take() else {
            self.links.remove(index);
            return Transmit::LinkClosed;
        };
        self.begin(index, crate::limits::MTU_MIN_BYTES, packet);
        let link = &mut self.links[index];
        packet.push_link_close(link.id, code);
        link.on_sent(now, packet.len() + link.info.tag_bytes, false, SentFrames::new());
        Transmit::Packet
    }
}

/// Puts a STREAM frame into the packet that was taken for the room it has.
pub(super) fn push_stream(sent: SentStream, pieces: Pieces, packet: &mut Packet, frames: &mut SentFrames) {
    let fits = packet.push_stream_header(sent.id, sent.offset, sent.len as usize, sent.fin);
    debug_assert!(fits, "a taken piece fits the room it was taken for");
    pieces.into_iter().for_each(|piece| {
        packet.push_data(piece);
    });
    frames.push(SentFrame::Stream(sent));
}

fn push_ack(now: Instant, link: &Link, packet: &mut Packet, frames: &mut SentFrames) -> bool {
    let Some((received, arrived_at)) = link.acks.report() else { return false };
    let Some(highest) = link.acks.highest() else { return false };
    let delay_us = u64::try_from((now - arrived_at).as_micros()).unwrap_or(u64::MAX);
    let fits = packet.push_ack(link.id, delay_us, arrival_us(arrived_at), received);
    if fits {
        frames.push(SentFrame::Ack { link: link.id, highest });
    }
    fits
}

fn push_stream_control(control: &StreamControl, packet: &mut Packet) -> bool {
    match control {
        StreamControl::OpenStream { id, class, priority, label } => {
            packet.push_open_stream(*id, *class, *priority, label)
        }
        StreamControl::MaxStreamData { id, maximum } => packet.push_max_stream_data(*id, *maximum),
        StreamControl::MaxStreams { count } => packet.push_max_streams(*count),
        StreamControl::ResetStream { id, code, final_size } => {
            packet.push_reset_stream(*id, *code, *final_size)
        }
        StreamControl::StopSending { id, code } => packet.push_stop_sending(*id, *code),
    }
}
