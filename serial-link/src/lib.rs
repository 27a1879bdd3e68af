//! Serial ports as packet links for Bondwire: USB adapters, UARTs and CDC ACM devices.
//!
//! Both ends begin at 115 200 baud and climb to the fastest rate that they and the cable carry, and step down when noise
//! begins. A cable that is pulled ends the link; plugged in again, also under another name, it comes back.
//!
//! ```no_run
//! # async fn example(bond: bondwire::Bond) -> Result<(), Box<dyn std::error::Error>> {
//! use bondwire_serial::{SerialAddress, SerialDialer};
//! let address: SerialAddress = "/dev/ttyUSB0".parse()?;
//! bond.add_dialer(SerialDialer::new(address)); // keeps one link up from now on
//! # Ok(()) }
//! ```
#![cfg(unix)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod climb;
mod console;
mod diagnosis;
mod dial;
mod discover;
mod driver;
mod endpoint;
mod error;
pub mod limits;
mod link;
mod port;

pub use address::{AddressError, SerialAddress};
pub use dial::{SerialAcceptor, SerialDialer};
pub use discover::{Port, UsbDevice, ports};
pub use endpoint::LineCounters;
pub use error::PortError;
pub use link::{SerialLink, SerialReader, SerialWriter};
