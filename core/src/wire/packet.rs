//! One packet on its way out: plaintext, in pieces, in a buffer that is used again and again.

use alloc::vec::Vec;
use bytes::{BufMut, Bytes};

use crate::config::LinkPolicy;
use crate::id::{Class, LinkId, StreamId};
use crate::limits::{CLOSE_REASON_MAX_BYTES, DATAGRAM_MAX_BYTES, ORDERED_MAX_BYTES, STREAM_LABEL_MAX_BYTES};
use crate::range_set::RangeSet;
use crate::wire::ack;
use crate::wire::frame::{CLOSE_MAC_BYTES, Frame, kind};
use crate::wire::header::{self, Header};
use crate::wire::varint::{self, VARINT_MAX};

/// A packet that is being put together, and then written by [`gather`](Self::gather).
///
/// The header and the fields of frames are collected in one buffer; application data is kept as the `Bytes` it came
/// in, and copied once, by `gather`. After some packets of a kind nothing is allocated any more.
///
/// Every `push_…` appends one frame. If it does not fit into what [`remaining`](Self::remaining) says, nothing is
/// appended and the answer is `false`.
#[derive(Debug)]
pub struct Packet {
    link: LinkId,
    number: u64,
    key_phase: u64,
    /// Bytes of everything so far, application data included.
    len: usize,
    max_len: usize,
    header_len: usize,
    /// Header and fields.
    small: Vec<u8>,
    data: Vec<Piece>,
    /// Bytes that the last STREAM frame announced and that [`push_data`](Packet::push_data) still has to bring.
    data_due: usize,
    /// A STREAM frame without a length reaches to the end of the packet: no frame may follow.
    ended: bool,
    ack_eliciting: bool,
}

/// Application data that belongs behind the first `at` bytes of [`Packet::small`].
#[derive(Debug)]
struct Piece {
    at: usize,
    bytes: Bytes,
}

impl Default for Packet {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes of a STREAM frame besides its data, without the length field.
///
/// A frame with this and up to `room - stream_overhead(id, offset)` bytes of data always fits into `room` bytes,
/// because [`Packet`] leaves the length out where it would not fit. That ends the packet.
pub const fn stream_overhead(id: StreamId, offset: u64) -> usize {
    1 + varint::len(id.0) + varint::len(offset)
}

impl Packet {
    /// An empty packet without a header; [`begin`](Self::begin) makes it one.
    pub const fn new() -> Self {
        Self {
            link: LinkId(0),
            number: 0,
            key_phase: 0,
            len: 0,
            max_len: 0,
            header_len: 0,
            small: Vec::new(),
            data: Vec::new(),
            data_due: 0,
            ended: false,
            ack_eliciting: false,
        }
    }

    /// Lets go of all contents, and keeps the memory.
    pub fn clear(&mut self) {
        let mut small = core::mem::take(&mut self.small);
        let mut data = core::mem::take(&mut self.data);
        small.clear();
        data.clear();
        *self = Self { small, data, ..Self::new() };
    }

    /// Starts packet `number` of `link`, letting go of earlier contents.
    ///
    /// `key_phase` counts the key updates of this link and direction. `largest_acked` is the largest number that the
    /// peer has acknowledged on this link. The packet takes `max_len` bytes at most, the tag of the sealed packet not
    /// included.
    pub fn begin(
        &mut self,
        link: LinkId,
        number: u64,
        key_phase: u64,
        largest_acked: Option<u64>,
        max_len: usize,
    ) {
        debug_assert!(number <= VARINT_MAX, "packet number {number} is out of range");
        self.clear();
        let header = Header { number, phase_bit: key_phase & 1 == 1 };
        self.header_len = header::encode(header, largest_acked, &mut self.small);
        self.len = self.header_len;
        (self.link, self.number, self.key_phase, self.max_len) = (link, number, key_phase, max_len);
    }

    /// The link that is to carry it.
    pub const fn link(&self) -> LinkId {
        self.link
    }

    /// The packet number.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Key updates before this packet.
    pub const fn key_phase(&self) -> u64 {
        self.key_phase
    }

    /// Bytes of the header.
    pub const fn header_len(&self) -> usize {
        self.header_len
    }

    /// Bytes of the packet so far: header, frames, no tag.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no frame is in it. Such a packet must not be sent.
    pub const fn is_empty(&self) -> bool {
        self.len == self.header_len
    }

    /// Bytes that further frames may take.
    pub const fn remaining(&self) -> usize {
        if self.ended { 0 } else { self.max_len.saturating_sub(self.len) }
    }

    /// Whether the peer is to acknowledge it: it has a frame other than ACK and PADDING.
    pub const fn is_ack_eliciting(&self) -> bool {
        self.ack_eliciting
    }

    /// Writes the whole packet, which takes [`len`](Self::len) bytes of room in `out`: header, then frames. Room for
    /// the tag is the caller's business.
    pub fn gather(&self, out: &mut impl BufMut) {
        debug_assert_eq!(self.data_due, 0, "a STREAM frame lacks data");
        let mut rest = &self.small[..];
        let mut written = 0;
        for piece in &self.data {
            let (before, after) = rest.split_at(piece.at - written);
            out.put_slice(before);
            out.put_slice(&piece.bytes);
            (rest, written) = (after, piece.at);
        }
        out.put_slice(rest);
    }

    /// PADDING frames, `bytes` of them.
    pub fn push_padding(&mut self, bytes: usize) -> bool {
        if self.data_due > 0 || bytes > self.remaining() {
            return false;
        }
        self.small.resize(self.small.len() + bytes, kind::PADDING);
        self.len += bytes;
        true
    }

    /// PING.
    pub fn push_ping(&mut self) -> bool {
        self.push_fields(kind::PING, &[])
    }

    /// ACK of the highest ranges of `received`: of all of them if they are not too many for a frame, and fit into half
    /// of what remains. False if not even the first range fits, or `received` is empty.
    pub fn push_ack(&mut self, link: LinkId, delay_us: u64, arrival_us: u64, received: &RangeSet) -> bool {
        let (before, room) = (self.small.len(), self.remaining());
        let times = (delay_us, arrival_us);
        let fits = self.data_due == 0 && ack::encode(link, times, received, room, &mut self.small);
        self.len += self.small.len() - before;
        fits
    }

    /// RESET_STREAM.
    pub fn push_reset_stream(&mut self, id: StreamId, code: u64, final_size: u64) -> bool {
        self.push_fields(kind::RESET_STREAM, &[id.0, code, final_size])
    }

    /// STOP_SENDING.
    pub fn push_stop_sending(&mut self, id: StreamId, code: u64) -> bool {
        self.push_fields(kind::STOP_SENDING, &[id.0, code])
    }

    /// STREAM with all its data.
    pub fn push_stream(&mut self, id: StreamId, offset: u64, fin: bool, data: Bytes) -> bool {
        self.push_stream_header(id, offset, data.len(), fin) && self.push_data(data)
    }

    /// STREAM with `len` bytes of data, which [`push_data`](Self::push_data) is to bring before any other frame. It
    /// fits if [`stream_overhead`] and the data do.
    pub fn push_stream_header(&mut self, id: StreamId, offset: u64, len: usize, fin: bool) -> bool {
        let end = u64::try_from(len).ok().and_then(|len| offset.checked_add(len));
        debug_assert!(end.is_some_and(|end| end <= VARINT_MAX), "stream {id} ends behind the largest offset");
        let bare = stream_overhead(id, offset).saturating_add(len);
        // Only the last frame of a packet may do without its length, so it does where nothing would fit behind it.
        let with_len = bare.saturating_add(varint::len(len as u64)) < self.remaining();
        let kind = kind::STREAM | if fin { kind::STREAM_FIN } else { 0 };
        let fits = if with_len {
            self.push(len, |out| put_fields(kind | kind::STREAM_LEN, &[id.0, offset, len as u64], out))
        } else {
            self.push(len, |out| put_fields(kind, &[id.0, offset], out))
        };
        if fits {
            self.ended = !with_len;
            self.data_due = len;
            self.len += len;
        }
        fits
    }

    /// The next bytes of the STREAM frame that was pushed last; false if they are more than it announced.
    pub fn push_data(&mut self, bytes: Bytes) -> bool {
        debug_assert!(bytes.len() <= self.data_due, "more bytes than the STREAM frame announced");
        let due = self.data_due.checked_sub(bytes.len());
        if let Some(due) = due {
            self.data_due = due;
            self.push_piece(bytes);
        }
        due.is_some()
    }

    /// OPEN_STREAM. The label has at most [`STREAM_LABEL_MAX_BYTES`].
    pub fn push_open_stream(&mut self, id: StreamId, class: Class, priority: u8, label: &str) -> bool {
        debug_assert!(label.len() <= STREAM_LABEL_MAX_BYTES, "label of {} bytes", label.len());
        self.push(0, |out| {
            put_fields(kind::OPEN_STREAM, &[id.0, class as u64, priority.into()], out);
            put_text(label, out);
        })
    }

    /// MAX_STREAM_DATA.
    pub fn push_max_stream_data(&mut self, id: StreamId, maximum: u64) -> bool {
        self.push_fields(kind::MAX_STREAM_DATA, &[id.0, maximum])
    }

    /// MAX_STREAMS.
    pub fn push_max_streams(&mut self, count: u64) -> bool {
        self.push_fields(kind::MAX_STREAMS, &[count])
    }

    /// WINDOW_WANTED.
    pub fn push_window_wanted(&mut self, bytes: u64) -> bool {
        self.push_fields(kind::WINDOW_WANTED, &[bytes])
    }

    /// CLOSE. The reason has at most [`CLOSE_REASON_MAX_BYTES`].
    pub fn push_close(&mut self, code: u64, mac: &[u8; CLOSE_MAC_BYTES], reason: &str) -> bool {
        debug_assert!(reason.len() <= CLOSE_REASON_MAX_BYTES, "reason of {} bytes", reason.len());
        self.push(0, |out| {
            put_fields(kind::CLOSE, &[code], out);
            out.put_slice(mac);
            put_text(reason, out);
        })
    }

    /// DATAGRAM: the bytes from `offset` on of a datagram of `total` bytes. Only a datagram of no bytes has an empty
    /// fragment.
    pub fn push_datagram(
        &mut self,
        flow: u64,
        sequence: u64,
        offset: usize,
        total: usize,
        data: Bytes,
    ) -> bool {
        debug_assert!(
            total <= DATAGRAM_MAX_BYTES && offset + data.len() <= total,
            "fragment outside its datagram"
        );
        self.push_fragment(kind::DATAGRAM, [flow, sequence, offset as u64, total as u64], data)
    }

    /// ORDERED_DATAGRAM: as DATAGRAM, with the datagram's number within its flow.
    pub fn push_ordered_datagram(
        &mut self,
        flow: u8,
        number: u64,
        offset: usize,
        total: usize,
        data: Bytes,
    ) -> bool {
        debug_assert!(
            total <= ORDERED_MAX_BYTES && offset + data.len() <= total,
            "fragment outside its datagram"
        );
        self.push_fragment(kind::ORDERED_DATAGRAM, [flow.into(), number, offset as u64, total as u64], data)
    }

    fn push_fragment(&mut self, kind: u8, [flow, number, offset, total]: [u64; 4], data: Bytes) -> bool {
        let fields = [flow, number, offset, total, data.len() as u64];
        let fits = self.push(data.len(), |out| put_fields(kind, &fields, out));
        if fits {
            self.len += data.len();
            self.push_piece(data);
        }
        fits
    }

    /// LINK_STATUS.
    pub fn push_link_status(&mut self, link: LinkId, sequence: u64, policy: &LinkPolicy) -> bool {
        let LinkPolicy { usage, tier, weight, cap_bytes_per_second } = *policy;
        let weight = weight.map_or(0, |weight| weight.get().into());
        let cap = cap_bytes_per_second.unwrap_or(0).min(VARINT_MAX);
        self.push_fields(
            kind::LINK_STATUS,
            &[link.0.into(), sequence, usage as u64, tier.into(), weight, cap],
        )
    }

    /// LINK_CLOSE.
    pub fn push_link_close(&mut self, link: LinkId, code: u64) -> bool {
        self.push_fields(kind::LINK_CLOSE, &[link.0.into(), code])
    }

    /// Any frame, as it was read from a packet; of an ACK, all ranges or none.
    pub fn push_frame(&mut self, frame: &Frame) -> bool {
        match frame {
            Frame::Padding { bytes } => self.push_padding(*bytes),
            Frame::Ping => self.push_ping(),
            Frame::Ack(ack) => self.append(0, |out| ack.encode_whole(out)),
            Frame::ResetStream { id, code, final_size } => self.push_reset_stream(*id, *code, *final_size),
            Frame::StopSending { id, code } => self.push_stop_sending(*id, *code),
            Frame::Stream { id, offset, fin, data } => self.push_stream(*id, *offset, *fin, data.clone()),
            Frame::OpenStream { id, class, priority, label } => {
                self.push_open_stream(*id, *class, *priority, label)
            }
            Frame::MaxStreamData { id, maximum } => self.push_max_stream_data(*id, *maximum),
            Frame::MaxStreams { count } => self.push_max_streams(*count),
            Frame::WindowWanted { bytes } => self.push_window_wanted(*bytes),
            Frame::Close { code, mac, reason } => self.push_close(*code, mac, reason),
            Frame::Datagram { flow, sequence, offset, total, data } => {
                self.push_datagram(*flow, *sequence, *offset, *total, data.clone())
            }
            Frame::OrderedDatagram { flow, number, offset, total, data } => {
                self.push_ordered_datagram(*flow, *number, *offset, *total, data.clone())
            }
            Frame::LinkStatus { link, sequence, policy } => self.push_link_status(*link, *sequence, policy),
            Frame::LinkClose { link, code } => self.push_link_close(*link, *code),
        }
    }

    fn push_fields(&mut self, kind: u8, fields: &[u64]) -> bool {
        self.push(0, |out| put_fields(kind, fields, out))
    }

    /// Appends an ack-eliciting frame, see [`append`](Self::append).
    fn push(&mut self, data_len: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let fits = self.append(data_len, write);
        self.ack_eliciting |= fits;
        fits
    }

    /// Appends what `write` writes if that and `data_len` bytes behind it fit.
    fn append(&mut self, data_len: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let before = self.small.len();
        write(&mut self.small);
        let written = self.small.len() - before;
        let fits = self.data_due == 0 && written.saturating_add(data_len) <= self.remaining();
        if fits {
            self.len += written;
        } else {
            self.small.truncate(before);
        }
        fits
    }

    fn push_piece(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.data.push(Piece { at: self.small.len(), bytes });
        }
    }
}

fn put_fields(kind: u8, fields: &[u64], out: &mut Vec<u8>) {
    out.put_u8(kind);
    for &field in fields {
        varint::encode(field, out);
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    varint::encode(text.len() as u64, out);
    out.put_slice(text.as_bytes());
}
