//! A status as metrics. The names are those of `docs/METRICS.md`; counters end in `_total` where they are read.

use std::collections::HashMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::control::status::{BondStatus, LinkStatus, RecordingStatus, Status};

/// A metric of something that the status has.
struct Metric<T> {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    value: fn(&T) -> Option<f64>,
}

const fn counter<T>(name: &'static str, help: &'static str, value: fn(&T) -> Option<f64>) -> Metric<T> {
    Metric { name, help, kind: MetricType::Counter, value }
}

const fn gauge<T>(name: &'static str, help: &'static str, value: fn(&T) -> Option<f64>) -> Metric<T> {
    Metric { name, help, kind: MetricType::Gauge, value }
}

const PROCESS: [Metric<Status>; 2] = [
    gauge("bondwire_uptime_seconds", "Time for which the command has run", |status| {
        Some(status.uptime_seconds)
    }),
    gauge("bondwire_bonds", "Bonds at the moment", |status| Some(status.bonds.len() as f64)),
];

const RECORDING: [Metric<RecordingStatus>; 3] = [
    counter("bondwire_recording_lines", "Lines written to the recording", |recording| {
        Some(recording.written_lines as f64)
    }),
    counter(
        "bondwire_recording_skipped_lines",
        "Lines left out of the recording because its file was too slow",
        |recording| Some(recording.skipped_lines as f64),
    ),
    gauge("bondwire_recording_active", "Whether the recording goes on", |recording| {
        Some(f64::from(u8::from(recording.ended.is_none())))
    }),
];

const BOND: [Metric<BondStatus>; 5] = [
    gauge("bondwire_bond_links_active", "Active links of the bond", |bond| {
        Some(bond.links.iter().filter(|link| link.state == "active").count() as f64)
    }),
    gauge("bondwire_bond_streams", "Open streams of the bond", |bond| Some(bond.streams_open as f64)),
    gauge("bondwire_bond_send_buffered_bytes", "Stream bytes that wait to be acknowledged", |bond| {
        Some(bond.send_buffered_bytes as f64)
    }),
    counter("bondwire_bond_acked_bytes", "Stream bytes that the peer has acknowledged", |bond| {
        Some(bond.acked_bytes as f64)
    }),
    counter(
        "bondwire_bond_dropped_packets",
        "Packets that did not open: noise, forgeries, replays",
        |bond| Some(bond.dropped_packets as f64),
    ),
];

const LINK: [Metric<LinkStatus>; 13] = [
    counter("bondwire_link_sent_bytes", "Bytes sent since the link joined", |link| {
        Some(link.sent_bytes as f64)
    }),
    counter("bondwire_link_received_bytes", "Bytes received since the link joined", |link| {
        Some(link.received_bytes as f64)
    }),
    counter("bondwire_link_lost_packets", "Packets that the link lost", |link| {
        Some(link.lost_packets as f64)
    }),
    counter("bondwire_link_moved_bytes", "Bytes that went to other links when this one was late", |link| {
        Some(link.moved_bytes as f64)
    }),
    counter("bondwire_link_reinjected_bytes", "Bytes sent again beside what was in flight", |link| {
        Some(link.reinjected_bytes as f64)
    }),
    counter("bondwire_link_suspects", "Times that the link became suspect", |link| {
        Some(link.suspects as f64)
    }),
    counter("bondwire_link_damaged_frames", "Frames that arrived damaged, of serial and USB links", |link| {
        link.damaged_frames.map(|count| count as f64)
    }),
    counter(
        "bondwire_link_credit_stalls",
        "Times that the other end had no room, of serial and USB links",
        |link| link.credit_stalls.map(|count| count as f64),
    ),
    gauge("bondwire_link_round_trip_seconds", "Round trip time", |link| link.rtt_ms.map(|rtt| rtt / 1e3)),
    gauge("bondwire_link_in_flight_bytes", "Bytes sent and not yet acknowledged", |link| {
        link.id.map(|_| link.in_flight_bytes as f64)
    }),
    gauge("bondwire_link_window_bytes", "Bytes that may be in flight", |link| {
        link.id.map(|_| link.window_bytes as f64)
    }),
    gauge(
        "bondwire_link_estimated_bytes_per_second",
        "What the link can carry, as far as it was seen",
        |link| link.estimated_mbytes_per_second.map(|rate| rate * 1e6),
    ),
    gauge("bondwire_link_in_state_seconds", "Time for which the link has been in its state", |link| {
        link.state_seconds
    }),
];

/// The state of a link, one series for each there is.
const STATE: &str = "bondwire_link_state";
const STATE_HELP: &str = "1 for the state that the link is in, 0 for the others";
const STATES: [&str; 5] = ["active", "suspect", "joining", "closed", "missing"];
const BUILD: &str = "bondwire_build_info";

/// What Prometheus gets.
pub(super) fn text(status: Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(status)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Families(Status);

type Labels = Vec<(&'static str, String)>;

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = &self.0;
        let process: Vec<(Labels, &Status)> = vec![(Vec::new(), status)];
        let version = vec![("version", status.version.clone()), ("command", status.command.clone())];
        let build = [(version, 1.0)];
        family(&mut encoder, (BUILD, "Version and command of the program", MetricType::Gauge), build)?;
        families(&mut encoder, &PROCESS, &process)?;
        let recording: Vec<_> = status.recording.iter().map(|recording| (Labels::new(), recording)).collect();
        families(&mut encoder, &RECORDING, &recording)?;
        let bonds: Vec<_> = status.bonds.iter().map(|bond| (bond_labels(bond), bond)).collect();
        families(&mut encoder, &BOND, &bonds)?;
        let links: Vec<_> = status.bonds.iter().flat_map(links).collect();
        families(&mut encoder, &LINK, &links)?;
        let states = links.iter().flat_map(|(labels, link)| {
            STATES.map(|state| {
                let mut labels = labels.clone();
                labels.push(("state", state.to_owned()));
                (labels, f64::from(u8::from(link.state == state)))
            })
        });
        family(&mut encoder, (STATE, STATE_HELP, MetricType::Gauge), states)
    }
}

/// The same metrics of several things.
fn families<T>(
    encoder: &mut DescriptorEncoder<'_>,
    metrics: &[Metric<T>],
    things: &[(Labels, &T)],
) -> fmt::Result {
    for Metric { name, help, kind, value } in metrics {
        let values = things.iter().filter_map(|(labels, thing)| Some((labels.clone(), value(thing)?)));
        family(encoder, (name, help, *kind), values)?;
    }
    Ok(())
}

/// One metric, with a value for each set of labels. Without any it is not mentioned.
fn family(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, kind): (&str, &str, MetricType),
    values: impl IntoIterator<Item = (Labels, f64)>,
) -> fmt::Result {
    let mut values = values.into_iter().peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in values {
        let mut metric = family.encode_family(&labels)?;
        match kind {
            MetricType::Counter => metric.encode_counter::<NoLabelSet, _, f64>(&value, None)?,
            _ => metric.encode_gauge(&value)?,
        }
    }
    Ok(())
}

fn bond_labels(bond: &BondStatus) -> Labels {
    let peer = bond.peer_name.as_ref().or(bond.peer.as_ref()).cloned().unwrap_or_default();
    vec![("bond", bond.number.to_string()), ("peer", peer)]
}

/// The links of a bond, each with labels of its own. A link keeps them when it is dialled anew, so that its curves go on; where
/// several have one name, the further ones are numbered.
fn links(bond: &BondStatus) -> Vec<(Labels, &LinkStatus)> {
    let is_open = |link: &&LinkStatus| link.id.is_some() && link.state != "closed";
    let (open, others): (Vec<_>, Vec<_>) = bond.links.iter().partition(is_open);
    let mut known: HashMap<&str, u32> = HashMap::new();
    let mut rows = Vec::new();
    for link in &open {
        let number = known.entry(&link.link).and_modify(|number| *number += 1).or_insert(1);
        let name = if *number == 1 { link.link.clone() } else { format!("{} #{number}", link.link) };
        rows.push((link_labels(bond, name, link), *link));
    }
    for link in others {
        if let std::collections::hash_map::Entry::Vacant(place) = known.entry(&link.link) {
            place.insert(1);
            rows.push((link_labels(bond, link.link.clone(), link), link));
        }
    }
    rows
}

fn link_labels(bond: &BondStatus, name: String, link: &LinkStatus) -> Labels {
    let mut labels = bond_labels(bond);
    labels.extend([("link", name), ("kind", link.kind.clone())]);
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(id: Option<u32>, name: &str, state: &str) -> LinkStatus {
        LinkStatus {
            id,
            link: name.into(),
            kind: "tcp".into(),
            state: state.into(),
            sent_bytes: 7,
            rtt_ms: id.map(|_| 2.5),
            ..LinkStatus::default()
        }
    }

    fn status() -> Status {
        let links = vec![
            link(Some(0), "tcp \"a\"\nb\\", "active"),
            link(Some(1), "tcp x", "closed"),
            link(Some(2), "tcp x", "active"),
            link(Some(3), "tcp x", "suspect"),
            link(None, "tcp y", "missing"),
        ];
        let bond = BondStatus {
            number: 1,
            peer: Some("bwpub1abc".into()),
            peer_name: Some("server".into()),
            uptime_seconds: 1.0,
            send_mbytes_per_second: 0.0,
            receive_mbytes_per_second: 0.0,
            links,
            streams_open: 3,
            send_buffered_bytes: 9,
            acked_bytes: 11,
            dropped_packets: 0,
            forwards: Vec::new(),
        };
        Status {
            name: "connect".into(),
            command: "connect".into(),
            pid: 1,
            version: "0.1.0".into(),
            uptime_seconds: 12.5,
            tuns: Vec::new(),
            recording: Some(RecordingStatus {
                file: "f".into(),
                written_lines: 5,
                skipped_lines: 1,
                ended: None,
            }),
            bonds: vec![bond],
        }
    }

    #[test]
    fn each_series_is_there_once_with_its_labels() {
        let text = text(status()).unwrap();
        let has =
            |line: &str| assert!(text.lines().any(|found| found == line), "{line} is missing in {text}");
        has("# TYPE bondwire_link_sent_bytes_total counter");
        has("# HELP bondwire_link_sent_bytes_total Bytes sent since the link joined");
        has(r#"bondwire_link_sent_bytes_total{bond="1",peer="server",link="tcp \"a\"\nb\\",kind="tcp"} 7.0"#);
        has(r#"bondwire_link_state{bond="1",peer="server",link="tcp x #2",kind="tcp",state="suspect"} 1.0"#);
        has(r#"bondwire_link_round_trip_seconds{bond="1",peer="server",link="tcp x",kind="tcp"} 0.0025"#);
        has("bondwire_uptime_seconds 12.5");
        has("bondwire_recording_skipped_lines_total 1.0");
        let mut series: Vec<_> = text.lines().map(|line| line.rsplit_once(' ').unwrap().0).collect();
        let all = series.len();
        series.sort_unstable();
        series.dedup();
        assert_eq!(series.len(), all, "{text}");
        assert!(!text.contains("damaged_frames"), "nobody counts them here");
        let no_bond = super::text(Status { bonds: Vec::new(), recording: None, ..status() }).unwrap();
        assert!(no_bond.ends_with("bondwire_bonds 0.0\n"), "{no_bond}");
    }

    #[test]
    fn the_documents_name_what_there_is() {
        let manual = include_str!("../../../docs/METRICS.md");
        let dashboard = include_str!("../../../docs/grafana.json");
        serde_json::from_str::<serde_json::Value>(dashboard).unwrap();
        let mut names: Vec<String> = vec![STATE.into(), BUILD.into()];
        fn add<T>(names: &mut Vec<String>, metrics: &[Metric<T>]) {
            names.extend(metrics.iter().map(|metric| match metric.kind {
                MetricType::Counter => format!("{}_total", metric.name),
                _ => metric.name.to_owned(),
            }));
        }
        add(&mut names, &PROCESS);
        add(&mut names, &RECORDING);
        add(&mut names, &BOND);
        add(&mut names, &LINK);
        for name in &names {
            assert!(manual.contains(&format!("`{name}`")), "{name} is not described");
        }
        let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
        for (document, text) in [("METRICS.md", manual), ("grafana.json", dashboard)] {
            let named = text.match_indices("bondwire_").map(|(at, _)| {
                let rest = &text[at..];
                &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())]
            });
            let unknown: Vec<_> = named.filter(|name| !names.iter().any(|known| known == name)).collect();
            assert!(unknown.is_empty(), "{document} names {unknown:?}");
        }
    }
}
