//! What happens to the paths, and when.

use std::time::Duration;

use super::relay::Path;

/// Speeds of the demo's TCP paths in MB/s (10⁶ bytes), each way.
pub(crate) const TCP_MBYTES_PER_SECOND: [u64; 2] = [40, 20];
/// Rates of its serial lines.
#[cfg(unix)]
pub(crate) const SERIAL_BAUDS: [u32; 2] = [3_000_000, 921_600];
/// They are pseudo-terminals, which other systems lack.
#[cfg(not(unix))]
pub(crate) const SERIAL_BAUDS: [u32; 0] = [];

/// A part of the demo in which the paths stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Phase {
    /// What the phase shows.
    pub(crate) title: &'static str,
    /// Its share of the demo's time, in twentieths.
    twentieths: u32,
    /// What each TCP path does. The serial lines are always there.
    pub(crate) tcp: [Path; 2],
}

/// The demo: all paths together, one silent, all again, then the serial lines alone, all again.
pub(crate) const PHASES: [Phase; 5] = [
    Phase { title: "all paths", twentieths: 4, tcp: [Path::Open; 2] },
    Phase { title: "20 MB/s path goes silent", twentieths: 4, tcp: [Path::Open, Path::Silent] },
    Phase { title: "it speaks again", twentieths: 4, tcp: [Path::Open; 2] },
    Phase { title: LAST_CUT_TITLE, twentieths: 4, tcp: LAST_CUT },
    Phase { title: "they can be dialled again", twentieths: 4, tcp: [Path::Open; 2] },
];

/// Where there are serial lines they carry the bond alone for a while.
#[cfg(unix)]
const LAST_CUT: [Path; 2] = [Path::Closed; 2];
#[cfg(unix)]
const LAST_CUT_TITLE: &str = "both TCP paths are cut";
#[cfg(not(unix))]
const LAST_CUT: [Path; 2] = [Path::Closed, Path::Open];
#[cfg(not(unix))]
const LAST_CUT_TITLE: &str = "40 MB/s path is cut";

impl Phase {
    /// How long the phase lasts in a demo of `whole`.
    pub(crate) fn length(&self, whole: Duration) -> Duration {
        whole * self.twentieths / 20
    }

    /// What the open paths carry together, in MB/s each way.
    pub(crate) fn open_mbytes_per_second(&self) -> f64 {
        let open = self.tcp.iter().zip(TCP_MBYTES_PER_SECOND).filter(|(path, _)| **path == Path::Open);
        let tcp: u64 = open.map(|(_, rate)| rate).sum();
        tcp as f64 + SERIAL_BAUDS.iter().map(|baud| f64::from(*baud) / 10.0 / 1e6).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_fill_the_demo_and_never_close_every_path() {
        assert_eq!(PHASES.iter().map(|phase| phase.twentieths).sum::<u32>(), 20);
        assert!(PHASES.iter().all(|phase| phase.open_mbytes_per_second() > 0.0));
        assert!((40.0..40.5).contains(&PHASES[1].open_mbytes_per_second()));
    }
}
