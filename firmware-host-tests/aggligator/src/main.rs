//! Moves bulk data from host to device over aggligator's USB transport, with both ends in this process, and prints a line
//! with what has arrived so far, again and again, until its input ends. `cargo xtask bench --vm` measures by that.

#[cfg(target_os = "linux")]
mod ends;

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    ends::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
