//! Reading a recording. It may come from anywhere, so nothing in it is taken for granted.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::curves::Curves;
use super::limits::{LINE_MAX_BYTES, LINKS_MAX, SECONDS_MAX};
use crate::recording::format::{Header, VERSION};

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("cannot read {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: it is empty; nothing was recorded", path.display())]
    Empty { path: PathBuf },
    #[error("{}:1: this is no recording; --record writes one", path.display())]
    NoRecording { path: PathBuf },
    #[error("{}:1: a recording of version {version}, and this program knows {VERSION}; use a newer one", path.display())]
    Newer { path: PathBuf, version: u64 },
    #[error("{}: it has no sample yet", path.display())]
    NoSample { path: PathBuf },
    #[error("{}: it has no bond {bond}", path.display())]
    NoBond { path: PathBuf, bond: u64 },
    #[error("{}:{line}: {fault}", path.display())]
    Line { path: PathBuf, line: u64, fault: Fault },
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("no line of a recording: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a line of more than {} MiB", LINE_MAX_BYTES >> 20)]
    Long,
    #[error("the time {0} s cannot be")]
    Time(f64),
    #[error("the time goes back, from {0} s to {1} s")]
    Back(f64, f64),
}

/// A line; what this version does not know is passed over.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    bondwire_recording: Option<Header>,
    sample: Option<Sample>,
    event: Option<Event>,
    end: Option<End>,
}

/// What a picture needs of a sample.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Sample {
    pub(super) seconds: f64,
    pub(super) skipped_lines: u64,
    pub(super) bonds: Vec<Bond>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Bond {
    pub(super) number: u64,
    pub(super) links: Vec<Link>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Link {
    pub(super) id: Option<u32>,
    pub(super) link: String,
    pub(super) state: String,
    pub(super) rtt_ms: Option<f64>,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) in_flight_bytes: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    pub(super) seconds: f64,
    pub(super) link: Option<String>,
    pub(super) id: Option<u32>,
    pub(super) state: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct End {
    seconds: f64,
}

/// Reads the recording at `path`, of all bonds or of one, and says in words what is not whole about it.
pub(super) fn read(path: &Path, bond: Option<u64>) -> Result<(Curves, Vec<String>), ReadError> {
    let failed = |error| ReadError::Io { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    read_from(BufReader::new(file), path, bond)
}

fn read_from(
    mut from: impl BufRead,
    path: &Path,
    bond: Option<u64>,
) -> Result<(Curves, Vec<String>), ReadError> {
    let mut reading: Option<Reading> = None;
    let mut remarks = Vec::new();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let wrong = |fault| ReadError::Line { path: path.to_owned(), line, fault };
        let read = (&mut from).take(LINE_MAX_BYTES as u64 + 1).read_until(b'\n', &mut bytes);
        match read {
            Ok(0) => break,
            Ok(length) if length > LINE_MAX_BYTES => return Err(wrong(Fault::Long)),
            Ok(_) => {}
            Err(error) => return Err(ReadError::Io { path: path.to_owned(), error }),
        }
        let is_whole = bytes.last() == Some(&b'\n');
        let parsed = serde_json::from_slice::<Line>(&bytes);
        let Some(reading) = &mut reading else {
            reading = Some(Reading::begin(parsed, path, bond)?);
            continue;
        };
        match parsed {
            Ok(parsed) => reading.take(parsed).map_err(wrong)?,
            // Whoever wrote it was ended, or is about to write the rest.
            Err(_) if !is_whole => {
                remarks.push(format!("{}:{line}: the last line is cut short, and left out", path.display()));
            }
            Err(error) => return Err(wrong(error.into())),
        }
    }
    let Some(reading) = reading else { return Err(ReadError::Empty { path: path.to_owned() }) };
    if !reading.has_sample {
        return Err(ReadError::NoSample { path: path.to_owned() });
    }
    if let Some(bond) = bond
        && reading.curves.links.is_empty()
    {
        return Err(ReadError::NoBond { path: path.to_owned(), bond });
    }
    let (name, Reading { curves, skipped_lines, .. }) = (path.display(), reading);
    if skipped_lines > 0 {
        remarks.push(format!("{name}: {skipped_lines} lines were left out, the file was too slow for them"));
    }
    if curves.omitted_links > 0 {
        let omitted = curves.omitted_links;
        remarks.push(format!(
            "{name}: {LINKS_MAX} links are drawn, {omitted} more are not; --bond draws those of one bond"
        ));
    }
    Ok((curves, remarks))
}

/// A recording of which the first line is read.
struct Reading {
    curves: Curves,
    seconds: f64,
    skipped_lines: u64,
    has_sample: bool,
}

impl Reading {
    fn begin(first: serde_json::Result<Line>, path: &Path, bond: Option<u64>) -> Result<Self, ReadError> {
        let header = first.ok().and_then(|line| line.bondwire_recording);
        match header {
            Some(header) if header.version > VERSION => {
                Err(ReadError::Newer { path: path.to_owned(), version: header.version })
            }
            Some(header) if header.version > 0 => Ok(Self {
                curves: Curves::new(header, bond),
                seconds: 0.0,
                skipped_lines: 0,
                has_sample: false,
            }),
            _ => Err(ReadError::NoRecording { path: path.to_owned() }),
        }
    }

    fn take(&mut self, line: Line) -> Result<(), Fault> {
        if let Some(sample) = line.sample {
            self.advance(sample.seconds)?;
            self.skipped_lines = self.skipped_lines.max(sample.skipped_lines);
            self.has_sample = true;
            self.curves.handle_sample(sample);
        }
        if let Some(event) = line.event {
            self.advance(event.seconds)?;
            self.curves.handle_event(&event);
        }
        if let Some(end) = line.end {
            self.advance(end.seconds)?;
        }
        Ok(())
    }

    fn advance(&mut self, seconds: f64) -> Result<(), Fault> {
        if !(0.0..=SECONDS_MAX).contains(&seconds) {
            return Err(Fault::Time(seconds));
        }
        if seconds < self.seconds {
            return Err(Fault::Back(self.seconds, seconds));
        }
        self.seconds = seconds;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"{"bondwire_recording":{"version":1,"program":"0.1.0","new":[]}}"#;
    const SAMPLE: &str = r#"{"sample":{"seconds":1.5,"bonds":[]}}"#;

    fn read_text(text: &[u8]) -> Result<(Curves, Vec<String>), String> {
        read_from(text, Path::new("f"), None).map_err(|error| error.to_string())
    }

    fn fault(text: impl AsRef<[u8]>) -> String {
        read_text(text.as_ref()).err().unwrap()
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        assert_eq!(fault(""), "f: it is empty; nothing was recorded");
        for text in ["\n", "hello", "[]", "7\n", "{}\n", SAMPLE, "\u{0}\u{0}", r#"{"bondwire_recording":{}}"#]
        {
            assert_eq!(fault(text), "f:1: this is no recording; --record writes one", "{text:?}");
        }
        assert_eq!(fault(b"\xff\xfe"), "f:1: this is no recording; --record writes one");
        let newer = fault(r#"{"bondwire_recording":{"version":7,"name":"x"}}"#);
        assert_eq!(newer, "f:1: a recording of version 7, and this program knows 1; use a newer one");
        assert_eq!(fault(HEADER), "f: it has no sample yet");
        let wrong = fault(format!("{HEADER}\n{SAMPLE}\nnonsense\n{SAMPLE}\n"));
        assert!(wrong.starts_with("f:3: no line of a recording: expected "), "{wrong}");
        let wrong = fault(format!("{HEADER}\n{}\n", r#"{"sample":{"seconds":1,"bonds":[{"number":-1}]}}"#));
        assert!(wrong.starts_with("f:2: no line of a recording: invalid value: integer `-1`"), "{wrong}");
        let back = r#"{"event":{"seconds":1}}"#;
        assert_eq!(
            fault(format!("{HEADER}\n{SAMPLE}\n{back}\n")),
            "f:3: the time goes back, from 1.5 s to 1 s"
        );
        let late = r#"{"end":{"seconds":1e300}}"#;
        assert!(fault(format!("{HEADER}\n{late}\n")).starts_with("f:2: the time 1"));
        let huge = format!("{HEADER}\n{}", "x".repeat(LINE_MAX_BYTES + 1));
        assert_eq!(fault(huge), "f:2: a line of more than 4 MiB");
        let huge = "x".repeat(LINE_MAX_BYTES + 1);
        assert_eq!(fault(huge), "f:1: a line of more than 4 MiB");
        let deep = format!("{HEADER}\n{}\n", "[".repeat(100_000));
        assert!(fault(deep).starts_with("f:2: no line of a recording: "));
    }

    #[test]
    fn what_is_cut_short_or_unknown_is_no_fault() {
        let unknown = r#"{"weather":{"rain":true}}"#;
        let (_, remarks) = read_text(format!("{HEADER}\n{unknown}\n{SAMPLE}\n").as_bytes()).unwrap();
        assert_eq!(remarks, <[String; 0]>::default());
        for cut in [&SAMPLE[..20], "\u{0}\u{0}\u{0}", "{"] {
            let (_, remarks) = read_text(format!("{HEADER}\n{SAMPLE}\n{cut}").as_bytes()).unwrap();
            assert_eq!(remarks, ["f:3: the last line is cut short, and left out"]);
        }
        let sample = r#"{"sample":{"seconds":2,"skipped_lines":3,"bonds":[]}}"#;
        let (_, remarks) = read_text(format!("{HEADER}\n{sample}").as_bytes()).unwrap();
        assert_eq!(remarks, ["f: 3 lines were left out, the file was too slow for them"]);
    }
}
