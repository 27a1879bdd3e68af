//! Small messages there and back: over loopback, and over a fast link beside a slow one.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{Options, far_addresses, progress};
use crate::emulator::Shape;
use crate::namespace::Namespace;
use crate::report::{Report, Table};
use crate::stats::{ms, percentile};
use crate::subject::{Route, Subject};
use crate::traffic::client::{self, PING_BYTES};

const DEFAULT_SECONDS: u64 = 5;

/// Between two messages over emulated links: light traffic.
const PAUSE: Duration = Duration::from_millis(5);

/// Measures plain TCP and the bond on both stages.
///
/// # Errors
/// If a namespace or network cannot be made. A subject that fails is noted in the report.
pub fn run(options: &Options) -> Result<Report> {
    let length = Duration::from_secs(options.seconds.unwrap_or(DEFAULT_SECONDS));
    let host = Namespace::create()?;
    // Plain TCP takes the last link: the fast one.
    let shapes = [Shape::new(100, Duration::from_millis(20)), Shape::new(100, Duration::from_micros(300))];
    let network = options.emulated(&shapes)?;
    let [slow, fast] = shapes;
    let mut report = Report::new(&[
        format!("One message of {PING_BYTES} bytes at a time, there and back, for {length:?}."),
        "Loopback: both ends in one namespace, no pause. A bond's messages go through two port forwards' sockets.".into(),
        format!("Fast and slow: {fast} + {slow}, a message every {PAUSE:?}; plain TCP on the fast link alone."),
    ]);
    let mut table = Table::new(&["stage", "subject", "messages", "median, ms", "p90, ms", "p99, ms"]);
    let mut rows = Vec::new();
    let mut measure = |stage: &str, subject: Subject, hosts: [&Namespace; 2], links: &[Ipv4Addr], pause| {
        progress(&format!("latency: {stage}, {subject}"));
        let times = Route::open(subject, &options.programs, hosts, links)
            .and_then(|route| hosts[0].run(|| client::ping(route.address, length, pause)));
        let mut times = match times {
            Ok(times) => times,
            Err(error) => return report.failures.push(format!("{stage}, {subject}: {error:#}")),
        };
        times.sort();
        let figures = [50, 90, 99].map(|percent| ms(percentile(&times, percent)));
        let mut row = vec![stage.into(), subject.to_string(), times.len().to_string()];
        row.extend(figures.map(|figure| format!("{figure:.3}")));
        table.rows.push(row);
        let [median, p90, p99] = figures;
        rows.push(
            json!({ "stage": stage, "subject": subject, "median_ms": median, "p90_ms": p90, "p99_ms": p99 }),
        );
    };
    let wanted = options.subjects.iter().filter(|&&subject| subject != Subject::Mptcp);
    for &subject in wanted {
        measure("loopback", subject, [&host, &host], &[Ipv4Addr::LOCALHOST], Duration::ZERO);
        measure("fast and slow", subject, [&network.near, &network.far], &far_addresses(2), PAUSE);
    }
    report.tables.push(table);
    report.data.insert("latencies".into(), rows.into());
    Ok(report)
}
