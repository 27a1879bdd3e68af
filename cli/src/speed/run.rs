//! One speed test over a bond, with what each link did in it.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bondwire::Bond;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::asker::{Test, TestError};
use super::meter::Measured;
use super::protocol::{STREAMS_MAX, Sender, TIME_MAX};
use super::report::Report;
use crate::control::protocol::{CommandError, DATA_WRONG, SpeedTest};
use crate::links::LinkTally;
use crate::service::Refusal;

/// How often the links are looked at; each look may tell of a link that the next one no longer knows.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Direction {
    Send,
    Receive,
    Both,
}

impl Direction {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Both => "both",
        }
    }
}

/// What a test brought.
pub(crate) struct Outcome {
    send: Option<Measured>,
    receive: Option<Measured>,
    tally: LinkTally,
}

impl Outcome {
    /// The figures, with the time that the first link took to come up if the bond was opened for the test.
    pub(crate) fn report(self, startup: Option<Duration>) -> Report {
        Report::new([self.send, self.receive], startup, |seconds| self.tally.rows(seconds))
    }
}

/// Runs a test; `show` sees how it goes, and at which time since its start.
pub(crate) async fn measure(
    bond: &Bond,
    test: Test,
    direction: Direction,
    show: impl Fn(&LinkTally, Duration),
) -> Result<Outcome, TestError> {
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
    let mut tally = LinkTally::default();
    let (send, receive) = tokio::select! {
        tested = async { tokio::try_join!(send, receive) } => tested?,
        never = watch(bond, test.omit, &mut tally, show) => match never {},
    };
    tally.observe(bond.links());
    Ok(Outcome { send, receive, tally })
}

/// Looks at the links for as long as it is polled.
async fn watch(
    bond: &Bond,
    omit: Duration,
    tally: &mut LinkTally,
    show: impl Fn(&LinkTally, Duration),
) -> Infallible {
    let start = Instant::now();
    let mut warm = std::pin::pin!(sleep(omit));
    let mut is_warm = false;
    let mut look = interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut warm, if !is_warm => {
                is_warm = true;
                tally.observe(bond.links());
                tally.start_over();
            }
            _ = look.tick() => tally.observe(bond.links()),
        }
        show(tally, start.elapsed());
    }
}

/// A test over a bond that runs, for a client of its control socket: the object that `speed --json` prints.
pub(crate) async fn over_running_bond(bond: &Bond, wanted: &SpeedTest) -> Result<Value, CommandError> {
    let (omit, measured) = (Duration::from_secs(wanted.omit), Duration::from_secs(wanted.seconds));
    if measured.is_zero() || measured > TIME_MAX || omit > TIME_MAX {
        let most = TIME_MAX.as_secs();
        return Err(CommandError::bad(format!("a test measures for 1 to {most} s, after at most {most} s")));
    }
    if !(1..=STREAMS_MAX).contains(&wanted.streams) {
        return Err(CommandError::bad(format!("a test has 1 to {STREAMS_MAX} streams")));
    }
    let test = Test { sender: Sender::Asker, omit, measure: measured, streams: wanted.streams };
    match measure(bond, test, wanted.direction, |_, _| {}).await {
        Ok(outcome) => Ok(json!(outcome.report(None))),
        Err(error @ TestError::Refused(Refusal::Refused { .. })) => Err(CommandError::new("refused", error)),
        Err(error @ TestError::WrongData { .. }) => Err(CommandError::new(DATA_WRONG, error)),
        Err(error) => Err(CommandError::failed(error)),
    }
}
