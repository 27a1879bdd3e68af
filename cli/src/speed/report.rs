//! The result of a speed test, for people and for programs.

use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::meter::Measured;
use crate::links::LinkRow;
use crate::output::{self, rounded};

/// What was measured. The names are those of `--json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Length of the longer window.
    pub(crate) seconds: f64,
    /// Both ways together.
    bytes: u64,
    /// What was sent is on the peer's clock.
    mbytes_per_second: Rate,
    /// Time from the start of the program's dialling to the first link; none over a bond that ran before.
    startup_ms: Option<f64>,
    links: Vec<LinkRow>,
}

/// A number for one direction, an object for both.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Rate {
    One(f64),
    Both { send: f64, receive: f64 },
}

impl Report {
    /// Of what was sent and received; `links` gives their rows over so many seconds.
    pub(crate) fn new(
        [send, receive]: [Option<Measured>; 2],
        startup: Option<Duration>,
        links: impl FnOnce(f64) -> Vec<LinkRow>,
    ) -> Self {
        let rate = |measured: Measured| rounded(measured.mbytes_per_second());
        let of_both = || [send, receive].into_iter().flatten();
        let seconds = of_both().map(|measured| measured.time.as_secs_f64()).fold(0.0, f64::max);
        Self {
            seconds: rounded(seconds),
            bytes: of_both().map(|measured| measured.bytes).sum(),
            mbytes_per_second: match (send, receive) {
                (Some(send), Some(receive)) => Rate::Both { send: rate(send), receive: rate(receive) },
                (one, other) => Rate::One(one.or(other).map_or(0.0, rate)),
            },
            startup_ms: startup.map(|startup| rounded(startup.as_secs_f64() * 1e3)),
            links: links(seconds),
        }
    }

    /// Lines for people; `direction` is that of a test in one.
    pub(crate) fn text(&self, direction: &str) -> String {
        let rate = |direction: &str, rate| format!("{direction}: {}", output::mbytes_per_second(rate));
        let rates = match self.mbytes_per_second {
            Rate::One(only) => rate(direction, only),
            Rate::Both { send, receive } => format!("{}, {}", rate("send", send), rate("receive", receive)),
        };
        let mut text =
            format!("{rates} for {:.1} s ({}, verified)\n", self.seconds, output::bytes(self.bytes));
        match self.startup_ms {
            Some(startup_ms) => {
                let _ = writeln!(text, "first link up after {startup_ms:.0} ms");
            }
            None => text.push_str("over the running bond, beside whatever else it carries\n"),
        }
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
            kind: "tcp".to_owned(),
            state: "active".to_owned(),
            bytes: 500_000_000,
            mbytes_per_second: 50.0,
            rtt_ms: Some(1.25),
            lost_packets: 3,
            reinjected_bytes: 1200,
        };
        Report::new([send, receive], Some(Duration::from_micros(4500)), |_| vec![row])
    }

    #[test]
    fn json_has_the_documented_names_and_reads_back() {
        let json = |report: &Report| serde_json::to_value(report).unwrap();
        let report_of_one = report(measured(500_000_000), None);
        let one = json(&report_of_one);
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
        assert_eq!(serde_json::from_value::<Report>(one).unwrap(), report_of_one);
        let both = report(measured(500_000_000), measured(100_000_000));
        assert_eq!(json(&both)["mbytes_per_second"], serde_json::json!({"send": 50.0, "receive": 10.0}));
        assert_eq!(json(&both)["bytes"], 600_000_000);
        assert_eq!(serde_json::from_value::<Report>(json(&both)).unwrap(), both);
    }

    #[test]
    fn the_table_lines_up() {
        let text = report(measured(500_000_000), None).text("send");
        assert!(
            text.starts_with("send: 50.0 MB/s for 10.0 s (500 MB, verified)\nfirst link up after "),
            "{text}"
        );
        let lengths: Vec<_> = text.lines().skip(2).map(str::len).collect();
        assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
        let text = report(measured(500_000_000), measured(100_000_000)).text("both");
        assert!(
            text.starts_with("send: 50.0 MB/s, receive: 10.0 MB/s for 10.0 s (600 MB, verified)\n"),
            "{text}"
        );
    }
}
