//! `bondwire demo`

use std::io::{self, IsTerminal};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bondwire::Class;
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

use crate::demo::lane::Lane;
use crate::demo::plan::{PHASES, Phase};
use crate::demo::relay::Path;
use crate::demo::report::{PathRow, PhaseRow, Report};
use crate::demo::stage::Stage;
use crate::demo::traffic::{self, Arrivals, TrafficError};
use crate::failure::{Exit, Failure};
use crate::links::{LinkRow, LinkTally};
use crate::observers::RecordOption;
use crate::output::{self, rounded};
use crate::recording::{BondRecording, RecordFile};
use crate::service::close_code;
use crate::session;
use crate::signals::{Interrupt, Stop};

/// How often the picture on the terminal changes.
const FRAME_INTERVAL: Duration = Duration::from_millis(200);
/// Time after the last write in which everything must have arrived.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Names the data of the two directions.
const SEEDS: [u64; 2] = [0x0b0d, 0x517e];

/// Arguments of `bondwire demo`.
#[derive(Args)]
pub(crate) struct Demo {
    /// How long data moves
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=40))]
    seconds: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    record: RecordOption,
}

impl Demo {
    pub(crate) async fn run(self, mut interrupt: Interrupt) -> Result<(), Failure> {
        let file = match self.record.named() {
            Some(path) => Some(RecordFile::create(path).await?),
            None => None,
        };
        let stop = interrupt.stop();
        let report = interrupt.or(Box::pin(show(Duration::from_secs(self.seconds), file, stop))).await?;
        if self.json { output::json(&report) } else { output::text(&report.text()) }
    }
}

/// Runs the demo, and closes its bond.
async fn show(length: Duration, file: Option<RecordFile>, stop: Stop) -> Result<Report, Failure> {
    let stage = Stage::set().await?;
    let recording = file.map(|file| BondRecording::start(file, "demo", &stage.near, stop));
    let to_far = stage.near.open_stream(Class::Bulk).await.map_err(broken)?;
    let to_near = stage.far.open_stream(Class::Bulk).await.map_err(broken)?;
    let start = Instant::now();
    let arrivals = [(); 2].map(|()| Arc::new(Arrivals::new(start)));
    let sending = [(to_far, SEEDS[0]), (to_near, SEEDS[1])].map(|(mut stream, seed)| {
        tokio::spawn(async move { traffic::send(&mut stream, seed, start + length).await })
    });
    let at_far = stage.far.accept_stream().await.map_err(broken)?;
    let at_near = stage.near.accept_stream().await.map_err(broken)?;
    let receiving = [(at_far, SEEDS[0], &arrivals[0]), (at_near, SEEDS[1], &arrivals[1])].map(
        |(mut stream, seed, arrivals)| {
            let arrivals = Arc::clone(arrivals);
            tokio::spawn(async move { traffic::receive(&mut stream, seed, &arrivals).await })
        },
    );
    let mut traffic = pin!(arrived(sending, receiving));
    let mut play = Play::new(&stage, start);
    let early = tokio::select! {
        early = &mut traffic => Some(early?),
        () = play.phases(length, &arrivals) => None,
    };
    let bytes = match early {
        Some(bytes) => bytes,
        None => timeout(DRAIN_TIMEOUT, traffic).await.map_err(|_| {
            Failure::new(
                Exit::BondLost,
                format!("not everything arrived within {} s", DRAIN_TIMEOUT.as_secs()),
            )
        })??,
    };
    let report = play.report(bytes);
    if let Some(recording) = recording {
        recording.end().await;
    }
    session::close(&stage.near, close_code::DONE, "").await;
    Ok(report)
}

type Sending = JoinHandle<io::Result<u64>>;
type Receiving = JoinHandle<Result<u64, TrafficError>>;

/// Waits until all that was sent has arrived; both directions together.
async fn arrived(sending: [Sending; 2], receiving: [Receiving; 2]) -> Result<u64, Failure> {
    let mut total = 0;
    // The receivers first: they know when data is wrong, and they end when the senders have.
    let receiving = {
        let [there, back] = receiving;
        let (there, back) = tokio::try_join!(joined(there), joined(back))?;
        [there, back]
    };
    for (sending, received) in sending.into_iter().zip(receiving) {
        let sent = joined(async { Ok(sending.await?.map_err(TrafficError::from)) }).await?;
        if sent != received {
            return Err(traffic_failure(&TrafficError::WrongLength { sent, received }));
        }
        total += received;
    }
    Ok(total)
}

async fn joined(
    task: impl Future<Output = Result<Result<u64, TrafficError>, JoinError>>,
) -> Result<u64, Failure> {
    match task.await {
        Ok(result) => result.map_err(|error| traffic_failure(&error)),
        Err(error) => Err(broken(error)),
    }
}

fn traffic_failure(error: &TrafficError) -> Failure {
    match error {
        TrafficError::Io(error) => broken(error),
        wrong => Failure::new(Exit::DataWrong, format!("{wrong}; this is a bug: please report it")),
    }
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::BondLost, format!("the demo's bond broke: {error}"))
}

/// The demo as it runs: changes the paths, and keeps count.
struct Play<'a> {
    stage: &'a Stage,
    start: Instant,
    tally: LinkTally,
    rows: Vec<PhaseRow>,
    picture: Picture,
}

impl<'a> Play<'a> {
    fn new(stage: &'a Stage, start: Instant) -> Self {
        Self { stage, start, tally: LinkTally::default(), rows: Vec::new(), picture: Picture::new(stage) }
    }

    /// Plays every phase for its part of `length`.
    async fn phases(&mut self, length: Duration, arrivals: &[Arc<Arrivals>; 2]) {
        let mut from = self.start;
        for phase in &PHASES {
            let until = from + phase.length(length);
            // The TCP paths come first.
            for (lane, path) in self.stage.paths.iter().zip(phase.tcp) {
                lane.set(path);
            }
            let mut frame = interval(FRAME_INTERVAL);
            frame.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = sleep_until(until.into()) => break,
                    _ = frame.tick() => {
                        self.tally.observe(self.stage.near.links());
                        self.picture.show(phase);
                    }
                }
            }
            self.rows.push(self.phase_row(phase, from, arrivals));
            from = until;
        }
    }

    fn phase_row(&self, phase: &Phase, from: Instant, arrivals: &[Arc<Arrivals>; 2]) -> PhaseRow {
        let now = Instant::now();
        let seconds = (now - from).as_secs_f64();
        let counted = arrivals.each_ref().map(|arrivals| arrivals.take(now));
        let bytes: u64 = counted.iter().map(|(bytes, _)| bytes).sum();
        let pause = counted.iter().map(|(_, pause)| *pause).max().unwrap_or_default();
        PhaseRow {
            title: phase.title,
            from_seconds: rounded((from - self.start).as_secs_f64()),
            seconds: rounded(seconds),
            mbytes_per_second: rounded(bytes as f64 / seconds / 1e6),
            paths_mbytes_per_second: rounded(2.0 * phase.open_mbytes_per_second()),
            longest_pause_ms: rounded(pause.as_secs_f64() * 1e3),
        }
    }

    fn report(mut self, bytes: u64) -> Report {
        self.picture.clear();
        self.tally.observe(self.stage.near.links());
        let seconds = self.start.elapsed().as_secs_f64();
        let links = self.tally.rows(seconds);
        let carried: u64 = links.iter().map(|link| link.bytes).sum();
        let path_row = |row: LinkRow| PathRow {
            path_mbytes_per_second: self
                .stage
                .path_of(&row.link)
                .map_or(0.0, |path| rounded(path.rate() / 1e6)),
            share: rounded(row.bytes as f64 / carried.max(1) as f64),
            link: row.link,
            state: row.state,
            bytes: row.bytes,
            rtt_ms: row.rtt_ms,
            lost_packets: row.lost_packets,
            reinjected_bytes: row.reinjected_bytes,
        };
        let mut paths: Vec<_> = links.into_iter().map(path_row).collect();
        paths.sort_by(|a, b| b.path_mbytes_per_second.total_cmp(&a.path_mbytes_per_second));
        Report {
            seconds: rounded(seconds),
            bytes,
            mbytes_per_second: rounded(bytes as f64 / seconds / 1e6),
            verified: true,
            phases: self.rows,
            links: paths,
        }
    }
}

/// A bar for each path on a terminal; nothing elsewhere.
struct Picture {
    title: ProgressBar,
    bars: Vec<Bar>,
    last: Instant,
}

struct Bar {
    lane: Arc<Lane>,
    bar: ProgressBar,
    carried_before: u64,
}

impl Picture {
    fn new(stage: &Stage) -> Self {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let all = MultiProgress::with_draw_target(target);
        let title = all.add(ProgressBar::new_spinner());
        set_style(&title, "{msg}");
        let bar = |lane: &Arc<Lane>| {
            // Each path can carry its rate both ways.
            let bar = all.add(ProgressBar::new((2.0 * lane.rate() / 1000.0) as u64));
            set_style(&bar, "{prefix:>12} [{bar:40}] {msg}");
            bar.set_prefix(lane.label());
            Bar { lane: Arc::clone(lane), bar, carried_before: lane.carried_bytes() }
        };
        Self { title, bars: stage.paths.iter().map(bar).collect(), last: Instant::now() }
    }

    fn show(&mut self, phase: &Phase) {
        let seconds = self.last.elapsed().as_secs_f64().max(1e-3);
        self.last = Instant::now();
        self.title.set_message(phase.title);
        for Bar { lane, bar, carried_before } in &mut self.bars {
            let carried = lane.carried_bytes();
            let rate = (carried - *carried_before) as f64 / seconds;
            *carried_before = carried;
            bar.set_position((rate / 1000.0) as u64);
            bar.set_message(match lane.path() {
                Path::Open => format!("{:6.2} MB/s both ways", rate / 1e6),
                Path::Silent => "silent".to_owned(),
                Path::Closed => "cut".to_owned(),
            });
        }
    }

    fn clear(&self) {
        self.bars.iter().for_each(|bar| bar.bar.finish_and_clear());
        self.title.finish_and_clear();
    }
}

fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}
