//! Speed tests: verified data, measured where it arrives.

pub(crate) mod acceptor;
pub(crate) mod asker;
mod data;
pub(crate) mod meter;
pub(crate) mod pattern;
pub(crate) mod protocol;
pub(crate) mod report;
pub(crate) mod run;
