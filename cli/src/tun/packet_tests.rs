//! Packets as they are, and as they should not be.

use std::hash::RandomState;

use proptest::prelude::*;

use super::*;

/// A packet of UDP that is `len` bytes long.
pub(in crate::tun) fn udp_v4(len: usize, whole_only: bool) -> Vec<u8> {
    let mut packet = vec![
        0x45,
        0,
        0,
        0,
        0,
        7,
        if whole_only { 0x40 } else { 0 },
        0,
        64,
        UDP,
        0,
        0,
        10,
        9,
        0,
        1,
        10,
        9,
        0,
        2,
    ];
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet.extend([0x30, 0x39, 0x10, 0x92]);
    packet.resize(len, 0xab);
    seal(&mut packet);
    packet
}

pub(in crate::tun) fn udp_v6(len: usize) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, UDP, 64];
    packet[4..6].copy_from_slice(&((len - V6_BYTES) as u16).to_be_bytes());
    packet.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend([0x30, 0x39, 0x10, 0x92]);
    packet.resize(len, 0xab);
    packet
}

/// Puts the checksum of an IPv4 header right.
fn seal(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = checksum::of(checksum::sum(&packet[..V4_BYTES]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The first packet of a TCP with these options.
fn syn(options: &[u8]) -> Vec<u8> {
    let mut packet = udp_v4(V4_BYTES + TCP_BYTES + options.len(), true);
    packet[9] = TCP;
    seal(&mut packet);
    let tcp = &mut packet[V4_BYTES..];
    tcp[TCP_BYTES..].copy_from_slice(options);
    tcp[12] = (((TCP_BYTES + options.len()) / 4) << 4) as u8;
    tcp[13] = 2;
    let sum = tcp_checksum(&packet);
    packet[V4_BYTES + 16..V4_BYTES + 18].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn tcp_checksum(packet: &[u8]) -> u16 {
    let mut tcp = packet[V4_BYTES..].to_vec();
    tcp[16..18].fill(0);
    checksum::of(checksum::sum(&packet[12..20]) + u64::from(TCP) + tcp.len() as u64 + checksum::sum(&tcp))
}

#[test]
fn headers_are_read() {
    let v4 = Headers::of(&udp_v4(100, true)).unwrap();
    assert_eq!((v4.source.to_string(), v4.target.to_string()), ("10.9.0.1".into(), "10.9.0.2".into()));
    assert_eq!((v4.protocol, v4.payload_at, v4.is_whole_only, v4.fragment), (UDP, 20, true, None));
    assert_eq!(v4.ports(&udp_v4(100, true)), Some((12345, 4242)));
    let v6 = Headers::of(&udp_v6(100)).unwrap();
    assert_eq!((v6.source.to_string(), v6.target.to_string()), ("fd00::1".into(), "fd00::2".into()));
    assert_eq!(v6.ports(&udp_v6(100)), Some((12345, 4242)));
}

#[test]
fn what_is_no_packet_is_told() {
    let good = udp_v4(100, true);
    let bad = |change: fn(&mut Vec<u8>)| {
        let mut packet = good.clone();
        change(&mut packet);
        Headers::of(&packet)
    };
    assert!(bad(|_| ()).is_ok());
    let cases: [fn(&mut Vec<u8>); 7] = [
        Vec::clear,
        |packet| packet.truncate(19),
        |packet| packet.truncate(99),
        |packet| packet.push(0),
        |packet| packet[0] = 0x44,
        |packet| packet[0] = 0x55,
        |packet| packet[8] = 63,
    ];
    for (number, case) in cases.into_iter().enumerate() {
        assert_eq!(bad(case), Err(Malformed), "{number}");
    }
    let mut v6 = udp_v6(100);
    v6[6] = 0;
    v6[41] = 255;
    assert_eq!(Headers::of(&v6), Err(Malformed), "an extension behind the end");
    v6[6] = V6_FRAGMENT;
    v6.truncate(44);
    v6[5] = 4;
    assert_eq!(Headers::of(&v6), Err(Malformed));
}

#[test]
fn fragments_have_no_ports() {
    let mut first = udp_v4(100, false);
    first[6] = 0x20;
    seal(&mut first);
    let headers = Headers::of(&first).unwrap();
    assert_eq!((headers.fragment, headers.is_later_fragment, headers.ports(&first)), (Some(7), false, None));
    let mut later = first.clone();
    later[7] = 10;
    seal(&mut later);
    let hasher = RandomState::new();
    let later_headers = Headers::of(&later).unwrap();
    assert!(later_headers.is_later_fragment);
    assert_eq!(headers.flow(&first, &hasher), later_headers.flow(&later, &hasher));
    let mut v6 = udp_v6(100);
    v6[6] = V6_FRAGMENT;
    v6[40..48].copy_from_slice(&[UDP, 0, 0, 8, 0, 0, 0, 9]);
    let headers = Headers::of(&v6).unwrap();
    assert_eq!((headers.fragment, headers.is_later_fragment, headers.payload_at), (Some(9), true, 48));
}

#[test]
fn flows_are_those_of_ports_and_what_is_waited_for_has_its_own() {
    let hasher = RandomState::new();
    let flow = |packet: &[u8]| Headers::of(packet).unwrap().flow(packet, &hasher);
    let bulk = udp_v4(1400, true);
    assert_eq!(flow(&bulk), flow(&udp_v4(700, true)), "the length says nothing");
    assert!(flow(&bulk) >= ORDERED_PROMPT_FLOWS);
    let flows: std::collections::BTreeSet<u8> = (0..=255)
        .map(|port| {
            let mut other = bulk.clone();
            other[21] = port;
            flow(&other)
        })
        .collect();
    assert!(flows.len() > 100, "{}", flows.len());
    let mut ping = udp_v4(84, true);
    ping[9] = ICMP;
    seal(&mut ping);
    assert!(flow(&ping) < ORDERED_PROMPT_FLOWS);
    let mut marked = bulk.clone();
    marked[1] = 46 << 2;
    seal(&mut marked);
    assert!(flow(&marked) < ORDERED_PROMPT_FLOWS);
    let mut lookup = udp_v4(84, true);
    lookup[22..24].copy_from_slice(&53_u16.to_be_bytes());
    assert!(flow(&lookup) < ORDERED_PROMPT_FLOWS);
}

#[test]
fn the_segment_size_of_a_beginning_is_made_to_fit() {
    let size = |packet: &[u8], at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    // In its usual place, and behind one byte of nothing.
    for (options, at) in [([2, 4, 5, 180, 1, 1, 1, 1], 42), ([1, 2, 4, 5, 180, 1, 1, 1], 43)] {
        let mut packet = syn(&options);
        let headers = Headers::of(&packet).unwrap();
        assert!(!headers.clamp_segment_size(&mut packet, 1500));
        assert_eq!(packet, syn(&options));
        assert!(headers.clamp_segment_size(&mut packet, 1400));
        assert_eq!(size(&packet, at), 1360);
        assert_eq!(packet[36..38], tcp_checksum(&packet).to_be_bytes());
    }
    let mut later = syn(&[2, 4, 5, 180]);
    later[V4_BYTES + 13] = 16;
    assert!(!Headers::of(&later).unwrap().clamp_segment_size(&mut later, 600), "no beginning");
    let mut broken = syn(&[3, 0, 2, 4, 5, 180, 1, 1]);
    assert!(
        !Headers::of(&broken).unwrap().clamp_segment_size(&mut broken, 600),
        "an option without a length"
    );
}

proptest! {
    /// Nothing makes it read behind the end, or change what it should not.
    #[test]
    fn whatever_comes_is_read_to_its_end(mut packet in proptest::collection::vec(any::<u8>(), 0..120), kind in 0..4, next: u8, mtu: u16) {
        if packet.len() >= V6_BYTES {
            let len = packet.len() as u16;
            match kind {
                0 => {
                    packet[0] = 0x40 | packet[0] & 0x0f;
                    packet[2..4].copy_from_slice(&len.to_be_bytes());
                    packet[9] = if next % 2 == 0 { TCP } else { next };
                    let header = usize::from(packet[0] & 0x0f) * 4;
                    if header >= V4_BYTES && header <= packet.len() {
                        packet[10..12].fill(0);
                        let sum = checksum::of(checksum::sum(&packet[..header]));
                        packet[10..12].copy_from_slice(&sum.to_be_bytes());
                    }
                }
                1 => {
                    packet[0] = 0x60;
                    packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
                    packet[6] = [0, 43, 44, 60, TCP, UDP, next][usize::from(next % 7)];
                }
                _ => {}
            }
        }
        if let Ok(headers) = Headers::of(&packet) {
            prop_assert!(headers.payload_at <= packet.len());
            headers.flow(&packet, &RandomState::new());
            let before = packet.len();
            if let Some(answer) = super::super::icmp::too_big(&headers, &packet, mtu) {
                prop_assert!(Headers::of(&answer).is_ok());
            }
            headers.clamp_segment_size(&mut packet, mtu);
            prop_assert_eq!(packet.len(), before);
        }
    }
}
