//! `bondwire status`

use clap::Args;
use serde_json::Value;

use crate::control::client::{self, Client, ClientError};
use crate::control::protocol::Command;
use crate::control::status::{self, Status as Shown};
use crate::failure::{Exit, Failure};
use crate::output;

/// Arguments of `bondwire status`.
#[derive(Args)]
pub(crate) struct Status {
    /// The running command; all of this user's without it
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let mut clients = match &self.name {
            Some(name) => vec![client::one(Some(name)).await?],
            None => client::all().await?,
        };
        let mut all = Vec::new();
        for client in &mut clients {
            match client.ask(&Command::Status {}).await {
                Ok(status) => all.push(status),
                // It ended between our two looks.
                Err(ClientError::Ended(_)) if self.name.is_none() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.json {
            return output::json(&all);
        }
        if all.is_empty() {
            return Err(ClientError::NothingRuns.into());
        }
        for status in all {
            output::text(&status::text(&read(status)?))?;
        }
        Ok(())
    }
}

fn read(status: Value) -> Result<Shown, Failure> {
    serde_json::from_value(status)
        .map_err(|error| Failure::new(Exit::Configuration, format!("a status of another version: {error}")))
}

/// Has one command carried out by a running bondwire.
pub(crate) async fn ask(name: Option<&str>, command: &Command) -> Result<Value, Failure> {
    let mut client: Client = client::one(name).await?;
    Ok(client.ask(command).await?)
}
