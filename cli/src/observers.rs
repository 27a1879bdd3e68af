//! What looks on while a command runs, beside its control socket: a recording.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use crate::control::program::Program;
use crate::failure::Failure;
use crate::recording::{RecordFile, Recording};

/// Who is to look on.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObserverOptions {
    /// Write every link's figures and all messages into a file while this runs; `bondwire plot FILE` draws it
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

impl ObserverOptions {
    /// As a configuration file has it.
    pub(crate) fn new(record: Option<PathBuf>) -> Self {
        Self { record }
    }

    /// The file to record to.
    pub(crate) fn record(&self) -> Option<&Path> {
        self.record.as_deref()
    }

    /// Opens all that is needed for it. What is wrong shows here, before anything else begins.
    pub(crate) async fn open(&self) -> Result<OpenObservers, Failure> {
        let record = match &self.record {
            Some(path) => Some(RecordFile::create(path).await?),
            None => None,
        };
        Ok(OpenObservers { record })
    }
}

/// Ready to look on.
pub(crate) struct OpenObservers {
    record: Option<RecordFile>,
}

impl OpenObservers {
    /// Begins to look at `program`.
    pub(crate) fn start(self, program: &Arc<Program>) -> Observers {
        Observers { recording: self.record.map(|file| Recording::start(file, program)) }
    }
}

/// At work.
pub(crate) struct Observers {
    recording: Option<Recording>,
}

impl Observers {
    /// Looks a last time, and waits until that is written.
    pub(crate) async fn end(self) {
        if let Some(recording) = self.recording {
            recording.end().await;
        }
    }
}
