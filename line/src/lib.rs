//! A serial line in software: each direction has the pace of its baud rate, may flip, lose and add bits and bytes, and turns
//! into garbage when the two ends do not agree on the rate.
//!
//! - [`Wire`] is one direction as a model, with time as an argument: for simulators.
//! - [`PtyLine`] (Unix) joins two pseudo-terminals by such wires: programs open its ends as they open real ports. Ends can be
//!   hung up, and plugged in again under another name.

#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(unix)]
mod pty;
mod wire;

#[cfg(unix)]
pub use pty::{End, PtyLine};
pub use wire::{Noise, Wire};
