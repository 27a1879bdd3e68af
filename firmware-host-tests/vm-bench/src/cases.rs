//! What there is to measure, one file each.

pub(crate) mod cables;
pub(crate) mod others;
pub(crate) mod raw;
pub(crate) mod tcp;

use std::time::Duration;

use anyhow::Result;
use bondwire_bench::report::Report;
use clap::ValueEnum;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// One cable: the packet link beside a raw bulk loop
    Raw,
    /// One cable: a bond beside plain TCP over a network gadget, and beside aggligator
    Others,
    /// Cables with a pace, in one bond: how their rates add up
    Cables,
    /// A cable and a TCP path in one bond: their sum, and what a cut of either costs
    Tcp,
}

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// How often each measurement is repeated.
    pub(crate) rounds: u32,
    /// How long each takes, if not as long as the case has it.
    pub(crate) seconds: Option<u64>,
    /// What each transfer of `tcp` moves.
    pub(crate) megabytes: u64,
}

impl Options {
    fn time(&self, default_seconds: u64) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(default_seconds))
    }
}

impl Case {
    pub(crate) async fn run(self, options: &Options) -> Result<Report> {
        match self {
            Self::Raw => raw::run(options).await,
            Self::Cables => cables::run(options).await,
            Self::Tcp => tcp::run(options).await,
            Self::Others => others::run(options).await,
        }
    }
}

/// Says on standard error what is being measured: the tables come only at the end.
#[expect(clippy::print_stderr, reason = "progress for the person who waits")]
fn progress(message: &str) {
    eprintln!("… {message}");
}
