//! What a frame is made of: type, count, payload, checksum.

use crate::NoRoom;
use crate::crc::Crc32c;
use crate::limits::{HEADER_BYTES, TRAILER_BYTES};

/// Types of frames, as PROTOCOL.md numbers them.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const DATA: u8 = 2;
    pub(crate) const CREDIT: u8 = 3;
    pub(crate) const CLOSE: u8 = 4;
    pub(crate) const MESSAGE: u8 = 5;
}

/// Takes whole frames on their way out: [`cobs::Writer`](crate::cobs::Writer) or
/// [`transfer::Writer`](crate::transfer::Writer).
pub trait FrameSink {
    /// Appends one frame, which is `parts` one after another: all of it or nothing.
    fn put(&mut self, parts: [&[u8]; 3]) -> Result<(), NoRoom>;
}

/// So that who has a `&mut dyn FrameSink`, whichever medium it is of, can hand it to a session.
impl<S: FrameSink + ?Sized> FrameSink for &mut S {
    fn put(&mut self, parts: [&[u8]; 3]) -> Result<(), NoRoom> {
        (**self).put(parts)
    }
}

/// Writes a frame, checksummed from `seed` on.
pub(crate) fn write(
    seed: Crc32c,
    kind: u8,
    count: u32,
    payload: &[u8],
    sink: &mut impl FrameSink,
) -> Result<(), NoRoom> {
    let [a, b, c, d] = count.to_be_bytes();
    let header = [kind, a, b, c, d];
    let crc = seed.with(&header).with(payload).value().to_le_bytes();
    sink.put([&header, payload, &crc])
}

/// A frame that is long enough to be one; its checksum is not checked yet.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'f> {
    pub(crate) kind: u8,
    pub(crate) count: u32,
    pub(crate) payload: &'f [u8],
    checked: &'f [u8],
    crc: u32,
}

impl<'f> Frame<'f> {
    pub(crate) fn read(bytes: &'f [u8]) -> Option<Self> {
        let (checked, crc) = bytes.split_last_chunk::<TRAILER_BYTES>()?;
        let ([kind, a, b, c, d], payload) = checked.split_first_chunk::<HEADER_BYTES>()?;
        Some(Self {
            kind: *kind,
            count: u32::from_be_bytes([*a, *b, *c, *d]),
            payload,
            checked,
            crc: u32::from_le_bytes(*crc),
        })
    }

    pub(crate) fn is_intact(&self, seed: Crc32c) -> bool {
        seed.with(self.checked).value() == self.crc
    }
}
