//! Bonds over one serial line, and data over them.

use std::time::Duration;

use bondwire::{Bond, BondConfig, Class, Identity, ListenConfig, Listener};
use bondwire_serial::{SerialAcceptor, SerialAddress, SerialDialer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Longest wait for anything: emulation on a busy machine is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Both ends of a bond; the first one dials.
pub(crate) async fn bonded(near: SerialAddress, far: &SerialAddress) -> (Bond, Bond, Listener) {
    let (here, there) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let listener = Listener::new(&there, ListenConfig::allow([here.public_key()])).unwrap();
    listener.add_acceptor(SerialAcceptor::bind(far).await.unwrap());
    let bond = Bond::connect(&here, there.public_key(), BondConfig::default()).unwrap();
    bond.add_dialer(SerialDialer::new(near));
    let accepted = timeout(PATIENCE, listener.accept()).await.unwrap();
    (bond, accepted, listener)
}

/// Moves so many bytes, checks them, and calls `disturb` when a sixth of them has come.
pub(crate) async fn transfer(near: &Bond, far: &Bond, bytes: usize, disturb: impl AsyncFnOnce()) {
    let data: Vec<u8> =
        (0..bytes as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let mut sender = near.open_stream(Class::Bulk).await.unwrap();
    let sending = async {
        sender.write_all(&data).await.unwrap();
        sender.shutdown().await.unwrap();
    };
    let receiving = async {
        let mut receiver = far.accept_stream().await.unwrap();
        let mut received = vec![0; bytes / 6];
        receiver.read_exact(&mut received).await.unwrap();
        disturb().await;
        receiver.read_to_end(&mut received).await.unwrap();
        received
    };
    let ((), received) = timeout(PATIENCE, async { tokio::join!(sending, receiving) }).await.unwrap();
    assert!(received == data, "wrong data");
}
