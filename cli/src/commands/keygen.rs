//! `bondwire keygen`

use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;
use crate::{keys, output};

/// Arguments of `bondwire keygen`.
#[derive(Args)]
pub(crate) struct Keygen {
    /// File for the private key [default: bondwire/key in the configuration folder]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace an existing key
    #[arg(long)]
    force: bool,
}

impl Keygen {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let path = self.output.map_or_else(keys::default_path, Ok)?;
        let identity = keys::make(&path, self.force).map_err(|error| error.about(&path))?;
        tracing::info!("made the key {}; its public key follows", path.display());
        output::line(&keys::public_key_text(&identity.public_key()))
    }
}
