//! The peers file: by hand, by command, and under a running listener.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::user::User;

/// A server on this host that says `word` to whoever comes; answers its port.
pub(crate) fn greeter(word: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // The other end may have hung up.
            let _ = stream.write_all(word.as_bytes());
        }
    });
    port
}

/// What comes out of a local port.
pub(crate) fn heard(port: u16) -> String {
    let mut text = String::new();
    // A forward that is refused resets its connection.
    let _ = TcpStream::connect(("127.0.0.1", port)).unwrap().read_to_string(&mut text);
    text
}

pub(crate) fn write_peer(user: &User, key: &str, rest: &str) {
    // As an editor would: all at once.
    let (file, new) = (user.peers_file(), user.home().join("new"));
    user.public_key();
    fs::write(&new, format!("[peer.laptop]\nkey = \"{key}\"\n{rest}\n")).unwrap();
    fs::rename(new, file).unwrap();
}

/// The port of a forward that `connect` opened.
pub(crate) fn forwarded(line: &str) -> u16 {
    let address = line.split("forwarding 127.0.0.1:").nth(1).unwrap();
    address.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn peers_are_listed_removed_and_renamed() {
    let (user, other) = (User::new(), User::new());
    assert_eq!(user.run(&["peers"]).assert_code(0).stdout, "");
    let key = other.public_key();
    write_peer(&user, &key, "links = [\"tcp:10.0.0.1:7700\"]");
    assert_eq!(user.run(&["peers", "list"]).stdout, format!("laptop  {key}  tcp:10.0.0.1:7700\n"));
    user.run(&["peers", "rename", "laptop", "board"]).assert_code(0);
    assert!(user.run(&["peers"]).stdout.starts_with("board  bwpub1"));
    let unknown = user.run(&["peers", "remove", "laptop"]).assert_code(3);
    assert!(unknown.error_line().contains("there are board"), "{}", unknown.stderr);
    user.run(&["peers", "remove", "board"]).assert_code(0);
    assert_eq!(user.run(&["peers"]).stdout, "");
    let named = user.home().join("elsewhere.toml");
    fs::write(&named, format!("[peer.x]\nkey = \"{key}\"\n")).unwrap();
    assert!(user.run(&["peers", "--peers", named.to_str().unwrap()]).stdout.starts_with("x  "));
}

#[test]
fn unknown_names_and_peers_without_links_are_explained() {
    let (user, other) = (User::new(), User::new());
    let ended = user.run(&["connect", "laptop"]).assert_code(3);
    assert!(ended.error_line().contains("no peer is called laptop"), "{}", ended.stderr);
    write_peer(&user, &other.public_key(), "");
    let ended = user.run(&["speed", "laptop"]).assert_code(3);
    assert!(ended.error_line().contains("no link to laptop is remembered"), "{}", ended.stderr);
    let ended = user.run(&["connect", "lapptop"]).assert_code(3);
    assert!(ended.error_line().contains("there are laptop"), "{}", ended.stderr);
}

#[test]
fn a_name_may_be_reached_over_other_links() {
    let (server, client) = (User::new(), User::new());
    write_peer(&client, &server.public_key(), "links = [\"tcp:127.0.0.1:1\"]");
    let (_listening, link) = server.listen(&["--allow", &client.public_key()]);
    client.start(&["connect", "laptop", &link]).wait_for("connected to ");
}

#[test]
fn a_broken_file_is_refused_with_line_column_and_the_key_that_was_meant() {
    let (user, other) = (User::new(), User::new());
    write_peer(&user, &other.public_key(), "permit-opne = [\"localhost:22\"]");
    for arguments in [&["listen", "tcp:127.0.0.1:0"][..], &["peers"], &["connect", "laptop"]] {
        let ended = user.run(arguments).assert_code(3);
        let line = ended.error_line();
        assert!(
            line.contains("peers.toml:3:1: ") && line.contains("did you mean \"permit-open\"?"),
            "{line}"
        );
    }
}

#[test]
fn a_running_listener_takes_changes_up_and_keeps_the_old_when_they_are_broken() {
    let (server, client) = (User::new(), User::new());
    let (key, port) = (client.public_key(), greeter("hello"));
    write_peer(&server, &key, "");
    let (listening, link) = server.listen(&[]);
    let forward = format!("0:localhost:{port}");
    let connecting = client.start(&["connect", &link, "--peer", &server.public_key(), "-L", &forward]);
    let local = forwarded(&connecting.wait_for("forwarding 127.0.0.1:"));
    connecting.wait_for("connected to ");
    assert_eq!(heard(local), "hello");

    // New streams obey the new permissions, and the refusal names the line.
    write_peer(&server, &key, "permit-open = [\"localhost:1\"]");
    listening.wait_for("peers: changed laptop");
    assert_eq!(heard(local), "");
    let refused = connecting.wait_for("refused by the peer");
    let line = format!("\"localhost:{port}\" in permit-open of [peer.laptop]");
    assert!(refused.contains(&line), "{refused}");

    // A broken file changes nothing.
    write_peer(&server, &key, "permit-opne = []");
    let broken = listening.wait_for("the peers stay as they were");
    assert!(broken.contains("peers.toml:3:1: ") && broken.contains("permit-open"), "{broken}");
    write_peer(&server, &key, "permit-open = [\"*:*\"]");
    listening.wait_for("peers: changed laptop");
    assert_eq!(heard(local), "hello");

    // A key that is removed ends its bonds, and the peer reads why.
    server.run(&["peers", "remove", "laptop"]).assert_code(0);
    listening.wait_for("peers: removed laptop");
    let ended = connecting.wait().assert_code(5);
    assert!(ended.error_line().contains("your key was removed"), "{}", ended.stderr);
    let again = client.run(&["connect", &link, "--peer", &server.public_key()]).assert_code(5);
    assert!(again.error_line().contains("not among the allowed peers"), "{}", again.stderr);
}

#[test]
fn a_peer_that_is_added_may_come_in() {
    let (server, first, second) = (User::new(), User::new(), User::new());
    let (listening, link) = server.listen(&["--allow", &first.public_key()]);
    let arguments = ["connect", link.as_str(), "--peer", &server.public_key()];
    second.run(&arguments).assert_code(5);
    write_peer(&server, &second.public_key(), "");
    listening.wait_for("peers: added laptop");
    let connecting = second.start(&arguments);
    connecting.wait_for("connected to ");
    // Who is allowed by an option stays so.
    let other = first.start(&arguments);
    other.wait_for("connected to ");
    server.run(&["peers", "remove", "laptop"]).assert_code(0);
    connecting.wait().assert_code(5);
    first.start(&arguments).wait_for("connected to ");
}

#[test]
fn a_peers_file_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (user, other) = (User::new(), User::new());
    write_peer(&user, &other.public_key(), "");
    fs::set_permissions(user.peers_file(), fs::Permissions::from_mode(0o666)).unwrap();
    let ended = user.run(&["listen", "tcp:127.0.0.1:0"]).assert_code(3);
    assert!(ended.error_line().contains("mode 0666") && ended.error_line().contains("chmod 600"));
}

#[test]
fn an_entry_limits_links_bonds_and_streams() {
    let (server, client) = (User::new(), User::new());
    let peer = server.public_key();
    write_peer(&server, &client.public_key(), "permit-links = [\"tcp:127.0.0.2:0\"]");
    let (listening, link) = server.listen(&[]);
    let arguments = ["connect", link.as_str(), "--peer", &peer];
    let refused = client.run(&arguments).assert_code(5);
    assert!(refused.error_line().contains("permit-links"), "{}", refused.stderr);

    write_peer(
        &server,
        &client.public_key(),
        "permit-links = [\"tcp:127.0.0.1:0\"]\nbonds-max = 1\nstreams-max = 2",
    );
    listening.wait_for("peers: changed laptop");
    let first = client.start(&arguments);
    first.wait_for("connected to ");
    let speed = ["speed", &link, "--peer", &peer, "--seconds", "1", "--omit", "0"];
    client.run(&[&speed[..], &["--streams", "2"]].concat()).assert_code(0);
    // The second bond took the place of the first, whose command opens another, and so on.
    first.wait_for("replaced by a newer bond");
}
