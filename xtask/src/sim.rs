//! `cargo xtask sim`: the engine in the simulator.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use xshell::{Shell, cmd};

use crate::test::PROFILE;

/// Arguments of `cargo xtask sim`.
#[derive(Args)]
pub(crate) struct Sim {
    /// How many seeds to run
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print what happens, packet by packet
    #[arg(long)]
    trace: bool,
    /// Seeds at once [default: one for each processor]
    #[arg(long)]
    jobs: Option<usize>,
}

impl Sim {
    /// Runs the simulator if it is linked in, else builds this program again with it, optimized, and runs that.
    pub(crate) fn run(&self, shell: &Shell) -> Result<ExitCode> {
        if cfg!(feature = "sim") {
            return Ok(self.run_here());
        }
        let mut arguments = vec![format!("--seeds={}", self.seeds), format!("--seed={}", self.seed)];
        arguments.extend(self.trace.then(|| "--trace".to_owned()));
        arguments.extend(self.jobs.map(|jobs| format!("--jobs={jobs}")));
        // The simulator has said what is wrong.
        Ok(match run_optimized(shell, &arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        })
    }

    #[cfg(feature = "sim")]
    fn run_here(&self) -> ExitCode {
        let jobs = self.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        bondwire_sim::command(self.seeds, self.seed, self.trace, jobs)
    }

    #[cfg(not(feature = "sim"))]
    fn run_here(&self) -> ExitCode {
        ExitCode::FAILURE
    }
}

/// Runs `cargo xtask sim` with `arguments` in the profile for tests.
pub(crate) fn run_optimized(shell: &Shell, arguments: &[String]) -> Result<()> {
    cmd!(shell, "cargo run --quiet --profile {PROFILE} --package xtask --features sim -- sim {arguments...}")
        .quiet()
        .run()?;
    Ok(())
}
