//! Key files and public keys.

use std::fs;

use crate::user::User;

#[test]
fn keygen_prints_the_key_that_pubkey_prints() {
    let user = User::new();
    let made = user.run(&["keygen"]).assert_code(0);
    let printed = user.run(&["pubkey"]).assert_code(0);
    assert_eq!(made.stdout, printed.stdout);
    assert!(made.stdout.starts_with("bwpub1") && made.stdout.lines().count() == 1, "{}", made.stdout);
}

#[test]
fn keygen_replaces_only_when_told_to() {
    let user = User::new();
    let file = user.home().join("key");
    let file = file.to_str().unwrap();
    let first = user.run(&["keygen", "-o", file]).assert_code(0);
    let refused = user.run(&["keygen", "-o", file]).assert_code(3);
    assert!(refused.error_line().contains("--force"), "{}", refused.stderr);
    assert_eq!(user.run(&["pubkey", file]).stdout, first.stdout);
    let second = user.run(&["keygen", "-o", file, "--force"]).assert_code(0);
    assert_ne!(second.stdout, first.stdout);
}

#[test]
fn a_missing_key_file_is_named() {
    let user = User::new();
    let ended = user.run(&["pubkey", "/nowhere/key"]).assert_code(3);
    assert!(ended.error_line().contains("bondwire keygen -o /nowhere/key"), "{}", ended.stderr);
    let ended = user.run(&["keygen", "-o", "/proc/nowhere/key"]).assert_code(3);
    assert!(ended.error_line().contains("/proc/nowhere/key"), "{}", ended.stderr);
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let user = User::new();
    let peer = user.public_key();
    let file = user.home().join("config/bondwire/key");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    for arguments in [
        &["pubkey"][..],
        &["listen", "tcp:127.0.0.1:0", "--allow", &peer],
        &["connect", "tcp:127.0.0.1:1", "--peer", &peer],
        &["speed", "tcp:127.0.0.1:1", "--peer", &peer],
    ] {
        let ended = user.run(arguments).assert_code(3);
        assert!(ended.error_line().contains("run: chmod 600 "), "{}", ended.stderr);
    }
}

#[test]
fn listen_makes_a_missing_default_key_and_says_so() {
    let user = User::new();
    let (running, _) = user.listen(&["--accept-any-peer"]);
    running.wait_for("public key of this host: bwpub1");
    drop(running);
    user.run(&["pubkey"]).assert_code(0);
}

#[test]
fn listen_wants_to_know_who_may_connect() {
    let ended = User::new().run(&["listen", "tcp:127.0.0.1:0"]).assert_code(3);
    assert!(ended.error_line().contains("--allow PUBKEY"), "{}", ended.stderr);
}

#[test]
fn completions_are_printed() {
    let ended = User::new().run(&["completions", "bash"]).assert_code(0);
    assert!(ended.stdout.contains("bondwire"), "{}", ended.stdout);
}
