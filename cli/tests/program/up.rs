//! Services: bonds of a configuration file, which follow it while they run.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::pair::{address_behind, connect, echo_server, free_port, get, page, server, web_server};
use crate::user::{PATIENCE, PROGRAM, Running, User};

/// Bytes of a download that goes on while things change.
const DOWNLOAD_BYTES: u64 = 32 << 20;

/// Writes a configuration of `user` as an editor would: whole, or not at all.
pub(crate) fn write_config(user: &User, name: &str, text: &str) -> PathBuf {
    let (path, new) = (user.home().join(name), user.home().join("new"));
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::rename(new, &path).unwrap();
    path
}

fn start(user: &User, config: &Path) -> Running {
    user.start(&["up", config.to_str().unwrap()])
}

/// Two services with a bond between them.
struct Services {
    server: User,
    client: User,
    listening: Running,
    connecting: Running,
    link: String,
}

impl Services {
    /// `listen` and `connect` stand behind what both need; `forwards` are those of the client.
    fn start(listen: &str, connect: &str, forwards: &[&str]) -> Self {
        let (server, client) = (User::new(), User::new());
        let text = format!(
            "[listen]\nlinks = [\"tcp:127.0.0.1:0\"]\nallow = [\"{}\"]\n{listen}",
            client.public_key()
        );
        let listening = start(&server, &write_config(&server, "server.toml", &text));
        let link = listening.link();
        let config = write_config(&client, "client.toml", &Self::text(&server, &[&link], forwards, connect));
        let connecting = start(&client, &config);
        // From here on it hears signals.
        connecting.wait_for("public key of this host");
        Self { server, client, listening, connecting, link }
    }

    fn text(server: &User, links: &[&str], forwards: &[&str], rest: &str) -> String {
        let key = server.public_key();
        format!("[connect.server]\npeer = \"{key}\"\nlinks = {links:?}\nforwards = {forwards:?}\n{rest}")
    }

    /// Has the client read another configuration, and waits until it says how that went.
    fn reload(&self, links: &[&str], forwards: &[&str]) -> String {
        self.reload_text(&Self::text(&self.server, links, forwards, ""))
    }

    fn reload_text(&self, text: &str) -> String {
        write_config(&self.client, "client.toml", text);
        self.connecting.signal(Signal::HUP);
        self.connecting.wait_for("client.toml")
    }

    /// The local end of the client's next forward.
    fn forward(&self) -> SocketAddr {
        address_behind("forwarding ", &self.connecting.wait_for("forwarding 127.0.0.1:"))
    }

    fn status(&self) -> Value {
        let shown = self.client.run(&["status", "client", "--json"]).assert_code(0).stdout;
        let [status] = &serde_json::from_str::<Vec<Value>>(&shown).unwrap()[..] else { panic!("{shown}") };
        status["bonds"][0].clone()
    }

    /// Waits until the client's links are these, as LINK and policy.
    fn wait_for_links(&self, expected: &[(&str, &str)]) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let bond = self.status();
            let mut links: Vec<_> = bond["links"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|link| link["state"] == "active")
                .map(|link| {
                    (link["dialled"].as_str().unwrap_or("joining or going"), link["policy"].as_str().unwrap())
                })
                .collect();
            links.sort_unstable();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            if links == expected {
                return bond;
            }
            assert!(Instant::now() < deadline, "{bond:#}");
        }
    }
}

/// Data that follows from its place.
fn byte(place: u64) -> u8 {
    (place ^ (place >> 8) ^ (place >> 16)) as u8
}

fn download_server() -> SocketAddr {
    server(|mut stream| {
        let data: Vec<u8> = (0..DOWNLOAD_BYTES).map(byte).collect();
        stream.write_all(&data)
    })
}

/// The rest of a download, of which `read` bytes are there.
fn finish_download(mut stream: TcpStream, read: u64) {
    let mut data = Vec::new();
    stream.read_to_end(&mut data).unwrap();
    assert_eq!(data.len() as u64 + read, DOWNLOAD_BYTES);
    assert!((read..).zip(&data).all(|(place, found)| byte(place) == *found));
}

/// A download that has begun, and goes on as far as it is read.
fn begin_download(local: SocketAddr) -> TcpStream {
    let mut stream = connect(local);
    let mut first = [0];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(first, [byte(0)]);
    stream
}

#[test]
fn two_services_forward_and_one_process_holds_several_bonds() {
    let (server, client) = (User::new(), User::new());
    let target = web_server(100_000);
    let key = client.public_key();
    let text = format!(
        "[listen]\nlinks = [\"tcp:127.0.0.1:0\"]\nallow = [\"{key}\"]\npermit-listen = [\"localhost:*\"]\n"
    );
    let listening = start(&server, &write_config(&server, "office.toml", &text));
    let link = listening.link();
    let there = server.public_key();
    let text = format!(
        "[peer.one]\nkey = \"{there}\"\nlinks = [\"{link}\"]\n\
         [connect.one]\ndiscover = false\nforwards = [\"-L 127.0.0.1:0:{target}\", \"-R 127.0.0.1:0:{target}\"]\n\
         [connect.two]\npeer = \"{there}\"\nlinks = [\"{link}\", \"{link},policy=backup\"]\n"
    );
    let config = write_config(&client, "home.toml", &text);
    let connecting = start(&client, &config);
    let local = address_behind("forwarding ", &connecting.wait_for("forwarding 127.0.0.1:"));
    assert_eq!(get(local), page(100_000), "whoever comes early waits for the bond");
    let remote = address_behind("forwarding ", &listening.wait_for("forwarding 127.0.0.1:"));
    assert_eq!(get(remote), page(100_000));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = client.run(&["status", "home", "--json"]).assert_code(0).stdout;
        let status: Value = serde_json::from_str(&shown).unwrap();
        let bonds = status[0]["bonds"].as_array().unwrap();
        assert_eq!(status[0]["command"], "up");
        assert_eq!(bonds.iter().map(|bond| &bond["peer_name"]).collect::<Vec<_>>(), ["one", "two"]);
        if bonds[1]["links"].as_array().unwrap().iter().filter(|link| link["state"] == "active").count() == 2
        {
            break;
        }
        assert!(Instant::now() < deadline, "{shown}");
    }
    let measured = client.run(&["speed", "two", "--seconds=1", "--omit=0", "--json"]).assert_code(0).stdout;
    let measured: Value = serde_json::from_str(&measured).unwrap();
    assert!(measured["startup_ms"].is_null(), "over the bond that runs: {measured}");
    client.run(&["stop", "home"]).assert_code(0);
    connecting.wait().assert_code(0);
    listening.signal(Signal::TERM);
    listening.wait().assert_code(0);
}

#[test]
fn a_reload_changes_links_and_forwards_while_data_flows() {
    let target = download_server().to_string();
    let echo = echo_server().to_string();
    let to_target = format!("-L 127.0.0.1:0:{target}");
    let to_echo = format!("-L 127.0.0.1:0:{echo}");
    let services = Services::start("", "", &[&to_target]);
    let (link, local) = (services.link.as_str(), services.forward());
    let download = begin_download(local);
    services.wait_for_links(&[(link, "active")]);

    // Another link, and the first one for emergencies.
    let (backup, second) = (format!("{link},policy=backup"), format!("{link},source=127.0.0.1"));
    assert!(services.reload(&[&backup, &second], &[&to_target, &to_echo]).contains("read again"));
    let bond = services.wait_for_links(&[(&backup, "backup"), (&second, "active")]);
    assert_eq!(bond["forwards"].as_array().unwrap().len(), 2);

    // The first link and the new forward go; a link that was added by hand stays.
    let by_hand = format!("{link},source=127.0.0.1,tier=3");
    services.client.run(&["link", "add", &by_hand, "--name", "client"]).assert_code(0);
    services.reload(&[&second], &[&to_target]);
    let bond = services.wait_for_links(&[(&by_hand, "active"), (&second, "active")]);
    assert_eq!(bond["forwards"].as_array().unwrap().len(), 1);
    finish_download(download, 1);
    assert_eq!(services.status()["number"], 1, "one bond from first to last");
}

#[test]
fn a_hundred_reloads_under_load_drop_nothing() {
    let target = download_server().to_string();
    let services = Services::start("", "", &[&format!("-L 127.0.0.1:0:{target}")]);
    let (link, local) = (services.link.clone(), services.forward());
    let to_target = format!("-L 127.0.0.1:0:{target}");
    let (second, echo) = (format!("{link},source=127.0.0.1"), format!("-L 127.0.0.1:0:{}", echo_server()));
    thread::scope(|scope| {
        let downloads = scope.spawn(|| (0..4).for_each(|_| finish_download(begin_download(local), 1)));
        for round in 0..100 {
            let policy = ["active", "backup", "paused"][round % 3];
            let (first, second) = (format!("{link},policy={policy}"), second.as_str());
            // A link that carries data is always left.
            let links = [&first, second];
            let forwards = [to_target.as_str(), &echo];
            let said = services.reload(&links, &forwards[..1 + round % 2]);
            assert!(said.contains("read again"), "{said}");
        }
        downloads.join().unwrap();
    });
    let bond = services.status();
    assert_eq!(bond["number"], 1, "{bond:#}");
}

#[test]
fn a_faulty_file_changes_nothing() {
    let target = web_server(1000).to_string();
    let to_target = format!("-L 127.0.0.1:0:{target}");
    let services = Services::start("", "", &[&to_target]);
    let (link, local) = (services.link.as_str(), services.forward());
    services.wait_for_links(&[(link, "active")]);
    let good = Services::text(&services.server, &[link], &[&to_target], "");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = format!("-L {}:{target}", taken.local_addr().unwrap());
    let cases = [
        ("[connect".to_owned(), "client.toml:1:"),
        (
            good.replace("forwards", "forward"),
            "client.toml:4:1: unknown key \"forward\"; did you mean \"forwards\"?",
        ),
        (Services::text(&services.server, &[link, link], &[], ""), "stands there twice"),
        (Services::text(&services.server, &[], &[], ""), "no link; name at least one"),
        (String::new(), "it opens no bond and takes none"),
        (format!("control = \"other\"\n{good}"), "control cannot change while the service runs; restart it"),
        (format!("key = \"missing\"\n{good}"), "no key file "),
    ];
    for (text, fault) in cases {
        let said = services.reload_text_for(&text, "everything stays as it was: ");
        assert!(said.contains(fault), "{text}: {said}");
    }
    // One thing that fails holds back all others.
    let said = services.reload_text_for(
        &Services::text(&services.server, &[&format!("{link},policy=backup")], &[&in_use], ""),
        "everything stays as it was: ",
    );
    assert!(said.contains("cannot listen on ") && said.contains("in use"), "{said}");
    let path = services.client.home().join("client.toml");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    services.connecting.signal(Signal::HUP);
    assert!(services.connecting.wait_for("stays as it was").contains("has mode 0666"));
    std::fs::remove_file(&path).unwrap();
    services.connecting.signal(Signal::HUP);
    assert!(services.connecting.wait_for("stays as it was").contains("there is no file"));

    let bond = services.wait_for_links(&[(link, "active")]);
    assert_eq!((&bond["number"], bond["forwards"].as_array().unwrap().len()), (&Value::from(1), 1));
    assert!(get(local) == page(1000));
    assert!(services.reload_text(&good).contains("read again"));
}

impl Services {
    fn reload_text_for(&self, text: &str, said: &str) -> String {
        write_config(&self.client, "client.toml", text);
        self.connecting.signal(Signal::HUP);
        self.connecting.wait_for(said)
    }
}

#[test]
fn a_bond_that_leads_another_way_is_opened_anew_and_forwards_stay_open() {
    let target = web_server(1000).to_string();
    let local = free_port();
    let to_target = format!("-L {local}:{target}");
    let services = Services::start("", "", &[&to_target]);
    services.connecting.wait_for("connected to ");
    assert!(get(local) == page(1000));
    let text = Services::text(&services.server, &[&services.link], &[&to_target], "cipher = \"chacha\"\n");
    services.reload_text(&text);
    let deadline = Instant::now() + PATIENCE;
    while services.status()["number"] != 2 {
        assert!(Instant::now() < deadline, "a new bond is opened");
    }
    assert!(get(local) == page(1000));
    // Its port is another forward's from now on.
    let moved = format!("-L {local}:{}", web_server(2000));
    let text = Services::text(&services.server, &[&services.link], &[&moved], "cipher = \"chacha\"\n");
    services.reload_text(&text);
    assert!(get(local) == page(2000));
}

#[test]
fn a_bond_that_the_file_has_no_longer_ends_and_a_new_one_begins() {
    let target = web_server(1000).to_string();
    let services = Services::start("", "", &[&format!("-L 127.0.0.1:0:{target}")]);
    let local = services.forward();
    assert!(get(local) == page(1000));
    let text =
        Services::text(&services.server, &[&services.link], &[&format!("-L 127.0.0.1:0:{target}")], "");
    write_config(&services.client, "client.toml", &text.replace("connect.server", "connect.other"));
    services.connecting.signal(Signal::HUP);
    let other = services.forward();
    services.connecting.wait_for("client.toml is read again");
    assert!(TcpStream::connect(local).is_err(), "its port is closed");
    assert_eq!(get(other), page(1000));
    assert_eq!(services.status()["peer_name"], "other");
}

#[test]
fn a_listener_follows_its_file_and_keeps_its_bonds() {
    let target = download_server().to_string();
    let services =
        Services::start("permit-open = [\"localhost:*\"]\n", "", &[&format!("-L 127.0.0.1:0:{target}")]);
    let download = begin_download(services.forward());
    let reload = |text: &str, said: &str| {
        write_config(&services.server, "server.toml", text);
        services.listening.signal(Signal::HUP);
        services.listening.wait_for(said)
    };
    let key = services.client.public_key();
    let text = |links: &str, rest: &str| format!("[listen]\nlinks = [{links}]\nallow = [\"{key}\"]\n{rest}");
    // Another port in place of the first, and nothing may be reached any more.
    reload(
        &text("\"tcp:127.0.0.1:0,iface=lo\"", "permit-open = []\n"),
        "no longer listening on tcp:127.0.0.1:0",
    );
    let line = services.listening.wait_for("listening on tcp ");
    let new = format!("tcp:{}", line.split("listening on tcp ").nth(1).unwrap().trim());
    services.listening.wait_for("is read again");
    let old = services.link.trim_start_matches("tcp:").to_owned();
    assert!(TcpStream::connect(old).is_err(), "the old port is closed");
    services.reload(&[&new], &[&format!("-L 127.0.0.1:0:{target}")]);
    services.wait_for_links(&[(&new, "active")]);
    let refused = connect(services.forward_of_status());
    assert_eq!((&refused).read(&mut [0]).unwrap_or(0), 0, "nothing may be reached");
    services.listening.wait_for("refused a forward to ");
    finish_download(download, 1);

    // A port that is taken changes nothing, not even who may come in.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = text(&format!("\"tcp:{}\"", taken.local_addr().unwrap()), "accept-any-peer = false\n");
    let said = reload(&in_use, "everything stays as it was: ");
    assert!(said.contains("in use"), "{said}");
    let said = reload(&text("\"tcp:127.0.0.1:0,iface=lo\"", "cipher = \"chacha\"\n"), "stays as it was");
    assert!(
        said.contains("cipher or accept-any-peer of [listen] cannot change while the service runs"),
        "{said}"
    );

    // Whoever may come in no longer is turned away.
    let other = User::new().public_key();
    reload(
        &text("\"tcp:127.0.0.1:0,iface=lo\"", "").replace(&key, &other),
        "removed from the peers; its bond ends",
    );
}

impl Services {
    /// The local end of the client's only forward.
    fn forward_of_status(&self) -> SocketAddr {
        let bond = self.status();
        let text = bond["forwards"][0]["forward"].as_str().unwrap().to_owned();
        text.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

#[test]
fn sigterm_lets_connections_end_and_takes_no_new_ones() {
    let (echo, target) = (echo_server().to_string(), download_server().to_string());
    let to_target = format!("-L 127.0.0.1:0:{target}");
    for (signalled, drains_client) in [("client", true), ("server", false)] {
        let services = Services::start("", "", &[&to_target, &format!("-L 127.0.0.1:0:{echo}")]);
        let (local, to_echo) = (services.forward(), services.forward());
        let download = begin_download(local);
        let mut talk = connect(to_echo);
        talk.write_all(b"before").unwrap();
        talk.read_exact(&mut [0; 6]).unwrap();
        let draining = if drains_client { &services.connecting } else { &services.listening };
        draining.signal(Signal::TERM);
        draining.wait_for("2 connections have 10 s to end by themselves");
        if drains_client {
            let deadline = Instant::now() + PATIENCE;
            while TcpStream::connect(local).is_ok() {
                assert!(Instant::now() < deadline, "its ports close");
            }
        } else {
            let refused = connect(to_echo);
            assert_eq!((&refused).read(&mut [0]).unwrap_or(0), 0);
            services.connecting.wait_for("about to end the bond");
        }
        talk.write_all(b"after").unwrap();
        let mut answer = [0; 5];
        talk.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"after", "what runs goes on at the {signalled}");
        finish_download(download, 1);
        drop(talk);
        let Services { listening, connecting, server: _server, client: _client, .. } = services;
        let ended = if drains_client { connecting.wait() } else { listening.wait() };
        let ended = ended.assert_code(0);
        assert!(!ended.stderr.contains("are cut"), "{}", ended.stderr);
    }
}

#[test]
fn what_does_not_end_in_time_is_cut() {
    let echo = echo_server().to_string();
    let services = Services::start("", "", &[]);
    let text = Services::text(&services.server, &[&services.link], &[&format!("-L 127.0.0.1:0:{echo}")], "");
    services.reload_text(&format!("drain-seconds = 0\n{text}"));
    let mut talk = connect(services.forward_of_status());
    talk.write_all(b"before").unwrap();
    talk.read_exact(&mut [0; 6]).unwrap();
    services.connecting.signal(Signal::TERM);
    services.connecting.wait_for("1 connections are cut: their time is over");
    services.connecting.wait().assert_code(0);
}

#[test]
fn a_name_belongs_to_one_service_and_is_free_again_after_a_crash() {
    let services = Services::start("", "", &["-L 127.0.0.1:0:localhost:9"]);
    services.connecting.wait_for("connected to ");
    let path = services.client.home().join("client.toml");
    let again = start(&services.client, &path).wait().assert_code(3);
    assert!(
        again.error_line().contains("another bondwire runs under the name \"client\""),
        "{}",
        again.stderr
    );
    let other = services.client.start(&["up", path.to_str().unwrap(), "--control", "other"]);
    other.wait_for("connected to ");
    drop(other);

    // With a socket of a forward, which a crash leaves too.
    let socket = services.client.home().join("app.sock");
    let forward = format!("-L {}:{}", socket.display(), web_server(10));
    services.reload(&[&services.link], &[&forward]);
    assert!(socket.exists());
    services.connecting.signal(Signal::KILL);
    let Services { server: _server, client, listening: _listening, connecting, .. } = services;
    drop(connecting);
    assert!(socket.exists() && client.home().join("bondwire/client.sock").exists(), "left by the crash");
    let connecting = start(&client, &path);
    connecting.wait_for("connected to ");
    client.run(&["stop", "client"]).assert_code(0);
    connecting.wait().assert_code(0);
    assert!(!socket.exists() && !client.home().join("bondwire/client.sock").exists());
}

#[test]
fn a_service_that_cannot_begin_says_why_in_one_line() {
    let user = User::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = std::net::TcpListener::bind(taken).unwrap();
    let key = user.public_key();
    let cases = [
        (format!("[listen]\nlinks = [\"tcp:{taken}\"]\nallow = [\"{key}\"]\n"), "in use"),
        (
            format!(
                "[connect.a]\npeer = \"{key}\"\nlinks = [\"tcp:127.0.0.1:9\"]\nforwards = [\"-L {taken}:h:1\"]\n"
            ),
            "cannot listen on ",
        ),
        ("[listen]\nlinks = \"tcp:*\"\n".to_owned(), "f.toml:2:9: invalid type: string"),
        (format!("key = \"none\"\n[connect.a]\npeer = \"{key}\"\nlinks = [\"tcp:h\"]\n"), "no key file "),
    ];
    for (text, fault) in cases {
        let ended = start(&user, &write_config(&user, "f.toml", &text)).wait().assert_code(3);
        assert!(ended.error_line().contains(fault), "{}", ended.stderr);
        assert!(!user.home().join("bondwire/f.sock").exists());
    }
    drop(holder);
    let missing = user.run(&["up", "nowhere.toml"]).assert_code(3);
    assert!(missing.error_line().contains("there is no file nowhere.toml"), "{}", missing.stderr);
}

#[test]
fn a_killed_listener_that_returns_is_found_again() {
    let target = web_server(1000).to_string();
    let (server, client) = (User::new(), User::new());
    let listen = |link: &str| {
        format!(
            "[listen]\nlinks = [\"{link}\"]\nallow = [\"{}\"]\npermit-listen = [\"localhost:*\"]\n",
            client.public_key()
        )
    };
    let listening = start(&server, &write_config(&server, "server.toml", &listen("tcp:127.0.0.1:0")));
    let link = listening.link();
    let forwards = [format!("-L 127.0.0.1:0:{target}"), format!("-R 127.0.0.1:0:{target}")];
    let forwards: Vec<_> = forwards.iter().map(String::as_str).collect();
    let text = Services::text(&server, &[&link], &forwards, "");
    let connecting = start(&client, &write_config(&client, "client.toml", &text));
    let local = address_behind("forwarding ", &connecting.wait_for("forwarding 127.0.0.1:"));
    assert!(get(local) == page(1000));
    listening.signal(Signal::KILL);
    drop(listening);
    let listening = start(&server, &write_config(&server, "server.toml", &listen(&link)));
    connecting.wait_for("opening a new bond, the last one ended: ");
    assert!(get(local) == page(1000));
    let remote = address_behind("forwarding ", &listening.wait_for("forwarding 127.0.0.1:"));
    assert_eq!(get(remote), page(1000));
}

/// A page through a forward that need not be there.
fn try_get(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let body = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| answer.split_off(at + 4));
    body.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

#[test]
fn either_service_is_killed_under_load_and_both_forwards_work_again() {
    let (server, client) = (User::new(), User::new());
    let listen = |link: &str| {
        format!(
            "[listen]\nlinks = [\"{link}\"]\nallow = [\"{}\"]\npermit-listen = [\"localhost:*\"]\n",
            client.public_key()
        )
    };
    let mut listening = start(&server, &write_config(&server, "server.toml", &listen("tcp:127.0.0.1:0")));
    let link = listening.link();
    let listen_file = write_config(&server, "server.toml", &listen(&link));
    let (local, remote, load) = (free_port(), free_port(), free_port());
    let forwards = [
        format!("-L {local}:{}", web_server(1000)),
        format!("-R {remote}:{}", web_server(1000)),
        format!("-L {load}:{}", download_server()),
    ];
    let forwards: Vec<_> = forwards.iter().map(String::as_str).collect();
    let connect_file =
        write_config(&client, "client.toml", &Services::text(&server, &[&link], &forwards, ""));
    let mut connecting = start(&client, &connect_file);
    let wait_for_both = |what: &str| {
        let since = Instant::now();
        for address in [local, remote] {
            while !try_get(address).is_ok_and(|found| found == page(1000)) {
                assert!(since.elapsed() < PATIENCE, "{what}: {address} does not work");
                thread::sleep(Duration::from_millis(5));
            }
        }
        println!("{what}: both forwards work after {:?}", since.elapsed());
    };
    wait_for_both("at first");
    let loaded_bytes = Arc::new(AtomicU64::new(0));
    let counter = Arc::downgrade(&loaded_bytes);
    // Downloads end with the bond that carries them, and begin again, until the test is over.
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Some(counter) = counter.upgrade() {
            let Ok(mut stream) = TcpStream::connect(load) else {
                // Thousands of attempts would take the ports that the services want back.
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                counter.fetch_add(read as u64, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    let wait_for_load = || {
        let (before, since) = (loaded_bytes.load(Ordering::Relaxed), Instant::now());
        while loaded_bytes.load(Ordering::Relaxed) < before + DOWNLOAD_BYTES / 4 {
            assert!(since.elapsed() < PATIENCE, "no load");
            thread::yield_now();
        }
    };
    for _ in 0..3 {
        wait_for_load();
        listening.signal(Signal::KILL);
        // Waits for its end: until then it has the name.
        drop(listening);
        listening = start(&server, &listen_file);
        wait_for_both("the listening one is back");
        wait_for_load();
        connecting.signal(Signal::KILL);
        drop(connecting);
        connecting = start(&client, &connect_file);
        wait_for_both("the connecting one is back");
    }
}

#[test]
fn links_are_probed_when_the_program_stood_still() {
    let services = Services::start("", "", &["-L 127.0.0.1:0:localhost:9"]);
    services.connecting.wait_for("connected to ");
    services.connecting.signal(Signal::STOP);
    thread::sleep(std::time::Duration::from_secs(4));
    services.connecting.signal(Signal::CONT);
    services.connecting.wait_for("stood still for ");
    services.wait_for_links(&[(&services.link, "active")]);
}

/// What a service tells its manager, message by message.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(user: &User) -> Self {
        let path = user.home().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path }
    }

    fn wait_for(&self, line: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let length = self.socket.recv(&mut buffer).unwrap();
            let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if message.lines().any(|found| found == line) {
                return message;
            }
        }
    }
}

#[test]
fn the_service_manager_hears_how_things_stand() {
    let (server, client) = (User::new(), User::new());
    let (_listening, link) = server.listen(&["--allow", &client.public_key()]);
    let text = Services::text(&server, &[&link], &[], "");
    let config = write_config(&client, "client.toml", &text);
    let manager = Manager::new(&client);
    let mut command = client.command(Path::new(PROGRAM));
    command
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "2000000")
        .args(["up", config.to_str().unwrap()]);
    let running = Running::start(&mut command);
    assert!(manager.wait_for("READY=1").contains("STATUS=1 bond, 0 links up"));
    manager.wait_for("STATUS=1 bond, 1 link up");
    manager.wait_for("WATCHDOG=1");
    running.signal(Signal::HUP);
    assert!(manager.wait_for("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.wait_for("READY=1");
    // A reload that is refused is over, too.
    write_config(&client, "client.toml", "");
    running.signal(Signal::HUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    running.signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    running.wait().assert_code(0);
}

#[test]
fn a_printed_configuration_does_the_same_as_its_command() {
    let (server, client) = (User::new(), User::new());
    let target = web_server(1000).to_string();
    let listen = ["listen", "tcp:127.0.0.1:0", "--allow", &client.public_key(), "--print-config"];
    let text = server.run(&listen).assert_code(0).stdout;
    let listening = start(&server, &write_config(&server, "server.toml", &text));
    let link = listening.link();
    let (key, forward) = (server.public_key(), format!("127.0.0.1:0:{target}"));
    let connect = ["connect", &link, "--peer", &key, "-L", &forward, "--print-config"];
    let text = client.run(&connect).assert_code(0).stdout;
    let path = write_config(&client, "client.toml", &text);
    let checked = client.run(&["check", path.to_str().unwrap()]).assert_code(0).stdout;
    assert!(checked.ends_with("client.toml: connects to server over 1 link with 1 forward\n"), "{checked}");
    let connecting = start(&client, &path);
    let local = address_behind("forwarding ", &connecting.wait_for("forwarding 127.0.0.1:"));
    assert!(get(local) == page(1000));

    let twice = ["connect", &link, &link, "--peer", &key, "--print-config"];
    assert!(client.run(&twice).assert_code(3).error_line().contains("stands there twice"));
    let ssh = client.run(&["connect", "ssh:h", "--print-config"]).assert_code(2);
    assert!(ssh.error_line().contains("ssh:h is for commands"), "{}", ssh.stderr);
    let wrong = write_config(&client, "wrong.toml", "[conect.a]\n");
    let faulty = client.run(&["check", wrong.to_str().unwrap()]).assert_code(3);
    assert!(
        faulty.error_line().ends_with("wrong.toml:1:2: unknown key \"conect\"; did you mean \"connect\"?"),
        "{}",
        faulty.stderr
    );
}
