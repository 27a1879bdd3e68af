//! What the tests of devices against real host links share.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod cable;
pub(crate) mod device;
#[cfg(target_os = "linux")]
pub(crate) mod functionfs;
pub(crate) mod qemu;
pub(crate) mod tty;
pub(crate) mod usb;

use std::time::Duration;

use bondwire::link::{PacketBatch, PacketLink, PacketReader, PacketWriter};
use bondwire::{Bond, Class};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Nothing here takes so long, on whatever machine: what has not come by then does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes that tell where they belong.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Sends packets of many lengths over a link to an echo, and sees that each comes back, in order.
pub(crate) async fn echo_test(link: impl PacketLink, count: usize) {
    let mtu_bytes = link.describe().mtu_bytes;
    let (mut reader, mut writer) = link.split();
    reader.authenticated();
    let packets: Vec<Vec<u8>> = (0..count).map(|n| pattern(1 + n * 97 % mtu_bytes)).collect();
    let sending = async {
        for packet in &packets {
            writer.ready().await.unwrap();
            let mut batch = PacketBatch::new(0);
            batch.push(packet);
            writer.send(&mut batch).await.unwrap();
        }
    };
    let receiving = async {
        let mut received = Vec::new();
        while received.len() < packets.len() {
            reader.receive(&mut received).await.unwrap();
        }
        received
    };
    let both = async { tokio::join!(sending, receiving).1 };
    let received = timeout(PATIENCE, both).await.expect("packets that come back");
    assert!(received.iter().zip(&packets).all(|(received, sent)| received[..] == sent[..]), "wrong packets");
    writer.shutdown().await.unwrap();
}

/// Moves so many bytes from `near` to `far`, and calls `disturb` when a part has come.
pub(crate) async fn transfer(near: &Bond, far: &Bond, len: usize, disturb: impl AsyncFnOnce()) {
    let data = pattern(len);
    let sending = async {
        let mut sender = near.open_stream(Class::Bulk).await.unwrap();
        sender.write_all(&data).await.unwrap();
        sender.shutdown().await.unwrap();
        sender
    };
    let receiving = async {
        let mut receiver = far.accept_stream().await.unwrap();
        let mut received = vec![0; len / 6];
        receiver.read_exact(&mut received).await.unwrap();
        disturb().await;
        receiver.read_to_end(&mut received).await.unwrap();
        received
    };
    let both = async { tokio::join!(sending, receiving) };
    let (_sender, received) = timeout(PATIENCE, both).await.expect("all bytes");
    assert!(received == data, "wrong data");
}
