use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Modifier;

use super::*;
use crate::control::status::{ForwardStatus, LinkStatus, Status};
use crate::monitor::model::Event;
use crate::monitor::model::tests::{link, missing, status};

const SECOND: Duration = Duration::from_secs(1);
const COLOUR: Look = Look { colour: true, unicode: true };
const PLAIN: Look = Look { colour: false, unicode: false };

fn drawn(model: &Model, look: Look, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(model, look, frame.area(), frame.buffer_mut())).unwrap();
    terminal.backend().buffer().clone()
}

fn rows(buffer: &Buffer) -> Vec<String> {
    let area = buffer.area;
    let row = |y| (0..area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..area.height).map(|y| row(y).trim_end().to_owned()).collect()
}

fn shown(model: &Model, look: Look, size: (u16, u16)) -> Vec<String> {
    rows(&drawn(model, look, size))
}

/// One look at a bond with a link of each kind and state.
fn sample(second: u32) -> Status {
    let fast = LinkStatus {
        rtt_ms: Some(1.25),
        in_flight_bytes: 64_000,
        window_bytes: 128_000,
        estimated_mbytes_per_second: Some(11.0),
        lost_packets: 4,
        why: Some("nothing to send".to_owned()),
        ..link(0, "tcp 192.168.1.5:7700", u64::from(second) * u64::from(second) * 1_000_000)
    };
    let silent = LinkStatus {
        state: "suspect".to_owned(),
        state_seconds: Some(0.31),
        why: Some("suspect: nothing was heard for 310 ms".to_owned()),
        suspects: 2,
        ..link(1, "tcp 10.0.0.5:7700", 5_000_000)
    };
    let serial = LinkStatus {
        kind: "serial".to_owned(),
        policy: "backup".to_owned(),
        why: Some("policy backup here".to_owned()),
        state_seconds: Some(7200.0),
        damaged_frames: Some(3),
        credit_stalls: Some(12),
        ..link(2, "serial /dev/ttyUSB0", 11_500)
    };
    let mut status =
        status(4711, f64::from(second) + 60.0, vec![fast, silent, serial, missing("tcp 172.16.0.5:7700")]);
    status.bonds[0].forwards =
        vec![ForwardStatus { number: 1, forward: "-L localhost:8080 to localhost:80".to_owned() }];
    status
}

fn model() -> Model {
    let mut model = Model::new(SECOND);
    for second in 0..6 {
        model.handle_status(SECOND * second, sample(second));
    }
    for number in 1..=30 {
        let (level, message) = match number {
            30 => ("warn", "link 1 tcp 10.0.0.5:7700: suspect after 63 ms of silence".to_owned()),
            number => ("info", format!("message {number}")),
        };
        let time = format!("2026-01-02T03:04:{number:02}.678901Z");
        model.handle_event(Event { number, time, level: level.to_owned(), message, state: None });
    }
    model
}

#[test]
fn eighty_columns_show_every_link_and_its_reason() {
    assert_eq!(
        shown(&model(), COLOUR, (80, 24)),
        [
            "connect: bondwire connect, pid 4711, running for 65s",
            "  # link                 state    for   out/s           in/s        rtt ms share",
            "bond 1 server 65s: out 9.00 MB/s, in 4.50 MB/s, 2 streams, 0 B unacked",
            "> 0 tcp 192.168.1.5:7700 active  5.0s 9.00 MB  ▁▃▄▆█ 4.50 MB  ▁▁▂▃▄   1.25 100 %",
            "  1 tcp 10.0.0.5:7700    suspect 0.3s     0 B            0 B                 0 %",
            "    suspect: nothing was heard for 310 ms",
            "  2 serial /dev/ttyUSB0  active    2h     0 B            0 B                 0 %",
            "    policy backup here",
            "  - tcp 172.16.0.5:7700  missing          0 B            0 B                 0 %",
            "    connection refused",
            "    forward 1: -L localhost:8080 to localhost:80",
            "── link 0 tcp 192.168.1.5:7700 ─────────────────────────────────────────────────",
            "tcp link, active for 5.0s; nothing to send",
            "policy active; dialled as tcp:192.168.1.5:7700",
            "rtt 1.25 ms, in flight 64.0 kB of 128 kB, share 100 %, can carry 11.0 MB/s",
            "sent 25.0 MB, received 12.5 MB; lost 4, suspect 0x, resent 0 B",
            "out 9.00 MB/s, highest 9.00 MB/s                                           ▁▃▄▆█",
            "in  4.50 MB/s, highest 4.50 MB/s                                           ▁▃▄▆█",
            "── events ──────────────────────────────────────────────────────────────────────",
            "03:04:27 INFO  message 27",
            "03:04:28 INFO  message 28",
            "03:04:29 INFO  message 29",
            "03:04:30 WARN  link 1 tcp 10.0.0.5:7700: suspect after 63 ms of silence",
            "q quit  ? help  up/down select  p pause/resume  b backup/active",
        ]
    );
}

#[test]
fn sixty_columns_leave_out_the_curves_first() {
    let shown = shown(&model(), PLAIN, (60, 20));
    assert_eq!(
        shown[..6],
        [
            "connect: bondwire connect, pid 4711, running for 65s",
            "  # link           state    for   out/s    in/s rtt ms share",
            "bond 1 server 65s: out 9.00 MB/s, in 4.50 MB/s, 2 streams, 0",
            "> 0 tcp 192.168.1~ active  5.0s 9.00 MB 4.50 MB   1.25 100 %",
            "  1 tcp 10.0.0.5:~ suspect 0.3s     0 B     0 B          0 %",
            "    suspect: nothing was heard for 310 ms",
        ]
    );
    assert!(shown.iter().all(|line| line.is_ascii()), "{shown:#?}");
    assert_eq!(shown[19], "q quit  ? help  up/down select  p pause/resume  b backup/act");
}

#[test]
fn a_wide_screen_has_all_columns_and_more_messages() {
    let mut model = model();
    model.select(2);
    let shown = shown(&model, PLAIN, (120, 40));
    assert!(shown[1].ends_with("rtt ms share  flight   lost   crc stalls"), "{}", shown[1]);
    assert!(shown[3].ends_with("  1.25 100 % 64.0 kB      4     -      -"), "{}", shown[3]);
    assert!(shown[3].contains(" .:=+# "), "{}", shown[3]);
    assert!(shown[6].starts_with("> 2 serial /dev/ttyUSB0"), "{}", shown[6]);
    assert!(shown[6].ends_with("  0 %     0 B      0     3     12"), "{}", shown[6]);
    assert_eq!(
        shown[15],
        "sent 11.5 kB, received 5.75 kB; lost 0, suspect 0x, resent 0 B; CRC errors 3, credit stalls 12"
    );
    assert!(shown[13].starts_with("policy backup; "), "{}", shown[13]);
    assert!(shown.iter().any(|line| line.ends_with("message 11")), "{shown:#?}");
}

#[test]
fn states_are_told_without_colours() {
    let buffer = drawn(&model(), PLAIN, (80, 24));
    let coloured = drawn(&model(), COLOUR, (80, 24));
    let suspect = (25, 4);
    assert_eq!(buffer[suspect].symbol(), "s");
    assert!(buffer[suspect].modifier.contains(Modifier::BOLD));
    assert!(buffer.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    assert_eq!(coloured[suspect].fg, Color::Yellow);
    // The selected link is reversed to the end of its line, and marked.
    assert!((0..80).all(|x| buffer[(x, 3)].modifier.contains(Modifier::REVERSED)));
    assert!((0..80).all(|x| !buffer[(x, 4)].modifier.contains(Modifier::REVERSED)));
}

#[test]
fn no_size_is_a_panic_and_small_ones_say_what_is_missing() {
    let mut model = model();
    for help in [false, true] {
        model.shows_help = help;
        for width in 0..90 {
            for height in 0..30 {
                let area = Rect::new(0, 0, width, height);
                draw(&model, COLOUR, area, &mut Buffer::empty(area));
            }
        }
    }
    assert_eq!(shown(&model, PLAIN, (40, 4)), ["too small: 40x4", "needs 48x8", "q quits", ""]);
    assert_eq!(shown(&model, PLAIN, (5, 1)), ["too s"]);
}

#[test]
fn the_selected_link_is_seen_in_a_low_window() {
    let mut model = model();
    model.select(isize::MAX);
    let shown = shown(&model, PLAIN, (80, 8));
    assert!(shown[1].starts_with("  # link"), "{shown:#?}");
    assert!(shown.iter().any(|line| line.starts_with("> - tcp 172.16.0.5:7700")), "{shown:#?}");
    assert!(shown[6].contains("connection refused"), "{shown:#?}");
}

#[test]
fn an_outage_a_note_and_a_missing_bond_are_told() {
    let mut model = model();
    model.handle_outage(SECOND * 10, "ended; waiting for it to come back".to_owned());
    model.tick(SECOND * 22);
    model.set_note("link 0: policy paused".to_owned());
    let lines = shown(&model, PLAIN, (80, 24));
    assert_eq!(lines[0], "connect: no answer for 12s: ended; waiting for it to come back");
    assert_eq!(lines[23], "link 0: policy paused");
    // What was last seen stays.
    assert!(lines[3].contains("tcp 192.168.1.5:7700"), "{}", lines[3]);
    let mut empty = Model::new(SECOND);
    assert_eq!(shown(&empty, PLAIN, (80, 24))[0], "waiting for an answer");
    empty.handle_status(SECOND, Status { bonds: Vec::new(), ..sample(1) });
    assert_eq!(shown(&empty, PLAIN, (80, 24))[1], "no bond at the moment");
    model.shows_help = true;
    assert!(shown(&model, PLAIN, (80, 24)).iter().any(|line| line.starts_with("p, space")), "{lines:#?}");
}

#[test]
fn what_a_peer_says_does_not_steer_the_terminal() {
    let mut model = Model::new(SECOND);
    let evil = "\u{1b}]0;x\u{7}\u{1b}[2J\r\nZ";
    let mut status = sample(1);
    status.name = evil.to_owned();
    status.bonds[0].peer_name = Some(evil.to_owned());
    for link in &mut status.bonds[0].links {
        for text in [&mut link.link, &mut link.kind, &mut link.state, &mut link.policy] {
            *text = evil.to_owned();
        }
        (link.why, link.dialled) = (Some(evil.to_owned()), Some(evil.to_owned()));
        link.rtt_ms = Some(f64::MAX);
        link.state_seconds = Some(f64::MAX);
        (link.sent_bytes, link.moved_bytes, link.reinjected_bytes) = (u64::MAX, u64::MAX, u64::MAX);
    }
    model.handle_status(SECOND, status);
    let (time, level, message) = (evil.to_owned(), evil.to_owned(), evil.to_owned());
    model.handle_event(Event { number: 1, time, level, message, state: None });
    for cell in &drawn(&model, COLOUR, (120, 40)).content {
        assert!(!cell.symbol().chars().any(char::is_control), "{:?}", cell.symbol());
    }
}
