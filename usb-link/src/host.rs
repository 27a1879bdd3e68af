//! The host side of a cable: finds devices, claims their interface, and keeps links to them.

mod address;
mod cable;
mod dial;
mod endpoints;
mod fault;
mod links;
mod watch;

pub use address::{UsbAddress, UsbAddressError};
pub use cable::{Cable, CableId, cables};
pub use dial::{UsbDialer, endpoints};
pub use endpoints::{HostInlet, HostOutlet};
pub use fault::CableFault;
pub use links::{CableLink, CableLinks};
pub use watch::CableWatch;
