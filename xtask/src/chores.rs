//! Chores that call another program.

use std::process::ExitCode;

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

/// Builds the program and the benchmark for release, and runs the benchmark.
pub(crate) fn bench(shell: &Shell, arguments: &[String]) -> Result<ExitCode> {
    cmd!(shell, "cargo build --release --package bondwire-cli --package bondwire-bench").quiet().run()?;
    let run = cmd!(shell, "cargo run --quiet --release --package bondwire-bench -- {arguments...}");
    Ok(exit_code(run.quiet().run().is_ok()))
}

/// Mutation tests of the engine: every surviving mutant is a line that no test holds.
pub(crate) fn mutants(shell: &Shell, arguments: &[String]) -> Result<ExitCode> {
    if cmd!(shell, "cargo mutants --version").quiet().ignore_stderr().read().is_err() {
        bail!("cargo-mutants is not installed; install it with: cargo install cargo-mutants");
    }
    let run = cmd!(shell, "cargo mutants --package bondwire-core --test-tool nextest {arguments...}");
    Ok(exit_code(run.quiet().run().is_ok()))
}

/// The called program has said what went wrong.
fn exit_code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
