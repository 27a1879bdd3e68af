//! The answer to a packet that is too big for the way (RFC 792 and 1191, RFC 4443).

use std::net::IpAddr;

use super::checksum;
use super::limits::QUOTED_MAX_BYTES;
use super::packet::{Headers, ICMP, ICMP_V6, V4_BYTES, V6_BYTES};

/// Hops that an answer may take: it goes to this host or a near one.
const HOPS: u8 = 64;

/// Tells the sender of `packet` that at most `mtu` bytes are possible; in the name of whom it wanted to reach, since that is who it
/// has a way to. `None` if there must be no answer: to an error, to many, or to a fragment other than the first.
pub(super) fn too_big(headers: &Headers, packet: &[u8], mtu: u16) -> Option<Vec<u8>> {
    if headers.is_later_fragment || headers.target.is_multicast() || is_error(headers, packet) {
        return None;
    }
    let quoted = &packet[..packet.len().min(QUOTED_MAX_BYTES)];
    match (headers.source, headers.target) {
        (IpAddr::V4(source), IpAddr::V4(target)) if headers.is_whole_only => {
            // Destination unreachable, fragmentation needed.
            let mut message = vec![3, 4, 0, 0, 0, 0];
            message.extend(mtu.to_be_bytes());
            message.extend(quoted);
            put_checksum(&mut message, 0);
            let total = (V4_BYTES + message.len()) as u16;
            let mut answer = vec![0x45, 0, 0, 0, 0, 0, 0, 0, HOPS, ICMP, 0, 0];
            answer[2..4].copy_from_slice(&total.to_be_bytes());
            answer.extend(target.octets());
            answer.extend(source.octets());
            let sum = checksum::of(checksum::sum(&answer));
            answer[10..12].copy_from_slice(&sum.to_be_bytes());
            answer.extend(message);
            Some(answer)
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let mut message = vec![2, 0, 0, 0, 0, 0];
            message.extend(mtu.to_be_bytes());
            message.extend(quoted);
            let pseudo = checksum::sum(&target.octets()) + checksum::sum(&source.octets());
            let length = message.len() as u64;
            put_checksum(&mut message, pseudo + length + u64::from(ICMP_V6));
            let mut answer = vec![0x60, 0, 0, 0, 0, 0, ICMP_V6, HOPS];
            answer[4..6].copy_from_slice(&(message.len() as u16).to_be_bytes());
            answer.extend(target.octets());
            answer.extend(source.octets());
            debug_assert_eq!(answer.len(), V6_BYTES);
            answer.extend(message);
            Some(answer)
        }
        // A fragment of it would do, and the bond carries it whole.
        _ => None,
    }
}

/// Puts the checksum of a message in, with what else counts for it.
fn put_checksum(message: &mut [u8], and: u64) {
    let sum = checksum::of(checksum::sum(message) + and);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// Whether the packet says that something went wrong.
fn is_error(headers: &Headers, packet: &[u8]) -> bool {
    match (headers.protocol, packet.get(headers.payload_at)) {
        (ICMP, Some(kind)) => !matches!(kind, 0 | 8 | 13 | 14),
        (ICMP_V6, Some(kind)) => *kind < 128,
        (ICMP | ICMP_V6, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::{udp_v4, udp_v6};
    use super::*;

    #[test]
    fn the_sender_hears_what_is_possible() {
        let packet = udp_v4(1400, true);
        let headers = Headers::of(&packet).unwrap();
        let answer = too_big(&headers, &packet, 1300).unwrap();
        let about = Headers::of(&answer).unwrap();
        assert_eq!((about.source, about.target, about.protocol), (headers.target, headers.source, ICMP));
        assert_eq!(answer[20..22], [3, 4]);
        assert_eq!(answer[26..28], 1300_u16.to_be_bytes());
        assert_eq!(answer[28..], packet[..QUOTED_MAX_BYTES]);
        assert_eq!(checksum::of(checksum::sum(&answer[20..])), 0);
        // No answer to an answer.
        let mut again = answer.clone();
        again[6] = 0x40;
        let sum = {
            again[10..12].fill(0);
            checksum::of(checksum::sum(&again[..20]))
        };
        again[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(too_big(&Headers::of(&again).unwrap(), &again, 500), None);
    }

    #[test]
    fn so_does_the_sender_of_ipv6() {
        let packet = udp_v6(1400);
        let headers = Headers::of(&packet).unwrap();
        let answer = too_big(&headers, &packet, 1280).unwrap();
        let about = Headers::of(&answer).unwrap();
        assert_eq!((about.source, about.target, about.protocol), (headers.target, headers.source, ICMP_V6));
        assert_eq!(answer[40..42], [2, 0]);
        assert_eq!(answer[44..48], 1280_u32.to_be_bytes());
        let length = (answer.len() - 40) as u64;
        assert_eq!(checksum::of(checksum::sum(&answer[8..]) + length + 58), 0);
        assert_eq!(too_big(&about, &answer, 1280), None);
    }

    #[test]
    fn what_may_be_cut_is_carried() {
        let packet = udp_v4(1400, false);
        assert_eq!(too_big(&Headers::of(&packet).unwrap(), &packet, 1300), None);
    }
}
