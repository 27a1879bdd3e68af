//! The screen: a model drawn into a buffer. Nothing here knows a terminal.
//!
//! States are words, and what matters is bold or reversed: colours only repeat it.

mod details;
mod table;
#[cfg(test)]
mod tests;
mod words;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use self::words::{age, rate};
use super::limits::{HEIGHT_MIN, WIDTH_MIN};
use super::model::{Bond, Model};
use crate::output;

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) colour: bool,
    /// Curves of eighths of a character, and lines; else ASCII alone.
    pub(crate) unicode: bool,
}

/// Most of a peer's name, so that what its bond carries fits into 80 columns.
const PEER_WIDTH: usize = 12;
/// Lines of messages below which the table is cut first.
const EVENTS_MIN: usize = 3;
/// Height from which the details of a link have room.
const DETAILS_HEIGHT_MIN: usize = 18;
/// Height from which messages have.
const EVENTS_HEIGHT_MIN: usize = 12;

impl Look {
    fn styled(self, colour: Color, modifier: Modifier) -> Style {
        let style = Style::new().add_modifier(modifier);
        if self.colour { style.fg(colour) } else { style }
    }

    /// How the word for a state looks.
    fn state(self, state: &str) -> Style {
        match state {
            "active" if self.colour => Style::new().fg(Color::Green),
            "active" => Style::new(),
            "suspect" => self.styled(Color::Yellow, Modifier::BOLD),
            "joining" => self.styled(Color::Cyan, Modifier::BOLD),
            _ => self.styled(Color::Red, Modifier::BOLD),
        }
    }

    /// How the level of a message looks.
    fn level(self, level: &str) -> Style {
        match level {
            "warn" => self.styled(Color::Yellow, Modifier::BOLD),
            "error" => self.styled(Color::Red, Modifier::BOLD),
            _ => Style::new(),
        }
    }

    fn curve(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn sending(self) -> Style {
        self.curve(Color::Cyan)
    }

    fn receiving(self) -> Style {
        self.curve(Color::Magenta)
    }
}

/// Draws the whole screen.
pub(crate) fn draw(model: &Model, look: Look, area: Rect, buffer: &mut Buffer) {
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        return too_small(area, buffer);
    }
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let mut screen = Screen { area, buffer, next: 0 };
    screen.put(&title(model));
    let footer = footer(model);
    if model.shows_help {
        help().iter().take(height - 2).for_each(|line| screen.put(line));
        return screen.put_last(&footer);
    }
    let details = model
        .selected_link()
        .filter(|_| height >= DETAILS_HEIGHT_MIN)
        .map(|link| details::lines(model, link, look, width))
        .unwrap_or_default();
    let events_least = if height >= EVENTS_HEIGHT_MIN { EVENTS_MIN + 1 } else { 0 };
    // Title and keys have a line each.
    let room = height.saturating_sub(2 + details.len() + events_least);
    let table = table::lines(model, look, width);
    table::window(&table, room).iter().for_each(|line| screen.put(&line.line));
    details.iter().for_each(|line| screen.put(line));
    if events_least > 0 {
        let room = height.saturating_sub(1 + screen.used());
        events(model, look, width, room).iter().for_each(|line| screen.put(line));
    }
    screen.put_last(&footer);
}

/// Lines from top to bottom.
struct Screen<'a> {
    area: Rect,
    buffer: &'a mut Buffer,
    next: u16,
}

impl Screen<'_> {
    fn used(&self) -> usize {
        usize::from(self.next)
    }

    fn put(&mut self, line: &Line<'_>) {
        if self.next + 1 < self.area.height {
            self.put_at(self.next, line);
            self.next += 1;
        }
    }

    fn put_last(&mut self, line: &Line<'_>) {
        self.put_at(self.area.height - 1, line);
    }

    fn put_at(&mut self, row: u16, line: &Line<'_>) {
        let Rect { x, y, width, .. } = self.area;
        self.buffer.set_line(x, y + row, line, width);
        // What is said of a line as a whole holds to its end.
        self.buffer.set_style(Rect { x, y: y + row, width, height: 1 }, line.style);
    }
}

fn too_small(area: Rect, buffer: &mut Buffer) {
    let lines = [
        format!("too small: {}x{}", area.width, area.height),
        format!("needs {WIDTH_MIN}x{HEIGHT_MIN}"),
        "q quits".to_owned(),
    ];
    for (row, line) in (0..area.height).zip(&lines) {
        buffer.set_stringn(area.x, area.y + row, line, usize::from(area.width), Style::new());
    }
}

fn title(model: &Model) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let Some(process) = &model.process else {
        let why = model.outage.as_ref().map(|outage| format!(": {}", outage.why)).unwrap_or_default();
        return Line::styled(format!("waiting for an answer{why}"), bold);
    };
    let (name, command) = (&process.name, &process.command);
    match &model.outage {
        Some(outage) => {
            let text = format!("{name}: no answer for {}: {}", age(model.outage_seconds()), outage.why);
            Line::styled(text, bold.add_modifier(Modifier::REVERSED))
        }
        None => Line::styled(
            format!(
                "{name}: bondwire {command}, pid {}, running for {}",
                process.pid,
                age(process.uptime_seconds)
            ),
            bold,
        ),
    }
}

const KEYS: &str = "q quit  ? help  up/down select  p pause/resume  b backup/active";

fn footer(model: &Model) -> Line<'static> {
    let style = Style::new().add_modifier(Modifier::REVERSED);
    match model.note() {
        Some(note) => Line::styled(note.to_owned(), style.add_modifier(Modifier::BOLD)),
        None => Line::styled(KEYS, style),
    }
}

/// What the keys do, and what the words mean, most wanted first.
fn help() -> Vec<Line<'static>> {
    let lines = [
        "",
        "q, Esc, Ctrl-C    quit; the bond goes on",
        "up, down, k, j    select a link; Home, End: the first, the last",
        "p, space          pause the selected link, or let it go on",
        "b                 make it a backup for active links, or active again",
        "Ctrl-L            draw the screen anew",
        "?, h              this page, and back",
        "",
        "state   active carries data, suspect is silent and probed,",
        "        closed has left the bond, missing was not there yet",
        "for     time in that state",
        "out, in bytes a second and the curve of the last looks;",
        "        small curves are drawn against the bond's fastest link",
        "share   part of the bond's bytes, both ways together",
        "flight  bytes sent and not acknowledged",
        "crc     damaged frames; stalls: waits for the other end's buffer",
        "        (serial and USB links)",
    ];
    lines.into_iter().map(Line::raw).collect()
}

/// The last messages, at most `room` lines with their title.
fn events(model: &Model, look: Look, width: usize, room: usize) -> Vec<Line<'static>> {
    let shown = room.saturating_sub(1).min(model.events.len());
    let mut lines = vec![rule("events", look, width)];
    for event in model.events.iter().skip(model.events.len() - shown) {
        lines.push(Line::from(vec![
            Span::raw(words::time_of_day(&event.time)),
            Span::styled(format!(" {:<5} ", event.level.to_uppercase()), look.level(&event.level)),
            Span::raw(event.message.clone()),
        ]));
    }
    lines
}

/// A line across the screen with a title in it.
fn rule(title: &str, look: Look, width: usize) -> Line<'static> {
    let stroke = if look.unicode { "─" } else { "-" };
    let title = format!("{} {title} ", stroke.repeat(2));
    let rest = width.saturating_sub(Span::raw(title.as_str()).width());
    Line::styled(title + &stroke.repeat(rest), Style::new().add_modifier(Modifier::DIM))
}

/// Sums of a bond in one line.
fn bond_line(bond: &Bond, look: Look) -> Line<'static> {
    let (sending, receiving) = bond.rates();
    let streams = if bond.streams_open == 1 { "stream" } else { "streams" };
    let mut text = format!(
        " {}: out {}/s, in {}/s, {} {streams}, {} unacked",
        age(bond.uptime_seconds),
        rate(sending),
        rate(receiving),
        bond.streams_open,
        output::bytes(bond.waiting_bytes),
    );
    if bond.dropped_packets > 0 {
        text += &format!(", {} packets dropped", bond.dropped_packets);
    }
    // A key is known by its first letters.
    let peer = words::cut(&bond.peer, PEER_WIDTH, look.unicode);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    Line::from(vec![Span::styled(format!("bond {} {peer}", bond.number), bold), Span::raw(text)])
}
