//! `connect -R`: the peer listens.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use rustix::process::Signal;

use crate::pair::{Pair, address_behind, connect, free_port, get, page, web_server};
use crate::user::PATIENCE;

const ALLOWED: [&str; 2] = ["--permit-listen", "localhost:*"];

#[test]
fn a_port_of_the_peer_leads_back() {
    let forward = format!("0:{}", web_server(3_000_000));
    let pair = Pair::start(&ALLOWED, &["-R", &forward]);
    let far = address_behind("the peer forwards ", &pair.connecting.wait_for("the peer forwards localhost:"));
    assert_ne!(far.port(), 0);
    assert!(get(far) == page(3_000_000));
    pair.connecting.signal(Signal::TERM);
    pair.connecting.wait().assert_code(130);
    pair.listening.wait_for("no longer forwarding");
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(far).is_ok() {
        assert!(Instant::now() < deadline, "the port outlives the bond");
    }
}

#[test]
fn without_a_permit_the_flag_is_named() {
    let target = free_port();
    let pair = Pair::start(&[], &["-R", &format!("8080:{target}")]);
    let ended = pair.connecting.wait().assert_code(5);
    assert!(ended.error_line().contains("--permit-listen localhost:8080"), "{}", ended.stderr);
    pair.listening.wait_for("no --permit-listen allows it");
    let pair = Pair::start(&ALLOWED, &["-R", &format!("*:8080:{target}")]);
    let ended = pair.connecting.wait().assert_code(5);
    assert!(ended.error_line().contains("--permit-listen *:8080"), "{}", ended.stderr);
}

#[test]
fn a_taken_port_of_the_peer_is_reported() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = taken.local_addr().unwrap();
    let pair = Pair::start(&["--permit-listen", "*:*"], &["-R", &format!("{bind}:localhost:1")]);
    let ended = pair.connecting.wait().assert_code(5);
    let line = ended.error_line();
    assert!(line.contains(&bind.to_string()) && line.contains("in use"), "{line}");
}

#[test]
fn a_refusing_target_is_reported_at_both_ends() {
    let nobody = free_port();
    let pair = Pair::start(&ALLOWED, &["-R", &format!("0:{nobody}")]);
    let far = address_behind("the peer forwards ", &pair.connecting.wait_for("the peer forwards localhost:"));
    assert!(matches!(connect(far).read(&mut [0]), Ok(0) | Err(_)));
    pair.connecting.wait_for(&format!("forward to {nobody}"));
    let line = pair.listening.wait_for("refused by the peer");
    assert!(line.contains(&format!("{nobody} said connection refused")), "{line}");
}

#[test]
fn it_comes_back_with_a_restarted_listener() {
    let bind = free_port();
    let forward = format!("{bind}:{}", web_server(100_000));
    let permit = ["--permit-listen", "127.0.0.1:*"];
    let Pair { server, client, listening, connecting, link } = Pair::start(&permit, &["-R", &forward]);
    connecting.wait_for("the peer forwards");
    drop(listening);
    let key = client.public_key();
    let (_listening, _) = server.listen_on(&link, &["--allow", &key, permit[0], permit[1]]);
    connecting.wait_for("opening a new bond");
    connecting.wait_for("the peer forwards");
    assert!(get(bind) == page(100_000));
}

#[test]
fn a_connector_that_died_does_not_keep_its_port() {
    let bind = free_port();
    let forward = format!("{bind}:{}", web_server(100_000));
    let permit = ["--permit-listen", "127.0.0.1:*"];
    let Pair { server, client, listening, connecting, link } = Pair::start(&permit, &["-R", &forward]);
    connecting.wait_for("the peer forwards");
    // Both links, or one that comes up later would not be there to go down.
    listening.wait_for(": up");
    listening.wait_for(": up");
    // Killed: nobody tells the listener that the bond is over.
    drop(connecting);
    listening.wait_for("down: ");
    listening.wait_for("down: ");
    let again = ["connect", &link, "--peer", &server.public_key(), "-R", &forward];
    let connecting = client.start(&again);
    connecting.wait_for("the peer forwards");
    assert!(get(bind) == page(100_000));
    // While it lives, another one of the same user cannot have the port.
    let ended = client.run(&again).assert_code(5);
    assert!(ended.error_line().contains("in use"), "{}", ended.stderr);
}
