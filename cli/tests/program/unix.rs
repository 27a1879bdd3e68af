//! Unix sockets at either end of a forward.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use rustix::process::Signal;

use crate::pair::{Pair, echo_server, free_port, page};
use crate::user::{PATIENCE, User};

/// Sends two megabytes and an end, and sees them come back.
fn assert_echo(path: &Path) {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut writer, data) = (stream.try_clone().unwrap(), page(2_000_000));
    let sent = data.clone();
    let sending = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut answer = Vec::new();
    (&stream).read_to_end(&mut answer).unwrap();
    sending.join().unwrap();
    assert!(answer == data);
}

#[test]
fn a_path_to_a_path_and_back() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (near, target, far) = (path("near"), path("target"), path("far"));
    let server = UnixListener::bind(&target).unwrap();
    thread::spawn(move || {
        for stream in server.incoming().map_while(Result::ok) {
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    let forward = format!("{near}:{target}");
    let reverse = format!("{far}:{}", echo_server());
    let permit = format!("{}/*", folder.path().display());
    let listen = ["--permit-open", &permit, "--permit-listen", &permit];
    let pair = Pair::start(&listen, &["-L", &forward, "-R", &reverse]);
    pair.connecting.wait_for("the peer forwards ");
    assert_echo(near.as_ref());
    assert_echo(far.as_ref());
    pair.connecting.signal(Signal::TERM);
    pair.connecting.wait().assert_code(130);
    assert!(!Path::new(&near).exists(), "removed at the end");
    pair.listening.wait_for("no longer forwarding");
    assert!(!Path::new(&far).exists(), "removed with the forward");
}

#[test]
fn the_listener_removes_its_sockets_when_it_ends() {
    let folder = tempfile::TempDir::new().unwrap();
    let far = folder.path().join("far");
    let far = far.to_str().unwrap();
    let pair = Pair::start(&["--permit-listen", far], &["-R", &format!("{far}:{}", free_port())]);
    pair.connecting.wait_for("the peer forwards ");
    pair.listening.signal(Signal::TERM);
    pair.listening.wait().assert_code(130);
    assert!(!Path::new(far).exists());
}

#[test]
fn a_socket_needs_a_permit_of_its_own() {
    let folder = tempfile::TempDir::new().unwrap();
    let near = folder.path().join("near");
    let forward = format!("{}:/run/secret.sock", near.display());
    let pair = Pair::start(&["--permit-open", "*:*"], &["-L", &forward]);
    pair.connecting.wait_for("connected to ");
    let mut stream = UnixStream::connect(&near).unwrap();
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    let line = pair.connecting.wait_for("refused by the peer");
    assert!(line.contains("--permit-open /run/secret.sock"), "{line}");
}

#[test]
fn a_live_socket_or_another_file_ends_with_3_and_a_dead_one_is_replaced() {
    let folder = tempfile::TempDir::new().unwrap();
    let user = User::new();
    let key = user.public_key();
    let run = |path: &Path| {
        let forward = format!("{}:localhost:80", path.display());
        user.start(&["connect", "tcp:127.0.0.1:1", "--peer", &key, "-L", &forward, "--timeout", "1"])
    };
    let path = folder.path().join("a.sock");
    let live = UnixListener::bind(&path).unwrap();
    let ended = run(&path).wait().assert_code(3);
    assert!(ended.error_line().contains("another program listens there"), "{}", ended.stderr);
    drop(live);
    let running = run(&path);
    running.wait_for("forwarding /");
    running.wait().assert_code(4);
    assert!(!path.exists());
    fs::write(&path, "text").unwrap();
    let ended = run(&path).wait().assert_code(3);
    assert!(ended.error_line().contains("file of that name"), "{}", ended.stderr);
}
