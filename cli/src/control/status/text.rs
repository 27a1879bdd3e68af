//! A running command as people read it. Names and reasons may be a peer's words.

use std::fmt::Write;

use super::{BondStatus, LinkStatus, RecordingStatus, Status, TunStatus, is_plain};
use crate::failure::one_line;
use crate::output;

/// Several lines about a running command.
pub(crate) fn text(status: &Status) -> String {
    let mut text = format!(
        "{}: bondwire {} (pid {}), running for {}\n",
        status.name,
        status.command,
        status.pid,
        duration(status.uptime_seconds)
    );
    if let Some(recording) = &status.recording {
        recording_line(&mut text, recording);
    }
    if status.bonds.is_empty() {
        text.push_str("  no bond\n");
    }
    for bond in &status.bonds {
        bond_lines(&mut text, bond);
    }
    for tun in &status.tuns {
        tun_lines(&mut text, tun);
    }
    text
}

fn recording_line(text: &mut String, recording: &RecordingStatus) {
    let _ = write!(
        text,
        "  recording to {}: {}",
        one_line(&recording.file),
        count(recording.written_lines, "line")
    );
    if recording.skipped_lines > 0 {
        let _ = write!(text, ", {} left out", recording.skipped_lines);
    }
    if let Some(why) = &recording.ended {
        let _ = write!(text, "; ended: {}", one_line(why));
    }
    text.push('\n');
}

fn tun_lines(text: &mut String, tun: &TunStatus) {
    let leads = if tun.leads_to.is_empty() {
        "leads nowhere at the moment".to_owned()
    } else {
        format!("leads to {}, packets of at most {} bytes", tun.leads_to.join(", "), tun.mtu_bytes)
    };
    let _ = writeln!(text, "  tun {} ({}): {leads}", tun.name, tun.addresses.join(", "));
    let way = |packets, bytes| format!("{} ({})", count(packets, "packet"), output::bytes(bytes));
    let mut figures = vec![
        format!("sent {}", way(tun.sent_packets, tun.sent_bytes)),
        format!("received {}", way(tun.received_packets, tun.received_bytes)),
    ];
    let reasons = [
        (tun.dropped_no_bond, "without a bond"),
        (tun.dropped_queue_full, "for which the links had no time"),
        (tun.dropped_too_old, "that waited too long"),
        (tun.dropped_too_big, "too big"),
        (tun.dropped_malformed, "malformed"),
        (tun.dropped_forged, "with a forged sender"),
        (tun.dropped_by_host, "not taken by this host"),
    ];
    let dropped = reasons.into_iter().filter(|(number, _)| *number > 0);
    let dropped: Vec<_> = dropped.map(|(number, why)| format!("{number} {why}")).collect();
    if !dropped.is_empty() {
        figures.push(format!("dropped {}", dropped.join(", ")));
    }
    if tun.late_packets + tun.missed_packets > 0 {
        figures.push(format!("{} late, {} missed", tun.late_packets, tun.missed_packets));
    }
    let _ = writeln!(text, "    {}", figures.join("; "));
}

fn bond_lines(text: &mut String, bond: &BondStatus) {
    let peer = match (&bond.peer_name, &bond.peer) {
        (Some(name), _) => one_line(name),
        (None, Some(key)) => one_line(key),
        (None, None) => "not connected yet".to_owned(),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  bond {}: {peer}, for {}", bond.number, duration(bond.uptime_seconds));
    let _ = writeln!(
        text,
        "    sending {}, receiving {}; {} open, {} waiting to be acknowledged",
        output::mbytes_per_second(bond.send_mbytes_per_second),
        output::mbytes_per_second(bond.receive_mbytes_per_second),
        count(bond.streams_open, "stream"),
        output::bytes(bond.send_buffered_bytes),
    );
    if bond.dropped_packets > 0 {
        let _ = writeln!(text, "    {} did not open and were dropped", count(bond.dropped_packets, "packet"));
    }
    for link in &bond.links {
        link_lines(text, link);
    }
    for forward in &bond.forwards {
        let _ = writeln!(text, "    forward {}: {}", forward.number, one_line(&forward.forward));
    }
}

fn link_lines(text: &mut String, link: &LinkStatus) {
    let name = match link.id {
        Some(id) => format!("link {id} {}", one_line(&link.link)),
        None => format!("link - {}", one_line(&link.link)),
    };
    let name = if link.discovered_from.is_some() { name + " (discovered)" } else { name };
    let since = link.state_seconds.map(|seconds| format!(" for {}", duration(seconds))).unwrap_or_default();
    let _ = write!(text, "    {name}: {}{since}", link.state);
    if let Some(why) = &link.why {
        let _ = write!(text, "; {}", one_line(why));
    }
    text.push('\n');
    let mut figures = Vec::new();
    if link.id.is_some() {
        figures.push(format!("out {}", output::mbytes_per_second(link.send_mbytes_per_second)));
        figures.push(format!("in {}", output::mbytes_per_second(link.receive_mbytes_per_second)));
        figures.extend(link.rtt_ms.map(|rtt| format!("rtt {rtt} ms")));
        figures.push(format!("sent {}", output::bytes(link.sent_bytes)));
        figures.push(format!("received {}", output::bytes(link.received_bytes)));
    }
    if link.lost_packets > 0 {
        figures.push(count(link.lost_packets, "packet") + " lost");
    }
    if let Some(damaged) = link.damaged_frames.filter(|&damaged| damaged > 0) {
        figures.push(count(damaged, "damaged frame"));
    }
    if let Some(stalls) = link.credit_stalls.filter(|&stalls| stalls > 0) {
        figures.push(format!("waited {} for the other end's buffer", times(stalls)));
    }
    if link.suspects > 0 {
        figures.push(format!("suspect {}", times(link.suspects)));
    }
    if !is_plain(&link.policy) {
        figures.push(format!("policy {}", link.policy));
    }
    if link.tier > 0 {
        figures.push(format!("tier {}", link.tier));
    }
    figures.extend(link.weight.map(|weight| format!("weight {weight}")));
    let cap = |cap: u64| format!("cap {}", output::mbytes_per_second(cap as f64 / 1e6));
    figures.extend(link.cap_bytes_per_second.map(cap));
    if !figures.is_empty() {
        let _ = writeln!(text, "      {}", figures.join(", "));
    }
}

fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn times(number: u64) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
}

/// Seconds as people say them: the two largest units.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds < 10.0 => format!("{seconds:.1} s"),
        (0, 0, 0) => format!("{whole} s"),
        (0, 0, _) => format!("{minutes} min {} s", whole % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_carries_nothing_says_why() {
        let missing = LinkStatus {
            link: "tcp 10.0.0.2:7700".into(),
            state: "missing".into(),
            why: Some("connection refused".into()),
            policy: "active".into(),
            ..LinkStatus::default()
        };
        let backup = LinkStatus {
            id: Some(3),
            link: "tcp 10.0.1.2:7700".into(),
            state: "active".into(),
            state_seconds: Some(75.0),
            why: Some("policy backup here".into()),
            policy: "backup".into(),
            cap_bytes_per_second: Some(1_250_000),
            rtt_ms: Some(2.5),
            suspects: 1,
            damaged_frames: Some(3),
            credit_stalls: Some(0),
            ..LinkStatus::default()
        };
        let bond = BondStatus {
            number: 1,
            peer: Some("bwpub1abc".into()),
            peer_name: None,
            uptime_seconds: 7300.0,
            send_mbytes_per_second: 0.0,
            receive_mbytes_per_second: 0.0,
            links: vec![missing, backup],
            streams_open: 1,
            send_buffered_bytes: 0,
            acked_bytes: 0,
            dropped_packets: 2,
            forwards: Vec::new(),
        };
        let mut shown = String::new();
        bond_lines(&mut shown, &bond);
        assert_eq!(
            shown,
            "  bond 1: bwpub1abc, for 2 h 1 min\n    \
             sending 0.0000 MB/s, receiving 0.0000 MB/s; 1 stream open, 0 B waiting to be acknowledged\n    \
             2 packets did not open and were dropped\n    \
             link - tcp 10.0.0.2:7700: missing; connection refused\n    \
             link 3 tcp 10.0.1.2:7700: active for 1 min 15 s; policy backup here\n      \
             out 0.0000 MB/s, in 0.0000 MB/s, rtt 2.5 ms, sent 0 B, received 0 B, 3 damaged frames, suspect once, \
             policy backup, cap 1.25 MB/s\n"
        );
    }

    #[test]
    fn words_of_a_peer_do_not_steer_the_terminal() {
        let link = LinkStatus {
            link: "tcp \u{1b}[2J".into(),
            state: "missing".into(),
            why: Some("it says: gone\n\u{1b}]0;title\u{7}".into()),
            policy: "active".into(),
            ..LinkStatus::default()
        };
        let mut shown = String::new();
        link_lines(&mut shown, &link);
        assert_eq!(shown, "    link - tcp \u{fffd}[2J: missing; it says: gone \u{fffd}]0;title\u{fffd}\n");
    }

    #[test]
    fn durations_have_two_units() {
        let shown = [0.25, 12.0, 75.0, 3700.0, 90_000.0].map(duration);
        assert_eq!(shown, ["0.2 s", "12 s", "1 min 15 s", "1 h 1 min", "1 d 1 h"]);
    }
}
