//! What came of a run, and of many.

use crate::fault::FaultKind;
use bondwire_core::event::LinkState;
use bondwire_core::time::Duration;
use std::collections::BTreeMap;
use std::fmt;

/// What came of one seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Everything that happened, folded into one number.
    pub hash: u64,
    /// How often each fault struck.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Stream bytes read and verified.
    pub bytes: u64,
    /// Datagrams received and verified, and sent.
    pub datagrams: [u64; 2],
    /// How often each change of a link's state was seen.
    pub transitions: BTreeMap<(LinkState, LinkState), u64>,
    /// How often each error ended a handshake or a link, by its text without numbers.
    pub errors: BTreeMap<String, u64>,
    /// How often each cause closed a bond.
    pub closed: BTreeMap<&'static str, u64>,
    /// Time that passed in the world.
    pub virtual_time: Duration,
    /// Calls of `handle_timeout`.
    pub timers: u64,
    /// Most calls of `handle_timeout` in one second of the world that changed nothing.
    pub idle_timers_max: u64,
    /// Packets sent over all cables.
    pub packets: u64,
    /// Most bytes that an engine had granted to its peer or held for its readers.
    pub granted_bytes_max: u64,
    /// What was wrong, if anything was.
    pub failure: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} bytes and {} of {} datagrams verified, {} packets, {} timers (idle at most {}/s), {:?}, hash {:016x}",
            self.seed,
            self.bytes,
            self.datagrams[0],
            self.datagrams[1],
            self.packets,
            self.timers,
            self.idle_timers_max,
            self.virtual_time,
            self.hash
        )?;
        for (kind, count) in &self.faults {
            writeln!(f, "  {kind:<24} {count:>8}")?;
        }
        for ((from, to), count) in &self.transitions {
            writeln!(f, "  {from} -> {to}: {count}")?;
        }
        match &self.failure {
            Some(failure) => write!(f, "FAILED: {failure}"),
            None => write!(f, "passed"),
        }
    }
}

/// Every change of state that a link can make.
pub const TRANSITIONS: [(LinkState, LinkState); 6] = [
    (LinkState::Joining, LinkState::Active),
    (LinkState::Joining, LinkState::Closed),
    (LinkState::Active, LinkState::Suspect),
    (LinkState::Active, LinkState::Closed),
    (LinkState::Suspect, LinkState::Active),
    (LinkState::Suspect, LinkState::Closed),
];

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Coverage {
    /// Runs.
    pub runs: u64,
    /// Runs in which each fault struck.
    pub runs_with: BTreeMap<FaultKind, u64>,
    /// Sums over the runs.
    pub transitions: BTreeMap<(LinkState, LinkState), u64>,
    /// Sums over the runs.
    pub errors: BTreeMap<String, u64>,
    /// Sums over the runs.
    pub closed: BTreeMap<&'static str, u64>,
    /// Kinds of fault of each run.
    kinds: Vec<u64>,
    /// Bytes of each run.
    bytes: Vec<u64>,
    /// Virtual milliseconds of each run.
    millis: Vec<u64>,
    packets: u64,
    idle_timers_max: u64,
    granted_bytes_max: u64,
}

impl Coverage {
    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        self.runs += 1;
        for kind in report.faults.keys() {
            *self.runs_with.entry(*kind).or_default() += 1;
        }
        for (transition, count) in &report.transitions {
            *self.transitions.entry(*transition).or_default() += count;
        }
        for (error, count) in &report.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
        for (cause, count) in &report.closed {
            *self.closed.entry(cause).or_default() += count;
        }
        self.kinds.push(report.faults.len() as u64);
        self.bytes.push(report.bytes);
        self.millis.push(u64::try_from(report.virtual_time.as_millis()).unwrap_or(u64::MAX));
        self.packets += report.packets;
        self.idle_timers_max = self.idle_timers_max.max(report.idle_timers_max);
        self.granted_bytes_max = self.granted_bytes_max.max(report.granted_bytes_max);
    }

    /// Median number of kinds of fault per run.
    pub fn median_faults(&self) -> u64 {
        median(&self.kinds)
    }

    /// Median of the bytes moved per run.
    pub fn median_bytes(&self) -> u64 {
        median(&self.bytes)
    }

    /// What the runs did not reach: faults in less than 1 % of them, transitions never seen, too few faults or bytes.
    pub fn gaps(&self) -> Vec<String> {
        let rare = |kind: &&FaultKind| self.runs_with.get(kind).copied().unwrap_or(0) * 100 < self.runs;
        let unseen = |transition: &&(LinkState, LinkState)| !self.transitions.contains_key(*transition);
        let mut gaps: Vec<String> = FaultKind::ALL
            .iter()
            .filter(rare)
            .map(|kind| format!("{kind} in less than 1 % of the runs"))
            .collect();
        let unseen = TRANSITIONS.iter().filter(unseen);
        gaps.extend(unseen.map(|(from, to)| format!("no link went from {from} to {to}")));
        if self.median_faults() < 3 {
            gaps.push(format!("only {} kinds of fault in the median run", self.median_faults()));
        }
        if self.median_bytes() < 1_000_000 {
            gaps.push(format!("only {} bytes in the median run", self.median_bytes()));
        }
        gaps
    }
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<26} {:>8} {:>7}", "fault", "runs", "%")?;
        for kind in FaultKind::ALL {
            let runs = self.runs_with.get(&kind).copied().unwrap_or(0);
            let permille = runs * 1000 / self.runs.max(1);
            writeln!(f, "{kind:<26} {runs:>8} {:>5}.{}", permille / 10, permille % 10)?;
        }
        writeln!(f, "\n{:<26} {:>8}", "link state", "times")?;
        for (from, to) in TRANSITIONS {
            let times = self.transitions.get(&(from, to)).copied().unwrap_or(0);
            writeln!(f, "{:<26} {times:>8}", format!("{from} -> {to}"))?;
        }
        writeln!(f, "\n{:<26} {:>8}", "bond closed", "times")?;
        for (cause, times) in &self.closed {
            writeln!(f, "{cause:<26} {times:>8}")?;
        }
        writeln!(f, "\n{:>8}  handshake error or link's end", "times")?;
        for (error, times) in &self.errors {
            writeln!(f, "{times:>8}  {error}")?;
        }
        writeln!(
            f,
            "\nmedian run: {} kinds of fault, {} bytes, {} ms; {} packets in all; \
             idle timers at most {}/s; granted or held for readers at most {} bytes",
            self.median_faults(),
            self.median_bytes(),
            median(&self.millis),
            self.packets,
            self.idle_timers_max,
            self.granted_bytes_max
        )
    }
}
