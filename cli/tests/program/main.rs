//! The program as a user meets it: exit codes, messages, results.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[cfg(target_os = "linux")]
mod attach;
mod bonds;
#[cfg(unix)]
mod control;
#[cfg(target_os = "linux")]
mod discover;
#[cfg(target_os = "linux")]
mod download;
mod forward;
mod keys;
#[cfg(target_os = "linux")]
mod load;
mod measure;
#[cfg(target_os = "linux")]
mod media;
#[cfg(target_os = "linux")]
mod metrics;
#[cfg(target_os = "linux")]
mod monitor;
mod pair;
mod pairing;
mod peers;
#[cfg(unix)]
mod pipe;
#[cfg(target_os = "linux")]
mod plot;
#[cfg(target_os = "linux")]
mod readme;
#[cfg(target_os = "linux")]
mod recipe;
#[cfg(target_os = "linux")]
mod record;
#[cfg(target_os = "linux")]
mod relay;
#[cfg(unix)]
mod remote;
#[cfg(unix)]
mod serial;
#[cfg(unix)]
mod socks;
#[cfg(unix)]
mod ssh;
#[cfg(unix)]
mod stolen;
#[cfg(target_os = "linux")]
mod tools;
#[cfg(target_os = "linux")]
mod tun;
#[cfg(target_os = "linux")]
mod udev;
#[cfg(unix)]
mod udp;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
mod up;
mod usage;
mod user;
