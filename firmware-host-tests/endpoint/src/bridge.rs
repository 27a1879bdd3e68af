use bondwire_frame::{Instant, SendError};

use crate::{Framing, Port};

/// Joins two ports: what comes in at one goes out at the other. Two hosts bond through it as through one cable.
///
/// - **Back-pressure.** A packet waits in the port that it came in by until the other one can take it, and only then the host
///   gets its credit back. So a side that is slow, or not there, stops the other one without loss.
/// - **A cable has two ends.** When the session at one port ends, the one at the other port is ended too: its host would
///   otherwise talk to somebody who is not there any more. Packets of a session never reach another one.
/// - **One MTU.** If the hosts take packets of different lengths, the port with the longer ones opens anew with the
///   shorter length.
#[derive(Debug)]
pub struct Bridge<'b, A, B> {
    /// One port.
    pub a: Port<'b, A>,
    /// The other one.
    pub b: Port<'b, B>,
    /// Numbers of the sessions that are joined.
    joined: Option<(u32, u32)>,
}

impl<'b, A: Framing, B: Framing> Bridge<'b, A, B> {
    /// Joins these ports.
    pub fn new(a: Port<'b, A>, b: Port<'b, B>) -> Self {
        Self { a, b, joined: None }
    }

    /// Whether there is a host at either port, so that packets pass.
    pub fn is_joined(&self) -> bool {
        self.joined.is_some()
    }

    /// Does what is due, and moves packets. To be called after bytes have come or gone, and at
    /// [`poll_timeout`](Self::poll_timeout).
    pub fn step(&mut self, now: Instant) {
        self.a.step(now);
        self.b.step(now);
        self.part(now);
        self.a.seek(now, self.b.is_established());
        self.b.seek(now, self.a.is_established());
        self.join(now);
        if self.is_joined() {
            forward(now, &mut self.a, &mut self.b);
            forward(now, &mut self.b, &mut self.a);
        }
        // What was forwarded is credit to tell; and ports that have just begun to dial say so.
        self.a.step(now);
        self.b.step(now);
    }

    /// When [`step`](Self::step) is to be called next if nothing else happens.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        [self.a.poll_timeout(now), self.b.poll_timeout(now)].into_iter().flatten().min()
    }

    /// If one of the joined sessions is over, ends the other one.
    fn part(&mut self, now: Instant) {
        let Some((a, b)) = self.joined else { return };
        let is_over = (self.a.sessions() != a, self.b.sessions() != b);
        match is_over {
            (false, false) => return,
            (true, false) => self.b.reopen(now),
            (false, true) => self.a.reopen(now),
            (true, true) => {}
        }
        self.a.cap_mtu(None);
        self.b.cap_mtu(None);
        self.joined = None;
    }

    /// If there is a host at either port, joins them.
    fn join(&mut self, now: Instant) {
        let (None, Some(a), Some(b)) = (self.joined, self.a.mtu_bytes(), self.b.mtu_bytes()) else { return };
        if a > b {
            self.a.cap_mtu(Some(b));
            self.a.reopen(now);
        } else if b > a {
            self.b.cap_mtu(Some(a));
            self.b.reopen(now);
        } else {
            self.joined = Some((self.a.sessions(), self.b.sessions()));
        }
    }
}

/// Sends packets that came in at `from` out at `to`, as many as it takes now.
fn forward<F: Framing, T: Framing>(now: Instant, from: &mut Port<'_, F>, to: &mut Port<'_, T>) {
    let Port { session: from_session, queue, dropped, .. } = from;
    to.write(now, &mut |session, mut sink| {
        while let Some(packet) = queue.front() {
            match session.send_packet(packet, &mut sink) {
                Ok(()) => {}
                // It cannot be: both sides have the same MTU.
                Err(SendError::BadLength) => *dropped += 1,
                Err(_) => return,
            }
            from_session.release(packet.len());
            queue.pop();
        }
    });
}
