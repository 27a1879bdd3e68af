//! One cable: a bond beside plain TCP over a network gadget, and beside aggligator's USB transport.

use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bondwire::BondConfig;
use bondwire_bench::report::{Report, Table};
use bondwire_vm::Speed;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::{Options, progress};
use crate::bonds::{Ends, plain};
use crate::cables::{Plugged, link};
use crate::measure::{Sample, Traffic, Window, mbytes, middle, percent};
use crate::ncm::Ncm;

const SECONDS: u64 = 5;
const WARM_UP: Duration = Duration::from_secs(2);
/// The program in `firmware-host-tests/aggligator`.
const AGGLIGATOR: &str = "bondwire-aggligator";

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Plain,
    Encrypted,
    Ncm,
    Aggligator,
}

const SUBJECTS: [(Subject, &str); 4] = [
    (Subject::Plain, "bondwire, cipher=none"),
    (Subject::Encrypted, "bondwire, encrypted"),
    (Subject::Ncm, "plain TCP over NCM"),
    (Subject::Aggligator, "aggligator, USB transport"),
];

pub(crate) async fn run(options: &Options) -> Result<Report> {
    let window = Window { warm_up: WARM_UP, time: options.time(SECONDS) };
    let mut report = Report::new(&[
        "One cable of dummy_hcd at high speed, host to device, one stream; the others encrypt nothing."
            .to_owned(),
        format!(
            "MB/s of payload over {} s, interleaved: the median of {} (lowest to highest).",
            window.time.as_secs(),
            options.rounds
        ),
    ]);
    let mut samples = SUBJECTS.map(|_| Vec::new());
    for round in 1..=options.rounds {
        for ((subject, name), samples) in SUBJECTS.iter().zip(&mut samples) {
            progress(&format!("others: {name}, round {round}"));
            samples.push(subject.rate(window).await.with_context(|| format!("cannot measure {name}"))?);
        }
    }
    let ours = middle(&samples[0]).0.median;
    let mut table = Table::new(&["", "rate", "bondwire, cipher=none, beside it", "idle"]);
    let mut data = Vec::new();
    for ((subject, name), samples) in SUBJECTS.iter().zip(&samples) {
        let (rate, idle) = middle(samples);
        let share = ours / rate.median;
        if share < 1.0 && matches!(subject, Subject::Ncm | Subject::Aggligator) {
            report.failures.push(format!("bondwire has {} of {name}, want all of it", percent(share)));
        }
        table.rows.push(vec![(*name).to_owned(), mbytes(rate), percent(share), percent(idle.median)]);
        data.push(json!({ "subject": name, "rate": rate, "bondwire_beside_it": share, "idle": idle }));
    }
    report.tables.push(table);
    report.data.insert("others".into(), data.into());
    Ok(report)
}

impl Subject {
    async fn rate(self, window: Window) -> Result<Sample> {
        match self {
            Self::Plain => bond(plain(), window).await,
            Self::Encrypted => bond(BondConfig::default(), window).await,
            Self::Ncm => Ncm::plug(Speed::High)?.rate(window).await,
            Self::Aggligator => aggligator(window).await,
        }
    }
}

async fn bond(config: BondConfig, window: Window) -> Result<Sample> {
    let plugged = Plugged::plug(1, Speed::High).await?;
    let (host, device) = plugged.ends(0).await?;
    Ends::over(vec![link(host, device).await?], config).await?.rate(window).await
}

/// A program of its own, with both of its ends in it as ours are here. It says again and again what has arrived.
async fn aggligator(window: Window) -> Result<Sample> {
    let guest = bondwire_vm::guest().context("runs in the guest only: cargo xtask bench --vm")?;
    guest.load("libcomposite", &[])?;
    guest.load("usb_f_fs", &[])?;
    let cables = guest.cables(1, Speed::High)?;
    let mut program = Command::new(AGGLIGATOR);
    let mut program = program.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let output = program.stdout.take().context("its output is piped")?;
    let mut lines = BufReader::new(output).lines();
    // Nothing arrives before it is connected, which takes its time.
    let first = async {
        loop {
            let line = lines.next_line().await?.context("aggligator has ended")?;
            if line.parse::<u64>()? > 0 {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(crate::cables::PATIENCE, first).await.context("aggligator does not connect")??;
    let mut traffic = Traffic::default();
    let received = traffic.counter();
    traffic.spawn(async move {
        while let Some(line) = lines.next_line().await? {
            received.store(line.parse()?, Ordering::Relaxed);
        }
        bail!("aggligator has ended")
    });
    let sample = traffic.measure(window).await;
    // Its input ends, and so it does.
    drop(program.stdin.take());
    tokio::time::timeout(crate::cables::PATIENCE, program.wait())
        .await
        .context("aggligator does not end")??;
    drop(cables);
    sample
}
