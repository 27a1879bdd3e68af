//! Answering a TCP segment with a reset, as a firewall does (RFC 9293 section 3.10.7.1).

const IPV4_HEADER_BYTES: usize = 20;
const TCP_HEADER_BYTES: usize = 20;
const PROTOCOL_TCP: u8 = 6;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The reset that makes the sender of `packet` drop its connection at once, or `None` if the packet is not
/// an IPv4 TCP segment or is itself a reset.
///
/// The reset's sequence number is what the segment acknowledges, so exactly what its sender expects next;
/// any other number would only earn a challenge (RFC 5961 section 3).
#[must_use]
pub(super) fn answer(packet: &[u8]) -> Option<[u8; IPV4_HEADER_BYTES + TCP_HEADER_BYTES]> {
    let header_bytes = usize::from(packet.first()? & 0x0f) * 4;
    if packet[0] >> 4 != 4 || *packet.get(9)? != PROTOCOL_TCP || header_bytes < IPV4_HEADER_BYTES {
        return None;
    }
    let (source, destination) = (packet.get(12..16)?, packet.get(16..20)?);
    let segment = packet.get(header_bytes..)?;
    if segment.len() < TCP_HEADER_BYTES || segment[13] & RST != 0 {
        return None;
    }
    let flags = segment[13];
    let sequence = u32::from_be_bytes(segment[4..8].try_into().ok()?);
    let acknowledged = u32::from_be_bytes(segment[8..12].try_into().ok()?);
    let data_bytes = segment.len().saturating_sub(usize::from(segment[12] >> 4) * 4);
    let occupied =
        u32::try_from(data_bytes).ok()? + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);

    let mut reply = [0; IPV4_HEADER_BYTES + TCP_HEADER_BYTES];
    let (ip, tcp) = reply.split_at_mut(IPV4_HEADER_BYTES);
    ip[0] = 0x45;
    ip[3] = 40; // The whole length; its high byte stays 0.
    ip[8] = 64; // Time to live.
    ip[9] = PROTOCOL_TCP;
    ip[12..16].copy_from_slice(destination);
    ip[16..20].copy_from_slice(source);
    let checksum = checksum(&[ip]);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());

    tcp[0..2].copy_from_slice(&segment[2..4]);
    tcp[2..4].copy_from_slice(&segment[0..2]);
    if flags & ACK != 0 {
        tcp[4..8].copy_from_slice(&acknowledged.to_be_bytes());
        tcp[13] = RST;
    } else {
        tcp[8..12].copy_from_slice(&sequence.wrapping_add(occupied).to_be_bytes());
        tcp[13] = RST | ACK;
    }
    tcp[12] = 5 << 4; // The header's length in words of 32 bits.
    let pseudo_header = [0, PROTOCOL_TCP, 0, 20];
    let checksum = self::checksum(&[&ip[12..20], &pseudo_header, tcp]);
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    Some(reply)
}

/// The Internet checksum (RFC 1071) over parts of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks_exact(2));
    let mut sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(flags: u8, data: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[9] = PROTOCOL_TCP;
        packet[12..16].copy_from_slice(&[10, 77, 1, 1]);
        packet[16..20].copy_from_slice(&[10, 77, 1, 2]);
        packet[20..24].copy_from_slice(&[0x30, 0x39, 0x1e, 0x14]);
        packet[24..28].copy_from_slice(&1000u32.to_be_bytes());
        packet[28..32].copy_from_slice(&5000u32.to_be_bytes());
        packet[32] = 5 << 4;
        packet[33] = flags;
        packet.extend_from_slice(data);
        packet
    }

    #[test]
    fn data_is_answered_with_the_expected_sequence_number() {
        let reply = answer(&segment(ACK, b"data")).unwrap();
        assert_eq!(reply[12..20], [10, 77, 1, 2, 10, 77, 1, 1]);
        assert_eq!(reply[20..24], [0x1e, 0x14, 0x30, 0x39]);
        assert_eq!(reply[24..28], 5000u32.to_be_bytes());
        assert_eq!(reply[33], RST);
        assert_eq!(checksum(&[&reply[..20]]), 0);
        assert_eq!(checksum(&[&reply[12..20], &[0, 6, 0, 20], &reply[20..]]), 0);
    }

    #[test]
    fn a_first_segment_is_refused() {
        let reply = answer(&segment(SYN, b"")).unwrap();
        assert_eq!(reply[24..28], [0; 4]);
        assert_eq!(reply[28..32], 1001u32.to_be_bytes());
        assert_eq!(reply[33], RST | ACK);
    }

    #[test]
    fn resets_and_other_packets_are_not_answered() {
        assert!(answer(&segment(RST, b"")).is_none());
        assert!(answer(&[]).is_none());
        assert!(answer(&[0x60; 60]).is_none());
        let whole = segment(ACK, b"");
        for length in 0..whole.len() {
            assert!(answer(&whole[..length]).is_none(), "answered a packet cut at {length}");
        }
    }
}
