use std::io;

use bondwire_core::connection::{Connection, Transmit};
use bondwire_core::crypto::Sealer;
use bondwire_core::id::LinkId;
use bondwire_core::limits::TAG_MAX_BYTES;
use bondwire_core::time::Instant;
use bondwire_core::wire::packet::Packet;

use super::attach::LinkControl;
use super::shared::Shared;
use crate::limits::{BATCH_BYTES, BATCH_PACKETS_MAX};
use crate::link::{PacketBatch, PacketWriter};

/// Packets of one batch on their way from the engine; their memory is used again.
#[derive(Default)]
struct Polled {
    packets: Vec<Packet>,
    used: usize,
}

/// How polling for a batch ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Polling {
    /// The batch is full; the engine may have more.
    Full,
    /// The engine has no more for this link at the moment.
    Idle,
    /// The link is over once this batch is sent.
    LinkClosed,
}

/// The sending task of a link: asks the engine for packets when the medium can take some, seals and sends them. Ends
/// well when the engine has closed the link, and with an error when the medium failed.
pub(crate) async fn run(
    shared: &Shared,
    control: &LinkControl,
    mut writer: impl PacketWriter,
    mut sealer: Sealer,
) -> io::Result<()> {
    let mut batch = PacketBatch::new(writer.headroom_bytes());
    let batch_bytes = writer.batch_bytes().min(BATCH_BYTES);
    let mut polled = Polled::default();
    loop {
        // Only a medium that takes packets now gets any: the decision what to send is made as late as possible.
        writer.ready().await?;
        batch.clear();
        control.take_handshake().iter().for_each(|message| batch.push(message));
        let (polling, rate_found) = polled.fill(shared, control.id, batch_bytes);
        writer.rate_found(rate_found);
        polled.seal(&mut sealer, &mut batch)?;
        if !batch.is_empty() {
            writer.send(&mut batch).await?;
        }
        match polling {
            Polling::Full => tokio::task::consume_budget().await,
            Polling::Idle => control.wake.notified().await,
            Polling::LinkClosed => return writer.shutdown().await,
        }
    }
}

impl Polled {
    /// Polls the engine until the batch is full or it has no more; one lock for all of them. Answers the rate found
    /// too.
    fn fill(&mut self, shared: &Shared, link: LinkId, batch_bytes: usize) -> (Polling, Option<u64>) {
        shared.with(|state, now| {
            let polling = self.poll(&mut state.connection, now, link, batch_bytes);
            (polling, state.connection.rate_found(link))
        })
    }

    fn poll(
        &mut self,
        connection: &mut Connection,
        now: Instant,
        link: LinkId,
        batch_bytes: usize,
    ) -> Polling {
        let mut bytes = 0;
        while bytes < batch_bytes && self.used < BATCH_PACKETS_MAX {
            if self.used == self.packets.len() {
                self.packets.push(Packet::new());
            }
            match connection.poll_transmit(now, link, &mut self.packets[self.used]) {
                Transmit::Packet => {
                    bytes += self.packets[self.used].len();
                    self.used += 1;
                }
                Transmit::Idle => return Polling::Idle,
                Transmit::LinkClosed => return Polling::LinkClosed,
            }
        }
        Polling::Full
    }

    /// Copies the packets together and seals each where it lies.
    fn seal(&mut self, sealer: &mut Sealer, batch: &mut PacketBatch) -> io::Result<()> {
        for packet in &mut self.packets[..self.used] {
            batch.push_with(|buffer, start| {
                packet.gather(buffer);
                buffer.resize(buffer.len() + TAG_MAX_BYTES, 0);
                let sealed = sealer
                    .seal(&mut buffer[start..], packet.header_len(), packet.number(), packet.key_phase())
                    .map_err(io::Error::other)?;
                buffer.truncate(start + sealed);
                Ok::<_, io::Error>(())
            })?;
            // Lets go of the application's bytes.
            packet.clear();
        }
        self.used = 0;
        Ok(())
    }
}
