//! `bondwire monitor`

use std::time::Duration;

use clap::Args;

use crate::control::client;
use crate::control::protocol::Command;
use crate::control::status::Status;
use crate::failure::{Exit, Failure};
use crate::monitor::limits::{INTERVAL_MAX_SECONDS, INTERVAL_MIN_SECONDS, INTERVAL_SECONDS};
use crate::monitor::{self, TerminalKind, once};
use crate::output;
use crate::signals::Interrupt;

/// Arguments of `bondwire monitor`.
#[derive(Args)]
#[command(after_help = "Examples:
  bondwire monitor                          the only command that runs here
  bondwire monitor server                   the one with that name, also after it was started anew
  bondwire monitor --once | grep suspect    for scripts: one table

? in the monitor shows all keys, and what the columns mean.")]
pub(crate) struct Monitor {
    /// The running command, where there are several
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print one table, and end; needs no terminal
    #[arg(long)]
    once: bool,
    /// Time between two looks at the counters
    #[arg(long, value_name = "SECONDS", default_value_t = INTERVAL_SECONDS, value_parser = parse_interval)]
    interval: f64,
}

impl Monitor {
    pub(crate) async fn run(self, mut interrupt: Interrupt) -> Result<(), Failure> {
        let name = self.name.as_deref();
        if self.once {
            return interrupt.or(print(name)).await;
        }
        if !monitor::is_terminal() {
            return Err(Failure::new(Exit::Usage, "the monitor needs a terminal; --once prints a table"));
        }
        if monitor::terminal_kind() == TerminalKind::Dumb {
            let message = "TERM names no terminal that a screen can be drawn on; --once prints a table";
            return Err(Failure::new(Exit::Usage, message));
        }
        monitor::run(name, Duration::from_secs_f64(self.interval), interrupt).await
    }
}

async fn print(name: Option<&str>) -> Result<(), Failure> {
    let mut client = client::one(name).await?;
    let status = client.ask(&Command::Status {}).await?;
    let status: Status = serde_json::from_value(status)
        .map_err(|error| Failure::configuration(format!("a status of another version: {error}")))?;
    output::text(&once::text(&status))
}

fn parse_interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if (INTERVAL_MIN_SECONDS..=INTERVAL_MAX_SECONDS).contains(&seconds) {
        return Ok(seconds);
    }
    Err(format!("must be from {INTERVAL_MIN_SECONDS} to {INTERVAL_MAX_SECONDS} seconds"))
}
