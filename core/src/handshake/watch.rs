//! What both ends of a handshake watch: time, noise, and signs that the other end is not what it should be.

use super::message::Kind;
use super::{HandshakeError, Stage};
use crate::limits::{HANDSHAKE_GRACE, HANDSHAKE_LINK_MAX_BYTES, HANDSHAKE_TIMEOUT};
use crate::time::Instant;

/// The budgets of one link that is not yet attached.
pub(super) struct Watch {
    started: Instant,
    /// What the link shows to be wrong, and when that is believed.
    suspicion: Option<(Instant, HandshakeError)>,
    received_bytes: usize,
    ignored_packets: u64,
}

impl Watch {
    pub(super) const fn new(now: Instant) -> Self {
        Self { started: now, suspicion: None, received_bytes: 0, ignored_packets: 0 }
    }

    pub(super) fn deadline(&self) -> Instant {
        let deadline = self.started + HANDSHAKE_TIMEOUT;
        self.suspicion.as_ref().map_or(deadline, |(believed_at, _)| deadline.min(*believed_at))
    }

    pub(super) const fn ignored_packets(&self) -> u64 {
        self.ignored_packets
    }

    /// Counts a packet against the link's budget.
    pub(super) fn received(&mut self, packet: &[u8]) -> Result<(), HandshakeError> {
        self.received_bytes = self.received_bytes.saturating_add(packet.len());
        if self.received_bytes > HANDSHAKE_LINK_MAX_BYTES {
            return Err(HandshakeError::TooNoisy { bytes: self.received_bytes });
        }
        Ok(())
    }

    /// Counts a packet that did not help.
    pub(super) fn ignored(&mut self) {
        self.ignored_packets = self.ignored_packets.saturating_add(1);
    }

    /// Something unauthenticated says that this handshake will not succeed. It is believed unless an authenticated
    /// answer comes within the grace.
    pub(super) fn suspect(&mut self, now: Instant, suspicion: HandshakeError) {
        self.ignored();
        self.suspicion.get_or_insert((now + HANDSHAKE_GRACE, suspicion));
    }

    /// A packet that is no handshake message: perhaps another protocol's, perhaps noise.
    pub(super) fn foreign(&mut self, now: Instant, packet: &[u8]) {
        match looks_like(packet) {
            Some(looks_like) => self.suspect(now, HandshakeError::NotBondwire { looks_like }),
            None => self.ignored(),
        }
    }

    /// An authenticated message moved the handshake on: what was suspected is refuted.
    pub(super) fn progressed(&mut self) {
        self.suspicion = None;
    }

    /// Time starts anew, for what is to come next.
    pub(super) fn restart(&mut self, now: Instant) {
        self.suspicion = None;
        self.started = now;
    }

    /// Fails if time is up at `now`, with what was suspected, or else with what was waited for.
    pub(super) fn check(&self, now: Instant, stage: Stage) -> Result<(), HandshakeError> {
        if now < self.deadline() {
            return Ok(());
        }
        let suspected = self.suspicion.as_ref().map(|(_, suspicion)| suspicion.clone());
        Err(suspected.unwrap_or(HandshakeError::Timeout { stage }))
    }
}

/// What the first bytes from a peer look like, if they are a well-known protocol's and not Bondwire's.
pub fn looks_like(bytes: &[u8]) -> Option<&'static str> {
    const PREFIXES: [(&[u8], &str); 16] = [
        (b"GET ", "an HTTP request"),
        (b"POST ", "an HTTP request"),
        (b"PUT ", "an HTTP request"),
        (b"HEAD ", "an HTTP request"),
        (b"OPTIONS ", "an HTTP request"),
        (b"CONNECT ", "an HTTP request"),
        (b"PRI * HTTP/2", "an HTTP/2 request"),
        (b"HTTP/", "an HTTP answer"),
        (b"SSH-", "an SSH banner"),
        (b"\x16\x03", "a TLS hello"),
        (b"\x15\x03", "a TLS alert"),
        (b"220 ", "an SMTP or FTP greeting"),
        (b"RFB 00", "a VNC greeting"),
        (b"AT\r", "a modem command"),
        (b"U-Boot ", "a boot loader's console"),
        (b"\r\nU-Boot ", "a boot loader's console"),
    ];
    if Kind::of(bytes).is_some() {
        return None;
    }
    PREFIXES.iter().find(|(prefix, _)| bytes.starts_with(prefix)).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_protocols_are_named() {
        assert_eq!(looks_like(b"GET / HTTP/1.1\r\n"), Some("an HTTP request"));
        assert_eq!(looks_like(b"\x16\x03\x01\x02\x00\x01"), Some("a TLS hello"));
        assert_eq!(looks_like(b"SSH-2.0-OpenSSH_9.9\r\n"), Some("an SSH banner"));
        assert_eq!(looks_like(b""), None);
        assert_eq!(looks_like(b"\x81\x01\x00"), None);
        assert_eq!(looks_like(b"\x00\x00\x07"), None);
    }

    #[test]
    fn a_suspicion_shortens_the_wait_once_and_progress_refutes_it() {
        let start = Instant::ZERO;
        let mut watch = Watch::new(start);
        watch.suspect(start, HandshakeError::Looped);
        watch.suspect(
            start + HANDSHAKE_GRACE / 2,
            HandshakeError::SameRole { role: crate::id::Role::Initiator },
        );
        assert_eq!(watch.check(start + HANDSHAKE_GRACE / 2, Stage::Open2), Ok(()));
        assert_eq!(watch.check(start + HANDSHAKE_GRACE, Stage::Open2), Err(HandshakeError::Looped));
        watch.progressed();
        assert_eq!(watch.check(start + HANDSHAKE_GRACE, Stage::Open4), Ok(()));
        let end = start + HANDSHAKE_TIMEOUT;
        assert_eq!(watch.check(end, Stage::Open4), Err(HandshakeError::Timeout { stage: Stage::Open4 }));
        watch.restart(end);
        assert_eq!(watch.check(end, Stage::FirstPacket), Ok(()));
        assert_eq!(watch.deadline(), end + HANDSHAKE_TIMEOUT);
        assert_eq!(watch.ignored_packets(), 2);
    }
}
