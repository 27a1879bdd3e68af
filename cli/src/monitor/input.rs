//! What a key asks for.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Quit,
    /// Ctrl-C, which is no signal while the terminal hands out single keys.
    Interrupt,
    /// Out of the help, or out altogether.
    Back,
    Help,
    /// A link so many further down.
    Select(isize),
    Pause,
    Backup,
    /// All of the screen, because something else wrote on it.
    Anew,
    /// The terminal has another size.
    Redraw,
}

/// What an event of the terminal asks for; `None` for keys that mean nothing.
pub(super) fn wish(event: &Event) -> Option<Wish> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => of_key(key),
        Event::Resize(..) => Some(Wish::Redraw),
        _ => None,
    }
}

fn of_key(key: &KeyEvent) -> Option<Wish> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Wish::Interrupt),
            KeyCode::Char('l') => Some(Wish::Anew),
            _ => None,
        };
    }
    if key.modifiers.contains(KeyModifiers::ALT) {
        return None;
    }
    match key.code {
        KeyCode::Char('q') => Some(Wish::Quit),
        KeyCode::Esc => Some(Wish::Back),
        KeyCode::Char('?' | 'h') => Some(Wish::Help),
        KeyCode::Up | KeyCode::Char('k') => Some(Wish::Select(-1)),
        KeyCode::Down | KeyCode::Char('j') => Some(Wish::Select(1)),
        KeyCode::Home => Some(Wish::Select(isize::MIN)),
        KeyCode::End => Some(Wish::Select(isize::MAX)),
        KeyCode::Char('p' | ' ') => Some(Wish::Pause),
        KeyCode::Char('b') => Some(Wish::Backup),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_mean_nothing_do_nothing() {
        let key = |code, modifiers| wish(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Wish::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Wish::Interrupt));
        assert_eq!(key(KeyCode::Char('p'), KeyModifiers::NONE), Some(Wish::Pause));
        // Not what was meant: no link must be paused by an accident.
        for modifiers in [KeyModifiers::CONTROL, KeyModifiers::ALT] {
            assert_eq!(key(KeyCode::Char('p'), modifiers), None);
        }
        let garbage =
            [KeyCode::Char('\u{0}'), KeyCode::Char('漢'), KeyCode::F(99), KeyCode::Null, KeyCode::Insert];
        for code in garbage {
            assert_eq!(key(code, KeyModifiers::NONE), None, "{code:?}");
        }
        let released = KeyEvent::new_with_kind(KeyCode::Char('p'), KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(wish(&Event::Key(released)), None);
        assert_eq!(wish(&Event::Resize(0, 0)), Some(Wish::Redraw));
        assert_eq!(wish(&Event::Paste("qqq".into())), None);
    }
}
