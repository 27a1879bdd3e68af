//! A world in virtual time for the engine of Bondwire.
//!
//! Two real engines, with real handshakes and real sealing, are joined by cables that fail. One seed decides
//! everything: cables, work, faults, and every roll of the dice on the way. Then the faults stop, and all work must be
//! done within a bound. An oracle verifies each byte, each bound and each promise of the engine's calling contract.
//!
//! ```no_run
//! let report = bondwire_sim::run_seed(1);
//! assert_eq!(report.failure, None, "replay it: cargo xtask sim --seeds 1 --seed 1 --trace");
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod app;
mod attach;
mod bond;
mod command;
mod content;
mod dialer;
mod dice;
mod fault;
mod host;
mod lane;
mod line;
mod net;
mod pipe;
mod plan;
mod queue;
mod report;
mod stage;
mod trace;
mod work;
mod world;

pub use command::{command, run_many, run_seed};
pub use fault::{Fault, FaultKind, Way};
pub use plan::{CablePlan, Cipher, Finale, Medium, Plan};
pub use report::{Coverage, Report, TRANSITIONS};
pub use world::World;
