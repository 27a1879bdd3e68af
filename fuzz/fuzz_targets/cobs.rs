//! The deframer of serial lines: any bytes, in any pieces, give the same frames; a session takes them all.
//!
//! Input: the length of the pieces (one byte), then what is on the line.
#![no_main]

use bondwire_frame::{Config, FrameSink, Instant, Role, Session, cobs};
use libfuzzer_sys::fuzz_target;

/// Memory for one frame.
const FRAME_BYTES: usize = 640;

fuzz_target!(|input: &[u8]| {
    let Some((&piece, line)) = input.split_first() else { return };
    let mut whole = cobs::Decoder::new([0; FRAME_BYTES]);
    let mut session = Session::new(Instant::ZERO, Config::serial(Role::Acceptor), 1);
    let (mut frames, mut rest) = (Vec::new(), line);
    while let Some(frame) = whole.next_frame(&mut rest) {
        frames.push(frame.to_vec());
        let _ = session.handle_frame(Instant::ZERO, frame);
    }

    let mut pieces = cobs::Decoder::new(vec![0; FRAME_BYTES]);
    let mut again = frames.iter();
    for mut piece in line.chunks(usize::from(piece).max(1)) {
        while let Some(frame) = pieces.next_frame(&mut piece) {
            assert_eq!(again.next().map(Vec::as_slice), Some(&*frame));
        }
    }
    assert!(again.next().is_none());
    assert_eq!((whole.resyncs(), whole.too_long()), (pieces.resyncs(), pieces.too_long()));

    for frame in &frames {
        let mut out = [0; cobs::encoded_max_bytes(FRAME_BYTES)];
        let mut writer = cobs::Writer::new(&mut out);
        writer.put([frame, &[], &[]]).expect("room for any frame that fits the decoder");
        let len = writer.len();
        let mut decoder = cobs::Decoder::new([0; FRAME_BYTES]);
        assert_eq!(decoder.next_frame(&mut &out[..len]).map(|frame| frame.to_vec()).as_ref(), Some(frame));
    }
});
