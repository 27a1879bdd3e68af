//! Errors in a TOML file: where, what, and the key that was meant.

use std::fmt;
use std::ops::Range;

/// A place in a text, as editors count: from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
}

/// What is wrong in a TOML text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextError {
    place: Option<Place>,
    what: String,
}

impl TextError {
    pub(crate) fn new(text: &str, span: Option<Range<usize>>, what: impl fmt::Display) -> Self {
        Self { place: span.map(|span| Place::of(text, span.start)), what: what.to_string() }
    }

    /// Of the parser's or the deserializer's error, with the nearest key if one is unknown.
    pub(crate) fn from_toml(text: &str, error: &toml_edit::de::Error) -> Self {
        let message = error.message().trim();
        let what =
            explain_unknown_key(message).unwrap_or_else(|| message.lines().collect::<Vec<_>>().join("; "));
        Self::new(text, error.span(), what)
    }
}

impl fmt::Display for TextError {
    /// `:LINE:COLUMN: WHAT`, to stand behind the file's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl Place {
    fn of(text: &str, at: usize) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

/// Serde says "unknown field `x`, expected one of `a`, `b`"; people want to know which they meant.
fn explain_unknown_key(message: &str) -> Option<String> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let key = quoted.next()?;
    let keys: Vec<&str> = quoted.collect();
    let likeness = |known: &&&str| strsim::normalized_damerau_levenshtein(known, &key.to_ascii_lowercase());
    let nearest = keys.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    Some(match nearest.filter(|known| likeness(known) > 0.5) {
        Some(nearest) => format!("unknown key {key:?}; did you mean {nearest:?}?"),
        None => format!("unknown key {key:?}; keys are {}", keys.join(", ")),
    })
}
