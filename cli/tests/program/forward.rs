//! `connect -L`: TCP connections through a bond of two links.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::user::{PATIENCE, Running, User};

/// A listener, a connector with one forward to `target`, and the forward's local address.
struct Pair {
    server: User,
    client: User,
    listening: Running,
    connecting: Running,
    link: String,
    local: SocketAddr,
}

fn pair(target: SocketAddr, listen: &[&str], forward_options: &str) -> Pair {
    let (server, client) = (User::new(), User::new());
    let client_key = client.public_key();
    let arguments: Vec<_> = ["--allow", &client_key].iter().chain(listen).copied().collect();
    let (listening, link) = server.listen(&arguments);
    let forward = format!("127.0.0.1:0:{target}{forward_options}");
    let connecting = client.start(&["connect", &link, &link, "--peer", &server.public_key(), "-L", &forward]);
    let line = connecting.wait_for("forwarding 127.0.0.1:");
    let local = line.split("forwarding ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    connecting.wait_for("connected to ");
    Pair { server, client, listening, connecting, link, local }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Serves each connection of a fresh port with `serve`.
fn server(serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// A web server with one page of `length` bytes.
fn web_server(length: usize) -> SocketAddr {
    server(move |mut stream| {
        let mut request = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        while request.read_line(&mut line)? > 2 {
            line.clear();
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
        stream.write_all(&page(length))
    })
}

fn page(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn get(address: SocketAddr) -> Vec<u8> {
    let mut stream = connect(address);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let body = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    answer.split_off(body)
}

#[test]
fn web_pages_come_through_whole() {
    let pair = pair(web_server(5_000_000), &[], "");
    let gets: Vec<_> = (0..4).map(|_| thread::spawn(move || get(pair.local))).collect();
    for got in gets {
        assert!(got.join().unwrap() == page(5_000_000), "the page differs");
    }
}

#[test]
fn every_class_of_forward_works() {
    for class in [",class=interactive", ",class=redundant"] {
        let pair = pair(web_server(200_000), &[], class);
        assert!(get(pair.local) == page(200_000), "{class}");
    }
}

#[test]
fn a_half_closed_connection_goes_on_in_the_other_direction() {
    // Answers only when it has read to the end.
    let echo_at_end = server(|mut stream| {
        let mut text = Vec::new();
        stream.read_to_end(&mut text)?;
        stream.write_all(&text)
    });
    let pair = pair(echo_at_end, &[], "");
    let mut stream = connect(pair.local);
    stream.write_all(&page(300_000)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer == page(300_000));
}

#[test]
fn a_reset_arrives_as_a_reset() {
    let resets = server(|stream| {
        let mut byte = [0];
        (&stream).read_exact(&mut byte)?;
        // Closing with unread data, after this byte, sends a reset.
        (&stream).read_exact(&mut byte)?;
        rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO))?;
        Ok(())
    });
    let pair = pair(resets, &[], "");
    let mut stream = connect(pair.local);
    stream.write_all(b"xx").unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_slow_reader_slows_the_sender_down() {
    let pair = pair(web_server(80_000_000), &[], "");
    let mut stream = connect(pair.local);
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    // Other connections get through while this one is not read.
    assert!(get(pair.local) == page(80_000_000));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&page(80_000_000)));
}

#[test]
fn a_refusing_target_is_reported_and_resets() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let pair = pair(nobody, &[], "");
    let mut stream = connect(pair.local);
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    let line = pair.connecting.wait_for("refused by the peer");
    assert!(line.contains(&nobody.to_string()) && line.contains("connection refused"), "{line}");
}

#[test]
fn a_forbidden_target_names_the_flag() {
    let target = web_server(10);
    let pair = pair(target, &["--permit-open", "localhost:1"], "");
    let mut stream = connect(pair.local);
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    let line = pair.connecting.wait_for("refused by the peer");
    assert!(line.contains(&format!("--permit-open {target}")), "{line}");
    pair.listening.wait_for("no --permit-open allows it");
}

#[test]
fn a_restarted_listener_is_found_again_and_the_ports_stay_open() {
    let pair = pair(web_server(100_000), &[], "");
    assert!(get(pair.local) == page(100_000));
    let Pair { server, client, listening, connecting, link, local } = pair;
    drop(listening);
    let (_listening, _) = server.listen_on(&link, &["--allow", &client.public_key()]);
    connecting.wait_for("opening a new bond");
    assert!(get(local) == page(100_000));
}

#[cfg(unix)]
#[test]
fn a_listener_that_ends_well_is_found_again_too() {
    let pair = pair(web_server(100_000), &[], "");
    let Pair { server, client, listening, connecting, link, local } = pair;
    // Before the first packet of the other end there is nobody to tell.
    listening.wait_for(": up");
    listening.signal(rustix::process::Signal::TERM);
    listening.wait().assert_code(130);
    let line = connecting.wait_for("opening a new bond");
    assert!(line.contains("the listener ends"), "{line}");
    let (_listening, _) = server.listen_on(&link, &["--allow", &client.public_key()]);
    assert!(get(local) == page(100_000));
}

#[test]
fn a_taken_local_port_ends_with_3() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("{}:localhost:80", taken.local_addr().unwrap());
    let user = User::new();
    let ended = user.run(&["connect", "tcp:127.0.0.1:1", "--peer", &user.public_key(), "-L", &forward]);
    let ended = ended.assert_code(3);
    assert!(ended.error_line().contains(&taken.local_addr().unwrap().port().to_string()), "{}", ended.stderr);
}
