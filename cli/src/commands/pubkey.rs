//! `bondwire pubkey`

use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;
use crate::{keys, output};

/// Arguments of `bondwire pubkey`.
#[derive(Args)]
pub(crate) struct Pubkey {
    /// Private key file [default: bondwire/key in the configuration folder]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Pubkey {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let path = self.file.map_or_else(keys::default_path, Ok)?;
        let identity = keys::load(&path)?;
        output::line(&keys::public_key_text(&identity.public_key()))
    }
}
