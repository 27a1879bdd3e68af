//! `bondwire log`

use clap::Args;

use crate::control::protocol::Command;
use crate::failure::Failure;

use super::status::ask;

/// Arguments of `bondwire log`.
#[derive(Args)]
pub(crate) struct Log {
    /// error, warn, info, debug, trace, or as RUST_LOG has it
    level: String,
    /// The running command, where there are several
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl Log {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        ask(self.name.as_deref(), &Command::Log { level: self.level }).await.map(|_| ())
    }
}
