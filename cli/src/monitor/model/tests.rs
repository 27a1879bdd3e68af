use super::*;
use crate::control::status::LinkStatus;
use crate::monitor::limits::{CLOSED_KEPT, HISTORY_MAX, LINKS_MAX};

const SECOND: Duration = Duration::from_secs(1);

/// A link of the bond, after so many bytes each way.
pub(crate) fn link(id: u32, name: &str, bytes: u64) -> LinkStatus {
    LinkStatus {
        id: Some(id),
        link: name.to_owned(),
        kind: "tcp".to_owned(),
        dialled: Some(name.replacen(' ', ":", 1)),
        state: "active".to_owned(),
        policy: "active".to_owned(),
        state_seconds: Some(5.0),
        sent_bytes: bytes,
        received_bytes: bytes / 2,
        ..LinkStatus::default()
    }
}

pub(crate) fn missing(name: &str) -> LinkStatus {
    LinkStatus {
        id: None,
        state: "missing".to_owned(),
        state_seconds: None,
        why: Some("connection refused".to_owned()),
        ..link(0, name, 0)
    }
}

pub(crate) fn status(pid: u32, uptime_seconds: f64, links: Vec<LinkStatus>) -> Status {
    let bond = BondStatus {
        number: 1,
        peer: None,
        peer_name: Some("server".to_owned()),
        uptime_seconds,
        send_mbytes_per_second: 0.0,
        receive_mbytes_per_second: 0.0,
        links,
        streams_open: 2,
        send_buffered_bytes: 0,
        acked_bytes: 0,
        dropped_packets: 0,
        forwards: Vec::new(),
    };
    let (name, command, version) = ("connect".to_owned(), "connect".to_owned(), String::new());
    Status {
        name,
        command,
        pid,
        version,
        uptime_seconds,
        recording: None,
        bonds: vec![bond],
        tuns: Vec::new(),
    }
}

fn model() -> Model {
    Model::new(SECOND)
}

fn states(model: &Model) -> Vec<(&str, &str)> {
    model.links().map(|link| (link.now.link.as_str(), link.now.state.as_str())).collect()
}

#[test]
fn rates_are_what_was_carried_between_two_looks() {
    let mut model = model();
    let mut first = link(0, "tcp a", 1000);
    first.send_mbytes_per_second = 0.5;
    model.handle_status(SECOND, status(1, 10.0, vec![first]));
    // The command's own look, until there is a second one.
    assert_eq!(model.links().next().unwrap().sending.rate, 500_000.0);
    model.handle_status(SECOND * 3, status(1, 12.0, vec![link(0, "tcp a", 5000)]));
    let now = model.links().next().unwrap();
    assert_eq!((now.sending.rate, now.receiving.rate), (2000.0, 1000.0));
    assert_eq!(now.sending.last(9).collect::<Vec<_>>(), [500_000.0, 2000.0]);
    assert_eq!(model.bonds[0].rates(), (2000.0, 1000.0));
    // A look that something hurried: too early for a rate.
    model.handle_status(SECOND * 3, status(1, 12.1, vec![link(0, "tcp a", 5000)]));
    assert_eq!(model.links().next().unwrap().sending.rate, 2000.0);
    model.handle_status(SECOND * 4, status(1, 13.0, vec![link(0, "tcp a", 6000)]));
    assert_eq!(model.links().next().unwrap().sending.rate, 1000.0);
    // Nonsense is no panic, and no rate below nothing.
    model.handle_status(SECOND * 5, status(1, 14.0, vec![link(0, "tcp a", 0)]));
    assert_eq!(model.links().next().unwrap().sending.rate, 0.0);
    for uptime in [f64::NAN, f64::INFINITY, -1.0, 1e300, 0.0] {
        model.handle_status(SECOND * 6, status(1, uptime, vec![link(0, "tcp a", u64::MAX)]));
        assert!(model.links().next().unwrap().sending.rate >= 0.0);
    }
}

#[test]
fn shares_are_parts_of_all_that_the_bond_carries() {
    let mut model = model();
    let both = |first, second| vec![link(0, "tcp a", first), link(1, "tcp b", second)];
    model.handle_status(SECOND, status(1, 1.0, both(0, 0)));
    let bond = &model.bonds[0];
    assert_eq!(bond.share(&bond.links[0]), None);
    model.handle_status(SECOND * 2, status(1, 2.0, both(3000, 1000)));
    let bond = &model.bonds[0];
    assert_eq!(bond.share(&bond.links[0]), Some(0.75));
    assert_eq!(bond.highest_rate(), 3000.0);
}

#[test]
fn a_cable_stays_one_row_while_it_goes_and_comes_back() {
    let mut model = model();
    let b = || link(1, "tcp b", 0);
    model.handle_status(SECOND, status(1, 1.0, vec![link(0, "tcp a", 700), b()]));
    let serial = model.selected_link().unwrap().serial;
    // Not dialled yet is another thing than gone.
    model.handle_status(SECOND * 2, status(1, 2.0, vec![b(), missing("tcp c")]));
    assert_eq!(states(&model), [("tcp a", "closed"), ("tcp b", "active"), ("tcp c", "missing")]);
    model.handle_status(SECOND * 3, status(1, 3.0, vec![b(), missing("tcp a"), missing("tcp c")]));
    assert_eq!(states(&model), [("tcp a", "closed"), ("tcp b", "active"), ("tcp c", "missing")]);
    let gone = model.links().next().unwrap();
    assert_eq!(gone.now.why.as_deref(), Some("connection refused"));
    assert_eq!((gone.state_seconds, gone.now.sent_bytes), (Some(1.0), 700));
    model.handle_status(SECOND * 4, status(1, 4.0, vec![b(), link(2, "tcp a", 9), missing("tcp c")]));
    assert_eq!(states(&model), [("tcp a", "active"), ("tcp b", "active"), ("tcp c", "missing")]);
    assert_eq!(model.selected_link().unwrap().serial, serial);
    assert_eq!(model.selected_link().unwrap().now.sent_bytes, 9);
}

#[test]
fn links_with_one_name_keep_their_rows() {
    let mut model = model();
    let pair = |first, second| vec![link(first, "tcp a", 0), link(second, "tcp a", 0)];
    model.handle_status(SECOND, status(1, 1.0, pair(0, 1)));
    let mut closed = link(0, "tcp a", 0);
    closed.state = "closed".to_owned();
    // The new one takes the row of the one that it replaces, not that of the other.
    let now = vec![closed, link(1, "tcp a", 0), link(2, "tcp a", 0)];
    model.handle_status(SECOND * 2, status(1, 2.0, now));
    let numbers: Vec<_> = model.links().map(|link| (link.now.id, link.now.state.as_str())).collect();
    assert_eq!(numbers, [(Some(2), "active"), (Some(1), "active")]);
}

#[test]
fn a_link_that_the_other_end_dials_goes_after_a_while() {
    let mut model = model();
    model.handle_status(SECOND, status(1, 1.0, vec![link(0, "tcp a", 0), link(1, "tcp b", 0)]));
    model.select(1);
    model.handle_status(SECOND * 2, status(1, 2.0, vec![link(0, "tcp a", 0)]));
    assert_eq!(states(&model), [("tcp a", "active"), ("tcp b", "closed")]);
    let late = SECOND * 2 + CLOSED_KEPT;
    model.handle_status(late, status(1, 62.0, vec![link(0, "tcp a", 0)]));
    assert_eq!(states(&model), [("tcp a", "active")]);
    assert_eq!(model.selected_link().unwrap().now.link, "tcp a");
}

#[test]
fn another_process_begins_with_other_numbers_and_clocks() {
    let mut model = model();
    model.handle_status(SECOND, status(1, 100.0, vec![link(0, "tcp a", 5000), link(1, "tcp b", 5000)]));
    model.handle_outage(SECOND * 2, "ended".to_owned());
    model.handle_outage(SECOND * 4, "not running".to_owned());
    assert_eq!(model.outage.as_ref().unwrap().since, SECOND * 2);
    assert_eq!(model.outage_seconds(), 2.0);
    assert_eq!(model.bonds[0].rates(), (0.0, 0.0));
    // In the other order.
    model.handle_status(SECOND * 5, status(2, 1.0, vec![link(0, "tcp b", 10), link(1, "tcp a", 10)]));
    assert!(model.outage.is_none());
    assert_eq!(states(&model), [("tcp a", "active"), ("tcp b", "active")]);
    assert_eq!(model.bonds[0].rates(), (0.0, 0.0));
}

#[test]
fn keys_change_the_selected_link_and_a_pause_ends_as_it_began() {
    let mut model = model();
    assert_eq!(model.change(Toggle::Pause), None);
    model.select(1);
    let with = |policy: &str| {
        let second = LinkStatus { policy: policy.to_owned(), ..link(7, "tcp b", 0) };
        status(1, 1.0, vec![link(0, "tcp a", 0), second, missing("tcp c")])
    };
    model.handle_status(SECOND, with("backup"));
    model.select(1);
    let asked = |model: &mut Model, toggle| {
        let change = model.change(toggle).unwrap();
        assert_eq!(change.bond, Some(1));
        (change.link, change.policy.unwrap())
    };
    let expected = |link: &str, policy: &str| (link.to_owned(), policy.to_owned());
    assert_eq!(asked(&mut model, Toggle::Pause), expected("7", "paused"));
    model.handle_status(SECOND, with("paused"));
    assert_eq!(asked(&mut model, Toggle::Pause), expected("7", "backup"));
    model.handle_status(SECOND, with("paused"));
    assert_eq!(asked(&mut model, Toggle::Pause), expected("7", "active"));
    model.handle_status(SECOND, with("active"));
    assert_eq!(asked(&mut model, Toggle::Backup), expected("7", "backup"));
    model.select(isize::MAX);
    assert_eq!(asked(&mut model, Toggle::Pause), expected("tcp:c", "paused"));
    model.select(isize::MIN);
    assert_eq!(model.selected_link().unwrap().now.link, "tcp a");
}

#[test]
fn nothing_grows_without_end() {
    let mut model = model();
    let many = || (0..1000).map(|id| link(id, "tcp a", 0)).collect();
    for second in 0..2 * HISTORY_MAX as u32 {
        model.handle_status(SECOND * second, status(1, second.into(), vec![link(0, "tcp a", 0)]));
        model.handle_event(Event::default());
    }
    assert_eq!(model.links().next().unwrap().sending.last(usize::MAX).count(), HISTORY_MAX);
    assert_eq!(model.events.len(), EVENTS_MAX);
    model.handle_status(SECOND * 1000, status(1, 1000.0, many()));
    assert!(model.links().count() <= LINKS_MAX);
    model.handle_missed(17);
    assert!(model.events.back().unwrap().message.starts_with("17 messages missed"));
}

#[test]
fn a_note_stays_for_a_while() {
    let mut model = model();
    model.tick(SECOND);
    model.set_note("link 0: paused".to_owned());
    model.tick(SECOND * 2);
    assert_eq!(model.note(), Some("link 0: paused"));
    model.tick(SECOND + NOTE_KEPT);
    assert_eq!(model.note(), None);
}
