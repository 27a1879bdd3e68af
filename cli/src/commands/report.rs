//! `bondwire report`

use std::path::PathBuf;

use clap::Args;

use crate::control::protocol::Command;
use crate::failure::Failure;
use crate::output;

use super::status::ask;

/// Arguments of `bondwire report`.
#[derive(Args)]
pub(crate) struct Report {
    /// The running command, where there are several
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// File to write; standard output without it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Report {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let report = ask(self.name.as_deref(), &Command::Report {}).await?;
        let text = serde_json::to_string_pretty(&report).map_err(Failure::configuration)? + "\n";
        match self.output {
            None => output::text(&text),
            Some(path) => std::fs::write(&path, text)
                .map_err(|error| Failure::configuration(format!("cannot write {}: {error}", path.display()))),
        }
    }
}
