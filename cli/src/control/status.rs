//! What a running command has to tell about its bonds. The names are those of `status --json`.

mod text;

pub(crate) use text::{duration, text};

use std::time::Duration;

use bondwire::{Bond, LinkSnapshot, LinkState, Policy};
use serde::{Deserialize, Serialize};

use crate::link_table::DialledLink;
use crate::output::rounded;

/// A running command.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) name: String,
    pub(crate) command: String,
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) uptime_seconds: f64,
    /// With `--record`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) recording: Option<RecordingStatus>,
    pub(crate) bonds: Vec<BondStatus>,
    /// With `--tun`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tuns: Vec<TunStatus>,
}

/// An interface whose packets go over a bond. The counters of packets dropped on their way into the bond, held and late are those
/// of the bond of the moment.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct TunStatus {
    pub(crate) name: String,
    pub(crate) addresses: Vec<String>,
    /// Largest packet that both ends like.
    pub(crate) mtu_bytes: u16,
    /// The other end's addresses; none while no bond carries packets.
    pub(crate) leads_to: Vec<String>,
    pub(crate) sent_packets: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_packets: u64,
    pub(crate) received_bytes: u64,
    /// There was no bond to carry them.
    pub(crate) dropped_no_bond: u64,
    /// Their senders were told what is possible.
    pub(crate) dropped_too_big: u64,
    /// No packets of IP.
    pub(crate) dropped_malformed: u64,
    /// From the peer, with an address of this host for their sender.
    pub(crate) dropped_forged: u64,
    /// From the peer, and this host did not take them.
    pub(crate) dropped_by_host: u64,
    /// Too many waited for the links.
    pub(crate) dropped_queue_full: u64,
    /// They waited too long for a link.
    pub(crate) dropped_too_old: u64,
    /// They came early, and were held for those before them.
    pub(crate) held_packets: u64,
    /// They came after those behind them.
    pub(crate) late_packets: u64,
    /// They did not come in time, or not at all.
    pub(crate) missed_packets: u64,
}

/// How a recording does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RecordingStatus {
    pub(crate) file: String,
    pub(crate) written_lines: u64,
    /// Lines left out because the file was too slow for them.
    pub(crate) skipped_lines: u64,
    /// Why nothing more is written.
    pub(crate) ended: Option<String>,
}

/// One bond.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BondStatus {
    pub(crate) number: u64,
    /// Public key of the other end, once it is known.
    pub(crate) peer: Option<String>,
    pub(crate) peer_name: Option<String>,
    pub(crate) uptime_seconds: f64,
    pub(crate) send_mbytes_per_second: f64,
    pub(crate) receive_mbytes_per_second: f64,
    pub(crate) links: Vec<LinkStatus>,
    pub(crate) streams_open: u64,
    pub(crate) send_buffered_bytes: u64,
    /// Stream bytes that the peer has acknowledged.
    pub(crate) acked_bytes: u64,
    /// Packets that did not open: noise, forgeries, replays.
    pub(crate) dropped_packets: u64,
    pub(crate) forwards: Vec<ForwardStatus>,
}

/// One link, or one that is to be and is not.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct LinkStatus {
    /// Its number in the bond; none while it is not in the bond.
    pub(crate) id: Option<u32>,
    /// Its name, such as `tcp 192.0.2.7:7700`.
    pub(crate) link: String,
    /// The LINK that this end dials for it.
    pub(crate) dialled: Option<String>,
    /// The LINK from which it was found, if it was not named itself.
    #[serde(default)]
    pub(crate) discovered_from: Option<String>,
    pub(crate) kind: String,
    /// `joining`, `active`, `suspect`, `closed`, or `missing`.
    pub(crate) state: String,
    pub(crate) state_seconds: Option<f64>,
    /// Why it carries nothing, if it does not.
    pub(crate) why: Option<String>,
    /// `active`, `backup` or `paused`, as both ends want it.
    pub(crate) policy: String,
    pub(crate) tier: u8,
    pub(crate) weight: Option<u8>,
    pub(crate) cap_bytes_per_second: Option<u64>,
    pub(crate) rtt_ms: Option<f64>,
    /// What the link can carry, as far as it was seen.
    pub(crate) estimated_mbytes_per_second: Option<f64>,
    pub(crate) send_mbytes_per_second: f64,
    pub(crate) receive_mbytes_per_second: f64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) in_flight_bytes: u64,
    pub(crate) window_bytes: u64,
    pub(crate) lost_packets: u64,
    pub(crate) moved_bytes: u64,
    pub(crate) reinjected_bytes: u64,
    pub(crate) suspects: u64,
    /// Of a medium with frames of its own: frames that arrived damaged.
    #[serde(default)]
    pub(crate) damaged_frames: Option<u64>,
    /// Of such a medium: times that the other end had no room for a packet.
    #[serde(default)]
    pub(crate) credit_stalls: Option<u64>,
}

/// One forward that this end opened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ForwardStatus {
    pub(crate) number: u64,
    /// As its option was given, `-L 8080:localhost:80`.
    pub(crate) forward: String,
}

/// The links of a bond: those in it, and those that are dialled and not in it.
pub(crate) fn links(
    bond: &Bond,
    before: &[LinkSnapshot],
    elapsed: Duration,
    dialled: &[DialledLink],
) -> Vec<LinkStatus> {
    let now = bond.now();
    let dialled_as = |id| dialled.iter().find(|link| link.dialer.state().link == Some(id));
    let mut rows: Vec<_> = bond
        .links()
        .iter()
        .map(|link| {
            let mut row = row(link, now);
            let then = before.iter().find(|then| then.id == link.id);
            let since = |counter: fn(&LinkSnapshot) -> u64| counter(link) - then.map_or(0, counter);
            row.send_mbytes_per_second = rate(since(|link| link.stats.sent_bytes), elapsed);
            row.receive_mbytes_per_second = rate(since(|link| link.stats.received_bytes), elapsed);
            if let Some(medium) = bond.link(link.id).medium_counters() {
                row.damaged_frames = Some(medium.damaged_frames);
                row.credit_stalls = Some(medium.credit_stalls);
            }
            if let Some(dialled) = dialled_as(link.id) {
                row.dialled = Some(dialled.spec.clone());
                row.discovered_from = dialled.found.as_ref().map(|found| found.from.clone());
                // What the program does to a link says more than what follows from it.
                row.why = dialled.note.clone().or(row.why);
            }
            row
        })
        .collect();
    rows.extend(dialled.iter().filter(|link| link.dialer.state().link.is_none()).map(missing));
    rows
}

fn row(link: &LinkSnapshot, now: bondwire::Instant) -> LinkStatus {
    let policy = effective(link);
    let why = match link.state {
        LinkState::Closed => None,
        _ => link.idle.map(|reason| reason.to_string()),
    };
    LinkStatus {
        id: Some(link.id.0),
        link: link.name.clone(),
        kind: link.kind.to_owned(),
        state: link.state.to_string(),
        state_seconds: Some(rounded((now - link.since).as_secs_f64())),
        why,
        policy: policy.usage.to_string(),
        tier: policy.tier,
        weight: policy.weight.map(Into::into),
        cap_bytes_per_second: policy.cap_bytes_per_second,
        rtt_ms: link.rtt.map(|rtt| rounded(rtt.as_secs_f64() * 1e3)),
        estimated_mbytes_per_second: link.rate.map(|rate| rounded(rate as f64 / 1e6)),
        sent_bytes: link.stats.sent_bytes,
        received_bytes: link.stats.received_bytes,
        in_flight_bytes: link.in_flight_bytes,
        window_bytes: link.window_bytes,
        lost_packets: link.stats.lost_packets,
        moved_bytes: link.stats.moved_bytes,
        reinjected_bytes: link.stats.reinjected_bytes,
        suspects: link.stats.suspects,
        ..LinkStatus::default()
    }
}

/// What holds of both ends' wishes.
fn effective(link: &LinkSnapshot) -> bondwire::LinkPolicy {
    link.policy.with_peer(link.peer_policy)
}

fn missing(DialledLink { spec, dialer, found, .. }: &DialledLink) -> LinkStatus {
    let why = match dialer.state().fault {
        Some(fault) => fault.to_string(),
        None => "being dialled".to_owned(),
    };
    let policy = dialer.policy();
    LinkStatus {
        link: dialer.name().to_owned(),
        dialled: Some(spec.clone()),
        discovered_from: found.as_ref().map(|found| found.from.clone()),
        kind: spec.split(':').next().unwrap_or_default().to_owned(),
        state: "missing".to_owned(),
        why: Some(why),
        policy: policy.usage.to_string(),
        tier: policy.tier,
        weight: policy.weight.map(Into::into),
        cap_bytes_per_second: policy.cap_bytes_per_second,
        ..LinkStatus::default()
    }
}

/// A LINK from which no link was found.
pub(crate) fn not_found(link: &str, why: String) -> LinkStatus {
    let (kind, address) = link.split_once(':').unwrap_or((link, ""));
    LinkStatus {
        link: format!("{kind} {address}"),
        dialled: Some(link.to_owned()),
        kind: kind.to_owned(),
        state: "missing".to_owned(),
        why: Some(why),
        policy: Policy::Active.to_string(),
        ..LinkStatus::default()
    }
}

pub(crate) fn rate(bytes: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { rounded(bytes as f64 / elapsed.as_secs_f64() / 1e6) }
}

/// Whether a link with that policy is out of the ordinary, so that it is worth a word.
fn is_plain(policy: &str) -> bool {
    policy == Policy::Active.to_string()
}
