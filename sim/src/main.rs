//! The simulator as a program, for `cargo xtask sim`.

use std::process::ExitCode;

use clap::Parser;

/// Runs the engine under seeded faults in virtual time.
#[derive(Parser)]
struct Arguments {
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

fn main() -> ExitCode {
    let Arguments { seeds, seed, trace, jobs } = Arguments::parse();
    let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    bondwire_sim::command(seeds, seed, trace, jobs)
}
