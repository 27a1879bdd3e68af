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
//!
//! With one address of the peer known, [`Discovery`] finds the other paths by itself, and follows what comes and goes.
//! The peer tells where else it listens with [`advertise`].

mod accept;
mod address;
mod advertisement;
mod dial;
mod discovery;
mod filter;
pub mod interfaces;
pub mod limits;
mod link;
mod options;
mod startup;
mod tunnels;

pub use accept::TcpAcceptor;
pub use address::{AddressError, DEFAULT_PORT, TcpAddress};
pub use advertisement::{LearnError, Listening, advertise};
pub use dial::TcpDialer;
pub use discovery::{DiscoveredLink, Discovery, DiscoveryConfig, GivenAddress, Path, Route};
pub use filter::{AddressFilter, Families, FilterError, InterfaceFilter, Network, NetworkFilter};
pub use link::{TcpLink, TcpReader, TcpWriter};
pub use tunnels::OffLimits;
