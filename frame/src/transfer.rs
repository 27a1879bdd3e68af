//! Frames in USB bulk transfers: whole frames, several in one transfer, each with its length in front.
//!
//! A transfer never ends on the border of a USB packet: the receiver would not know that it has ended. One byte of padding
//! goes behind the last frame then, so zero-length packets are never needed.

use crate::frame::kind;
use crate::limits::FRAME_OVERHEAD_BYTES;
use crate::{FrameSink, NoRoom};

/// Bytes of the length in front of each frame.
pub const LENGTH_BYTES: usize = 2;
const PADDING: u8 = 0;

/// Packs frames into one transfer, in a buffer of the caller.
#[derive(Debug)]
pub struct Writer<'b> {
    buffer: &'b mut [u8],
    len: usize,
    packet_bytes: usize,
    /// HELLO stands alone.
    is_hello: bool,
}

impl<'b> Writer<'b> {
    /// An empty transfer. It gets no longer than `buffer` and than `peer_read_bytes`, the length of the peer's reads
    /// ([`Session::peer_read_bytes`](crate::Session::peer_read_bytes)). `packet_bytes` is the packet size of the endpoint: 64, 512 or
    /// 1024.
    pub fn new(buffer: &'b mut [u8], peer_read_bytes: usize, packet_bytes: usize) -> Self {
        let most = buffer.len().min(peer_read_bytes);
        Self {
            buffer: buffer.split_at_mut(most).0,
            len: 0,
            packet_bytes: packet_bytes.max(1),
            is_hello: false,
        }
    }

    /// Bytes so far, padding not included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Ends the transfer, with padding if it needs some, and answers its length: send the first so many bytes of the
    /// buffer. Zero means that there is nothing to send.
    pub fn finish(self) -> usize {
        let padded = self.padded(self.len);
        if let Some(padding) = self.buffer.get_mut(self.len..padded) {
            padding.fill(PADDING);
        }
        padded
    }

    fn padded(&self, len: usize) -> usize {
        len + usize::from(len > 0 && len.is_multiple_of(self.packet_bytes))
    }
}

impl FrameSink for Writer<'_> {
    fn put(&mut self, parts: [&[u8]; 3]) -> Result<(), NoRoom> {
        let frame_bytes: usize = parts.iter().map(|part| part.len()).sum();
        let end = self.len + LENGTH_BYTES + frame_bytes;
        let length = u16::try_from(frame_bytes).map_err(|_| NoRoom)?;
        let is_hello = parts[0].first() == Some(&kind::HELLO);
        let stands_alone = self.is_hello || (is_hello && !self.is_empty());
        if stands_alone || self.padded(end) > self.buffer.len() {
            return Err(NoRoom);
        }
        self.is_hello = is_hello;
        for part in [&length.to_be_bytes()[..], parts[0], parts[1], parts[2]] {
            self.buffer[self.len..self.len + part.len()].copy_from_slice(part);
            self.len += part.len();
        }
        Ok(())
    }
}

/// The frames of one transfer; an error is the last item.
#[derive(Clone, Debug)]
pub struct Frames<'t> {
    rest: &'t [u8],
}

/// A transfer whose lengths do not add up: what is left of it cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a transfer's lengths do not add up")]
pub struct BadTransfer;

/// Cuts a transfer into frames, without a copy. A transfer of no bytes, as of a zero-length packet, has none.
pub fn frames(transfer: &[u8]) -> Frames<'_> {
    Frames { rest: transfer }
}

impl<'t> Iterator for Frames<'t> {
    type Item = Result<&'t [u8], BadTransfer>;

    fn next(&mut self) -> Option<Self::Item> {
        if matches!(self.rest, [] | [PADDING]) {
            return None;
        }
        let rest = core::mem::take(&mut self.rest);
        let frame = rest.split_first_chunk::<LENGTH_BYTES>().and_then(|(length, behind)| {
            let length = usize::from(u16::from_be_bytes(*length));
            if length < FRAME_OVERHEAD_BYTES { None } else { behind.split_at_checked(length) }
        });
        let Some((frame, behind)) = frame else { return Some(Err(BadTransfer)) };
        self.rest = behind;
        Some(Ok(frame))
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn put(writer: &mut Writer<'_>, frame: &[u8]) -> Result<(), NoRoom> {
        let (front, back) = frame.split_at(frame.len() / 2);
        writer.put([front, back, &[]])
    }

    #[test]
    fn a_transfer_never_ends_on_a_packet_border() {
        let mut buffer = [0xaa; 256];
        for len in 9..200 {
            let mut writer = Writer::new(&mut buffer, 256, 64);
            put(&mut writer, &vec![7; len]).unwrap();
            let sent = writer.finish();
            assert_ne!(sent % 64, 0, "{len}");
            let found: Vec<_> = frames(&buffer[..sent]).collect();
            assert_eq!(found, [Ok(&vec![7; len][..])]);
        }
    }

    #[test]
    fn padding_needs_room_too() {
        let mut buffer = [0; 128];
        let mut writer = Writer::new(&mut buffer, 128, 64);
        assert_eq!(put(&mut writer, &[1; 126]), Err(NoRoom), "128 bytes would need one more");
        put(&mut writer, &[1; 125]).unwrap();
        assert_eq!(writer.finish(), 127);
    }

    #[test]
    fn no_longer_than_the_peer_reads() {
        let mut buffer = [0; 1024];
        let mut writer = Writer::new(&mut buffer, 64, 512);
        assert_eq!(put(&mut writer, &[1; 63]), Err(NoRoom));
        put(&mut writer, &[1; 62]).unwrap();
        assert_eq!(writer.finish(), 64, "the border that counts is that of the endpoint's packets");
    }

    #[test]
    fn hello_stands_alone() {
        let mut buffer = [0; 256];
        let mut writer = Writer::new(&mut buffer, 256, 64);
        let (hello, other) = ([kind::HELLO; 40], [kind::CREDIT; 13]);
        writer.put([&hello, &[], &[]]).unwrap();
        assert_eq!(writer.put([&other, &[], &[]]), Err(NoRoom));
        assert_eq!(writer.finish(), 42);
        let mut writer = Writer::new(&mut buffer, 256, 64);
        writer.put([&other, &[], &[]]).unwrap();
        assert_eq!(writer.put([&hello, &[], &[]]), Err(NoRoom));
    }

    #[test]
    fn nothing_is_no_transfer() {
        assert_eq!(Writer::new(&mut [0; 64], 64, 64).finish(), 0);
        assert_eq!(frames(&[]).count(), 0);
        assert_eq!(frames(&[0]).count(), 0);
    }

    #[test]
    fn lengths_that_do_not_add_up_end_the_transfer() {
        for bad in [&[0, 0][..], &[0], &[0, 8, 1, 2, 3, 4, 5, 6, 7, 8], &[0, 9, 1], &[1], &[0xff, 0xff, 1, 2]]
        {
            let mut transfer = vec![0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9];
            transfer.extend(bad);
            let found: Vec<_> = frames(&transfer).collect();
            let expected = if bad == [0] { 1 } else { 2 };
            assert_eq!(found.len(), expected, "{bad:?}");
            assert_eq!(found[0], Ok(&[1, 2, 3, 4, 5, 6, 7, 8, 9][..]));
            assert!(bad == [0] || found[1] == Err(BadTransfer));
        }
    }

    proptest! {
        #[test]
        fn reading_undoes_writing(
            all in prop::collection::vec(prop::collection::vec(any::<u8>(), 9..400), 0..20),
            read in 402usize..3000,
            packet in prop::sample::select(&[64usize, 512, 1024][..]),
        ) {
            let mut seen = Vec::new();
            let mut waiting = &all[..];
            while !waiting.is_empty() {
                let mut buffer = vec![0xaa; 4096];
                let mut writer = Writer::new(&mut buffer, read, packet);
                let mut taken = 0;
                while waiting.get(taken).is_some_and(|frame| put(&mut writer, frame).is_ok()) {
                    taken += 1;
                }
                prop_assume!(taken > 0);
                let len = writer.finish();
                prop_assert!(len <= read && !len.is_multiple_of(packet));
                for frame in frames(&buffer[..len]) {
                    seen.push(frame.unwrap().to_vec());
                }
                waiting = &waiting[taken..];
            }
            prop_assert_eq!(seen, all);
        }

        #[test]
        fn any_bytes_are_survived(transfer in prop::collection::vec(any::<u8>(), 0..600)) {
            let bytes: usize = frames(&transfer).map_while(Result::ok).map(|frame| frame.len() + LENGTH_BYTES).sum();
            prop_assert!(bytes <= transfer.len());
        }
    }
}
