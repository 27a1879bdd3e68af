//! Names of peers: one word that is no LINK, and needs no quotes in the file.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::link_spec;

/// Longest name, in characters: that of a host (RFC 1123).
const NAME_MAX_CHARS: usize = 63;
/// What a name is made from, in characters, so that a number fits behind it.
const STEM_MAX_CHARS: usize = 56;

/// The name of a peer: letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PeerName(String);

/// What is wrong with a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("a name is made of letters, digits, - and _, and starts with a letter or digit; {0:?} is not")]
    Form(String),
    #[error("a name has at most {NAME_MAX_CHARS} characters; this one has {0}")]
    TooLong(usize),
    #[error("{0} is a kind of link and cannot be a name")]
    KindOfLink(String),
}

impl PeerName {
    /// The nearest name to what a host says of itself: the first part of its host name.
    pub(crate) fn from_host(text: &str) -> Self {
        let first = text.trim().split('.').next().unwrap_or_default();
        let plain: String = first.chars().map(|c| if is_name_char(c) { c } else { '-' }).collect();
        let stem: String = plain.trim_matches(['-', '_']).chars().take(STEM_MAX_CHARS).collect();
        stem.parse().unwrap_or_else(|_| Self("peer".to_owned()))
    }

    /// `laptop-2` for `laptop` and 2.
    pub(crate) fn numbered(&self, number: u32) -> Self {
        Self(format!("{self}-{number}"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PeerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || !text.chars().all(is_name_char) {
            return Err(NameError::Form(text.to_owned()));
        }
        if text.len() > NAME_MAX_CHARS {
            return Err(NameError::TooLong(text.len()));
        }
        if link_spec::is_kind(text) {
            return Err(NameError::KindOfLink(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for PeerName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_that_are_no_links() {
        for good in ["a", "laptop-2", "board_3", "7"] {
            assert_eq!(good.parse::<PeerName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a.b", "a b", "tcp:x", "ü", "../x", "a\n"] {
            assert!(matches!(bad.parse::<PeerName>(), Err(NameError::Form(_))), "{bad:?}");
        }
        assert_eq!("a".repeat(64).parse::<PeerName>(), Err(NameError::TooLong(64)));
        assert_eq!("tcp".parse::<PeerName>(), Err(NameError::KindOfLink("tcp".to_owned())));
    }

    #[test]
    fn every_host_name_gives_a_name() {
        let cases = [
            ("laptop", "laptop"),
            ("board-3.example.org", "board-3"),
            ("  büro\u{1b}[31m ", "b-ro--31m"),
            ("", "peer"),
            ("...", "peer"),
            ("serial", "peer"),
            ("--x--", "x"),
        ];
        for (host, name) in cases {
            assert_eq!(PeerName::from_host(host).as_str(), name, "{host:?}");
        }
        let long = PeerName::from_host(&"a".repeat(500)).numbered(u32::MAX);
        assert!(long.as_str().parse::<PeerName>().is_err() || long.as_str().len() <= NAME_MAX_CHARS + 4);
        assert!(PeerName::from_host(&"a".repeat(500)).numbered(99_999).as_str().parse::<PeerName>().is_ok());
    }
}
