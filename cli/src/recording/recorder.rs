//! Samples at a fixed interval and messages as they come, from where `status` and `events` have them.

use std::sync::Arc;
use std::time::Duration;

use bondwire::Bond;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::file::{Handed, Lines, RecordFile};
use super::format::{Header, Line, VERSION};
use super::limits::{LAST_LINES_TIMEOUT, SAMPLE_INTERVAL, SAMPLE_SHARE};
use crate::control::history::{self, Entry};
use crate::control::program::{Look, Program, Registered};
use crate::control::status::BondStatus;
use crate::events;
use crate::output::rounded;
use crate::signals::Stop;

/// The recording of one bond, for a command that has no control socket.
pub(crate) struct BondRecording {
    recording: Recording,
    events: JoinHandle<()>,
    registered: Registered,
}

impl BondRecording {
    /// Begins to record `bond` into `file`.
    pub(crate) fn start(file: RecordFile, command: &'static str, bond: &Bond, stop: Stop) -> Self {
        let program = Program::new(command.to_owned(), command, stop);
        let registered = program.register(bond.clone(), Box::new(|| None), None);
        let recording = Recording::start(file, &program);
        let bond = bond.clone();
        let events = tokio::spawn(async move { events::keep(&bond).await });
        Self { recording, events, registered }
    }

    /// Writes a last sample, and waits until all is written or the file has had its time.
    pub(crate) async fn end(self) {
        self.recording.end().await;
        self.events.abort();
        drop(self.registered);
    }
}

/// A recording that goes on.
pub(crate) struct Recording {
    task: JoinHandle<()>,
    end: oneshot::Sender<()>,
}

impl Recording {
    /// Begins to record `program` into `file`.
    pub(crate) fn start(file: RecordFile, program: &Arc<Program>) -> Self {
        let lines = file.start();
        program.set_recording(Box::new(lines.look()));
        let history = program.history();
        let (_, news) = history.listen(history.last_number());
        let about = (program.name(), program.command(), std::process::id());
        let sink = Sink::start(lines, about, SAMPLE_INTERVAL);
        let recorder = Recorder { program: Arc::clone(program), look: program.look(), sink };
        let (end, ended) = oneshot::channel();
        Self { task: tokio::spawn(recorder.run(news, ended)), end }
    }

    /// Writes a last sample, and waits until all is written or the file has had its time.
    pub(crate) async fn end(self) {
        // If it ended before, that was said.
        let _ = self.end.send(());
        let _ = self.task.await;
    }
}

struct Recorder {
    program: Arc<Program>,
    /// The look at the last sample.
    look: Look,
    sink: Sink,
}

impl Recorder {
    async fn run(mut self, mut news: broadcast::Receiver<Entry>, mut ended: oneshot::Receiver<()>) {
        let (mut goes_on, mut next) = (true, Instant::now());
        while goes_on {
            goes_on = tokio::select! {
                biased;
                _ = &mut ended => break,
                () = sleep_until(next) => {
                    let began = Instant::now();
                    let goes_on = self.sample();
                    next = began + SAMPLE_INTERVAL.max(began.elapsed() * SAMPLE_SHARE);
                    goes_on
                }
                heard = news.recv() => match heard {
                    Ok(entry) => self.sink.event(&json!(entry)),
                    Err(RecvError::Lagged(count)) => self.sink.miss(count),
                    Err(RecvError::Closed) => false,
                },
            };
        }
        while let Ok(entry) = news.try_recv() {
            self.sink.event(&json!(entry));
        }
        self.sample();
        self.sink.finish().await;
    }

    fn sample(&mut self) -> bool {
        let status = self.program.status_since(&self.look);
        self.look = self.program.look();
        self.sink.sample(&status.bonds)
    }
}

/// Where samples and messages become lines. Each answer says whether there is any use in more.
pub(super) struct Sink {
    lines: Lines,
    started: Instant,
    warned_of_gaps: bool,
}

impl Sink {
    /// Begins with the header: the command's name, kind and process, and the time between samples.
    pub(super) fn start(lines: Lines, (name, command, pid): (&str, &str, u32), interval: Duration) -> Self {
        tracing::info!("recording to {}", lines.path().display());
        let mut sink = Self { lines, started: Instant::now(), warned_of_gaps: false };
        sink.write(&Line::BondwireRecording(Header {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            name: name.to_owned(),
            command: command.to_owned(),
            pid,
            started: history::now(),
            interval_ms: interval.as_millis().try_into().unwrap_or(u64::MAX),
        }));
        sink
    }

    fn seconds(&self) -> f64 {
        rounded(self.started.elapsed().as_secs_f64())
    }

    pub(super) fn sample(&mut self, bonds: &[BondStatus]) -> bool {
        let (seconds, skipped_lines) = (self.seconds(), self.lines.skipped_lines());
        self.write(&Line::Sample { seconds, skipped_lines, bonds })
    }

    pub(super) fn event(&mut self, entry: &Value) -> bool {
        let seconds = self.seconds();
        self.write(&Line::Event { seconds, entry })
    }

    /// Counts messages that came too fast.
    pub(super) fn miss(&mut self, count: u64) -> bool {
        self.lines.skip(count);
        self.warn_of_gaps();
        self.lines.ended().is_none()
    }

    fn write(&mut self, line: &Line<'_>) -> bool {
        match self.lines.hand(line.bytes()) {
            Handed::Over => true,
            Handed::Skipped => {
                self.warn_of_gaps();
                true
            }
            Handed::Ended => false,
        }
    }

    fn warn_of_gaps(&mut self) {
        if !std::mem::replace(&mut self.warned_of_gaps, true) {
            let path = self.lines.path().display();
            tracing::warn!(
                "recording to {path}: the file is too slow, lines are left out; `bondwire status` counts them"
            );
        }
    }

    /// Writes the last line, and says what of the recording is missing.
    pub(super) async fn finish(mut self) {
        let (seconds, skipped_lines) = (self.seconds(), self.lines.skipped_lines());
        self.write(&Line::End { seconds, skipped_lines });
        let path = self.lines.path().to_owned();
        let why = match self.lines.ended() {
            Some(why) => Some(why.to_owned()),
            None => match timeout(LAST_LINES_TIMEOUT, self.lines.finish()).await {
                Ok(why) => why,
                Err(_) => Some("the file takes no more; its last lines are missing".to_owned()),
            },
        };
        if let Some(why) = why {
            let path = path.display();
            tracing::warn!("recording to {path} has ended, the bond goes on: {why}");
        }
    }
}
