//! The plaintext of a packet: any bytes are read or refused, and what was read can be written and read again.
#![no_main]

use bondwire_core::id::LinkId;
use bondwire_core::limits::{ACK_RANGES_MAX, MTU_MAX_BYTES};
use bondwire_core::wire::frame::{Frame, frames};
use bondwire_core::wire::packet::Packet;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let payload = &payload[..payload.len().min(MTU_MAX_BYTES - 16)];
    let first: Vec<Frame> = frames(Bytes::copy_from_slice(payload)).map_while(Result::ok).collect();
    first.iter().for_each(check_ack);
    let written = write(&first);
    let second: Vec<Frame> = frames(written.clone()).map_while(Result::ok).collect();
    assert_eq!(first.len(), second.len());
    assert_eq!(written, write(&second));
});

fn check_ack(frame: &Frame) {
    let Frame::Ack(ack) = frame else { return };
    let ranges: Vec<_> = ack.ranges().collect();
    assert!(ranges.len() <= ACK_RANGES_MAX && ranges[0].end() == &ack.largest);
    assert!(ranges.windows(2).all(|pair| pair[1].end() + 1 < *pair[0].start()));
}

fn write(frames: &[Frame]) -> Bytes {
    let mut packet = Packet::new();
    packet.begin(LinkId(0), 0, 0, None, MTU_MAX_BYTES);
    for frame in frames {
        assert!(packet.push_frame(frame), "{frame:?} does not fit");
    }
    let mut plain = Vec::new();
    packet.gather(&mut plain);
    assert_eq!(plain.len(), packet.len());
    Bytes::from(plain).slice(packet.header_len()..)
}
