//! What a bond costs that carries nothing: wake-ups and memory.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{Options, progress};
use crate::namespace::Namespace;
use crate::process::{Service, Usage};
use crate::report::{Report, Table};
use crate::subject::{FORWARD_PORT, Keys, START_LIMIT};

const DEFAULT_SECONDS: u64 = 60;

/// Links of the bond whose wake-ups are counted.
const LINKS: u8 = 8;

/// Bonds whose memory is measured, beside a single one.
const BONDS: usize = 101;

/// Time after start-up until everything has come to rest.
const REST: Duration = Duration::from_secs(3);

/// Counts wake-ups of one idle bond with many links, and measures the memory of one and of many.
///
/// # Errors
/// If a program fails.
pub fn run(options: &Options) -> Result<Report> {
    let seconds = options.seconds.unwrap_or(DEFAULT_SECONDS);
    let mut report = Report::new(&[
        "Idle bonds over loopback. Memory is what each process has of its own (PSS).".into(),
        format!("Wake-ups: context switches of all threads of both ends in {seconds} s."),
    ]);
    let (wakeups, one) = wakeups(options, seconds)?;
    let many = memory(options, BONDS)?;
    let mib = |usage: &Usage| usage.memory_bytes as f64 / f64::from(1 << 20);
    let mut table = Table::new(&["what", "listener", "connector"]);
    table.rows.push(vec![
        format!("wake-ups in {seconds} s, 1 bond of {LINKS} links"),
        wakeups[0].to_string(),
        wakeups[1].to_string(),
    ]);
    let memory = |what: String, usage: &[Usage; 2]| {
        vec![what, format!("{:.1} MiB", mib(&usage[0])), format!("{:.1} MiB", mib(&usage[1]))]
    };
    table.rows.push(memory(format!("memory, 1 bond of {LINKS} links"), &one));
    table.rows.push(memory(format!("memory, {BONDS} bonds of 1 link (one of the connectors)"), &many));
    report.tables.push(table);
    report.data.insert(
        "wakeups".into(),
        json!({ "seconds": seconds, "listener": wakeups[0], "connector": wakeups[1] }),
    );
    let bytes = |usage: &[Usage; 2]| json!([usage[0].memory_bytes, usage[1].memory_bytes]);
    report.data.insert("memory_bytes".into(), json!({ "one_bond": bytes(&one), "many_bonds": bytes(&many) }));
    Ok(report)
}

/// Wake-ups and memory of listener and connector.
fn wakeups(options: &Options, seconds: u64) -> Result<([u64; 2], [Usage; 2])> {
    progress("idle: wake-ups");
    let links: Vec<_> = (1..=LINKS).map(|link| Ipv4Addr::new(127, 0, 0, link)).collect();
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
    Ok(([count(0), count(1)], after))
}

fn memory(options: &Options, bonds: usize) -> Result<[Usage; 2]> {
    progress(&format!("idle: memory of {bonds} bonds"));
    let host = Namespace::create()?;
    let keys = Keys::make(&options.programs, bonds)?;
    let listener = keys.listen(&options.programs, &host)?;
    let mut connectors = Vec::new();
    for index in 0..bonds {
        let port = FORWARD_PORT + u16::try_from(index)?;
        let mut connector: Service =
            keys.connect(&options.programs, &host, index, &[Ipv4Addr::LOCALHOST], port)?;
        connector.wait_until_listening(port, START_LIMIT)?;
        connectors.push(connector);
    }
    std::thread::sleep(REST);
    Ok([listener.usage()?, connectors[0].usage()?])
}
