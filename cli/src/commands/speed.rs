//! `bondwire speed`

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use bondwire::Bond;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::{Exit, Failure};
use crate::links::{LinkRow, LinkTally};
use crate::options::PeerOptions;
use crate::output;
use crate::service::Refusal;
use crate::session::{self, Session};
use crate::signals::Interrupt;
use crate::speed::asker::{Test, TestError};
use crate::speed::protocol::{STREAMS_MAX, Sender, TIME_MAX};
use crate::speed::run::{Direction, measure};

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
            let (show, startup) = (Show::new(test.omit), start.elapsed());
            let measured = measure(&dialled.bond, test, direction, |tally, at| show.show(tally, at)).await;
            show.progress.finish_and_clear();
            measured.map(|measured| measured.report(startup)).map_err(|error| failure(&dialled.bond, &error))
        };
        let result = interrupt.or(work).await;
        dialled.close().await;
        session.ended().await;
        let report = result?;
        if json { output::json(&report.json()) } else { output::text(&report.text()) }
    }
}

/// Shows on a terminal how a test goes.
struct Show {
    omit: Duration,
    progress: ProgressBar,
}

impl Show {
    fn new(omit: Duration) -> Self {
        let progress =
            if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            progress.set_style(style);
        }
        Self { omit, progress }
    }

    fn show(&self, tally: &LinkTally, elapsed: Duration) {
        if self.progress.is_hidden() {
            return;
        }
        let counted = elapsed.saturating_sub(self.omit);
        let rows = tally.rows(if counted.is_zero() { elapsed } else { counted }.as_secs_f64());
        let link = |row: &LinkRow| format!("{} {:.1}", row.link, row.mbytes_per_second);
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
