//! `cargo xtask sim`: the engine in the simulator.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use xshell::{Shell, cmd};

use crate::test::PROFILE;

/// Arguments of `cargo xtask sim`.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Sim {
    /// Arguments of bondwire-sim, such as `--help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Sim {
    /// Builds the simulator, optimized, and runs it.
    pub(crate) fn run(&self, shell: &Shell) -> Result<ExitCode> {
        let arguments = &self.arguments;
        let run =
            cmd!(shell, "cargo run --quiet --profile {PROFILE} --package bondwire-sim -- {arguments...}");
        // The simulator has said what is wrong.
        Ok(if run.quiet().run().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Runs so many seeds by the simulator that has been built in the profile for tests.
pub(crate) fn run_built(shell: &Shell, seeds: u64) -> Result<()> {
    let program: PathBuf = crate::target().join(PROFILE).join("bondwire-sim");
    let seeds = seeds.to_string();
    Ok(cmd!(shell, "{program} --seeds {seeds}").quiet().run()?)
}
