//! How a command ends: its exit code and its one line on standard error.

use std::fmt;

/// Exit codes of the program; scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// `bondwire stop` asked for it.
    Stopped = 0,
    /// The command line cannot be understood.
    Usage = 2,
    /// A key, a file, an address of this host or a permission is not as it must be.
    Configuration = 3,
    /// No link to the peer came up.
    NoLink = 4,
    /// The peer answered, and said no.
    Refused = 5,
    /// The bond ended while it was in use.
    BondLost = 6,
    /// Data arrived that is not what was sent.
    DataWrong = 7,
    /// A device is not plugged in any more, or no bond takes it.
    NotAttached = 8,
    /// Ctrl-C or SIGTERM.
    Interrupted = 130,
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// A failure whose message says what happened and what to do, without a full stop or a line break.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: one_line(&message.to_string()) }
    }

    pub(crate) fn configuration(message: impl fmt::Display) -> Self {
        Self::new(Exit::Configuration, message)
    }

    pub(crate) fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted")
    }

    pub(crate) fn stopped() -> Self {
        Self::new(Exit::Stopped, "stopped")
    }

    /// The exit code of the process.
    pub(crate) fn code(&self) -> u8 {
        self.exit as u8
    }

    /// Whether the user asked for this end, so that nothing needs to be said about it.
    pub(crate) fn is_interruption(&self) -> bool {
        matches!(self.exit, Exit::Interrupted | Exit::Stopped)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Joins the lines of `text`, and replaces control characters: a peer's words must not steer the terminal.
pub(crate) fn one_line(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_without_escapes() {
        let failure = Failure::new(Exit::Refused, "first\nsecond\t\x1b[31mred");
        assert_eq!(failure.to_string(), "first second \u{fffd}[31mred");
        assert_eq!(failure.code(), 5);
    }
}
