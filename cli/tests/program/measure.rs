//! `speed` and `demo`: their figures and their JSON.

use crate::user::User;
use serde_json::Value;

/// Runs a short speed test over two links.
fn speed(options: &[&str]) -> Value {
    let (server, client) = (User::new(), User::new());
    let (_listening, link) = server.listen(&["--allow", &client.public_key()]);
    let peer = server.public_key();
    let base = ["speed", &link, &link, "--peer", &peer, "--seconds", "1", "--omit", "0", "--json"];
    let arguments: Vec<_> = base.iter().chain(options).copied().collect();
    let ended = client.run(&arguments).assert_code(0);
    assert_eq!(ended.stdout.lines().count(), 1);
    assert_eq!(ended.stderr, "", "nothing but the result when standard error is no terminal");
    serde_json::from_str(&ended.stdout).unwrap()
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn speed_prints_the_documented_object() {
    let result = speed(&[]);
    assert_eq!(keys(&result), ["bytes", "links", "mbytes_per_second", "seconds", "startup_ms"]);
    assert!(result["bytes"].as_u64().unwrap() > 100_000, "{result}");
    assert!((0.5..=1.0).contains(&result["seconds"].as_f64().unwrap()), "{result}");
    assert!(result["mbytes_per_second"].as_f64().unwrap() > 0.0, "{result}");
    let links = result["links"].as_array().unwrap();
    assert_eq!(links.len(), 2, "{result}");
    for link in links {
        assert_eq!(
            keys(link),
            [
                "bytes",
                "kind",
                "link",
                "lost_packets",
                "mbytes_per_second",
                "reinjected_bytes",
                "rtt_ms",
                "state"
            ]
        );
        assert_eq!(link["kind"], "tcp");
        assert_eq!(link["state"], "active");
    }
}

#[test]
fn speed_measures_both_directions_and_several_streams() {
    let received = speed(&["--direction", "receive", "--streams", "3"]);
    assert!(received["bytes"].as_u64().unwrap() > 100_000, "{received}");
    let both = speed(&["--direction", "both"]);
    for direction in ["send", "receive"] {
        assert!(both["mbytes_per_second"][direction].as_f64().unwrap() > 0.0, "{both}");
    }
}

#[test]
fn speed_works_with_every_cipher() {
    for cipher in ["aes", "chacha"] {
        speed(&["--cipher", cipher]);
    }
}

#[test]
fn speed_without_encryption_needs_both_ends() {
    let (server, client) = (User::new(), User::new());
    let key = client.public_key();
    let plain = ["--cipher", "none", "--plaintext-over-ip"];
    let arguments: Vec<_> = ["--allow", &key].iter().chain(&plain).copied().collect();
    let (_listening, link) = server.listen(&arguments);
    let peer = server.public_key();
    let base = ["speed", &link, "--peer", &peer, "--seconds", "1", "--omit", "0"];
    let arguments: Vec<_> = base.iter().chain(&plain).copied().collect();
    let ended = client.run(&arguments).assert_code(0);
    assert!(ended.stdout.starts_with("send: "), "{}", ended.stdout);
    client.run(&base).assert_code(5);
}

#[test]
fn the_demo_loses_nothing_and_sums_up() {
    let ended = User::new().run(&["demo", "--seconds", "5", "--json"]).assert_code(0);
    let result: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(ended.stderr, "", "no picture when standard error is no terminal, and nothing to complain of");
    assert_eq!(result["verified"], true);
    assert!(result["bytes"].as_u64().unwrap() > 10_000_000, "{result}");
    let links = result["links"].as_array().unwrap();
    assert_eq!(links.len(), if cfg!(unix) { 4 } else { 2 }, "{result}");
    assert!(links.iter().all(|link| link["bytes"].as_u64().unwrap() > 0), "{result}");
    assert_eq!(result["phases"].as_array().unwrap().len(), 5);
}
