//! An ssh session, an `iperf3` and a `curl` over one bond at once: do the keys still come back at once?

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::{Options, far_addresses, progress};
use crate::emulator::Shape;
use crate::iperf;
use crate::namespace::Namespace;
use crate::network::{Network, address};
use crate::report::{Report, Table};
use crate::stats::{ms, percentile};
use crate::subject::{Keys, SERVER_PORT, START_LIMIT};
use crate::traffic::curl::Curl;
use crate::traffic::ssh::SshServer;
use crate::traffic::{Series, Transport};

const DEFAULT_SECONDS: u64 = 20;
const LINKS: usize = 2;
/// Time for bulk to come up to speed; it does not count.
const WARM_UP: Duration = Duration::from_secs(3);
/// Between an echo and the next key: a fast typist has some 100 ms, but more keys make a better percentile.
const PAUSE: Duration = Duration::from_millis(20);
/// Longer than any download here.
const FILE_BYTES: u64 = 1_000_000_000_000;
/// Beyond its time, a program that still runs has hung.
const SLACK: Duration = Duration::from_secs(30);

/// Where the far end's programs listen, and the near end's forwards lead there.
const SSH_PORT: u16 = 2222;
const SOCKS_PORT: u16 = 1080;

/// Which way `iperf3` sends, while `curl` downloads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    SameWay,
    BothWays,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::SameWay => "same-way",
            Self::BothWays => "both-ways",
        }
    }

    fn iperf_sends(self) -> bool {
        self == Self::BothWays
    }
}

/// What one run brought.
#[derive(Serialize)]
struct Outcome {
    idle_ms: [f64; 3],
    loaded_ms: [f64; 3],
    iperf_mbytes_per_second: f64,
    curl_mbytes_per_second: f64,
}

/// Measures the echo of an idle bond, and of a full one.
///
/// # Errors
/// If the network cannot be built, or a program is missing. A run that fails is noted in the report.
pub fn run(options: &Options) -> Result<Report> {
    let length = Duration::from_secs(options.seconds.unwrap_or(DEFAULT_SECONDS));
    let shape = Shape::new(50, Duration::from_millis(10));
    let network = options.emulated(&[shape; LINKS])?;
    let mut report = Report::new(&[
        format!("An ssh session with a terminal, an iperf3 and a curl through a SOCKS proxy, over two links, each {shape}."),
        format!(
            "A key is typed, and {PAUSE:?} after its echo the next one, for {length:?}: first on the idle bond, then \
             with iperf3 and curl, {WARM_UP:?} after these have begun."
        ),
        "The forward of ssh has the class interactive. same-way: iperf3 and curl both download; both-ways: iperf3 uploads."
            .into(),
        "The sum: plain TCP on each link alone, added up; both ways with iperf3 and curl at once there, too.".into(),
        format!("TCP with {} for congestion control.", network.congestion_control()?),
    ]);
    let mut table = Table::new(&[
        "case",
        "round",
        "idle echo, ms: median, p99, largest",
        "under load, ms",
        "p99 to idle p99",
        "iperf3, MB/s",
        "curl, MB/s",
        "of the sum",
        "of, MB/s",
    ]);
    let mut runs = Vec::new();
    for case in options.choose(vec![Case::SameWay, Case::BothWays], |case| case.name())? {
        let sums = plain_sums(options, &network, case, length)?;
        for round in 1..=options.rounds {
            progress(&format!("interactive: {}, round {round}", case.name()));
            match measure(options, &network, case, length) {
                Ok(outcome) => {
                    table.rows.push(row(case, round, &outcome, sums));
                    runs.push(json!({
                        "case": case.name(), "round": round, "outcome": outcome, "plain_mbytes_per_second": sums,
                    }));
                }
                Err(error) => report.failures.push(format!("{}, round {round}: {error:#}", case.name())),
            }
        }
    }
    report.tables.push(table);
    report.data.insert("runs".into(), runs.into());
    Ok(report)
}

fn row(case: Case, round: u32, outcome: &Outcome, sums: [f64; 2]) -> Vec<String> {
    let three = |figures: [f64; 3]| figures.map(|figure| format!("{figure:.1}")).join(", ");
    let (iperf, curl) = (outcome.iperf_mbytes_per_second, outcome.curl_mbytes_per_second);
    let [up, down] = sums;
    let (shares, of) = match case {
        Case::SameWay => (format!("{:.1} %", 100.0 * (iperf + curl) / down), format!("{down:.2}")),
        Case::BothWays => (
            format!("{:.1} % up, {:.1} % down", 100.0 * iperf / up, 100.0 * curl / down),
            format!("{up:.2} up, {down:.2} down"),
        ),
    };
    vec![
        case.name().into(),
        round.to_string(),
        three(outcome.idle_ms),
        three(outcome.loaded_ms),
        format!("{:.2}", outcome.loaded_ms[1] / outcome.idle_ms[1]),
        format!("{iperf:.2}"),
        format!("{curl:.2}"),
        shares,
        of,
    ]
}

/// What plain TCP moves on each link alone, added up, in MB/s: up (where the case does) and down.
fn plain_sums(options: &Options, network: &Network, case: Case, length: Duration) -> Result<[f64; 2]> {
    let _server = options.programs.serve(&network.far, Transport::Plain)?;
    let _iperf = iperf::serve(&network.far)?;
    let (mut up, mut down) = (0.0, 0.0);
    for index in 0..LINKS {
        progress(&format!("interactive: {}, plain TCP on link {}", case.name(), index + 1));
        let host = address(index, true).to_string();
        let rates = std::thread::scope(|scope| {
            let sends = case.iperf_sends();
            let iperf =
                sends.then(|| scope.spawn(|| iperf::run(&network.near, &host, true, WARM_UP, length)));
            let curl = download(&network.near, &[], &host, length)?;
            let iperf = iperf.map(|iperf| iperf.join().map_err(panicked)?).transpose()?;
            anyhow::Ok((iperf.map_or(0.0, |outcome| outcome.mbytes_per_second), curl))
        });
        let (of_iperf, of_curl) = rates?;
        up += of_iperf;
        down += of_curl;
    }
    Ok([up, down])
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> anyhow::Error {
    anyhow::anyhow!("a measuring thread panicked")
}

fn measure(options: &Options, network: &Network, case: Case, length: Duration) -> Result<Outcome> {
    let Network { near, far, .. } = network;
    let _server = options.programs.serve(far, Transport::Plain)?;
    let _iperf = iperf::serve(far)?;
    let sshd = SshServer::start(far, SSH_PORT)?;
    let keys = Keys::make(&options.programs, 1)?;
    let _listener = keys.listen(&options.programs, far)?;
    let forwards = [
        "-L".into(),
        format!("127.0.0.1:{SSH_PORT}:127.0.0.1:{SSH_PORT},class=interactive"),
        "-L".into(),
        format!("127.0.0.1:{0}:127.0.0.1:{0}", iperf::PORT),
        "-D".into(),
        format!("127.0.0.1:{SOCKS_PORT}"),
    ];
    let links: Vec<_> = far_addresses(LINKS).into_iter().map(|link| options.programs.link(link)).collect();
    let mut connector = keys.connect_with(&options.programs, near, 0, &links, &forwards)?;
    connector.wait_until_listening(SSH_PORT, START_LIMIT)?;
    let mut session = sshd.log_in(near, SSH_PORT)?;
    let idle = session.echo(length, PAUSE)?;
    let proxy = format!("socks5h://127.0.0.1:{SOCKS_PORT}");
    let (loaded, iperf, curl_rate) = std::thread::scope(|scope| {
        let iperf = scope.spawn(|| iperf::run(near, "127.0.0.1", case.iperf_sends(), WARM_UP, length));
        let curl = scope.spawn(|| download(near, &["--proxy", &proxy], "127.0.0.1", length));
        std::thread::sleep(WARM_UP);
        let loaded = session.echo(length, PAUSE);
        let curl_rate = curl.join().map_err(panicked)??;
        anyhow::Ok((loaded?, iperf.join().map_err(panicked)??, curl_rate))
    })?;
    Ok(Outcome {
        idle_ms: summary(idle),
        loaded_ms: summary(loaded),
        iperf_mbytes_per_second: iperf.mbytes_per_second,
        curl_mbytes_per_second: curl_rate,
    })
}

/// Median, 99th percentile and the largest, in milliseconds.
fn summary(mut times: Vec<Duration>) -> [f64; 3] {
    times.sort();
    [50, 99, 100].map(|percent| ms(percentile(&times, percent)))
}

/// Downloads with `curl` for so long after the warm-up. The rate in that time, in MB/s.
fn download(host: &Namespace, arguments: &[&str], server: &str, length: Duration) -> Result<f64> {
    let url = format!("http://{server}:{SERVER_PORT}/{FILE_BYTES}");
    let mut curl = Curl::start(host, arguments, &url, WARM_UP + length + SLACK)?;
    let mut series = Series::default();
    let end = WARM_UP + length;
    curl.read(|now_ns, bytes| {
        series.add(now_ns, bytes);
        Ok(series.since_start(now_ns) < end)
    })?;
    Ok(series.mbytes_per_second(WARM_UP, end))
}
