//! `cargo xtask vm`: tests under a stock kernel in a virtual machine, with USB cables joined in software.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use bondwire_vm::guests::{Guests, Options, needs_systemd};
use bondwire_vm::machine::Accelerator;
use bondwire_vm::plan::{BENCHMARK, Contents};
use bondwire_vm::report::Job;
use bondwire_vm::run::{News, Outcome};
use clap::Args;
use xshell::Shell;

use crate::dist;
use crate::root;
use crate::steps::Verdict;
use crate::test::PROFILE;

/// How long a program that was asked for may run.
const COMMAND_LIMIT_SECONDS: u64 = 24 * 3600;

/// Arguments of `cargo xtask vm`.
#[derive(Args, Default)]
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
    /// Features to build the tests with, as CRATE/FEATURE
    #[arg(long, value_name = "LIST")]
    features: Option<String>,
    /// Let KVM run the guest: fast where it works, and not needed anywhere
    #[arg(long)]
    kvm: bool,
    /// Keep the guest's file system in target/vm
    #[arg(long)]
    keep: bool,
    /// A program of the guest to run instead of tests, and its arguments
    #[arg(last = true, value_name = "PROGRAM", conflicts_with_all = ["long", "filter", "list", "shell"])]
    command: Vec<String>,
}

/// The step of `cargo xtask test`: the standard set. Where no guest can be had, that is a fault if `required`.
pub(crate) fn step(shell: &Shell, required: bool) -> Result<Verdict> {
    let standard = Vm { profile: PROFILE.to_owned(), ..Vm::default() };
    let mut contents = Contents::build(root(), PROFILE, None)?;
    let jobs = contents.jobs(None, false)?;
    add_package(shell, &mut contents, &jobs, PROFILE)?;
    let guests = match Guests::set_up(&cache(), contents, standard.options()) {
        Err(error) if !required => return Ok(Verdict::Skipped(format!("no virtual machine: {error}"))),
        guests => guests?,
    };
    let outcomes = guests.run(&jobs, &mut |news| standard.tell(&news))?;
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    ensure!(failed == 0, "{failed} of {} tests in the guest", outcomes.len());
    Ok(Verdict::Good(format!("{} tests in the guest", outcomes.len())))
}

/// `cargo xtask bench --vm`: builds the benchmark for release and runs it in a guest of its own.
pub(crate) fn bench(arguments: &[String]) -> Result<ExitCode> {
    // What others have takes minutes to build, and is needed for one case only.
    let is_one_case = arguments.iter().any(|argument| argument.starts_with("--case"));
    let is_beside = arguments.iter().any(|argument| argument.ends_with("others"));
    let contents = Contents::build_benchmark(root(), is_beside || !is_one_case)?;
    let command = std::iter::once(BENCHMARK.to_owned()).chain(arguments.iter().cloned()).collect();
    let job = Job { name: BENCHMARK.to_owned(), command, limit_seconds: COMMAND_LIMIT_SECONDS };
    let guests = Guests::set_up(&cache(), contents, Options::default())?;
    let outcomes = guests.run(&[job], &mut |news| match news {
        News::Output(line) => println!("{line}"),
        News::Died(console) => console.iter().for_each(|line| println!("    {line}")),
        News::Up(_) | News::Start(_) | News::End(_) => {}
    })?;
    let failure = outcomes.iter().find_map(|outcome| outcome.failure.as_ref());
    failure.iter().for_each(|failure| println!("FAILED in the guest: {failure}"));
    Ok(if failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the Debian package, if one of these jobs is to install it.
fn add_package(shell: &Shell, contents: &mut Contents, jobs: &[Job], profile: &str) -> Result<()> {
    if jobs.iter().any(needs_systemd) {
        contents.package = Some(dist::package(shell, profile, &["--workspace"])?);
    }
    Ok(())
}

impl Vm {
    /// Builds the tests and runs them in the guest.
    pub(crate) fn run(&self, shell: &Shell) -> Result<ExitCode> {
        let mut contents = Contents::build(root(), &self.profile, self.features.as_deref())?;
        let jobs = self.jobs(&contents)?;
        if self.list {
            jobs.iter().for_each(|job| println!("{}", job.name));
            return Ok(ExitCode::SUCCESS);
        }
        add_package(shell, &mut contents, &jobs, &self.profile)?;
        let guests = Guests::set_up(&cache(), contents, self.options())?;
        if self.shell {
            guests.shell()?;
            return Ok(ExitCode::SUCCESS);
        }
        Ok(summary(&guests.run(&jobs, &mut |news| self.tell(&news))?))
    }

    fn jobs(&self, contents: &Contents) -> Result<Vec<Job>> {
        match self.command.first() {
            _ if self.shell => Ok(Vec::new()),
            None => Ok(contents.jobs(self.filter.as_deref(), self.long)?),
            Some(program) => {
                let (name, command) = (program.clone(), self.command.clone());
                Ok(vec![Job { name, command, limit_seconds: COMMAND_LIMIT_SECONDS }])
            }
        }
    }

    fn options(&self) -> Options {
        let mut options = Options::default();
        options.keep = self.keep;
        if self.kvm {
            options.accelerator = Accelerator::Kvm;
        }
        options
    }

    /// Who asks for a program wants to see what it prints.
    fn verbose(&self) -> bool {
        self.verbose || !self.command.is_empty()
    }

    fn tell(&self, news: &News<'_>) {
        match news {
            News::Up(time) => println!("guest up after {:.1} s", time.as_secs_f32()),
            News::Start(job) if self.verbose() => println!("start {}", job.name),
            News::Output(line) if self.verbose() => println!("    {line}"),
            News::End(outcome) => tell_end(outcome, self.verbose()),
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
        println!("all passed in the guest: {}", outcomes.len());
        return ExitCode::SUCCESS;
    }
    println!("FAILED in the guest: {} of {}", failed.len(), outcomes.len());
    for outcome in failed {
        println!("    {}: {}", outcome.name, outcome.failure.as_deref().unwrap_or_default());
    }
    ExitCode::FAILURE
}

/// Where packages and the like are kept.
fn cache() -> PathBuf {
    crate::target().join("vm")
}
