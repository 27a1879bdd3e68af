//! UDP forwards in both directions.

use std::net::{SocketAddr, UdpSocket};
use std::thread;

use crate::pair::{Pair, address_behind};
use crate::user::PATIENCE;

/// Answers each datagram with its reverse.
pub(crate) fn reverse_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            buffer[..length].reverse();
            if socket.send_to(&buffer[..length], from).is_err() {
                return;
            }
        }
    });
    address
}

/// Asks until there is an answer: datagrams may be lost.
pub(crate) fn ask(socket: &UdpSocket, question: &[u8]) -> Vec<u8> {
    socket.set_read_timeout(Some(PATIENCE / 60)).unwrap();
    let mut buffer = vec![0; 65_536];
    for _ in 0..60 {
        socket.send(question).unwrap();
        if let Ok(length) = socket.recv(&mut buffer) {
            buffer.truncate(length);
            return buffer;
        }
    }
    panic!("no answer to {} bytes", question.len());
}

pub(crate) fn client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    socket
}

fn assert_answers(address: SocketAddr) {
    let clients: Vec<_> = (0..20_u8).map(|_| client(address)).collect();
    for round in 0..3 {
        for (index, socket) in (0_u8..).zip(&clients) {
            assert_eq!(ask(socket, &[index, round, 7]), [7, round, index], "an answer of another client");
        }
    }
    let large: Vec<u8> = (0..20_000_u32).map(|i| i as u8).collect();
    let answer: Vec<u8> = large.iter().rev().copied().collect();
    assert!(ask(&client(address), &large) == answer);
    assert!(ask(&client(address), &[]).is_empty());
}

#[test]
fn each_client_gets_its_own_answers() {
    let pair = Pair::start(&[], &["-L", &format!("udp/127.0.0.1:0:{}", reverse_server())]);
    let near = address_behind("forwarding ", &pair.connecting.wait_for("forwarding udp/127.0.0.1:"));
    assert_answers(near);
}

#[test]
fn the_peer_can_take_the_clients() {
    let permit = ["--permit-listen", "127.0.0.1:*"];
    let pair = Pair::start(&permit, &["-R", &format!("udp/127.0.0.1:0:{}", reverse_server())]);
    let far = address_behind("the peer forwards ", &pair.connecting.wait_for("the peer forwards udp/"));
    assert_answers(far);
}

#[test]
fn a_forbidden_target_names_the_flag_once() {
    let pair = Pair::start(&["--permit-open", "localhost:1"], &["-L", "udp/127.0.0.1:0:192.0.2.1:53"]);
    let near = address_behind("forwarding ", &pair.connecting.wait_for("forwarding udp/127.0.0.1:"));
    let socket = client(near);
    for _ in 0..10 {
        socket.send(b"x").unwrap();
    }
    let line = pair.connecting.wait_for("refused by the peer");
    assert!(line.contains("--permit-open 192.0.2.1:53"), "{line}");
    pair.listening.wait_for("no --permit-open allows it");
    // The flow stays refused for a moment; another client asks anew.
    socket.send(b"x").unwrap();
    client(near).send(b"x").unwrap();
    pair.connecting.wait_for("refused by the peer");
    pair.connecting.signal(rustix::process::Signal::TERM);
    let ended = pair.connecting.wait().assert_code(130);
    assert!(!ended.stderr.contains("refused by the peer"), "{}", ended.stderr);
}
