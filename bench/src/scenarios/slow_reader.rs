//! Much data through a forward whose reader is slow: the bond holds no more of it than its buffers allow.

use anyhow::{Context, Result};
use serde_json::json;

use super::{Options, far_addresses, mib, progress};
use crate::network;
use crate::report::{Report, Table};
use crate::subject::{Route, Subject};
use crate::traffic::client;

const LINKS: usize = 2;
const BYTES: u64 = 10_000_000_000;
const SEED: u64 = 10;

/// What the reader takes in a second; the sender could fill the path many times as fast.
const READER_BYTES_PER_SECOND: u64 = 100_000_000;

/// The bond's buffers as both programs configure them, in bytes: what is sent and not acknowledged at one end, what
/// has arrived and is not read at the other.
const BUFFER_BYTES: u64 = 48 << 20;

/// Memory beyond that, in bytes: the program itself, buffers kept to be used again (24 MiB), and read buffers of which
/// only a part is still in use.
const BESIDE_BYTES: u64 = 48 << 20;

/// Moves the data and reads what the programs held at their peak.
///
/// # Errors
/// If a program fails to start or a byte arrives changed.
pub fn run(options: &Options) -> Result<Report> {
    let [near, far] = network::direct(LINKS, options.congestion_control.as_deref())?;
    let route = Route::open(Subject::Bondwire, &options.programs, [&near, &far], &far_addresses(LINKS))?;
    progress(&format!("slow-reader: {} GB", BYTES / 1_000_000_000));
    let took = near
        .run(|| client::send_to_slow_reader(route.address, BYTES, SEED, READER_BYTES_PER_SECOND))
        .context("the transfer to the slow reader")?;
    let mut report = Report::new(&[format!(
        "{} GB through a forward of a bond of {LINKS} links without any limit, to a reader that takes {} MB/s in bursts of three seconds' worth; every byte checked.",
        BYTES / 1_000_000_000,
        READER_BYTES_PER_SECOND / 1_000_000,
    )]);
    let limit = BUFFER_BYTES + BESIDE_BYTES;
    let mut table = Table::new(&["program", "peak memory (RSS)", "at the end", "to reach"]);
    let mut peaks = Vec::new();
    for (name, service) in ["listener", "connector"].iter().zip(&route.services[1..]) {
        let usage = service.usage()?;
        let peak = mib(usage.peak_memory_bytes);
        if usage.peak_memory_bytes > limit {
            report.failures.push(format!("the {name} held {peak}, want at most {}", mib(limit)));
        }
        let wanted = format!("≤ {}: a buffer of {} and the program", mib(limit), mib(BUFFER_BYTES));
        table.rows.push(vec![(*name).into(), peak, mib(usage.memory_bytes), wanted]);
        peaks.push(usage.peak_memory_bytes);
    }
    report.tables.push(table);
    let seconds = took.as_secs_f64();
    report.conditions.push(format!("It took {seconds:.1} s, {:.1} MB/s.", BYTES as f64 / 1e6 / seconds));
    report.data.insert(
        "slow_reader".into(),
        json!({ "bytes": BYTES, "seconds": seconds, "peak_memory_bytes": peaks, "limit_bytes": limit }),
    );
    Ok(report)
}
