//! What is read of an IP packet, and the one thing that is changed: the segment size of a TCP that begins.
//!
//! Nothing is believed: each length is checked against what there is.

use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bondwire::limits::ORDERED_PROMPT_FLOWS;

use super::checksum;
use super::limits::PROMPT_MAX_BYTES;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP_V6: u8 = 58;
/// Lengths of the headers without options.
pub(super) const V4_BYTES: usize = 20;
pub(super) const V6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
/// Further headers of IPv6 that are read over: hop-by-hop, routing, destination options. One of each, and one more.
const V6_EXTENSIONS: [u8; 3] = [0, 43, 60];
const V6_EXTENSIONS_MAX: usize = 4;
const V6_FRAGMENT: u8 = 44;
/// Classes of traffic (DSCP) that ask for little delay: AF21, which ssh uses for keys, CS5, VOICE-ADMIT, EF, CS6, CS7.
const PROMPT_CLASSES: [u8; 6] = [18, 40, 44, 46, 48, 56];
const DNS_PORT: u16 = 53;

/// The packet is none, or its lengths contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What the headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Headers {
    pub(super) source: IpAddr,
    pub(super) target: IpAddr,
    /// Class of traffic.
    dscp: u8,
    pub(super) protocol: u8,
    /// Where what the protocol has begins.
    pub(super) payload_at: usize,
    /// Of a fragment: its number. What follows need not be a header.
    fragment: Option<u32>,
    /// Not the first fragment.
    pub(super) is_later_fragment: bool,
    /// A router must not cut it.
    pub(super) is_whole_only: bool,
}

impl Headers {
    pub(super) fn of(packet: &[u8]) -> Result<Self, Malformed> {
        match packet.first().map(|first| first >> 4) {
            Some(4) => Self::of_v4(packet),
            Some(6) => Self::of_v6(packet),
            _ => Err(Malformed),
        }
    }

    fn of_v4(packet: &[u8]) -> Result<Self, Malformed> {
        let header: &[u8; V4_BYTES] = packet.first_chunk().ok_or(Malformed)?;
        let payload_at = usize::from(header[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if payload_at < V4_BYTES || total < payload_at || total != packet.len() {
            return Err(Malformed);
        }
        if checksum::of(checksum::sum(&packet[..payload_at])) != 0 {
            return Err(Malformed);
        }
        let offset = u16::from_be_bytes([header[6], header[7]]);
        let number = u16::from_be_bytes([header[4], header[5]]);
        let address =
            |at: usize| IpAddr::V4(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
        Ok(Self {
            source: address(12),
            target: address(16),
            dscp: header[1] >> 2,
            protocol: header[9],
            payload_at,
            // More fragments, or an offset.
            fragment: (offset & 0x3fff != 0).then_some(number.into()),
            is_later_fragment: offset & 0x1fff != 0,
            is_whole_only: offset & 0x4000 != 0,
        })
    }

    fn of_v6(packet: &[u8]) -> Result<Self, Malformed> {
        let header: &[u8; V6_BYTES] = packet.first_chunk().ok_or(Malformed)?;
        if usize::from(u16::from_be_bytes([header[4], header[5]])) + V6_BYTES != packet.len() {
            return Err(Malformed);
        }
        let address = |at: usize| {
            let octets: [u8; 16] = header[at..at + 16].try_into().unwrap_or_default();
            IpAddr::V6(Ipv6Addr::from(octets))
        };
        let mut headers = Self {
            source: address(8),
            target: address(24),
            dscp: (header[0] & 0x0f) << 2 | header[1] >> 6,
            protocol: header[6],
            payload_at: V6_BYTES,
            fragment: None,
            is_later_fragment: false,
            is_whole_only: true,
        };
        for _ in 0..V6_EXTENSIONS_MAX {
            let at = headers.payload_at;
            let length = match headers.protocol {
                V6_FRAGMENT => 8,
                kind if V6_EXTENSIONS.contains(&kind) => {
                    usize::from(*packet.get(at + 1).ok_or(Malformed)?) * 8 + 8
                }
                _ => return Ok(headers),
            };
            let extension = packet.get(at..at + length).ok_or(Malformed)?;
            if headers.protocol == V6_FRAGMENT {
                let number = [extension[4], extension[5], extension[6], extension[7]];
                headers.fragment = Some(u32::from_be_bytes(number));
                headers.is_later_fragment = u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 != 0;
            }
            headers.protocol = extension[0];
            headers.payload_at = at + length;
            if headers.is_later_fragment {
                break;
            }
        }
        Ok(headers)
    }

    /// The two ports, if the protocol has such and they are there.
    fn ports(&self, packet: &[u8]) -> Option<(u16, u16)> {
        if self.fragment.is_some() || !matches!(self.protocol, TCP | UDP) {
            return None;
        }
        let ports: &[u8; 4] = packet.get(self.payload_at..)?.first_chunk()?;
        Some((u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]])))
    }

    /// The flow of the bond that carries it: packets that must not overtake each other have the same.
    pub(super) fn flow(&self, packet: &[u8], hasher: &impl BuildHasher) -> u8 {
        let ports = self.ports(packet);
        let hash =
            hasher.hash_one((self.source, self.target, self.dscp, self.protocol, ports, self.fragment));
        let prompt = u64::from(ORDERED_PROMPT_FLOWS);
        let place =
            if self.is_prompt(packet, ports) { hash % prompt } else { prompt + hash % (256 - prompt) };
        place as u8
    }

    fn is_prompt(&self, packet: &[u8], ports: Option<(u16, u16)>) -> bool {
        let is_small = packet.len() <= PROMPT_MAX_BYTES;
        let is_lookup = |(from, to)| self.protocol == UDP && (from == DNS_PORT || to == DNS_PORT);
        PROMPT_CLASSES.contains(&self.dscp)
            || is_small && (matches!(self.protocol, ICMP | ICMP_V6) || ports.is_some_and(is_lookup))
    }

    /// Has a TCP connection that begins send segments of which each fits `mtu` bytes (RFC 4459 section 3.2). Says whether anything
    /// was changed.
    pub(super) fn clamp_segment_size(&self, packet: &mut [u8], mtu: u16) -> bool {
        let ip_bytes = if self.source.is_ipv4() { V4_BYTES } else { V6_BYTES };
        let most = mtu.saturating_sub((ip_bytes + TCP_BYTES) as u16);
        if self.protocol != TCP || self.fragment.is_some() {
            return false;
        }
        let Some(tcp) = packet.get_mut(self.payload_at..) else { return false };
        let Some(at) = segment_size_at(tcp) else { return false };
        let old = u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        if old <= most {
            return false;
        }
        // The words of the checksum may lie across this one: each half is a change of its own.
        let mut sum = u16::from_be_bytes([tcp[16], tcp[17]]);
        for (at, new) in (at..).zip(most.to_be_bytes()) {
            let word = |byte: u8| if at % 2 == 0 { u16::from(byte) << 8 } else { u16::from(byte) };
            sum = checksum::after_change(sum, word(tcp[at]), word(new));
            tcp[at] = new;
        }
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        true
    }
}

/// Where the segment size stands in the header of a TCP that begins: the value of option 2.
fn segment_size_at(tcp: &[u8]) -> Option<usize> {
    const SYN: u8 = 2;
    if tcp.len() < TCP_BYTES || tcp[13] & SYN == 0 {
        return None;
    }
    let end = usize::from(tcp[12] >> 4) * 4;
    if end > tcp.len() {
        return None;
    }
    let mut at = TCP_BYTES;
    while at + 1 < end {
        match (tcp[at], usize::from(tcp[at + 1])) {
            (0, _) => return None,
            (1, _) => at += 1,
            (2, 4) if at + 4 <= end => return Some(at + 2),
            (_, length) if length >= 2 => at += length,
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
#[path = "packet_tests.rs"]
pub(super) mod tests;
