//! The result of a speed test, for people and for programs.

use std::fmt::Write;

use serde::Serialize;

use super::meter::Measured;
use crate::links::LinkRow;
use crate::output::{self, rounded};

/// What was measured.
#[derive(Debug)]
pub(crate) struct Report {
    /// What this end sent, on the peer's clock.
    pub(crate) send: Option<Measured>,
    /// What this end received.
    pub(crate) receive: Option<Measured>,
    /// Time from the start of the program's dialling to the first link.
    pub(crate) startup_ms: f64,
    pub(crate) links: Vec<LinkRow>,
}

/// The object of `--json`.
#[derive(Serialize)]
struct Json<'a> {
    seconds: f64,
    bytes: u64,
    mbytes_per_second: Rate,
    startup_ms: f64,
    links: &'a [LinkRow],
}

/// A number for one direction, an object for both.
#[derive(Serialize)]
#[serde(untagged)]
enum Rate {
    One(f64),
    Both { send: f64, receive: f64 },
}

impl Report {
    /// Length of the longer window in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        let seconds =
            |measured: Option<Measured>| measured.map_or(0.0, |measured| measured.time.as_secs_f64());
        seconds(self.send).max(seconds(self.receive))
    }

    pub(crate) fn json(&self) -> impl Serialize + '_ {
        let rate = |measured: Measured| rounded(measured.mbytes_per_second());
        let bytes = |measured: Option<Measured>| measured.map_or(0, |measured| measured.bytes);
        Json {
            seconds: rounded(self.seconds()),
            bytes: bytes(self.send) + bytes(self.receive),
            mbytes_per_second: match (self.send, self.receive) {
                (Some(send), Some(receive)) => Rate::Both { send: rate(send), receive: rate(receive) },
                (one, other) => Rate::One(one.or(other).map_or(0.0, rate)),
            },
            startup_ms: rounded(self.startup_ms),
            links: &self.links,
        }
    }

    /// Lines for people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (direction, measured) in [("send", self.send), ("receive", self.receive)] {
            let Some(measured) = measured else { continue };
            let _ = writeln!(
                text,
                "{direction}: {} for {:.1} s ({}, verified)",
                output::mbytes_per_second(measured.mbytes_per_second()),
                measured.time.as_secs_f64(),
                output::bytes(measured.bytes),
            );
        }
        let _ = writeln!(text, "first link up after {:.0} ms", self.startup_ms);
        text.push_str(&link_table(&self.links));
        text
    }
}

/// The links with their shares.
pub(crate) fn link_table(links: &[LinkRow]) -> String {
    let total: u64 = links.iter().map(|link| link.bytes).sum();
    let width = links.iter().map(|link| link.link.chars().count()).max().unwrap_or_default().max(20);
    let mut text = format!(
        "{:width$}  {:8} {:>8} {:>7} {:>9} {:>7} {:>10}\n",
        "link", "state", "MB/s", "share", "rtt ms", "lost", "sent again"
    );
    for row in links {
        let share = if total > 0 { row.bytes as f64 * 100.0 / total as f64 } else { 0.0 };
        let rtt = row.rtt_ms.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.2}"));
        let _ = writeln!(
            text,
            "{:width$}  {:8} {:>8.2} {:>5.0} % {:>9} {:>7} {:>10}",
            row.link,
            row.state,
            row.mbytes_per_second,
            share,
            rtt,
            row.lost_packets,
            output::bytes(row.reinjected_bytes),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn measured(bytes: u64) -> Option<Measured> {
        Some(Measured { bytes, time: Duration::from_secs(10) })
    }

    fn report(send: Option<Measured>, receive: Option<Measured>) -> Report {
        let row = LinkRow {
            link: "tcp 192.0.2.1:7700".to_owned(),
            kind: "tcp",
            state: "active".to_owned(),
            bytes: 500_000_000,
            mbytes_per_second: 50.0,
            rtt_ms: Some(1.25),
            lost_packets: 3,
            reinjected_bytes: 1200,
        };
        Report { send, receive, startup_ms: 4.5, links: vec![row] }
    }

    #[test]
    fn json_has_the_documented_names() {
        let json = |report: &Report| serde_json::to_value(report.json()).unwrap();
        let one = json(&report(measured(500_000_000), None));
        assert_eq!(
            one,
            serde_json::json!({
                "seconds": 10.0, "bytes": 500_000_000, "mbytes_per_second": 50.0, "startup_ms": 4.5,
                "links": [{
                    "link": "tcp 192.0.2.1:7700", "kind": "tcp", "state": "active", "bytes": 500_000_000,
                    "mbytes_per_second": 50.0, "rtt_ms": 1.25, "lost_packets": 3, "reinjected_bytes": 1200,
                }],
            })
        );
        let both = json(&report(measured(500_000_000), measured(100_000_000)));
        assert_eq!(both["mbytes_per_second"], serde_json::json!({"send": 50.0, "receive": 10.0}));
        assert_eq!(both["bytes"], 600_000_000);
    }

    #[test]
    fn the_table_lines_up() {
        let text = report(measured(500_000_000), None).text();
        assert!(
            text.starts_with("send: 50.0 MB/s for 10.0 s (500 MB, verified)\nfirst link up after "),
            "{text}"
        );
        let lengths: Vec<_> = text.lines().skip(2).map(str::len).collect();
        assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }
}
