//! The first program of the guest: sets it up, runs the jobs that came along, and turns it off.
#![allow(clippy::print_stderr, reason = "the console is all there is")]

#[cfg(target_os = "linux")]
#[path = "../init.rs"]
mod init;

#[cfg(target_os = "linux")]
fn main() {
    init::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("this is the first program of a Linux guest");
}
