//! What arrives: packets are checked, their frames handed to whom they concern.

use bytes::Bytes;

use super::Connection;
use crate::error::{CloseReason, DownReason, Violation};
use crate::event::{Change, Event, LinkState};
use crate::id::LinkId;
use crate::ordered::OrderedFragment;
use crate::time::Instant;
use crate::wire::frame::{Frame, frames};

impl Connection {
    /// Takes the opened payload of packet `number` of `link`. A link that has left is ignored.
    ///
    /// # Errors
    /// The peer broke the protocol. The link has left the bond; the caller ends its medium.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        link: LinkId,
        number: u64,
        payload: Bytes,
    ) -> Result<(), Violation> {
        let Some(index) = self.index_of(link) else { return Ok(()) };
        if self.links[index].state() == LinkState::Closed || self.closing.is_over() {
            return Ok(());
        }
        let result = self.process_packet(now, index, number, payload);
        if let Err(violation) = &result {
            self.stats.violations += 1;
            self.close_link_here(now, link, DownReason::Violation(violation.clone()));
        }
        self.epoch += 1;
        result
    }

    fn process_packet(
        &mut self,
        now: Instant,
        index: usize,
        number: u64,
        payload: Bytes,
    ) -> Result<(), Violation> {
        let link = &mut self.links[index];
        if let Some(highest) = link.acks.highest().filter(|&highest| number <= highest) {
            return Err(Violation::PacketNumber { number, highest });
        }
        link.on_heard(now);
        link.stats.received_packets += 1;
        link.stats.received_bytes += payload.len() as u64;
        let (id, was) = (link.id, link.state());
        if link.on_first_packet(now) {
            let name = link.info.name.clone();
            self.event(Event::Link { id, name, from: was, to: LinkState::Active, why: Change::FirstPacket });
            self.on_link_active(now, id);
        }
        let mut eliciting = false;
        for frame in frames(payload) {
            let frame = frame?;
            eliciting |= frame.is_ack_eliciting();
            self.process_frame(now, id, frame)?;
        }
        // A frame may have taken the link out of the bond.
        if let Some(index) = self.index_of(id) {
            let link = &mut self.links[index];
            let base = link.rtt.base();
            link.acks.on_packet(now, number, eliciting, base);
        }
        Ok(())
    }

    fn process_frame(&mut self, now: Instant, via: LinkId, frame: Frame) -> Result<(), Violation> {
        match frame {
            Frame::Padding { .. } | Frame::Ping => {}
            Frame::Ack(ack) => self.on_ack(now, via, &ack)?,
            Frame::Close { code, mac, reason } => self.on_close(now, code, &mac, reason)?,
            // After the end only acknowledgements and CLOSE count.
            _ if !self.closing.is_open() => {}
            Frame::Stream { id, offset, fin, data } => {
                let bytes = data.len() as u64;
                let received = self.streams.on_stream(id, offset, data, fin)?;
                if let Some(index) = self.index_of(via) {
                    let stats = &mut self.links[index].stats;
                    stats.received_data_bytes += bytes;
                    stats.duplicate_data_bytes += received.duplicate_bytes;
                }
                if received.duplicate_bytes > 0 {
                    self.on_sent_again(now, via);
                }
            }
            Frame::OpenStream { id, class, priority, label } => {
                self.streams.on_open(id, class, priority, label)?;
            }
            Frame::ResetStream { id, code, final_size } => {
                self.streams.on_reset_stream(id, code, final_size)?;
            }
            Frame::StopSending { id, code } => self.streams.on_stop_sending(id, code)?,
            Frame::MaxStreamData { id, maximum } => self.streams.on_max_stream_data(id, maximum)?,
            Frame::MaxStreams { count } => self.streams.on_max_streams(count),
            Frame::WindowWanted { bytes } => self.streams.on_window_wanted(bytes),
            Frame::Datagram { flow, sequence, offset, total, data } => {
                if let Some(index) = self.index_of(via) {
                    self.links[index].stats.received_data_bytes += data.len() as u64;
                }
                self.datagrams.on_fragment(now, flow, sequence, offset, total, data);
            }
            Frame::OrderedDatagram { flow, number, offset, total, data } => {
                if let Some(index) = self.index_of(via) {
                    self.links[index].stats.received_data_bytes += data.len() as u64;
                }
                self.ordered.on_fragment(now, OrderedFragment { flow, number, offset, total, data });
            }
            Frame::LinkStatus { link, sequence, policy } => {
                if let Some(index) = self.index_of(link) {
                    self.links[index].on_peer_policy(now, sequence, policy);
                    self.on_links_changed();
                }
            }
            Frame::LinkClose { link, code } => self.close_link_here(now, link, DownReason::ByPeer(code)),
        }
        Ok(())
    }

    /// Something came over `via` that had come before. Acknowledgements may have got lost with the link that was to bring them,
    /// and this end has no other way to notice: nobody answers an acknowledgement.
    fn on_sent_again(&mut self, now: Instant, via: LinkId) {
        for link in self.links.iter_mut().filter(|link| link.id != via) {
            let base = link.rtt.base();
            link.acks.on_sent_again(now, base);
        }
    }

    fn on_close(
        &mut self,
        now: Instant,
        code: u64,
        mac: &[u8; 16],
        reason: alloc::string::String,
    ) -> Result<(), Violation> {
        let peer = self.role.peer();
        let genuine =
            self.keys.as_ref().is_some_and(|keys| keys.verify_close_mac(peer, code, reason.as_bytes(), mac));
        if !genuine {
            return Err(Violation::CloseMac);
        }
        self.on_closed_by_peer(now, CloseReason::Peer { code, reason });
        Ok(())
    }
}
