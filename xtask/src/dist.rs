//! `cargo xtask dist`: a Debian package of the program, with all that makes it run by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;
use xshell::{Shell, cmd};

use crate::root;
use crate::steps::Verdict;
use crate::test::PROFILE;

/// Completion scripts: the shell, and the name that it looks for.
const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "bondwire"), ("zsh", "_bondwire"), ("fish", "bondwire.fish")];
/// Files of `udev/`, and where the package's metadata expects them.
const FILES: [(&str, &str); 6] = [
    ("bondwire.service", "systemd/bondwire.service"),
    ("bondwire-attach@.service", "systemd/bondwire-attach@.service"),
    ("bondwire-gadget.service", "systemd/bondwire-gadget.service"),
    ("70-bondwire.rules", "rules/70-bondwire.rules"),
    // Maintainer scripts name them as they are called here.
    ("sysusers.conf", "sysusers/bondwire.conf"),
    ("tmpfiles.conf", "tmpfiles/bondwire.conf"),
];
/// What has to be in the package beside manual pages.
const PACKAGED: [&str; 15] = [
    "usr/bin/bondwire",
    "usr/lib/systemd/system/bondwire-attach@.service",
    "usr/lib/systemd/system/bondwire-gadget.service",
    "usr/lib/systemd/system/bondwire.service",
    "usr/lib/sysusers.d/bondwire.conf",
    "usr/lib/tmpfiles.d/bondwire.conf",
    "usr/lib/udev/rules.d/70-bondwire.rules",
    "usr/share/bash-completion/completions/bondwire",
    "usr/share/doc/bondwire/UDEV.md",
    "usr/share/doc/bondwire/changelog.Debian.gz",
    "usr/share/doc/bondwire/copyright",
    "usr/share/doc/bondwire/examples/bondwire.toml",
    "usr/share/fish/vendor_completions.d/bondwire.fish",
    "usr/share/man/man1/bondwire-listen.1.gz",
    "usr/share/zsh/vendor-completions/_bondwire",
];
/// When nobody knows when this was written.
const NO_DATE: &str = "Thu, 01 Jan 1970 00:00:00 +0000";

/// Arguments of `cargo xtask dist`.
#[derive(Args)]
pub(crate) struct Dist {
    /// Cargo's profile to build with
    #[arg(long, default_value = "release")]
    profile: String,
}

impl Dist {
    pub(crate) fn run(&self, shell: &Shell) -> Result<ExitCode> {
        println!("{}", package(shell, &self.profile, &["--package", "bondwire-cli"])?.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// Builds the package of a program that is built as one of these of the workspace; its file.
pub(crate) fn package(shell: &Shell, profile: &str, of: &[&str]) -> Result<PathBuf> {
    cmd!(shell, "cargo build --quiet --profile {profile} {of...} --bin bondwire").quiet().run()?;
    if cmd!(shell, "cargo deb --version").quiet().ignore_stderr().read().is_err() {
        // It compresses a few megabytes, once: not worth minutes of optimizing it.
        cmd!(shell, "cargo install --quiet --locked --debug cargo-deb").quiet().run()?;
    }
    let target = crate::target();
    let folder = if profile == "dev" { "debug" } else { profile };
    gather(shell, &target.join(folder).join("bondwire"), &root().join("target/dist"))?;
    let file = target.join("bondwire.deb");
    cmd!(shell, "cargo deb --quiet --package bondwire-cli --profile {profile} --no-build --output {file}")
        .quiet()
        .run()?;
    Ok(file)
}

/// The step of `cargo xtask test`: the package as it is built, without being installed.
pub(crate) fn step(shell: &Shell) -> Result<Verdict> {
    if cmd!(shell, "dpkg-deb --version").quiet().ignore_stderr().read().is_err() {
        return Ok(Verdict::Skipped("dpkg-deb is not there: this is no Debian".to_owned()));
    }
    // The program that other steps and tests have, too: another choice of packages would be built anew.
    let file = package(shell, PROFILE, &["--workspace"])?;
    let folder = shell.create_temp_dir()?;
    let system = folder.path();
    cmd!(shell, "dpkg-deb --extract {file} {system}").quiet().run()?;
    for path in PACKAGED {
        ensure!(system.join(path).is_file(), "the package has no {path}");
    }
    verify_units(shell, system)?;
    cmd!(shell, "lintian --fail-on error,warning --tag-display-limit 0 {file}").quiet().run()?;
    Verdict::good("its files are there, systemd and lintian find no fault")
}

/// Has systemd judge the units of an unpacked package, which name a program that is not installed here.
fn verify_units(shell: &Shell, system: &Path) -> Result<()> {
    let folder = system.join("usr/lib/systemd/system");
    let program = system.join("usr/bin/bondwire").display().to_string();
    let mut units = Vec::new();
    for path in shell.read_dir(&folder)? {
        let text = shell.read_file(&path)?.replace("/usr/bin/bondwire", &program);
        // A template is judged with an instance.
        let name = path.file_name().unwrap_or_default().to_string_lossy().replace("@.", "@ttyUSB0.");
        let unit = system.join("units").join(name);
        shell.write_file(&unit, text)?;
        units.push(unit);
    }
    let said = cmd!(shell, "systemd-analyze verify --man=no {units...}").quiet().read_stderr()?;
    ensure!(said.is_empty(), "{said}");
    Ok(())
}

/// Puts what the program's metadata names beside it into `folder`; nothing else is left there.
fn gather(shell: &Shell, program: &Path, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    for (from, to) in FILES {
        let text = shell.read_file(root().join("udev").join(from))?;
        // Makes the folders, too, as copying does not.
        shell.write_file(folder.join(to), text)?;
    }
    for (name, file) in COMPLETIONS {
        let script = cmd!(shell, "{program} completions {name}").quiet().read()?;
        shell.write_file(folder.join("completions").join(file), script + "\n")?;
    }
    let pages = folder.join("man");
    cmd!(shell, "{program} man-pages {pages}").quiet().run()?;
    shell.create_dir(folder.join("units"))?;
    let date = cmd!(shell, "git log -1 --format=%cD").quiet().ignore_stderr().read();
    let date = date.unwrap_or_else(|_| NO_DATE.to_owned());
    let version = env!("CARGO_PKG_VERSION");
    let text = format!(
        "bondwire ({version}-1) unstable; urgency=medium\n\n  * {version}; what is new stands in CHANGELOG.md of the source.\n\n \
         -- The Bondwire authors <bondwire@users.noreply.github.com>  {date}\n"
    );
    Ok(shell.write_file(folder.join("changelog"), text)?)
}
