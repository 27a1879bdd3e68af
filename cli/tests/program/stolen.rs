//! A stolen key: it reaches what its entry names, by every service, and each refusal names what would permit the rest.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::pair::{address_behind, free_port};
use crate::peers::{greeter, heard, write_peer};
use crate::socks::{hear, request};
use crate::udp;
use crate::user::{Running, User};

/// The entry of the key, and what it permits.
struct Entry {
    /// A port of the server that it may open, and one that it may not.
    open: [u16; 2],
    /// The same of UDP.
    udp: [SocketAddr; 2],
    /// The same of Unix sockets.
    sockets: [String; 2],
    /// The port of the server that it may listen on.
    listen: u16,
}

impl Entry {
    fn new(folder: &Path) -> Self {
        let socket = |name: &str| {
            let path = folder.join(name).to_str().unwrap().to_owned();
            let listener = UnixListener::bind(&path).unwrap();
            let word = name.to_owned();
            std::thread::spawn(move || {
                for mut stream in listener.incoming().map_while(Result::ok) {
                    // The other end may have hung up.
                    let _ = stream.write_all(word.as_bytes());
                }
            });
            path
        };
        Self {
            open: [greeter("public"), greeter("secret")],
            udp: [udp::reverse_server(), udp::reverse_server()],
            sockets: [socket("public"), socket("secret")],
            listen: free_port().port(),
        }
    }

    fn text(&self) -> String {
        let (open, udp, socket, listen) = (self.open[0], self.udp[0], &self.sockets[0], self.listen);
        format!(
            "permit-open = [\"localhost:{open}\", \"{udp}\", \"{socket}\"]\npermit-listen = [\"localhost:{listen}\"]\n\
             permit-links = [\"tcp:127.0.0.1:0\"]\npermit-speed = false"
        )
    }
}

/// A server that lets others do anything, and a thief with a key whose entry does not.
struct Theft {
    server: User,
    thief: User,
    entry: Entry,
    _listening: Running,
    link: String,
    /// Of another address of the server, which the key may not come in by.
    other_link: String,
}

impl Theft {
    fn new() -> Self {
        let (server, thief) = (User::new(), User::new());
        let entry = Entry::new(server.home());
        write_peer(&server, &thief.public_key(), &entry.text());
        let all = ["--permit-open=*:*", "--permit-open=/*", "--permit-listen=*:*", "--permit-listen=/*"];
        let links = ["listen", "tcp:127.0.0.1:0", "tcp:127.0.0.2:0"];
        let listening = server.start(&[&links[..], &all].concat());
        let (link, other_link) = (listening.link(), listening.link());
        Self { server, thief, entry, _listening: listening, link, other_link }
    }

    fn connect(&self, arguments: &[String]) -> Running {
        let key = self.server.public_key();
        let first = ["connect", &self.link, "--peer", &key];
        self.thief.start(&first.into_iter().chain(arguments.iter().map(String::as_str)).collect::<Vec<_>>())
    }
}

/// The refusal, and that it names the line that would permit `what`.
#[track_caller]
fn assert_names(connecting: &Running, what: &str, key: &str) {
    let refused = connecting.wait_for("refused by the peer");
    let line = format!("it needs {what:?} in {key} of [peer.laptop] in the listener's peers file");
    assert!(refused.contains(&line), "{refused}");
}

/// What a Unix socket says.
fn said(path: &Path) -> String {
    let mut text = String::new();
    // A forward that is refused resets its connection.
    let _ = UnixStream::connect(path).unwrap().read_to_string(&mut text);
    text
}

#[test]
fn it_opens_only_the_ports_and_sockets_that_its_entry_names() {
    let theft = Theft::new();
    let Entry { open: [public, secret], sockets, .. } = &theft.entry;
    let near = ["near-public", "near-secret"].map(|name| theft.thief.home().join(name));
    let mut arguments: Vec<String> = vec!["-L".into(), format!("0:localhost:{public}")];
    arguments.extend(["-L".into(), format!("0:127.0.0.1:{secret}")]);
    for (near, far) in near.iter().zip(sockets) {
        arguments.extend(["-L".into(), format!("{}:{far}", near.display())]);
    }
    let connecting = theft.connect(&arguments);
    let opened = crate::peers::forwarded(&connecting.wait_for("forwarding 127.0.0.1:"));
    let closed = crate::peers::forwarded(&connecting.wait_for(&format!("127.0.0.1:{secret}")));
    connecting.wait_for("connected to ");
    assert_eq!((heard(opened).as_str(), heard(closed).as_str()), ("public", ""));
    assert_names(&connecting, &format!("127.0.0.1:{secret}"), "permit-open");
    assert_eq!((said(&near[0]).as_str(), said(&near[1]).as_str()), ("public", ""));
    assert_names(&connecting, &sockets[1], "permit-open");
}

#[test]
fn its_datagrams_go_only_where_its_entry_names() {
    let theft = Theft::new();
    let [public, secret] = theft.entry.udp;
    let arguments = [public, secret].map(|to| ["-L".to_owned(), format!("udp/127.0.0.1:0:{to}")]).concat();
    let connecting = theft.connect(&arguments);
    let near = [public, secret].map(|to| {
        let line = connecting.wait_for(&format!(" to udp/{to}"));
        address_behind("forwarding ", &line)
    });
    connecting.wait_for("connected to ");
    assert_eq!(udp::ask(&udp::client(near[0]), b"abc"), b"cba");
    udp::client(near[1]).send(b"abc").unwrap();
    assert_names(&connecting, &secret.to_string(), "permit-open");
}

#[test]
fn its_socks_clients_reach_only_what_its_entry_names() {
    let theft = Theft::new();
    let [public, secret] = theft.entry.open;
    let connecting = theft.connect(&["-D".into(), "127.0.0.1:0".into()]);
    let proxy = address_behind("SOCKS server on ", &connecting.wait_for("SOCKS server on "));
    connecting.wait_for("connected to ");
    assert!(hear(proxy, &request(1, "localhost", public)).ends_with(b"public"));
    const NOT_ALLOWED: u8 = 2;
    assert_eq!(hear(proxy, &request(1, "localhost", secret))[3], NOT_ALLOWED);
    assert_names(&connecting, &format!("localhost:{secret}"), "permit-open");

    // UDP over SOCKS: the association is ours, what leaves it is the server's.
    let mut association = TcpStream::connect(proxy).unwrap();
    association.write_all(b"\x05\x01\x00\x05\x03\x00\x01\0\0\0\0\0\0").unwrap();
    let mut reply = [0; 12];
    association.read_exact(&mut reply).unwrap();
    let relay = SocketAddr::from(([127, 0, 0, 1], u16::from_be_bytes([reply[10], reply[11]])));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = theft.entry.udp[1].port().to_be_bytes();
    socket.send_to(&[&[0, 0, 0, 1, 127, 0, 0, 1][..], &port, b"abc"].concat(), relay).unwrap();
    assert_names(&connecting, &theft.entry.udp[1].to_string(), "permit-open");
}

#[test]
fn it_listens_only_where_its_entry_names() {
    let theft = Theft::new();
    let target = greeter("thief");
    let listen = theft.entry.listen;
    let connecting = theft.connect(&["-R".into(), format!("{listen}:localhost:{target}")]);
    connecting.wait_for("the peer forwards ");
    assert_eq!(heard(listen), "thief");
    drop(connecting);

    let socket = theft.server.home().join("taken.sock");
    let other = free_port().port();
    for (bind, shown) in [
        (other.to_string(), format!("localhost:{other}")),
        (format!("*:{listen}"), format!("*:{listen}")),
        (format!("udp/{other}"), format!("localhost:{other}")),
        (socket.display().to_string(), socket.display().to_string()),
    ] {
        let ended = theft.connect(&["-R".into(), format!("{bind}:localhost:{target}")]).wait().assert_code(5);
        let line =
            format!("it needs {shown:?} in permit-listen of [peer.laptop] in the listener's peers file");
        assert!(ended.error_line().contains(&line), "{bind}: {}", ended.stderr);
    }
    assert!(!socket.exists());
    assert!(TcpListener::bind(("127.0.0.1", other)).is_ok(), "nobody listens there");
}

#[test]
fn it_pipes_only_to_what_its_entry_names() {
    let theft = Theft::new();
    let [public, secret] = theft.entry.open;
    let piped = theft.connect(&["-W".into(), format!("localhost:{public}")]).wait().assert_code(0);
    assert_eq!(piped.stdout, "public");
    let refused = theft.connect(&["-W".into(), format!("localhost:{secret}")]).wait().assert_code(5);
    assert_eq!(refused.stdout, "");
    let line = format!("\"localhost:{secret}\" in permit-open of [peer.laptop]");
    assert!(refused.error_line().contains(&line), "{}", refused.stderr);
}

#[test]
fn it_comes_in_only_by_its_links_and_tests_no_speed() {
    let theft = Theft::new();
    let key = theft.server.public_key();
    let refused = theft.thief.run(&["connect", &theft.other_link, "--peer", &key]).assert_code(5);
    assert!(refused.error_line().contains("permit-links"), "{}", refused.stderr);
    let refused = theft.thief.run(&["speed", &theft.link, "--peer", &key, "--seconds=1"]).assert_code(5);
    assert!(refused.error_line().contains("permit-speed = true of [peer.laptop]"), "{}", refused.stderr);
    // A bond that came in by the right link takes no further one by another.
    let both = theft.connect(&["-D".into(), "127.0.0.1:0".into()]);
    both.wait_for("connected to ");
    let added = theft.thief.run(&["link", "add", &theft.other_link]);
    added.assert_code(0);
    // The log says it, too: nobody may be looking at the status.
    both.wait_for("permit-links");
    let status = crate::control::wait_for(&theft.thief, |status| {
        let links = status["bonds"][0]["links"].as_array().unwrap();
        links.iter().any(|link| link["why"].as_str().is_some_and(|why| why.contains("permit-links")))
    });
    let links = status["bonds"][0]["links"].as_array().unwrap();
    assert!(
        links.iter().all(|link| link["dialled"] == *theft.link || link["state"] == "missing"),
        "{status:#}"
    );
}
