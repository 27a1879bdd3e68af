//! The demo's summary, for people and for programs.

use std::fmt::Write;

use serde::Serialize;

use crate::output;

/// What the demo showed; also the object of `--json`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) seconds: f64,
    /// Bytes that arrived, both ways together.
    pub(crate) bytes: u64,
    pub(crate) mbytes_per_second: f64,
    /// Whether every byte was compared and found right; the demo ends with code 7 otherwise.
    pub(crate) verified: bool,
    pub(crate) phases: Vec<PhaseRow>,
    pub(crate) links: Vec<PathRow>,
}

/// One phase. Rates are both ways together.
#[derive(Debug, Serialize)]
pub(crate) struct PhaseRow {
    pub(crate) title: &'static str,
    pub(crate) from_seconds: f64,
    pub(crate) seconds: f64,
    pub(crate) mbytes_per_second: f64,
    /// What the open paths can carry.
    pub(crate) paths_mbytes_per_second: f64,
    /// Longest time in which nothing arrived in one direction.
    pub(crate) longest_pause_ms: f64,
}

/// One path.
#[derive(Debug, Serialize)]
pub(crate) struct PathRow {
    pub(crate) link: String,
    pub(crate) path_mbytes_per_second: f64,
    pub(crate) state: String,
    pub(crate) bytes: u64,
    /// Part of all bytes, 0 to 1.
    pub(crate) share: f64,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) lost_packets: u64,
    pub(crate) reinjected_bytes: u64,
}

impl Report {
    /// Lines for people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{} arrived in {:.1} s, both ways, and every byte is right.\n\n",
            output::bytes(self.bytes),
            self.seconds
        );
        let _ = writeln!(
            text,
            "{:>7}  {:26} {:>12} {:>14} {:>14}",
            "from", "what happens", "arrived", "paths carry", "longest pause"
        );
        for phase in &self.phases {
            let _ = writeln!(
                text,
                "{:>5.1} s  {:26} {:>7.1} MB/s {:>9.1} MB/s {:>11.0} ms",
                phase.from_seconds,
                phase.title,
                phase.mbytes_per_second,
                phase.paths_mbytes_per_second,
                phase.longest_pause_ms
            );
        }
        let _ = writeln!(
            text,
            "\n{:30} {:>9} {:>9} {:>12} {:>8} {:>8}",
            "link", "path MB/s", "state", "carried", "share", "rtt ms"
        );
        for path in &self.links {
            let rtt = path.rtt_ms.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1}"));
            let _ = writeln!(
                text,
                "{:30} {:>9.2} {:>9} {:>12} {:>6.1} % {:>8}",
                path.link,
                path.path_mbytes_per_second,
                path.state,
                output::bytes(path.bytes),
                path.share * 100.0,
                rtt
            );
        }
        text
    }
}
