//! Reads the fields of one frame; each error names the frame and the field.

use alloc::borrow::ToOwned;
use alloc::string::String;

use crate::id::{LinkId, StreamId};
use crate::limits::LINK_ID_MAX;
use crate::wire::frame::FrameError;
use crate::wire::varint;

/// What is left of the packet, from the frame's next field on.
pub(super) struct Fields<'p> {
    frame: &'static str,
    rest: &'p [u8],
}

impl<'p> Fields<'p> {
    pub(super) fn new(packet: &'p [u8]) -> Self {
        Self { frame: "unknown", rest: packet }
    }

    /// The fields to come, as those of the frame of that name.
    pub(super) fn of(&mut self, frame: &'static str) -> &mut Self {
        self.frame = frame;
        self
    }

    pub(super) fn frame(&self) -> &'static str {
        self.frame
    }

    pub(super) fn rest(&self) -> &'p [u8] {
        self.rest
    }

    /// Bytes to the end of the packet.
    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn varint(&mut self, field: &'static str) -> Result<u64, FrameError> {
        varint::decode_slice(&mut self.rest).ok_or(self.truncated(field))
    }

    /// An integer that must not exceed `max`.
    pub(super) fn at_most(&mut self, field: &'static str, max: u64) -> Result<u64, FrameError> {
        let value = self.varint(field)?;
        self.check(field, value, max)?;
        Ok(value)
    }

    pub(super) fn check(&self, field: &'static str, value: u64, max: u64) -> Result<(), FrameError> {
        if value <= max { Ok(()) } else { Err(FrameError::TooLarge { frame: self.frame, field, value, max }) }
    }

    pub(super) fn link(&mut self) -> Result<LinkId, FrameError> {
        Ok(LinkId(self.at_most("link", LINK_ID_MAX.into())? as u32))
    }

    pub(super) fn stream(&mut self) -> Result<StreamId, FrameError> {
        self.varint("stream").map(StreamId)
    }

    pub(super) fn bytes(&mut self, field: &'static str, len: u64) -> Result<&'p [u8], FrameError> {
        let split = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        let (bytes, rest) = split.ok_or(self.truncated(field))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A length of at most `max_bytes`, then as many bytes of UTF-8.
    pub(super) fn text(
        &mut self,
        length_field: &'static str,
        field: &'static str,
        max_bytes: usize,
    ) -> Result<String, FrameError> {
        let len = self.at_most(length_field, max_bytes as u64)?;
        match core::str::from_utf8(self.bytes(field, len)?) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(FrameError::NotText { frame: self.frame, field }),
        }
    }

    /// An integer to go down by from the packet number `from`, to another one that is not below 0.
    pub(super) fn step_down(&mut self, field: &'static str, from: Option<u64>) -> Result<u64, FrameError> {
        let step = self.varint(field)?;
        let below_zero = FrameError::BelowZero { frame: self.frame, field, step };
        from.and_then(|from| from.checked_sub(step)).ok_or(below_zero)
    }

    /// Steps over bytes equal to `byte` and returns how many there were.
    pub(super) fn skip(&mut self, byte: u8) -> usize {
        let end = self.rest.iter().position(|&b| b != byte).unwrap_or(self.rest.len());
        self.rest = self.rest.get(end..).unwrap_or_default();
        end
    }

    fn truncated(&self, field: &'static str) -> FrameError {
        FrameError::Truncated { frame: self.frame, field }
    }
}
