//! `cargo xtask vm`: tests under a stock kernel in a virtual machine, with USB cables joined in software.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use bondwire_vm::machine::Accelerator;
use bondwire_vm::plan::Programs;
use bondwire_vm::run::{Guests, News, Outcome};
use clap::Args;

use crate::root;
use crate::test::PROFILE;

/// Arguments of `cargo xtask vm`.
#[derive(Args)]
pub(crate) struct Vm {
    /// Run long tests too: those marked `#[ignore]`
    #[arg(long)]
    long: bool,
    /// Run only tests with this in their name
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Print what tests there are, and run none
    #[arg(long)]
    list: bool,
    /// A shell in the guest instead of tests; `exit` turns the guest off
    #[arg(long, conflicts_with_all = ["long", "filter", "list"])]
    shell: bool,
    /// Print what tests print as it comes, not only when they fail
    #[arg(long)]
    verbose: bool,
    /// Cargo's profile to build with
    #[arg(long, default_value = PROFILE)]
    profile: String,
    /// Let KVM run the guest; fast where it works
    #[arg(long)]
    kvm: bool,
}

impl Vm {
    /// Builds the tests and runs them in the guest.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let programs = Programs::build(root(), &self.profile)?;
        let jobs = if self.shell { Vec::new() } else { programs.jobs(self.filter.as_deref(), self.long)? };
        if self.list {
            jobs.iter().for_each(|job| println!("{}", job.name));
            return Ok(ExitCode::SUCCESS);
        }
        let accelerator = if self.kvm { Accelerator::Kvm } else { Accelerator::Tcg };
        let guests = Guests::set_up(&cache(), accelerator)?;
        let rules = root().join("udev");
        if self.shell {
            guests.shell(&programs, &rules)?;
            return Ok(ExitCode::SUCCESS);
        }
        let outcomes = guests.run(&programs, &rules, &jobs, &mut |news| self.tell(&news))?;
        Ok(summary(&outcomes))
    }

    fn tell(&self, news: &News<'_>) {
        match news {
            News::Up(time) => println!("guest up after {:.1} s", time.as_secs_f32()),
            News::Start(job) if self.verbose => println!("start {}", job.name),
            News::Output(line) if self.verbose => println!("    {line}"),
            News::End(outcome) => tell_end(outcome, self.verbose),
            News::Died(console) => {
                println!("the guest's console, the last lines:");
                console.iter().for_each(|line| println!("    {line}"));
            }
            News::Start(_) | News::Output(_) => {}
        }
    }
}

fn tell_end(outcome: &Outcome, verbose: bool) {
    let time = outcome.duration.map(|time| format!(" ({:.1} s)", time.as_secs_f32())).unwrap_or_default();
    let Some(failure) = &outcome.failure else {
        println!("ok   {}{time}", outcome.name);
        return;
    };
    if !verbose {
        outcome.output.iter().for_each(|line| println!("    {line}"));
    }
    println!("FAIL {}{time}: {failure}", outcome.name);
}

fn summary(outcomes: &[Outcome]) -> ExitCode {
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.failure.is_some()).collect();
    if failed.is_empty() {
        println!("{} tests passed in the guest", outcomes.len());
        return ExitCode::SUCCESS;
    }
    println!("{} of {} tests FAILED in the guest:", failed.len(), outcomes.len());
    for outcome in failed {
        println!("    {}: {}", outcome.name, outcome.failure.as_deref().unwrap_or_default());
    }
    ExitCode::FAILURE
}

/// Where packages and the like are kept.
fn cache() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("vm")
}
