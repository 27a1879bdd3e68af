//! All that is known about the selected link.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::words::{age, curve, milliseconds, rate};
use super::{Look, rule};
use crate::monitor::model::{Flow, Link, Model};
use crate::output;

/// Width of what stands before a curve.
const BEFORE_CURVE_WIDTH: usize = 33;

/// The lines below the table.
pub(super) fn lines(model: &Model, link: &Link, look: Look, width: usize) -> Vec<Line<'static>> {
    let number = link.now.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let mut lines =
        vec![rule(&format!("link {number} {}", link.now.link), look, width), state_line(link, look)];
    lines.push(Line::raw(policy_text(link)));
    lines.push(Line::raw(figures_text(model, link)));
    lines.push(Line::raw(totals_text(link)));
    for (what, flow, style) in
        [("out", &link.sending, look.sending()), ("in", &link.receiving, look.receiving())]
    {
        lines.push(flow_line(what, flow, style, look, width));
    }
    lines
}

fn state_line(link: &Link, look: Look) -> Line<'static> {
    let now = &link.now;
    let since = link.state_seconds.map(|seconds| format!(" for {}", age(seconds))).unwrap_or_default();
    let why = now.why.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
    Line::from(vec![
        Span::raw(format!("{} link, ", now.kind)),
        Span::styled(now.state.clone(), look.state(&now.state)),
        Span::raw(since + &why),
    ])
}

fn policy_text(link: &Link) -> String {
    let now = &link.now;
    let mut text = format!("policy {}", now.policy);
    if now.tier > 0 {
        text += &format!(", tier {}", now.tier);
    }
    if let Some(weight) = now.weight {
        text += &format!(", weight {weight}");
    }
    if let Some(cap) = now.cap_bytes_per_second {
        text += &format!(", cap {}/s", output::bytes(cap));
    }
    if let Some(dialled) = &now.dialled {
        text += &format!("; dialled as {dialled}");
    }
    if now.discovered_from.is_some() {
        text += " (discovered)";
    }
    text
}

fn figures_text(model: &Model, link: &Link) -> String {
    let now = &link.now;
    if now.id.is_none() {
        return "not in the bond".to_owned();
    }
    let mut parts = Vec::new();
    parts.extend(now.rtt_ms.map(|rtt| format!("rtt {} ms", milliseconds(rtt))));
    parts.push(format!(
        "in flight {} of {}",
        output::bytes(now.in_flight_bytes),
        output::bytes(now.window_bytes)
    ));
    let bond = model.bonds.iter().find(|bond| bond.links.iter().any(|one| one.serial == link.serial));
    let share = bond.and_then(|bond| bond.share(link));
    parts.extend(share.map(|share| format!("share {:.0} %", share * 100.0)));
    let estimated = now.estimated_mbytes_per_second;
    parts.extend(estimated.map(|estimated| format!("can carry {}/s", rate(estimated * 1e6))));
    parts.join(", ")
}

fn totals_text(link: &Link) -> String {
    let now = &link.now;
    let mut text = format!(
        "sent {}, received {}; lost {}, suspect {}x, resent {}",
        output::bytes(now.sent_bytes),
        output::bytes(now.received_bytes),
        now.lost_packets,
        now.suspects,
        output::bytes(now.moved_bytes.saturating_add(now.reinjected_bytes)),
    );
    if let Some(damaged) = now.damaged_frames {
        text += &format!("; CRC errors {damaged}");
    }
    if let Some(stalls) = now.credit_stalls {
        text += &format!(", credit stalls {stalls}");
    }
    text
}

/// A curve against its own highest point: it shows what one direction did, not how it compares.
fn flow_line(what: &str, flow: &Flow, style: Style, look: Look, width: usize) -> Line<'static> {
    let curve_width = width.saturating_sub(BEFORE_CURVE_WIDTH);
    let highest = flow.last(curve_width).fold(0.0, f64::max);
    let before = format!("{what:<3} {:>7}/s, highest {:>7}/s ", rate(flow.rate), rate(highest));
    let drawn = curve(flow.last(curve_width), curve_width, highest, look.unicode);
    Line::from(vec![Span::raw(before), Span::styled(drawn, style)])
}
