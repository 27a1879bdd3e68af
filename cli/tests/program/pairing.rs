//! Two machines in one minute: a token, a line to paste, and names from then on.

use std::fs;

use crate::user::{Ended, Running, User};

fn refs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// Pairs, and returns both ends at work.
fn pair(server: &User, client: &User, listen: &[&str], connect: &[&str]) -> (Running, Running) {
    let (listening, line) = server.invite(listen);
    let mut arguments = refs(&line);
    arguments.extend(connect);
    let connecting = client.start(&arguments);
    connecting.wait_for("paired with ");
    listening.wait_for("paired with ");
    (listening, connecting)
}

fn names(user: &User) -> Vec<String> {
    let listed = user.run(&["peers"]).assert_code(0).stdout;
    listed.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

/// Where a listener listens, as `listen` takes it.
fn address_of(line: &[String]) -> String {
    line.iter().find(|word| word.starts_with("tcp:")).unwrap().clone()
}

fn speed(user: &User, name: &str) -> Ended {
    user.run(&["speed", name, "--seconds", "1", "--omit", "0", "--json", "--timeout", "20"])
}

#[test]
fn one_line_pairs_and_the_name_is_enough_from_then_on() {
    let (server, client) = (User::new(), User::new());
    let (listening, line) = server.invite(&["--pair=laptop"]);
    let connecting = client.start(&[refs(&line), vec!["--name", "board"]].concat());
    let said = connecting.wait_for("paired with board");
    assert!(said.contains("bondwire connect board"), "{said}");
    listening.wait_for("paired with laptop");
    assert_eq!((names(&server), names(&client)), (vec!["laptop".to_owned()], vec!["board".to_owned()]));
    let listed = client.run(&["peers"]).stdout;
    let link = address_of(&line);
    assert!(listed.contains(&server.public_key()) && listed.contains(&link), "{listed}");

    // The same listener, and one that only remembers.
    drop(connecting);
    speed(&client, "board").assert_code(0);
    drop(listening);
    let (listening, _) = server.listen_on(&link, &[]);
    speed(&client, "board").assert_code(0);
    listening.wait_for("laptop: new bond from ");
}

#[test]
fn keys_that_are_missing_are_made_where_they_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let (server, client) = (User::new(), User::new());
    let (server_key, client_key) = (server.home().join("a/key"), client.home().join("b/key"));
    let _both = pair(
        &server,
        &client,
        &["--pair", "--key", server_key.to_str().unwrap()],
        &["--key", client_key.to_str().unwrap()],
    );
    for file in [&server_key, &client_key, &server.peers_file(), &client.peers_file()] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
}

#[test]
fn automatic_names_are_numbered_and_given_ones_are_not() {
    let (one, two, client) = (User::new(), User::new(), User::new());
    let _first = pair(&one, &client, &["--pair"], &[]);
    let _second = pair(&two, &client, &["--pair"], &[]);
    let listed = names(&client);
    assert_eq!(listed[1], format!("{}-2", listed[0]));

    let (_listening, line) = User::new().invite(&["--pair"]);
    let taken = client.run(&[refs(&line), vec!["--name", &listed[0]]].concat()).assert_code(3);
    assert!(taken.error_line().contains("--name NAME"), "{}", taken.stderr);
    // The token is still good.
    client.start(&refs(&line)).wait_for("paired with ");

    let taken = client.run(&["listen", "tcp:127.0.0.1:0", &format!("--pair={}", listed[0])]).assert_code(3);
    assert!(taken.error_line().contains("--pair=NAME"), "{}", taken.stderr);
}

#[test]
fn a_host_that_pairs_again_keeps_its_name() {
    let (server, client) = (User::new(), User::new());
    drop(pair(&server, &client, &["--pair=laptop"], &["--name", "board"]));
    let (listening, connecting) = pair(&server, &client, &["--pair"], &[]);
    assert_eq!((names(&server), names(&client)), (vec!["laptop".to_owned()], vec!["board".to_owned()]));
    drop((listening, connecting));
    let (_listening, line) = server.invite(&["--pair"]);
    let ended = client.run(&[refs(&line), vec!["--name", "other"]].concat()).assert_code(3);
    assert!(ended.error_line().contains("bondwire peers rename board other"), "{}", ended.stderr);
}

#[test]
fn a_token_serves_once() {
    let (server, client, late) = (User::new(), User::new(), User::new());
    let (_listening, line) = server.invite(&["--pair"]);
    let connecting = client.start(&refs(&line));
    connecting.wait_for("paired with ");
    let ended = late.run(&refs(&line)).assert_code(5);
    assert!(ended.error_line().contains("used before; make a new one"), "{}", ended.stderr);
    assert!(names(&late).is_empty());
}

#[test]
fn a_guessed_token_and_one_of_another_run_are_refused() {
    let (server, client) = (User::new(), User::new());
    let (listening, line) = server.invite(&["--pair"]);
    let link = address_of(&line);
    drop(listening);
    let (_listening, line_now) = server.listen_on(&link, &["--pair"]);
    let ended = client.run(&refs(&line)).assert_code(5);
    assert!(ended.error_line().contains("does not know this pairing token"), "{line_now} {}", ended.stderr);
}

#[test]
fn a_token_of_another_host_finds_the_wrong_key() {
    let (server, other, client) = (User::new(), User::new(), User::new());
    let (_listening, line) = server.invite(&["--pair"]);
    let (_other, mut other_line) = other.invite(&["--pair"]);
    let place = other_line.iter().position(|word| word == "--pair").unwrap() + 1;
    other_line[place] = line.last().unwrap().clone();
    client.run(&refs(&other_line)).assert_code(5);
}

#[test]
fn ends_in_the_same_role_are_told_what_to_do() {
    let (server, client) = (User::new(), User::new());
    let (listening, line) = server.invite(&["--pair"]);
    // Both listen.
    let token = line.last().unwrap();
    let ended = client.run(&["listen", "tcp:127.0.0.1:0", &format!("--pair={token}")]).assert_code(2);
    assert!(ended.error_line().contains("use it at the other end, with connect"), "{}", ended.stderr);
    // Both connect: nobody listens any more.
    drop(listening);
    let ended = client.run(&[refs(&line), vec!["--timeout", "1"]].concat()).assert_code(4);
    assert!(ended.error_line().to_lowercase().contains("refused"), "{}", ended.stderr);
}

#[test]
fn bad_tokens_and_combinations_are_explained() {
    let (server, client) = (User::new(), User::new());
    let (_listening, line) = server.invite(&["--pair"]);
    let token = line.last().unwrap().as_str();
    let key = server.public_key();
    for (arguments, part) in [
        (vec!["connect", "tcp:h", "--pair", "laptop"], "starts with bwpair1"),
        (vec!["connect", "tcp:h", "--pair", &key], "public key"),
        (vec!["connect", "tcp:h", "--pair", &token[..40]], "too short: 40 of 90"),
        (vec!["connect", "tcp:h", "--pair", token, "--peer", &key], "cannot be used with"),
        (vec!["connect", "tcp:h", "--name", "x", "--peer", &key], "--pair"),
        (vec!["connect", "laptop", "--pair", token], "leave out --peer, --pair"),
        (vec!["connect", "laptop", "board"], "one peer at a time"),
        (vec!["connect", "tcp:h", "--pair", token, "--name", "tcp"], "kind of link"),
    ] {
        let ended = client.run(&arguments).assert_code(2);
        assert!(ended.error_line().contains(part), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn a_broken_peers_file_ends_a_pairing_before_the_token_is_used() {
    let (server, client) = (User::new(), User::new());
    let (_listening, line) = server.invite(&["--pair"]);
    client.public_key();
    fs::write(client.peers_file(), "[peer.x]\nkye = 1\n").unwrap();
    let ended = client.run(&refs(&line)).assert_code(3);
    assert!(ended.error_line().contains("peers.toml:2:1: unknown key \"kye\""), "{}", ended.stderr);
    fs::remove_file(client.peers_file()).unwrap();
    client.start(&refs(&line)).wait_for("paired with ");
}

#[test]
fn the_pair_service_is_for_bonds_that_pair() {
    // A peer that is allowed by its key is not written down by asking.
    let (server, client) = (User::new(), User::new());
    let (listening, link) = server.listen(&["--allow", &client.public_key()]);
    let connecting = client.start(&["connect", &link, "--peer", &server.public_key()]);
    connecting.wait_for("connected to ");
    listening.wait_for("new bond from ");
    assert!(!server.peers_file().exists());
}
