//! Tests under a stock kernel in a virtual machine, with USB cables joined in software, and with udev.
//!
//! A test asks [`guest()`] whether it runs in the virtual machine, and leaves saying so when it does not:
//!
//! ```
//! fn a_cable_has_two_ends() {
//!     let Some(guest) = bondwire_vm::guest() else { return };
//!     let cables = guest.cables(1, bondwire_vm::Speed::High).unwrap();
//!     assert_eq!(cables.controllers().unwrap(), ["dummy_udc.0"]);
//! }
//! ```
//!
//! `cargo xtask vm` builds all such tests (integration tests in a file named `vm_*.rs`, in any crate of the workspace) and
//! runs them there. The other half of this crate does that: [`packages`] come from Debian's archive, [`kernel_modules`] and
//! [`image`] make a file system of them, [`machine`] is QEMU, and [`run`] leads the tests through it.
#![cfg(target_os = "linux")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod error;
mod gadget;
mod guest;
pub mod guests;
pub mod image;
pub mod kernel_modules;
pub mod libraries;
mod load;
pub mod machine;
mod network;
pub mod packages;
pub mod plan;
pub mod report;
pub mod run;

pub use gadget::Gadget;
pub use guest::{Cables, GreedyDriver, Guest, Speed, guest, wait_for};
pub use load::Load;
pub use network::Network;
