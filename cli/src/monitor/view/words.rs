//! Figures and names in few characters.

use ratatui::text::Span;

use crate::output;

/// Seconds in at most four characters or so: `0.3s`, `12s`, `5m`, `3h`, `40d`.
pub(super) fn age(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..10 => format!("{:.1}s", seconds.max(0.0)),
        10..100 => format!("{whole}s"),
        100..6000 => format!("{}m", whole / 60),
        6000..172_800 => format!("{}h", whole / 3600),
        _ => format!("{}d", whole / 86_400),
    }
}

/// Bytes per second: `12.5 MB`.
pub(super) fn rate(bytes_per_second: f64) -> String {
    output::bytes(bytes_per_second as u64)
}

/// Milliseconds in at most six characters or so.
pub(super) fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2}"),
        ms if ms < 100.0 => format!("{ms:.1}"),
        ms => format!("{ms:.0}"),
    }
}

/// The time of day in an RFC 3339 time, as it is (UTC).
pub(super) fn time_of_day(time: &str) -> String {
    let day = time.split_once('T').and_then(|(_, day)| day.get(..8)).filter(|day| day.is_ascii());
    day.unwrap_or("        ").to_owned()
}

/// Columns that `text` takes.
fn columns(text: &str) -> usize {
    Span::raw(text).width()
}

/// `text` in `width` columns, with a mark where something is missing; filled up where it is shorter.
pub(super) fn fitted(text: &str, width: usize, unicode: bool) -> String {
    let text = cut(text, width, unicode);
    let missing = width.saturating_sub(columns(&text));
    text + &" ".repeat(missing)
}

/// `text` in at most `width` columns, with a mark where something is missing.
pub(super) fn cut(text: &str, width: usize, unicode: bool) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if columns(&text) <= width {
        return text;
    }
    let mark = if unicode { "…" } else { "~" };
    let mut kept = String::new();
    for c in text.chars() {
        let mut longer = kept.clone();
        longer.push(c);
        if columns(&longer) + 1 > width {
            break;
        }
        kept = longer;
    }
    if width == 0 { String::new() } else { kept + mark }
}

/// The last rates as a curve of `width` characters, the newest at the right; `highest` fills one.
pub(super) fn curve(rates: impl Iterator<Item = f64>, width: usize, highest: f64, unicode: bool) -> String {
    let steps: &[char] = if unicode {
        &[' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
    } else {
        &[' ', '.', ':', '-', '=', '+', '*', '#']
    };
    let top = steps.len() - 1;
    let drawn: String = rates
        .map(|rate| match rate {
            rate if rate <= 0.0 || highest <= 0.0 => steps[0],
            // Whatever is more than nothing is seen.
            rate => steps[((rate / highest * top as f64).round() as usize).clamp(1, top)],
        })
        .collect();
    let missing = width.saturating_sub(drawn.chars().count());
    " ".repeat(missing) + &drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let shown = [0.25, 12.4, 99.9, 100.0, 6000.0, 172_800.0].map(age);
        assert_eq!(shown, ["0.2s", "12s", "99s", "1m", "1h", "2d"]);
        assert_eq!([0.25, 99.94, 1234.5].map(milliseconds), ["0.25", "99.9", "1234"]);
        assert_eq!(time_of_day("2026-01-02T03:04:05.678901Z"), "03:04:05");
        assert_eq!(time_of_day("nonsense"), "        ");
        assert_eq!(time_of_day("TTTÄÄÄÄÄÄÄ"), "        ");
        // Whatever a peer says.
        for odd in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            assert!(!(age(odd) + &rate(odd) + &milliseconds(odd)).is_empty());
        }
    }

    #[test]
    fn names_are_cut_where_they_must_be() {
        assert_eq!(fitted("tcp 10.0.0.2", 14, true), "tcp 10.0.0.2  ");
        assert_eq!(cut("tcp 10.0.0.2:7700", 8, true), "tcp 10.…");
        assert_eq!(cut("tcp 10.0.0.2:7700", 8, false), "tcp 10.~");
        assert_eq!(cut("漢字漢字", 5, true), "漢字…");
        assert_eq!(cut("a\u{1b}[31mb", 9, true), "a?[31mb");
        assert_eq!(cut("abc", 0, true), "");
    }

    #[test]
    fn a_curve_shows_what_is_more_than_nothing() {
        let rates = [0.0, 0.1, 50.0, 100.0];
        assert_eq!(curve(rates.into_iter(), 6, 100.0, true), "   ▁▄█");
        assert_eq!(curve(rates.into_iter(), 6, 100.0, false), "   .=#");
        assert_eq!(curve([5.0, f64::NAN].into_iter(), 2, 0.0, true), "  ");
    }
}
