//! Packets on a byte stream: each with its length in front, 16 bits, big endian.
//!
//! [`StreamLink`](super::StreamLink) and the TCP link share this; use it for a byte medium that wants system calls
//! of its own.

use std::io;

use bytes::{Buf, BytesMut};

use super::PacketBatch;
use crate::limits::{HANDSHAKE_MESSAGE_MAX_BYTES, MTU_MAX_BYTES, READ_BUFFER_BYTES, READ_SPACE_MIN_BYTES};
use crate::pool::READ_BUFFERS;

/// Bytes of the length in front of each packet: the headroom that [`write_lengths`] fills.
pub const LENGTH_BYTES: usize = 2;

/// Writes every packet's length into its headroom, so that the whole batch can be written as it lies.
///
/// Fails with [`InvalidInput`](io::ErrorKind::InvalidInput) if the headroom is not [`LENGTH_BYTES`], or a packet is
/// empty or longer than 65,535 bytes.
pub fn write_lengths(batch: &mut PacketBatch) -> io::Result<()> {
    for (headroom, packet) in batch.parts_mut() {
        let length = u16::try_from(packet.len()).ok().filter(|&length| length > 0);
        match length {
            Some(length) if headroom.len() == LENGTH_BYTES => headroom.copy_from_slice(&length.to_be_bytes()),
            _ => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a packet does not fit the framing"));
            }
        }
    }
    Ok(())
}

/// Cuts a byte stream into packets without copying them.
///
/// Until [`authenticated`](Self::authenticated) is called its buffer holds one handshake message, and a length
/// above that ends the stream: a stranger's length allocates nothing.
#[derive(Debug)]
pub struct Deframer {
    buffer: BytesMut,
    /// Whether `buffer` is one of [`READ_BUFFERS`], as it is once the other end is authenticated.
    pooled: bool,
    packet_max_bytes: usize,
    authenticated: bool,
    broken: bool,
}

impl Default for Deframer {
    fn default() -> Self {
        Self {
            buffer: BytesMut::new(),
            pooled: false,
            packet_max_bytes: HANDSHAKE_MESSAGE_MAX_BYTES,
            authenticated: false,
            broken: false,
        }
    }
}

impl Deframer {
    /// A deframer in the handshake phase.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on packets of any length the framing can express are taken.
    pub fn authenticated(&mut self) {
        self.authenticated = true;
        self.packet_max_bytes = MTU_MAX_BYTES;
    }

    /// The buffer to read into, with room behind its end. Append only.
    pub fn read_buffer(&mut self) -> &mut BytesMut {
        let space = self.buffer.capacity() - self.buffer.len();
        if !self.authenticated {
            // Room for one message: what follows stays in the medium until this one is taken.
            let wanted = LENGTH_BYTES + HANDSHAKE_MESSAGE_MAX_BYTES;
            self.buffer.reserve(wanted.saturating_sub(self.buffer.len()).max(1));
        } else if space < self.space_wanted_bytes() {
            self.change_buffer();
        }
        &mut self.buffer
    }

    /// Goes on in another buffer with what there is of a packet under way.
    fn change_buffer(&mut self) {
        let mut fresh = READ_BUFFERS.take();
        fresh.extend_from_slice(&self.buffer);
        let old = std::mem::replace(&mut self.buffer, fresh);
        if std::mem::replace(&mut self.pooled, true) {
            READ_BUFFERS.retire(old);
        }
    }

    /// To be called when nothing more is to be read for now: lets other links have the buffer meanwhile, unless parts
    /// of it are still in use. So links that are idle hold no memory.
    pub fn rest(&mut self) {
        if self.pooled && self.buffer.is_empty() && self.buffer.try_reclaim(READ_BUFFER_BYTES) {
            READ_BUFFERS.give_back(std::mem::take(&mut self.buffer));
            self.pooled = false;
        }
    }

    /// Room that makes the next read worth its system call: the rest of the packet under way, and some more.
    fn space_wanted_bytes(&self) -> usize {
        let packet = self.next_length().map_or(0, |length| LENGTH_BYTES + length);
        packet.saturating_sub(self.buffer.len()).max(READ_SPACE_MIN_BYTES)
    }

    fn next_length(&self) -> Option<usize> {
        let length = self.buffer.first_chunk::<LENGTH_BYTES>()?;
        Some(usize::from(u16::from_be_bytes(*length)))
    }

    /// Moves the whole packets that have arrived to `out` (one of them while in the handshake phase) and answers
    /// whether there was one.
    ///
    /// A length that cannot be is an error, [`InvalidData`](io::ErrorKind::InvalidData). In the handshake phase the
    /// bytes that stand there are handed out first, as they are, so that the handshake can say what speaks at
    /// the other end; the error follows with the next call.
    pub fn packets(&mut self, out: &mut Vec<BytesMut>) -> io::Result<bool> {
        if self.broken {
            return Err(broken_framing());
        }
        let before = out.len();
        while let Some(length) = self.next_length() {
            if length == 0 || length > self.packet_max_bytes {
                self.broken = true;
                if self.authenticated || out.len() > before {
                    return if out.len() > before { Ok(true) } else { Err(broken_framing()) };
                }
                out.push(self.buffer.split());
                return Ok(true);
            }
            if self.buffer.len() < LENGTH_BYTES + length {
                break;
            }
            self.buffer.advance(LENGTH_BYTES);
            out.push(self.buffer.split_to(length));
            if !self.authenticated {
                break;
            }
        }
        Ok(out.len() > before)
    }

    /// The error that says how the stream ended: between packets, or within one.
    pub fn end(&self) -> io::Error {
        let text = if self.buffer.is_empty() {
            "the other end closed the link"
        } else {
            "the link ended within a packet"
        };
        io::Error::new(io::ErrorKind::UnexpectedEof, text)
    }
}

fn broken_framing() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a length on this link cannot be: the other end does not speak Bondwire",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(deframer: &mut Deframer, bytes: &[u8]) {
        deframer.read_buffer().extend_from_slice(bytes);
    }

    fn framed(packets: &[Vec<u8>]) -> Vec<u8> {
        let mut batch = PacketBatch::new(LENGTH_BYTES);
        packets.iter().for_each(|p| batch.push(p));
        write_lengths(&mut batch).unwrap();
        batch.as_bytes().to_vec()
    }

    #[test]
    fn a_resting_deframer_holds_nothing_unless_it_is_in_use() {
        let mut deframer = Deframer::new();
        deframer.authenticated();
        let mut out = Vec::new();
        feed(&mut deframer, &framed(&[vec![7; 100], vec![8; 50]]));
        deframer.packets(&mut out).unwrap();
        deframer.rest();
        assert!(
            deframer.buffer.capacity() > 0,
            "packets of it are in use: later ones shall share its memory"
        );
        out.clear();
        feed(&mut deframer, &[0, 2, 1]);
        deframer.rest();
        assert_eq!(deframer.buffer.len(), 3, "part of a packet");
        feed(&mut deframer, &[2]);
        deframer.packets(&mut out).unwrap();
        assert_eq!(out.pop().unwrap(), [1, 2][..]);
        deframer.rest();
        assert_eq!(deframer.buffer.capacity(), 0);
        feed(&mut deframer, &framed(&[vec![9; 10]]));
        deframer.packets(&mut out).unwrap();
        assert_eq!(out.pop().unwrap(), [9; 10][..]);
    }

    #[test]
    fn any_cut_of_the_stream_gives_the_same_packets() {
        let packets: Vec<Vec<u8>> = (1..60usize).map(|n| vec![n as u8; n * 37]).collect();
        let stream = framed(&packets);
        for step in [1, 2, 3, 7, 1000, stream.len()] {
            let mut deframer = Deframer::new();
            deframer.authenticated();
            let mut out = Vec::new();
            for piece in stream.chunks(step) {
                feed(&mut deframer, piece);
                deframer.packets(&mut out).unwrap();
            }
            assert_eq!(out, packets, "cut every {step} bytes");
            assert_eq!(deframer.end().to_string(), "the other end closed the link");
        }
    }

    #[test]
    fn one_packet_at_a_time_until_authenticated() {
        let mut deframer = Deframer::new();
        feed(&mut deframer, &framed(&[vec![1; 256], vec![2; 1000]]));
        let mut out = Vec::new();
        assert!(deframer.packets(&mut out).unwrap());
        assert_eq!(out, [vec![1; 256]]);
        deframer.authenticated();
        assert!(deframer.packets(&mut out).unwrap());
        assert_eq!(out[1], vec![2; 1000]);
    }

    #[test]
    fn a_lying_length_is_shown_then_refused_and_allocates_nothing() {
        let mut deframer = Deframer::new();
        feed(&mut deframer, b"GET / HTTP/1.1\r\n");
        let mut out = Vec::new();
        assert!(deframer.packets(&mut out).unwrap());
        assert_eq!(out[0], b"GET / HTTP/1.1\r\n"[..]);
        assert_eq!(deframer.packets(&mut out).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(deframer.read_buffer().capacity() < 1024);
    }

    #[test]
    fn an_empty_packet_is_refused_after_the_good_ones() {
        let mut deframer = Deframer::new();
        deframer.authenticated();
        feed(&mut deframer, b"\0\x01a\0\0\0\x01b");
        let mut out = Vec::new();
        assert!(deframer.packets(&mut out).unwrap());
        assert_eq!(out, [b"a"[..].to_vec()]);
        assert!(deframer.packets(&mut out).is_err());
    }

    #[test]
    fn the_handshake_phase_reads_no_more_than_a_message() {
        let mut deframer = Deframer::new();
        let space = deframer.read_buffer().capacity();
        assert!(space <= 2 * (LENGTH_BYTES + HANDSHAKE_MESSAGE_MAX_BYTES), "{space}");
    }

    #[test]
    fn packets_that_do_not_fit_are_not_framed() {
        let mut batch = PacketBatch::new(LENGTH_BYTES);
        batch.push(&[0; 65_536]);
        assert!(write_lengths(&mut batch).is_err());
        let mut batch = PacketBatch::new(0);
        batch.push(&[0; 5]);
        assert!(write_lengths(&mut batch).is_err());
    }
}
