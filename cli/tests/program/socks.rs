//! `connect -D`: SOCKS5 clients, and clients that are none.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};

use crate::pair::{Pair, address_behind, connect, echo_server, free_port};
use crate::udp;

fn socks(listen: &[&str]) -> (Pair, SocketAddr) {
    let pair = Pair::start(listen, &["-D", "127.0.0.1:0"]);
    let address = address_behind("SOCKS server on ", &pair.connecting.wait_for("SOCKS server on "));
    pair.connecting.wait_for("connected to ");
    (pair, address)
}

/// What a client hears who says `words`.
pub(crate) fn hear(address: SocketAddr, words: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    stream.write_all(words).unwrap();
    let mut heard = Vec::new();
    // A server that closes with unread words resets; what it said before may be lost with that.
    let _ = stream.read_to_end(&mut heard);
    heard
}

pub(crate) fn request(command: u8, host: &str, port: u16) -> Vec<u8> {
    let mut words = vec![5, 1, 0, 5, command, 0, 3, host.len() as u8];
    words.extend(host.as_bytes());
    words.extend(port.to_be_bytes());
    words
}

#[test]
fn connections_leave_from_the_peer() {
    let (_pair, address) = socks(&[]);
    let port = echo_server().port();
    for host in ["localhost", "127.0.0.1"] {
        let mut stream = connect(address);
        stream.write_all(&request(1, host, port)).unwrap();
        stream.write_all(b"early").unwrap();
        let mut heard = [0; 17];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"\x05\x00\x05\x00\x00\x01\0\0\0\0\0\0early");
    }
}

#[test]
fn replies_are_true_to_what_happened() {
    let (pair, address) = socks(&["--permit-open", "127.0.0.1:*", "--permit-open", "nowhere.invalid:*"]);
    let reply = |host: &str, port| hear(address, &request(1, host, port))[3];
    let nobody = free_port();
    assert_eq!(reply("127.0.0.1", nobody.port()), 5);
    let line = pair.connecting.wait_for("SOCKS to ");
    assert!(line.contains(&nobody.to_string()) && line.contains("connection refused"), "{line}");
    assert_eq!(reply("192.0.2.1", 80), 2);
    pair.connecting.wait_for("--permit-open 192.0.2.1:80");
    assert_eq!(reply("nowhere.invalid", 80), 4);
    assert_eq!(reply(&"x".repeat(250), 80), 1);
    assert_eq!(hear(address, &request(2, "127.0.0.1", 80))[3], 7);
}

#[test]
fn clients_of_other_protocols_are_told() {
    let (pair, address) = socks(&[]);
    assert_eq!(hear(address, b"\x04"), [0, 0x5b, 0, 0, 0, 0, 0, 0]);
    pair.connecting.wait_for("it speaks SOCKS4");
    assert!(hear(address, b"G").starts_with(b"HTTP/1.1 501 "));
    pair.connecting.wait_for("it speaks HTTP");
    hear(address, b"\x16\x03\x01\x02\x00");
    pair.connecting.wait_for("it speaks TLS");
    hear(address, &[0xee; 3000]);
    pair.connecting.wait_for("is not SOCKS5");
}

#[test]
fn a_client_that_stalls_is_put_off() {
    let (pair, address) = socks(&[]);
    let mut stalled = connect(address);
    stalled.write_all(b"\x05\x01").unwrap();
    let mut heard = Vec::new();
    stalled.read_to_end(&mut heard).unwrap();
    assert!(heard.is_empty());
    pair.connecting.wait_for("it did not say within 10 s what it wants");
}

#[test]
fn datagrams_are_relayed_while_the_association_lasts() {
    let (_pair, address) = socks(&[]);
    let target = udp::reverse_server();
    let mut control = connect(address);
    control.write_all(b"\x05\x01\x00\x05\x03\x00\x01\0\0\0\0\0\0").unwrap();
    let mut reply = [0; 12];
    control.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..6], [5, 0, 5, 0, 0, 1]);
    let relay = SocketAddr::from((
        [reply[6], reply[7], reply[8], reply[9]],
        u16::from_be_bytes([reply[10], reply[11]]),
    ));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(relay).unwrap();
    for header in [&b"\0\0\0\x01\x7f\0\0\x01"[..], b"\0\0\0\x03\x09localhost"] {
        let header = [header, &target.port().to_be_bytes()].concat();
        let answer = udp::ask(&socket, &[&header[..], b"abc"].concat());
        assert_eq!(answer, [&header[..], b"cba"].concat());
    }
    // Garbage does no harm.
    socket.send(b"\xff").unwrap();
    let header = [&b"\0\0\0\x01\x7f\0\0\x01"[..], &target.port().to_be_bytes()].concat();
    assert_eq!(udp::ask(&socket, &[&header[..], b"xy"].concat()), [&header[..], b"yx"].concat());
    drop(control);
    let gone = || {
        socket
            .send(b"")
            .and_then(|_| socket.recv(&mut [0; 1]))
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    assert!((0..60).any(|_| gone()), "the relay ends with the connection");
}
