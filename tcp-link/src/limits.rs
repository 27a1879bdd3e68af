//! Bounds of discovery, each with its unit and its reason.

use std::time::Duration;

/// Links that one [`Discovery`](crate::Discovery) keeps at most: half of what a bond takes, so that replacements and links
/// that are named find room.
pub const DISCOVERED_LINKS_MAX: usize = bondwire::limits::LINKS_MAX / 2;
/// Links over one path at most.
pub const LINKS_PER_PATH_MAX: u8 = 8;
/// Addresses tried for one link: those of one interface of the peer, from one interface here.
pub const ROUTES_MAX: usize = 16;
/// Interfaces in one advertisement.
pub const ADVERTISED_INTERFACES_MAX: usize = 16;
/// Addresses of one interface in an advertisement.
pub const ADVERTISED_ADDRESSES_MAX: usize = 8;
/// Bytes of an interface's name in an advertisement: `IFNAMSIZ` less its terminating zero.
pub const ADVERTISED_NAME_MAX_BYTES: usize = 15;
/// Longest advertisement in bytes: as many interfaces, names and IPv6 addresses as there may be.
pub const ADVERTISEMENT_MAX_BYTES: usize =
    1 + ADVERTISED_INTERFACES_MAX * (2 + ADVERTISED_NAME_MAX_BYTES + ADVERTISED_ADDRESSES_MAX * 19);
/// Addresses that were not in the last advertisement and are taken at once: two complete changes of a large host.
pub const NEW_ADDRESSES_BURST: u32 = 64;
/// Time in which one more new address is taken after that: a peer that lies can make this host dial sixty others in a minute.
pub const NEW_ADDRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two advertisements that are sent or taken.
pub const ADVERTISEMENT_INTERVAL: Duration = Duration::from_millis(250);
/// Time that changes of interfaces have to settle: an interface, its address and its route come one after the other.
pub const SETTLE_TIME: Duration = Duration::from_millis(50);
/// How often interfaces are looked at where the system does not tell of changes.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How often they are looked at where it does, in case a message was lost.
pub const SAFETY_POLL_INTERVAL: Duration = Duration::from_secs(30);
/// Time for looking up a host's name, and time after which that is done again while no link is up.
pub const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);
/// Addresses of a given host that are used.
pub const GIVEN_ADDRESSES_MAX: usize = 16;
