//! The program as a user meets it: exit codes, messages, results.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bonds;
mod forward;
mod keys;
mod measure;
mod usage;
mod user;
