//! Serial lines, alone, in pairs and beside TCP: which part of a line's byte rate reaches the application.
//!
//! The lines are pseudo-terminals with the pace of their rate, and the line's own clock is the measure: it counts the byte
//! times that passed, so a busy machine makes no line look better or worse.
//!
//! And what becomes of the stream when the TCP path beside a line falls silent and comes back.

mod cut;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bondwire::{Bond, BondConfig, Class, Identity, ListenConfig, Listener};
use bondwire_line::{End, Noise, PtyLine};
use bondwire_serial::{SerialAcceptor, SerialAddress, SerialDialer};
use bondwire_tcp::{TcpAcceptor, TcpAddress, TcpDialer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::{Options, progress};
use crate::path::Path;
use crate::report::{Report, Table};
use crate::stats::ms;

const DEFAULT_SECONDS: u64 = 10;
/// Time until the estimators know their links.
const WARM_UP: Duration = Duration::from_secs(3);
/// Time for the links to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// Lines and TCP paths of one bond, and the least that is to reach the application.
struct Case {
    name: &'static str,
    bauds: &'static [u32],
    /// Rate of a TCP path beside them, in bits per second.
    tcp_bits_per_second: Option<u64>,
    /// Least part of the lines' byte rate, less what TCP carries.
    want: f64,
    /// The TCP path falls silent, and comes back.
    is_cut: bool,
}

const STEADY: Case = Case { name: "", bauds: &[], tcp_bits_per_second: None, want: 0.0, is_cut: false };

const CASES: [Case; 7] = [
    Case { name: "115200", bauds: &[115_200], want: 0.88, ..STEADY },
    Case { name: "921600", bauds: &[921_600], want: 0.93, ..STEADY },
    Case { name: "two-921600", bauds: &[921_600; 2], want: 0.93 * 0.95, ..STEADY },
    Case {
        name: "921600-tcp-2mbit",
        bauds: &[921_600],
        tcp_bits_per_second: Some(2_000_000),
        want: 0.9,
        ..STEADY
    },
    Case { name: "tcp-100mbit", tcp_bits_per_second: Some(100_000_000), ..STEADY },
    Case { name: "115200-tcp-100mbit", bauds: &[115_200], tcp_bits_per_second: Some(100_000_000), ..STEADY },
    Case {
        name: "921600-tcp-cut",
        bauds: &[921_600],
        tcp_bits_per_second: Some(100_000_000),
        want: 0.9,
        is_cut: true,
    },
];

/// Measures bonds over emulated serial lines; needs no root.
///
/// # Errors
/// If a bond does not come up.
pub fn run(options: &Options) -> Result<Report> {
    let seconds = options.seconds.unwrap_or(DEFAULT_SECONDS);
    let cases = options.choose(Vec::from(CASES), |case| case.name)?;
    let mut report = Report::new(&[
        "Bulk data one way over pseudo-terminals with the pace of their baud rate, 8N1, sealed; one process."
            .into(),
        format!(
            "Shares are of the byte times that passed on the lines, over {seconds} s after {} s.",
            WARM_UP.as_secs()
        ),
    ]);
    let runtime = tokio::runtime::Runtime::new()?;
    let (cut, steady): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| case.is_cut);
    if !steady.is_empty() {
        runtime.block_on(steady_cases(options, &steady, Duration::from_secs(seconds), &mut report))?;
    }
    for case in &cut {
        runtime.block_on(cut::run(options, case, &mut report))?;
    }
    Ok(report)
}

/// Rounds go through all cases, so that what the machine does meanwhile hits each alike.
async fn steady_cases(
    options: &Options,
    cases: &[Case],
    length: Duration,
    report: &mut Report,
) -> Result<()> {
    let mut rounds: Vec<Vec<Outcome>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 1..=options.rounds {
        for (case, outcomes) in cases.iter().zip(&mut rounds) {
            progress(&format!("serial: {} round {round}", case.name));
            outcomes.push(measure(case, length).await?);
        }
    }
    let mut table = Table::new(&[
        "case",
        "line bytes/s",
        "arrived bytes/s",
        "share of the lines",
        "line used",
        "longest pause: median, largest",
    ]);
    let mut data = Vec::new();
    for (case, outcomes) in cases.iter().zip(&mut rounds) {
        let mut pauses: Vec<Duration> = outcomes.iter().map(|outcome| outcome.longest_pause).collect();
        pauses.sort();
        outcomes.sort_by(|a, b| a.share.total_cmp(&b.share).then(a.arrived_rate.total_cmp(&b.arrived_rate)));
        let median = &outcomes[outcomes.len() / 2];
        if median.share < case.want {
            report.failures.push(format!(
                "{}: {:.1} %, want {:.1} %",
                case.name,
                median.share * 100.0,
                case.want * 100.0
            ));
        }
        table.rows.push(median.row(case.name, &pauses));
        data.push(median.json(case.name, &pauses));
    }
    report.tables.push(table);
    report.data.insert("cases".into(), data.into());
    Ok(())
}

/// What one run showed.
struct Outcome {
    line_rate: f64,
    arrived_rate: f64,
    /// Of the lines' byte rate, what they carried for the application.
    share: f64,
    /// Of the lines' byte times, those that had a byte in them.
    used: f64,
    longest_pause: Duration,
}

impl Outcome {
    fn row(&self, name: &str, pauses: &[Duration]) -> Vec<String> {
        // Without a line there is nothing to have a share of.
        let percent =
            |part: f64| if part.is_nan() { "–".to_owned() } else { format!("{:.1} %", part * 100.0) };
        let [median, largest] = [pauses[pauses.len() / 2], pauses[pauses.len() - 1]].map(ms);
        vec![
            name.to_owned(),
            format!("{:.0}", self.line_rate),
            format!("{:.0}", self.arrived_rate),
            percent(self.share),
            percent(self.used),
            format!("{median:.1}, {largest:.1} ms"),
        ]
    }

    fn json(&self, name: &str, pauses: &[Duration]) -> Value {
        json!({
            "case": name,
            "line_bytes_per_second": self.line_rate,
            "arrived_bytes_per_second": self.arrived_rate,
            "share": self.share,
            "line_used": self.used,
            "longest_pauses_ms": pauses.iter().copied().map(ms).collect::<Vec<_>>(),
        })
    }
}

/// Two ends of a bond in this process, and what joins them.
struct Stage {
    near: Bond,
    far: Bond,
    lines: Vec<PtyLine>,
    path: Option<Path>,
    _listener: Listener,
}

impl Stage {
    async fn set(case: &Case) -> Result<Self> {
        let (here, there) = (Identity::generate()?, Identity::generate()?);
        let listener = Listener::new(&there, ListenConfig::allow([here.public_key()]))?;
        let near = Bond::connect(&here, there.public_key(), BondConfig::default())?;
        let mut lines = Vec::new();
        for (index, baud) in case.bauds.iter().enumerate() {
            let line = PtyLine::open(Noise::NONE, index as u64)?;
            let address = |end| -> Result<SerialAddress> {
                let path = line.path(end).context("a fresh line has both ends")?;
                Ok(format!("{},baud={baud}", path.display()).parse()?)
            };
            listener.add_acceptor(SerialAcceptor::bind(&address(End::B)?).await?);
            near.add_dialer(SerialDialer::new(address(End::A)?));
            lines.push(line);
        }
        let path = match case.tcp_bits_per_second {
            Some(bits) => {
                let acceptor = TcpAcceptor::bind(&TcpAddress::new("127.0.0.1", 0)).await?;
                let target = SocketAddr::from((Ipv4Addr::LOCALHOST, acceptor.local_addr()?.port()));
                listener.add_acceptor(acceptor);
                let path = Path::start(target, bits / 8).await?;
                near.add_dialer(TcpDialer::new(TcpAddress::new("127.0.0.1", path.port())));
                Some(path)
            }
            None => None,
        };
        let far =
            tokio::time::timeout(CONNECT_TIMEOUT, listener.accept()).await.context("no bond came up")?;
        let links = case.bauds.len() + usize::from(path.is_some());
        let all_up = async {
            while near.links().len() < links {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, all_up).await.context("not all links came up")?;
        Ok(Self { near, far, lines, path, _listener: listener })
    }

    /// Byte times that passed on the lines, and those with a byte in them.
    fn clock(&self) -> (u64, u64) {
        let slots = self.lines.iter().map(|line| line.byte_slots(End::A)).sum();
        (slots, self.lines.iter().map(|line| line.carried_bytes(End::A)).sum())
    }
}

/// Bulk data one way, for as long as it is kept.
struct Flow {
    arrived_bytes: Arc<AtomicU64>,
    /// The longest time between two reads since it was last set to 0, in microseconds.
    pause_us: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Flow {
    async fn start(stage: &Stage) -> Result<Self> {
        let (arrived_bytes, pause_us) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let mut tasks = JoinSet::new();
        let mut sender = stage.near.open_stream(Class::Bulk).await?;
        tasks.spawn(async move {
            let block = vec![0x5a; READ_BYTES];
            while sender.write_all(&block).await.is_ok() {}
        });
        let mut receiver = stage.far.accept_stream().await?;
        let (arrived, pause) = (Arc::clone(&arrived_bytes), Arc::clone(&pause_us));
        tasks.spawn(async move {
            let (mut buffer, mut last) = (vec![0; READ_BYTES], Instant::now());
            while let Ok(length) = receiver.read(&mut buffer).await
                && length > 0
            {
                let elapsed_us = u64::try_from(last.elapsed().as_micros()).unwrap_or(u64::MAX);
                pause.fetch_max(elapsed_us, Ordering::Relaxed);
                last = Instant::now();
                arrived.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
        Ok(Self { arrived_bytes, pause_us, _tasks: tasks })
    }

    fn arrived_bytes(&self) -> u64 {
        self.arrived_bytes.load(Ordering::Relaxed)
    }

    fn forget_pauses(&self) {
        self.pause_us.store(0, Ordering::Relaxed);
    }

    fn longest_pause(&self) -> Duration {
        Duration::from_micros(self.pause_us.load(Ordering::Relaxed))
    }
}

async fn measure(case: &Case, length: Duration) -> Result<Outcome> {
    let stage = Stage::set(case).await?;
    let flow = Flow::start(&stage).await?;
    tokio::time::sleep(WARM_UP).await;
    flow.forget_pauses();
    let (begun, (slots, carried), before) = (Instant::now(), stage.clock(), flow.arrived_bytes());
    tokio::time::sleep(length).await;
    let seconds = begun.elapsed().as_secs_f64();
    let (slots_now, carried_now) = stage.clock();
    let bytes = (flow.arrived_bytes() - before) as f64;
    let (slots, used) = ((slots_now - slots) as f64, (carried_now - carried) as f64);
    let longest_pause = flow.longest_pause();
    drop(flow);
    stage.near.close_now(0, "").await;
    // Beside TCP the bytes of the application cannot be told apart: there, what the line carried is the measure.
    let share = if stage.path.is_some() { used / slots } else { bytes / slots };
    Ok(Outcome {
        line_rate: slots / seconds,
        arrived_rate: bytes / seconds,
        share,
        used: used / slots,
        longest_pause,
    })
}
