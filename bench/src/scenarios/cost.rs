//! Processor time for each gigabyte, and the highest rate, over 1 to 8 loopback links without any limit.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Options, progress};
use crate::namespace::Namespace;
use crate::process::Service;
use crate::report::{Report, Table};
use crate::stats::Spread;
use crate::subject::{Keys, SERVER_PORT, Subject};
use crate::traffic::{Series, Transport};

const DEFAULT_SECONDS: u64 = 5;
const LINK_COUNTS: [u8; 4] = [1, 2, 4, 8];

/// A rate in MB/s and processor seconds for each 10^9 bytes, both ends together.
type Figures = (f64, f64);

/// Measures plain TCP once and the bond with each number of links, interleaved.
///
/// # Errors
/// If the namespace cannot be made. A run that fails is noted in the report.
pub fn run(options: &Options) -> Result<Report> {
    let seconds = options.seconds.unwrap_or(DEFAULT_SECONDS);
    let host = Namespace::create()?;
    let mut report = Report::new(&[
        "Both ends in one namespace over loopback, without any limit: what the processors allow.".into(),
        format!(
            "{seconds} s each, start-up included; the median of {} interleaved rounds (smallest to largest).",
            options.rounds
        ),
        "Processor time: user and kernel mode of both ends for each 10^9 bytes received.".into(),
    ]);
    let mut variants: Vec<(Subject, u8)> = vec![(Subject::Plain, 1)];
    variants.extend(LINK_COUNTS.map(|links| (Subject::Bondwire, links)));
    variants.retain(|(subject, _)| options.subjects.contains(subject));
    let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); variants.len()];
    for _ in 0..options.rounds {
        for (&(subject, links), figures) in variants.iter().zip(&mut figures) {
            progress(&format!("cost: {subject}, {links} links"));
            let outcome = match subject {
                Subject::Bondwire => bondwire(options, &host, links, seconds),
                Subject::Plain | Subject::Mptcp => plain(options, &host, seconds),
            };
            match outcome {
                Ok(outcome) => figures.push(outcome),
                Err(error) => report.failures.push(format!("{subject}, {links} links: {error:#}")),
            }
        }
    }
    let mut table = Table::new(&["subject", "links", "MB/s", "processor seconds per GB"]);
    let mut rows = Vec::new();
    for ((subject, links), figures) in variants.into_iter().zip(figures) {
        let (rates, costs): (Vec<_>, Vec<_>) = figures.into_iter().unzip();
        let (rate, cost) = (Spread::of(&rates), Spread::of(&costs));
        table.rows.push(vec![
            subject.to_string(),
            links.to_string(),
            format!("{:.0} ({:.0} to {:.0})", rate.median, rate.min, rate.max),
            format!("{:.2} ({:.2} to {:.2})", cost.median, cost.min, cost.max),
        ]);
        rows.push(json!({
            "subject": subject, "links": links, "mbytes_per_second": rate, "cpu_seconds_per_gbyte": cost,
        }));
    }
    report.tables.push(table);
    report.data.insert("costs".into(), rows.into());
    Ok(report)
}

fn plain(options: &Options, host: &Namespace, seconds: u64) -> Result<Figures> {
    let server = options.programs.serve(host, Transport::Plain)?;
    let mut command = host.command(&options.programs.bench);
    let window = Duration::from_secs(seconds);
    command.args(["send", &format!("127.0.0.1:{SERVER_PORT}"), "--seconds", &window.as_secs().to_string()]);
    let limit = window + Duration::from_secs(30);
    let (output, usage) = Service::start("the measuring client", &mut command)?.finish(limit)?;
    let series: Series = serde_json::from_str(&output)?;
    let cpu_seconds = usage.cpu_seconds + server.usage()?.cpu_seconds;
    per_gbyte(series.mbytes_per_second(Duration::ZERO, window), series.total_bytes(), cpu_seconds)
}

fn bondwire(options: &Options, host: &Namespace, links: u8, seconds: u64) -> Result<Figures> {
    let keys = Keys::make(&options.programs, 1)?;
    let listener = keys.listen(&options.programs, host)?;
    let links: Vec<_> = (1..=links).map(|link| Ipv4Addr::new(127, 0, 0, link)).collect();
    let (speed, usage) = keys.speed(&options.programs, host, &links, 0, seconds)?;
    per_gbyte(speed.mbytes_per_second, speed.bytes, usage.cpu_seconds + listener.usage()?.cpu_seconds)
}

fn per_gbyte(mbytes_per_second: f64, bytes: u64, cpu_seconds: f64) -> Result<Figures> {
    ensure!(bytes > 0, "nothing was received");
    Ok((mbytes_per_second, cpu_seconds / (bytes as f64 / 1e9)))
}
