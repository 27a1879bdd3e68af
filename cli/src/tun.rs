//! IP packets over the bond: a network interface at each end, whose packets are ordered datagrams of the bond.
//!
//! The interface lives as long as the command; the bonds that carry its packets come and go. `docs/TUN.md` is for people,
//! PROTOCOL.md, "Applications", has the bytes.

mod checksum;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
mod hello;
mod icmp;
mod limits;
#[cfg(target_os = "linux")]
mod linux;
mod packet;
mod spec;
mod tunnel;

#[cfg(not(target_os = "linux"))]
use elsewhere as system;
#[cfg(target_os = "linux")]
use linux as system;

pub(crate) use hello::TUN_LABEL;
pub(crate) use spec::{TunAddresses, TunName, TunOptions, TunSpec, TunSpecError};
pub(crate) use tunnel::{Opened, TunError, Tunnel};
