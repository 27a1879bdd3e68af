//! IP packets over a bond: one TCP connection within the interfaces, beside one on each link; and pings beside it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Options, far_addresses, progress};
use crate::emulator::Shape;
use crate::iperf::{self, Outcome};
use crate::network::{Network, address};
use crate::process::Service;
use crate::report::{Report, Table};
use crate::stats::{Spread, ms, percentile};
use crate::subject::{Keys, OMIT_SECONDS, Subject};

const DEFAULT_SECONDS: u64 = 10;
/// Addresses of the two interfaces.
const NEAR: &str = "10.78.0.1";
const FAR: &str = "10.78.0.2";
/// Time between pings beside the connection.
const PING_INTERVAL: Duration = Duration::from_millis(50);
/// How much longer than planned a program may take.
const SLACK: Duration = Duration::from_secs(20);

struct Case {
    name: &'static str,
    links: [Shape; 2],
}

fn cases() -> Vec<Case> {
    let link = |rate_mbit, delay_ms| Shape::new(rate_mbit, Duration::from_millis(delay_ms));
    vec![
        Case { name: "unequal-rate", links: [link(80, 5), link(40, 5)] },
        Case { name: "unequal-both", links: [link(80, 5), link(40, 15)] },
        Case { name: "unequal-delay", links: [link(80, 2), link(30, 35)] },
    ]
}

/// What one connection did.
struct Measured {
    connection: Outcome,
    /// Round trips of pings beside it.
    pings: Vec<Duration>,
    lost_pings: usize,
}

/// Measures every case the options ask for.
///
/// # Errors
/// If a network cannot be built, or `iperf3` or `ping` is missing. A round that fails is noted in the report.
pub fn run(options: &Options) -> Result<Report> {
    let seconds = options.seconds.unwrap_or(DEFAULT_SECONDS);
    let mut report = Report::default();
    let mut table = Table::new(&[
        "case",
        "links",
        "iperf3 on each, MB/s",
        "sum",
        "within the bond, MB/s",
        "of the sum",
        "retransmissions",
        "ping beside it, ms: median, 99 %",
        "lost",
    ]);
    let mut rows = Vec::new();
    for case in options.choose(cases(), |case| case.name)? {
        let network = options.emulated(&case.links)?;
        if report.conditions.is_empty() {
            report.conditions = vec![
                format!(
                    "One TCP connection of iperf3 with {}, {seconds} s after {OMIT_SECONDS} s of warm-up; goodput at the receiver, the \
                     median of {} rounds (smallest to largest).",
                    network.congestion_control()?,
                    options.rounds
                ),
                "Within the bond: between the interfaces that --tun makes, with 20 pings a second beside it."
                    .into(),
            ];
        }
        let (mut plain, mut bond) = (vec![Vec::new(); case.links.len()], Vec::new());
        for round in 1..=options.rounds {
            progress(&format!("tun: {}, round {round}", case.name));
            match measure_round(options, &network, seconds, &mut plain) {
                Ok(measured) => bond.extend(measured),
                Err(error) => report.failures.push(format!("{}, round {round}: {error:#}", case.name)),
            }
        }
        add_row(&case, &plain, &bond, &mut table, &mut rows);
    }
    report.tables.push(table);
    report.data.insert("cases".into(), rows.into());
    Ok(report)
}

fn add_row(case: &Case, plain: &[Vec<f64>], bond: &[Measured], table: &mut Table, rows: &mut Vec<Value>) {
    let plain: Vec<Spread> = plain.iter().map(|rates| Spread::of(rates)).collect();
    let sum: f64 = plain.iter().map(|rate| rate.median).sum();
    let rates: Vec<f64> = bond.iter().map(|measured| measured.connection.mbytes_per_second).collect();
    let retransmissions: Vec<f64> = bond.iter().map(|measured| measured.connection.retransmissions).collect();
    let mut pings: Vec<Duration> = bond.iter().flat_map(|measured| measured.pings.clone()).collect();
    pings.sort_unstable();
    let lost: usize = bond.iter().map(|measured| measured.lost_pings).sum();
    let (rate, again) = (Spread::of(&rates), Spread::of(&retransmissions));
    let links: Vec<String> = case.links.iter().map(ToString::to_string).collect();
    let each: Vec<String> = plain.iter().map(|rate| format!("{:.2}", rate.median)).collect();
    let of_pings = [50, 99].map(|percent| ms(percentile(&pings, percent)));
    table.rows.push(vec![
        case.name.into(),
        links.join(" + "),
        each.join(" + "),
        format!("{sum:.2}"),
        format!("{:.2} ({:.2} to {:.2})", rate.median, rate.min, rate.max),
        format!("{:.1} %", 100.0 * rate.median / sum),
        format!("{:.0}", again.median),
        format!("{:.1}, {:.1}", of_pings[0], of_pings[1]),
        lost.to_string(),
    ]);
    rows.push(json!({
        "case": case.name, "links": links, "plain_mbytes_per_second": plain, "sum_mbytes_per_second": sum,
        "bondwire_mbytes_per_second": rate, "bondwire_share": rate.median / sum, "retransmissions": again,
        "ping_ms": { "median": of_pings[0], "p99": of_pings[1] }, "lost_pings": lost,
    }));
}

fn measure_round(
    options: &Options,
    network: &Network,
    seconds: u64,
    plain: &mut [Vec<f64>],
) -> Result<Option<Measured>> {
    let Network { near, far, .. } = network;
    let _server = iperf::serve(far)?;
    let (warm_up, length) = (Duration::from_secs(OMIT_SECONDS), Duration::from_secs(seconds));
    if options.subjects.contains(&Subject::Plain) {
        for (index, rates) in plain.iter_mut().enumerate() {
            let server = address(index, true).to_string();
            rates.push(iperf::run(near, &server, true, warm_up, length)?.mbytes_per_second);
        }
    }
    if !options.subjects.contains(&Subject::Bondwire) {
        return Ok(None);
    }
    let programs = &options.programs;
    let keys = Keys::make(programs, 1)?;
    let tun = |own: &str| ["--tun", "bond0", "--addr", own].map(str::to_owned).to_vec();
    let _listener = keys.listen_with(programs, far, &tun(&format!("{FAR}/24")))?;
    let links: Vec<_> = far_addresses(plain.len()).into_iter().map(|link| programs.link(link)).collect();
    let _connector = keys.connect_with(programs, near, 0, &links, &tun(&format!("{NEAR}/24")))?;
    keys.wait_for_links(programs, near, links.len())?;
    let count = (warm_up + length).as_millis() / PING_INTERVAL.as_millis();
    let interval = PING_INTERVAL.as_secs_f64().to_string();
    let mut ping = near.command(Path::new("ping"));
    ping.args(["-n", "-i", &interval, "-c", &count.to_string(), "-W", "1", FAR]);
    let pinging = Service::start("ping", &mut ping)?;
    let connection = iperf::run(near, FAR, true, warm_up, length)?;
    let (said, _) = pinging.finish(warm_up + length + SLACK)?;
    let pings = round_trips(&said);
    let lost_pings = usize::try_from(count)?.saturating_sub(pings.len());
    Ok(Some(Measured { connection, pings, lost_pings }))
}

/// The round trips that `ping` tells of.
fn round_trips(said: &str) -> Vec<Duration> {
    let time = |line: &str| line.split("time=").nth(1)?.split(' ').next()?.parse::<f64>().ok();
    said.lines().filter_map(time).map(|ms| Duration::from_secs_f64(ms / 1e3)).collect()
}
