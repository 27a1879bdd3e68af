//! What looks on while a command runs, beside its control socket: a recording, and Prometheus.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use crate::control::program::Program;
use crate::failure::Failure;
use crate::metrics::{self, Metrics, OpenMetrics};
use crate::recording::{RecordFile, Recording};

/// The recording of a command.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordOption {
    /// Write every link's figures and all messages into a file while this runs; `bondwire plot FILE` draws it
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

impl RecordOption {
    /// The file that is named.
    pub(crate) fn named(&self) -> Option<&Path> {
        self.record.as_deref()
    }
}

/// Who is to look on.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObserverOptions {
    #[command(flatten)]
    record: RecordOption,
    /// Serve metrics for Prometheus over HTTP [address without one: 127.0.0.1:7701]
    #[arg(long, value_name = "ADDR:PORT", num_args = 0..=1, require_equals = true, default_missing_value = metrics::ADDRESS)]
    metrics: Option<SocketAddr>,
}

impl ObserverOptions {
    /// As a configuration file has it.
    pub(crate) fn new(record: Option<PathBuf>, metrics: Option<SocketAddr>) -> Self {
        Self { record: RecordOption { record }, metrics }
    }

    /// Where metrics are served.
    pub(crate) fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// The file to record to.
    pub(crate) fn record(&self) -> Option<&Path> {
        self.record.named()
    }

    /// Opens all that is needed for it. What is wrong shows here, before anything else begins.
    pub(crate) async fn open(&self) -> Result<OpenObservers, Failure> {
        let record = match self.record.named() {
            Some(path) => Some(RecordFile::create(path).await?),
            None => None,
        };
        let metrics = match self.metrics {
            Some(address) => Some(OpenMetrics::bind(address).await?),
            None => None,
        };
        Ok(OpenObservers { record, metrics })
    }
}

/// Ready to look on.
pub(crate) struct OpenObservers {
    record: Option<RecordFile>,
    metrics: Option<OpenMetrics>,
}

impl OpenObservers {
    /// Begins to look at `program`.
    pub(crate) fn start(self, program: &Arc<Program>) -> Observers {
        Observers {
            recording: self.record.map(|file| Recording::start(file, program)),
            _metrics: self.metrics.map(|metrics| metrics.start(program)),
        }
    }
}

/// At work.
pub(crate) struct Observers {
    recording: Option<Recording>,
    _metrics: Option<Metrics>,
}

impl Observers {
    /// Looks a last time, and waits until that is written.
    pub(crate) async fn end(self) {
        if let Some(recording) = self.recording {
            recording.end().await;
        }
    }
}
