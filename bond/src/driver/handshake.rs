use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bondwire_core::endpoint::Endpoint;
use bondwire_core::handshake::{
    EndpointAccess, HandshakeError, Initiator, Outcome, Responder, Step, looks_like,
};
use bondwire_core::time::Instant;
use bytes::Bytes;

use super::shared::Clock;
use crate::link::{PacketBatch, PacketReader, PacketWriter};

/// The endpoint of a listener or a connector. Locked for table look-ups, never for the handshakes' arithmetic.
#[derive(Clone)]
pub(crate) struct SharedEndpoint(Arc<Mutex<Endpoint>>);

impl SharedEndpoint {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self(Arc::new(Mutex::new(endpoint)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Endpoint> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EndpointAccess for SharedEndpoint {
    fn with<R>(&mut self, f: impl FnOnce(&mut Endpoint) -> R) -> R {
        f(&mut self.lock())
    }
}

/// Why a link did not get through its handshake.
#[derive(Debug)]
pub(crate) enum Fault {
    Medium(io::Error),
    Handshake(HandshakeError),
}

/// A handshake on one link, of either role.
pub(crate) trait Exchange {
    type Done;
    fn poll_transmit(&mut self, now: Instant) -> Option<Bytes>;
    fn poll_timeout(&self) -> Option<Instant>;
    fn handle_timeout(&mut self, now: Instant) -> Result<(), HandshakeError>;
    fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> Result<Option<Self::Done>, HandshakeError>;
}

/// Runs a handshake to its end. Dropping the call gives the link up.
pub(crate) async fn run<E: Exchange>(
    exchange: &mut E,
    clock: Clock,
    reader: &mut impl PacketReader,
    writer: &mut impl PacketWriter,
) -> Result<E::Done, Fault> {
    let mut batch = PacketBatch::new(writer.headroom_bytes());
    let mut received = Vec::new();
    let mut foreign = None;
    loop {
        send_due(exchange, clock, writer, &mut batch).await?;
        let result = tokio::select! {
            biased;
            result = reader.receive(&mut received) => result,
            () = clock.sleep_until(exchange.poll_timeout()) => {
                exchange.handle_timeout(clock.now()).map_err(Fault::Handshake)?;
                continue;
            }
        };
        result.map_err(|e| match foreign {
            // The bytes that came say more than that they are no packets.
            Some(looks_like) => Fault::Handshake(HandshakeError::NotBondwire { looks_like }),
            None => Fault::Medium(e),
        })?;
        for packet in received.drain(..) {
            foreign = looks_like(&packet).or(foreign);
            if let Some(done) = exchange.handle_packet(clock.now(), &packet).map_err(Fault::Handshake)? {
                return Ok(done);
            }
        }
    }
}

/// Sends what is due. A medium that takes nothing is given up when the handshake's time is over.
async fn send_due(
    exchange: &mut impl Exchange,
    clock: Clock,
    writer: &mut impl PacketWriter,
    batch: &mut PacketBatch,
) -> Result<(), Fault> {
    batch.clear();
    while let Some(message) = exchange.poll_transmit(clock.now()) {
        batch.push(&message);
    }
    if batch.is_empty() {
        return Ok(());
    }
    let mut sending = pin!(writer.send(batch));
    loop {
        tokio::select! {
            biased;
            result = &mut sending => return result.map_err(Fault::Medium),
            () = clock.sleep_until(exchange.poll_timeout()) => {
                exchange.handle_timeout(clock.now()).map_err(Fault::Handshake)?;
                // A repeat that is due goes out after this message.
                if exchange.poll_timeout().is_none_or(|at| at <= clock.now()) {
                    return sending.await.map_err(Fault::Medium);
                }
            }
        }
    }
}

impl Exchange for Initiator {
    type Done = Outcome;

    fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        Self::poll_transmit(self, now)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Self::poll_timeout(self)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), HandshakeError> {
        Self::handle_timeout(self, now)
    }

    fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> Result<Option<Outcome>, HandshakeError> {
        Self::handle_packet(self, now, packet)
    }
}

/// A responder with its endpoint. It stays with the link, because a late repeat may want its answer.
pub(crate) struct Answerer {
    responder: Responder,
    endpoint: SharedEndpoint,
}

impl Answerer {
    pub(crate) fn new(responder: Responder, endpoint: SharedEndpoint) -> Self {
        Self { responder, endpoint }
    }

    /// The first packet has authenticated.
    pub(crate) fn confirm(&mut self) {
        self.responder.confirm();
    }

    /// The answer to a message of the handshake that came again.
    pub(crate) fn repeat(&mut self, now: Instant, packet: &[u8]) -> Option<Bytes> {
        // On an attached link only a repeat has an effect, and that is its answer.
        let _ = self.responder.handle_packet(now, packet, &mut self.endpoint);
        self.responder.poll_transmit(now)
    }
}

impl Exchange for Answerer {
    /// [`Step::NewBond`] or [`Step::LinkJoined`]; the answer is still to be sent.
    type Done = Step;

    fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        self.responder.poll_transmit(now)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.responder.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), HandshakeError> {
        self.responder.handle_timeout(now)
    }

    fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> Result<Option<Step>, HandshakeError> {
        let step = self.responder.handle_packet(now, packet, &mut self.endpoint)?;
        Ok(match step {
            Step::NewBond { .. } | Step::LinkJoined(_) => Some(step),
            Step::Refused { peer, reason } => {
                tracing::info!(target: "bondwire", "refused {peer:?}: {reason}");
                None
            }
            Step::Wait | Step::Checked { .. } => None,
        })
    }
}
