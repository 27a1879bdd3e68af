//! `bondwire events`

use clap::Args;

use crate::control::client;
use crate::control::protocol::Command;
use crate::failure::{Failure, one_line};
use crate::output;
use crate::signals::Interrupt;

/// Arguments of `bondwire events`.
#[derive(Args)]
pub(crate) struct Events {
    /// The running command, where there are several
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Wait for more, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Print one JSON object for each message
    #[arg(long)]
    json: bool,
}

impl Events {
    pub(crate) async fn run(self, mut interrupt: Interrupt) -> Result<(), Failure> {
        let mut client = client::one(self.name.as_deref()).await?;
        if !self.follow {
            let report = client.ask(&Command::Report {}).await?;
            let events = report["events"].as_array().cloned().unwrap_or_default();
            return events.iter().try_for_each(|event| self.print(event));
        }
        client.ask(&Command::Events { after: Some(0) }).await?;
        loop {
            let next = interrupt.or(async { Ok(client.next().await?) }).await?;
            match next {
                None => return Ok(()),
                Some(line) => match (line.get("event"), line.get("missed")) {
                    (Some(event), _) => self.print(event)?,
                    (None, Some(count)) => tracing::warn!("{count} messages missed: too many at once"),
                    (None, None) => {}
                },
            }
        }
    }

    fn print(&self, event: &serde_json::Value) -> Result<(), Failure> {
        if self.json {
            return output::json(event);
        }
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        output::line(&format!(
            "{} {:>5} {}",
            text("time"),
            text("level").to_uppercase(),
            one_line(&text("message"))
        ))
    }
}
