//! TCP links for Bondwire: dial and accept them, each over the network interface and with the congestion control
//! you name.
//!
//! ```
//! # async fn example(bond: bondwire::Bond) -> Result<(), Box<dyn std::error::Error>> {
//! use bondwire_tcp::{TcpAddress, TcpDialer};
//! let address: TcpAddress = "router.example:7700,iface=eth0".parse()?;
//! bond.add_dialer(TcpDialer::new(address)); // keeps one link up from now on
//! # Ok(()) }
//! ```

mod accept;
mod address;
mod dial;
mod link;
mod options;
mod startup;

pub use accept::TcpAcceptor;
pub use address::{AddressError, DEFAULT_PORT, TcpAddress};
pub use dial::TcpDialer;
pub use link::{TcpLink, TcpReader, TcpWriter};
