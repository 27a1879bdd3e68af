//! What a bond costs that carries nothing: wake-ups and memory.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{Options, mib, progress, raise_file_limit};
use crate::namespace::Namespace;
use crate::process::{Service, Usage};
use crate::report::{Report, Table};
use crate::subject::{FORWARD_PORT, Keys, START_LIMIT};

const DEFAULT_SECONDS: u64 = 60;

/// Links of each bond.
const LINKS: u8 = 8;

/// Bonds whose memory is measured, beside a single one.
const BONDS: usize = 101;

/// What an idle bond may cost at either end.
const COST_MAX_BYTES: u64 = 1_000_000;

/// Time after start-up until everything has come to rest.
const REST: Duration = Duration::from_secs(3);

/// Counts wake-ups of one idle bond with many links, and measures the memory of one and of many.
///
/// # Errors
/// If a program fails.
pub fn run(options: &Options) -> Result<Report> {
    raise_file_limit()?;
    let seconds = options.seconds.unwrap_or(DEFAULT_SECONDS);
    let mut report = Report::new(&[
        format!("Idle bonds of {LINKS} links over loopback, one connector process for each."),
        "Memory is what processes have of their own (PSS); that of the connectors is the sum of all processes.".into(),
        format!("Wake-ups: context switches of all threads of an end in {seconds} s."),
    ]);
    let (wakeups, one) = wakeups(options, seconds)?;
    let many = memory(options, BONDS)?;
    let further = BONDS as u64 - 1;
    let cost_bytes = [0, 1].map(|end| many[end].saturating_sub(one[end]) / further);
    let mut table = Table::new(&["what", "listener", "connectors"]);
    table.rows.push(vec![
        format!("wake-ups in {seconds} s, 1 bond"),
        wakeups[0].to_string(),
        wakeups[1].to_string(),
    ]);
    table.rows.push(vec!["memory, 1 bond".into(), mib(one[0]), mib(one[1])]);
    table.rows.push(vec![format!("memory, {BONDS} bonds"), mib(many[0]), mib(many[1])]);
    let [listener, connectors] = cost_bytes.map(|bytes| format!("{:.3} MB", bytes as f64 / 1e6));
    table.rows.push(vec![format!("each of the further {further} bonds"), listener.clone(), connectors]);
    if cost_bytes[0] > COST_MAX_BYTES {
        report.failures.push(format!("an idle bond costs the listener {listener}, want at most 1 MB"));
    }
    report.tables.push(table);
    report.data.insert(
        "wakeups".into(),
        json!({ "seconds": seconds, "listener": wakeups[0], "connector": wakeups[1] }),
    );
    report.data.insert(
        "memory_bytes".into(),
        json!({ "one_bond": one, "many_bonds": many, "each_further_bond": cost_bytes }),
    );
    Ok(report)
}

/// The listener's loopback addresses, one for each link.
fn addresses() -> Vec<Ipv4Addr> {
    (1..=LINKS).map(|link| Ipv4Addr::new(127, 0, 0, link)).collect()
}

/// Wake-ups and memory of listener and connector.
fn wakeups(options: &Options, seconds: u64) -> Result<([u64; 2], [u64; 2])> {
    progress("idle: wake-ups");
    let links = addresses();
    let host = Namespace::create()?;
    let keys = Keys::make(&options.programs, 1)?;
    let listener = keys.listen(&options.programs, &host)?;
    let mut connector = keys.connect(&options.programs, &host, 0, &links, FORWARD_PORT)?;
    connector.wait_until_listening(FORWARD_PORT, START_LIMIT)?;
    std::thread::sleep(REST);
    let read = || -> Result<[Usage; 2]> { Ok([listener.usage()?, connector.usage()?]) };
    let before = read()?;
    std::thread::sleep(Duration::from_secs(seconds));
    let after = read()?;
    let count = |end: usize| after[end].context_switches.saturating_sub(before[end].context_switches);
    Ok(([count(0), count(1)], after.map(|usage| usage.memory_bytes)))
}

/// Memory of the listener, and of all connectors together.
fn memory(options: &Options, bonds: usize) -> Result<[u64; 2]> {
    progress(&format!("idle: memory of {bonds} bonds"));
    let host = Namespace::create()?;
    let keys = Keys::make(&options.programs, bonds)?;
    let listener = keys.listen(&options.programs, &host)?;
    let links = addresses();
    let mut connectors = Vec::new();
    for index in 0..bonds {
        let port = FORWARD_PORT + u16::try_from(index)?;
        let mut connector: Service = keys.connect(&options.programs, &host, index, &links, port)?;
        connector.wait_until_listening(port, START_LIMIT)?;
        connectors.push(connector);
    }
    std::thread::sleep(REST);
    let each = connectors.iter().map(|one| Ok(one.usage()?.memory_bytes)).collect::<Result<Vec<_>>>()?;
    Ok([listener.usage()?.memory_bytes, each.iter().sum()])
}
