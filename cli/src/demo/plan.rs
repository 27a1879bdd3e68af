//! What happens to the paths, and when.

use std::time::Duration;

use super::relay::Path;

/// Speeds of the demo's paths in MB/s (10⁶ bytes), each way.
pub(crate) const PATH_MBYTES_PER_SECOND: [u64; 3] = [40, 20, 10];

/// A part of the demo in which the paths stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Phase {
    /// What the phase shows.
    pub(crate) title: &'static str,
    /// Its share of the demo's time, in twentieths.
    twentieths: u32,
    /// What each path does.
    pub(crate) paths: [Path; 3],
}

/// The demo: every path together, one silent, all again, the fastest reset, all again.
pub(crate) const PHASES: [Phase; 5] = [
    Phase { title: "all three paths", twentieths: 4, paths: [Path::Open; 3] },
    Phase { title: "20 MB/s path goes silent", twentieths: 4, paths: [Path::Open, Path::Silent, Path::Open] },
    Phase { title: "it speaks again", twentieths: 4, paths: [Path::Open; 3] },
    Phase { title: "40 MB/s path is cut", twentieths: 4, paths: [Path::Closed, Path::Open, Path::Open] },
    Phase { title: "it can be dialled again", twentieths: 4, paths: [Path::Open; 3] },
];

impl Phase {
    /// How long the phase lasts in a demo of `whole`.
    pub(crate) fn length(&self, whole: Duration) -> Duration {
        whole * self.twentieths / 20
    }

    /// What the open paths carry together, in MB/s each way.
    pub(crate) fn open_mbytes_per_second(&self) -> u64 {
        let open = self.paths.iter().zip(PATH_MBYTES_PER_SECOND).filter(|(path, _)| **path == Path::Open);
        open.map(|(_, rate)| rate).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_fill_the_demo_and_never_close_every_path() {
        assert_eq!(PHASES.iter().map(|phase| phase.twentieths).sum::<u32>(), 20);
        assert!(PHASES.iter().all(|phase| phase.open_mbytes_per_second() > 0));
        assert_eq!(PHASES[1].open_mbytes_per_second(), 50);
    }
}
