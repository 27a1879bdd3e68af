//! Bonds over pseudo-terminals: cables that are pulled and come back under another name.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use bondwire::{Bond, BondConfig, Class, Identity, ListenConfig, Listener};
use bondwire_line::{End, Noise, PtyLine};
use bondwire_serial::{SerialAcceptor, SerialAddress, SerialDialer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A line whose ends have lasting names, as udev gives them.
struct Cable {
    line: PtyLine,
    names: tempfile::TempDir,
}

impl Cable {
    fn new() -> Self {
        let cable =
            Self { line: PtyLine::open(Noise::NONE, 1).unwrap(), names: tempfile::tempdir().unwrap() };
        for end in [End::A, End::B] {
            cable.name(end, &cable.line.path(end).unwrap());
        }
        cable
    }

    fn name(&self, end: End, path: &Path) {
        let name = self.names.path().join(format!("{end:?}"));
        let _ = std::fs::remove_file(&name);
        symlink(path, name).unwrap();
    }

    fn address(&self, end: End) -> SerialAddress {
        SerialAddress::new(self.names.path().join(format!("{end:?}")).to_string_lossy())
    }
}

async fn bonded(cable: &Cable) -> (Bond, Bond, Listener) {
    let (here, there) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let listener = Listener::new(&there, ListenConfig::allow([here.public_key()])).unwrap();
    listener.add_acceptor(SerialAcceptor::bind(&cable.address(End::B)).await.unwrap());
    let near = Bond::connect(&here, there.public_key(), BondConfig::default()).unwrap();
    near.add_dialer(SerialDialer::new(cable.address(End::A)));
    let far = listener.accept().await;
    (near, far, listener)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Moves 600 kB and calls `disturb` when a sixth of it has come.
async fn transfer(near: &Bond, far: &Bond, disturb: impl AsyncFnOnce()) {
    let data = pattern(600_000);
    let mut sender = near.open_stream(Class::Bulk).await.unwrap();
    let sending = async {
        sender.write_all(&data).await.unwrap();
        sender.shutdown().await.unwrap();
    };
    let receiving = async {
        let mut receiver = far.accept_stream().await.unwrap();
        let mut received = vec![0; 100_000];
        receiver.read_exact(&mut received).await.unwrap();
        disturb().await;
        receiver.read_to_end(&mut received).await.unwrap();
        received
    };
    let ((), received) = tokio::join!(sending, receiving);
    assert!(received == data, "wrong data");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cable_that_comes_back_under_another_name_goes_on() {
    let cable = Cable::new();
    let (near, far, _listener) = bonded(&cable).await;
    transfer(&near, &far, async || {
        cable.line.hang_up(End::A);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let path = cable.line.plug_in(End::A).unwrap();
        cable.name(End::A, &path);
    })
    .await;
    // The same at the end that listens.
    transfer(&near, &far, async || {
        cable.line.hang_up(End::B);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let path = cable.line.plug_in(End::B).unwrap();
        cable.name(End::B, &path);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_that_begins_under_load_slows_the_line_and_loses_nothing() {
    let cable = Cable::new();
    let (near, far, _listener) = bonded(&cable).await;
    transfer(&near, &far, async || {
        cable.line.set_noise(Noise { baud_max: 1_000_000, bit_flip: 1e-5, ..Noise::NONE });
    })
    .await;
    assert!(cable.line.damaged_bytes() > 0);
}
