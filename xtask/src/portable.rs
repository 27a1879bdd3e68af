//! `cargo xtask portable`: do the library and the program compile for other systems, and engine and device side for none?

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use xshell::Shell;

use crate::steps::{Steps, Verdict};
use crate::toolchain::{Toolchain, advice};

/// Where to compile for, and what.
struct Target {
    triple: &'static str,
    packages: &'static [&'static str],
    /// Parts of the standard library that there are.
    std_parts: &'static str,
}

const EVERYTHING: &[&str] = &["bondwire-core", "bondwire", "bondwire-tcp", "bondwire-cli"];

const TARGETS: [Target; 3] = [
    // A microcontroller without an operating system: the engine, and the device side of links, which is made for them.
    Target {
        triple: "thumbv7m-none-eabi",
        packages: &["bondwire-core", "bondwire-frame", "bondwire-firmware"],
        std_parts: "core,alloc",
    },
    Target { triple: "x86_64-pc-windows-gnu", packages: EVERYTHING, std_parts: "std,panic_abort" },
    Target { triple: "aarch64-apple-darwin", packages: EVERYTHING, std_parts: "std,panic_abort" },
];

/// Arguments of `cargo xtask portable`.
#[derive(Args)]
pub(crate) struct Portable {
    /// Only this target; repeatable
    #[arg(long = "target", value_name = "TRIPLE")]
    targets: Vec<String>,
    /// Fail when a target cannot be checked on this machine
    #[arg(long)]
    require: bool,
}

impl Portable {
    pub(crate) fn run(&self, shell: &Shell) -> Result<ExitCode> {
        let mut steps = Steps::default();
        let wanted = |target: &&Target| {
            self.targets.is_empty() || self.targets.iter().any(|triple| triple == target.triple)
        };
        for target in TARGETS.iter().filter(wanted) {
            steps.step(target.triple, || match Toolchain::in_use(shell, target.triple)? {
                Some(toolchain) => target.check(shell, &toolchain),
                None if self.require => anyhow::bail!(advice(shell, target.triple)?),
                None => Ok(Verdict::Skipped(format!("NOT CHECKED: {}", advice(shell, target.triple)?))),
            });
        }
        Ok(if steps.failed().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Target {
    fn check(&self, shell: &Shell, toolchain: &Toolchain) -> Result<Verdict> {
        let packages = self.packages.iter().flat_map(|package| ["--package", package]);
        toolchain
            .cargo(shell, "check", self.triple, self.std_parts)?
            .args(packages)
            .run()
            .context("dependencies in C want a compiler for that system; name it with CC_TARGET")?;
        Verdict::good("compiles")
    }
}
