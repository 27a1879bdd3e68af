//! Recordings: what is in them, and that a bond goes on whatever becomes of the file.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::control::wait_for;
use crate::download::{Download, endless_server};
use crate::pair::{Pair, address_behind};
use crate::relay::{Path, Relay};
use crate::tools::{able, run};
use crate::up::write_config;
use crate::user::{PATIENCE, PROGRAM, Running, User};

/// Time between two looks at a file.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A download over two links of 2 MB/s, of which one can be cut.
pub(crate) struct Cut {
    pub(crate) client: User,
    pub(crate) connecting: Running,
    pub(crate) steady: String,
    pub(crate) cut: String,
    pub(crate) relay: Relay,
    pub(crate) download: Download,
    /// Where its metrics are, if they are served.
    pub(crate) metrics: Option<SocketAddr>,
    _server: User,
    _listening: Running,
}

impl Cut {
    /// `connect` with these further arguments, where `HOME` stands for the client's folder.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let (server, client) = (User::new(), User::new());
        let (listening, direct) = server.listen(&["--allow", &client.public_key()]);
        let address: SocketAddr = direct.trim_start_matches("tcp:").parse().unwrap();
        let relay = Relay::start(address);
        let links = [address, relay.address].map(|address| format!("tcp:{address},cap=2MB"));
        let forward = format!("127.0.0.1:0:{}", endless_server());
        let peer = server.public_key();
        let home = client.home().display().to_string();
        let further: Vec<_> = arguments.iter().map(|argument| argument.replace("HOME", &home)).collect();
        let own = ["connect", &links[0], &links[1], "--peer", &peer, "-L", &forward];
        let arguments: Vec<_> = own.into_iter().chain(further.iter().map(String::as_str)).collect();
        let connecting = client.start(&arguments);
        let local = address_behind("forwarding ", &connecting.wait_for("forwarding 127.0.0.1:"));
        let serves = arguments.iter().any(|argument| argument.starts_with("--metrics"));
        let metrics = serves.then(|| crate::metrics::address(&connecting));
        let download = Download::start(local);
        let (steady, cut) = (format!("tcp {address}"), format!("tcp {}", relay.address));
        let cut = Self {
            client,
            connecting,
            steady,
            cut,
            relay,
            download,
            metrics,
            _server: server,
            _listening: listening,
        };
        wait_for(&cut.client, |status| cut.state(status, &cut.steady) == "active");
        wait_for(&cut.client, |status| cut.state(status, &cut.cut) == "active");
        cut
    }

    fn state(&self, status: &Value, name: &str) -> String {
        let links = status["bonds"][0]["links"].as_array().unwrap();
        let link = links.iter().rfind(|link| link["link"] == name);
        link.map_or_else(String::new, |link| link["state"].as_str().unwrap().to_owned())
    }

    /// Silence, the end of the link, and its return.
    pub(crate) fn cut_and_return(&self) {
        self.relay.set(Path::Silent);
        self.connecting.wait_for(&format!("{}: suspect after ", self.cut));
        self.relay.set(Path::Closed);
        self.connecting.wait_for(&format!("{}: down: ", self.cut));
        self.download.assert_goes_on();
        self.relay.set(Path::Open);
        self.connecting.wait_for(&format!("{}: up", self.cut));
    }

    /// A file of the client's.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.client.home().join(name)
    }
}

/// The lines of a recording.
fn lines(path: &FilePath) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until the recording has so many bytes more than now.
#[track_caller]
pub(crate) fn wait_for_growth(path: &FilePath, bytes: u64) {
    let length = || fs::metadata(path).map_or(0, |found| found.len());
    let (deadline, before) = (Instant::now() + PATIENCE, length());
    while length() < before + bytes {
        assert!(Instant::now() < deadline, "{} stays at {} bytes", path.display(), length());
        thread::sleep(LOOK_INTERVAL);
    }
}

#[test]
fn a_recording_has_every_links_figures_and_what_happened() {
    let cut = Cut::start(&["--record", "HOME/record"]);
    let path = cut.file("record");
    wait_for_growth(&path, 10_000);
    cut.cut_and_return();
    wait_for_growth(&path, 10_000);
    let status = wait_for(&cut.client, |_| true);
    assert_eq!(status["recording"]["file"], path.to_str().unwrap());
    assert_eq!(
        (&status["recording"]["skipped_lines"], &status["recording"]["ended"]),
        (&0.into(), &Value::Null)
    );
    let shown = cut.client.run(&["status"]).assert_code(0).stdout;
    assert!(shown.contains(&format!("  recording to {}: ", path.display())), "{shown}");
    cut.connecting.signal(Signal::INT);
    cut.connecting.wait().assert_code(130);

    let lines = lines(&path);
    let header = &lines[0]["bondwire_recording"];
    assert_eq!((&header["version"], &header["interval_ms"]), (&1.into(), &100.into()), "{header}");
    assert_eq!((&header["name"], &header["command"]), (&"connect".into(), &"connect".into()));
    assert_eq!(lines.last().unwrap()["end"]["skipped_lines"], 0);
    // Time goes on, and so do counters.
    let samples: Vec<_> = lines.iter().filter_map(|line| line.get("sample")).collect();
    let seconds = |sample: &Value| sample["seconds"].as_f64().unwrap();
    assert!(samples.windows(2).all(|pair| seconds(pair[0]) < seconds(pair[1])));
    let received = |sample: &Value, name: &str| {
        // There is no bond before the first link is up, and none when it has been closed.
        let links = sample["bonds"][0]["links"].as_array().into_iter().flatten();
        let of_link = links.filter(|link| link["link"] == name && link["id"].is_u64());
        of_link.map(|link| link["received_bytes"].as_u64().unwrap()).max().unwrap_or_default()
    };
    for name in [&cut.steady, &cut.cut] {
        assert!(samples.iter().any(|sample| received(sample, name) > 100_000), "{name}");
    }
    let events: Vec<_> = lines.iter().filter_map(|line| line.get("event")).collect();
    let of_cut = |state: &str| {
        let at = events.iter().find(|event| event["link"] == cut.cut.as_str() && event["state"] == state);
        let event = at.unwrap_or_else(|| panic!("{state} is missing in {events:#?}"));
        assert!(event["id"].is_u64(), "{event}");
        event["seconds"].as_f64().unwrap()
    };
    assert!(of_cut("suspect") <= of_cut("closed"));
    assert!(!events.iter().any(|event| event["link"] == cut.steady.as_str() && event["state"] == "closed"));
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_bond() {
    let cut = Cut::start(&["--record", "/dev/full"]);
    let warning =
        cut.connecting.wait_for("recording to /dev/full has ended, the bond goes on: No space left");
    assert!(warning.contains("WARN"), "{warning}");
    let ended =
        |status: &Value| status["recording"]["ended"].as_str().is_some_and(|why| why.contains("No space"));
    let status = wait_for(&cut.client, ended);
    assert_eq!(status["recording"]["written_lines"], 0);
    cut.cut_and_return();
    cut.download.assert_goes_on();
    cut.connecting.signal(Signal::INT);
    let ended = cut.connecting.wait().assert_code(130);
    assert!(!ended.stderr.contains("recording"), "said once: {}", ended.stderr);
}

#[test]
fn a_disk_that_fills_up_keeps_what_it_has() {
    if !able(&["unshare", "mount"], true) {
        return;
    }
    let (server, client) = (User::new(), User::new());
    let (_listening, link) = server.listen(&["--allow", &client.public_key()]);
    let disk = client.home().join("disk");
    fs::create_dir(&disk).unwrap();
    let (at, peer) = (disk.display(), server.public_key());
    let script = format!(
        "mount -t tmpfs -o size=32k tmpfs {at} && exec {PROGRAM} connect {link} --peer {peer} --record {at}/record"
    );
    let mut unshare = client.command(FilePath::new("unshare"));
    let connecting = Running::start(unshare.args(["--mount", "sh", "-c", &script]).stdin(Stdio::null()));
    connecting.wait_for("has ended, the bond goes on: No space left");
    let status = wait_for(&client, |status| status["bonds"][0]["links"][0]["state"] == "active");
    assert!(status["recording"]["written_lines"].as_u64().unwrap() > 10, "{status}");
    // The disk is that process's own.
    let inside = format!("/proc/{}/root{at}/record", connecting.id());
    let recorded = fs::read(inside).unwrap();
    assert!(recorded.len() <= 32 << 10 && recorded.starts_with(b"{\"bondwire_recording\":{"));
}

#[test]
fn a_pipe_that_nobody_empties_holds_up_nothing() {
    let user = User::new();
    let fifo = |user: &User| {
        let path = user.home().join("fifo");
        run(Command::new("mkfifo").arg(&path));
        path
    };
    let path = fifo(&user);
    let (server, link) = {
        let server = User::new();
        let listening = server.listen(&["--allow", &user.public_key()]);
        (server, listening)
    };
    let key = server.public_key();
    let arguments = ["connect", &link.1, "--peer", &key, "--record", path.to_str().unwrap()];
    let late = user.run(&arguments).assert_code(3);
    assert!(late.error_line().contains("fifo: it does not open within 5 s"), "{}", late.stderr);

    // One that is open, and is never read: it takes 64 kB. The end of the command waits for it, but not for long.
    let reader = fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(&path)
        .unwrap();
    let connecting = user.start(&arguments);
    connecting.wait_for("connected to ");
    let full = |status: &Value| status["recording"]["written_lines"].as_u64().unwrap();
    let mut before = 0;
    wait_for(&user, |status| {
        let now = full(status);
        let stands = now > 10 && now == before;
        before = now;
        stands
    });
    user.run(&["link", "pause", "all"]).assert_code(0);
    connecting.signal(Signal::INT);
    let ended = connecting.wait().assert_code(130);
    assert!(ended.stderr.contains("the file takes no more; its last lines are missing"), "{}", ended.stderr);
    drop(reader);
}

#[test]
fn only_recordings_are_written_over_and_kept_once() {
    let pair = Pair::start(&[], &[]);
    let user = &pair.client;
    let key = pair.server.public_key();
    let path = user.home().join("letter");
    fs::write(&path, "Dear Sir or Madam").unwrap();
    let connect = |file: &str| user.run(&["connect", &pair.link, "--peer", &key, "--record", file]);
    let ended = connect(path.to_str().unwrap()).assert_code(3);
    assert!(ended.error_line().contains("letter: it is there and is no recording; name another file"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "Dear Sir or Madam");
    let nowhere = connect("/nowhere/record").assert_code(3);
    assert!(
        nowhere.error_line().contains("cannot record to /nowhere/record: No such file"),
        "{}",
        nowhere.stderr
    );
    let piped = user.run(&["connect", "server", "-W", "a:1", "--record", "x"]).assert_code(2);
    assert!(piped.error_line().contains("cannot be used with"), "{}", piped.stderr);
}

#[test]
fn a_service_does_as_its_file_says() {
    let (server, client) = (User::new(), User::new());
    let (_listening, link) = server.listen(&["--allow", &client.public_key()]);
    let (key, record) = (server.public_key(), client.home().join("record"));
    let at = record.to_str().unwrap();
    let connect =
        ["connect", &link, "--peer", &key, "--record", at, "--metrics=127.0.0.1:0", "--print-config"];
    let text = client.run(&connect).assert_code(0).stdout;
    assert!(
        text.contains(&format!("\nrecord = \"{at}\"\n")) && text.contains("\nmetrics = \"127.0.0.1:0\"\n"),
        "{text}"
    );
    let config = write_config(&client, "client.toml", &text);
    let running = client.start(&["up", config.to_str().unwrap()]);
    let metrics = crate::metrics::address(&running);
    running.wait_for("connected to ");
    assert!(crate::metrics::scrape(metrics).contains("\nbondwire_bonds 1.0\n"));
    write_config(&client, "client.toml", &text.replace("record = ", "# record = "));
    running.signal(Signal::HUP);
    running.wait_for("record or metrics cannot change while the service runs; restart it");
    wait_for_growth(&record, 3000);
    running.signal(Signal::TERM);
    running.wait().assert_code(0);
    let lines = lines(&record);
    assert_eq!(lines[0]["bondwire_recording"]["command"], "up");
    assert_eq!(lines.last().unwrap()["end"]["skipped_lines"], 0);
    let wrong = write_config(&client, "wrong.toml", "metrics = \"here\"\n[listen]\nlinks = [\"tcp:*\"]\n");
    let faulty = client.run(&["check", wrong.to_str().unwrap()]).assert_code(3);
    assert!(faulty.error_line().contains("wrong.toml:1:"), "{}", faulty.stderr);
}
