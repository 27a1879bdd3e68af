//! A packet link with nothing on it but packets.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use bondwire::limits::BATCH_BYTES;
use bondwire::link::{PacketBatch, PacketReader, PacketWriter};
use bytes::BytesMut;

/// Sends packets of so many bytes, in batches as a bond has them.
pub(crate) async fn send(mut writer: impl PacketWriter, packet_bytes: usize) -> Result<Infallible> {
    let mut batch = PacketBatch::new(writer.headroom_bytes());
    let packet = vec![0x5a; packet_bytes];
    while (batch.len() + 1) * packet_bytes <= writer.batch_bytes().min(BATCH_BYTES) {
        batch.push(&packet);
    }
    loop {
        writer.ready().await?;
        writer.send(&mut batch).await?;
    }
}

/// Counts what comes.
pub(crate) async fn receive(mut reader: impl PacketReader, received: Arc<AtomicU64>) -> Result<Infallible> {
    reader.authenticated();
    let mut packets: Vec<BytesMut> = Vec::new();
    loop {
        packets.clear();
        reader.receive(&mut packets).await?;
        let bytes: usize = packets.iter().map(BytesMut::len).sum();
        received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
