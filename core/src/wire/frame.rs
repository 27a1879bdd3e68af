//! Frames: what a data packet carries, and how its plaintext is read.
//!
//! Reading copies no application data: the data of STREAM and DATAGRAM frames are slices of the packet. Labels and
//! reasons are copied, after their length was checked, so that a kept label does not keep a packet.

use alloc::string::String;
use bytes::{Buf, Bytes};
use core::num::NonZeroU8;

use crate::config::{LinkPolicy, Policy};
use crate::id::{Class, LinkId, StreamId};
use crate::limits::{
    CLOSE_REASON_MAX_BYTES, DATAGRAM_MAX_BYTES, ORDERED_MAX_BYTES, STREAM_COUNT_MAX, STREAM_LABEL_MAX_BYTES,
};
use crate::wire::ack::Ack;
use crate::wire::fields::Fields;
use crate::wire::varint::{self, VARINT_MAX};

/// Bytes of the MAC in a CLOSE frame.
pub const CLOSE_MAC_BYTES: usize = 16;

/// Frame types. All fit one byte as a varint, and a longer form is a violation (as RFC 9000 section 12.4 has it).
pub(super) mod kind {
    pub(in crate::wire) const PADDING: u8 = 0x00;
    pub(in crate::wire) const PING: u8 = 0x01;
    pub(in crate::wire) const ACK: u8 = 0x02;
    pub(in crate::wire) const RESET_STREAM: u8 = 0x04;
    pub(in crate::wire) const STOP_SENDING: u8 = 0x05;
    /// With the bits below, four types.
    pub(in crate::wire) const STREAM: u8 = 0x08;
    pub(in crate::wire) const STREAM_LAST: u8 = STREAM | STREAM_FIN | STREAM_LEN;
    pub(in crate::wire) const STREAM_FIN: u8 = 0x01;
    pub(in crate::wire) const STREAM_LEN: u8 = 0x02;
    pub(in crate::wire) const OPEN_STREAM: u8 = 0x0c;
    pub(in crate::wire) const MAX_STREAM_DATA: u8 = 0x11;
    pub(in crate::wire) const MAX_STREAMS: u8 = 0x12;
    pub(in crate::wire) const WINDOW_WANTED: u8 = 0x15;
    pub(in crate::wire) const CLOSE: u8 = 0x1c;
    pub(in crate::wire) const DATAGRAM: u8 = 0x20;
    pub(in crate::wire) const ORDERED_DATAGRAM: u8 = 0x21;
    pub(in crate::wire) const LINK_STATUS: u8 = 0x22;
    pub(in crate::wire) const LINK_CLOSE: u8 = 0x23;
}

/// One frame of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Adjacent PADDING frames, each one byte.
    Padding {
        /// How many there are.
        bytes: usize,
    },
    /// Asks for an acknowledgement.
    Ping,
    /// Packets of one link that arrived.
    Ack(Ack),
    /// The sender gives up its half of a stream.
    ResetStream {
        /// The stream.
        id: StreamId,
        /// The application's error code.
        code: u64,
        /// Bytes of the stream that the sender ever sent, retransmissions not counted.
        final_size: u64,
    },
    /// The receiver of a stream's bytes wants no more of them.
    StopSending {
        /// The stream.
        id: StreamId,
        /// The application's error code.
        code: u64,
    },
    /// Bytes of a stream. Their end, `offset + data.len()`, is at most [`VARINT_MAX`].
    Stream {
        /// The stream.
        id: StreamId,
        /// Place of the first byte of `data` in the stream.
        offset: u64,
        /// The stream ends behind `data`.
        fin: bool,
        /// The bytes, a slice of the packet.
        data: Bytes,
    },
    /// Opens a stream and says what it is for; comes before or after its first bytes.
    OpenStream {
        /// The stream, one that the sender of this frame opens.
        id: StreamId,
        /// How its bytes choose among links.
        class: Class,
        /// Its rank within the class, lower first.
        priority: u8,
        /// What the application calls it, at most [`STREAM_LABEL_MAX_BYTES`].
        label: String,
    },
    /// Raises a stream's limit.
    MaxStreamData {
        /// The stream.
        id: StreamId,
        /// The offset below which the peer may send.
        maximum: u64,
    },
    /// Raises the number of streams that the peer may open.
    MaxStreams {
        /// Streams since the bond began, closed ones included; at most [`STREAM_COUNT_MAX`].
        count: u64,
    },
    /// The receive window, for the whole bond, that the sender of this frame could fill.
    WindowWanted {
        /// The window.
        bytes: u64,
    },
    /// Ends the bond.
    Close {
        /// Why, as a number.
        code: u64,
        /// Proof that a holder of the bond's close key says so; see PROTOCOL.md for what it covers.
        mac: [u8; CLOSE_MAC_BYTES],
        /// Why, as text for people, at most [`CLOSE_REASON_MAX_BYTES`].
        reason: String,
    },
    /// A fragment of a datagram, or all of it. It lies within `total` and is empty only if the datagram is.
    Datagram {
        /// The flow, whose datagrams stay on one link while that works.
        flow: u64,
        /// The datagram's number within the bond.
        sequence: u64,
        /// Place of the first byte of `data` in the datagram.
        offset: usize,
        /// Bytes of the whole datagram, at most [`DATAGRAM_MAX_BYTES`].
        total: usize,
        /// The bytes, a slice of the packet.
        data: Bytes,
    },
    /// A fragment of a datagram of a flow that keeps its order, or all of it; as [`Datagram`](Self::Datagram) has it otherwise.
    OrderedDatagram {
        /// The flow.
        flow: u8,
        /// The datagram's number within the flow.
        number: u64,
        /// Place of the first byte of `data` in the datagram.
        offset: usize,
        /// Bytes of the whole datagram, at most [`ORDERED_MAX_BYTES`].
        total: usize,
        /// The bytes, a slice of the packet.
        data: Bytes,
    },
    /// What the sender of this frame wants a link to be used for.
    LinkStatus {
        /// The link.
        link: LinkId,
        /// Rises with every status of that link: frames may arrive out of order, and the highest counts.
        sequence: u64,
        /// The wish.
        policy: LinkPolicy,
    },
    /// The sender of this frame takes a link out of the bond.
    LinkClose {
        /// The link.
        link: LinkId,
        /// Why.
        code: u64,
    },
}

impl Frame {
    /// The name of the frame's type, as PROTOCOL.md writes it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Padding { .. } => "PADDING",
            Self::Ping => "PING",
            Self::Ack(_) => "ACK",
            Self::ResetStream { .. } => "RESET_STREAM",
            Self::StopSending { .. } => "STOP_SENDING",
            Self::Stream { .. } => "STREAM",
            Self::OpenStream { .. } => "OPEN_STREAM",
            Self::MaxStreamData { .. } => "MAX_STREAM_DATA",
            Self::MaxStreams { .. } => "MAX_STREAMS",
            Self::WindowWanted { .. } => "WINDOW_WANTED",
            Self::Close { .. } => "CLOSE",
            Self::Datagram { .. } => "DATAGRAM",
            Self::OrderedDatagram { .. } => "ORDERED_DATAGRAM",
            Self::LinkStatus { .. } => "LINK_STATUS",
            Self::LinkClose { .. } => "LINK_CLOSE",
        }
    }

    /// Whether a packet with this frame is to be acknowledged: all but ACK and PADDING.
    pub const fn is_ack_eliciting(&self) -> bool {
        !matches!(self, Self::Padding { .. } | Self::Ack(_))
    }
}

/// Why the plaintext of a packet cannot be read: the peer, or on an unencrypted link whoever forged the packet,
/// violates the protocol. Close the link that brought the packet, and name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The packet has a header and nothing else.
    #[error("the packet carries no frame")]
    NoFrames,
    /// The peer speaks of something this version does not know.
    #[error("frame type {0:#x} is unknown")]
    UnknownType(u64),
    /// The type has more bytes than it needs.
    #[error("frame type {0:#x} is not in its shortest form")]
    LongType(u64),
    /// The packet ends within the frame.
    #[error("{frame} frame: the packet ends within its {field}")]
    Truncated {
        /// Name of the frame.
        frame: &'static str,
        /// Name of the field.
        field: &'static str,
    },
    /// A number is above what the field may be.
    #[error("{frame} frame: {field} is {value}, allowed is {max} at most")]
    TooLarge {
        /// Name of the frame.
        frame: &'static str,
        /// Name of the field.
        field: &'static str,
        /// What was there.
        value: u64,
        /// What would have been allowed.
        max: u64,
    },
    /// A range of an acknowledgement reaches below packet number 0.
    #[error("{frame} frame: {field} {step} reaches below packet number 0")]
    BelowZero {
        /// Name of the frame.
        frame: &'static str,
        /// Name of the field.
        field: &'static str,
        /// What was there.
        step: u64,
    },
    /// A text is not UTF-8.
    #[error("{frame} frame: its {field} is not UTF-8")]
    NotText {
        /// Name of the frame.
        frame: &'static str,
        /// Name of the field.
        field: &'static str,
    },
    /// A fragment of a datagram that has bytes has none.
    #[error("DATAGRAM frame: an empty fragment of a datagram of {total} bytes")]
    EmptyFragment {
        /// Bytes of the datagram.
        total: usize,
    },
}

/// Reads the frames of a packet: `payload` is its plaintext behind the header. Ends after the first error.
///
/// # Errors
/// Each item may be a [`FrameError`]. What the frames before it said has been said: the caller may act on them.
pub fn frames(payload: Bytes) -> Frames {
    Frames { no_frames: payload.is_empty(), payload }
}

/// The frames of a packet, see [`frames()`].
#[derive(Clone, Debug)]
pub struct Frames {
    payload: Bytes,
    no_frames: bool,
}

impl Iterator for Frames {
    type Item = Result<Frame, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if core::mem::take(&mut self.no_frames) {
            return Some(Err(FrameError::NoFrames));
        }
        if self.payload.is_empty() {
            return None;
        }
        let mut fields = Fields::new(&self.payload);
        let frame = decode(&self.payload, &mut fields);
        let left = if frame.is_ok() { fields.remaining() } else { 0 };
        self.payload.advance(self.payload.len() - left);
        Some(frame)
    }
}

impl core::iter::FusedIterator for Frames {}

/// Reads one frame; `fields` is the end of `payload`.
fn decode(payload: &Bytes, fields: &mut Fields<'_>) -> Result<Frame, FrameError> {
    let before = fields.remaining();
    let kind = fields.varint("type")?;
    if before - fields.remaining() > varint::len(kind) {
        return Err(FrameError::LongType(kind));
    }
    let kind = u8::try_from(kind).map_err(|_| FrameError::UnknownType(kind))?;
    match kind {
        kind::PADDING => Ok(decode_padding(fields.of("PADDING"))),
        kind::PING => Ok(Frame::Ping),
        kind::ACK => Ack::decode(payload, fields.of("ACK")).map(Frame::Ack),
        kind::RESET_STREAM => decode_reset_stream(fields.of("RESET_STREAM")),
        kind::STOP_SENDING => decode_stop_sending(fields.of("STOP_SENDING")),
        kind::STREAM..=kind::STREAM_LAST => decode_stream(kind, payload, fields.of("STREAM")),
        kind::OPEN_STREAM => decode_open_stream(fields.of("OPEN_STREAM")),
        kind::MAX_STREAM_DATA => decode_max_stream_data(fields.of("MAX_STREAM_DATA")),
        kind::MAX_STREAMS => {
            let count = fields.of("MAX_STREAMS").at_most("count", STREAM_COUNT_MAX)?;
            Ok(Frame::MaxStreams { count })
        }
        kind::WINDOW_WANTED => {
            Ok(Frame::WindowWanted { bytes: fields.of("WINDOW_WANTED").varint("window")? })
        }
        kind::CLOSE => decode_close(fields.of("CLOSE")),
        kind::DATAGRAM => decode_datagram(payload, fields.of("DATAGRAM")),
        kind::ORDERED_DATAGRAM => decode_ordered_datagram(payload, fields.of("ORDERED_DATAGRAM")),
        kind::LINK_STATUS => decode_link_status(fields.of("LINK_STATUS")),
        kind::LINK_CLOSE => decode_link_close(fields.of("LINK_CLOSE")),
        unknown => Err(FrameError::UnknownType(unknown.into())),
    }
}

fn decode_padding(fields: &mut Fields<'_>) -> Frame {
    let more = fields.skip(kind::PADDING);
    Frame::Padding { bytes: more.saturating_add(1) }
}

fn decode_reset_stream(fields: &mut Fields<'_>) -> Result<Frame, FrameError> {
    let id = fields.stream()?;
    let code = fields.varint("error code")?;
    let final_size = fields.varint("final size")?;
    Ok(Frame::ResetStream { id, code, final_size })
}

fn decode_stop_sending(fields: &mut Fields<'_>) -> Result<Frame, FrameError> {
    Ok(Frame::StopSending { id: fields.stream()?, code: fields.varint("error code")? })
}

fn decode_stream(kind: u8, payload: &Bytes, fields: &mut Fields<'_>) -> Result<Frame, FrameError> {
    let id = fields.stream()?;
    let offset = fields.varint("offset")?;
    let length = match kind & kind::STREAM_LEN {
        0 => fields.remaining() as u64,
        _ => fields.varint("length")?,
    };
    fields.check("length", length, VARINT_MAX - offset)?;
    let data = payload.slice_ref(fields.bytes("data", length)?);
    Ok(Frame::Stream { id, offset, fin: kind & kind::STREAM_FIN != 0, data })
}

fn decode_open_stream(fields: &mut Fields<'_>) -> Result<Frame, FrameError> {
    let id = fields.stream()?;
    let class = Class::from_wire(fields.varint("class")?);
    let priority = fields.at_most("priority", u8::MAX.into())? as u8;
    let label = fields.text("label length", "label", STREAM_LABEL_MAX_BYTES)?;
    Ok(Frame::OpenStream { id, class, priority, label })
}

fn decode_max_stream_data(fields: &mut Fields<'_>) -> Result<Frame, FrameError> {
    Ok(Frame::MaxStreamData { id: fields.stream()?, maximum: fields.varint("maximum offset")? })
}

fn decode_close(fields: &mut Fields<'_>) -> Result<Frame, FrameError> {
    let code = fields.varint("code")?;
    let mut mac = [0; CLOSE_MAC_BYTES];
    mac.copy_from_slice(fields.bytes("MAC", CLOSE_MAC_BYTES as u64)?);
    let reason = fields.text("reason length", "reason", CLOSE_REASON_MAX_BYTES)?;
    Ok(Frame::Close { code, mac, reason })
}

fn decode_datagram(payload: &Bytes, fields: &mut Fields<'_>) -> Result<Frame, FrameError> {
    let flow = fields.varint("flow")?;
    let sequence = fields.varint("sequence")?;
    let (offset, total, data) = decode_fragment(payload, fields, DATAGRAM_MAX_BYTES)?;
    Ok(Frame::Datagram { flow, sequence, offset, total, data })
}

fn decode_ordered_datagram(payload: &Bytes, fields: &mut Fields<'_>) -> Result<Frame, FrameError> {
    let flow = fields.at_most("flow", u8::MAX.into())? as u8;
    let number = fields.varint("number")?;
    let (offset, total, data) = decode_fragment(payload, fields, ORDERED_MAX_BYTES)?;
    Ok(Frame::OrderedDatagram { flow, number, offset, total, data })
}

/// Offset, total length and data.
fn decode_fragment(
    payload: &Bytes,
    fields: &mut Fields<'_>,
    max_bytes: usize,
) -> Result<(usize, usize, Bytes), FrameError> {
    let offset = fields.varint("offset")?;
    let total = fields.at_most("total length", max_bytes as u64)?;
    fields.check("offset", offset, total)?;
    let length = fields.at_most("length", total - offset)?;
    let data = payload.slice_ref(fields.bytes("data", length)?);
    let (offset, total) = (offset as usize, total as usize);
    if data.is_empty() && total > 0 {
        return Err(FrameError::EmptyFragment { total });
    }
    Ok((offset, total, data))
}

fn decode_link_status(fields: &mut Fields<'_>) -> Result<Frame, FrameError> {
    let link = fields.link()?;
    let sequence = fields.varint("sequence")?;
    let value = fields.varint("status")?;
    let usage = Policy::from_wire(value).ok_or(FrameError::TooLarge {
        frame: fields.frame(),
        field: "status",
        value,
        max: Policy::Paused as u64,
    })?;
    let tier = fields.at_most("tier", u8::MAX.into())? as u8;
    let weight = NonZeroU8::new(fields.at_most("weight", u8::MAX.into())? as u8);
    let cap_bytes_per_second = Some(fields.varint("cap")?).filter(|&cap| cap > 0);
    let policy = LinkPolicy { usage, tier, weight, cap_bytes_per_second };
    Ok(Frame::LinkStatus { link, sequence, policy })
}

fn decode_link_close(fields: &mut Fields<'_>) -> Result<Frame, FrameError> {
    Ok(Frame::LinkClose { link: fields.link()?, code: fields.varint("code")? })
}
