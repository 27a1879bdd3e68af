//! Metrics as Prometheus meets them, and what else may come to their port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::pair::{Pair, connect};
use crate::record::Cut;
use crate::tools::able;
use crate::user::{PATIENCE, Running};

/// Time between two looks at the metrics.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Where a command says that its metrics are.
pub(crate) fn address(running: &Running) -> SocketAddr {
    let line = running.wait_for("metrics on http://");
    let rest = line.split("metrics on http://").nth(1).unwrap();
    rest.trim_end_matches("/metrics").parse().unwrap()
}

/// What is answered to these bytes.
fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    // A refusal may come with a reset, as the rest of the request is not read.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

pub(crate) fn scrape(address: SocketAddr) -> String {
    let answer = ask(address, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    body.to_owned()
}

/// The value of the series that has these parts.
fn value(text: &str, name: &str, parts: &[&str]) -> Option<f64> {
    let is_it = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && parts.iter().all(|part| line.contains(part))
    };
    text.lines().find(is_it)?.rsplit_once(' ')?.1.parse().ok()
}

#[track_caller]
fn wait_for(address: SocketAddr, expected: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = scrape(address);
        if expected(&text) {
            return text;
        }
        assert!(Instant::now() < deadline, "{text}");
        thread::sleep(LOOK_INTERVAL);
    }
}

#[test]
fn a_cut_link_shows_and_prometheus_finds_no_fault() {
    let cut = Cut::start(&["--metrics=127.0.0.1:0", "--record", "HOME/record"]);
    let address = cut.metrics.unwrap();
    let link = format!("link=\"{}\"", cut.cut);
    let in_state = |text: &str, state: &str| {
        value(text, "bondwire_link_state", &[&link, &format!("state=\"{state}\"")]) == Some(1.0)
    };
    let carries = |text: &str| {
        value(text, "bondwire_link_received_bytes_total", &[&link]).is_some_and(|bytes| bytes > 100_000.0)
    };
    let text = wait_for(address, |text| in_state(text, "active") && carries(text));
    assert_eq!(value(&text, "bondwire_bond_links_active", &[]), Some(2.0));
    assert!(value(&text, "bondwire_link_round_trip_seconds", &[&link]).is_some_and(|rtt| rtt < 10.0));
    assert!(value(&text, "bondwire_recording_lines_total", &[]).is_some_and(|lines| lines > 0.0));
    cut.relay.set(crate::relay::Path::Silent);
    wait_for(address, |text| in_state(text, "suspect"));
    cut.relay.set(crate::relay::Path::Closed);
    wait_for(address, |text| in_state(text, "closed") || in_state(text, "missing"));
    cut.download.assert_goes_on();
    cut.relay.set(crate::relay::Path::Open);
    let text = wait_for(address, |text| in_state(text, "active") && carries(text));
    if able(&["promtool"], false) {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        assert!(
            output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(),
            "{output:?}\n{text}"
        );
    }
}

#[test]
fn nothing_else_that_comes_does_harm() {
    let pair = Pair::start(&["--metrics=127.0.0.1:0"], &[]);
    let address = address(&pair.listening);
    let status = |request: &[u8]| ask(address, request).lines().next().unwrap_or_default().to_owned();
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), "HTTP/1.1 404 Not Found");
    assert_eq!(
        status(b"POST /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        "HTTP/1.1 405 Method Not Allowed"
    );
    let foreign = status(b"GET /metrics HTTP/1.1\r\nHost: example.com\r\n\r\n");
    assert_eq!(foreign, "HTTP/1.1 421 Misdirected Request");
    assert_eq!(status(b"\x16\x03\x01\x02\x00 this is TLS\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let refused = {
        let mut stream = connect(address);
        // It ends before all is sent.
        let _ = stream.write_all(long.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    };
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431 "), "{refused}");
    // Those that say nothing have their time, and others a place after it.
    let silent: Vec<TcpStream> = (0..20).map(|_| connect(address)).collect();
    let text = scrape(address);
    assert_eq!(value(&text, "bondwire_bonds", &[]), Some(1.0), "{text}");
    drop(silent);
}

#[test]
fn the_port_is_checked_before_anything_runs() {
    let pair = Pair::start(&[], &["--metrics=127.0.0.1:0"]);
    let taken = format!("--metrics={}", address(&pair.connecting));
    let key = pair.server.public_key();
    let arguments = ["connect", &pair.link, "--peer", &key, &taken];
    let ended = pair.client.run(&arguments).assert_code(3);
    assert!(ended.error_line().contains("cannot serve metrics on 127.0.0.1:"), "{}", ended.stderr);
    let wrong = pair.client.run(&["connect", &pair.link, "--peer", &key, "--metrics=here"]).assert_code(2);
    assert!(wrong.error_line().contains("invalid socket address syntax"), "{}", wrong.stderr);
    let open = Pair::start(&["--metrics=0.0.0.0:0"], &[]);
    open.listening.wait_for("whoever reaches it can read");
}
