//! A real download by `curl` through a port forward, while one of two paths is cut and comes back.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Options, far_addresses, progress};
use crate::emulator::{Direction, Gate, Shape};
use crate::network::{Network, address};
use crate::report::{Report, Table};
use crate::subject::{Route, SERVER_PORT, Subject};
use crate::traffic::curl::Curl;
use crate::traffic::pattern::Content;
use crate::traffic::server::FILE_SEED;
use crate::traffic::{Series, clock};

/// Bytes of the file.
const FILE_BYTES: u64 = 300_000_000;

/// Which link is cut, counted from 0.
const CUT: usize = 0;

/// After a cut or a return the rate must be right within this time. It is measured over the time after that.
const SETTLE: Duration = Duration::from_secs(1);

/// How long the rate is measured after it should have settled.
const MEASURED: Duration = Duration::from_secs(1);

/// A download that takes longer has hung.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(180);

/// How long a plain download on one link is measured, after a second of slow start.
const BASELINE: Duration = Duration::from_secs(6);

/// The ways in which a path dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Both directions lose everything, and nothing tells.
    Blackhole,
    /// So does the direction from client to server.
    BlackholeForth,
    /// So does the direction from server to client.
    BlackholeBack,
    /// The client's network device is down.
    InterfaceDown,
    /// Every connection is reset, and new ones are refused.
    Reset,
}

impl Way {
    const ALL: [Self; 5] =
        [Self::Blackhole, Self::BlackholeForth, Self::BlackholeBack, Self::InterfaceDown, Self::Reset];

    fn name(self) -> &'static str {
        match self {
            Self::Blackhole => "silent",
            Self::BlackholeForth => "silent-to-server",
            Self::BlackholeBack => "silent-to-client",
            Self::InterfaceDown => "interface-down",
            Self::Reset => "reset",
        }
    }

    fn cut(self, network: &Network) -> Result<()> {
        let emulator = &network.emulator;
        match self {
            Self::Blackhole => emulator.set_gates(CUT, Gate::Blackhole),
            Self::BlackholeForth => emulator.set_gate(CUT, Direction::Forth, Gate::Blackhole),
            Self::BlackholeBack => emulator.set_gate(CUT, Direction::Back, Gate::Blackhole),
            Self::InterfaceDown => network.set_interface(CUT, false)?,
            Self::Reset => emulator.set_gates(CUT, Gate::Reset),
        }
        Ok(())
    }

    fn restore(self, network: &Network) -> Result<()> {
        network.emulator.set_gates(CUT, Gate::Open);
        network.set_interface(CUT, true)
    }
}

/// What `curl` saw.
struct Download {
    series: Series,
    digest: [u8; 32],
    /// When the path was cut and when it came back.
    turns_ns: Vec<u64>,
    /// Bytes of packets from server to client on all links.
    carried_bytes: u64,
}

/// One row of the table. Rates in MB/s, times in seconds.
#[derive(Debug, Serialize)]
struct Outcome {
    subject: Subject,
    way: &'static str,
    intact: bool,
    seconds: f64,
    before_cut: f64,
    after_cut: f64,
    whole_cut: f64,
    after_return: f64,
    longest_gap_seconds: f64,
    carried_per_byte: f64,
    tenths_mbytes: Vec<f64>,
}

/// Downloads the file once for each way of dying.
///
/// # Errors
/// If the network cannot be built or `curl` is missing. A download that fails is noted in the report.
pub fn run(options: &Options) -> Result<Report> {
    let ways = options.choose(Way::ALL.to_vec(), |way| way.name())?;
    let shapes = [100, 50].map(|rate_mbit| Shape::new(rate_mbit, Duration::from_millis(5)));
    let network = options.emulated(&shapes)?;
    let alone = [baseline(options, &network, 0)?, baseline(options, &network, 1)?];
    let [first, second] = shapes;
    let mut report = Report::new(&[
        format!(
            "curl downloads {} MB of pseudo-random data over two paths: {first} + {second}.",
            FILE_BYTES / 1_000_000
        ),
        "The first path dies at one third of the file and comes back at two thirds. It dies: silent (loses \
         everything in both directions), silent-to-server or silent-to-client (in one), interface-down (the \
         client's), reset (every connection is reset and new ones are refused)."
            .into(),
        format!("TCP with {} for congestion control.", network.congestion_control()?),
        format!("Plain TCP on each path alone: {:.2} and {:.2} MB/s at curl.", alone[0], alone[1]),
        "Rates at curl, measured from 1 s to 2 s after the cut and the return: how soon the remaining path, \
         then both, are in full use. Shares of plain TCP on the same paths."
            .into(),
    ]);
    let mut table = Table::new(&[
        "subject",
        "how the path dies",
        "data",
        "before, MB/s (share)",
        "1 s after the cut",
        "1 s after the return",
        "longest gap, ms",
        "bytes carried per byte",
    ]);
    let mut expected = Sha256::new();
    std::io::copy(&mut Content::range(FILE_SEED, 0, FILE_BYTES), &mut expected)?;
    let expected = expected.finalize().into();
    let mut outcomes = Vec::new();
    // curl speaks no MPTCP.
    for &subject in options.subjects.iter().filter(|&&subject| subject != Subject::Mptcp) {
        for &way in &ways {
            progress(&format!("forward-cut: {subject}, {}", way.name()));
            match download(options, &network, subject, way) {
                Ok(download) => {
                    let outcome = judge(subject, way, &download, &expected);
                    table.rows.push(row(&outcome, alone));
                    if !outcome.intact {
                        report.failures.push(format!("{subject}, {}: the data arrived changed", way.name()));
                    }
                    outcomes.push(outcome);
                }
                Err(error) => report.failures.push(format!("{subject}, {}: {error:#}", way.name())),
            }
            way.restore(&network)?;
        }
    }
    report.tables.push(table);
    report.data.insert("plain_mbytes_per_second".into(), json!(alone));
    report.data.insert("downloads".into(), json!(outcomes));
    Ok(report)
}

/// The rate at which `curl` downloads over one link with nothing but TCP, in MB/s.
fn baseline(options: &Options, network: &Network, index: usize) -> Result<f64> {
    let _server = options.programs.serve(&network.far, crate::traffic::Transport::Plain)?;
    let target = (address(index, true), SERVER_PORT).into();
    let mut curl = download_of(network, target)?;
    let mut series = Series::default();
    let warm_up = Duration::from_secs(1);
    curl.read(|now_ns, length| {
        series.add(now_ns, length);
        Ok(series.since_start(now_ns) < warm_up + BASELINE)
    })?;
    Ok(series.mbytes_per_second(warm_up, warm_up + BASELINE))
}

fn download(options: &Options, network: &Network, subject: Subject, way: Way) -> Result<Download> {
    let route = Route::open(subject, &options.programs, [&network.near, &network.far], &far_addresses(2))?;
    let carried_before = carried_bytes(network);
    let mut curl = download_of(network, route.address)?;
    let (mut series, mut received, mut turns_ns) = (Series::default(), 0, Vec::new());
    let digest = curl.read(|now_ns, length| {
        series.add(now_ns, length);
        received += length;
        if turns_ns.is_empty() && received >= FILE_BYTES / 3 {
            way.cut(network)?;
            turns_ns.push(clock::now_ns());
        } else if turns_ns.len() == 1 && received >= FILE_BYTES / 3 * 2 {
            way.restore(network)?;
            turns_ns.push(clock::now_ns());
        }
        Ok(true)
    })?;
    curl.finish()?;
    ensure!(received == FILE_BYTES, "curl got {received} of {FILE_BYTES} bytes");
    Ok(Download { series, digest, turns_ns, carried_bytes: carried_bytes(network) - carried_before })
}

/// `curl` that downloads the file.
fn download_of(network: &Network, server: std::net::SocketAddr) -> Result<Curl> {
    Curl::start(&network.near, &[], &format!("http://{server}/{FILE_BYTES}"), DOWNLOAD_LIMIT)
}

fn carried_bytes(network: &Network) -> u64 {
    (0..network.shapes.len())
        .map(|index| network.emulator.counters(index, Direction::Back).passed_bytes)
        .sum()
}

fn judge(subject: Subject, way: Way, download: &Download, expected: &[u8; 32]) -> Outcome {
    let series = &download.series;
    let turn =
        |index: usize| download.turns_ns.get(index).map_or(Duration::ZERO, |&at| series.since_start(at));
    let (cut, back) = (turn(0), turn(1));
    let settled = |at: Duration| series.mbytes_per_second(at + SETTLE, at + SETTLE + MEASURED);
    Outcome {
        subject,
        way: way.name(),
        intact: download.digest == *expected,
        seconds: series.since_start(series.last_ns).as_secs_f64(),
        before_cut: series.mbytes_per_second(SETTLE, cut),
        after_cut: settled(cut),
        whole_cut: series.mbytes_per_second(cut + SETTLE, back),
        after_return: settled(back),
        longest_gap_seconds: series.longest_gap(Duration::ZERO, Duration::MAX).as_secs_f64(),
        carried_per_byte: download.carried_bytes as f64 / FILE_BYTES as f64,
        tenths_mbytes: series.buckets.iter().map(|&bytes| bytes as f64 / 1e6).collect(),
    }
}

fn row(outcome: &Outcome, alone: [f64; 2]) -> Vec<String> {
    let [first, second] = alone;
    let share = |rate: f64, of: f64| format!("{rate:.2} ({:.1} %)", 100.0 * rate / of);
    vec![
        outcome.subject.to_string(),
        outcome.way.into(),
        if outcome.intact { "intact" } else { "CHANGED" }.into(),
        share(outcome.before_cut, first + second),
        share(outcome.after_cut, second),
        share(outcome.after_return, first + second),
        format!("{:.0}", outcome.longest_gap_seconds * 1000.0),
        format!("{:.3}", outcome.carried_per_byte),
    ]
}
