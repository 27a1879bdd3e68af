//! The engine of Bondwire: many packet links become ordered, encrypted streams.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod config;
pub mod connection;
pub mod crypto;
pub mod datagrams;
pub mod endpoint;
pub mod error;
pub mod event;
mod fragments;
pub mod handshake;
pub mod id;
pub mod limits;
mod link;
pub mod ordered;
mod policy;
mod pool;
pub mod range_set;
mod scheduler;
pub mod streams;
pub mod time;
pub mod wire;
