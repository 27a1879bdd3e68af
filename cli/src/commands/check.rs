//! `bondwire check`

use std::path::PathBuf;

use clap::Args;

use crate::config::Config;
use crate::failure::Failure;
use crate::output;

/// Arguments of `bondwire check`.
#[derive(Args)]
pub(crate) struct Check {
    /// The file, as for `bondwire up`
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
}

impl Check {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let config = Config::load(&self.config)?;
        config.check_key()?;
        output::line(&format!("{}: {config}", self.config.display()))
    }
}
