//! Many bonds on one listener: they share fairly, and all come back after the listener was killed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Barrier;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;

use super::{Options, far_addresses, mib, progress, raise_file_limit};
use crate::namespace::Namespace;
use crate::network;
use crate::process::Service;
use crate::report::{Report, Table};
use crate::stats::percentile;
use crate::subject::{Keys, START_LIMIT};
use crate::traffic::{Transport, client, crowd};

const BONDS: usize = 256;
const LINKS: usize = 2;
const BYTES_EACH: u64 = 10_000_000;
const FIRST_PORT: u16 = 20_000;

/// All bonds must work again so soon after the listener is back.
const RETURN_LIMIT: Duration = Duration::from_secs(10);

/// How long the scenario waits for them, to tell late from never.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time after the transfers until everything has come to rest.
const REST: Duration = Duration::from_secs(3);

/// The slowest transfer may take so many times as long as the fastest.
const FAIR: f64 = 2.0;

/// Starts the bonds, moves data through all at once, then kills and restarts the listener.
///
/// # Errors
/// If a program fails to start or a transfer fails.
pub fn run(options: &Options) -> Result<Report> {
    raise_file_limit()?;
    let [near, far] = network::direct(LINKS, options.congestion_control.as_deref())?;
    let _server = options.programs.serve(&far, Transport::Plain)?;
    progress(&format!("many: {BONDS} keys"));
    let keys = Keys::make(&options.programs, BONDS)?;
    let mut listener = keys.listen(&options.programs, &far)?;
    progress(&format!("many: {BONDS} bonds"));
    let mut connectors = connect_all(options, &keys, &near)?;
    at_once(&near, |target| client::wait_until_answering(target, PATIENCE))?;
    progress("many: transfers");
    let targets = (0..BONDS).map(target).collect::<Result<Vec<_>>>()?;
    let mut times = near.run(|| crowd::send_checked(&targets, BYTES_EACH))?;
    times.sort();
    let (fastest, slowest) = (percentile(&times, 0), percentile(&times, 100));
    std::thread::sleep(REST);
    let usage = listener.usage()?;

    progress("many: the listener is killed and started again");
    listener.kill();
    let listener = keys.listen(&options.programs, &far)?;
    let returns = at_once(&near, |target| client::wait_until_answering(target, PATIENCE));
    drop(listener);
    let returns = returns.with_context(|| ended(&mut connectors))?;
    let last_return = percentile(&returns, 100);

    let ratio = slowest.as_secs_f64() / fastest.as_secs_f64();
    let sum = BYTES_EACH as f64 * BONDS as f64 / 1e6 / slowest.as_secs_f64();
    let mut report = Report::new(&[format!(
        "{BONDS} bonds of {LINKS} links on one listener, over virtual Ethernet without any limit; each moves {} MB, every byte checked. All are up before any transfer begins; one thread gives each transfer 64 KiB in turn.",
        BYTES_EACH / 1_000_000
    )]);
    let mut table = Table::new(&["what", "found", "to reach"]);
    let mut check = |what: &str, found: String, wanted: String, is_good: bool| {
        if !is_good {
            report.failures.push(format!("{what}: {found}, want {wanted}"));
        }
        table.rows.push(vec![what.into(), found, wanted]);
    };
    check(
        "fastest and slowest transfer",
        format!("{:.2} s and {:.2} s, ratio {ratio:.2}", fastest.as_secs_f64(), slowest.as_secs_f64()),
        format!("ratio ≤ {FAIR}"),
        ratio <= FAIR,
    );
    check("all together", format!("{sum:.0} MB/s"), "–".into(), true);
    let memory = format!("{}, at its peak {}", mib(usage.memory_bytes), mib(usage.peak_memory_bytes));
    check("the listener's memory at rest", memory, "–".into(), true);
    check(
        "last bond back after a restart",
        format!("{:.2} s", last_return.as_secs_f64()),
        format!("≤ {} s", RETURN_LIMIT.as_secs()),
        last_return <= RETURN_LIMIT,
    );
    report.tables.push(table);
    report.data.insert("many".into(), json!({
        "bonds": BONDS, "fastest_seconds": fastest.as_secs_f64(), "slowest_seconds": slowest.as_secs_f64(),
        "mbytes_per_second": sum, "listener_memory_bytes": usage.memory_bytes,
        "listener_peak_memory_bytes": usage.peak_memory_bytes, "last_return_seconds": last_return.as_secs_f64(),
    }));
    Ok(report)
}

fn connect_all(options: &Options, keys: &Keys, near: &Namespace) -> Result<Vec<Service>> {
    let links = far_addresses(LINKS);
    let mut connectors = (0..BONDS)
        .map(|index| keys.connect(&options.programs, near, index, &links, port(index)?))
        .collect::<Result<Vec<_>>>()?;
    for (index, connector) in connectors.iter_mut().enumerate() {
        connector.wait_until_listening(port(index)?, START_LIMIT * 3)?;
    }
    Ok(connectors)
}

/// How many connectors have ended by themselves, and what one of them said.
fn ended(connectors: &mut [Service]) -> String {
    let ended: Vec<_> =
        connectors.iter_mut().filter_map(|one| (!one.is_running()).then_some(&*one)).collect();
    let last_words = ended.first().map(|one| one.last_words()).unwrap_or_default();
    format!("{} of {BONDS} connectors have ended: {last_words}", ended.len())
}

fn port(index: usize) -> Result<u16> {
    Ok(FIRST_PORT + u16::try_from(index)?)
}

/// Where the forward of bond `index` is to be reached.
fn target(index: usize) -> Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, port(index)?).into())
}

/// Does something through every bond at the same time. What each one took, sorted.
fn at_once(near: &Namespace, work: impl Fn(SocketAddr) -> Result<Duration> + Sync) -> Result<Vec<Duration>> {
    let start = Barrier::new(BONDS);
    let one = |index: usize| -> Result<Duration> {
        let target = target(index);
        start.wait();
        work(target?).with_context(|| format!("bond {index}"))
    };
    let join = |thread: ScopedJoinHandle<'_, Result<Duration>>| {
        thread.join().unwrap_or_else(|_| Err(anyhow!("a client panicked")))
    };
    let mut times = near.run(|| {
        std::thread::scope(|scope| {
            let one = &one;
            let threads: Vec<_> = (0..BONDS).map(|index| scope.spawn(move || one(index))).collect();
            threads.into_iter().map(join).collect::<Result<Vec<_>>>()
        })
    })?;
    ensure!(times.len() == BONDS, "{} of {BONDS} bonds reported", times.len());
    times.sort();
    Ok(times)
}
