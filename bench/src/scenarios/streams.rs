//! A thousand forwarded connections that are opened, stay idle, and are closed, again and again: nothing is left over.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::{Options, far_addresses, mib, progress, raise_file_limit};
use crate::network;
use crate::process::{Service, Usage};
use crate::report::{Report, Table};
use crate::subject::{Route, Subject};
use crate::traffic::client;

const LINKS: usize = 2;
const CONNECTIONS: usize = 1000;

/// Rounds after the first, in which buffers and tables grow to what they need.
const FURTHER_ROUNDS: usize = 9;

/// What memory may differ by from one moment to another without a leak, in bytes: half a kilobyte for each connection
/// of all further rounds would be seen.
const NOISE_BYTES: u64 = 4 << 20;

/// Time in which everything must be closed after the client has closed its end.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);

/// Time after that until everything has come to rest.
const REST: Duration = Duration::from_secs(1);

/// What listener and connector use.
type Both = [Usage; 2];

/// Opens and closes the connections, and compares what the programs use after the first round and after the last.
///
/// # Errors
/// If a program or a connection fails.
pub fn run(options: &Options) -> Result<Report> {
    raise_file_limit()?;
    let [near, far] = network::direct(LINKS, options.congestion_control.as_deref())?;
    let route = Route::open(Subject::Bondwire, &options.programs, [&near, &far], &far_addresses(LINKS))?;
    let ends = &route.services[1..];
    std::thread::sleep(REST);
    let before = read(ends)?;
    let mut rounds: Vec<(Both, Both)> = Vec::new();
    for round in 0..=FURTHER_ROUNDS {
        progress(&format!("streams: round {} of {}", round + 1, FURTHER_ROUNDS + 1));
        let connections = near.run(|| client::open_idle(route.address, CONNECTIONS))?;
        std::thread::sleep(REST);
        let open = read(ends)?;
        drop(connections);
        wait_until_closed(ends, &before)?;
        rounds.push((open, read(ends)?));
    }
    let mut report = Report::new(&[format!(
        "{CONNECTIONS} forwarded connections over one bond of {LINKS} links: opened, one byte echoed on each, idle, closed; {} rounds.",
        FURTHER_ROUNDS + 1
    )]);
    let mut table =
        Table::new(&["when", "listener: memory", "descriptors", "connector: memory", "descriptors"]);
    let mut add = |when: String, usage: &Both| {
        let cells = usage.iter().flat_map(|end| [mib(end.memory_bytes), end.open_files.to_string()]);
        table.rows.push(std::iter::once(when).chain(cells).collect());
    };
    add("before".into(), &before);
    for (round, (open, closed)) in rounds.iter().enumerate() {
        add(format!("round {}, open", round + 1), open);
        add(format!("round {}, closed", round + 1), closed);
    }
    report.tables.push(table);
    if let (Some((_, first)), Some((_, last))) = (rounds.first(), rounds.last()) {
        for (end, name) in ["listener", "connector"].into_iter().enumerate() {
            let (then, now) = (first[end].memory_bytes, last[end].memory_bytes);
            if now > then + NOISE_BYTES {
                report.failures.push(format!(
                    "the {name}'s memory grew from {} after round 1 to {}",
                    mib(then),
                    mib(now)
                ));
            }
        }
    }
    let figures = |both: &Both| json!(both.map(|end| json!([end.memory_bytes, end.open_files])));
    let rows: Vec<_> = rounds
        .iter()
        .map(|(open, closed)| json!({ "open": figures(open), "closed": figures(closed) }))
        .collect();
    report.data.insert("streams".into(), json!({ "before": figures(&before), "rounds": rows }));
    Ok(report)
}

fn read(ends: &[Service]) -> Result<Both> {
    Ok([ends[0].usage()?, ends[1].usage()?])
}

/// Waits until both ends have no more descriptors open than before.
fn wait_until_closed(ends: &[Service], before: &Both) -> Result<()> {
    let since = Instant::now();
    loop {
        let now = read(ends)?;
        let left: usize = (0..2).map(|end| now[end].open_files.saturating_sub(before[end].open_files)).sum();
        if left == 0 {
            std::thread::sleep(REST);
            return Ok(());
        }
        anyhow::ensure!(
            since.elapsed() < CLOSE_LIMIT,
            "{left} descriptors are still open after {CLOSE_LIMIT:?}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
