//! `bondwire-vm-bench`: USB links beside a raw bulk loop, NCM and others, in the guest of `cargo xtask bench --vm`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(target_os = "linux")]
mod bonds;
#[cfg(target_os = "linux")]
mod cables;
#[cfg(target_os = "linux")]
mod cases;
#[cfg(target_os = "linux")]
mod guest_program;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod ncm;
#[cfg(target_os = "linux")]
mod pace;
#[cfg(target_os = "linux")]
mod packets;
#[cfg(target_os = "linux")]
mod raw;
#[cfg(target_os = "linux")]
mod touching;

fn main() -> std::process::ExitCode {
    #[cfg(target_os = "linux")]
    return guest_program::main();
    #[cfg(not(target_os = "linux"))]
    std::process::ExitCode::FAILURE
}
