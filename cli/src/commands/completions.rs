//! `bondwire completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::failure::Failure;
use crate::{Cli, output};

/// Arguments of `bondwire completions`.
#[derive(Args)]
pub(crate) struct Completions {
    /// Shell that will read the script
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "bondwire", &mut script);
        output::text(&String::from_utf8_lossy(&script))
    }
}
