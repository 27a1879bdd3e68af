//! The monitor as a user sees it: on a terminal of tmux, with keys.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path as FilePath, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::control::wait_for;
use crate::download::{Download, endless_server};
use crate::pair::{Pair, address_behind};
use crate::relay::{Path, Relay};
use crate::tools::able;
use crate::user::{PATIENCE, PROGRAM, Running, User};

/// Time between two looks at a screen, so that looking does not take what the monitor needs.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A terminal of `user`, 80 by 24, which ends when dropped.
struct Tmux<'a> {
    user: &'a User,
    /// Where its server listens: one that is about to end must not be met again.
    socket: String,
}

impl<'a> Tmux<'a> {
    /// Runs the monitor with `arguments` below a shell, which writes down how the terminal was set before and after, and says with
    /// which code the monitor ended.
    fn monitor(user: &'a User, arguments: &str) -> Self {
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let tmux = Self { user, socket: format!("tmux{}", STARTED.fetch_add(1, Ordering::Relaxed)) };
        let script = format!(
            "stty -g > before; sh -c 'echo $$ > pid; exec {PROGRAM} monitor {arguments}'; echo \"ended: $?\"; \
             stty -g > after; echo settled; exec cat"
        );
        let home = user.home().to_str().unwrap();
        tmux.run(&["new-session", "-d", "-x", "80", "-y", "24", "-c", home, &script]);
        tmux
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let mut command = self.user.command(FilePath::new("tmux"));
        command.env("LC_ALL", "C.UTF-8").env_remove("TMUX").env_remove("NO_COLOR");
        command.args(["-u", "-f", "/dev/null", "-S"]).arg(self.file(&self.socket)).args(arguments);
        command.output().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.user.home().join(name)
    }

    fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as `expected` says.
    #[track_caller]
    fn wait_for(&self, expected: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if expected(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "{screen}");
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Waits until the line of the table about `link` has the word `state`.
    #[track_caller]
    fn wait_for_link(&self, link: &str, state: &str) -> String {
        self.wait_for(|screen| table_line(screen, link).is_some_and(|line| line.contains(state)))
    }

    fn key(&self, key: &str) {
        self.run(&["send-keys", key]);
    }

    fn signal(&self, signal: Signal) {
        let pid = std::fs::read_to_string(self.file("pid")).unwrap().trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// The monitor has ended with `code`, and the terminal is as it was.
    #[track_caller]
    fn assert_given_back(&self, code: i32) {
        let screen = self.wait_for(|screen| screen.contains("settled"));
        assert!(screen.contains(&format!("ended: {code}\n")), "{screen}");
        let read = |name| std::fs::read_to_string(self.file(name)).unwrap();
        assert_eq!(read("before"), read("after"));
        let modes = "#{alternate_on} #{cursor_flag} #{mouse_any_flag} #{keypad_cursor_flag}";
        assert_eq!(self.run(&["display-message", "-p", modes]).trim(), "0 1 0 0");
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        self.output(&["kill-server"]);
    }
}

/// The line about `link` in the table: it begins with a mark and a number, or with none.
fn table_line<'a>(screen: &'a str, link: &str) -> Option<&'a str> {
    let is_row = |line: &&str| line.get(4..).is_some_and(|rest| rest.starts_with(link));
    screen.lines().find(is_row)
}

fn policy_of(status: &Value, link: &str) -> Option<String> {
    let links = status["bonds"][0]["links"].as_array()?;
    let found = links.iter().find(|found| found["link"] == link)?;
    found["policy"].as_str().map(str::to_owned)
}

#[test]
fn the_screen_shows_a_cut_link_and_keys_change_links() {
    if !able(&["tmux"], false) {
        return;
    }
    let (server, client) = (User::new(), User::new());
    let (_listening, direct) = server.listen(&["--allow", &client.public_key()]);
    let address: SocketAddr = direct.trim_start_matches("tcp:").parse().unwrap();
    let relay = Relay::start(address);
    // Slow enough to leave the machine to the others.
    let links = [address, relay.address].map(|address| format!("tcp:{address},cap=2MB"));
    let forward = format!("127.0.0.1:0:{}", endless_server());
    let peer = server.public_key();
    let arguments = ["connect", &links[0], &links[1], "--peer", &peer, "-L", &forward];
    let connecting = client.start(&arguments);
    let local = address_behind("forwarding ", &connecting.wait_for("forwarding 127.0.0.1:"));
    connecting.wait_for("connected to ");
    let download = Download::start(local);

    let (steady, cut) = (format!("tcp {address}"), format!("tcp {}", relay.address));
    let tmux = Tmux::monitor(&client, "");
    tmux.wait_for_link(&steady, "active");
    tmux.wait_for_link(&cut, "active");
    // Both carry a part of the download.
    let carries = |screen: &str| {
        [&steady, &cut].iter().all(|link| {
            table_line(screen, link).is_some_and(|line| line.contains(" MB ") && line.ends_with('%'))
        })
    };
    let screen = tmux.wait_for(carries);
    assert!(screen.contains('█') || screen.contains('▇'), "{screen}");
    relay.set(Path::Silent);
    let screen = tmux.wait_for_link(&cut, "suspect");
    assert!(table_line(&screen, &steady).unwrap().contains("active"), "{screen}");
    tmux.wait_for(|screen| screen.contains(" WARN ") && screen.contains("ms of silence"));
    relay.set(Path::Closed);
    tmux.wait_for_link(&cut, "closed");
    download.assert_goes_on();
    relay.set(Path::Open);
    tmux.wait_for_link(&cut, "active");
    tmux.wait_for(carries);

    // Keys are about the link that is marked: the first one to begin with, and rows stay where they are.
    let screen = tmux.screen();
    let marked = screen.lines().find(|line| line.starts_with('>')).unwrap();
    let (first, second) = if marked.contains(&steady) { (&steady, &cut) } else { (&cut, &steady) };
    tmux.key("p");
    wait_for(&client, |status| policy_of(status, first).as_deref() == Some("paused"));
    tmux.wait_for(|screen| screen.contains("    policy paused here"));
    download.assert_goes_on();
    // Bytes that are no key at all, and one that is half of one.
    tmux.run(&["send-keys", "-H", "00", "01", "ff", "1b", "5b", "39", "39", "39", "7e", "c3"]);
    tmux.key("x");
    tmux.key("p");
    wait_for(&client, |status| policy_of(status, first).as_deref() == Some("active"));
    tmux.key("Down");
    tmux.key("b");
    wait_for(&client, |status| policy_of(status, second).as_deref() == Some("backup"));
    tmux.wait_for(|screen| screen.contains("    policy backup here"));
    tmux.key("q");
    tmux.assert_given_back(0);
    download.assert_goes_on();
}

#[test]
fn the_terminal_is_given_back_however_it_ends() {
    if !able(&["tmux"], false) {
        return;
    }
    let pair = Pair::start(&[], &[]);
    pair.connecting.wait_for("connected to ");
    type End = (&'static str, i32, fn(&Tmux<'_>));
    let ends: [End; 6] = [
        ("q", 0, |tmux| tmux.key("q")),
        ("Esc", 0, |tmux| tmux.key("Escape")),
        ("Ctrl-C", 130, |tmux| tmux.key("C-c")),
        ("SIGINT", 130, |tmux| tmux.signal(Signal::INT)),
        ("SIGTERM", 130, |tmux| tmux.signal(Signal::TERM)),
        ("SIGHUP", 130, |tmux| tmux.signal(Signal::HUP)),
    ];
    for (name, code, end) in ends {
        let tmux = Tmux::monitor(&pair.client, "connect");
        tmux.wait_for(|screen| screen.contains("bond 1 "));
        assert_eq!(tmux.run(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]).trim(), "1 0");
        println!("{name}");
        end(&tmux);
        tmux.assert_given_back(code);
    }
}

#[test]
fn a_terminal_of_another_size_has_what_fits() {
    if !able(&["tmux"], false) {
        return;
    }
    let pair = Pair::start(&[], &[]);
    pair.connecting.wait_for("connected to ");
    let tmux = Tmux::monitor(&pair.client, "--interval 0.25");
    tmux.wait_for(|screen| screen.contains("rtt ms share\n"));
    tmux.run(&["resize-window", "-x", "120", "-y", "40"]);
    tmux.wait_for(|screen| screen.contains("crc stalls\n"));
    tmux.run(&["resize-window", "-x", "20", "-y", "5"]);
    tmux.wait_for(|screen| screen.starts_with("too small: 20x5\n"));
    tmux.run(&["resize-window", "-x", "60", "-y", "20"]);
    tmux.wait_for(|screen| screen.contains("in/s rtt ms share\n"));
    tmux.key("?");
    tmux.wait_for(|screen| screen.contains("p, space "));
    tmux.key("?");
    tmux.wait_for(|screen| screen.contains("bond 1 "));
}

#[test]
fn a_command_that_ends_is_waited_for() {
    if !able(&["tmux"], false) {
        return;
    }
    let (server, client) = (User::new(), User::new());
    let (_listening, link) = server.listen(&["--allow", &client.public_key()]);
    let peer = server.public_key();
    let start = || -> Running {
        let running = client.start(&["connect", &link, "--peer", &peer]);
        running.wait_for("connected to ");
        running
    };
    let first = start();
    let tmux = Tmux::monitor(&client, "");
    let is_of = |screen: &str, pid: u32| screen.contains(&format!("pid {pid},"));
    tmux.wait_for(|screen| is_of(screen, first.id()) && screen.contains(" active "));
    first.signal(Signal::INT);
    first.wait().assert_code(130);
    let screen = tmux.wait_for(|screen| screen.starts_with("connect: no answer for "));
    assert!(screen.contains("waiting for it"), "{screen}");
    tmux.key("p");
    tmux.wait_for(|screen| screen.contains("not done: connect does not answer"));
    let second = start();
    tmux.wait_for(|screen| is_of(screen, second.id()) && screen.contains(" active "));
    tmux.key("q");
    tmux.assert_given_back(0);
}

/// A control socket behind which there is no Bondwire: it says hello, and answers each line with the same.
fn impostor(user: &User, answer: impl Into<String>) {
    let answer = answer.into();
    let folder = user.home().join("bondwire");
    std::fs::create_dir_all(&folder).unwrap();
    let listener = UnixListener::bind(folder.join("impostor.sock")).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let hello =
                json!({ "protocol": 1, "version": "0", "name": "impostor", "command": "connect", "pid": 1 });
            let _ = writeln!(stream, "{}", json!({ "bondwire": hello }));
            let requests = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            for _ in requests {
                let _ = writeln!(stream, "{answer}");
            }
        }
    });
}

#[test]
fn nonsense_instead_of_an_answer_is_told() {
    let user = User::new();
    impostor(&user, "HTTP/1.1 400 Bad Request");
    let ended = user.run(&["monitor", "--once", "impostor"]).assert_code(3);
    assert!(ended.error_line().contains("sent what is no answer"), "{}", ended.stderr);
    let user = User::new();
    impostor(&user, "x".repeat(17 << 20));
    let ended = user.run(&["monitor", "--once"]).assert_code(3);
    assert!(ended.error_line().contains("sent a line of more than"), "{}", ended.stderr);
    let user = User::new();
    impostor(&user, r#"{"id":null,"result":{"bonds":7}}"#);
    let ended = user.run(&["monitor", "--once"]).assert_code(3);
    assert!(ended.error_line().contains("a status of another version"), "{}", ended.stderr);
    if able(&["tmux"], false) {
        let tmux = Tmux::monitor(&user, "");
        tmux.wait_for(|screen| screen.contains("waiting for an answer: its status cannot be read"));
        tmux.key("q");
        tmux.assert_given_back(0);
    }
}

#[test]
fn once_prints_a_table_and_the_screen_needs_a_terminal() {
    let pair = Pair::start(&[], &[]);
    pair.connecting.wait_for("connected to ");
    wait_for(&pair.client, |status| status["bonds"][0]["links"].as_array().unwrap().len() == 2);
    pair.client.run(&["link", "pause", "0"]).assert_code(0);
    let table = pair.client.run(&["monitor", "--once"]).assert_code(0).stdout;
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("connect: bondwire connect, pid "), "{table}");
    assert!(lines[1].starts_with("bond 1: bwpub1"), "{table}");
    assert!(lines[2].starts_with("#  link ") && lines[2].ends_with(" crc errors  stalls"), "{table}");
    assert!(lines[3].starts_with("0  tcp 127.0.0.1:") && lines[3].contains("  paused  "), "{table}");
    assert_eq!(lines[4], "    policy paused here");
    assert!(lines[5].starts_with("1  tcp 127.0.0.1:"), "{table}");

    let refused = pair.client.run(&["monitor"]).assert_code(2);
    assert!(refused.error_line().contains("--once prints a table"), "{}", refused.stderr);
    let by_status = pair.client.run(&["status", "nobody"]).assert_code(3);
    let unknown = pair.client.run(&["monitor", "nobody", "--once"]).assert_code(3);
    assert_eq!(unknown.error_line(), by_status.error_line());
    let hasty = pair.client.run(&["monitor", "--interval", "0"]).assert_code(2);
    assert!(hasty.error_line().contains("must be from 0.25 to 3600 seconds"), "{}", hasty.stderr);
}
