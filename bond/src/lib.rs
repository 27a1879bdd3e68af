//! Bonds several links between two hosts (USB cables, serial ports, TCP paths) into one connection with their combined
//! bandwidth, which survives the loss of any of them.
//!
//! - A [`Bond`] is the connection: streams ([`BondStream`] is `AsyncRead + AsyncWrite`) and datagrams.
//! - A [`Listener`] accepts bonds; [`Bond::connect`] makes them.
//! - A *link* carries packets for it: see [`link`] for what a link is and how to make an own one, and the crate
//!   `bondwire-tcp` for TCP. Links come and go; [`Bond::add_dialer`] and [`Listener::add_acceptor`] keep them coming.
//! - Each host has an [`Identity`]; the other end pins its public key. Hosts that do not know each other's key pair with
//!   a token: [`Listener::new_pairing_token`], [`Bond::connect_paired`]. Everything is encrypted.
//!
//! [`Bond`] has an example. The engine without tasks and sockets is the crate `bondwire-core`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bond;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod connector;
pub mod crypto;
mod driver;
pub mod error;
mod events;
mod identity;
pub mod limits;
pub mod link;
mod listener;
mod pool;
mod redial;
mod stream;

pub use bond::{Bond, Link};
pub use config::{AllowedPeers, BondConfig, ListenConfig, PeerLimits};
pub use error::CloseReason;
pub use events::{BondEvent, Events, EventsError};
pub use identity::{Identity, NoEntropy};
pub use listener::Listener;
pub use redial::{DialerHandle, DialerState};
pub use stream::{BondStream, RecvStream, SendStream};

pub use bondwire_core::config::{BufferPool, Config, LinkPolicy, Policy};
pub use bondwire_core::crypto::Suite;
pub use bondwire_core::endpoint::EndpointStats;
pub use bondwire_core::event::{Change, IdleReason, LinkSnapshot, LinkState, LinkStats, Stats};
pub use bondwire_core::handshake::{PairingToken, TokenId};
pub use bondwire_core::id::{BondId, Class, LinkId, PublicKey, Role, StreamId};
pub use bondwire_core::ordered::OrderedStats;
pub use bondwire_core::streams::StreamStats;
pub use bondwire_core::time::{Duration, Instant};
