//! The first seconds of a new connection on long links: how soon is all of their sum in use?

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{Options, far_addresses, progress};
use crate::emulator::Shape;
use crate::network::Network;
use crate::report::{Report, Table};
use crate::stats::Spread;
use crate::subject::{Route, Subject};
use crate::traffic::client;

const LINKS: usize = 2;

/// The part of the connection's life that is measured, from its first byte at the receiver.
const FROM: Duration = Duration::from_secs(1);
const TO: Duration = Duration::from_secs(5);

/// Measures fresh connections: plain TCP on one link, kernel MPTCP and a fresh bond's port forward on both.
///
/// # Errors
/// If the network cannot be built. A subject that fails is noted in the report.
pub fn run(options: &Options) -> Result<Report> {
    let shape = Shape::new(100, Duration::from_millis(50)).with_queue_kib(1024);
    let network = options.emulated(&[shape; LINKS])?;
    network.enable_mptcp()?;
    let line_mbytes = shape.rate_bits_per_second as f64 / 8e6;
    let mut report = Report::new(&[
        format!("New connections over {LINKS} links, each {shape}; plain TCP over one of them."),
        format!(
            "Goodput at the receiver from {FROM:?} to {TO:?} after its first byte, MB/s (share of the lines' rate)."
        ),
        format!("TCP with {} for congestion control.", network.congestion_control()?),
        format!("The median of {} interleaved rounds (smallest to largest).", options.rounds),
    ]);
    let mut rates = vec![Vec::new(); options.subjects.len()];
    for round in 1..=options.rounds {
        for (&subject, rates) in options.subjects.iter().zip(&mut rates) {
            progress(&format!("startup: {subject}, round {round}"));
            match measure(options, &network, subject) {
                Ok(rate) => rates.push(rate),
                Err(error) => report.failures.push(format!("{subject}, round {round}: {error:#}")),
            }
        }
    }
    let mut table = Table::new(&["subject", "links", "seconds 1 to 5, MB/s", "of the lines' rate"]);
    let mut rows = Vec::new();
    for (&subject, rates) in options.subjects.iter().zip(&rates) {
        let rate = Spread::of(rates);
        let links = if subject == Subject::Plain { 1 } else { LINKS };
        let share = rate.median / (line_mbytes * links as f64);
        table.rows.push(vec![
            subject.to_string(),
            links.to_string(),
            format!("{:.2} ({:.2} to {:.2})", rate.median, rate.min, rate.max),
            format!("{:.1} %", share * 100.0),
        ]);
        rows.push(
            json!({ "subject": subject, "links": links, "mbytes_per_second": rate, "share_of_lines": share }),
        );
    }
    report.tables.push(table);
    report.data.insert("startup".into(), rows.into());
    Ok(report)
}

fn measure(options: &Options, network: &Network, subject: Subject) -> Result<f64> {
    let hosts = [&network.near, &network.far];
    let route = Route::open(subject, &options.programs, hosts, &far_addresses(LINKS))?;
    let series = network.near.run(|| client::send_bulk(route.address, route.transport, TO))?;
    Ok(series.mbytes_per_second(FROM, TO))
}
