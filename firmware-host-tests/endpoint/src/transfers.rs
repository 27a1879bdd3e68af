use bondwire_frame::limits::HELLO_MAX_BYTES;
use bondwire_frame::transfer::{self, LENGTH_BYTES, Writer};
use bondwire_frame::{Config, FRAME_OVERHEAD_BYTES, FrameSink};

use crate::Framing;
use crate::limits::USB_KEEP_ALIVE;

/// A pair of USB bulk endpoints (PROTOCOL.md, section 12.3).
///
/// [`Port::handle_bytes`](crate::Port::handle_bytes) takes one USB packet at a time, of any length from none to the endpoint's
/// packet size: a short one ends a transfer. Of [`Port::outgoing`](crate::Port::outgoing) the hardware sends packets of the
/// endpoint's size, and a shorter one at last. There is always one at last.
#[derive(Debug)]
pub struct Transfers<'b> {
    packet_bytes: usize,
    read: &'b mut [u8],
    read_len: usize,
    /// Frames up to here were handed out; none while the transfer is still coming.
    cut_at: Option<usize>,
    /// The transfer is longer than this end said that it reads: nothing of it can be used.
    skipping: bool,
    outgoing: &'b mut [u8],
    start: usize,
    end: usize,
    bad_transfers: u64,
}

impl<'b> Transfers<'b> {
    /// For endpoints with packets of `packet_bytes`: 64 at full speed, 512 at high speed. `read` is the memory for one
    /// transfer from the host, `outgoing` for one to it. Both should be a few times as long as a packet of the bond, so that
    /// several go together: 2048 bytes are good at full speed.
    pub fn new(read: &'b mut [u8], outgoing: &'b mut [u8], packet_bytes: usize) -> Self {
        Self {
            packet_bytes: packet_bytes.max(1),
            read,
            read_len: 0,
            cut_at: None,
            skipping: false,
            outgoing,
            start: 0,
            end: 0,
            bad_transfers: 0,
        }
    }

    /// Transfers that were too long, or whose lengths did not add up.
    pub fn bad_transfers(&self) -> u64 {
        self.bad_transfers
    }

    /// Takes one USB packet, and answers whether it ended a transfer.
    fn take(&mut self, packet: &[u8]) -> bool {
        let end = self.read_len + packet.len();
        match self.read.get_mut(self.read_len..end) {
            Some(place) if !self.skipping => {
                place.copy_from_slice(packet);
                self.read_len = end;
            }
            _ => self.skipping = true,
        }
        packet.len() < self.packet_bytes
    }

    /// Makes ready for the next transfer.
    fn restart(&mut self) {
        (self.read_len, self.cut_at, self.skipping) = (0, None, false);
    }
}

/// Longest packet whose frame fits a transfer of so many bytes, with the byte of padding that it may need.
fn packet_max_bytes(transfer_bytes: usize) -> usize {
    transfer_bytes.saturating_sub(LENGTH_BYTES + FRAME_OVERHEAD_BYTES + 1)
}

impl Framing for Transfers<'_> {
    fn configure(&self, config: Config) -> Config {
        Config { keep_alive: USB_KEEP_ALIVE, read_bytes: self.read.len() as u32, ..config }
    }

    fn mtu_max_bytes(&self) -> usize {
        packet_max_bytes(self.read.len().min(self.outgoing.len()))
    }

    fn peer_mtu_max_bytes(&self, peer_read_bytes: usize) -> usize {
        packet_max_bytes(peer_read_bytes)
    }

    fn baud(&self) -> Option<u32> {
        None
    }

    fn next_frame(&mut self, input: &mut &[u8]) -> Option<&[u8]> {
        let cut_at = match self.cut_at {
            Some(cut_at) => cut_at,
            None => {
                if !self.take(core::mem::take(input)) {
                    return None;
                }
                if self.skipping {
                    self.bad_transfers += 1;
                    self.restart();
                    return None;
                }
                0
            }
        };
        match transfer::frames(&self.read[cut_at..self.read_len]).next() {
            Some(Ok(frame)) => {
                let frame = cut_at + LENGTH_BYTES..cut_at + LENGTH_BYTES + frame.len();
                self.cut_at = Some(frame.end);
                return self.read.get(frame);
            }
            Some(Err(_)) => self.bad_transfers += 1,
            None => {}
        }
        self.restart();
        None
    }

    fn write(&mut self, peer_read_bytes: usize, fill: &mut dyn FnMut(&mut dyn FrameSink)) {
        if self.start < self.end {
            // One transfer at a time.
            return;
        }
        let read_bytes = if peer_read_bytes == 0 { HELLO_MAX_BYTES } else { peer_read_bytes };
        let mut writer = Writer::new(self.outgoing, read_bytes, self.packet_bytes);
        fill(&mut writer);
        (self.start, self.end) = (0, writer.finish());
    }

    fn outgoing(&self) -> &[u8] {
        &self.outgoing[self.start..self.end]
    }

    fn sent(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
    }
}
