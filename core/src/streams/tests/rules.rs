//! What the application and the peer may do, and what not.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use super::{contents, join, streams};
use crate::id::{Class, LinkId, Role, StreamId};
use crate::limits::{ASSEMBLER_CHUNKS_MAX, SEND_BUFFER_MIN_BYTES, STREAM_LABEL_MAX_BYTES};
use crate::pool::BufferPool;
use crate::streams::{
    Control, OpenError, Pieces, ReadError, SentStream, StreamError, StreamEvent, Streams, StreamsConfig,
    Take, Violation, WriteError,
};

const LINK: LinkId = LinkId(3);

fn events(streams: &mut Streams) -> Vec<StreamEvent> {
    core::iter::from_fn(|| streams.poll_event()).collect()
}

fn controls(streams: &mut Streams) -> Vec<Control> {
    core::iter::from_fn(|| streams.next_control()).collect()
}

fn take(
    streams: &mut Streams,
    class: Class,
    skip_bytes: u64,
    max_bytes: usize,
) -> Option<(SentStream, Bytes)> {
    let mut pieces = Pieces::new();
    let sent = streams.take(Take { link: LINK, class, skip_bytes, max_bytes }, &mut pieces)?;
    Some((sent, join(&pieces)))
}

/// An end whose one stream may send as much as it likes.
fn sender(class: Class) -> (Streams, StreamId) {
    let mut streams = streams(Role::Initiator, 1 << 20);
    streams.link_added(LINK);
    let id = streams.open(class, 0, "").unwrap();
    streams.on_max_stream_data(id, u64::MAX >> 2).unwrap();
    assert_eq!(controls(&mut streams).len(), 1);
    (streams, id)
}

/// An end at which the peer has opened one stream.
fn receiver() -> (Streams, StreamId) {
    let mut streams = streams(Role::Responder, 1 << 20);
    let id = StreamId::new(Role::Initiator, 0);
    streams.on_open(id, Class::Bulk, 0, String::new()).unwrap();
    assert_eq!(streams.accept().unwrap().id, id);
    assert_eq!(events(&mut streams), [StreamEvent::Opened]);
    (streams, id)
}

#[test]
fn opening_is_limited_and_announced() {
    let mut streams = streams(Role::Initiator, 1 << 20);
    assert_eq!(
        streams.open(Class::Bulk, 0, &"x".repeat(STREAM_LABEL_MAX_BYTES + 1)),
        Err(OpenError::LabelTooLong { len: STREAM_LABEL_MAX_BYTES + 1 })
    );
    let max = super::super::streams_allowed(1 << 20, u64::MAX);
    for index in 0..max {
        assert_eq!(streams.open(Class::Bulk, 0, ""), Ok(StreamId::new(Role::Initiator, index)));
    }
    assert_eq!(streams.open(Class::Bulk, 0, ""), Err(OpenError::LimitReached { open: max, max }));
    assert_eq!(streams.poll_event(), None);
    // Raised by the peer, but the receive buffer has no room for more windows.
    streams.on_max_streams(max + 1);
    assert_eq!(streams.poll_event(), None);
    assert!(streams.open(Class::Bulk, 0, "").is_err());
}

#[test]
fn nothing_can_be_opened_before_the_peers_limits_are_known() {
    let mut streams = Streams::new(crate::streams::StreamsConfig {
        buffers: BufferPool::default(),
        role: Role::Initiator,
        receive_buffer_bytes: 1 << 20,
        send_buffer_max_bytes: 1 << 20,
        streams_max_local: 10,
        streams_told: None,
    });
    assert_eq!(streams.open(Class::Bulk, 0, ""), Err(OpenError::LimitReached { open: 0, max: 0 }));
    streams.set_peer_limits(1, 4096);
    assert_eq!(events(&mut streams), [StreamEvent::OpenPossible]);
    assert!(streams.open(Class::Bulk, 0, "").is_ok());
    assert_eq!(streams.open(Class::Bulk, 0, ""), Err(OpenError::LimitReached { open: 1, max: 1 }));
    streams.on_max_streams(2);
    assert_eq!(events(&mut streams), [StreamEvent::OpenPossible]);
}

#[test]
fn what_the_handshake_told_holds_until_the_rest_is_granted() {
    let told = |told, max| {
        let mut streams = Streams::new(crate::streams::StreamsConfig {
            buffers: BufferPool::default(),
            role: Role::Responder,
            receive_buffer_bytes: 1 << 20,
            send_buffer_max_bytes: 1 << 20,
            streams_max_local: max,
            streams_told: Some(told),
        });
        let open = |streams: &mut Streams, index| {
            let id = StreamId::new(Role::Initiator, index);
            streams.on_open(id, Class::Bulk, 0, String::new())
        };
        assert!(open(&mut streams, told).is_err(), "one more than it was told");
        streams.set_peer_limits(1, 4096);
        (
            open(&mut streams, told - 1).is_ok(),
            open(&mut streams, max - 1).is_ok(),
            open(&mut streams, told.max(max)),
        )
    };
    // Fewer than it may have: the rest is granted at once. More: that cannot be taken back.
    for (fewer, more) in [(4, 10), (10, 4)] {
        let (first, last, beyond) = told(fewer, more);
        assert!(first && last && matches!(beyond, Err(Violation::StreamLimit { .. })), "{fewer} {more}");
    }
}

#[test]
fn a_stream_is_accepted_once_it_was_announced() {
    let mut streams = streams(Role::Responder, 1 << 20);
    let id = StreamId::new(Role::Initiator, 5);
    streams.on_stream(id, 0, Bytes::from_static(b"early"), false).unwrap();
    assert_eq!(streams.accept(), None);
    streams.on_open(id, Class::Interactive, 9, "label".to_string()).unwrap();
    // Sent again.
    streams.on_open(id, Class::Interactive, 9, "label".to_string()).unwrap();
    let accepted = streams.accept().unwrap();
    assert_eq!((accepted.id, accepted.class, accepted.priority), (id, Class::Interactive, 9));
    assert_eq!(accepted.label, "label");
    assert_eq!(streams.accept(), None);
    assert_eq!(streams.read_chunk(id, 99).unwrap().unwrap(), "early");
    let contradiction = streams.on_open(id, Class::Bulk, 9, "label".to_string());
    assert_eq!(contradiction, Err(Violation::OpenMismatch(id)));
}

#[test]
fn frames_for_impossible_streams_are_violations() {
    let (mut streams, own) = sender(Class::Bulk);
    let unopened = StreamId::new(Role::Initiator, 1);
    assert_eq!(streams.on_max_stream_data(unopened, 1), Err(Violation::NotOpened(unopened)));
    assert_eq!(streams.on_stop_sending(unopened, 1), Err(Violation::NotOpened(unopened)));
    assert_eq!(streams.on_open(own, Class::Bulk, 0, String::new()), Err(Violation::OpenMismatch(own)));
    let max = super::super::streams_allowed(1 << 20, u64::MAX);
    let id = StreamId::new(Role::Responder, max);
    assert_eq!(streams.on_stream(id, 0, Bytes::new(), false), Err(Violation::StreamLimit { id, max }));
    assert_eq!(streams.on_open(id, Class::Bulk, 0, String::new()), Err(Violation::StreamLimit { id, max }));
    assert!(streams.on_open(StreamId::new(Role::Responder, max - 1), Class::Bulk, 0, String::new()).is_ok());
}

#[test]
fn the_final_size_never_changes() {
    let (mut streams, id) = receiver();
    streams.on_stream(id, 0, Bytes::from_static(b"abcdef"), false).unwrap();
    let short = streams.on_stream(id, 0, Bytes::from_static(b"abc"), true);
    assert_eq!(short, Err(Violation::FinalSize { id, known: 6, said: 3 }));
    assert_eq!(streams.on_reset_stream(id, 0, 5), Err(Violation::FinalSize { id, known: 6, said: 5 }));
    streams.on_stream(id, 8, Bytes::from_static(b"ij"), true).unwrap();
    let long = streams.on_stream(id, 8, Bytes::from_static(b"ijk"), false);
    assert_eq!(long, Err(Violation::FinalSize { id, known: 10, said: 11 }));
    let other = streams.on_stream(id, 9, Bytes::new(), true);
    assert_eq!(other, Err(Violation::FinalSize { id, known: 10, said: 9 }));
    assert_eq!(streams.on_reset_stream(id, 0, 11), Err(Violation::FinalSize { id, known: 10, said: 11 }));
    streams.on_stream(id, 6, Bytes::from_static(b"gh"), false).unwrap();
    assert_eq!(streams.read_chunk(id, 99).unwrap().unwrap(), "abcdefghij");
    assert_eq!(streams.read_chunk(id, 99), Ok(None));
    assert_eq!(streams.read_chunk(id, 99), Ok(None));
}

#[test]
fn waiting_pieces_are_bounded_over_all_streams() {
    let mut streams = streams(Role::Responder, 64 << 20);
    let mut violations = 0;
    'all: for index in 0.. {
        let id = StreamId::new(Role::Initiator, index);
        for at in (1..4096).step_by(2) {
            if let Err(violation) = streams.on_stream(id, at, Bytes::from_static(b"x"), false) {
                assert_eq!(violation, Violation::Pieces(id));
                violations += 1;
                // What closes a gap is taken even so.
                assert!(streams.on_stream(id, 0, Bytes::from_static(b"x"), false).is_ok());
                break 'all;
            }
        }
    }
    assert_eq!(violations, 1);
    assert!(streams.stats().waiting_pieces <= ASSEMBLER_CHUNKS_MAX);
}

#[test]
fn a_full_send_buffer_blocks_until_a_quarter_is_free() {
    let (mut streams, id) = sender(Class::Bulk);
    let data = contents(0, 0..1 << 20);
    let taken = streams.write(id, &data).unwrap();
    assert!(taken as u64 >= SEND_BUFFER_MIN_BYTES && taken < data.len());
    assert_eq!(streams.write(id, b"x"), Err(WriteError::Blocked(id)));
    assert_eq!(streams.write(id, b""), Ok(0));
    let mut acked = 0;
    while acked < taken / 4 - 1200 {
        let (sent, _) = take(&mut streams, Class::Bulk, 0, 1200).unwrap();
        streams.on_acked(LINK, &sent);
        acked += sent.len as usize;
    }
    assert_eq!(events(&mut streams), []);
    for _ in 0..2 {
        let (sent, _) = take(&mut streams, Class::Bulk, 0, 1200).unwrap();
        streams.on_acked(LINK, &sent);
    }
    assert_eq!(events(&mut streams), [StreamEvent::Writable(id)]);
    // The links turn out to be worth more.
    streams.set_send_buffer(8 << 20);
    assert_eq!(streams.write(id, &data), Ok(data.len()));
}

#[test]
fn all_send_buffers_together_are_bounded() {
    let max = 1 << 20;
    let mut streams = Streams::new(crate::streams::StreamsConfig {
        buffers: BufferPool::default(),
        role: Role::Initiator,
        receive_buffer_bytes: 1 << 20,
        send_buffer_max_bytes: max,
        streams_max_local: 64,
        streams_told: None,
    });
    streams.set_peer_limits(1000, 4096);
    streams.set_send_buffer(1 << 40);
    let data = contents(0, 0..2 << 20);
    let mut ids = Vec::new();
    while let Ok(id) = streams.open(Class::Bulk, 0, "") {
        assert!(streams.write(id, &data).is_ok(), "every stream gets something");
        ids.push(id);
    }
    assert!(ids.len() > 60);
    for id in &ids {
        while streams.write(*id, &data).is_ok() {}
    }
    let held = streams.stats().send_buffered_bytes;
    assert!(held <= max && held > max / 2, "{held}");
}

#[test]
fn bytes_beyond_the_window_wait_and_the_fin_does_not_need_one() {
    let mut streams = streams(Role::Initiator, 1 << 20);
    let id = streams.open(Class::Bulk, 0, "").unwrap();
    streams.write(id, &contents(0, 0..5000)).unwrap();
    assert_eq!(streams.backlog(Class::Bulk), 4096);
    streams.finish(id).unwrap();
    assert_eq!(streams.backlog(Class::Bulk), 4096);
    let (sent, _) = take(&mut streams, Class::Bulk, 0, 9000).unwrap();
    assert_eq!((sent.len, sent.fin), (4096, false));
    assert!(!streams.has_work(Class::Bulk));
    streams.on_max_stream_data(id, 5000).unwrap();
    // A lower limit that was late changes nothing.
    streams.on_max_stream_data(id, 10).unwrap();
    assert_eq!(streams.backlog(Class::Bulk), 905);
    let (sent, data) = take(&mut streams, Class::Bulk, 0, 9000).unwrap();
    assert_eq!((sent.offset, sent.len, sent.fin), (4096, 904, true));
    assert_eq!(data, contents(0, 4096..5000));
    assert!(!streams.has_work(Class::Bulk));
}

#[test]
fn an_empty_fin_is_sent_and_lost_and_sent_again() {
    let (mut streams, id) = sender(Class::Interactive);
    streams.finish(id).unwrap();
    streams.finish(id).unwrap();
    assert_eq!(streams.write(id, b"x"), Err(WriteError::Finished(id)));
    assert_eq!(streams.backlog(Class::Interactive), 1);
    assert_eq!(take(&mut streams, Class::Interactive, 1, 1000), None);
    assert_eq!(take(&mut streams, Class::Interactive, 0, 2), None);
    let (sent, _) = take(&mut streams, Class::Interactive, 0, 1000).unwrap();
    assert_eq!((sent.len, sent.fin), (0, true));
    assert!(!streams.has_work(Class::Interactive) && !streams.is_all_acknowledged());
    assert_eq!(streams.on_lost(LINK, &sent), 1);
    let (again, _) = take(&mut streams, Class::Interactive, 0, 1000).unwrap();
    assert_eq!(sent, again);
    assert_eq!(streams.on_acked(LINK, &sent), 1);
    assert_eq!(streams.on_acked(LINK, &again), 0);
    assert_eq!(events(&mut streams), [StreamEvent::Finished(id)]);
    assert!(streams.is_all_acknowledged());
}

#[test]
fn a_slow_link_takes_bytes_further_back() {
    let (mut streams, id) = sender(Class::Bulk);
    streams.write(id, &contents(id.0, 0..100_000)).unwrap();
    let (sent, data) = take(&mut streams, Class::Bulk, 60_000, 1000).unwrap();
    assert_eq!(sent.offset, 60_000);
    assert_eq!(data, contents(id.0, 60_000..60_000 + u64::from(sent.len)));
    // What is sent already does not count.
    let (first, _) = take(&mut streams, Class::Bulk, 0, 10_000).unwrap();
    assert_eq!(first.offset, 0);
    let (next, _) = take(&mut streams, Class::Bulk, 60_000, 1000).unwrap();
    assert_eq!(next.offset, 60_000 + u64::from(first.len) + u64::from(sent.len));
    assert_eq!(take(&mut streams, Class::Bulk, 100_000, 1000), None);
    // What is lost comes first.
    assert_eq!(streams.on_lost(LINK, &first), u64::from(first.len));
    assert_eq!(streams.stats().lost_bytes, u64::from(first.len));
    let (again, _) = take(&mut streams, Class::Bulk, 0, 10_000).unwrap();
    assert_eq!(again, first);
    assert_eq!(streams.stats().lost_bytes, 0);
}

#[test]
fn a_skip_is_shared_by_the_streams_that_have_a_backlog() {
    let (mut streams, first) = sender(Class::Bulk);
    let second = streams.open(Class::Bulk, 0, "").unwrap();
    streams.on_max_stream_data(second, 1 << 20).unwrap();
    streams.write(first, &contents(0, 0..1000)).unwrap();
    streams.write(second, &contents(0, 0..50_000)).unwrap();
    // The first stream does not reach back to 5000, the second does.
    let (sent, _) = take(&mut streams, Class::Bulk, 10_000, 1000).unwrap();
    assert_eq!((sent.id, sent.offset), (second, 5000));
}

#[test]
fn streams_take_turns_within_a_priority() {
    let mut streams = streams(Role::Initiator, 1 << 20);
    let urgent = streams.open(Class::Bulk, 1, "").unwrap();
    let others: Vec<StreamId> = (0..3).map(|_| streams.open(Class::Bulk, 2, "").unwrap()).collect();
    for id in &others {
        streams.write(*id, &[0; 300]).unwrap();
    }
    let served = |streams: &mut Streams| take(streams, Class::Bulk, 0, 100).unwrap().0.id;
    let turns: Vec<StreamId> = (0..6).map(|_| served(&mut streams)).collect();
    assert_eq!(turns, [&others[..], &others[..]].concat());
    streams.write(urgent, &[0; 150]).unwrap();
    assert_eq!([served(&mut streams), served(&mut streams)], [urgent; 2]);
    assert_eq!(served(&mut streams), others[0]);
}

#[test]
fn scraps_of_room_are_not_filled() {
    let (mut streams, id) = sender(Class::Bulk);
    streams.write(id, &[0; 100]).unwrap();
    assert_eq!(take(&mut streams, Class::Bulk, 0, 20), None);
    let (sent, _) = take(&mut streams, Class::Bulk, 0, 50).unwrap();
    assert!(sent.len >= 32);
}

#[test]
fn late_bytes_go_a_second_time() {
    let (mut streams, id) = sender(Class::Bulk);
    streams.write(id, &contents(id.0, 0..10_000)).unwrap();
    let (first, data) = take(&mut streams, Class::Bulk, 0, 3000).unwrap();
    streams.on_lost(LINK, &first);
    let (copy, again) = take(&mut streams, Class::Bulk, 0, 3000).unwrap();
    assert_eq!((&copy, &data), (&first, &again));
    // The copy arrives, then the original: once is enough.
    assert_eq!(streams.on_acked(LINK, &copy), u64::from(copy.len));
    assert_eq!(streams.on_acked(LINK, &first), 0);
    assert_eq!(streams.on_lost(LINK, &first), 0);
    assert!(take(&mut streams, Class::Bulk, 0, 3000).unwrap().0.offset > 0);
}

#[test]
fn redundant_streams_go_over_every_link_and_the_first_copy_wins() {
    let (mut streams, id) = sender(Class::Redundant);
    let other = LinkId(9);
    let on = |streams: &mut Streams, link| {
        let mut pieces = Pieces::new();
        let sent = streams
            .take(Take { link, class: Class::Redundant, skip_bytes: 0, max_bytes: 600 }, &mut pieces)?;
        assert_eq!(join(&pieces), contents(id.0, sent.offset..sent.offset + u64::from(sent.len)));
        Some(sent)
    };
    streams.write(id, &contents(id.0, 0..1000)).unwrap();
    streams.finish(id).unwrap();
    streams.link_added(other);
    let first = on(&mut streams, LINK).unwrap();
    let same = on(&mut streams, other).unwrap();
    assert_eq!(first, same);
    let rest = on(&mut streams, LINK).unwrap();
    assert!(rest.fin && !streams.has_redundant_work(LINK) && streams.has_redundant_work(other));
    // What the peer has is not sent on the other link any more.
    streams.on_acked(LINK, &rest);
    assert!(!streams.has_redundant_work(other));
    // Each link repairs its own losses, until another copy has arrived.
    assert_eq!(streams.on_lost(LINK, &first), u64::from(first.len));
    assert!(streams.has_redundant_work(LINK) && !streams.has_redundant_work(other));
    // With the last link gone the bytes wait for the next one.
    streams.link_removed(LINK);
    streams.link_removed(other);
    assert_eq!(streams.on_lost(other, &same), 0);
    assert_eq!(streams.backlog(Class::Redundant), 0);
    streams.link_added(LINK);
    let again = on(&mut streams, LINK).unwrap();
    assert_eq!(again.offset, 0);
    assert_eq!(streams.on_acked(LINK, &again), u64::from(again.len));
    assert_eq!(events(&mut streams), [StreamEvent::Finished(id)]);
}

#[test]
fn a_reset_drops_what_is_not_delivered() {
    let (mut streams, id) = sender(Class::Bulk);
    streams.write(id, &[0; 10_000]).unwrap();
    let (sent, _) = take(&mut streams, Class::Bulk, 0, 1000).unwrap();
    streams.reset(id, 42).unwrap();
    assert_eq!(streams.stats().send_buffered_bytes, 0);
    assert!(!streams.has_work(Class::Bulk) && streams.is_all_acknowledged());
    assert_eq!(streams.write(id, b"x"), Err(WriteError::Reset(id)));
    assert_eq!(streams.finish(id), Err(StreamError::Reset(id)));
    let reset = Control::ResetStream { id, code: 42, final_size: u64::from(sent.len) };
    assert_eq!(controls(&mut streams), core::slice::from_ref(&reset));
    assert_eq!(streams.on_lost(LINK, &sent), 0);
    streams.control_lost(&reset.key());
    assert!(streams.has_control());
    assert_eq!(controls(&mut streams), core::slice::from_ref(&reset));
    streams.control_acked(&reset.key());
    streams.control_lost(&reset.key());
    assert!(!streams.has_control());
}

#[test]
fn a_reset_by_the_peer_reaches_the_reader() {
    let (mut streams, id) = receiver();
    assert_eq!(streams.read_chunk(id, 10), Err(ReadError::Blocked(id)));
    streams.on_stream(id, 0, Bytes::from_static(b"lost"), false).unwrap();
    streams.on_reset_stream(id, 42, 100).unwrap();
    streams.on_reset_stream(id, 42, 100).unwrap();
    let told = events(&mut streams);
    assert_eq!(told, [StreamEvent::Readable(id), StreamEvent::ResetByPeer { id, code: 42 }]);
    for _ in 0..2 {
        assert_eq!(streams.read_chunk(id, 10), Err(ReadError::Reset { id, code: 42 }));
    }
}

#[test]
fn a_reset_after_the_last_byte_changes_nothing() {
    let (mut streams, id) = receiver();
    streams.on_stream(id, 0, Bytes::from_static(b"all"), true).unwrap();
    streams.on_reset_stream(id, 42, 3).unwrap();
    assert_eq!(streams.read_chunk(id, 10).unwrap().unwrap(), "all");
    assert_eq!(streams.read_chunk(id, 10), Ok(None));
}

#[test]
fn stop_sending_resets_the_other_end() {
    let (mut streams, id) = sender(Class::Bulk);
    streams.write(id, &[0; 10_000]).unwrap();
    streams.on_stop_sending(id, 7).unwrap();
    streams.on_stop_sending(id, 8).unwrap();
    assert_eq!(events(&mut streams), [StreamEvent::Stopped { id, code: 7 }]);
    assert_eq!(streams.write(id, b"x"), Err(WriteError::Stopped { id, code: 7 }));
    assert_eq!(streams.finish(id), Err(StreamError::Stopped { id, code: 7 }));
    assert_eq!(controls(&mut streams), [Control::ResetStream { id, code: 7, final_size: 0 }]);

    let (mut streams, id) = receiver();
    streams.on_stream(id, 0, Bytes::from_static(b"unread"), false).unwrap();
    streams.stop_sending(id, 7).unwrap();
    assert_eq!(controls(&mut streams), [Control::StopSending { id, code: 7 }]);
    assert_eq!(streams.read_chunk(id, 10), Err(ReadError::Stopped(id)));
    let late = streams.on_stream(id, 6, Bytes::from_static(b"late"), false).unwrap();
    assert_eq!((late.new_bytes, late.duplicate_bytes), (0, 4));
    streams.on_reset_stream(id, 7, 10).unwrap();
    assert_eq!(streams.read_chunk(id, 10), Err(ReadError::Stopped(id)));
    assert_eq!(events(&mut streams), [StreamEvent::Readable(id)]);
}

#[test]
fn only_the_newest_window_is_repeated() {
    let (mut streams, id) = receiver();
    let mut offset = 0;
    let mut windows = Vec::new();
    while windows.len() < 2 {
        streams.on_stream(id, offset, Bytes::from(contents(0, offset..offset + 500)), false).unwrap();
        streams.read_chunk(id, 999).unwrap();
        offset += 500;
        windows.extend(streams.next_control());
    }
    streams.control_lost(&windows[0].key());
    assert!(!streams.has_control());
    streams.control_lost(&windows[1].key());
    assert_eq!(controls(&mut streams), [windows[1].clone()]);
    // With the end known no window is needed.
    streams.control_lost(&windows[1].key());
    streams.on_stream(id, offset, Bytes::new(), true).unwrap();
    assert_eq!(streams.next_control(), None);
    assert!(!streams.has_control());
}

#[test]
fn readable_is_told_once_until_the_reader_comes_back() {
    let (mut streams, id) = receiver();
    streams.on_stream(id, 3, Bytes::from_static(b"def"), false).unwrap();
    assert_eq!(events(&mut streams), []);
    streams.on_stream(id, 0, Bytes::from_static(b"abc"), false).unwrap();
    streams.on_stream(id, 6, Bytes::from_static(b"ghi"), false).unwrap();
    assert_eq!(events(&mut streams), [StreamEvent::Readable(id)]);
    streams.on_stream(id, 9, Bytes::from_static(b"jkl"), false).unwrap();
    assert_eq!(events(&mut streams), []);
    assert_eq!(streams.read_chunk(id, 99).unwrap().unwrap(), "abcdefghijkl");
    assert_eq!(streams.read_chunk(id, 99), Err(ReadError::Blocked(id)));
    streams.on_stream(id, 12, Bytes::new(), true).unwrap();
    assert_eq!(events(&mut streams), [StreamEvent::Readable(id)]);
    assert_eq!(streams.read_chunk(id, 99), Ok(None));
}

#[test]
fn unknown_streams_are_errors_for_the_application() {
    let mut streams = streams(Role::Initiator, 1 << 20);
    let id = StreamId(77);
    assert_eq!(streams.write(id, b"x"), Err(WriteError::Unknown(id)));
    assert_eq!(streams.write_chunk(id, &mut Bytes::from_static(b"x")), Err(WriteError::Unknown(id)));
    assert_eq!(streams.read_chunk(id, 1), Err(ReadError::Unknown(id)));
    assert_eq!(streams.finish(id), Err(StreamError::Unknown(id)));
    assert_eq!(streams.reset(id, 0), Err(StreamError::Unknown(id)));
    assert_eq!(streams.stop_sending(id, 0), Err(StreamError::Unknown(id)));
    streams.close(id);
}

#[test]
fn an_empty_stream_that_is_reset_does_not_look_finished() {
    let (mut streams, id) = receiver();
    streams.on_reset_stream(id, 42, 0).unwrap();
    assert_eq!(streams.read_chunk(id, 10), Err(ReadError::Reset { id, code: 42 }));
}

#[test]
fn offsets_at_the_end_of_the_number_space_do_no_harm() {
    let (mut streams, id) = sender(Class::Bulk);
    streams.on_max_stream_data(id, u64::MAX).unwrap();
    streams.on_window_wanted(u64::MAX);
    streams.on_max_streams(u64::MAX);
    streams.set_send_buffer(u64::MAX);
    streams.write(id, &[0; 100]).unwrap();
    assert!(take(&mut streams, Class::Bulk, u64::MAX, usize::MAX).is_none());
    assert!(take(&mut streams, Class::Bulk, 0, usize::MAX).is_some());
    let theirs = StreamId::new(Role::Responder, 0);
    assert!(streams.on_stream(theirs, u64::MAX, Bytes::from_static(b"xy"), true).is_err());
    assert!(streams.on_reset_stream(theirs, u64::MAX, u64::MAX).is_err());
    assert!(streams.on_stream(StreamId(u64::MAX), 0, Bytes::new(), true).is_err());
    streams.on_stream(theirs, 0, Bytes::from(contents(theirs.0, 0..4096)), false).unwrap();
    assert!(streams.read_chunk(theirs, usize::MAX).unwrap().is_some());
}

#[test]
fn only_the_newest_number_of_streams_is_told_again() {
    let mut streams = Streams::new(StreamsConfig {
        buffers: BufferPool::default(),
        role: Role::Responder,
        receive_buffer_bytes: 1 << 20,
        send_buffer_max_bytes: 1 << 20,
        streams_max_local: 8,
        streams_told: None,
    });
    let counts = [0, 1].map(|index| {
        let id = StreamId::new(Role::Initiator, index);
        streams.on_open(id, Class::Bulk, 0, String::new()).unwrap();
        assert_eq!(streams.accept().unwrap().id, id);
        streams.on_reset_stream(id, 0, 0).unwrap();
        streams.reset(id, 0).unwrap();
        streams.close(id);
        events(&mut streams);
        let mut sent = controls(&mut streams);
        sent.iter().for_each(|control| streams.control_acked(&control.key()));
        sent.extend(controls(&mut streams));
        sent.pop().unwrap()
    });
    assert_eq!(counts, [Control::MaxStreams { count: 9 }, Control::MaxStreams { count: 10 }]);
    streams.control_lost(&counts[0].key());
    assert_eq!(streams.next_control(), None);
    streams.control_lost(&counts[1].key());
    assert_eq!(streams.next_control().as_ref(), Some(&counts[1]));
}
