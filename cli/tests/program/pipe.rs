//! `connect -W`: standard input and output as a connection.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use rustix::process::Signal;

use crate::pair::{echo_server, free_port, page, server};
use crate::user::{Running, User};

struct Piped {
    _users: [User; 2],
    listening: Running,
    running: Running,
}

fn piped(target: &str) -> Piped {
    let (server, client) = (User::new(), User::new());
    let (listening, link) = server.listen(&["--allow", &client.public_key()]);
    let running =
        client.start_piped(&["connect", &link, &link, "--peer", &server.public_key(), "-W", target]);
    Piped { _users: [server, client], listening, running }
}

#[test]
fn what_goes_in_comes_back_after_the_end() {
    // Answers only when it has read to the end.
    let target = server(|mut stream| {
        let mut text = Vec::new();
        stream.read_to_end(&mut text)?;
        stream.write_all(&text)
    });
    let Piped { mut running, listening: _listening, _users } = piped(&target.to_string());
    let (mut stdin, mut stdout) = running.pipes();
    let data = page(5_000_000);
    let sent = data.clone();
    let sending = thread::spawn(move || stdin.write_all(&sent).unwrap());
    let mut answer = Vec::new();
    stdout.read_to_end(&mut answer).unwrap();
    sending.join().unwrap();
    assert!(answer == data);
    assert_eq!(running.wait().assert_code(0).stderr, "", "nothing to say");
}

#[test]
fn standard_output_ends_with_the_target_while_input_goes_on() {
    let (heard, all) = std::sync::mpsc::channel();
    let target = server(move |mut stream| {
        stream.write_all(b"bye")?;
        stream.shutdown(Shutdown::Write)?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text)?;
        let _ = heard.send(text);
        Ok(())
    });
    let Piped { mut running, listening: _listening, _users } = piped(&target.to_string());
    let (mut stdin, mut stdout) = running.pipes();
    let mut answer = String::new();
    stdout.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "bye");
    stdin.write_all(b"still here").unwrap();
    drop(stdin);
    assert_eq!(all.recv().unwrap(), b"still here");
    running.wait().assert_code(0);
}

#[test]
fn a_target_that_refuses_ends_with_5() {
    let nobody = free_port();
    let Piped { running, listening: _listening, _users } = piped(&nobody.to_string());
    let ended = running.wait().assert_code(5);
    let line = ended.error_line();
    assert!(line.contains(&format!("{nobody} said connection refused")), "{line}");
    let Piped { running, listening, _users } = piped("192.0.2.1:22");
    let ended = running.wait().assert_code(5);
    assert!(ended.error_line().contains("--permit-open 192.0.2.1:22"), "{}", ended.stderr);
    listening.wait_for("no --permit-open allows it");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let target = server(|mut stream| {
        loop {
            stream.write_all(&[0; 4096])?;
        }
    });
    let Piped { mut running, listening: _listening, _users } = piped(&target.to_string());
    let (_stdin, mut stdout) = running.pipes();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    running.wait().assert_code(0);
}

#[test]
fn what_was_written_before_a_hang_up_arrives() {
    let (heard, all) = std::sync::mpsc::channel();
    let target = server(move |mut stream| {
        stream.write_all(b"hello")?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text)?;
        let _ = heard.send(text);
        Ok(())
    });
    let Piped { mut running, listening, _users } = piped(&target.to_string());
    let (mut stdin, mut stdout) = running.pipes();
    stdout.read_exact(&mut [0; 5]).unwrap();
    // As ssh does at its end.
    stdin.write_all(&page(1_000_000)).unwrap();
    drop(stdin);
    running.signal(Signal::HUP);
    assert!(all.recv().unwrap() == page(1_000_000));
    running.wait().assert_code(0);
    listening.wait_for("bond ended: closed by the peer");
    // A target that keeps the connection does not keep the program.
    let Piped { mut running, listening, _users } = piped(&echo_server().to_string());
    let (mut stdin, mut stdout) = running.pipes();
    stdin.write_all(b"x").unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    running.signal(Signal::HUP);
    running.wait().assert_code(130);
    listening.wait_for("bond ended: closed by the peer");
}

#[test]
fn a_target_that_resets_is_an_error() {
    let target = server(|stream| {
        (&stream).read_exact(&mut [0])?;
        rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO))?;
        Ok(())
    });
    let Piped { mut running, listening: _listening, _users } = piped(&target.to_string());
    let (mut stdin, _stdout) = running.pipes();
    stdin.write_all(b"x").unwrap();
    let ended = running.wait().assert_code(5);
    assert!(ended.error_line().contains(&target.to_string()), "{}", ended.stderr);
}
