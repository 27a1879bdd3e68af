use bondwire_core::crypto::{OpenError, Opener};
use bondwire_core::error::DownReason;
use bytes::{Buf, Bytes, BytesMut};

use super::attach::{LinkControl, down_reason};
use super::handshake::Answerer;
use super::shared::Shared;
use crate::limits::BATCH_PACKETS_MAX;
use crate::link::PacketReader;

/// Set in the first byte of a handshake message, clear in that of a data packet.
const HANDSHAKE_BIT: u8 = 0x80;

/// The receiving task of a link: opens packets outside the lock and hands them to the engine, a batch at a time.
/// Answers why the link ended.
pub(crate) async fn run(
    shared: &Shared,
    control: &LinkControl,
    mut reader: impl PacketReader,
    mut opener: Opener,
    mut answerer: Option<Answerer>,
) -> DownReason {
    let mut received: Vec<BytesMut> = Vec::new();
    let mut opened: Vec<(u64, Bytes)> = Vec::new();
    loop {
        if let Err(e) = reader.receive(&mut received).await {
            return down_reason(&e);
        }
        for packet in received.drain(..) {
            if packet.first().is_some_and(|first| first & HANDSHAKE_BIT != 0) {
                answer_repeat(shared, control, answerer.as_mut(), &packet);
                continue;
            }
            match open(&mut opener, packet) {
                Ok(packet) => {
                    if let Some(answerer) = &mut answerer {
                        answerer.confirm();
                    }
                    opened.push(packet);
                }
                Err(e @ OpenError::TooManyForgeries { .. }) => return DownReason::Io(e.to_string()),
                Err(e) => {
                    shared.count_dropped_packet();
                    tracing::debug!(target: "bondwire", "link {}: {e}", control.id);
                }
            }
        }
        while !opened.is_empty() {
            let count = opened.len().min(BATCH_PACKETS_MAX);
            deliver(shared, control, opened.drain(..count));
        }
        tokio::task::consume_budget().await;
    }
}

/// Opens a packet in place: its number, and its frames without a copy.
fn open(opener: &mut Opener, mut packet: BytesMut) -> Result<(u64, Bytes), OpenError> {
    let opened = opener.open(&mut packet)?;
    packet.advance(opened.header_len);
    packet.truncate(opened.payload_len);
    Ok((opened.number, packet.freeze()))
}

fn deliver(shared: &Shared, control: &LinkControl, packets: impl Iterator<Item = (u64, Bytes)>) {
    shared.with(|state, now| {
        for (number, frames) in packets {
            // After a violation the engine has closed the link, and ignores the rest.
            if let Err(violation) = state.connection.handle_packet(now, control.id, number, frames) {
                tracing::warn!(target: "bondwire", "link {}: the peer broke the protocol: {violation}", control.id);
                return;
            }
        }
    });
}

/// A handshake message that comes again: its answer was lost.
fn answer_repeat(shared: &Shared, control: &LinkControl, answerer: Option<&mut Answerer>, packet: &[u8]) {
    match answerer.and_then(|answerer| answerer.repeat(shared.clock.now(), packet)) {
        Some(answer) => control.send_first(answer),
        None => shared.count_dropped_packet(),
    }
}
