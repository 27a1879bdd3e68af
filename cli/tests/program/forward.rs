//! `connect -L`: TCP connections through a bond of two links.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::pair::{Pair, connect, free_port, get, page, server, web_server};
use crate::user::User;

fn pair(target: SocketAddr, listen: &[&str], options: &str) -> (Pair, SocketAddr) {
    Pair::forwarding(&target.to_string(), listen, options)
}

#[test]
fn web_pages_come_through_whole() {
    let (_pair, local) = pair(web_server(5_000_000), &[], "");
    let gets: Vec<_> = (0..4).map(|_| thread::spawn(move || get(local))).collect();
    for got in gets {
        assert!(got.join().unwrap() == page(5_000_000), "the page differs");
    }
}

#[test]
fn every_class_of_forward_works() {
    for class in [",class=interactive", ",class=redundant"] {
        let (_pair, local) = pair(web_server(200_000), &[], class);
        assert!(get(local) == page(200_000), "{class}");
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
    let (_pair, local) = pair(echo_at_end, &[], "");
    let mut stream = connect(local);
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
    let (_pair, local) = pair(resets, &[], "");
    let mut stream = connect(local);
    stream.write_all(b"xx").unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[cfg(unix)]
#[test]
fn a_connection_that_the_end_of_the_program_cuts_is_reset() {
    let (report, stalled) = std::sync::mpsc::channel();
    let endless = server(move |mut stream| {
        stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        while stream.write_all(&[7; 65_536]).is_ok() {}
        let _ = report.send(());
        // Held open: the cut is the program's.
        io::copy(&mut &stream, &mut io::sink()).map(drop)
    });
    let (pair, local) = pair(endless, &[], "");
    let mut stream = connect(local);
    stalled.recv().unwrap();
    pair.connecting.signal(rustix::process::Signal::TERM);
    pair.connecting.wait().assert_code(130);
    let error = io::copy(&mut stream, &mut io::sink()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "a cut must not look like an end");
}

#[test]
fn a_slow_reader_slows_the_sender_down() {
    let (_pair, local) = pair(web_server(80_000_000), &[], "");
    let mut stream = connect(local);
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    // Other connections get through while this one is not read.
    assert!(get(local) == page(80_000_000));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&page(80_000_000)));
}

#[test]
fn a_target_that_does_not_read_stops_the_sender() {
    let (go, may_read) = std::sync::mpsc::channel::<()>();
    let (report, counted) = std::sync::mpsc::channel();
    let may_read = std::sync::Arc::new(std::sync::Mutex::new(may_read));
    let target = server(move |stream| {
        may_read.lock().unwrap().recv().unwrap();
        report.send(io::copy(&mut &stream, &mut io::sink())?).unwrap();
        Ok(())
    });
    let (_pair, local) = pair(target, &[], "");
    let mut stream = connect(local);
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut sent = 0;
    let stopped = loop {
        match stream.write(&page(1_000_000)) {
            Ok(length) => sent += length as u64,
            Err(error) => break error,
        }
        assert!(sent < STOP_MAX_BYTES, "{sent} bytes went somewhere");
    };
    assert_eq!(stopped.kind(), io::ErrorKind::WouldBlock);
    go.send(()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(counted.recv().unwrap(), sent);
}

/// Far above what the buffers of both ends and of the sockets hold.
const STOP_MAX_BYTES: u64 = 400_000_000;

#[test]
fn a_target_that_hangs_is_reported() {
    // Its queue of one is full, so that further connections are not answered.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let target = socket.local_addr().unwrap().as_socket().unwrap();
    let queued: Vec<_> =
        (0..4).map_while(|_| TcpStream::connect_timeout(&target, Duration::from_secs(1)).ok()).collect();
    let (pair, local) = pair(target, &[], "");
    let mut stream = connect(local);
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    let line = pair.connecting.wait_for("refused by the peer");
    assert!(line.contains(&format!("{target} did not answer within 10 s")), "{line}");
    drop(queued);
}

#[test]
fn a_refusing_target_is_reported_and_resets() {
    let nobody = free_port();
    let (pair, local) = pair(nobody, &[], "");
    let mut stream = connect(local);
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    let line = pair.connecting.wait_for("refused by the peer");
    assert!(line.contains(&nobody.to_string()) && line.contains("connection refused"), "{line}");
}

#[test]
fn a_forbidden_target_names_the_flag() {
    let target = web_server(10);
    let (pair, local) = pair(target, &["--permit-open", "localhost:1"], "");
    let mut stream = connect(local);
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    let line = pair.connecting.wait_for("refused by the peer");
    assert!(line.contains(&format!("--permit-open {target}")), "{line}");
    pair.listening.wait_for("no --permit-open allows it");
}

#[test]
fn a_restarted_listener_is_found_again_and_the_ports_stay_open() {
    let (pair, local) = pair(web_server(100_000), &[], "");
    assert!(get(local) == page(100_000));
    let Pair { server, client, listening, connecting, link } = pair;
    drop(listening);
    let (_listening, _) = server.listen_on(&link, &["--allow", &client.public_key()]);
    connecting.wait_for("opening a new bond");
    assert!(get(local) == page(100_000));
}

#[cfg(unix)]
#[test]
fn a_listener_that_ends_well_is_found_again_too() {
    let (pair, local) = pair(web_server(100_000), &[], "");
    let Pair { server, client, listening, connecting, link } = pair;
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
