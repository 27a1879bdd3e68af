//! `bondwire detach`

use clap::Args;

use crate::control::client::{self, ClientError};
use crate::control::protocol::Command;
use crate::failure::Failure;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  bondwire detach 1-2.3
  bondwire detach /dev/ttyUSB0

What was not attached is no fault, and neither is it if nothing runs.";

/// Arguments of `bondwire detach`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Detach {
    /// The device, as `bondwire attach` was given it
    device: String,
    /// The running command, where there are several
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Do nothing if the device is still plugged in
    #[arg(long)]
    if_gone: bool,
}

impl Detach {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let Self { device, name, if_gone } = self;
        let mut client = match client::one(name.as_deref()).await {
            // Its links have ended with it.
            Err(ClientError::NothingRuns) => return not_attached(&device),
            client => client?,
        };
        let command = Command::Detach { device: device.clone(), if_gone };
        match client.ask(&command).await?["links"].as_u64() {
            Some(1..) => output::line(&format!("{device}: detached")),
            _ if if_gone => output::line(&format!("{device}: not attached, or still plugged in")),
            _ => not_attached(&device),
        }
    }
}

fn not_attached(device: &str) -> Result<(), Failure> {
    output::line(&format!("{device}: not attached"))
}
