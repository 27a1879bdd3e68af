//! Ports that cannot be used, and other ends that are not Bondwire: each is named.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bondwire::link::{Acceptor, Dialer, PacketBatch, PacketLink, PacketReader, PacketWriter};
use bondwire_line::{End, Noise, PtyLine};
use bondwire_serial::{SerialAcceptor, SerialAddress, SerialDialer, SerialLink};
use rustix::fs::{FlockOperation, flock};

fn address(path: &Path, options: &str) -> SerialAddress {
    format!("{}{options}", path.display()).parse().unwrap()
}

async fn dial_fault(path: &Path) -> String {
    SerialDialer::new(address(path, "")).dial().await.unwrap_err().to_string()
}

async fn linked(line: &PtyLine) -> (SerialLink, SerialLink) {
    let [near, far] = [End::A, End::B].map(|end| address(&line.path(end).unwrap(), ",baud=921600"));
    let mut acceptor = SerialAcceptor::bind(&far).await.unwrap();
    let mut dialer = SerialDialer::new(near);
    let (near, far) = tokio::join!(dialer.dial(), acceptor.accept());
    (near.unwrap(), far.unwrap())
}

#[tokio::test]
async fn what_is_no_port_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    File::create(&file).unwrap();
    assert!(dial_fault(Path::new("/dev/ttyNONESUCH7")).await.contains("there is no such port"));
    for path in [Path::new("/dev/null"), &file, folder.path()] {
        let fault = dial_fault(path).await;
        assert!(fault.contains("is not a serial port"), "{fault}");
    }
    let fault = SerialDialer::new(SerialAddress::new("NOSERIAL")).dial().await.unwrap_err();
    assert_eq!(fault.kind(), io::ErrorKind::NotFound);
    assert!(fault.to_string().contains("bondwire devices"), "{fault}");
    let bound = SerialAcceptor::bind(&SerialAddress::new("/dev/ttyNONESUCH7")).await;
    assert!(bound.unwrap_err().to_string().contains("no such port"));
}

#[tokio::test]
async fn a_port_in_use_is_told() {
    let line = PtyLine::open(Noise::NONE, 1).unwrap();
    let path = line.path(End::A).unwrap();
    let holder = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    flock(&holder, FlockOperation::LockExclusive).unwrap();
    let fault = dial_fault(&path).await;
    assert!(fault.contains("is in use"), "{fault}");
    drop(holder);
    let _waiting = SerialAcceptor::bind(&address(&path, "")).await.unwrap();
    let fault = dial_fault(&path).await;
    assert!(fault.contains("is in use"), "{fault}");
}

/// Whoever tests as root asks the question again as nobody.
#[test]
fn a_port_without_permission_names_the_group() {
    let line = PtyLine::open(Noise::NONE, 1).unwrap();
    let path = line.path(End::A).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        // As serial ports are on Debian.
        let group = rustix::fs::Gid::from_raw(20);
        rustix::fs::chown(&path, None, Some(group)).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o660)).unwrap();
    } else {
        std::fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    }
    let test = std::env::current_exe().unwrap();
    let mut command = if is_root {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&test);
        command
    } else {
        Command::new(&test)
    };
    command.args(["--exact", "dial_as_asked", "--ignored", "--nocapture"]).env("PORT", &path);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("no permission"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    if is_root {
        assert!(text.contains("group dialout") && text.contains("usermod -aG dialout"), "{text}");
    }
}

#[tokio::test]
#[ignore = "only for the test above, which calls it"]
async fn dial_as_asked() {
    let Some(path) = std::env::var_os("PORT") else { return };
    println!("{}", dial_fault(Path::new(&path)).await);
}

/// Answers whatever comes with `answer`, until the line is gone.
fn other_program(path: &Path, answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) {
    let mut port = OpenOptions::new().read(true).write(true).open(path).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(read @ 1..) = port.read(&mut buffer) {
            if port.write_all(&answer(&buffer[..read])).is_err() {
                return;
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_prompt_at_the_other_end_is_named_and_left_alone() {
    let line = PtyLine::open(Noise::NONE, 1).unwrap();
    other_program(&line.path(End::B).unwrap(), |_| b"\r\nboard login: ".to_vec());
    let fault = dial_fault(&line.path(End::A).unwrap()).await;
    assert!(fault.contains("a login prompt answers (\"board login:\")"), "{fault}");
    let pass = async |byte_slots| {
        let until = line.byte_slots(End::A) + byte_slots;
        while line.byte_slots(End::A) < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // A few HELLOs in three seconds, of which one may still be on the line; and then silence.
    pass(1000).await;
    let carried = line.carried_bytes(End::A);
    assert!(carried < 1000, "{carried} bytes");
    pass(5000).await;
    assert_eq!(line.carried_bytes(End::A), carried);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_echo_and_silence_are_named() {
    let line = PtyLine::open(Noise::NONE, 1).unwrap();
    other_program(&line.path(End::B).unwrap(), <[u8]>::to_vec);
    let fault = dial_fault(&line.path(End::A).unwrap()).await;
    assert!(fault.contains("hears itself"), "{fault}");
    let line = PtyLine::open(Noise::NONE, 1).unwrap();
    let begun = Instant::now();
    let fault = dial_fault(&line.path(End::A).unwrap()).await;
    assert!(fault.contains("nothing came back"), "{fault}");
    assert!(begun.elapsed() >= bondwire_serial::limits::HELLO_TIMEOUT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_rates_and_equal_roles_are_named() {
    let line = PtyLine::open(Noise::NONE, 1).unwrap();
    let far = address(&line.path(End::B).unwrap(), ",baud=57600");
    let _acceptor = SerialAcceptor::bind(&far).await.unwrap();
    let mut chatty = OpenOptions::new().write(true).open(line.path(End::B).unwrap()).unwrap();
    let near = line.path(End::A).unwrap();
    let fault = tokio::spawn(async move { dial_fault(&near).await });
    while !fault.is_finished() {
        let _ = chatty.write(&[0x13, 0x88, 0xc1]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let fault = fault.await.unwrap();
    assert!(fault.contains("another baud rate"), "{fault}");

    let line = PtyLine::open(Noise::NONE, 1).unwrap();
    let (near, far) = (line.path(End::A).unwrap(), line.path(End::B).unwrap());
    let (near, far) = tokio::join!(dial_fault(&near), dial_fault(&far));
    assert!(near.contains("both ends dial") || far.contains("both ends dial"), "{near} / {far}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_disappears_ends_the_link() {
    let line = PtyLine::open(Noise::NONE, 1).unwrap();
    let (near, far) = linked(&line).await;
    let ((mut near_reader, mut near_writer), (mut far_reader, _far_writer)) = (near.split(), far.split());
    far_reader.authenticated();
    let mut batch = PacketBatch::new(0);
    for _ in 0..20 {
        batch.push(&[7; 600]);
    }
    near_writer.send(&mut batch).await.unwrap();
    // In the midst of a frame.
    line.hang_up(End::A);
    let mut packets = Vec::new();
    let fault = near_reader.receive(&mut packets).await.unwrap_err();
    assert_eq!(fault.kind(), io::ErrorKind::UnexpectedEof);
    assert!(fault.to_string().contains("the port is gone"), "{fault}");
    while near_writer.ready().await.is_ok() && near_writer.send(&mut batch).await.is_ok() {}
    // The far end hears nothing of it, and finds out by itself.
    let fault = loop {
        if let Err(fault) = far_reader.receive(&mut packets).await {
            break fault;
        }
    };
    assert!(fault.to_string().contains("silence"), "{fault}");
    assert!(packets.iter().all(|packet| packet[..] == [7; 600]));
}
