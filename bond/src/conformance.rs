//! Checks a link against the contract in [`link`](crate::link).
//!
//! Call it from a test of the crate that implements the link:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use bondwire::{conformance, link::memory};
//! conformance::check(|| async { memory::pair(1500, 16 * 1024) }).await?;
//! # Ok::<_, conformance::Failure>(()) }).unwrap();
//! ```
//!
//! The link must lose nothing while it is checked: use a good cable, or a loss-free setting.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::timeout;

use crate::limits::{HANDSHAKE_MESSAGE_MAX_BYTES, MTU_MAX_BYTES, MTU_MIN_BYTES};
use crate::link::{PacketBatch, PacketLink, PacketReader, PacketWriter};

/// Time within which each step must get somewhere.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time after which a sender that has not moved is taken to be held back.
const HELD_BACK: Duration = Duration::from_millis(200);
/// Bytes after which a sender that nobody reads from must have been held back.
const BACK_PRESSURE_MAX_BYTES: usize = 64 << 20;

/// A rule of the contract that the link breaks.
#[derive(Debug, thiserror::Error)]
#[error("link conformance, check `{check}`: {what}")]
pub struct Failure {
    /// The check, by name.
    pub check: &'static str,
    /// What was seen, and what the contract asks for.
    pub what: String,
}

/// Runs every check; `pair` makes a fresh link, both ends, each time it is called.
pub async fn check<L, F, Fut>(pair: F) -> Result<(), Failure>
where
    L: PacketLink,
    F: FnMut() -> Fut,
    Fut: Future<Output = (L, L)>,
{
    check_within(PATIENCE, pair).await
}

/// The same on a machine so slow, or a link so slow, that a check may take longer than ten seconds.
pub async fn check_within<L, F, Fut>(patience: Duration, mut pair: F) -> Result<(), Failure>
where
    L: PacketLink,
    F: FnMut() -> Fut,
    Fut: Future<Output = (L, L)>,
{
    named(patience, "description", description(pair().await)).await?;
    named(patience, "one at a time before authentication", one_at_a_time(pair().await)).await?;
    named(patience, "order and sizes", order_and_sizes(pair().await)).await?;
    named(patience, "big batch", big_batch(pair().await)).await?;
    named(patience, "both directions", both_directions(pair().await)).await?;
    named(patience, "cancel safety of receive", cancelled_receive(pair().await)).await?;
    named(patience, "cancel safety of ready", cancelled_ready(pair().await)).await?;
    named(patience, "back-pressure", back_pressure(pair().await)).await?;
    named(patience, "end by shutdown", end_by_shutdown(pair().await)).await?;
    named(patience, "end by drop", end_by_drop(pair().await)).await?;
    named(patience, "reader dropped", reader_dropped(pair().await)).await
}

type Checked = Result<(), String>;

async fn named(
    patience: Duration,
    check: &'static str,
    run: impl Future<Output = Checked>,
) -> Result<(), Failure> {
    let outcome =
        timeout(patience, run).await.unwrap_or_else(|_| Err(format!("not done after {patience:?}")));
    outcome.map_err(|what| Failure { check, what })
}

/// One direction of a link under test.
struct Path<L: PacketLink> {
    writer: L::Writer,
    reader: L::Reader,
    mtu_bytes: usize,
    batch: PacketBatch,
    received: Vec<BytesMut>,
}

/// Both directions, ready for packets of every size.
fn open<L: PacketLink>((a, b): (L, L)) -> (Path<L>, Path<L>) {
    let (mtu_there, mtu_back) = (a.describe().mtu_bytes, b.describe().mtu_bytes);
    let ((mut reader_a, writer_a), (mut reader_b, writer_b)) = (a.split(), b.split());
    reader_a.authenticated();
    reader_b.authenticated();
    (Path::new(writer_a, reader_b, mtu_there), Path::new(writer_b, reader_a, mtu_back))
}

impl<L: PacketLink> Path<L> {
    fn new(writer: L::Writer, reader: L::Reader, mtu_bytes: usize) -> Self {
        let batch = PacketBatch::new(writer.headroom_bytes());
        Self { writer, reader, mtu_bytes, batch, received: Vec::new() }
    }

    async fn send(&mut self, packets: impl Iterator<Item = Vec<u8>>) -> Checked {
        send::<L>(&mut self.writer, &mut self.batch, packets).await
    }

    async fn expect(&mut self, packets: impl Iterator<Item = Vec<u8>>) -> Checked {
        expect(&mut self.reader, &mut self.received, packets).await
    }
}

async fn send<L: PacketLink>(
    writer: &mut L::Writer,
    batch: &mut PacketBatch,
    packets: impl Iterator<Item = Vec<u8>>,
) -> Checked {
    batch.clear();
    packets.for_each(|packet| batch.push(&packet));
    writer.ready().await.map_err(|e| format!("ready failed: {e}"))?;
    writer.send(batch).await.map_err(|e| format!("send of {batch:?} failed: {e}"))
}

async fn expect(
    reader: &mut impl PacketReader,
    received: &mut Vec<BytesMut>,
    packets: impl Iterator<Item = Vec<u8>>,
) -> Checked {
    for (index, packet) in packets.enumerate() {
        while received.is_empty() {
            reader.receive(received).await.map_err(|e| format!("receive of packet {index} failed: {e}"))?;
            if received.is_empty() {
                return Err("receive succeeded without a packet".into());
            }
        }
        let got = received.remove(0);
        if got != packet {
            return Err(format!(
                "packet {index}: sent {} bytes {:02x?}…, received {} bytes {:02x?}…; packets must arrive whole and in order",
                packet.len(),
                &packet[..packet.len().min(8)],
                got.len(),
                &got[..got.len().min(8)],
            ));
        }
    }
    Ok(())
}

/// A packet whose bytes follow from its number.
fn packet(number: usize, len: usize) -> Vec<u8> {
    let mut state = number as u64 ^ 0x9e37_79b9_7f4a_7c15;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

fn numbered(count: usize, len: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(move |number| packet(number, len))
}

async fn description<L: PacketLink>((a, b): (L, L)) -> Checked {
    for link in [a.describe(), b.describe()] {
        if !(MTU_MIN_BYTES..=MTU_MAX_BYTES).contains(&link.mtu_bytes) {
            return Err(format!("an MTU of {} is outside {MTU_MIN_BYTES}..={MTU_MAX_BYTES}", link.mtu_bytes));
        }
        if link.kind.is_empty() || link.kind.contains(char::is_whitespace) || link.name.is_empty() {
            return Err(format!("kind {:?} must be one word and name {:?} not empty", link.kind, link.name));
        }
    }
    Ok(())
}

async fn one_at_a_time<L: PacketLink>((a, b): (L, L)) -> Checked {
    let ((_keep, mut writer), (mut reader, _keep_too)) = (a.split(), b.split());
    let mut batch = PacketBatch::new(writer.headroom_bytes());
    send::<L>(&mut writer, &mut batch, numbered(5, HANDSHAKE_MESSAGE_MAX_BYTES)).await?;
    expect(&mut reader, &mut Vec::new(), numbered(5, HANDSHAKE_MESSAGE_MAX_BYTES)).await
}

/// Every size up to the MTU for small ones, then steps; three packets of each, so that they share batches.
async fn order_and_sizes<L: PacketLink>(link: (L, L)) -> Checked {
    let (mut there, _back) = open(link);
    let mtu = there.mtu_bytes;
    let sizes = (1..=mtu.min(600)).chain((600..mtu).step_by(997)).chain([mtu - 1, mtu]);
    for (index, size) in sizes.enumerate() {
        let packets = || (0..3).map(move |n| packet(index * 3 + n, size));
        there.send(packets()).await?;
        there.expect(packets()).await?;
    }
    Ok(())
}

async fn big_batch<L: PacketLink>(link: (L, L)) -> Checked {
    let (mut there, _back) = open(link);
    let (count, len) = ((1 << 20) / there.mtu_bytes + 64, there.mtu_bytes);
    let Path { writer, reader, batch, received, .. } = &mut there;
    let (sent, got) = tokio::join!(
        send::<L>(writer, batch, numbered(count, len)),
        expect(reader, received, numbered(count, len))
    );
    sent.and(got)
}

async fn both_directions<L: PacketLink>(link: (L, L)) -> Checked {
    async fn run<L: PacketLink>(path: &mut Path<L>) -> Checked {
        let len = path.mtu_bytes.min(2000);
        let Path { writer, reader, batch, received, .. } = path;
        let send_all = async {
            for first in (0..1000).step_by(10) {
                send::<L>(writer, batch, (first..first + 10).map(|n| packet(n, len))).await?;
            }
            Ok(())
        };
        let (sent, got) = tokio::join!(send_all, expect(reader, received, numbered(1000, len)));
        sent.and(got)
    }
    let (mut there, mut back) = open(link);
    let (one, other) = tokio::join!(run(&mut there), run(&mut back));
    one.and(other)
}

/// Polls a receive just once, again and again, while packets come in: none may go missing.
async fn cancelled_receive<L: PacketLink>(link: (L, L)) -> Checked {
    let (mut there, _back) = open(link);
    let len = there.mtu_bytes.min(5000);
    let Path { writer, reader, batch, received, .. } = &mut there;
    let send_all = async {
        for number in 0..200 {
            send::<L>(writer, batch, std::iter::once(packet(number, len))).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    };
    let receive_all = async {
        while received.len() < 200 {
            tokio::select! {
                biased;
                result = reader.receive(received) => result.map_err(|e| format!("receive failed: {e}"))?,
                () = std::future::ready(()) => tokio::task::yield_now().await,
            }
        }
        expect(reader, received, numbered(200, len)).await
    };
    let (sent, got): (Checked, Checked) = tokio::join!(send_all, receive_all);
    sent.and(got)
}

async fn cancelled_ready<L: PacketLink>(link: (L, L)) -> Checked {
    let (mut there, _back) = open(link);
    for _ in 0..100 {
        tokio::select! {
            biased;
            result = there.writer.ready() => result.map_err(|e| format!("ready failed: {e}"))?,
            () = std::future::ready(()) => {}
        }
    }
    there.send(numbered(3, 100)).await?;
    there.expect(numbered(3, 100)).await
}

/// A sender that nobody reads from must wait, and go on when somebody does; nothing may be lost.
async fn back_pressure<L: PacketLink>(link: (L, L)) -> Checked {
    let (mut there, _back) = open(link);
    let len = there.mtu_bytes;
    let mut sent = 0;
    let Path { writer, reader, batch, received, .. } = &mut there;
    loop {
        match timeout(HELD_BACK, writer.ready()).await {
            Err(_) => break,
            Ok(result) => result.map_err(|e| format!("ready failed: {e}"))?,
        }
        batch.clear();
        batch.push(&packet(sent, len));
        sent += 1;
        let mut sending = std::pin::pin!(writer.send(batch));
        if let Ok(result) = timeout(HELD_BACK, &mut sending).await {
            result.map_err(|e| format!("send failed: {e}"))?;
        } else {
            // Held back within a packet: the call must end once the reader takes what is there.
            let (result, got) = tokio::join!(sending, expect(reader, received, numbered(sent, len)));
            return result.map_err(|e| format!("send failed: {e}")).and(got);
        }
        if sent * len > BACK_PRESSURE_MAX_BYTES {
            return Err(format!(
                "{} bytes were taken although nobody reads: the sender must wait",
                sent * len
            ));
        }
    }
    expect(reader, received, numbered(sent, len)).await?;
    writer.ready().await.map_err(|e| format!("ready failed after the queue was emptied: {e}"))?;
    send::<L>(writer, batch, std::iter::once(packet(7, len))).await?;
    expect(reader, received, std::iter::once(packet(7, len))).await
}

async fn end_by_shutdown<L: PacketLink>(link: (L, L)) -> Checked {
    let (mut there, back) = open(link);
    there.send(numbered(3, 200)).await?;
    there.writer.shutdown().await.map_err(|e| format!("shutdown failed: {e}"))?;
    let Path { writer, mut reader, mut received, .. } = there;
    drop((writer, back));
    expect(&mut reader, &mut received, numbered(3, 200)).await?;
    expect_end(&mut reader).await
}

async fn end_by_drop<L: PacketLink>(link: (L, L)) -> Checked {
    let (there, back) = open(link);
    let (Path { writer, mut reader, .. }, Path { reader: far_reader, writer: _far_writer, .. }) =
        (there, back);
    drop((writer, far_reader));
    expect_end(&mut reader).await
}

async fn expect_end(reader: &mut impl PacketReader) -> Checked {
    let mut received = Vec::new();
    match reader.receive(&mut received).await {
        Ok(()) => Err(format!("{} packets received after the end of the link", received.len())),
        // A medium may tell a reset from an end; both end the link.
        Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => Ok(()),
        Err(e) => Err(format!("the end of the link must be UnexpectedEof, not {:?}: {e}", e.kind())),
    }
}

/// With the other end gone a sender must fail sooner or later, not wait for ever.
async fn reader_dropped<L: PacketLink>(link: (L, L)) -> Checked {
    let (there, back) = open(link);
    let (Path { mut writer, reader, mut batch, .. }, Path { reader: _keep, writer: far_writer, .. }) =
        (there, back);
    drop((reader, far_writer));
    loop {
        batch.clear();
        batch.push(&packet(0, 256));
        if writer.ready().await.is_err() || writer.send(&mut batch).await.is_err() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{LinkDescription, StreamLink, memory};

    #[tokio::test]
    async fn memory_link_conforms() {
        check(|| async { memory::pair(1500, 16 * 1024) }).await.unwrap();
        check(|| async { memory::pair(65_535, 1 << 20) }).await.unwrap();
    }

    #[tokio::test]
    async fn stream_link_conforms() {
        check(|| async {
            let (a, b) = tokio::io::duplex(64 * 1024);
            let link = |stream| StreamLink::new(stream, LinkDescription::new("pipe", "pipe", 9000));
            (link(a), link(b))
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_link_that_loses_is_caught() {
        let failure = check(|| async {
            let (a, b) = memory::pair(1500, 16 * 1024);
            a.faults().lose_next(1);
            (a, b)
        })
        .await
        .unwrap_err();
        assert!(failure.to_string().contains("in order"), "{failure}");
    }
}
