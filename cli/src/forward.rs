//! TCP connections as streams of a bond.

pub(crate) mod acceptor;
mod carry;
pub(crate) mod local;
pub(crate) mod spec;
