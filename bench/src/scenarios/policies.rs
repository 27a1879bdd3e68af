//! Weights, caps, quotas and links in reserve, as a bond over shaped links keeps them.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Map, Value, json};

use super::{Options, far_addresses, progress};
use crate::emulator::{Direction, Gate, Shape};
use crate::network::Network;
use crate::process::Service;
use crate::report::{Report, Table};
use crate::stats::{ms, percentile};
use crate::subject::{FORWARD_PORT, Keys, OMIT_SECONDS, SERVER_PORT, START_LIMIT};
use crate::traffic::{Arrival, Transport, client, clock};

const DEFAULT_SECONDS: u64 = 10;
/// Bytes per second of the link with a cap: 20 Mbit/s.
const CAP: f64 = 2.5e6;
/// Bytes of the quota, small enough to be used up in a few seconds.
const QUOTA: f64 = 30e6;
/// Rate of the stream that the link in reserve takes over.
const STREAM_BITS_PER_SECOND: u64 = 20_000_000;
/// Calm before, between and after cuts.
const CALM: Duration = Duration::from_secs(3);

/// One policy, measured over a bond with these links.
struct Case {
    name: &'static str,
    /// What stands behind the LINK of each link.
    links: &'static [&'static str],
    measure: fn(&Bond<'_>, &mut Table) -> Result<Value>,
}

const CASES: [Case; 5] = [
    Case { name: "weights", links: &["weight=3", "weight=1"], measure: weights },
    Case { name: "cap-beside", links: &["", "cap=20Mbit"], measure: cap },
    Case { name: "cap-alone", links: &["cap=20Mbit"], measure: cap },
    Case { name: "quota", links: &["", "quota=30MB"], measure: quota },
    Case { name: "backup", links: &["", "", "policy=backup"], measure: backup },
];

/// Measures every policy the options ask for.
///
/// # Errors
/// If the network cannot be built. A case that fails is noted in the report.
pub fn run(options: &Options) -> Result<Report> {
    let shape = Shape::new(50, Duration::from_millis(10));
    let network = options.emulated(&[shape; 3])?;
    let mut report = Report::new(&[
        format!("Links, each {shape}, with TCP's {}.", network.congestion_control()?),
        "weights: 3 and 1; what each link carried of the data. cap-beside, cap-alone: 20 Mbit/s, beside a free link and \
         alone; packets of the bond in each second, as its near end counts them, and the IP packets on the line."
            .into(),
        "quota: 30 MB; what the link had carried when it was paused, and in the seconds after that.".into(),
        format!(
            "backup: two links and one in reserve under a stream of {} Mbit/s; link 1, then link 2 goes silent. Times \
             from the moment link 2 was suspect; the whole stream is carried when blocks no longer come later and later, the \
             backlog is gone when they come as soon as in the calm.",
            STREAM_BITS_PER_SECOND / 1_000_000
        ),
        "Sending is what the connecting end sends; receiving, what the listener does.".into(),
    ]);
    let mut table = Table::new(&["case", "round", "what", "wanted", "seen"]);
    let mut runs = Vec::new();
    for case in options.choose(CASES.into(), |case| case.name)? {
        for round in 1..=options.rounds {
            progress(&format!("policies: {}, round {round}", case.name));
            let before = table.rows.len();
            let measured =
                Bond::open(options, &network, case.links).and_then(|bond| (case.measure)(&bond, &mut table));
            for row in &mut table.rows[before..] {
                row.splice(0..0, [case.name.into(), round.to_string()]);
            }
            match measured {
                Ok(seen) => runs.push(json!({ "case": case.name, "round": round, "seen": seen })),
                Err(error) => report.failures.push(format!("{}, round {round}: {error:#}", case.name)),
            }
            (0..case.links.len()).for_each(|index| network.emulator.set_gates(index, Gate::Open));
        }
    }
    report.tables.push(table);
    report.data.insert("runs".into(), runs.into());
    Ok(report)
}

/// A running bond between the two hosts, with a forward to the measuring server.
struct Bond<'a> {
    options: &'a Options,
    network: &'a Network,
    keys: Keys,
    links: usize,
    _services: Vec<Service>,
}

impl<'a> Bond<'a> {
    fn open(options: &'a Options, network: &'a Network, link_options: &[&str]) -> Result<Self> {
        let Options { programs, .. } = options;
        let server = programs.serve(&network.far, Transport::Plain)?;
        let keys = Keys::make(programs, 1)?;
        let listener = keys.listen(programs, &network.far)?;
        let links: Vec<_> = far_addresses(link_options.len())
            .into_iter()
            .zip(link_options)
            .map(|(address, options)| [&programs.link(address), *options].join(","))
            .map(|link| link.trim_end_matches(',').to_owned())
            .collect();
        let forward = ["-L".into(), format!("127.0.0.1:{FORWARD_PORT}:127.0.0.1:{SERVER_PORT}")];
        let mut connector = keys.connect_with(programs, &network.near, 0, &links, &forward)?;
        connector.wait_until_listening(FORWARD_PORT, START_LIMIT)?;
        let bond =
            Self { options, network, keys, links: links.len(), _services: vec![server, listener, connector] };
        network.near.run(|| client::wait_until_answering(bond.forward(), START_LIMIT))?;
        bond.keys.wait_for_links(programs, &network.near, bond.links)?;
        Ok(bond)
    }

    fn forward(&self) -> std::net::SocketAddr {
        (Ipv4Addr::LOCALHOST, FORWARD_PORT).into()
    }

    fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let said = self.keys.ask(&self.options.programs, &self.network.near, arguments)?;
        serde_json::from_str(&said).with_context(|| format!("bondwire said {said:?}"))
    }

    /// The bond as the connecting end sees it, with `links` in the order in which they were given.
    fn status(&self) -> Result<Status> {
        let mut status = self.ask(&["status", "connect", "--json"])?;
        let bond = status[0]["bonds"][0].take();
        let mut links = bond["links"].as_array().cloned().context("a status without links")?;
        links.sort_by_key(|link| link["dialled"].to_string());
        Ok(Status { bond, links })
    }

    /// A speed test over the bond; the bytes that each link carried in it.
    fn speed(&self, direction: &str) -> Result<Vec<f64>> {
        let seconds = self.seconds().to_string();
        let omit = OMIT_SECONDS.to_string();
        let arguments =
            ["speed", "connect", "--json", "--direction", direction, "--seconds", &seconds, "--omit", &omit];
        let report = self.ask(&arguments)?;
        let mut links = report["links"].as_array().cloned().context("a report without links")?;
        links.sort_by_key(|link| link["link"].to_string());
        Ok(links.iter().map(|link| link["bytes"].as_f64().unwrap_or_default()).collect())
    }

    fn seconds(&self) -> u64 {
        self.options.seconds.unwrap_or(DEFAULT_SECONDS).max(3)
    }

    /// Runs `work` while a speed test runs, in the time of it that counts.
    fn under_load<T>(&self, direction: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        std::thread::scope(|scope| {
            let load = scope.spawn(|| self.speed(direction));
            std::thread::sleep(Duration::from_secs(OMIT_SECONDS));
            let worked = work();
            load.join().map_err(|_| anyhow!("the speed test's thread panicked"))??;
            worked
        })
    }
}

/// What a status tells.
struct Status {
    bond: Value,
    links: Vec<Value>,
}

impl Status {
    fn uptime_seconds(&self) -> f64 {
        self.bond["uptime_seconds"].as_f64().unwrap_or_default()
    }

    fn figure(&self, link: usize, name: &str) -> f64 {
        self.links.get(link).and_then(|link| link[name].as_f64()).unwrap_or_default()
    }
}

fn row(what: impl Into<String>, wanted: impl Into<String>, seen: impl Into<String>) -> Vec<String> {
    vec![what.into(), wanted.into(), seen.into()]
}

fn weights(bond: &Bond<'_>, table: &mut Table) -> Result<Value> {
    let mut shares = Map::new();
    for direction in ["send", "receive"] {
        let carried = bond.speed(direction)?;
        let share = 100.0 * carried[0] / carried.iter().sum::<f64>();
        table.rows.push(row(format!("{direction}: of link 1"), "72 to 78 %", format!("{share:.1} %")));
        shares.insert(direction.into(), share.into());
    }
    Ok(shares.into())
}

/// The last link has the cap.
fn cap(bond: &Bond<'_>, table: &mut Table) -> Result<Value> {
    let index = bond.links - 1;
    let mut shares = Map::new();
    for (direction, counter, way) in
        [("send", "sent_bytes", Direction::Forth), ("receive", "received_bytes", Direction::Back)]
    {
        let on_line = || bond.network.emulator.counters(index, way).passed_bytes as f64;
        let (packets, line) = bond.under_load(direction, || {
            let (before, line_before, since) = (bond.status()?, on_line(), clock::now_ns());
            std::thread::sleep(Duration::from_secs(bond.seconds() - 1));
            let (line, line_time) = (on_line() - line_before, (clock::now_ns() - since) as f64 / 1e9);
            let after = bond.status()?;
            let id = |status: &Status| status.links[index]["id"].clone();
            ensure!(id(&before) == id(&after), "the link was replaced meanwhile, and with it its counters");
            let packets = after.figure(index, counter) - before.figure(index, counter);
            Ok((packets / (after.uptime_seconds() - before.uptime_seconds()), line / line_time))
        })?;
        let (packets, line) = (100.0 * packets / CAP, 100.0 * line / CAP);
        table.rows.push(row(
            format!("{direction}: of the cap"),
            "97 to 103 %",
            format!("{packets:.1} % (IP packets {line:.1} %)"),
        ));
        shares.insert(direction.into(), json!({ "packets": packets, "ip": line }));
    }
    Ok(shares.into())
}

/// The last link has the quota.
fn quota(bond: &Bond<'_>, table: &mut Table) -> Result<Value> {
    let index = bond.links - 1;
    bond.speed("send")?;
    let used_up = bond.status()?;
    let carried =
        |status: &Status| status.figure(index, "sent_bytes") + status.figure(index, "received_bytes");
    let why = used_up.links[index]["why"].as_str().unwrap_or_default().to_owned();
    ensure!(used_up.links[index]["policy"] == "paused", "the link is not paused: {}", used_up.links[index]);
    bond.speed("send")?;
    let later = bond.status()?;
    let (share, after) = (100.0 * carried(&used_up) / QUOTA, carried(&later) - carried(&used_up));
    table.rows.push(row("carried, of the quota", "about 100 %", format!("{share:.1} %")));
    table.rows.push(row("carried after it", "next to nothing", format!("{:.1} kB", after / 1e3)));
    table.rows.push(row("what status says", "why", why.clone()));
    Ok(json!({ "share": share, "bytes_after": after, "why": why }))
}

/// The last link is in reserve.
fn backup(bond: &Bond<'_>, table: &mut Table) -> Result<Value> {
    let Network { emulator, near, .. } = bond.network;
    let reserve = bond.links - 1;
    let carried = || emulator.counters(reserve, Direction::Forth).passed_bytes;
    let (arrivals, before, cut) = std::thread::scope(|scope| {
        let length = CALM * 4;
        let stream = scope.spawn(move || {
            near.run(|| client::send_paced(bond.forward(), Transport::Plain, STREAM_BITS_PER_SECOND, length))
        });
        let since = carried();
        std::thread::sleep(CALM);
        emulator.set_gates(0, Gate::Blackhole);
        std::thread::sleep(CALM);
        let before = carried() - since;
        emulator.set_gates(1, Gate::Blackhole);
        let cut = Moment::now()?;
        let arrivals = stream.join().map_err(|_| anyhow!("the stream's thread panicked"))??;
        Ok::<_, anyhow::Error>((arrivals, before, cut))
    })?;
    let suspect_after = bond.suspect_at(1)?.after(&cut);
    let suspect_ns = cut.clock_ns + u64::try_from(suspect_after.as_nanos())?;
    let takeover = Takeover::of(&arrivals, suspect_ns, cut.clock_ns)?;
    table.rows.push(row(
        "in reserve",
        "next to nothing",
        format!("{:.1} kB in {:?}", before as f64 / 1e3, CALM * 2),
    ));
    table.rows.push(row("link 2 suspect after", "", format!("{:.0} ms", ms(suspect_after))));
    table.rows.push(row("first block after that", "", format!("{:.0} ms", takeover.first_ms)));
    table.rows.push(row("whole stream after that", "100 ms", format!("{:.0} ms", takeover.whole_ms)));
    table.rows.push(row("backlog gone after that", "", format!("{:.0} ms", takeover.caught_up_ms)));
    Ok(json!({
        "reserve_bytes": before, "suspect_after_ms": ms(suspect_after),
        "first_ms": takeover.first_ms, "whole_ms": takeover.whole_ms, "caught_up_ms": takeover.caught_up_ms,
    }))
}

impl Bond<'_> {
    /// When a link became suspect for the last time.
    fn suspect_at(&self, index: usize) -> Result<Moment> {
        let events =
            self.keys.ask(&self.options.programs, &self.network.near, &["events", "connect", "--json"])?;
        let name = format!("tcp {}:", far_addresses(self.links)[index]);
        let is_it = |event: &Value| {
            event["state"] == "suspect" && event["link"].as_str().is_some_and(|link| link.starts_with(&name))
        };
        let mut events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let last = events.rfind(|event| is_it(event)).context("the link was never suspect")?;
        Moment::parse(last["time"].as_str().unwrap_or_default())
    }
}

/// A moment on the clock of the day, as the program's messages have it.
struct Moment {
    of_day: Duration,
    /// The same on [`clock`], where it was taken here.
    clock_ns: u64,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Moment {
    fn now() -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let of_day = Duration::from_nanos(u64::try_from(now.as_nanos() % DAY.as_nanos())?);
        Ok(Self { of_day, clock_ns: clock::now_ns() })
    }

    /// Of `2026-01-02T03:04:05.678901Z`.
    fn parse(text: &str) -> Result<Self> {
        let time = text.split('T').nth(1).and_then(|time| time.strip_suffix('Z'));
        let time = time.with_context(|| format!("{text:?} is no time"))?;
        let mut seconds = 0.0;
        for part in time.split(':') {
            seconds = seconds * 60.0 + part.parse::<f64>()?;
        }
        Ok(Self { of_day: Duration::try_from_secs_f64(seconds)?, clock_ns: 0 })
    }

    /// The time since `earlier`, less than a day ago.
    fn after(&self, earlier: &Self) -> Duration {
        self.of_day.checked_sub(earlier.of_day).unwrap_or(self.of_day + DAY - earlier.of_day)
    }
}

/// How a stream went on over another link.
struct Takeover {
    first_ms: f64,
    /// When the delay of blocks was at its greatest: since then the link carries what the stream sends, or more.
    whole_ms: f64,
    caught_up_ms: f64,
}

impl Takeover {
    fn of(arrivals: &[Arrival], suspect_ns: u64, cut_ns: u64) -> Result<Self> {
        let latency =
            |block: &Arrival| Duration::from_nanos(block.arrived_ns.saturating_sub(block.scheduled_ns));
        let mut calm: Vec<_> =
            arrivals.iter().filter(|block| block.arrived_ns < cut_ns).map(latency).collect();
        calm.sort();
        let usual = percentile(&calm, 99);
        let since = |block: &Arrival| ms(Duration::from_nanos(block.arrived_ns.saturating_sub(suspect_ns)));
        let after = || arrivals.iter().filter(|block| block.arrived_ns >= suspect_ns);
        let first = after().next().context("nothing came over the link in reserve")?;
        let caught_up = after().find(|block| latency(block) <= usual).context("the backlog stayed")?;
        let late = after().take_while(|block| block.arrived_ns <= caught_up.arrived_ns);
        let whole = late.max_by_key(|block| latency(block)).unwrap_or(first);
        Ok(Self { first_ms: since(first), whole_ms: since(whole), caught_up_ms: since(caught_up) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_messages_are_read_and_subtracted() {
        let moment = |text: &str| Moment::parse(text).unwrap();
        let after = |later: &str, earlier: &str| moment(later).after(&moment(earlier)).as_millis();
        assert_eq!(after("2026-01-02T03:04:05.250000Z", "2026-01-02T03:04:04.000000Z"), 1250);
        assert_eq!(after("2026-01-03T00:00:00.100000Z", "2026-01-02T23:59:59.900000Z"), 200);
        assert!(Moment::parse("yesterday").is_err());
    }

    #[test]
    fn a_takeover_is_timed_from_suspicion() {
        let block = |scheduled_ms: u64, arrived_ms: u64| Arrival {
            scheduled_ns: scheduled_ms * 1_000_000,
            arrived_ns: arrived_ms * 1_000_000,
        };
        let arrivals =
            [block(0, 10), block(10, 20), block(20, 150), block(30, 165), block(40, 168), block(160, 170)];
        let takeover = Takeover::of(&arrivals, 100_000_000, 21_000_000).unwrap();
        assert_eq!((takeover.first_ms, takeover.whole_ms, takeover.caught_up_ms), (50.0, 65.0, 70.0));
    }
}
