//! How much of several links' sum reaches the receiver: plain TCP on each link alone, kernel MPTCP, Bondwire.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Options, far_addresses, progress};
use crate::emulator::{Direction, Shape};
use crate::network::{Network, address};
use crate::report::{Report, Table};
use crate::stats::{Spread, ms};
use crate::subject::{Keys, OMIT_SECONDS, Programs, Route, SERVER_PORT, Subject};
use crate::traffic::{Transport, client};

const DEFAULT_SECONDS: u64 = 10;

struct Case {
    name: &'static str,
    links: Vec<Shape>,
}

fn cases() -> Vec<Case> {
    let link = |rate_mbit, delay_ms| Shape::new(rate_mbit, Duration::from_millis(delay_ms));
    let case = |name, links: &[Shape]| Case { name, links: links.to_vec() };
    vec![
        case("equal", &[link(100, 1).with_queue_kib(128); 2]),
        case("unequal-rate", &[link(150, 5), link(50, 5)]),
        case("unequal-delay", &[link(100, 2), link(40, 40)]),
        case("hundred-to-one", &[link(100, 5), link(1, 5).with_queue_kib(64)]),
        case(
            "serial-beside",
            &[link(100, 1), Shape { rate_bits_per_second: 92_000, ..link(1, 5).with_queue_kib(16) }],
        ),
        case("deep-queue", &[link(50, 10), link(50, 10).with_queue_kib(2048)]),
        case("lossy", &[link(50, 10), link(50, 10).with_loss(0.01)]),
        case("far-apart", &[link(100, 5).with_queue_kib(512), link(100, 100).with_queue_kib(2048)]),
        case("long", &[link(100, 50).with_queue_kib(1024); 2]),
        case("four", &[link(100, 5), link(75, 5), link(50, 10), link(25, 20)]),
    ]
}

/// Rates of one case in MB/s, one value for each round.
#[derive(Default)]
struct Rates {
    /// Plain TCP, for each link.
    plain: Vec<Vec<f64>>,
    mptcp: Vec<f64>,
    bondwire: Vec<f64>,
    /// Longest gaps at a receiver behind a forward, in milliseconds: of plain TCP on each link, and of the bond.
    plain_gaps_ms: Vec<Vec<f64>>,
    bondwire_gaps_ms: Vec<f64>,
}

/// Measures every case the options ask for.
///
/// # Errors
/// If a network cannot be built. A subject that fails is noted in the report.
pub fn run(options: &Options) -> Result<Report> {
    let seconds = options.seconds.unwrap_or(DEFAULT_SECONDS);
    let mut report = Report::default();
    let mut table = Table::new(&[
        "case",
        "links (rate, one-way delay, queue)",
        "plain TCP on each, MB/s",
        "sum",
        "kernel MPTCP: MB/s",
        "of the sum",
        "Bondwire: MB/s",
        "of the sum",
        "of the best link",
        "longest gap, ms: best link, Bondwire",
    ]);
    let mut rows = Vec::new();
    for case in options.choose(cases(), |case| case.name)? {
        let network = options.emulated(&case.links)?;
        if report.conditions.is_empty() {
            report.conditions = conditions(options, &network, seconds)?;
        }
        let rates = measure(options, &case, &network, seconds, &mut report.failures)?;
        let plain: Vec<Spread> = rates.plain.iter().map(|rates| Spread::of(rates)).collect();
        let sum: f64 = plain.iter().map(|rate| rate.median).sum();
        let links: Vec<String> = case.links.iter().map(ToString::to_string).collect();
        let each: Vec<String> = plain.iter().map(|rate| format!("{:.2}", rate.median)).collect();
        let mut row = vec![case.name.into(), links.join(" + "), each.join(" + "), format!("{sum:.2}")];
        for rates in [&rates.mptcp, &rates.bondwire] {
            row.extend(against(Spread::of(rates), sum));
        }
        let best = (0..plain.len()).max_by(|&a, &b| plain[a].median.total_cmp(&plain[b].median)).unwrap_or(0);
        let of_best = Spread::of(&rates.bondwire).median / plain[best].median;
        let gaps = [&rates.plain_gaps_ms[best], &rates.bondwire_gaps_ms].map(|gaps| Spread::of(gaps).max);
        row.extend([format!("{:.1} %", 100.0 * of_best), format!("{:.0}, {:.0}", gaps[0], gaps[1])]);
        table.rows.push(row);
        rows.push(json!({
            "best_link_share": of_best, "longest_gap_ms": { "best_link": gaps[0], "bondwire": gaps[1] },
            "case": case.name, "links": links, "plain_mbytes_per_second": plain, "sum_mbytes_per_second": sum,
            "mptcp_mbytes_per_second": Spread::of(&rates.mptcp), "mptcp_share": Spread::of(&rates.mptcp).median / sum,
            "bondwire_mbytes_per_second": Spread::of(&rates.bondwire),
            "bondwire_share": Spread::of(&rates.bondwire).median / sum,
        }));
    }
    report.tables.push(table);
    report.data.insert("cases".into(), rows.into());
    Ok(report)
}

fn conditions(options: &Options, network: &Network, seconds: u64) -> Result<Vec<String>> {
    let congestion_control = network.congestion_control()?;
    let rounds = options.rounds;
    Ok(vec![
        "Goodput at the receiver over emulated links: what reaches the application, MB/s of 10^6 bytes."
            .into(),
        format!(
            "{seconds} s each after {OMIT_SECONDS} s of warm-up; the median of {rounds} interleaved rounds (smallest to largest)."
        ),
        "The longest gap at a receiver in that time, the worst of all rounds; the bond's in a further run, through a port forward.".into(),
        format!(
            "TCP and MPTCP with {congestion_control} for congestion control. Links drop the tail of a full queue."
        ),
    ])
}

fn measure(
    options: &Options,
    case: &Case,
    network: &Network,
    seconds: u64,
    failures: &mut Vec<String>,
) -> Result<Rates> {
    let wants = |subject| options.subjects.contains(&subject);
    if wants(Subject::Mptcp) {
        network.enable_mptcp()?;
    }
    let mut rates = Rates {
        plain: vec![Vec::new(); case.links.len()],
        plain_gaps_ms: vec![Vec::new(); case.links.len()],
        ..Rates::default()
    };
    let mut note = |subject: Subject, outcome: Result<(f64, f64)>| -> Option<(f64, f64)> {
        match &outcome {
            Ok((rate, gap_ms)) => {
                progress(&format!("{}: {subject} {rate:.2} MB/s, longest gap {gap_ms:.0} ms", case.name));
            }
            Err(error) => failures.push(format!("{}: {subject}: {error:#}", case.name)),
        }
        outcome.ok()
    };
    for _ in 0..options.rounds {
        for index in 0..case.links.len() {
            let plain = tcp(options, network, index, Transport::Plain, seconds);
            let noted = note(Subject::Plain, plain);
            rates.plain[index].extend(noted.map(|(rate, _)| rate));
            rates.plain_gaps_ms[index].extend(noted.map(|(_, gap_ms)| gap_ms));
        }
        if wants(Subject::Mptcp) {
            let mptcp = tcp(options, network, 0, Transport::Mptcp, seconds);
            rates.mptcp.extend(note(Subject::Mptcp, mptcp).map(|(rate, _)| rate));
        }
        if wants(Subject::Bondwire) {
            let bond = bondwire(&options.programs, network, seconds)
                .and_then(|rate| Ok((rate, longest_gap_ms(&options.programs, network, seconds)?)));
            let noted = note(Subject::Bondwire, bond);
            rates.bondwire.extend(noted.map(|(rate, _)| rate));
            rates.bondwire_gaps_ms.extend(noted.map(|(_, gap_ms)| gap_ms));
        }
    }
    Ok(rates)
}

/// The longest gap at a receiver behind a forward over all links.
fn longest_gap_ms(programs: &Programs, network: &Network, seconds: u64) -> Result<f64> {
    let hosts = [&network.near, &network.far];
    let route = Route::open(Subject::Bondwire, programs, hosts, &far_addresses(network.shapes.len()))?;
    let [from, to] = window(seconds);
    let series = network.near.run(|| client::send_bulk(route.address, route.transport, to))?;
    Ok(ms(series.longest_gap(from, to)))
}

/// The time that counts, from the first byte on.
fn window(seconds: u64) -> [Duration; 2] {
    [OMIT_SECONDS, OMIT_SECONDS + seconds].map(Duration::from_secs)
}

/// What a TCP or MPTCP connection, opened over link `index`, brings to the receiver in MB/s, and its longest gap there
/// in milliseconds.
fn tcp(
    options: &Options,
    network: &Network,
    index: usize,
    transport: Transport,
    seconds: u64,
) -> Result<(f64, f64)> {
    let _server = options.programs.serve(&network.far, transport)?;
    let [from, to] = window(seconds);
    let target = (address(index, true), SERVER_PORT).into();
    let series = network.near.run(|| client::send_bulk(target, transport, to))?;
    Ok((series.mbytes_per_second(from, to), ms(series.longest_gap(from, to))))
}

/// What `bondwire speed` reports, held against what the links have really carried.
fn bondwire(programs: &Programs, network: &Network, seconds: u64) -> Result<f64> {
    let links = network.shapes.len();
    let carried = || -> u64 {
        (0..links).map(|index| network.emulator.counters(index, Direction::Forth).passed_bytes).sum()
    };
    let keys = Keys::make(programs, 1)?;
    let _listener = keys.listen(programs, &network.far)?;
    let before = carried();
    let (speed, _) = keys.speed(programs, &network.near, &far_addresses(links), OMIT_SECONDS, seconds)?;
    let carried = carried() - before;
    ensure!(speed.bytes <= carried, "it reports {} bytes, but the links carried {carried}", speed.bytes);
    let least_bytes = speed.mbytes_per_second * 1e6 * seconds as f64;
    ensure!(least_bytes <= carried as f64, "it reports {speed:?}, but the links carried {carried} bytes");
    Ok(speed.mbytes_per_second)
}

/// A rate and its share of the sum, or dashes where nothing was measured.
fn against(rate: Spread, sum: f64) -> [String; 2] {
    if rate.max == 0.0 {
        return ["–".into(), "–".into()];
    }
    let Spread { median, min, max } = rate;
    [format!("{median:.2} ({min:.2} to {max:.2})"), format!("{:.1} %", 100.0 * median / sum)]
}
