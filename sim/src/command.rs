//! `cargo xtask sim`: many seeds, one after another on each thread.

use crate::plan::Plan;
use crate::report::{Coverage, Report};
use crate::trace::Trace;
use crate::world::World;
use std::cell::RefCell;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Seeds below which the coverage is shown but not judged.
const JUDGED_RUNS_MIN: u64 = 1000;
/// Failing seeds that are shown.
const FAILURES_SHOWN: usize = 20;

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs one seed. A panic of an engine is a failure like any other.
pub fn run_seed(seed: u64) -> Report {
    run_caught(seed, Trace::quiet())
}

/// Runs `seeds` seeds from `first` on `jobs` threads and prints what they covered; `trace` prints every event of every
/// run, on one thread. It fails if a seed does, if a thousand seeds or more leave gaps in the coverage, or if nothing
/// can be printed.
pub fn command(seeds: u64, first: u64, trace: bool, jobs: usize) -> ExitCode {
    catch_panics_quietly();
    match run_and_print(seeds, first, trace, jobs) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn run_and_print(seeds: u64, first: u64, trace: bool, jobs: usize) -> io::Result<bool> {
    let mut out = io::stdout();
    if trace {
        let mut failed = false;
        for seed in first..first.saturating_add(seeds) {
            let report = run_caught(seed, Trace::to(Box::new(io::BufWriter::new(io::stdout()))));
            writeln!(out, "{:#?}\n{report}", Plan::new(seed))?;
            failed |= report.failure.is_some();
        }
        return Ok(!failed);
    }
    let (coverage, failures) = run_many(seeds, first, jobs.max(1));
    writeln!(out, "{seeds} seeds from {first}\n\n{coverage}")?;
    let gaps = coverage.gaps();
    for gap in &gaps {
        writeln!(out, "gap in the coverage: {gap}")?;
    }
    for (seed, failure) in failures.iter().take(FAILURES_SHOWN) {
        writeln!(out, "seed {seed} failed: {failure}\n    cargo xtask sim --seeds 1 --seed {seed} --trace")?;
    }
    writeln!(out, "{} of {seeds} seeds failed", failures.len())?;
    Ok(failures.is_empty() && (seeds < JUDGED_RUNS_MIN || gaps.is_empty()))
}

/// Runs seeds on several threads. Failures are in the order of their seeds.
pub fn run_many(seeds: u64, first: u64, jobs: usize) -> (Coverage, Vec<(u64, String)>) {
    let next = AtomicU64::new(first);
    let end = first.saturating_add(seeds);
    let found = Mutex::new((Coverage::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let report = run_seed(seed);
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.0.add(&report);
                    if let Some(failure) = report.failure {
                        found.1.push((seed, failure));
                    }
                }
            });
        }
    });
    let (coverage, mut failures) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_unstable();
    (coverage, failures)
}

fn run_caught(seed: u64, trace: Trace) -> Report {
    let run = AssertUnwindSafe(move || World::new(Plan::new(seed), trace).run());
    panic::catch_unwind(run).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        let place = PANIC.with_borrow_mut(Option::take).unwrap_or_default();
        let failure = format!("panic {place}: {}", text.unwrap_or_default());
        Report { seed, failure: Some(failure), ..Report::default() }
    })
}

/// Keeps the place of a panic for the report instead of printing it.
fn catch_panics_quietly() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string);
        PANIC.with_borrow_mut(|last| *last = place);
    }));
}
