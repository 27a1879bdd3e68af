//! The udev rules and systemd units by which cables join a running bond: written, replaced, removed.
//!
//! The files themselves are those of `udev/` in the repository.

pub(crate) mod files;
pub(crate) mod install;
pub(crate) mod serial_numbers;
pub(crate) mod system;
