//! `cargo xtask firmware`: images for microcontrollers, and one of them in QEMU against the real serial links.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bondwire_vm::packages::{find_program, install};
use clap::Args;
use xshell::{Shell, cmd};

use crate::root;
use crate::steps::{Steps, Verdict};
use crate::test::PROFILE;
use crate::toolchain::{Toolchain, advice};

/// The image that QEMU runs, and what it is for.
const IMAGE: &str = "firmware-host-tests/cortex-m/Cargo.toml";
const IMAGE_TARGET: &str = "thumbv7m-none-eabi";
/// The example for a board that can be bought.
const EXAMPLE: &str = "firmware-host-tests/pico/Cargo.toml";
const EXAMPLE_TARGET: &str = "thumbv6m-none-eabi";
const QEMU: &str = "qemu-system-arm";
/// Tells the tests where the images are.
const IMAGES: &str = "BONDWIRE_CORTEX_M_IMAGES";

/// Arguments of `cargo xtask firmware`.
#[derive(Args)]
pub(crate) struct Firmware {
    /// Only build the images, and print where they are
    #[arg(long)]
    build: bool,
    /// Run only tests with this in their name
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
}

impl Firmware {
    pub(crate) fn run(&self, shell: &Shell) -> Result<ExitCode> {
        let mut steps = Steps::default();
        steps.step("image", || {
            let images = build_image(shell)?;
            Ok(Verdict::Good(format!("{}: cable, echo", images.display())))
        });
        steps.step("example", || {
            let images = build_example(shell)?;
            Ok(Verdict::Good(images.display().to_string()))
        });
        if !self.build && steps.failed().is_empty() {
            steps.step("QEMU", || {
                install(QEMU, QEMU)?;
                run_tests(shell, self.filter.as_deref())
            });
        }
        Ok(if steps.failed().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The step of `cargo xtask test`. Where the images cannot be built or run, that is a fault if `required`.
pub(crate) fn step(shell: &Shell, required: bool) -> Result<Verdict> {
    let obstacle = match toolchain(shell, IMAGE_TARGET) {
        Err(error) => Some(error),
        Ok(_) => install(QEMU, QEMU).err().map(Into::into),
    };
    match obstacle {
        Some(error) if required => return Err(error),
        Some(error) => return Ok(Verdict::Skipped(format!("no image for a microcontroller: {error:#}"))),
        None => {}
    }
    build_example(shell)?;
    build_image(shell)?;
    run_tests(shell, None)
}

fn build_image(shell: &Shell) -> Result<PathBuf> {
    build(shell, IMAGE, IMAGE_TARGET)
}

fn build_example(shell: &Shell) -> Result<PathBuf> {
    build(shell, EXAMPLE, EXAMPLE_TARGET)
}

/// Compiles and links a package for a microcontroller; where its programs are.
fn build(shell: &Shell, manifest: &str, triple: &str) -> Result<PathBuf> {
    cmd!(shell, "cargo fmt --check --manifest-path {manifest}").quiet().run()?;
    let target = target_folder().join("firmware");
    toolchain(shell, triple)?
        .cargo(shell, "build", triple, "core")?
        .args(["--locked", "--release", "--manifest-path", manifest])
        .env("CARGO_TARGET_DIR", &target)
        .run()
        .with_context(|| format!("{manifest} does not build"))?;
    Ok(target.join(triple).join("release"))
}

/// A toolchain for this target: the one in use, or else Debian's.
fn toolchain(shell: &Shell, triple: &str) -> Result<Toolchain> {
    if let Some(toolchain) = Toolchain::in_use(shell, triple)? {
        return Ok(toolchain);
    }
    if find_program("apt-get").is_none() || cfg!(not(target_arch = "x86_64")) {
        bail!(advice(shell, triple)?);
    }
    let debian = Toolchain::of_debian(shell, &target_folder().join("firmware/toolchain"));
    debian.with_context(|| advice(shell, triple).unwrap_or_default())
}

fn run_tests(shell: &Shell, filter: Option<&str>) -> Result<Verdict> {
    let images = target_folder().join("firmware").join(IMAGE_TARGET).join("release");
    let _images = shell.push_env(IMAGES, images);
    let filter = filter.into_iter();
    cmd!(shell, "cargo test --quiet --profile {PROFILE} --workspace --test cortex_m -- {filter...}")
        .quiet()
        .run()?;
    Verdict::good("a Cortex-M bonds two hosts")
}

fn target_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.map_or_else(|| root().join("target"), |target| root().join(Path::new(&target)))
}
