use std::io;
use std::path::PathBuf;

/// Why a port cannot be used. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// Nothing is there.
    #[error("{0}: there is no such port; `bondwire devices` lists those that are")]
    NotFound(PathBuf),
    /// No by-id name or USB serial number like that.
    #[error("no serial port has the name or USB serial number {0:?}; `bondwire devices` lists them")]
    UnknownName(String),
    /// Several ports match a USB serial number.
    #[error("{name:?} is the USB serial number of several ports ({}); name one by its path or by-id name", .paths.join(", "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// The ports.
        paths: Vec<String>,
    },
    /// It is something else.
    #[error("{0} is not a serial port")]
    NotATerminal(PathBuf),
    /// The user may not open it.
    #[error("{path}: no permission; {advice}")]
    Permission {
        /// The port.
        path: PathBuf,
        /// Which group would have it.
        advice: String,
    },
    /// Another program has it.
    #[error("{path} is in use{}", holder_text(.holder))]
    Busy {
        /// The port.
        path: PathBuf,
        /// Who has it, if that can be seen.
        holder: Option<String>,
    },
    /// A login prompt runs on it.
    #[error(
        "a login prompt ({holder}) runs on {path}; add getty=stop to stop it while the link uses the port, or: systemctl disable --now serial-getty@{unit}"
    )]
    Getty {
        /// The port.
        path: PathBuf,
        /// Name and process id.
        holder: String,
        /// Instance of the unit.
        unit: String,
    },
    /// It was to be stopped, and could not be.
    #[error("could not stop serial-getty@{unit}: {fault}")]
    GettyNotStopped {
        /// Instance of the unit.
        unit: String,
        /// What went wrong.
        fault: String,
    },
    /// The driver cannot do this rate.
    #[error("{path} cannot do {baud} baud; try another rate, such as 115200")]
    Baud {
        /// The port.
        path: PathBuf,
        /// The rate asked for.
        baud: u32,
    },
    /// Anything else.
    #[error("{path}: {error}")]
    Io {
        /// The port.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

fn holder_text(holder: &Option<String>) -> String {
    holder.as_ref().map(|holder| format!(" by {holder}")).unwrap_or_default()
}

impl From<PortError> for io::Error {
    fn from(error: PortError) -> Self {
        let kind = match &error {
            PortError::NotFound(_) | PortError::UnknownName(_) => io::ErrorKind::NotFound,
            PortError::Permission { .. } => io::ErrorKind::PermissionDenied,
            PortError::Busy { .. } | PortError::Getty { .. } => io::ErrorKind::ResourceBusy,
            PortError::Io { error, .. } => error.kind(),
            _ => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}
