//! `cargo xtask test`: everything that must be green before a change goes in.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use xshell::{Shell, cmd};

use crate::steps::{Steps, Verdict};
use crate::{dist, sim};

/// Optimized, with every assertion on: the profile of all tests, so that dependencies are built once.
pub(crate) const PROFILE: &str = "checked";
/// Makes tests that need root fail instead of passing unrun.
const REQUIRE_ROOT_TESTS: &str = "BONDWIRE_REQUIRE_ROOT_TESTS";
/// Seeds of the simulator in a full and in a quick run.
const SEEDS: u64 = 10_000;
const SEEDS_QUICK: u64 = 200;

/// Programs that tests call, with the Debian packages that hold them.
const PROGRAMS: [(&str, &str); 14] = [
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("ping", "iputils-ping"),
    ("curl", "curl"),
    ("python3", "python3-minimal"),
    ("ssh", "openssh-client"),
    ("sshd", "openssh-server"),
    ("rsync", "rsync"),
    ("dig", "bind9-dnsutils"),
    ("tmux", "tmux"),
    ("promtool", "prometheus"),
    ("udevadm", "udev"),
    ("systemd-analyze", "systemd"),
    ("lintian", "lintian"),
];

/// Arguments of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Test {
    /// Few simulator seeds, and no look at licences and advisories
    #[arg(long)]
    quick: bool,
}

impl Test {
    pub(crate) fn run(&self, shell: &Shell) -> Result<ExitCode> {
        let root_tests = is_root() || std::env::var_os("CI").is_some();
        let mut steps = Steps::default();
        steps.step("format", || {
            cmd!(shell, "cargo fmt --all --check").quiet().run()?;
            Verdict::good("rustfmt changes nothing")
        });
        steps.step("lints", || {
            cmd!(shell, "cargo clippy --quiet --workspace --all-targets -- -D warnings").quiet().run()?;
            Verdict::good("clippy warns of nothing")
        });
        steps.step("documentation", || {
            let _flags = shell.push_env("RUSTDOCFLAGS", "-D warnings");
            cmd!(shell, "cargo doc --quiet --workspace --no-deps").quiet().run()?;
            Verdict::good("every link leads somewhere")
        });
        steps.step("dependencies", || self.dependencies(shell));
        steps.step("programs", || programs(shell, root_tests));
        steps.step("build", || {
            // All that later steps run, and of the whole workspace, as they have it: each choice of packages has its own
            // features, and would compile half of the dependencies anew.
            cmd!(shell, "cargo build --quiet --profile {PROFILE} --workspace --bins --tests")
                .quiet()
                .run()?;
            Verdict::good("programs and tests, optimized and with assertions")
        });
        steps.step("simulator", || {
            let seeds = if self.quick { SEEDS_QUICK } else { SEEDS };
            sim::run_built(shell, seeds)?;
            Ok(Verdict::Good(format!("{seeds} seeds")))
        });
        steps.step("documentation tests", || {
            cmd!(shell, "cargo test --quiet --profile {PROFILE} --workspace --doc").quiet().run()?;
            Verdict::good("every example works")
        });
        steps.step("end to end", || self.end_to_end(shell, root_tests));
        steps.step("package", || {
            if self.quick {
                return Ok(Verdict::Skipped("--quick".to_owned()));
            }
            dist::step(shell)
        });
        steps.step("virtual machine", || self.virtual_machine(shell, root_tests));
        steps.step("microcontroller", || self.microcontroller(shell, root_tests));
        // Last, so that the runner's own summary closes the output.
        let _require = root_tests.then(|| shell.push_env(REQUIRE_ROOT_TESTS, "1"));
        println!("\n== tests{}", if root_tests { "" } else { " (those that need root pass unrun)" });
        let tests = run_tests(shell);
        Ok(verdict(&steps, tests.err()))
    }

    /// A download through a port forward over two paths, of which one dies in every way there is.
    fn end_to_end(&self, shell: &Shell, root_tests: bool) -> Result<Verdict> {
        if self.quick || !root_tests {
            return Ok(Verdict::Skipped("needs root, and more time than --quick has".to_owned()));
        }
        let built = crate::target().join(PROFILE);
        let (bench, program) = (built.join("bondwire-bench"), built.join("bondwire"));
        cmd!(shell, "{bench} forward-cut --subject bondwire --rounds 1 --bondwire {program}")
            .quiet()
            .run()?;
        Verdict::good("every byte right, however the path died")
    }

    /// USB links under a kernel with cables joined in software.
    #[cfg_attr(not(target_os = "linux"), allow(unused_variables, clippy::unused_self))]
    fn virtual_machine(&self, shell: &Shell, required: bool) -> Result<Verdict> {
        #[cfg(target_os = "linux")]
        if !self.quick {
            return crate::vm::step(shell, required);
        }
        Ok(Verdict::Skipped("needs Linux, and more time than --quick has".to_owned()))
    }

    /// The device side as an image, against serial links.
    #[cfg_attr(not(target_os = "linux"), allow(unused_variables, clippy::unused_self))]
    fn microcontroller(&self, shell: &Shell, required: bool) -> Result<Verdict> {
        #[cfg(target_os = "linux")]
        if !self.quick {
            return crate::firmware::step(shell, required);
        }
        Ok(Verdict::Skipped("needs Linux, and more time than --quick has".to_owned()))
    }

    fn dependencies(&self, shell: &Shell) -> Result<Verdict> {
        if self.quick {
            return Ok(Verdict::Skipped("--quick".to_owned()));
        }
        if cmd!(shell, "cargo deny --version").quiet().ignore_stderr().read().is_err() {
            return Ok(Verdict::Skipped("cargo-deny is not installed (cargo install cargo-deny)".to_owned()));
        }
        cmd!(shell, "cargo deny --log-level error check bans licenses sources").quiet().run()?;
        Verdict::good("licences, sources and duplicates as deny.toml has them")
    }
}

fn run_tests(shell: &Shell) -> Result<()> {
    if cmd!(shell, "cargo nextest --version").quiet().ignore_stderr().read().is_ok() {
        cmd!(
            shell,
            "cargo nextest run --cargo-profile {PROFILE} --workspace --no-fail-fast --status-level fail"
        )
        .quiet()
        .run()?;
    } else {
        cmd!(shell, "cargo test --profile {PROFILE} --workspace --no-fail-fast --lib --bins --tests")
            .quiet()
            .run()?;
    }
    Ok(())
}

/// Says what failed before the tests, below their summary; says nothing when all is well.
fn verdict(steps: &Steps, tests: Option<anyhow::Error>) -> ExitCode {
    if let Some(error) = &tests {
        println!("== tests: FAILED: {error:#}");
    }
    if !steps.failed().is_empty() {
        println!("== FAILED before the tests: {}", steps.failed().join(", "));
    }
    if tests.is_none() && steps.failed().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Sees that the programs which tests call are there; installs them where this user may.
fn programs(shell: &Shell, required: bool) -> Result<Verdict> {
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !is_installed(program)).collect();
    if missing.is_empty() {
        return Verdict::good("all there");
    }
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    let names = packages.join(" ");
    if is_root() && is_installed("apt-get") {
        let _mode = shell.push_env("DEBIAN_FRONTEND", "noninteractive");
        // A package may bring a service, which nobody asked for: none starts where init scripts start them,
        let _level = shell.push_env("RUNLEVEL", "1");
        // and systemd does not start what is masked.
        if packages.contains(&"prometheus") && Path::new("/run/systemd/system").exists() {
            cmd!(shell, "systemctl mask --quiet prometheus.service").quiet().run()?;
        }
        cmd!(shell, "apt-get update -qq").quiet().run().context("apt-get update")?;
        cmd!(shell, "apt-get install -qq -y --no-install-recommends {packages...}").quiet().run()?;
        return Ok(Verdict::Good(format!("installed {names}")));
    }
    let advice = format!("missing; install with: apt-get install {names}");
    if required { bail!(advice) } else { Ok(Verdict::Skipped(advice)) }
}

fn is_installed(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else {
        return false;
    };
    let system = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|folder| folder.join(program).is_file())
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}
