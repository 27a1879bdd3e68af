//! `bondwire speed`

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bondwire::Bond;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

#[cfg(unix)]
use crate::control::client::{self, ClientError};
#[cfg(unix)]
use crate::control::protocol::{Command, SpeedTest};
use crate::failure::{Exit, Failure};
use crate::links::{LinkRow, LinkTally};
use crate::observers::RecordOption;
use crate::options::PeerOptions;
use crate::output;
use crate::plot::{Picture, parse_picture};
#[cfg(unix)]
use crate::recording::RemoteRecording;
use crate::recording::{BondRecording, RecordFile};
use crate::service::Refusal;
use crate::session::{self, Session};
use crate::signals::Interrupt;
use crate::speed::asker::{Test, TestError};
use crate::speed::protocol::{STREAMS_MAX, Sender, TIME_MAX};
use crate::speed::report::Report;
use crate::speed::run::{Direction, measure};

/// How often the line that says that a test goes on moves.
#[cfg(unix)]
const TICK_INTERVAL: Duration = Duration::from_millis(200);

/// Arguments of `bondwire speed`.
#[derive(Args)]
#[command(after_help = "Examples:
  bondwire speed server                                  over the bond that runs to that peer, or one of its own
  bondwire speed server --direction both --streams 4
  bondwire speed tcp:192.168.1.5:7700 --peer PUBKEY --plot speed.svg    and a picture of what each link did")]
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
    #[command(flatten)]
    record: RecordOption,
    /// Draw what each link did: a picture whose name ends in .svg or .html
    #[arg(long, value_name = "PICTURE", value_parser = parse_picture)]
    plot: Option<Picture>,
}

impl Speed {
    pub(crate) async fn run(self, mut interrupt: Interrupt) -> Result<(), Failure> {
        let (json, direction) = (self.json, self.direction);
        let recorded = Recorded::prepare(&self)?;
        let mut file = recorded.file().await?;
        let report = match self.over_running_bond(&mut interrupt, &mut file).await? {
            Some(report) => report,
            None => Box::pin(self.over_own_bond(&mut interrupt, file)).await?,
        };
        recorded.draw()?;
        if json { output::json(&report) } else { output::text(&report.text(direction.word())) }
    }

    /// Has the bond measured that a running `connect` has to the peer, if one does.
    #[cfg(unix)]
    async fn over_running_bond(
        &self,
        interrupt: &mut Interrupt,
        file: &mut Option<RecordFile>,
    ) -> Result<Option<Report>, Failure> {
        let Some(name) = self.peer.only_name() else { return Ok(None) };
        let Some((mut client, bond)) = client::connecting_to(name.as_str()).await? else { return Ok(None) };
        let progress = spinner();
        progress.set_message(format!(
            "measuring over the bond of {} (pid {})",
            client.hello.name, client.hello.pid
        ));
        progress.enable_steady_tick(TICK_INTERVAL);
        let command = Command::Speed(SpeedTest {
            bond: Some(bond),
            seconds: self.seconds,
            omit: self.omit,
            direction: self.direction,
            streams: self.streams,
        });
        let hello = client.hello.clone();
        let asked = async {
            client.ask(&command).await.map_err(|error| match error {
                ClientError::Command(why) if why.code == "failed" => Failure::new(Exit::BondLost, why),
                error => error.into(),
            })
        };
        let recording = match file.take() {
            Some(file) => Some(RemoteRecording::start(file, &hello, bond).await?),
            None => None,
        };
        let measured = interrupt.or(asked).await;
        if let Some(recording) = recording {
            recording.end().await;
        }
        progress.finish_and_clear();
        let read = |report| serde_json::from_value(report);
        read(measured?).map(Some).map_err(|error| {
            Failure::configuration(format!("{} runs another version: {error}", client.hello.name))
        })
    }

    /// Control sockets are Unix ones.
    #[cfg(not(unix))]
    async fn over_running_bond(
        &self,
        _: &mut Interrupt,
        _: &mut Option<RecordFile>,
    ) -> Result<Option<Report>, Failure> {
        Ok(None)
    }

    /// Opens a bond for the test alone.
    async fn over_own_bond(
        self,
        interrupt: &mut Interrupt,
        file: Option<RecordFile>,
    ) -> Result<Report, Failure> {
        let direction = self.direction;
        let test = Test {
            sender: Sender::Asker,
            omit: Duration::from_secs(self.omit),
            measure: Duration::from_secs(self.seconds),
            streams: self.streams,
        };
        let session = Session::new(self.peer.plan(self.peer.destination(None)?)?)?;
        let start = Instant::now();
        let dialled = session.dial()?;
        let stop = interrupt.stop();
        let recording = file.map(|file| BondRecording::start(file, "speed", &dialled.bond, stop));
        let work = async {
            dialled.first_link().await?;
            let (show, startup) = (Show::new(test.omit), start.elapsed());
            let measured = measure(&dialled.bond, test, direction, |tally, at| show.show(tally, at)).await;
            show.progress.finish_and_clear();
            measured
                .map(|measured| measured.report(Some(startup)))
                .map_err(|error| failure(&dialled.bond, &error))
        };
        let result = interrupt.or(work).await;
        if let Some(recording) = recording {
            recording.end().await;
        }
        dialled.close().await;
        session.ended().await;
        result
    }
}

/// What is kept of a test: a recording, and a picture of it.
struct Recorded {
    path: Option<PathBuf>,
    picture: Option<Picture>,
    /// A picture alone needs a recording, too, which goes with this folder.
    _folder: Option<TempDir>,
}

impl Recorded {
    fn prepare(speed: &Speed) -> Result<Self, Failure> {
        let cannot = |error| Failure::configuration(format!("cannot make a file to record to: {error}"));
        let (picture, named) = (speed.plot.clone(), speed.record.named().map(Path::to_owned));
        let folder = picture.as_ref().map(|_| tempfile::tempdir().map_err(cannot)).transpose()?;
        let path = named.or_else(|| folder.as_ref().map(|folder| folder.path().join("record")));
        Ok(Self { path, picture, _folder: folder })
    }

    async fn file(&self) -> Result<Option<RecordFile>, Failure> {
        match &self.path {
            Some(path) => RecordFile::create(path).await.map(Some),
            None => Ok(None),
        }
    }

    fn draw(&self) -> Result<(), Failure> {
        match (&self.picture, &self.path) {
            (Some(picture), Some(path)) => picture.draw(path, None),
            _ => Ok(()),
        }
    }
}

/// A line on a terminal that says that something goes on.
fn spinner() -> ProgressBar {
    let progress =
        if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        progress.set_style(style);
    }
    progress
}

/// Shows on a terminal how a test goes.
struct Show {
    omit: Duration,
    progress: ProgressBar,
}

impl Show {
    fn new(omit: Duration) -> Self {
        Self { omit, progress: spinner() }
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
