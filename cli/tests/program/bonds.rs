//! How bonds begin and end, as a user sees it.

use std::net::TcpListener;

use crate::user::User;
#[cfg(unix)]
use rustix::process::Signal;

#[test]
fn nobody_listens_ends_with_4_and_names_each_link() {
    let user = User::new();
    let peer = user.public_key();
    // Ports that were free a moment ago.
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
    let links = ports.map(|port| format!("tcp:127.0.0.1:{port}"));
    let ended =
        user.run(&["connect", &links[0], &links[1], "--peer", &peer, "--timeout", "1"]).assert_code(4);
    let line = ended.error_line();
    assert!(line.contains(&links[0]) && line.contains(&links[1]), "{line}");
    assert!(line.to_lowercase().contains("refused"), "{line}");
}

#[test]
fn a_wrong_peer_key_ends_with_5() {
    let (server, client, other) = (User::new(), User::new(), User::new());
    let (_listening, link) = server.listen(&["--allow", &client.public_key()]);
    let ended = client.run(&["connect", &link, "--peer", &other.public_key()]).assert_code(5);
    assert!(ended.error_line().contains(&link), "{}", ended.stderr);
}

#[test]
fn a_peer_that_is_not_allowed_ends_with_5() {
    let (server, client, other) = (User::new(), User::new(), User::new());
    let (_listening, link) = server.listen(&["--allow", &other.public_key()]);
    let ended = client.run(&["speed", &link, "--peer", &server.public_key()]).assert_code(5);
    assert!(ended.error_line().contains(&link), "{}", ended.stderr);
}

#[test]
fn a_server_of_another_kind_ends_with_4() {
    let client = User::new();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = format!("tcp:{}", web.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::Write;
        for mut stream in web.incoming().map_while(Result::ok) {
            // The client hangs up when it has seen enough.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    let arguments = ["connect", &link, "--peer", &client.public_key(), "--timeout", "2"];
    let ended = client.run(&arguments).assert_code(4);
    assert!(ended.error_line().contains(&link), "{}", ended.stderr);
}

#[test]
fn a_taken_port_ends_with_3() {
    let server = User::new();
    let (_listening, link) = server.listen(&["--accept-any-peer"]);
    let ended = server.run(&["listen", &link, "--accept-any-peer"]).assert_code(3);
    assert!(ended.error_line().contains(&link), "{}", ended.stderr);
}

#[test]
fn plaintext_over_tcp_wants_to_be_asked_for() {
    let user = User::new();
    let peer = user.public_key();
    let ended = user.run(&["connect", "tcp:127.0.0.1:1", "--peer", &peer, "--cipher", "none"]).assert_code(3);
    assert!(ended.error_line().contains("--plaintext-over-ip"), "{}", ended.stderr);
}

#[cfg(unix)]
#[test]
fn signals_end_both_commands_with_130() {
    for signal in [Signal::INT, Signal::TERM] {
        let (server, client) = (User::new(), User::new());
        let (listening, link) = server.listen(&["--allow", &client.public_key()]);
        let connecting = client.start(&["connect", &link, "--peer", &server.public_key()]);
        connecting.wait_for("connected to ");
        connecting.signal(signal);
        connecting.wait().assert_code(130);
        listening.wait_for("bond ended: closed by the peer");
        listening.signal(signal);
        listening.wait().assert_code(130);
    }
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_command_that_still_dials() {
    let user = User::new();
    // A listener that never accepts: the link stays in its handshake.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = format!("tcp:{}", silent.local_addr().unwrap());
    let connecting = user.start(&["connect", &link, "--peer", &user.public_key(), "-L", "0:localhost:1"]);
    connecting.wait_for("forwarding 127.0.0.1:");
    connecting.signal(Signal::INT);
    connecting.wait().assert_code(130);
}
