//! Connections and datagrams of this host's programs as streams and datagrams of a bond.
//!
//! An [`inlet`] takes them in, an [`outlet`] at the other end connects them to their target. With `-L`, `-D` and `-W`
//! the inlet is at the end that connects, with `-R` at the one that listens.

pub(crate) mod address;
pub(crate) mod carrier;
mod carry;
mod connection;
pub(crate) mod drain;
mod flows;
pub(crate) mod inlet;
pub(crate) mod outlet;
pub(crate) mod permits;
pub(crate) mod pipe;
pub(crate) mod remote;
pub(crate) mod socks;
pub(crate) mod spec;
pub(crate) mod table;
mod udp;
