//! The deframer of USB transfers: any transfer is cut into frames or refused, and what was cut can be packed again.
#![no_main]

use bondwire_frame::{FrameSink, transfer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let frames: Vec<&[u8]> = transfer::frames(input).map_while(Result::ok).collect();
    let mut out = vec![0; input.len() + 1];
    let room = out.len();
    let mut writer = transfer::Writer::new(&mut out, room, 64);
    for frame in &frames {
        writer.put([frame, &[], &[]]).expect("they came in as many bytes");
    }
    let len = writer.finish();
    assert!(len == 0 || len % 64 != 0);
    assert!(transfer::frames(&out[..len]).eq(frames.into_iter().map(Ok)));
});
