//! Chores of the repository: `cargo xtask COMMAND`.
#![allow(clippy::print_stdout, reason = "a chore talks to the terminal")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod chores;
mod dist;
#[cfg(target_os = "linux")]
mod firmware;
mod portable;
mod sim;
mod steps;
mod test;
#[cfg(test)]
mod tidy;
mod toolchain;
#[cfg(target_os = "linux")]
mod vm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use xshell::Shell;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the repository", arg_required_else_help = true)]
enum Xtask {
    /// Everything that must be green before a change goes in
    Test(test::Test),
    /// Compile for Windows and macOS, and engine and device side for a microcontroller, where their standard libraries can be had
    Portable(portable::Portable),
    /// Run the engine in the simulator: many seeds, or one again
    Sim(sim::Sim),
    /// Run tests in a virtual machine with USB cables and udev (Debian and its relatives)
    #[cfg(target_os = "linux")]
    Vm(vm::Vm),
    /// Build images for microcontrollers, and run one of them in QEMU against the real serial links
    #[cfg(target_os = "linux")]
    Firmware(firmware::Firmware),
    /// Build a Debian package of the program, its units, rules, manual pages and completions (installs cargo-deb)
    Dist(dist::Dist),
    #[command(flatten)]
    Chore(Chore),
}

#[derive(Subcommand)]
enum Chore {
    /// Build for release and measure beside TCP and MPTCP in network namespaces (root), see `bench --help`; USB links in the guest of `vm`, see `bench --vm --help`
    #[command(disable_help_flag = true)]
    Bench {
        /// Arguments of bondwire-bench
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Break the engine in small ways and see whether a test notices (hours, or --sample; needs cargo-mutants)
    Mutants(chores::Mutants),
}

/// How variables begin in which cargo tells a program that it runs of its package.
#[cfg(unix)]
const OF_THE_PACKAGE: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

fn main() -> Result<ExitCode> {
    #[cfg(unix)]
    forget_package()?;
    let shell = Shell::new().context("no current folder")?;
    shell.change_dir(root());
    match Xtask::parse() {
        Xtask::Test(test) => test.run(&shell),
        Xtask::Portable(portable) => portable.run(&shell),
        Xtask::Sim(sim) => sim.run(&shell),
        #[cfg(target_os = "linux")]
        Xtask::Vm(vm) => vm.run(&shell),
        #[cfg(target_os = "linux")]
        Xtask::Firmware(firmware) => firmware.run(&shell),
        Xtask::Dist(dist) => dist.run(&shell),
        Xtask::Chore(Chore::Bench { arguments }) => chores::bench(&shell, &arguments),
        Xtask::Chore(Chore::Mutants(mutants)) => mutants.run(&shell),
    }
}

/// Begins anew without what cargo tells of this package. What this program has built would see it, too, and a build with it and
/// one without have nothing in common: `ring` is compiled again when one of these variables changes, with all that needs it.
#[cfg(unix)]
fn forget_package() -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let is_of_the_package = |name: &std::ffi::OsString| {
        OF_THE_PACKAGE.iter().any(|start| name.to_string_lossy().starts_with(start))
    };
    let names: Vec<_> = std::env::vars_os().map(|(name, _)| name).filter(is_of_the_package).collect();
    if names.is_empty() {
        return Ok(());
    }
    let mut again = std::process::Command::new(std::env::current_exe()?);
    again.args(std::env::args_os().skip(1));
    for name in &names {
        again.env_remove(name);
    }
    Err(again.exec()).context("cannot start again")
}

/// The folder that cargo builds in.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The folder of the workspace.
fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}
