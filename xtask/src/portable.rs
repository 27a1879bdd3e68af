//! `cargo xtask portable`: do the library and the program compile for other systems, and engine and frame layer for none?

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use xshell::{Shell, cmd};

use crate::steps::{Steps, Verdict};

/// Where to compile for, and what.
struct Target {
    triple: &'static str,
    packages: &'static [&'static str],
    /// Parts of the standard library that there are.
    std_parts: &'static str,
}

const EVERYTHING: &[&str] = &["bondwire-core", "bondwire", "bondwire-tcp", "bondwire-cli"];

const TARGETS: [Target; 3] = [
    // A microcontroller without an operating system: the engine, and the frame layer, which is made for them.
    Target {
        triple: "thumbv7m-none-eabi",
        packages: &["bondwire-core", "bondwire-frame"],
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

/// How a target's standard library is to be had.
enum Library {
    /// The toolchain has it.
    Built,
    /// The toolchain has its source. Compiling that is an unstable feature of cargo.
    Source,
}

impl Portable {
    pub(crate) fn run(&self, shell: &Shell) -> Result<ExitCode> {
        let sysroot = PathBuf::from(cmd!(shell, "rustc --print sysroot").quiet().read()?);
        let mut steps = Steps::default();
        let wanted = |target: &&Target| {
            self.targets.is_empty() || self.targets.iter().any(|triple| triple == target.triple)
        };
        for target in TARGETS.iter().filter(wanted) {
            steps.step(target.triple, || match target.library(&sysroot) {
                Some(library) => target.check(shell, &library),
                None if self.require => anyhow::bail!(advice(shell, target.triple)?),
                None => Ok(Verdict::Skipped(format!("NOT CHECKED: {}", advice(shell, target.triple)?))),
            });
        }
        Ok(if steps.failed().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Target {
    fn library(&self, sysroot: &Path) -> Option<Library> {
        let rustlib = sysroot.join("lib/rustlib");
        if rustlib.join(self.triple).join("lib").is_dir() {
            Some(Library::Built)
        } else {
            rustlib.join("src/rust/library").is_dir().then_some(Library::Source)
        }
    }

    fn check(&self, shell: &Shell, library: &Library) -> Result<Verdict> {
        let packages = self.packages.iter().flat_map(|package| ["--package", package]);
        let (triple, parts) = (self.triple, self.std_parts);
        let (_unstable, build_std) = match library {
            Library::Built => (None, None),
            Library::Source => {
                (Some(shell.push_env("RUSTC_BOOTSTRAP", "1")), Some(format!("-Zbuild-std={parts}")))
            }
        };
        cmd!(shell, "cargo check --quiet --target {triple} {build_std...} {packages...}")
            .quiet()
            .run()
            .context("dependencies in C want a compiler for that system; name it with CC_TARGET")?;
        Verdict::good("compiles")
    }
}

/// How to get a standard library for a target.
fn advice(shell: &Shell, triple: &str) -> Result<String> {
    let version = cmd!(shell, "rustc --version").quiet().read()?;
    Ok(format!(
        "no standard library; get it with `rustup target add {triple}`, or its source with `rustup component add \
         rust-src` (or a package of exactly {version})"
    ))
}
