//! The terminal: taken for the screen, and given back however the monitor ends.

use std::future::poll_fn;
use std::io::{self, IsTerminal};
use std::pin::Pin;

use crossterm::event::EventStream;
use futures_core::Stream;
use ratatui::DefaultTerminal;

use super::input::{self, Wish};
use super::model::Model;
use super::view::{self, Look};
use crate::failure::Failure;
use crate::logging;

/// A terminal with single keys and a screen of its own.
pub(super) struct Screen {
    terminal: DefaultTerminal,
    events: EventStream,
    look: Look,
    is_open: bool,
}

/// What kind of terminal there is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TerminalKind {
    /// It cannot put text at a place.
    Dumb,
    Monochrome,
    Colour,
}

/// Whether there is a terminal for a screen and its keys.
pub(crate) fn is_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The kind of the terminal that `TERM` names.
pub(crate) fn terminal_kind() -> TerminalKind {
    kind_of(&std::env::var("TERM").unwrap_or_default())
}

fn kind_of(name: &str) -> TerminalKind {
    const MONOCHROME: [&str; 6] = ["vt52", "vt100", "vt102", "vt220", "vt320", "vt420"];
    match name {
        "" | "dumb" | "unknown" => TerminalKind::Dumb,
        name if MONOCHROME.contains(&name) || name.ends_with("-m") || name.ends_with("-mono") => {
            TerminalKind::Monochrome
        }
        _ => TerminalKind::Colour,
    }
}

/// Whether the user's locale has characters beyond ASCII.
fn is_unicode(variable: impl Fn(&str) -> Option<String>) -> bool {
    // The first that is set decides, as in C's setlocale.
    let names = ["LC_ALL", "LC_CTYPE", "LANG"];
    let locale = names.into_iter().filter_map(variable).find(|value| !value.is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

impl Screen {
    pub(super) fn open() -> Result<Self, Failure> {
        // Gives the terminal back before the message of a panic, too.
        let terminal = ratatui::try_init().map_err(|error| {
            ratatui::restore();
            Failure::configuration(format!("cannot use the terminal: {error}; --once prints a table"))
        })?;
        let look = Look {
            colour: terminal_kind() == TerminalKind::Colour && !logging::no_color(),
            unicode: is_unicode(|name| std::env::var(name).ok()),
        };
        Ok(Self { terminal, events: EventStream::new(), look, is_open: true })
    }

    pub(super) fn draw(&mut self, model: &Model) -> Result<(), Failure> {
        let look = self.look;
        let drawn = self.terminal.draw(|frame| view::draw(model, look, frame.area(), frame.buffer_mut()));
        drawn.map(drop).map_err(lost)
    }

    /// Has the next screen drawn as a whole.
    pub(super) fn clear(&mut self) -> Result<(), Failure> {
        self.terminal.clear().map_err(lost)
    }

    /// Waits for the next key that means something. Cancel safe.
    pub(super) async fn wish(&mut self) -> Result<Wish, Failure> {
        loop {
            match poll_fn(|cx| Pin::new(&mut self.events).poll_next(cx)).await {
                Some(Ok(event)) => {
                    if let Some(wish) = input::wish(&event) {
                        return Ok(wish);
                    }
                }
                Some(Err(error)) => return Err(lost(error)),
                None => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    /// Gives the terminal back.
    pub(super) fn close(mut self) {
        self.restore();
    }

    fn restore(&mut self) {
        if std::mem::take(&mut self.is_open) {
            // A terminal that is gone cannot be given back.
            let _ = self.terminal.show_cursor();
            let _ = ratatui::try_restore();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.restore();
    }
}

fn lost(error: io::Error) -> Failure {
    Failure::configuration(format!("the terminal is gone: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_known_by_their_names() {
        for (name, kind) in [
            ("xterm-256color", TerminalKind::Colour),
            ("screen", TerminalKind::Colour),
            ("linux", TerminalKind::Colour),
            ("vt100", TerminalKind::Monochrome),
            ("xterm-mono", TerminalKind::Monochrome),
            ("dumb", TerminalKind::Dumb),
            ("", TerminalKind::Dumb),
        ] {
            assert_eq!(kind_of(name), kind, "{name}");
        }
    }

    #[test]
    fn the_locale_decides_on_characters() {
        let unicode = |set: &[(&str, &str)]| {
            is_unicode(|name| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(unicode(&[("LANG", "de_DE.UTF-8")]));
        assert!(unicode(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]));
        assert!(!unicode(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]));
        assert!(!unicode(&[]));
    }
}
