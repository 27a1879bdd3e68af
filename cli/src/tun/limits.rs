//! Bounds of IP packets over the bond, with reasons.

use std::time::Duration;

/// Largest packet in bytes, if nothing is said. Below what any network on the way takes for the whole, so that a tunnel inside
/// this one has room; and so that a packet fits one of a link, other than of a serial line.
pub(super) const MTU_DEFAULT_BYTES: u16 = 1400;
/// Smallest that every host takes: RFC 791.
pub(super) const MTU_MIN_V4_BYTES: u16 = 576;
/// The same of IPv6: RFC 8200.
pub(super) const MTU_MIN_V6_BYTES: u16 = 1280;
/// Name of an interface, in bytes: `IFNAMSIZ` without the zero behind it.
pub(super) const NAME_MAX_BYTES: usize = 15;
/// Addresses that an end may tell: one of each family now, and room for more.
pub(super) const ADDRESSES_MAX: usize = 8;
/// Time for the other end to say what it is. It has nothing to look up.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before the other end is asked again, when it refused or ended: it may have been started without its half, and be again
/// with it.
pub(super) const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// Packets of the bond that are taken at once: what a link brings in one read.
pub(super) const TAKEN_AT_ONCE: usize = 64;
/// Packets of the interface that are read before other tasks have their turn.
pub(super) const READ_AT_ONCE: usize = 64;
/// Bytes of a packet that an answer to it quotes. IPv4 hosts take 576 bytes for sure, IPv6 hosts 1280; an answer of less than that
/// holds all headers that anybody looks for.
pub(super) const QUOTED_MAX_BYTES: usize = 512;
/// Largest packet of flows that somebody waits for, in bytes, where nothing but its size and kind tells: a ping, a name looked up.
pub(super) const PROMPT_MAX_BYTES: usize = 576;
