use bondwire_frame::{Instant, SendError};

use crate::{Framing, Port};

/// Sends every packet back to the host that it came from, in order. While the host takes none, none is taken from it.
#[derive(Debug)]
pub struct Echo<'b, F> {
    /// The port.
    pub port: Port<'b, F>,
}

impl<'b, F: Framing> Echo<'b, F> {
    /// Echoes at this port.
    pub fn new(port: Port<'b, F>) -> Self {
        Self { port }
    }

    /// Does what is due, and sends packets back. To be called after bytes have come or gone, and at
    /// [`poll_timeout`](Self::poll_timeout).
    pub fn step(&mut self, now: Instant) {
        self.port.step(now);
        if self.port.is_established() {
            self.send_back(now);
        }
        self.port.step(now);
    }

    fn send_back(&mut self, now: Instant) {
        let Port { framing, session, queue, dropped, .. } = &mut self.port;
        let peer_read_bytes = session.peer_read_bytes().unwrap_or(0);
        framing.write(peer_read_bytes, &mut |mut sink| {
            while let Some(packet) = queue.front() {
                match session.send_packet(packet, &mut sink) {
                    Ok(()) => {}
                    Err(SendError::BadLength) => *dropped += 1,
                    Err(_) => return,
                }
                session.release(packet.len());
                queue.pop();
            }
            // Released packets may be credit to tell.
            let _ = session.poll_control(now, &mut sink);
        });
    }

    /// When [`step`](Self::step) is to be called next if nothing else happens.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.port.poll_timeout(now)
    }
}
