//! The scenarios, one file each.

pub mod cost;
pub mod failover;
pub mod forward_cut;
pub mod idle;
pub mod interactive;
pub mod latency;
pub mod many;
pub mod messages;
pub mod policies;
pub mod serial;
pub mod shaped;
pub mod slow_reader;
pub mod startup;
pub mod streams;
pub mod tun;

use crate::network::{Network, address};
use crate::subject::{Programs, Subject};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The programs to run.
    pub programs: Programs,
    /// What to measure; a scenario leaves out what makes no sense in it.
    pub subjects: Vec<Subject>,
    /// How often each measurement is repeated.
    pub rounds: u32,
    /// How long each measurement takes, after its warm-up; without it the scenario's own default.
    pub seconds: Option<u64>,
    /// TCP's congestion control, where not the machine's default.
    pub congestion_control: Option<String>,
    /// Only the cases of these names; all if there are none.
    pub cases: Vec<String>,
}

impl Options {
    /// The cases asked for, of all a scenario has.
    fn choose<C>(&self, all: Vec<C>, name: impl Fn(&C) -> &str) -> Result<Vec<C>> {
        let names: Vec<String> = all.iter().map(|case| name(case).to_owned()).collect();
        let unknown = self.cases.iter().find(|wanted| !names.contains(wanted));
        ensure!(unknown.is_none(), "there is no case {unknown:?}: choose from {}", names.join(", "));
        let is_wanted =
            |case: &C| self.cases.is_empty() || self.cases.iter().any(|wanted| wanted == name(case));
        Ok(all.into_iter().filter(is_wanted).collect())
    }

    fn emulated(&self, shapes: &[crate::emulator::Shape]) -> Result<Network> {
        Network::emulated(shapes, self.congestion_control.as_deref())
    }
}

/// The far addresses of a network's first links.
fn far_addresses(count: usize) -> Vec<std::net::Ipv4Addr> {
    (0..count).map(|index| address(index, true)).collect()
}

/// Hundreds of bonds and connections need more descriptors than a login shell allows; programs inherit this limit.
fn raise_file_limit() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("cannot raise the file limit")
}

/// So many bytes, for people.
fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Says on standard error what is being measured: the tables come only at the end.
#[expect(clippy::print_stderr, reason = "progress for the person who waits")]
fn progress(message: &str) {
    eprintln!("… {message}");
}
