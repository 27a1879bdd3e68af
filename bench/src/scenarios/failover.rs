//! One of two links goes silent under a steady stream: how long does the stream stand still?

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use super::{Options, far_addresses, progress};
use crate::emulator::{Gate, Shape};
use crate::network::Network;
use crate::report::{Report, Table};
use crate::stats::{ms, percentile};
use crate::subject::{Route, Subject};
use crate::traffic::{Arrival, client, clock};

const RATE_BITS_PER_SECOND: u64 = 20_000_000;
const DEFAULT_SILENCE_SECONDS: u64 = 3;

/// Undisturbed time at the start and after each silence.
const CALM: Duration = Duration::from_secs(4);

/// Time after a link went silent or came back in which latencies belong to that.
const AFTERMATH: Duration = Duration::from_secs(1);

/// The links go silent one after the other, so that the one the stream prefers is among them.
const LINKS: usize = 2;

/// What the receiver of a paced stream saw.
#[derive(Clone, Copy, Debug, Serialize)]
struct Delivery {
    blocks: usize,
    longest_gap_ms: f64,
    median_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// The 99th percentile of the blocks that were due outside the time right after a cut.
    calm_p99_ms: f64,
}

/// Measures each subject with links that go silent, and plain TCP also on a link that never does.
///
/// # Errors
/// If the network cannot be built. A subject that fails is noted in the report.
pub fn run(options: &Options) -> Result<Report> {
    let shape = Shape::new(50, Duration::from_millis(10));
    let silence = Duration::from_secs(options.seconds.unwrap_or(DEFAULT_SILENCE_SECONDS));
    let network = options.emulated(&[shape; LINKS])?;
    network.enable_mptcp()?;
    let mut report = Report::new(&[
        format!("A stream of {} Mbit/s over two links, each {shape}.", RATE_BITS_PER_SECOND / 1_000_000),
        format!(
            "First link 1, then link 2 goes silent in both directions for {silence:?}, with {CALM:?} of calm \
             around; nothing tells either end."
        ),
        format!("TCP with {} for congestion control.", network.congestion_control()?),
        "Latency: from the moment a block was due to its last byte at the receiver; plain TCP runs undisturbed, \
         as the measure."
            .into(),
        format!("In the calm: of blocks due later than {AFTERMATH:?} after a link went silent or came back."),
    ]);
    let mut table = Table::new(&[
        "subject",
        "round",
        "longest gap, ms",
        "median latency, ms",
        "p99, ms",
        "p99 in the calm, ms",
        "largest, ms",
    ]);
    let mut runs = Vec::new();
    for round in 1..=options.rounds {
        for &subject in &options.subjects {
            progress(&format!("failover: {subject}, round {round}"));
            match measure(options, &network, subject, silence) {
                Ok(delivery) => {
                    let Delivery { longest_gap_ms, median_ms, p99_ms, max_ms, calm_p99_ms, .. } = delivery;
                    let figures = [longest_gap_ms, median_ms, p99_ms, calm_p99_ms, max_ms]
                        .map(|figure| format!("{figure:.1}"));
                    let mut row = vec![subject.to_string(), round.to_string()];
                    row.extend(figures);
                    table.rows.push(row);
                    runs.push(json!({ "subject": subject, "round": round, "delivery": delivery }));
                }
                // Kernel MPTCP may never recover within the client's patience: a finding, not a fault of ours.
                Err(error) if subject == Subject::Mptcp => {
                    progress(&format!("failover: {subject}, round {round}: {error:#}"));
                    let mut row = vec![subject.to_string(), round.to_string(), "stopped for good".into()];
                    row.extend(["–"; 4].map(str::to_owned));
                    table.rows.push(row);
                    runs.push(json!({ "subject": subject, "round": round, "delivery": null }));
                }
                Err(error) => report.failures.push(format!("{subject}, round {round}: {error:#}")),
            }
        }
    }
    report.tables.push(table);
    report.data.insert("runs".into(), runs.into());
    Ok(report)
}

fn measure(options: &Options, network: &Network, subject: Subject, silence: Duration) -> Result<Delivery> {
    let hosts = [&network.near, &network.far];
    let route = Route::open(subject, &options.programs, hosts, &far_addresses(LINKS))?;
    let links = u32::try_from(LINKS)?;
    let length = CALM + (silence + CALM) * links;
    let mut changes_ns = Vec::new();
    let arrivals = std::thread::scope(|scope| {
        let stream = scope.spawn(|| {
            network
                .near
                .run(|| client::send_paced(route.address, route.transport, RATE_BITS_PER_SECOND, length))
        });
        for index in (0..LINKS).filter(|_| subject != Subject::Plain) {
            std::thread::sleep(CALM);
            for (gate, length) in [(Gate::Blackhole, silence), (Gate::Open, Duration::ZERO)] {
                changes_ns.push(clock::now_ns());
                network.emulator.set_gates(index, gate);
                std::thread::sleep(length);
            }
        }
        stream.join().map_err(|_| anyhow::anyhow!("the stream's thread panicked"))?
    })?;
    summary(&arrivals, &changes_ns)
}

/// `changes_ns`: when a link went silent or came back.
fn summary(arrivals: &[Arrival], changes_ns: &[u64]) -> Result<Delivery> {
    let gaps = arrivals.windows(2).map(|pair| pair[1].arrived_ns.saturating_sub(pair[0].arrived_ns));
    let longest_gap = Duration::from_nanos(gaps.max().context("nothing arrived")?);
    let latency = |block: &Arrival| Duration::from_nanos(block.arrived_ns.saturating_sub(block.scheduled_ns));
    let mut latencies: Vec<Duration> = arrivals.iter().map(latency).collect();
    latencies.sort();
    let is_calm = |block: &&Arrival| {
        let after_ns = |change_ns: &u64| block.scheduled_ns.checked_sub(*change_ns);
        !changes_ns.iter().filter_map(after_ns).any(|after_ns| after_ns < AFTERMATH.as_nanos() as u64)
    };
    let mut calm: Vec<Duration> = arrivals.iter().filter(is_calm).map(latency).collect();
    calm.sort();
    Ok(Delivery {
        blocks: arrivals.len(),
        longest_gap_ms: ms(longest_gap),
        median_ms: ms(percentile(&latencies, 50)),
        p99_ms: ms(percentile(&latencies, 99)),
        max_ms: ms(percentile(&latencies, 100)),
        calm_p99_ms: ms(percentile(&calm, 99)),
    })
}
