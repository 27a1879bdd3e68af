//! The lines of a recording: a JSON object each, with one key that says what it is. `docs/RECORD.md` describes them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::control::status::BondStatus;

/// Version of the format: rises when something that was there changes its meaning or goes.
pub(crate) const VERSION: u64 = 1;
/// How every recording begins.
pub(crate) const BEGINNING: &[u8] = br#"{"bondwire_recording":{"#;

/// A line to be written.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line<'a> {
    BondwireRecording(Header),
    Sample {
        seconds: f64,
        skipped_lines: u64,
        /// As the status has them.
        bonds: &'a [BondStatus],
    },
    Event {
        seconds: f64,
        #[serde(flatten)]
        entry: &'a Value,
    },
    End {
        seconds: f64,
        skipped_lines: u64,
    },
}

/// The first line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) version: u64,
    /// Version of the program that wrote it.
    #[serde(default)]
    pub(crate) program: String,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) command: String,
    #[serde(default)]
    pub(crate) pid: u32,
    /// UTC, as RFC 3339 has it: where `seconds` of all other lines count from.
    #[serde(default)]
    pub(crate) started: String,
    #[serde(default)]
    pub(crate) interval_ms: u64,
}

impl Line<'_> {
    /// The line as it is written.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::history::Entry;

    #[test]
    fn each_line_says_what_it_is() {
        let text = |line: Line<'_>| String::from_utf8(line.bytes()).unwrap();
        let header = text(Line::BondwireRecording(Header { version: VERSION, ..Header::default() }));
        assert!(header.as_bytes().starts_with(BEGINNING), "{header}");
        let sample = text(Line::Sample { seconds: 1.5, skipped_lines: 2, bonds: &[] });
        assert_eq!(sample, "{\"sample\":{\"seconds\":1.5,\"skipped_lines\":2,\"bonds\":[]}}\n");
        let entry = Entry {
            number: 7,
            time: "2026-01-02T03:04:05Z".into(),
            level: "warn",
            message: "link 1 a\nb: suspect".into(),
            link: Some("a\nb".into()),
            state: Some("suspect".into()),
            id: Some(1),
        };
        assert_eq!(
            text(Line::Event { seconds: 1.5, entry: &json!(entry) }),
            "{\"event\":{\"seconds\":1.5,\"id\":1,\"level\":\"warn\",\"link\":\"a\\nb\",\
             \"message\":\"link 1 a\\nb: suspect\",\"number\":7,\"state\":\"suspect\",\"time\":\"2026-01-02T03:04:05Z\"}}\n"
        );
        let end = text(Line::End { seconds: 2.0, skipped_lines: 0 });
        assert_eq!(end, "{\"end\":{\"seconds\":2.0,\"skipped_lines\":0}}\n");
    }
}
