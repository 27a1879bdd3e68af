//! `bondwire man-pages`: for packages, which hold them ready made.

use std::fs;
use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::Cli;
use crate::failure::Failure;

/// Arguments of `bondwire man-pages`.
#[derive(Args)]
pub(crate) struct ManPages {
    /// Where they are written, as bondwire.1, bondwire-listen.1 and so on; made when missing
    folder: PathBuf,
}

impl ManPages {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let failed = |error| Failure::configuration(format!("{}: {error}", self.folder.display()));
        fs::create_dir_all(&self.folder).map_err(failed)?;
        clap_mangen::generate_to(Cli::command(), &self.folder).map_err(failed)
    }
}
