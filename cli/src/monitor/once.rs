//! The figures of one look, as a plain table.

use std::fmt::Write;

use crate::control::status::{BondStatus, LinkStatus, Status, duration};
use crate::failure::one_line;
use crate::output;

const HEADINGS: [&str; 14] = [
    "#",
    "link",
    "kind",
    "state",
    "for",
    "policy",
    "out/s",
    "in/s",
    "share",
    "rtt ms",
    "in flight",
    "lost",
    "crc errors",
    "stalls",
];
/// Columns of words; figures stand at the right.
const WORDS: usize = 6;

/// A table of all links of a running command, with the totals of each bond above.
pub(crate) fn text(status: &Status) -> String {
    let mut text = format!(
        "{}: bondwire {}, pid {}, running for {}\n",
        one_line(&status.name),
        one_line(&status.command),
        status.pid,
        duration(status.uptime_seconds)
    );
    if status.bonds.is_empty() {
        text.push_str("no bond at the moment\n");
    }
    for bond in &status.bonds {
        bond_text(&mut text, bond);
    }
    text
}

fn bond_text(text: &mut String, bond: &BondStatus) {
    let peer = bond.peer_name.as_ref().or(bond.peer.as_ref()).map_or("not connected yet", String::as_str);
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "bond {}: {}, for {}; out {}/s, in {}/s; {} {}, {} unacked",
        bond.number,
        one_line(peer),
        duration(bond.uptime_seconds),
        rate(bond.send_mbytes_per_second),
        rate(bond.receive_mbytes_per_second),
        bond.streams_open,
        if bond.streams_open == 1 { "stream" } else { "streams" },
        output::bytes(bond.send_buffered_bytes),
    );
    let all =
        bond.links.iter().map(|link| link.send_mbytes_per_second + link.receive_mbytes_per_second).sum();
    let rows: Vec<_> = bond.links.iter().map(|link| row(link, all)).collect();
    let mut widths = HEADINGS.map(|heading| heading.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    line(text, &HEADINGS.map(str::to_owned), &widths);
    for (row, link) in rows.iter().zip(&bond.links) {
        line(text, row, &widths);
        if let Some(why) = &link.why {
            let _ = writeln!(text, "    {}", one_line(why));
        }
    }
    for forward in &bond.forwards {
        let _ = writeln!(text, "    forward {}: {}", forward.number, one_line(&forward.forward));
    }
}

fn row(link: &LinkStatus, all: f64) -> [String; HEADINGS.len()] {
    let none = || "-".to_owned();
    let here = link.id.is_some();
    let share = (link.send_mbytes_per_second + link.receive_mbytes_per_second) / all;
    [
        link.id.map_or_else(none, |id| id.to_string()),
        one_line(&link.link),
        one_line(&link.kind),
        one_line(&link.state),
        link.state_seconds.map_or_else(none, duration),
        one_line(&link.policy),
        rate(link.send_mbytes_per_second),
        rate(link.receive_mbytes_per_second),
        if all > 0.0 { format!("{:.0} %", share * 100.0) } else { none() },
        link.rtt_ms.map_or_else(none, |rtt| rtt.to_string()),
        if here { output::bytes(link.in_flight_bytes) } else { none() },
        if here { link.lost_packets.to_string() } else { none() },
        link.damaged_frames.map_or_else(none, |count| count.to_string()),
        link.credit_stalls.map_or_else(none, |count| count.to_string()),
    ]
}

fn line(text: &mut String, cells: &[String; HEADINGS.len()], widths: &[usize; HEADINGS.len()]) {
    let padded = cells.iter().zip(widths).enumerate().map(|(place, (cell, &width))| {
        if place < WORDS { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    });
    text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
    text.push('\n');
}

fn rate(mbytes_per_second: f64) -> String {
    output::bytes((mbytes_per_second * 1e6) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_link_and_its_reason() {
        let first = LinkStatus {
            id: Some(0),
            link: "serial /dev/ttyUSB0".into(),
            kind: "serial".into(),
            state: "active".into(),
            state_seconds: Some(75.0),
            policy: "active".into(),
            rtt_ms: Some(2.5),
            send_mbytes_per_second: 0.75,
            receive_mbytes_per_second: 0.25,
            lost_packets: 2,
            damaged_frames: Some(3),
            credit_stalls: Some(0),
            ..LinkStatus::default()
        };
        let second = LinkStatus {
            link: "tcp 10.0.0.2:7700".into(),
            kind: "tcp".into(),
            state: "missing".into(),
            policy: "active".into(),
            why: Some("refused\u{1b}[31m".into()),
            ..LinkStatus::default()
        };
        let bond =
            BondStatus { number: 1, peer: Some("bwpub1abc".into()), links: vec![first, second], ..bond() };
        let status = Status {
            tuns: Vec::new(),
            name: "connect".into(),
            command: "connect".into(),
            pid: 7,
            version: String::new(),
            uptime_seconds: 7300.0,
            recording: None,
            bonds: vec![bond],
        };
        assert_eq!(
            text(&status),
            "connect: bondwire connect, pid 7, running for 2 h 1 min\n\
             bond 1: bwpub1abc, for 2 h 1 min; out 750 kB/s, in 250 kB/s; 3 streams, 0 B unacked\n\
             #  link                 kind    state    for         policy   out/s    in/s  share  rtt ms  in flight  lost  crc errors  stalls\n\
             0  serial /dev/ttyUSB0  serial  active   1 min 15 s  active  750 kB  250 kB  100 %     2.5        0 B     2           3       0\n\
             -  tcp 10.0.0.2:7700    tcp     missing  -           active     0 B     0 B    0 %       -          -     -           -       -\n    \
             refused\u{fffd}[31m\n"
        );
    }

    fn bond() -> BondStatus {
        BondStatus {
            number: 1,
            peer: None,
            peer_name: None,
            uptime_seconds: 7300.0,
            send_mbytes_per_second: 0.75,
            receive_mbytes_per_second: 0.25,
            links: Vec::new(),
            streams_open: 3,
            send_buffered_bytes: 0,
            acked_bytes: 0,
            dropped_packets: 0,
            forwards: Vec::new(),
        }
    }
}
