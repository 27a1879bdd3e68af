//! Side-by-side benchmarks and end-to-end tests of Bondwire between two network namespaces.
//!
//! A scenario builds two hosts and the links between them ([`network`], [`emulator`], [`namespace`]), runs a
//! subject over them (plain TCP, kernel MPTCP, or the `bondwire` program), and measures with its own small
//! client and server ([`traffic`]), which are the same for every subject.

pub mod emulator;
pub mod iperf;
pub mod namespace;
pub mod network;
pub mod path;
pub mod process;
pub mod report;
pub mod scenarios;
pub mod stats;
pub mod subject;
mod sys;
pub mod traffic;
