//! A command as a shell would split it; no shell runs it.

use std::fmt;
use std::str::FromStr;

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine {
    text: String,
    /// Never empty.
    words: Vec<String>,
}

/// What is wrong with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandLineError {
    #[error("no command; write exec:COMMAND, for example \"exec:ssh host nc localhost 7700\"")]
    Empty,
    #[error("a quote or a backslash in the command has no end; quote as for a shell")]
    Quotes,
    #[error("a zero byte in the command; no argument can hold one")]
    Zero,
}

impl CommandLine {
    /// A program and its arguments, of which there is at least the program.
    pub(crate) fn of_words(words: Vec<String>) -> Self {
        Self { text: words.join(" "), words }
    }

    /// Whether it starts a listener that lives on its pipe. Words of one argument count, as a shell elsewhere will split it.
    pub(crate) fn starts_listener(&self) -> bool {
        let mut words = self.words.iter().flat_map(|word| word.split_whitespace());
        words.any(|word| word == "listen") && words.any(|word| word == "stdio:")
    }

    /// The program, and what follows.
    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }
}

impl FromStr for CommandLine {
    type Err = CommandLineError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('\0') {
            return Err(CommandLineError::Zero);
        }
        let words = shlex::split(text).ok_or(CommandLineError::Quotes)?;
        if words.first().is_none_or(String::is_empty) {
            return Err(CommandLineError::Empty);
        }
        Ok(Self { text: text.trim().to_owned(), words })
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_starts_a_listener_is_known_by_its_words() {
        let starts = |text: &str| text.parse::<CommandLine>().unwrap().starts_listener();
        assert!(starts("bondwire listen stdio: --allow k"));
        assert!(starts("ssh host 'bondwire -v listen --key k stdio:'"));
        assert!(!starts("ssh jump nc 10.0.0.5 7700"));
        assert!(!starts("nc listen 1"));
        assert!(!starts("bondwire connect stdio: --control listen"));
    }

    #[test]
    fn bad_commands_are_refused() {
        let error = |text: &str| text.parse::<CommandLine>().unwrap_err();
        assert_eq!(error(""), CommandLineError::Empty);
        assert_eq!(error("   "), CommandLineError::Empty);
        assert_eq!(error("''"), CommandLineError::Empty);
        assert_eq!(error("sh -c 'x"), CommandLineError::Quotes);
        assert_eq!(error("sh \\"), CommandLineError::Quotes);
        assert_eq!(error("sh \0"), CommandLineError::Zero);
    }
}
