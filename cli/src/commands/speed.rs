//! `bondwire speed`

use std::convert::Infallible;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use bondwire::Bond;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::failure::{Exit, Failure};
use crate::links::LinkTally;
use crate::options::PeerOptions;
use crate::output;
use crate::service::Refusal;
use crate::session::{self, DialledBond, Session};
use crate::signals::Interrupt;
use crate::speed::asker::{Test, TestError};
use crate::speed::meter::Measured;
use crate::speed::protocol::{STREAMS_MAX, Sender, TIME_MAX};
use crate::speed::report::Report;

/// How often the links are looked at; each look may tell of a link that the next one no longer knows.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Arguments of `bondwire speed`.
#[derive(Args)]
pub(crate) struct Speed {
    #[command(flatten)]
    peer: PeerOptions,
    /// Time to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=TIME_MAX.as_secs()))]
    seconds: u64,
    /// Time at the start that does not count, in seconds
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=TIME_MAX.as_secs()))]
    omit: u64,
    /// Who sends: this end, the peer, or both at once
    #[arg(long, value_enum, default_value_t = Direction::Send)]
    direction: Direction,
    /// Streams in each direction
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(STREAMS_MAX)))]
    streams: u16,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Direction {
    Send,
    Receive,
    Both,
}

impl Speed {
    pub(crate) async fn run(self, mut interrupt: Interrupt) -> Result<(), Failure> {
        let (json, direction) = (self.json, self.direction);
        let test = Test {
            sender: Sender::Asker,
            omit: Duration::from_secs(self.omit),
            measure: Duration::from_secs(self.seconds),
            streams: self.streams,
        };
        let session = Session::new(&self.peer, None)?;
        let start = Instant::now();
        let dialled = session.dial()?;
        let work = async {
            dialled.first_link().await?;
            measure(&dialled, test, direction, start.elapsed()).await
        };
        let result = interrupt.or(work).await;
        dialled.close().await;
        session.ended().await;
        let report = result?;
        if json { output::json(&report.json()) } else { output::text(&report.text()) }
    }
}

async fn measure(
    dialled: &DialledBond,
    test: Test,
    direction: Direction,
    startup: Duration,
) -> Result<Report, Failure> {
    let bond = &dialled.bond;
    let send = async {
        match direction {
            Direction::Receive => Ok(None),
            Direction::Send | Direction::Both => test.run(bond).await.map(Some),
        }
    };
    let receive = async {
        match direction {
            Direction::Send => Ok(None),
            Direction::Receive | Direction::Both => {
                Test { sender: Sender::Acceptor, ..test }.run(bond).await.map(Some)
            }
        }
    };
    let mut watch = Watch::new(test);
    let tested = tokio::select! {
        tested = async { tokio::try_join!(send, receive) } => tested,
        never = watch.run(bond) => match never {},
    };
    let (send, receive): (Option<Measured>, Option<Measured>) =
        tested.map_err(|error| failure(bond, &error))?;
    watch.progress.finish_and_clear();
    let mut report = Report { send, receive, startup_ms: startup.as_secs_f64() * 1e3, links: Vec::new() };
    watch.tally.observe(bond.links());
    report.links = watch.tally.rows(report.seconds());
    Ok(report)
}

/// Looks at the links while the test runs, and shows on a terminal what it sees.
struct Watch {
    test: Test,
    tally: LinkTally,
    progress: ProgressBar,
}

impl Watch {
    fn new(test: Test) -> Self {
        let progress =
            if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            progress.set_style(style);
        }
        Self { test, tally: LinkTally::default(), progress }
    }

    /// Watches for as long as it is polled.
    async fn run(&mut self, bond: &Bond) -> Infallible {
        let start = Instant::now();
        let mut warm = std::pin::pin!(sleep(self.test.omit));
        let mut is_warm = false;
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut warm, if !is_warm => {
                    is_warm = true;
                    self.tally.observe(bond.links());
                    self.tally.start_over();
                }
                _ = look.tick() => self.tally.observe(bond.links()),
            }
            self.show(start.elapsed());
        }
    }

    fn show(&self, elapsed: Duration) {
        if self.progress.is_hidden() {
            return;
        }
        let counted = elapsed.saturating_sub(self.test.omit);
        let rows = self.tally.rows(if counted.is_zero() { elapsed } else { counted }.as_secs_f64());
        let link = |row: &crate::links::LinkRow| format!("{} {:.1}", row.link, row.mbytes_per_second);
        let links: Vec<_> = rows.iter().map(link).collect();
        let phase = if counted.is_zero() { "warm-up" } else { "measuring" };
        self.progress.set_message(format!(
            "{phase} {:.0} s, MB/s: {}",
            elapsed.as_secs_f64(),
            links.join(", ")
        ));
        self.progress.tick();
    }
}

fn failure(bond: &Bond, error: &TestError) -> Failure {
    if let TestError::WrongData { .. } = error {
        return Failure::new(Exit::DataWrong, error);
    }
    if let Some(reason) = bond.close_reason() {
        return session::ended(&reason);
    }
    match error {
        TestError::Refused(Refusal::Refused { .. }) => Failure::new(Exit::Refused, error),
        _ => Failure::new(Exit::BondLost, error),
    }
}
