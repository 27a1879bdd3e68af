//! The command line.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum as _};

use crate::cases::{Case, Options};

/// Measures USB links in the guest of `cargo xtask bench --vm`, by cables in software
///
/// Emulated rates say nothing about real controllers: what counts is how the rates of one run compare.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench --vm")]
struct Cli {
    /// Only this; repeatable [default: all]
    #[arg(long = "case", value_name = "NAME", value_enum)]
    cases: Vec<Case>,
    /// How often each measurement is repeated, interleaved
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each measurement takes after its warm-up
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// What each transfer of `tcp` moves, in millions of bytes
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(20..))]
    megabytes: u64,
    /// Print a JSON object for each case instead of tables
    #[arg(long)]
    json: bool,
}

pub(crate) fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bondwire-vm-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False if a rate is below what it should be.
fn run(cli: &Cli) -> Result<bool> {
    let options = Options { rounds: cli.rounds, seconds: cli.seconds, megabytes: cli.megabytes };
    let all = Case::value_variants();
    let cases = if cli.cases.is_empty() { all } else { &cli.cases[..] };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut good = true;
    for case in cases {
        let report = runtime.block_on(case.run(&options))?;
        good &= report.failures.is_empty();
        if cli.json {
            println!("{}", report.to_json());
        } else {
            println!("{report}");
        }
    }
    Ok(good)
}
