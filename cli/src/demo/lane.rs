//! One path of the demo: TCP through a paced relay, or a serial line between two pseudo-terminals.

use std::io;
use std::net::SocketAddr;

use super::relay::{Path, Relay};
#[cfg(unix)]
use bondwire_line::{End, Noise, PtyLine};

/// A path between the two ends.
pub(crate) enum Lane {
    /// A relay, which can go silent or close.
    Tcp(Relay),
    /// A serial line, which stays.
    #[cfg(unix)]
    Serial {
        /// The two pseudo-terminals, joined.
        line: PtyLine,
        /// Its rate.
        baud: u32,
    },
}

impl Lane {
    /// A TCP path to `target` of so many bytes per second.
    pub(crate) async fn tcp(target: SocketAddr, rate: u64) -> io::Result<Self> {
        Ok(Self::Tcp(Relay::start(target, rate).await?))
    }

    /// A serial line without noise.
    #[cfg(unix)]
    pub(crate) fn serial(baud: u32) -> io::Result<Self> {
        Ok(Self::Serial { line: PtyLine::open(Noise::NONE, u64::from(baud))?, baud })
    }

    /// Bytes per second, each way.
    pub(crate) fn rate(&self) -> f64 {
        match self {
            Self::Tcp(relay) => relay.rate as f64,
            #[cfg(unix)]
            Self::Serial { baud, .. } => f64::from(*baud) / 10.0,
        }
    }

    /// What it is called on the terminal.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Tcp(relay) => format!("TCP {} MB/s", relay.rate / 1_000_000),
            #[cfg(unix)]
            Self::Serial { baud, .. } => format!("{baud} baud"),
        }
    }

    /// Changes what the path does.
    pub(crate) fn set(&self, path: Path) {
        match self {
            Self::Tcp(relay) => relay.set(path),
            #[cfg(unix)]
            Self::Serial { line, .. } => line.set_silent(path != Path::Open),
        }
    }

    /// What the path does.
    pub(crate) fn path(&self) -> Path {
        match self {
            Self::Tcp(relay) => relay.path(),
            #[cfg(unix)]
            Self::Serial { line, .. } if line.is_silent() => Path::Silent,
            #[cfg(unix)]
            Self::Serial { .. } => Path::Open,
        }
    }

    /// Bytes carried so far, both ways together.
    pub(crate) fn carried_bytes(&self) -> u64 {
        match self {
            Self::Tcp(relay) => relay.carried_bytes(),
            #[cfg(unix)]
            Self::Serial { line, .. } => line.carried_bytes(End::A) + line.carried_bytes(End::B),
        }
    }

    /// Whether a link of this name leads over it.
    pub(crate) fn carries(&self, link: &str) -> bool {
        match self {
            Self::Tcp(relay) => link.ends_with(&format!(":{}", relay.address.port())),
            #[cfg(unix)]
            Self::Serial { line, .. } => {
                line.path(End::A).is_some_and(|path| link.starts_with(&format!("serial {},", path.display())))
            }
        }
    }
}
