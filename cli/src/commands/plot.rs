//! `bondwire plot`

use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;
use crate::plot::{Picture, parse_picture};

/// Arguments of `bondwire plot`.
#[derive(Args)]
#[command(after_help = "Examples:
  bondwire connect server -L 8080:localhost:80 --record today    record while it runs, Ctrl-C ends it
  bondwire plot today -o today.svg                               also of a recording that still goes on
  bondwire plot today -o today.html --bond 2                     a page for a browser; one bond of several

docs/RECORD.md has the form of recordings.")]
pub(crate) struct Plot {
    /// The recording, which --record of connect, listen and speed writes, and `record` in the file of `up`
    #[arg(value_name = "FILE")]
    recording: PathBuf,
    /// Picture to write: its name ends in .svg or .html
    #[arg(short, long, value_name = "PICTURE", value_parser = parse_picture)]
    output: Picture,
    /// Draw the links of one bond, by its number [default: those of all]
    #[arg(long, value_name = "NUMBER")]
    bond: Option<u64>,
}

impl Plot {
    pub(crate) fn run(self) -> Result<(), Failure> {
        self.output.draw(&self.recording, self.bond)
    }
}
