//! The deframer of USB transfers: any transfer is cut into frames or refused, and what was cut can be packed again.
#![no_main]

use bondwire_frame::{FrameSink, transfer};
use libfuzzer_sys::fuzz_target;

const PACKET_BYTES: usize = 64;

fuzz_target!(|input: &[u8]| {
    let mut rest: Vec<&[u8]> = transfer::frames(input).map_while(Result::ok).collect();
    let mut out = vec![0; input.len() + 1];
    let room = out.len();
    while !rest.is_empty() {
        let mut writer = transfer::Writer::new(&mut out, room, PACKET_BYTES);
        // A sender never puts HELLO beside other frames, so it can take more transfers than the frames came in.
        let packed = rest.iter().take_while(|frame| writer.put([frame, &[], &[]]).is_ok()).count();
        assert!(packed > 0, "each came in as many bytes");
        let len = writer.finish();
        assert!(len % PACKET_BYTES != 0);
        let behind = rest.split_off(packed);
        assert!(transfer::frames(&out[..len]).eq(rest.into_iter().map(Ok)));
        rest = behind;
    }
});
