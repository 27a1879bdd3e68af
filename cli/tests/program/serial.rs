//! Serial links between two programs, each with its end of a line.

use bondwire_line::{End, Noise, PtyLine};
use serde_json::Value;

use crate::control::wait_for;
use crate::pair::{address_behind, get, page, web_server};
use crate::up::write_config;
use crate::user::User;

fn link(line: &PtyLine, end: End, options: &str) -> String {
    format!("serial:{}{options}", line.path(end).unwrap().display())
}

#[test]
fn a_page_comes_over_a_serial_line() {
    let line = PtyLine::open(Noise::NONE, 1).unwrap();
    let (server, client) = (User::new(), User::new());
    let arguments =
        ["listen", &link(&line, End::B, ""), "--allow", &client.public_key(), "--permit-open", "*:*"];
    let listening = server.start(&arguments);
    listening.wait_for("listening on serial /dev/pts/");
    let forward = format!("127.0.0.1:0:{}", web_server(300_000));
    let near = link(&line, End::A, "");
    let connecting = client.start(&["connect", &near, "--peer", &server.public_key(), "-L", &forward]);
    let local = address_behind("forwarding ", &connecting.wait_for("forwarding 127.0.0.1:"));
    connecting.wait_for("connected to ");
    assert!(get(local) == page(300_000));
    assert!(line.carried_bytes(End::B) > 300_000);
}

#[test]
fn the_status_tells_of_noise_on_a_line() {
    let line = PtyLine::open(Noise { bit_flip: 1e-5, ..Noise::NONE }, 1).unwrap();
    let (server, client) = (User::new(), User::new());
    let arguments = ["--allow", &client.public_key(), "--permit-open", "*:*"];
    let there = link(&line, End::B, ",baud=921600");
    let listening = server.start(&[&["listen", &there][..], &arguments].concat());
    listening.wait_for("listening on serial /dev/pts/");
    let forward = format!("127.0.0.1:0:{}", web_server(300_000));
    let near = link(&line, End::A, ",baud=921600");
    let connecting = client.start(&["connect", &near, "--peer", &server.public_key(), "-L", &forward]);
    let local = address_behind("forwarding ", &connecting.wait_for("forwarding 127.0.0.1:"));
    connecting.wait_for("connected to ");
    assert!(get(local) == page(300_000));
    let figure = |status: &Value, name: &str| status["bonds"][0]["links"][0][name].as_u64();
    let status = wait_for(&client, |status| figure(status, "damaged_frames") > Some(0));
    assert!(figure(&status, "credit_stalls").is_some(), "{status}");
    let shown = client.run(&["status"]).assert_code(0).stdout;
    assert!(shown.contains(" damaged frame"), "{shown}");
}

#[test]
fn speed_measures_a_serial_line() {
    let line = PtyLine::open(Noise::NONE, 1).unwrap();
    let (server, client) = (User::new(), User::new());
    let listening =
        server.start(&["listen", &link(&line, End::B, ",baud=921600"), "--allow", &client.public_key()]);
    listening.wait_for("listening on serial /dev/pts/");
    let near = link(&line, End::A, ",baud=921600");
    let peer = server.public_key();
    let speed = client
        .run(&["speed", &near, "--peer", &peer, "--seconds", "1", "--omit", "0", "--json"])
        .assert_code(0);
    let result: Value = serde_json::from_str(&speed.stdout).unwrap();
    assert_eq!(result["links"][0]["kind"], "serial", "{result}");
    assert!(result["bytes"].as_u64().unwrap() > 0, "{result}");
}

#[test]
fn faults_of_ports_are_told() {
    let user = User::new();
    let peer = user.public_key();
    let ended = user.run(&["listen", "serial:/dev/ttyNONESUCH7", "--allow", &peer]).assert_code(3);
    assert!(ended.error_line().contains("there is no such port"), "{}", ended.stderr);
    let ended = user.run(&["connect", "serial:/dev/null", "--peer", &peer, "--timeout", "1"]).assert_code(4);
    assert!(ended.error_line().contains("is not a serial port"), "{}", ended.stderr);
    let twice = ["connect", "serial:/dev/ttyUSB0", "serial:/dev/ttyUSB0", "--peer", &peer];
    let ended = user.run(&twice).assert_code(2);
    assert!(ended.error_line().contains("stands there twice"), "{}", ended.stderr);
}

#[test]
fn a_service_waits_for_a_port_that_is_not_there_yet() {
    let line = PtyLine::open(Noise::NONE, 1).unwrap();
    let (server, client) = (User::new(), User::new());
    let port = server.home().join("port");
    let text =
        format!("[listen]\nlinks = [\"serial:{}\"]\nallow = [\"{}\"]\n", port.display(), client.public_key());
    let config = write_config(&server, "board.toml", &text);
    let peer = server.public_key();
    let listening = server.start(&["up", &config.display().to_string()]);
    listening.wait_for("/port: there is no such port; ");
    std::os::unix::fs::symlink(line.path(End::B).unwrap(), &port).unwrap();
    let connecting = client.start(&["connect", &link(&line, End::A, ""), "--peer", &peer]);
    connecting.wait_for("connected to ");
}

#[test]
fn devices_lists_ports_and_ends_well() {
    let ended = User::new().run(&["devices", "--json"]).assert_code(0);
    let result: Value = serde_json::from_str(&ended.stdout).unwrap();
    for port in result["serial_ports"].as_array().unwrap() {
        assert!(port["link"].as_str().unwrap().starts_with("serial:"), "{port}");
        assert_eq!(port["usable"].as_bool().unwrap(), port["fault"].is_null(), "{port}");
    }
    assert!(!User::new().run(&["devices"]).assert_code(0).stdout.is_empty());
}
