//! The header of a packet, before anything is authenticated.
//!
//! Input: eight bytes, the largest authenticated packet number plus one or 0 for none, then the packet.
#![no_main]

use bondwire_core::wire::header;
use bondwire_core::wire::varint::VARINT_MAX;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((largest, packet)) = input.split_first_chunk::<8>() else { return };
    let largest = u64::from_be_bytes(*largest).checked_sub(1);
    let Ok((header, header_len)) = header::decode(packet, largest) else { return };
    assert!(header.number <= VARINT_MAX && (2..=5).contains(&header_len) && header_len <= packet.len());
    assert!(!header::is_handshake(packet));

    // Written for a receiver that has seen exactly the numbers below, it is never longer, and means the same.
    let before = header.number.checked_sub(1);
    let mut again = Vec::new();
    assert!(header::encode(header, before, &mut again) <= header_len);
    assert_eq!(header::decode(&again, before), Ok((header, again.len())));
});
