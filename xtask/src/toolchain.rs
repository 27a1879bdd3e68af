//! How code for other targets can be compiled here: the toolchain may have their standard library, or its source.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use xshell::{Cmd, Shell, cmd};

/// Debian's own Rust for bookworm and later, with the source of its library. Its version has nothing to do with that of the
/// toolchain in use.
const DEBIAN: [&str; 4] = ["rustc-web", "libstd-rust-web-dev", "cargo-web", "rust-web-src"];

/// How a target's standard library is to be had.
pub(crate) enum Toolchain {
    /// The toolchain has it.
    Built,
    /// The toolchain has its source. Compiling that is an unstable feature of cargo.
    Source,
    /// Another toolchain, which has the source of its own, is unpacked in this folder.
    Elsewhere(PathBuf),
}

impl Toolchain {
    /// What the toolchain in use has of this target.
    pub(crate) fn in_use(shell: &Shell, triple: &str) -> Result<Option<Self>> {
        let rustlib = sysroot(shell)?.join("lib/rustlib");
        Ok(if rustlib.join(triple).join("lib").is_dir() {
            Some(Self::Built)
        } else {
            rustlib.join("src/rust/library").is_dir().then_some(Self::Source)
        })
    }

    /// Debian's toolchain, from its archive, unpacked in `folder` without being installed. The folder may be removed at any
    /// time.
    pub(crate) fn of_debian(shell: &Shell, folder: &Path) -> Result<Self> {
        let (root, complete) = (folder.join("root"), folder.join("complete"));
        if !complete.exists() {
            shell.remove_path(folder)?;
            shell.create_dir(&root)?;
            let needed = || missing_packages(shell);
            let names = needed().or_else(|_| {
                cmd!(shell, "apt-get update -qq").quiet().run()?;
                needed()
            })?;
            let _folder = shell.push_dir(folder);
            // As root apt would go over to a user who may not write here.
            cmd!(shell, "apt-get -o APT::Sandbox::User=root download -qq").args(&names).quiet().run()?;
            for file in shell.read_dir(folder)?.iter().filter(|file| file.extension().is_some()) {
                cmd!(shell, "dpkg-deb --extract {file} {root}").quiet().run()?;
                shell.remove_path(file)?;
            }
            let library = root.join("usr/lib/rustlib/src/rust/library/core");
            ensure!(library.is_dir(), "Debian's packages have changed: {} is not there", library.display());
            shell.write_file(&complete, names.join("\n"))?;
        }
        Ok(Self::Elsewhere(root))
    }

    /// `cargo VERB --target TRIPLE`, with these parts of the standard library; the arguments follow.
    pub(crate) fn cargo<'s>(
        &self,
        shell: &'s Shell,
        verb: &str,
        triple: &str,
        std_parts: &str,
    ) -> Result<Cmd<'s>> {
        let cargo = match self {
            Self::Elsewhere(root) => root.join("usr/bin/cargo"),
            _ => PathBuf::from("cargo"),
        };
        let mut command = cmd!(shell, "{cargo} {verb} --quiet --target {triple}").quiet();
        if !matches!(self, Self::Built) {
            command = command.env("RUSTC_BOOTSTRAP", "1").arg(format!("-Zbuild-std={std_parts}"));
        }
        if let Self::Elsewhere(root) = self {
            let variable = format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase().replace('-', "_"));
            command = command
                .env("RUSTC", root.join("usr/bin/rustc"))
                .env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"))
                .env(variable, linker(shell)?);
        }
        Ok(command)
    }
}

/// Those of Debian's packages, and of what they need, that are not installed.
fn missing_packages(shell: &Shell) -> Result<Vec<String>> {
    let plan = cmd!(shell, "apt-get install --simulate --no-install-recommends --reinstall {DEBIAN...}");
    let plan = plan.quiet().ignore_stderr().read()?;
    let names = plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    let names: Vec<_> = names.map(str::to_owned).collect();
    ensure!(!names.is_empty(), "apt names no package of Debian's Rust");
    Ok(names)
}

/// Debian's toolchain has no linker for microcontrollers; the one in use brings LLVM's.
fn linker(shell: &Shell) -> Result<PathBuf> {
    let version = cmd!(shell, "rustc -vV").quiet().read()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let linker = sysroot(shell)?.join("lib/rustlib").join(host).join("bin/rust-lld");
    if !linker.is_file() {
        bail!("{} is not there; a linker for microcontrollers is needed", linker.display());
    }
    Ok(linker)
}

fn sysroot(shell: &Shell) -> Result<PathBuf> {
    Ok(PathBuf::from(cmd!(shell, "rustc --print sysroot").quiet().read()?))
}

/// How to get a standard library for a target.
pub(crate) fn advice(shell: &Shell, triple: &str) -> Result<String> {
    let version = cmd!(shell, "rustc --version").quiet().read()?;
    Ok(format!(
        "no standard library; get it with `rustup target add {triple}`, or its source with `rustup component add \
         rust-src` (or a package of exactly {version})"
    ))
}
