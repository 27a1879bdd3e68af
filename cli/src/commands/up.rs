//! `bondwire up`

use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;
use crate::signals::{Interrupt, Reloads};
use crate::up::Service;

/// What the signals do.
const SIGNALS: &str = "\
Signals:
  HUP        Read the file again; bonds stay, and a faulty file changes nothing
  TERM, INT  Take nothing new, and end when the connections have, or drain-seconds later; at once the second time

docs/CONFIG.md has the keys of the file.";

/// Arguments of `bondwire up`.
#[derive(Args)]
#[command(after_help = SIGNALS)]
pub(crate) struct Up {
    /// The file; `connect ... --print-config` and `listen ... --print-config` write one
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// Name of this service for `bondwire status`, `link` and the like [default: control in the file, else the file's name]
    #[arg(long, value_name = "NAME")]
    control: Option<String>,
}

impl Up {
    pub(crate) async fn run(self, interrupt: Interrupt) -> Result<(), Failure> {
        // Before anything else: a reload that comes early must not end the process.
        let reloads = Reloads::install()?;
        // A large future, which needs no place on the stack of `main`.
        let service = Box::pin(Service::start(self.config, self.control, &interrupt)).await?;
        Box::pin(service.run(interrupt, reloads)).await;
        Ok(())
    }
}
