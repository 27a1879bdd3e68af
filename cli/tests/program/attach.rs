//! Devices that are handed to a running service: `bondwire attach` and `detach`, as udev has them called.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Instant;

use bondwire_line::{End, Noise, PtyLine};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::up::write_config;
use crate::user::{Ended, PATIENCE, Running, User};

/// Calls of a storm, and how many clients make them at once.
const STORM_CALLS: usize = 1000;
const STORM_CLIENTS: usize = 50;

/// A service that connects, and a line whose near end is plugged in at it.
struct Service {
    user: User,
    running: Running,
    line: PtyLine,
    peer: String,
}

/// A service with this configuration.
fn serve(user: &User, name: &str, text: &str) -> Running {
    let config = write_config(user, &format!("{name}.toml"), text);
    let running = user.start(&["up", config.to_str().unwrap()]);
    running.wait_for("public key of this host");
    running
}

impl Service {
    /// `text` names the peer's key as PEER, and the near end of the line as PORT.
    fn start(text: &str) -> Self {
        let (user, peer) = (User::new(), User::new().public_key());
        let line = PtyLine::open(Noise::NONE, 1).unwrap();
        let port = line.path(End::A).unwrap().display().to_string();
        let running = serve(&user, "pc", &text.replace("PEER", &peer).replace("PORT", &port));
        let service = Self { user, running, line, peer };
        let deadline = Instant::now() + PATIENCE;
        while service.dialled().len() < text.matches("[connect.").count() {
            assert!(Instant::now() < deadline, "{:?}", service.dialled());
        }
        service
    }

    fn port(&self) -> String {
        self.line.path(End::A).unwrap().display().to_string()
    }

    fn attach(&self, arguments: &[&str]) -> Ended {
        self.user.run(&[&["attach", &self.port()], arguments].concat())
    }

    fn detach(&self, arguments: &[&str]) -> String {
        self.user.run(&[&["detach", &self.port()], arguments].concat()).assert_code(0).stdout
    }

    /// The LINKs that are dialled, bond by bond, in the order of the peers' names.
    fn dialled(&self) -> Vec<(String, Vec<String>)> {
        let shown = self.user.run(&["status", "--json"]).assert_code(0).stdout;
        let status: Value = serde_json::from_str(&shown).unwrap();
        let bond = |bond: &Value| {
            let links = bond["links"].as_array().unwrap().iter();
            let links = links.filter_map(|link| link["dialled"].as_str().map(str::to_owned)).collect();
            (bond["peer_name"].as_str().unwrap().to_owned(), links)
        };
        let mut bonds: Vec<_> = status[0]["bonds"].as_array().into_iter().flatten().map(bond).collect();
        bonds.sort();
        bonds
    }

    /// Waits until these are dialled, and no others.
    #[track_caller]
    fn wait_for(&self, expected: &[(&str, &[&str])]) {
        let deadline = Instant::now() + PATIENCE;
        let expected: Vec<(String, Vec<String>)> = expected
            .iter()
            .map(|(name, links)| ((*name).to_owned(), links.iter().map(|&link| link.to_owned()).collect()))
            .collect();
        loop {
            let dialled = self.dialled();
            if dialled == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{dialled:?} instead of {expected:?}");
        }
    }
}

const OPEN: &str = "[connect.server]\npeer = \"PEER\"\nlinks = []\nattach = [\"serial:*,baud=921600\"]\n";
const DEAF: &str = "[connect.server]\npeer = \"PEER\"\nlinks = [\"tcp:127.0.0.1:1\"]\n";

#[test]
fn an_attached_port_carries_the_bond_until_it_is_detached() {
    let (server, client) = (User::new(), User::new());
    let line = PtyLine::open(Noise::NONE, 1).unwrap();
    let port = |end| line.path(end).unwrap().display().to_string();
    let text = format!(
        "[listen]\nlinks = [\"tcp:127.0.0.1:0\", \"serial:{},baud=921600\"]\nallow = [\"{}\"]\n",
        port(End::B),
        client.public_key()
    );
    let listening = serve(&server, "server", &text);
    let link = listening.link();
    let text = OPEN.replace("PEER", &server.public_key()).replace("[]", &format!("[\"{link}\"]"));
    let connecting = serve(&client, "pc", &text);
    connecting.wait_for("connected to ");
    let said = client.run(&["attach", &port(End::A)]).assert_code(0).stdout;
    let link = format!("serial:{},baud=921600", port(End::A));
    assert_eq!(said, format!("{}: attached to bond 1 as {link}\n", port(End::A)));
    connecting.wait_for(&format!("serial {},baud=921600: up", port(End::A)));
    let said = client.run(&["attach", &port(End::A)]).assert_code(0).stdout;
    assert_eq!(said, format!("{}: attached already to bond 1 as {link}\n", port(End::A)));
    // Still there: this is what systemd calls when the service stops.
    client.run(&["detach", "--if-gone", &port(End::A)]).assert_code(0);
    let status = client.run(&["status", "--json"]).assert_code(0).stdout;
    assert!(status.contains(&link), "{status}");
    assert_eq!(
        client.run(&["detach", &port(End::A)]).assert_code(0).stdout,
        format!("{}: detached\n", port(End::A))
    );
    let said = client.run(&["detach", &port(End::A)]).assert_code(0).stdout;
    assert_eq!(said, format!("{}: not attached\n", port(End::A)));
    // Pulled while it is attached, and plugged in again.
    client.run(&["attach", &port(End::A)]).assert_code(0);
    connecting.wait_for(": up");
    let pulled = port(End::A);
    line.hang_up(End::A);
    let said = client.run(&["detach", "--if-gone", &pulled]).assert_code(0).stdout;
    assert_eq!(said, format!("{pulled}: detached\n"));
    let ended = client.run(&["attach", &pulled]).assert_code(8);
    assert!(ended.error_line().contains("not plugged in, or not any more"), "{}", ended.stderr);
    let again = line.plug_in(End::A).unwrap().display().to_string();
    client.run(&["attach", &again]).assert_code(0);
    connecting.wait_for(&format!("serial {again},baud=921600: up"));
}

#[test]
fn a_bond_that_says_nothing_takes_it_if_it_is_the_only_one() {
    let service = Service::start(DEAF);
    service.attach(&[]).assert_code(0);
    let link = format!("serial:{}", service.port());
    service.wait_for(&[("server", &["tcp:127.0.0.1:1", &link])]);
    service.detach(&[]);
    service.wait_for(&[("server", &["tcp:127.0.0.1:1"])]);
}

#[test]
fn of_two_bonds_the_one_that_says_so_takes_it_and_if_both_do_the_user_has_to_say() {
    let section = |name: &str, attach: &str| DEAF.replace("server", name) + attach;
    let takes = "attach = [\"usb:\", \"serial:*\"]\n";
    let service = Service::start(&(section("a", "") + &section("b", takes)));
    let link = format!("serial:{}", service.port());
    let tcp = "tcp:127.0.0.1:1";
    service.attach(&[]).assert_code(0);
    service.wait_for(&[("a", &[tcp]), ("b", &[tcp, &link])]);
    service.detach(&[]);
    let peer = &service.peer;
    let reload = |text: String| {
        write_config(&service.user, "pc.toml", &text.replace("PEER", peer));
        service.running.signal(Signal::HUP);
        service.running.wait_for("is read again");
    };
    reload(section("a", takes) + &section("b", takes));
    let ended = service.attach(&[]).assert_code(3);
    let line = ended.error_line();
    assert!(line.contains("(a)") && line.contains("(b)") && line.contains("--bond"), "{line}");
    service.attach(&["--bond", "1"]).assert_code(0);
    service.detach(&[]);
    reload(section("a", "attach = []\n") + &section("b", "attach = [\"usb:\"]\n"));
    let ended = service.attach(&[]).assert_code(8);
    assert!(ended.error_line().contains("no bond here takes it"), "{}", ended.stderr);
    let ended = service.attach(&["--bond", "9"]).assert_code(3);
    assert!(ended.error_line().contains("bond 9"), "{}", ended.stderr);
}

#[test]
fn what_a_link_carries_already_is_not_added_and_a_new_bond_goes_on_with_it() {
    let text = "[connect.server]\npeer = \"PEER\"\nlinks = [\"serial:PORT,tier=1\"]\n";
    let service = Service::start(text);
    let named = format!("serial:{},tier=1", service.port());
    let said = service.attach(&[]).assert_code(0).stdout;
    assert!(said.contains(&format!("attached already to bond 1 as {named}")), "{said}");
    // What the file names stays.
    service.detach(&[]);
    service.wait_for(&[("server", &[&named])]);

    let service = Service::start(DEAF);
    service.attach(&[]).assert_code(0);
    let text = DEAF.replace("PEER", &service.peer) + "cipher = \"chacha\"\n";
    write_config(&service.user, "pc.toml", &text);
    service.running.signal(Signal::HUP);
    service.running.wait_for("leads another way");
    let link = format!("serial:{}", service.port());
    service.wait_for(&[("server", &["tcp:127.0.0.1:1", &link])]);
    service.detach(&[]);
    service.wait_for(&[("server", &["tcp:127.0.0.1:1"])]);
}

#[test]
fn a_port_that_is_listened_on_is_left_alone() {
    let text = "[listen]\nlinks = [\"serial:PORT\"]\nallow = [\"PEER\"]\n[connect.server]\npeer = \"PEER\"\nlinks = \
                [\"tcp:127.0.0.1:1\"]\n";
    let service = Service::start(text);
    let said = service.attach(&[]).assert_code(0).stdout;
    assert!(said.contains("attached already to the listening end as serial:"), "{said}");
    service.wait_for(&[("server", &["tcp:127.0.0.1:1"])]);
}

/// Calls over one connection to the control socket of `user`.
fn calls(user: &User, request: &Value, count: usize) -> Vec<Value> {
    let mut stream = UnixStream::connect(user.home().join("bondwire/pc.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let mut call = || {
        writeln!(stream, "{request}").unwrap();
        serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap()
    };
    (0..count).map(|_| call()).collect()
}

#[test]
fn a_storm_of_events_for_one_device_adds_one_link() {
    let service = Service::start(OPEN);
    let request = json!({ "command": "attach", "device": service.port() });
    let answers: Vec<Value> = thread::scope(|scope| {
        let client = || calls(&service.user, &request, STORM_CALLS / STORM_CLIENTS);
        let clients: Vec<_> = (0..STORM_CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(answers.len(), STORM_CALLS);
    let is_new = |answer: &&Value| answer["result"]["new"] == true;
    assert_eq!(
        answers.iter().filter(is_new).count(),
        1,
        "{:?}",
        answers.iter().find(|a| a["error"].is_object())
    );
    assert!(answers.iter().all(|answer| answer["result"]["bond"] == 1));
    let link = format!("serial:{},baud=921600", service.port());
    service.wait_for(&[("server", &[&link])]);
    // And back and forth.
    for _ in 0..20 {
        assert_eq!(service.detach(&[]), format!("{}: detached\n", service.port()));
        service.attach(&[]).assert_code(0);
    }
    service.wait_for(&[("server", &[&link])]);
}

#[test]
fn without_a_service_there_is_nothing_to_attach_to_and_nothing_to_detach() {
    let user = User::new();
    let ended = user.run(&["attach", "ttyUSB0"]).assert_code(3);
    assert!(ended.error_line().contains("no bondwire of this user runs here"), "{}", ended.stderr);
    let said = user.run(&["detach", "ttyUSB0"]).assert_code(0).stdout;
    assert_eq!(said, "ttyUSB0: not attached\n");
}

#[test]
fn what_is_no_device_is_told() {
    let service = Service::start(OPEN);
    let attach =
        |device: &str, code| service.user.run(&["attach", device]).assert_code(code).error_line().to_owned();
    assert!(attach("tty USB0", 2).contains("is no device"));
    assert!(attach("/dev/bus/usb/001/002", 2).contains("as 1-2.3"));
    assert!(attach("250-1.2", 8).contains("not plugged in"));
    let file = service.user.home().join("pc.toml");
    assert!(attach(file.to_str().unwrap(), 3).contains("is no serial port"));
    let user = User::new();
    let config = "[connect.a]\npeer = \"PEER\"\nlinks = [\"tcp:h\"]\nattach = [\"tcp:h\"]\n";
    let path = write_config(&user, "pc.toml", &config.replace("PEER", &user.public_key()));
    let ended = user.run(&["check", path.to_str().unwrap()]).assert_code(3);
    assert!(ended.error_line().contains(":4:11: tcp:h: only cables are attached"), "{}", ended.stderr);
}
