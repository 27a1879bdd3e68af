//! The engine of Bondwire: many packet links become ordered, encrypted streams.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod id;
pub mod limits;
pub mod time;
