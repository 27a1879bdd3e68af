//! The table of all links, bond by bond.

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::words::{age, curve, cut, fitted, milliseconds, rate};
use super::{Look, bond_line};
use crate::monitor::model::{Bond, Link, Model};
use crate::output;

/// One line of the table.
pub(super) struct TableLine {
    pub(super) line: Line<'static>,
    /// It belongs to the selected link.
    is_selected: bool,
}

/// Width of mark, number, state, its time and the two rates, with the spaces behind them.
const ALWAYS_WIDTH: usize = 4 + 8 + 5 + 8 + 8;
/// Width of round trip and share.
const MORE_WIDTH: usize = 7 + 5;
/// Width of bytes in flight, lost packets, damaged frames and stalls.
const ALL_WIDTH: usize = 8 + 7 + 6 + 7;
/// A name that fits most addresses.
const NAME_WIDTH: usize = 21;
/// Share of its bond from which a link counts as one that carries something: below that there are keep-alives and probes only.
const SHARE_MIN: f64 = 0.01;
/// The shortest curve that says something.
const CURVE_WIDTH_MIN: usize = 5;
const CURVE_WIDTH_MAX: usize = 24;

/// What has room at some width.
#[derive(Debug, PartialEq, Eq)]
struct Columns {
    name: usize,
    /// Of each of the two curves; 0 for none.
    curve: usize,
    more: bool,
    all: bool,
}

impl Columns {
    fn new(width: usize) -> Self {
        let more = width >= ALWAYS_WIDTH + MORE_WIDTH + 10;
        let rest = width.saturating_sub(ALWAYS_WIDTH + if more { MORE_WIDTH } else { 0 });
        let both_curves = |curve: usize| 2 * (curve + 1);
        let all = rest >= ALL_WIDTH + NAME_WIDTH + both_curves(CURVE_WIDTH_MIN);
        let rest = if all { rest - ALL_WIDTH } else { rest };
        let curve = (rest.saturating_sub(NAME_WIDTH) / 2).saturating_sub(1).min(CURVE_WIDTH_MAX);
        let curve = if curve < CURVE_WIDTH_MIN { 0 } else { curve };
        let name = if curve > 0 { rest - both_curves(curve) } else { rest };
        Self { name: name.saturating_sub(1), curve, more, all }
    }
}

/// All lines of the table.
pub(super) fn lines(model: &Model, look: Look, width: usize) -> Vec<TableLine> {
    let columns = Columns::new(width);
    let plain = |line| TableLine { line, is_selected: false };
    let mut lines = Vec::new();
    let has_bonds = !model.bonds.is_empty();
    if has_bonds {
        lines.push(plain(header(&columns)));
    } else if model.process.is_some() {
        lines.push(plain(Line::raw("no bond at the moment")));
    }
    let selected = model.selected_link().map(|link| link.serial);
    for bond in &model.bonds {
        lines.push(plain(bond_line(bond, look)));
        for link in &bond.links {
            let is_selected = Some(link.serial) == selected;
            lines.push(TableLine { line: link_line(bond, link, is_selected, &columns, look), is_selected });
            if let Some(why) = link.now.why.as_ref().filter(|_| !carries(bond, link)) {
                let why = cut(why, width.saturating_sub(4), look.unicode);
                lines.push(TableLine { line: Line::raw(format!("    {why}")), is_selected });
            }
        }
        for forward in &bond.forwards {
            lines.push(plain(Line::raw(format!("    forward {}: {}", forward.number, forward.forward))));
        }
    }
    lines
}

/// Those of `lines` that are shown in so much room: the first ones, or others so that the selected link is among them. The header
/// stays.
pub(super) fn window(lines: &[TableLine], room: usize) -> Vec<&TableLine> {
    let Some((header, rest)) = lines.split_first() else { return Vec::new() };
    let room = room.saturating_sub(1);
    let last = rest.iter().rposition(|line| line.is_selected).unwrap_or(0);
    let first = (last + 1).saturating_sub(room);
    std::iter::once(header).chain(rest.iter().skip(first).take(room)).collect()
}

/// Whether a link is at work, so that nothing needs to be said about it. One that only receives has nothing to send; that is no
/// reason to tell.
fn carries(bond: &Bond, link: &Link) -> bool {
    let plain = link.now.state == "active" && link.now.policy == "active";
    plain && bond.share(link).is_some_and(|share| share >= SHARE_MIN)
}

fn header(columns: &Columns) -> Line<'static> {
    let curve = " ".repeat(if columns.curve > 0 { columns.curve + 1 } else { 0 });
    let mut text =
        format!("  # {} state    for   out/s {curve}   in/s {curve}", fitted("link", columns.name, true));
    if columns.more {
        text += "rtt ms share";
    }
    if columns.all {
        text += "  flight   lost   crc stalls";
    }
    Line::styled(text, Style::new().add_modifier(Modifier::UNDERLINED))
}

fn link_line(bond: &Bond, link: &Link, is_selected: bool, columns: &Columns, look: Look) -> Line<'static> {
    let now = &link.now;
    let mark = if is_selected { '>' } else { ' ' };
    let number = now.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let name = fitted(&now.link, columns.name, look.unicode);
    let since = link.state_seconds.map(age).unwrap_or_default();
    let mut spans = vec![
        Span::raw(format!("{mark}{number:>2} {name} ")),
        Span::styled(format!("{:<7} ", cut(&now.state, 7, look.unicode)), look.state(&now.state)),
        Span::raw(format!("{since:>4} ")),
    ];
    let highest = bond.highest_rate();
    let flows = [(&link.sending, look.sending()), (&link.receiving, look.receiving())];
    for (flow, style) in flows {
        spans.push(Span::raw(format!("{:>7} ", rate(flow.rate))));
        if columns.curve > 0 {
            let drawn = curve(flow.last(columns.curve), columns.curve, highest, look.unicode);
            spans.push(Span::styled(drawn + " ", style));
        }
    }
    if columns.more {
        let rtt = now.rtt_ms.map(milliseconds).unwrap_or_default();
        let share = bond.share(link).map(|share| format!("{:.0} %", share * 100.0)).unwrap_or_default();
        spans.push(Span::raw(format!("{rtt:>6} {share:>5}")));
    }
    if columns.all {
        let flight = now.id.map(|_| output::bytes(now.in_flight_bytes)).unwrap_or_default();
        let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        spans.push(Span::raw(format!(
            " {flight:>7} {:>6} {:>5} {:>6}",
            now.lost_packets,
            count(now.damaged_frames),
            count(now.credit_stalls)
        )));
    }
    let line = Line::from(spans);
    if is_selected { line.style(Style::new().add_modifier(Modifier::REVERSED)) } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wider_terminals_show_more() {
        let at = Columns::new;
        assert_eq!(at(48), Columns { name: 14, curve: 0, more: false, all: false });
        assert_eq!(at(60), Columns { name: 14, curve: 0, more: true, all: false });
        assert_eq!(at(80), Columns { name: 20, curve: 6, more: true, all: false });
        assert_eq!(at(120), Columns { name: 20, curve: 12, more: true, all: true });
        for width in 0..500 {
            let Columns { name, curve, more, all } = at(width);
            let used = ALWAYS_WIDTH
                + name
                + 1
                + if curve > 0 { 2 * (curve + 1) } else { 0 }
                + if more { MORE_WIDTH } else { 0 }
                + if all { ALL_WIDTH } else { 0 };
            assert!(used <= width.max(ALWAYS_WIDTH + 1), "{width}: {used}");
        }
    }

    #[test]
    fn the_selected_link_is_in_the_window() {
        let line =
            |number: usize| TableLine { line: Line::raw(number.to_string()), is_selected: number == 7 };
        let lines: Vec<_> = (0..10).map(line).collect();
        let shown =
            |room| -> Vec<String> { window(&lines, room).iter().map(|line| line.line.to_string()).collect() };
        assert_eq!(shown(4), ["0", "5", "6", "7"]);
        assert_eq!(shown(20).len(), 10);
        assert_eq!(shown(1), ["0"]);
        assert_eq!(window(&[], 3).len(), 0);
    }
}
