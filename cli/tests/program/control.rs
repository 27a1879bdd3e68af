//! Running bonds seen and changed from outside.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::pair::{Pair, address_behind, connect, echo_server, server};
use crate::user::{PATIENCE, User};

/// A client that speaks the protocol by itself, as a script would.
struct Script {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

fn socket(user: &User, name: &str) -> PathBuf {
    user.home().join(format!("bondwire/{name}.sock"))
}

impl Script {
    fn connect(user: &User, name: &str) -> Self {
        let writer = UnixStream::connect(socket(user, name)).unwrap();
        writer.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut script = Self { reader: BufReader::new(writer.try_clone().unwrap()), writer };
        let hello = script.line();
        assert_eq!(hello["bondwire"]["protocol"], 1);
        assert_eq!(hello["bondwire"]["name"], name);
        script
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.writer, "{request}").unwrap();
        let answer = self.line();
        assert_eq!(answer["id"], request["id"]);
        answer
    }
}

pub(crate) fn status(user: &User, name: &str) -> Value {
    let shown = user.run(&["status", name, "--json"]).assert_code(0).stdout;
    let [status] = &serde_json::from_str::<Vec<Value>>(&shown).unwrap()[..] else { panic!("{shown}") };
    status.clone()
}

/// Waits until the connecting end's status is as `expected` says.
pub(crate) fn wait_for(user: &User, mut expected: impl FnMut(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = status(user, "connect");
        if expected(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{status:#}");
    }
}

#[test]
fn links_are_shown_paused_resumed_added_and_removed() {
    let (pair, local) = Pair::forwarding(&echo_server().to_string(), &[], "");
    let links = |status: &Value| status["bonds"][0]["links"].as_array().unwrap().clone();
    let up = |count| {
        move |status: &Value| links(status).iter().filter(|link| link["state"] == "active").count() == count
    };
    let shown = wait_for(&pair.client, up(2));
    assert_eq!(shown["bonds"][0]["peer"], pair.server.public_key().as_str());
    let forward = shown["bonds"][0]["forwards"][0]["forward"].as_str().unwrap();
    assert!(forward.starts_with(&format!("-L {local} to ")), "{forward}");

    pair.client.run(&["link", "pause", "all"]).assert_code(0);
    for link in links(&status(&pair.client, "connect")) {
        assert_eq!(link["policy"], "paused");
        assert_eq!(link["why"], "policy paused here");
    }
    let text = pair.client.run(&["status"]).assert_code(0).stdout;
    assert!(text.contains("; policy paused here\n") && text.contains(", policy paused"), "{text}");
    // The other end knows why, too.
    let there = pair.server.run(&["status", "listen"]).assert_code(0).stdout;
    assert!(there.contains("policy paused at the peer"), "{there}");

    pair.client.run(&["link", "resume", "all"]).assert_code(0);
    let set =
        ["link", "set", "0", "--policy=backup", "--tier=2", "--weight=3", "--cap=20Mbit", "--keepalive=5"];
    pair.client.run(&set).assert_code(0);
    let first = links(&status(&pair.client, "connect"))[0].clone();
    assert_eq!(first["policy"], "backup");
    let figures = [("tier", 2), ("weight", 3), ("cap_bytes_per_second", 2_500_000)];
    for (name, value) in figures {
        assert_eq!(first[name], value, "{name}");
    }

    let added = format!("{},source=127.0.0.1", pair.link);
    pair.client.run(&["link", "add", &added]).assert_code(0);
    wait_for(&pair.client, up(3));
    let again = pair.client.run(&["link", "add", &added]).assert_code(3);
    assert!(again.error_line().contains("is dialled already"), "{}", again.stderr);
    pair.client.run(&["link", "remove", &added]).assert_code(0);
    wait_for(&pair.client, up(2));
    let missing = pair.client.run(&["link", "pause", "tcp:192.0.2.1"]).assert_code(3);
    assert!(missing.error_line().contains("no link tcp:192.0.2.1"), "{}", missing.stderr);
    let there = pair.server.run(&["link", "add", &added]).assert_code(3);
    assert!(there.error_line().contains("at the end that connects"), "{}", there.stderr);
}

#[test]
fn forwards_open_and_close_while_the_bond_runs() {
    let target = echo_server().to_string();
    let pair = Pair::start(&[], &[]);
    pair.connecting.wait_for("connected to ");
    let forward = format!("127.0.0.1:0:{target}");
    let number = pair.client.run(&["forward", "add", "-L", &forward]).assert_code(0).stdout;
    let local = address_behind("forwarding ", &pair.connecting.wait_for("forwarding 127.0.0.1:"));
    let mut stream = connect(local);
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
    pair.client.run(&["forward", "remove", number.trim()]).assert_code(0);
    assert!(std::net::TcpStream::connect(local).is_err(), "the port is closed");
    let gone = pair.client.run(&["forward", "remove", number.trim()]).assert_code(3);
    assert!(gone.error_line().contains("no forward 1"), "{}", gone.stderr);
    let refused = pair.client.run(&["forward", "add", "-R", "0:localhost:9"]).assert_code(3);
    assert!(refused.error_line().contains("--permit-listen"), "{}", refused.stderr);
    let wrong = pair.client.run(&["forward", "add", "-L", "9"]).assert_code(2);
    assert!(wrong.error_line().contains("[bind:]port:host:port"), "{}", wrong.stderr);
}

/// Tells the downloads to come to an end.
#[derive(Default)]
struct Done(AtomicBool);

struct Stop<'a>(&'a Done);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_thousand_pauses_under_load_lose_nothing() {
    const BYTES: u64 = 64 << 20;
    let byte = |place: u64| (place ^ (place >> 8) ^ (place >> 16)) as u8;
    let target = server(move |mut stream| {
        let data: Vec<u8> = (0..BYTES).map(byte).collect();
        stream.write_all(&data)
    });
    let (pair, local) = Pair::forwarding(&target.to_string(), &[], "");
    wait_for(&pair.client, |status| status["bonds"][0]["links"].as_array().unwrap().len() == 2);
    let done = Done::default();
    thread::scope(|scope| {
        let downloads = scope.spawn(|| {
            let mut count = 0;
            loop {
                let mut data = Vec::new();
                connect(local).read_to_end(&mut data).unwrap();
                assert_eq!(data.len() as u64, BYTES);
                assert!((0..BYTES).zip(&data).all(|(place, found)| byte(place) == *found));
                count += 1;
                if done.0.load(Ordering::Relaxed) {
                    return count;
                }
            }
        });
        // Also when the script fails: the downloads must not go on for ever.
        let stop = Stop(&done);
        let mut script = Script::connect(&pair.client, "connect");
        for round in 0..1000_u64 {
            for policy in ["paused", "active"] {
                let request = json!({ "id": round, "command": "link-set", "link": "all", "policy": policy });
                let answer = script.ask(&request);
                assert!(answer["result"]["links"].as_u64() >= Some(2), "{answer}");
            }
        }
        drop(stop);
        assert!(downloads.join().unwrap() >= 1);
    });
}

#[test]
fn a_client_that_talks_nonsense_or_never_reads_harms_nothing() {
    let pair = Pair::start(&[], &[]);
    pair.connecting.wait_for("connected to ");
    for nonsense in ["GET / HTTP/1.1", "{}", "[1,2]", r#"{"command":"links"}"#, "\u{1b}[31m"] {
        let mut script = Script::connect(&pair.client, "connect");
        writeln!(script.writer, "{nonsense}").unwrap();
        let answer = script.line();
        assert_eq!(answer["error"]["code"], "bad-request", "{answer}");
        // The connection goes on.
        assert!(script.ask(&json!({ "id": 1, "command": "status" }))["result"]["bonds"].is_array());
    }
    let mut endless = Script::connect(&pair.client, "connect");
    // The server may hang up before it has all.
    let _ = endless.writer.write_all(&vec![b'x'; 1 << 20]);
    assert!(endless.line()["error"]["message"].as_str().unwrap().contains("at most"));
    let mut rest = Vec::new();
    assert!(endless.reader.read_to_end(&mut rest).is_err() || rest.is_empty());

    let deaf: Vec<_> = (0..8)
        .map(|_| {
            let mut script = Script::connect(&pair.client, "connect");
            script.writer.set_nonblocking(true).unwrap();
            let request = json!({ "command": "report" }).to_string() + "\n";
            while script.writer.write_all(request.as_bytes()).is_ok() {}
            script
        })
        .collect();
    assert_eq!(status(&pair.client, "connect")["bonds"].as_array().unwrap().len(), 1);
    drop(deaf);
}

#[test]
fn events_and_reports_tell_what_happened_and_no_secret() {
    let pair = Pair::start(&[], &[]);
    pair.connecting.wait_for("connected to ");
    let mut script = Script::connect(&pair.client, "connect");
    assert!(script.ask(&json!({ "id": 1, "command": "events" }))["result"].is_object());
    pair.client.run(&["link", "remove", &pair.link]).assert_code(0);
    let event = loop {
        let event = script.line()["event"].clone();
        if event["state"] == "closed" {
            break event;
        }
    };
    assert!(event["link"].as_str().unwrap().starts_with("tcp 127.0.0.1:"), "{event}");
    assert!(event["message"].as_str().unwrap().contains("down: "), "{event}");
    let shown = pair.client.run(&["events"]).assert_code(0).stdout;
    assert!(shown.contains(" INFO connected to bwpub1") && shown.contains(" down: "), "{shown}");

    let file = pair.client.home().join("report.json");
    pair.client.run(&["report", "-o", file.to_str().unwrap()]).assert_code(0);
    let report = std::fs::read_to_string(file).unwrap();
    let secret = std::fs::read_to_string(pair.client.home().join("config/bondwire/key")).unwrap();
    assert!(!report.contains(secret.trim()));
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["status"]["name"], "connect");
    assert!(!report["events"].as_array().unwrap().is_empty());
}

#[test]
fn a_speed_test_runs_over_the_running_bond() {
    let pair = Pair::start(&[], &[]);
    pair.connecting.wait_for("connected to ");
    let mut script = Script::connect(&pair.client, "connect");
    let test = json!({
        "id": 1, "command": "speed", "seconds": 1, "omit": 0, "direction": "both", "streams": 2
    });
    let result = script.ask(&test)["result"].clone();
    assert!(result["mbytes_per_second"]["send"].as_f64().unwrap() > 0.0, "{result}");
    assert!(result["mbytes_per_second"]["receive"].as_f64().unwrap() > 0.0, "{result}");
    assert_eq!(result["links"].as_array().unwrap().len(), 2);
    let long = json!({
        "id": 2, "command": "speed", "seconds": 1_000_000, "omit": 0, "direction": "send", "streams": 2
    });
    assert_eq!(script.ask(&long)["error"]["code"], "bad-request");
}

#[test]
fn speed_with_a_name_measures_over_the_bond_that_runs() {
    let (server, client) = (User::new(), User::new());
    let (listening, line) = server.invite(&["--pair"]);
    let arguments: Vec<_> = line.iter().map(String::as_str).chain(["--name", "board"]).collect();
    let connecting = client.start(&arguments);
    connecting.wait_for("paired with board");
    listening.wait_for("new bond from ");
    let there = server.run(&["status", "--json"]).assert_code(0).stdout;
    let there: Value = serde_json::from_str(&there).unwrap();
    assert!(there[0]["bonds"][0]["peer_name"].is_string(), "{there}");
    // By the name of the command, and by that of the peer.
    for name in ["connect", "board"] {
        let measured = client.run(&["speed", name, "--seconds", "1", "--omit", "0", "--json"]).assert_code(0);
        let result: Value = serde_json::from_str(&measured.stdout).unwrap();
        assert!(result["mbytes_per_second"].as_f64().unwrap() > 0.0, "{result}");
        assert!(result["startup_ms"].is_null(), "{result}");
    }
    let shown =
        client.run(&["speed", "board", "--seconds=1", "--omit=0", "--direction=both"]).assert_code(0).stdout;
    assert!(shown.starts_with("send: ") && shown.contains("over the running bond"), "{shown}");
    connecting.signal(Signal::INT);
    connecting.wait().assert_code(130);
    // One bond was enough for all of them.
    let ended = listening.wait_for("bond ended: ");
    assert!(ended.contains("closed by the peer"), "{ended}");
    let own = client.run(&["speed", "board", "--seconds=1", "--omit=0"]).assert_code(0).stdout;
    assert!(own.contains("first link up after "), "{own}");
    listening.wait_for("new bond from ");
}

#[test]
fn a_speed_test_ends_with_whoever_asked_for_it() {
    let pair = Pair::start(&[], &[]);
    pair.connecting.wait_for("connected to ");
    let mut script = Script::connect(&pair.client, "connect");
    let test = json!({
        "id": 1, "command": "speed", "seconds": 3000, "omit": 0, "direction": "send", "streams": 2
    });
    writeln!(script.writer, "{test}").unwrap();
    let streams = |status: &Value| status["bonds"][0]["streams_open"].as_u64().unwrap();
    wait_for(&pair.client, |status| streams(status) == 2);
    drop(script);
    wait_for(&pair.client, |status| streams(status) == 0);
}

#[test]
fn stop_ends_a_command_well() {
    let target = echo_server().to_string();
    let (pair, local) = Pair::forwarding(&target, &[], "");
    pair.client.run(&["stop"]).assert_code(0);
    // Its port and its name are free by now.
    assert!(std::net::TcpStream::connect(local).is_err());
    assert!(!socket(&pair.client, "connect").exists());
    let ended = pair.connecting.wait().assert_code(0);
    assert!(!ended.stderr.contains("bondwire: "), "{}", ended.stderr);
    pair.listening.wait_for("bond ended: closed by the peer");
    pair.server.run(&["stop", "listen"]).assert_code(0);
    pair.listening.wait().assert_code(0);
    let nothing = pair.client.run(&["stop"]).assert_code(3);
    assert!(nothing.error_line().contains("no bondwire of this user runs here"), "{}", nothing.stderr);
}

#[test]
fn the_level_of_the_log_changes_while_it_runs() {
    let pair = Pair::start(&[], &[]);
    pair.connecting.wait_for("connected to ");
    pair.client.run(&["log", "debug"]).assert_code(0);
    pair.client.run(&["link", "add", &format!("{},source=127.0.0.1", pair.link)]).assert_code(0);
    pair.connecting.wait_for("DEBUG");
    let wrong = pair.client.run(&["log", "=loud="]).assert_code(2);
    assert!(wrong.error_line().contains("is no level"), "{}", wrong.stderr);
}

#[test]
fn a_name_is_taken_once_and_the_socket_goes_with_its_command() {
    let pair = Pair::start(&[], &["--control", "office"]);
    pair.connecting.wait_for("connected to ");
    let key = pair.server.public_key();
    let again = ["connect", &pair.link, "--peer", &key, "--control", "office"];
    let taken = pair.client.run(&again).assert_code(3);
    assert!(
        taken.error_line().contains("another bondwire runs under the name \"office\""),
        "{}",
        taken.stderr
    );
    let wrong = ["connect", &pair.link, "--peer", &key, "--control", "../office"];
    assert!(pair.client.run(&wrong).assert_code(3).error_line().contains("is no name"));
    let unknown = pair.client.run(&["status", "home"]).assert_code(3);
    assert!(unknown.error_line().contains("under the name \"home\"; there are office"), "{}", unknown.stderr);

    // Several run: one must be named, unless all are meant.
    let second = pair.client.start(&["connect", &pair.link, "--peer", &key]);
    second.wait_for("connected to ");
    let which = pair.client.run(&["link", "pause", "all"]).assert_code(3);
    assert!(which.error_line().contains("connect, office"), "{}", which.stderr);
    let both = pair.client.run(&["status"]).assert_code(0).stdout;
    assert!(both.contains("connect: bondwire connect (pid ") && both.contains("office: "), "{both}");

    second.signal(Signal::INT);
    second.wait().assert_code(130);
    assert!(!socket(&pair.client, "connect").exists());
    // One that was killed leaves its socket, which is no bond.
    pair.connecting.signal(Signal::KILL);
    drop(pair.connecting);
    let nothing = pair.client.run(&["status"]).assert_code(3);
    assert!(nothing.error_line().contains("no bondwire of this user runs here"), "{}", nothing.stderr);
    pair.client
        .start(&["connect", &pair.link, "--peer", &key, "--control", "office"])
        .wait_for("connected to ");
}

#[test]
fn a_quota_pauses_its_link_says_so_and_holds_over_a_restart() {
    const BYTES: usize = 8 << 20;
    let target = server(|mut stream| stream.write_all(&vec![7; BYTES]));
    let (server, client) = (User::new(), User::new());
    let (_listening, link) = server.listen(&["--allow", &client.public_key()]);
    let limited = format!("{link},quota=1MB,reset-day=28");
    let forward = format!("127.0.0.1:0:{target}");
    let key = server.public_key();
    let arguments = ["connect", &limited, "--peer", &key, "-L", &forward];
    let connecting = client.start(&arguments);
    let local = address_behind("forwarding ", &connecting.wait_for("forwarding 127.0.0.1:"));
    let mut download = connect(local);
    connecting.wait_for("its quota of 1.00 MB is used up until ");
    client.run(&["link", "add", &link]).assert_code(0);
    let mut data = Vec::new();
    download.read_to_end(&mut data).unwrap();
    assert_eq!(data.len(), BYTES);
    let of_link = |status: &Value, spec: &str| {
        let links = status["bonds"][0]["links"].as_array().unwrap().clone();
        links.into_iter().find(|link| link["dialled"] == spec).unwrap()
    };
    let paused = of_link(&status(&client, "connect"), &limited);
    assert_eq!(paused["policy"], "paused");
    assert!(paused["why"].as_str().unwrap().starts_with("quota of 1.00 MB used up until "), "{paused}");
    connecting.signal(Signal::INT);
    connecting.wait().assert_code(130);

    let connecting = client.start(&arguments);
    connecting.wait_for("its quota of 1.00 MB is used up until ");
    wait_for(&client, |status| of_link(status, &limited)["policy"] == "paused");
    // The same for one that is added while the bond runs.
    client.run(&["link", "add", &link]).assert_code(0);
    client.run(&["link", "remove", &limited]).assert_code(0);
    client.run(&["link", "add", &limited]).assert_code(0);
    wait_for(&client, |status| of_link(status, &limited)["policy"] == "paused");
}
