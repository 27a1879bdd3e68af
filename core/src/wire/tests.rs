//! Packets and frames against each other: what is written is read back, and anything else is refused by name.

#![allow(clippy::single_range_in_vec_init)]

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bytes::{Buf, Bytes};
use core::num::NonZeroU8;
use core::ops::Range;
use proptest::prelude::*;

use super::frame::{CLOSE_MAC_BYTES, Frame, FrameError, frames};
use super::header;
use super::packet::{Packet, stream_overhead};
use super::varint::{self, VARINT_MAX};
use crate::config::{LinkPolicy, Policy};
use crate::id::{Class, LinkId, StreamId};
use crate::limits::*;
use crate::range_set::RangeSet;

const LINK: LinkId = LinkId(3);
const ID: StreamId = StreamId(4);

fn packet(max_len: usize) -> Packet {
    let mut packet = Packet::new();
    packet.begin(LINK, 0, 0, None, max_len);
    packet
}

fn gathered(packet: &Packet) -> Bytes {
    let mut plain = Vec::new();
    packet.gather(&mut plain);
    assert_eq!(plain.len(), packet.len());
    plain.into()
}

fn set(ranges: &[Range<u64>]) -> RangeSet {
    ranges.iter().cloned().collect()
}

/// The frames of `packet` as its receiver reads them.
fn received(packet: &Packet) -> Result<Vec<Frame>, FrameError> {
    let mut plain = gathered(packet);
    let largest = packet.number().checked_sub(1);
    let (header, header_len) = header::decode(&plain, largest).unwrap();
    assert_eq!(header.number, packet.number());
    assert_eq!(header.phase_bit, packet.key_phase() % 2 == 1);
    assert_eq!(header_len, packet.header_len());
    plain.advance(header_len);
    frames(plain).collect()
}

fn read(payload: &[u8]) -> Result<Vec<Frame>, FrameError> {
    frames(Bytes::copy_from_slice(payload)).collect()
}

// ---- Any frame ----

fn any_varint() -> impl Strategy<Value = u64> {
    prop_oneof![Just(VARINT_MAX), (0u32..62).prop_flat_map(|bits| 0..=(2u64 << bits) - 1)]
}

fn any_stream_id() -> impl Strategy<Value = StreamId> {
    any_varint().prop_map(StreamId)
}

fn any_link() -> impl Strategy<Value = LinkId> {
    (0..=LINK_ID_MAX).prop_map(LinkId)
}

fn any_data() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..80).prop_map(Bytes::from)
}

fn any_text(max_bytes: usize) -> impl Strategy<Value = String> {
    "[ -~é€😀]{0,40}".prop_filter("too long", move |text| text.len() <= max_bytes)
}

fn any_received() -> impl Strategy<Value = RangeSet> {
    let range = (0u64..100_000, 1u64..300).prop_map(|(start, len)| start..start + len);
    let high = any_varint().prop_map(|number| number..number + 1);
    (prop::collection::vec(range, 0..80), high).prop_map(|(mut ranges, high)| {
        ranges.push(high);
        ranges.into_iter().collect()
    })
}

fn any_ack() -> impl Strategy<Value = Frame> {
    (any_link(), any_varint(), any_varint(), any_received()).prop_map(
        |(link, delay_us, arrival_us, numbers)| {
            let mut packet = packet(4096);
            assert!(packet.push_ack(link, delay_us, arrival_us, &numbers));
            received(&packet).unwrap().remove(0)
        },
    )
}

fn any_datagram() -> impl Strategy<Value = Frame> {
    let length = (0..=DATAGRAM_MAX_BYTES).prop_flat_map(|total| (Just(total), 0..=total.min(80)));
    (any_varint(), any_varint(), length, any::<u8>(), any::<prop::sample::Index>()).prop_map(
        |(flow, sequence, (total, len), fill, place)| {
            let len = if total == 0 { 0 } else { len.max(1) };
            let offset = place.index(total - len + 1);
            let data = Bytes::from(vec![fill; len]);
            Frame::Datagram { flow, sequence, offset, total, data }
        },
    )
}

fn any_ordered_datagram() -> impl Strategy<Value = Frame> {
    (any_datagram(), any::<u8>()).prop_filter_map("a datagram", |(frame, flow)| match frame {
        Frame::Datagram { sequence: number, offset, total, data, .. } => {
            Some(Frame::OrderedDatagram { flow, number, offset, total, data })
        }
        _ => None,
    })
}

fn any_stream() -> impl Strategy<Value = Frame> {
    (any_stream_id(), any_varint(), any::<bool>(), any_data()).prop_map(|(id, offset, fin, data)| {
        let offset = offset.min(VARINT_MAX - data.len() as u64);
        Frame::Stream { id, offset, fin, data }
    })
}

fn any_open_stream() -> impl Strategy<Value = Frame> {
    let class = prop::sample::select([Class::Bulk, Class::Interactive, Class::Redundant].to_vec());
    (any_stream_id(), class, any::<u8>(), any_text(STREAM_LABEL_MAX_BYTES))
        .prop_map(|(id, class, priority, label)| Frame::OpenStream { id, class, priority, label })
}

fn any_policy() -> impl Strategy<Value = LinkPolicy> {
    let usage = prop::sample::select([Policy::Active, Policy::Backup, Policy::Paused].to_vec());
    (usage, any::<u8>(), any::<u8>(), any_varint()).prop_map(|(usage, tier, weight, cap)| LinkPolicy {
        usage,
        tier,
        weight: NonZeroU8::new(weight),
        cap_bytes_per_second: Some(cap).filter(|&cap| cap > 0),
    })
}

fn any_frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (1..40usize).prop_map(|bytes| Frame::Padding { bytes }),
        Just(Frame::Ping),
        any_ack(),
        (any_stream_id(), any_varint(), any_varint()).prop_map(|(id, code, final_size)| Frame::ResetStream {
            id,
            code,
            final_size
        }),
        (any_stream_id(), any_varint()).prop_map(|(id, code)| Frame::StopSending { id, code }),
        any_stream(),
        any_open_stream(),
        (any_stream_id(), any_varint()).prop_map(|(id, maximum)| Frame::MaxStreamData { id, maximum }),
        (0..=STREAM_COUNT_MAX).prop_map(|count| Frame::MaxStreams { count }),
        any_varint().prop_map(|bytes| Frame::WindowWanted { bytes }),
        (any_varint(), any::<[u8; CLOSE_MAC_BYTES]>(), any_text(CLOSE_REASON_MAX_BYTES))
            .prop_map(|(code, mac, reason)| Frame::Close { code, mac, reason }),
        any_datagram(),
        any_ordered_datagram(),
        (any_link(), any_varint(), any_policy()).prop_map(|(link, sequence, policy)| Frame::LinkStatus {
            link,
            sequence,
            policy
        }),
        (any_link(), any_varint()).prop_map(|(link, code)| Frame::LinkClose { link, code }),
    ]
}

// ---- What is written is read back ----

proptest! {
    /// Pushes frames until one does not fit; what was pushed comes out, and a refused frame leaves no trace.
    #[test]
    fn frames_survive_a_packet(
        sent in prop::collection::vec(any_frame(), 1..12),
        number in 0..VARINT_MAX,
        key_phase in 0..4u64,
        max_len in 40..700usize,
    ) {
        let mut packet = Packet::new();
        packet.begin(LINK, number, key_phase, number.checked_sub(1), max_len);
        prop_assert!(packet.is_empty() && !packet.is_ack_eliciting());
        let mut expected: Vec<Frame> = Vec::new();
        for frame in sent {
            let before = (packet.len(), packet.is_ack_eliciting(), packet.remaining(), gathered(&packet));
            if packet.push_frame(&frame) {
                prop_assert!(packet.len() > before.0 && packet.len() <= max_len);
                expected.push(frame);
            } else {
                let after = (packet.len(), packet.is_ack_eliciting(), packet.remaining(), gathered(&packet));
                prop_assert_eq!(before, after);
            }
        }
        prop_assert_eq!(packet.is_ack_eliciting(), expected.iter().any(Frame::is_ack_eliciting));
        prop_assert_eq!((packet.link(), packet.number(), packet.key_phase()), (LINK, number, key_phase));
        prop_assert_eq!(packet.is_empty(), expected.is_empty());
        if expected.is_empty() {
            prop_assert_eq!(received(&packet), Err(FrameError::NoFrames));
        } else {
            let read = received(&packet);
            prop_assert_eq!(without_shape(read.unwrap()), without_shape(expected));
        }
    }

    /// Whatever arrives, reading it ends without a panic, and what was read can be written and read again.
    #[test]
    fn any_bytes_are_read_or_refused(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        read_and_write_again(&payload)?;
    }

    /// As above with bytes that look like frames: real ones, then some bytes changed and the end cut off.
    #[test]
    fn damaged_frames_are_read_or_refused(
        sent in prop::collection::vec(any_frame(), 1..6),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut packet = packet(MTU_MAX_BYTES);
        for frame in &sent {
            prop_assert!(packet.push_frame(frame));
        }
        let mut payload = gathered(&packet)[packet.header_len()..].to_vec();
        for (place, byte) in changes {
            let place = place.index(payload.len());
            payload[place] = byte;
        }
        payload.truncate(cut.index(payload.len()) + 1);
        read_and_write_again(&payload)?;
    }

    /// All numbers of an ACK lie in the set that it was written from, and the highest ranges are whole.
    #[test]
    fn acks_tell_the_highest_ranges(numbers in any_received(), room in 30..700usize) {
        let mut packet = packet(room);
        prop_assert!(packet.push_ack(LINK, 25, 26, &numbers));
        let used = packet.len() - packet.header_len();
        let half = (room - packet.header_len()) / 2;
        prop_assert!(packet.len() <= room);
        let frames = received(&packet).unwrap();
        let [Frame::Ack(ack)] = &frames[..] else { panic!("{frames:?}") };
        let told: Vec<Range<u64>> = ack.ranges().map(|r| *r.start()..*r.end() + 1).collect();
        prop_assert_eq!((ack.link, ack.largest), (LINK, numbers.last().unwrap().end - 1));
        prop_assert_eq!((ack.delay_us, ack.arrival_us), (25, 26));
        prop_assert!(numbers.iter().rev().take(told.len()).eq(told.iter().cloned()));
        // One range may take all the room, more of them half of it; and what fits is told.
        prop_assert!(told.len() == 1 || used <= half);
        let all = told.len() == numbers.len();
        prop_assert!(all || told.len() == ACK_RANGES_MAX || used + 16 > half);
    }

    /// A STREAM frame fills any room, with or without its length, and pieces are joined in order.
    #[test]
    fn stream_data_fills_the_room(
        id in any_stream_id(),
        offset in 0..1u64 << 60,
        max_len in 30..20_000usize,
        short_by in 0..6usize,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let mut packet = packet(max_len);
        prop_assert!(packet.push_ping());
        let len = packet.remaining() - stream_overhead(id, offset) - short_by.min(packet.remaining());
        let data = Bytes::from_iter((0..len).map(|i| (i % 251) as u8));
        prop_assert!(!packet.push_stream_header(id, offset, len + short_by + 1, true));
        prop_assert!(packet.push_stream_header(id, offset, len, true));

        prop_assert!(packet.len() <= max_len);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(len + 1)).chain([0, len]).collect();
        cuts.sort_unstable();
        for piece in cuts.windows(2) {
            prop_assert!(packet.push_data(data.slice(piece[0]..piece[1])));
        }
        prop_assert_eq!(received(&packet).unwrap(), [Frame::Ping, Frame::Stream { id, offset, fin: true, data }]);
        // Without a length where nothing would fit behind it, with it elsewhere.
        let kind = gathered(&packet)[packet.header_len() + 1];
        prop_assert_eq!(kind, if short_by > varint::len(len as u64) { 0x0b } else { 0x09 });
        // Nothing goes behind a frame without length; behind one with a length there is room for more.
        let had_room = packet.remaining() > 0;
        prop_assert_eq!(packet.push_ping(), had_room);
        prop_assert_eq!(received(&packet).unwrap().len(), if had_room { 3 } else { 2 });
    }
}

/// Adjacent PADDING is read as one, however it was written.
fn without_shape(frames: Vec<Frame>) -> Vec<Frame> {
    let mut joined: Vec<Frame> = Vec::new();
    for frame in frames {
        match (joined.last_mut(), &frame) {
            (Some(Frame::Padding { bytes }), Frame::Padding { bytes: more }) => *bytes += more,
            _ => joined.push(frame),
        }
    }
    joined
}

fn read_and_write_again(payload: &[u8]) -> Result<(), TestCaseError> {
    let all: Vec<_> = frames(Bytes::copy_from_slice(payload)).collect();
    let errors = all.iter().filter(|frame| frame.is_err()).count();
    prop_assert!(errors == 0 || (errors == 1 && all.last().is_some_and(Result::is_err)));
    let good: Vec<Frame> = all.into_iter().flatten().collect();
    let mut packet = packet(MTU_MAX_BYTES);
    for frame in &good {
        if let Frame::Ack(ack) = frame {
            let ranges: Vec<_> = ack.ranges().collect();
            prop_assert_eq!(*ranges[0].end(), ack.largest);
            prop_assert!(ranges.len() <= ACK_RANGES_MAX);
            prop_assert!(ranges.windows(2).all(|r| r[1].end() + 1 < *r[0].start()));
        }
        prop_assert!(packet.push_frame(frame));
    }
    if !good.is_empty() {
        // Compared as bytes: a varint that was longer than needed is not any more.
        let again = received(&packet).unwrap();
        let mut packet_again = self::packet(MTU_MAX_BYTES);
        prop_assert!(again.iter().all(|frame| packet_again.push_frame(frame)));
        prop_assert_eq!(gathered(&packet), gathered(&packet_again));
    }
    Ok(())
}

// ---- Bad frames ----

/// A varint of eight bytes.
const HUGE: [u8; 8] = [0xff; 8];

#[test]
fn every_cut_of_every_frame_is_refused_by_name() {
    let whole: [(&str, &[u8]); 13] = [
        ("ACK", &[0x02, 3, 9, 0, 0, 1, 2, 1, 1]),
        ("RESET_STREAM", &[0x04, 4, 1, 9]),
        ("STOP_SENDING", &[0x05, 4, 1]),
        ("STREAM", &[0x0a, 4, 0, 2, b'h', b'i']),
        ("OPEN_STREAM", &[0x0c, 4, 0, 0, 2, b'h', b'i']),
        ("MAX_STREAM_DATA", &[0x11, 4, 9]),
        ("MAX_STREAMS", &[0x12, 9]),
        ("WINDOW_WANTED", &[0x15, 9]),
        ("CLOSE", &[0x1c, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 2, b'h', b'i']),
        ("DATAGRAM", &[0x20, 1, 0, 0, 2, 2, b'h', b'i']),
        ("ORDERED_DATAGRAM", &[0x21, 1, 0, 0, 2, 2, b'h', b'i']),
        ("LINK_STATUS", &[0x22, 3, 0, 2, 1, 3, 9]),
        ("LINK_CLOSE", &[0x23, 3, 0]),
    ];
    for (name, payload) in whole {
        let read_whole = read(payload).unwrap();
        assert_eq!(read_whole.iter().map(Frame::name).collect::<Vec<_>>(), [name]);
        for cut in 1..payload.len() {
            match read(&payload[..cut]) {
                Err(FrameError::Truncated { frame, .. }) => assert_eq!(frame, name),
                other => panic!("{name} cut to {cut} bytes: {other:?}"),
            }
        }
    }
}

#[test]
fn unknown_and_long_types_are_refused() {
    for unknown in [0x03, 0x06, 0x07, 0x0d, 0x10, 0x13, 0x1d, 0x24, 0x25, 0x3f] {
        assert_eq!(read(&[unknown]), Err(FrameError::UnknownType(unknown.into())));
    }
    assert_eq!(read(&HUGE), Err(FrameError::UnknownType(VARINT_MAX)));
    assert_eq!(read(&[0x40, 0x01]), Err(FrameError::LongType(1)));
    assert_eq!(read(&[0x40]), Err(FrameError::Truncated { frame: "unknown", field: "type" }));
    assert_eq!(read(&[]), Err(FrameError::NoFrames));
}

#[test]
fn numbers_above_their_limits_are_refused() {
    let stream_past_end = [&[0x0a, 4][..], &HUGE, &[1, b'x']].concat();
    let no_length_past_end = [&[0x08, 4][..], &HUGE, b"x"].concat();
    let links = [[&[0x02][..], &HUGE].concat(), [&[0x22][..], &HUGE].concat(), [&[0x23][..], &HUGE].concat()];
    let cases: [(&str, &str, &[u8]); 19] = [
        ("ACK", "link", &links[0]),
        ("ACK", "range count", &[0x02, 3, 0x7f, 0xff, 0, 0, 0x40, 64]),
        ("STREAM", "length", &stream_past_end),
        ("STREAM", "length", &no_length_past_end),
        ("OPEN_STREAM", "priority", &[0x0c, 4, 0, 0x41, 0x00]),
        ("OPEN_STREAM", "label length", &[0x0c, 4, 0, 0, 0x41, 0x21]),
        ("OPEN_STREAM", "label length", &[&[0x0c, 4, 0, 0][..], &HUGE].concat()),
        ("MAX_STREAMS", "count", &[&[0x12][..], &HUGE].concat()),
        ("CLOSE", "reason length", &[&[0x1c, 1][..], &[0; 16], &[0x40, 129]].concat()),
        ("DATAGRAM", "total length", &[0x20, 1, 0, 0, 0x80, 1, 0, 1]),
        ("DATAGRAM", "offset", &[0x20, 1, 0, 3, 2, 0]),
        ("DATAGRAM", "length", &[0x20, 1, 0, 1, 2, 2, b'h', b'i']),
        ("ORDERED_DATAGRAM", "flow", &[0x21, 0x41, 0x00, 0, 0, 1, 1, b'x']),
        ("ORDERED_DATAGRAM", "total length", &[0x21, 1, 0, 0, 0x80, 1, 0, 1]),
        ("LINK_STATUS", "link", &links[1]),
        ("LINK_STATUS", "status", &[0x22, 3, 0, 3, 0, 0, 0]),
        ("LINK_STATUS", "tier", &[0x22, 3, 0, 0, 0x41, 0, 0, 0]),
        ("LINK_STATUS", "weight", &[0x22, 3, 0, 0, 0, 0x41, 0, 0]),
        ("LINK_CLOSE", "link", &links[2]),
    ];
    for (name, name_of_field, payload) in cases {
        match read(payload) {
            Err(FrameError::TooLarge { frame, field, value, max }) => {
                assert_eq!((frame, field), (name, name_of_field));
                assert!(value > max);
            }
            other => panic!("{name} with its {name_of_field} too large: {other:?}"),
        }
    }
}

#[test]
fn acks_below_zero_are_refused() {
    let cases: [(&str, &[u8]); 4] = [
        ("first range", &[0x02, 3, 9, 0, 0, 0, 10]),
        ("gap", &[0x02, 3, 9, 0, 0, 1, 8, 0, 0]),
        ("gap", &[0x02, 3, 9, 0, 0, 1, 2, 6, 0]),
        ("range", &[0x02, 3, 9, 0, 0, 1, 2, 2, 4]),
    ];
    for (name, payload) in cases {
        assert!(matches!(read(payload), Err(FrameError::BelowZero { field, .. }) if field == name));
    }
    // One step less each, and they reach exactly 0.
    for payload in
        [&[0x02, 3, 9, 0, 0, 0, 9][..], &[0x02, 3, 9, 0, 0, 1, 2, 5, 0], &[0x02, 3, 9, 0, 0, 1, 2, 2, 3]]
    {
        assert!(read(payload).is_ok());
    }
}

#[test]
fn text_that_is_none_and_empty_fragments_are_refused() {
    let label = FrameError::NotText { frame: "OPEN_STREAM", field: "label" };
    assert_eq!(read(&[0x0c, 4, 0, 0, 1, 0xff]), Err(label));
    let reason = FrameError::NotText { frame: "CLOSE", field: "reason" };
    assert_eq!(read(&[&[0x1c, 1][..], &[0; 16], &[1, 0xff]].concat()), Err(reason));
    assert_eq!(read(&[0x20, 1, 0, 0, 2, 0]), Err(FrameError::EmptyFragment { total: 2 }));
    assert!(read(&[0x20, 1, 0, 0, 0, 0]).is_ok());
}

#[test]
fn an_error_ends_the_packet_and_keeps_what_came_before() {
    let mut read = frames(Bytes::from_static(&[0x01, 0x3f, 0x01]));
    assert_eq!(read.next(), Some(Ok(Frame::Ping)));
    assert_eq!(read.next(), Some(Err(FrameError::UnknownType(0x3f))));
    assert_eq!(read.next(), None);
}

#[test]
fn errors_read_as_sentences() {
    let message = |payload: &[u8]| std::string::ToString::to_string(&read(payload).unwrap_err());
    assert_eq!(message(&[0x0a, 4]), "STREAM frame: the packet ends within its offset");
    assert_eq!(message(&[0x22, 3, 0, 9]), "LINK_STATUS frame: status is 9, allowed is 2 at most");
    assert_eq!(
        message(&[0x02, 3, 9, 0, 0, 0, 10]),
        "ACK frame: first range 10 reaches below packet number 0"
    );
}

// ---- The packet buffer ----

#[test]
fn data_is_neither_copied_nor_kept() {
    let data = Bytes::from(vec![7; 1000]);
    let mut packet = packet(1200);
    assert!(packet.push_stream(ID, 0, false, data.clone()));
    let plain = gathered(&packet);
    let read = frames(plain.slice(packet.header_len()..)).next();
    let Some(Ok(Frame::Stream { data: read, .. })) = read else { panic!("{read:?}") };
    assert!(plain.as_ptr_range().contains(&read.as_ptr()), "the data is a slice of the packet");
    packet.clear();
    assert!(data.is_unique(), "an empty packet holds no data");
}

#[test]
fn an_announced_frame_comes_before_any_other() {
    let mut packet = packet(1200);
    assert!(packet.push_stream_header(ID, 0, 2, false));
    assert!(!packet.push_ping() && !packet.push_padding(1) && !packet.push_ack(LINK, 0, 0, &set(&[0..1])));
    assert!(!packet.push_stream_header(ID, 2, 1, false));
    assert!(packet.push_data(Bytes::from_static(b"hi")));
    assert!(packet.push_ping());
    assert_eq!(received(&packet).unwrap().len(), 2);
}

#[test]
fn an_ack_alone_elicits_none() {
    let mut packet = packet(64);
    assert!(!packet.push_ack(LINK, 0, 0, &RangeSet::new()), "nothing to acknowledge");
    assert!(packet.push_ack(LINK, 0, 0, &set(&[0..3])));
    assert!(packet.push_padding(2));
    assert!(!packet.is_ack_eliciting() && !packet.is_empty());
    assert!(packet.push_ping());
    assert!(packet.is_ack_eliciting());
}

#[test]
fn padding_fills_a_packet_to_its_last_byte() {
    let mut packet = packet(64);
    let room = packet.remaining();
    assert!(!packet.push_padding(room + 1) && packet.push_padding(room));
    assert_eq!(packet.remaining(), 0);
}

#[test]
fn control_frames_fit_the_smallest_packet() {
    let room = MTU_MIN_BYTES - TAG_MAX_BYTES;
    let reason = "r".repeat(CLOSE_REASON_MAX_BYTES);
    let mut packet = Packet::new();
    let mut fits = |push: &dyn Fn(&mut Packet) -> bool| {
        packet.begin(LinkId(LINK_ID_MAX), VARINT_MAX, 1, Some(VARINT_MAX - (1 << 31)), room);
        assert_eq!(packet.header_len(), HEADER_MAX_BYTES);
        assert!(push(&mut packet));
    };
    let id = StreamId(VARINT_MAX);
    fits(&|p| p.push_reset_stream(id, VARINT_MAX, VARINT_MAX));
    let label = "l".repeat(STREAM_LABEL_MAX_BYTES);
    fits(&|p| p.push_open_stream(id, Class::Redundant, u8::MAX, &label));
    fits(&|p| p.push_close(VARINT_MAX, &[0; 16], &reason));
    let policy = LinkPolicy {
        usage: Policy::Paused,
        tier: u8::MAX,
        weight: NonZeroU8::new(u8::MAX),
        cap_bytes_per_second: Some(u64::MAX),
    };
    fits(&|p| p.push_link_status(LinkId(LINK_ID_MAX), VARINT_MAX, &policy));
    fits(&|p| {
        p.push_ack(LinkId(LINK_ID_MAX), VARINT_MAX, VARINT_MAX, &set(&[0..1, VARINT_MAX - 1..VARINT_MAX]))
    });
}
