//! What the tests of whole bonds share.
#![allow(dead_code, clippy::unwrap_used)]

use bondwire::link::memory::{self, Faults};
use bondwire::{Bond, BondConfig, Class, Identity, ListenConfig, Listener};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Two hosts: one that dials, one that listens, and the bond between them as the dialler has it.
pub(crate) struct Hosts {
    pub(crate) here: Identity,
    pub(crate) there: Identity,
    pub(crate) listener: Listener,
    pub(crate) bond: Bond,
}

impl Hosts {
    pub(crate) fn new() -> Self {
        Self::with(BondConfig::default())
    }

    pub(crate) fn with(config: BondConfig) -> Self {
        let (here, there) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let listen = ListenConfig { bond: config.clone(), ..ListenConfig::allow([here.public_key()]) };
        let listener = Listener::new(&there, listen).unwrap();
        let bond = Bond::connect(&here, there.public_key(), config).unwrap();
        Self { here, there, listener, bond }
    }

    /// Adds a link in memory and waits until it is up.
    pub(crate) async fn add_link(&self) -> Faults {
        let (near, far) = memory::pair(16 * 1024, 256 * 1024);
        let faults = near.faults();
        self.listener.add_link(far);
        self.bond.add_link(near).await.unwrap();
        faults
    }
}

/// Bytes that follow from their place in the stream.
pub(crate) fn byte_at(position: u64) -> u8 {
    ((position.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 56) as u8
}

/// Writes `len` bytes and finishes.
pub(crate) async fn send_pattern(stream: &mut (impl AsyncWrite + Unpin), len: u64) {
    let mut position = 0;
    while position < len {
        let end = len.min(position + 60_000);
        let piece: Vec<u8> = (position..end).map(byte_at).collect();
        stream.write_all(&piece).await.unwrap();
        position = end;
    }
    stream.shutdown().await.unwrap();
}

/// Reads to the end and checks every byte.
pub(crate) async fn expect_pattern(stream: &mut (impl AsyncRead + Unpin), len: u64) {
    let mut position = 0;
    let mut buffer = vec![0; 100_000];
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        for byte in &buffer[..read] {
            assert_eq!(*byte, byte_at(position), "byte {position}");
            position += 1;
        }
    }
    assert_eq!(position, len);
}

/// Moves `len` bytes both ways over a fresh stream between the two ends of a bond.
pub(crate) async fn exchange(here: &Bond, there: &Bond, len: u64) {
    let mut near = here.open_stream(Class::Bulk).await.unwrap();
    let accept_and_answer = async {
        let mut far = there.accept_stream().await.unwrap();
        let (mut recv, mut send) = tokio::io::split(&mut far);
        tokio::join!(expect_pattern(&mut recv, len), send_pattern(&mut send, len));
    };
    let (mut recv, mut send) = tokio::io::split(&mut near);
    tokio::join!(accept_and_answer, expect_pattern(&mut recv, len), send_pattern(&mut send, len));
}
