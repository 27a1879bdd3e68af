//! The measuring pair: one small server and its clients, over plain TCP or MPTCP.
//!
//! They know nothing of Bondwire. A port forward between them shows what it does to real connections.

pub mod client;
pub mod clock;
pub mod crowd;
pub mod curl;
pub mod pattern;
mod series;
pub mod server;
pub mod ssh;

pub use series::{BUCKET, Series};

use std::io;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of one block of a paced stream.
pub const PACED_BLOCK_BYTES: usize = 1250;

/// Which protocol carries the measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// TCP as everybody knows it.
    #[default]
    Plain,
    /// The kernel's Multipath TCP (RFC 8684).
    Mptcp,
}

impl Transport {
    fn socket(self) -> io::Result<Socket> {
        let protocol = match self {
            Self::Plain => Protocol::TCP,
            Self::Mptcp => Protocol::MPTCP,
        };
        Socket::new(Domain::IPV4, Type::STREAM, Some(protocol))
    }
}

/// The scheduled sending time and the arrival of one block of a paced stream, on [`clock`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Arrival {
    /// When the block was to be sent. It counts from here even if the sender was held up.
    pub scheduled_ns: u64,
    /// When its last byte had come.
    pub arrived_ns: u64,
}
