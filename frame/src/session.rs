//! One end of one session.

mod opening;
#[cfg(test)]
mod tests;

use crate::counters::{Counters, DirectionCounters};
use crate::crc::Crc32c;
use crate::credit::{ReceiveCredit, SendCredit};
use crate::frame::{self, Frame, kind};
use crate::hello::{Hello, HelloError};
use crate::limits::{
    FRAME_OVERHEAD_BYTES, HELLO_REPEAT_MIN, HELLO_TIMEOUT, KEEP_ALIVE, KEEP_ALIVE_MAX,
    KEEP_ALIVES_MISSED_MAX, MESSAGE_MAX_BYTES, MTU_MIN_BYTES, RECEIVE_BUFFER_MAX_BYTES, SERIAL_MTU_BYTES,
};
use crate::time::{Duration, Instant};
use crate::{End, FrameSink, NoRoom, Role, SendError};
use opening::Opening;

/// What one end brings into a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Who begins. The two ends must differ.
    pub role: Role,
    /// Largest packet that this end takes, in bytes, at least 256. The smaller MTU of the two ends holds for both.
    pub mtu_bytes: u16,
    /// Bytes of DATA frames that this end has memory for: packets and 9 bytes for each. At least one largest frame, at
    /// most 2³⁰; values outside are moved there.
    pub receive_buffer_bytes: u32,
    /// Length of this end's USB reads, in bytes: the peer's transfers are no longer. Zero on a serial line.
    pub read_bytes: u32,
    /// Longest time between two frames that tell the limit, 1 ms to 65 s. The peer takes this end for dead after four times as
    /// long.
    pub keep_alive: Duration,
    /// First wait before HELLO is repeated. It should be longer than the line takes for 50 bytes each way.
    pub hello_repeat: Duration,
    /// Time after which a dialer that got no answer gives up.
    pub hello_timeout: Duration,
}

impl Config {
    /// For a serial line at 9600 baud or more: frames of 640 bytes, a receive buffer of 32 KiB, a keep-alive of a second.
    pub const fn serial(role: Role) -> Self {
        Self {
            role,
            mtu_bytes: SERIAL_MTU_BYTES,
            receive_buffer_bytes: 32 << 10,
            read_bytes: 0,
            keep_alive: KEEP_ALIVE,
            hello_repeat: HELLO_REPEAT_MIN,
            hello_timeout: HELLO_TIMEOUT,
        }
    }

    fn bounded(mut self) -> Self {
        self.mtu_bytes = self.mtu_bytes.max(MTU_MIN_BYTES);
        let frame_max_bytes = u32::from(self.mtu_bytes) + FRAME_OVERHEAD_BYTES as u32;
        self.receive_buffer_bytes =
            self.receive_buffer_bytes.clamp(frame_max_bytes, RECEIVE_BUFFER_MAX_BYTES);
        self.keep_alive = self.keep_alive.clamp(Duration::from_millis(1), KEEP_ALIVE_MAX);
        self
    }
}

/// What a frame brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received<'f> {
    /// A packet. It takes room in the receive buffer until [`Session::release`].
    Packet(&'f [u8]),
    /// A message of the medium, as the peer's [`Session::send_message`] sent it.
    Message(&'f [u8]),
    /// The session is established with this frame.
    Established,
    /// Nothing for the caller.
    Nothing,
}

/// One end of one session on one medium: from the opening of the end to its end. A medium that is opened again gets a new
/// session with a new nonce.
///
/// Call [`poll_control`](Self::poll_control) until it answers no after each `handle_*`, and
/// [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) has come.
#[derive(Clone, Debug)]
pub struct Session {
    config: Config,
    state: State,
    counters: Counters,
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of it, and no allocator")]
enum State {
    Opening(Opening),
    Established(Established),
    Over {
        end: End,
        /// What the peer is to be told once: checksum state and count of a CLOSE frame.
        farewell: Option<(Crc32c, u32)>,
    },
}

#[derive(Clone, Debug)]
struct Established {
    opening: Opening,
    peer: Hello,
    /// Has taken the epoch.
    seed: Crc32c,
    sending: SendCredit,
    receiving: ReceiveCredit,
    /// Last good frame that was no HELLO.
    last_heard: Instant,
    /// First HELLO since the last other frame.
    hellos_since: Option<Instant>,
}

impl Session {
    /// Opens this end. `nonce` is random and not zero: two sessions with the same could not be told apart. (Zero is taken for
    /// one.)
    pub fn new(now: Instant, config: Config, nonce: u64) -> Self {
        let config = config.bounded();
        let state = State::Opening(Opening::new(now, &config, nonce.max(1)));
        Self { config, state, counters: Counters::default() }
    }

    /// Whether packets can travel.
    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Established(_))
    }

    /// Why the session is over, if it is.
    pub fn end(&self) -> Option<End> {
        match self.state {
            State::Over { end, .. } => Some(end),
            _ => None,
        }
    }

    /// Longest packet both ways, once established, in bytes.
    pub fn mtu_bytes(&self) -> Option<usize> {
        self.established().map(|e| usize::from(self.config.mtu_bytes.min(e.peer.mtu_bytes)))
    }

    /// Longest transfer that the peer reads, once established, in bytes; zero on a serial line.
    pub fn peer_read_bytes(&self) -> Option<usize> {
        self.established().map(|e| e.peer.read_bytes as usize)
    }

    /// Whether a HELLO of the peer has come, whether or not it had heard this end.
    pub fn has_heard_peer(&self) -> bool {
        match &self.state {
            State::Opening(opening) => opening.has_heard_peer(),
            State::Established(_) => true,
            State::Over { .. } => false,
        }
    }

    /// What was seen so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn established(&self) -> Option<&Established> {
        match &self.state {
            State::Established(established) => Some(established),
            _ => None,
        }
    }

    /// Takes one frame as it came off the medium, delimiters and lengths removed. What is damaged or of another session is
    /// counted and ignored. Once the session is over, this fails with the reason, each time.
    pub fn handle_frame<'f>(&mut self, now: Instant, frame: &'f [u8]) -> Result<Received<'f>, End> {
        let result = match Frame::read(frame) {
            Some(frame) if frame.kind == kind::HELLO => self.handle_hello(now, &frame),
            Some(frame) => self.handle_sealed(now, &frame),
            None => {
                self.counters.checksum_errors += 1;
                Ok(Received::Nothing)
            }
        };
        if let Err(end) = result {
            self.finish(end);
        }
        match self.end() {
            Some(end) => Err(end),
            None => result,
        }
    }

    fn handle_hello<'f>(&mut self, now: Instant, frame: &Frame<'f>) -> Result<Received<'f>, End> {
        if !frame.is_intact(Crc32c::new()) {
            self.counters.checksum_errors += 1;
            return Ok(Received::Nothing);
        }
        self.counters.hellos += 1;
        let hello = match Hello::read(frame.payload) {
            Ok(hello) => hello,
            // The link in use goes on: nothing says that this is the peer.
            Err(_) if self.is_established() => return Ok(Received::Nothing),
            Err(HelloError::Version(version)) => return Err(End::Version(version)),
            Err(HelloError::Malformed) => return Err(End::BadHello),
        };
        match &mut self.state {
            State::Opening(opening) => {
                if !opening.handle_hello(now, &hello, &self.config)? {
                    return Ok(Received::Nothing);
                }
                let opening = opening.clone();
                self.state = State::Established(Established::new(now, opening, hello, &self.config));
                Ok(Received::Established)
            }
            State::Established(established) => {
                established.handle_hello(now, &hello)?;
                Ok(Received::Nothing)
            }
            State::Over { end, .. } => Err(*end),
        }
    }

    /// A frame of an established session.
    fn handle_sealed<'f>(&mut self, now: Instant, frame: &Frame<'f>) -> Result<Received<'f>, End> {
        let State::Established(established) = &mut self.state else {
            // Left in the pipe by an earlier session, or ahead of a HELLO that was lost.
            self.counters.checksum_errors += 1;
            return Ok(Received::Nothing);
        };
        if !frame.is_intact(established.seed) {
            self.counters.checksum_errors += 1;
            return Ok(Received::Nothing);
        }
        established.last_heard = now;
        established.hellos_since = None;
        self.counters.received.frames += 1;
        established.handle_frame(frame, &self.config, &mut self.counters)
    }

    /// The caller has taken a packet of so many bytes out of its receive buffer.
    pub fn release(&mut self, packet_bytes: usize) {
        if let State::Established(established) = &mut self.state {
            established.receiving.release((packet_bytes + FRAME_OVERHEAD_BYTES) as u32);
        }
    }

    /// Whether a packet of so many bytes can go now. If it cannot for want of credit, that is counted.
    pub fn can_send(&mut self, packet_bytes: usize) -> bool {
        let State::Established(established) = &mut self.state else { return false };
        let allowed = established.sending.allows(packet_bytes + FRAME_OVERHEAD_BYTES);
        if !allowed {
            established.sending.note_stall(&mut self.counters);
        }
        allowed
    }

    /// Sends a packet, whole.
    pub fn send_packet(&mut self, packet: &[u8], sink: &mut impl FrameSink) -> Result<(), SendError> {
        let mtu_bytes = self.mtu_bytes().ok_or(SendError::NotEstablished)?;
        if packet.is_empty() || packet.len() > mtu_bytes {
            return Err(SendError::BadLength);
        }
        if !self.can_send(packet.len()) {
            return Err(SendError::NoCredit);
        }
        let State::Established(established) = &mut self.state else { return Err(SendError::NotEstablished) };
        established.write(kind::DATA, packet, sink, &mut self.counters.sent)?;
        established.sending.on_sent(packet.len() + FRAME_OVERHEAD_BYTES);
        self.counters.sent.packets += 1;
        self.counters.sent.packet_bytes += packet.len() as u64;
        Ok(())
    }

    /// Sends a message of the medium, 1 to 32 bytes: what the drivers of both ends have to say to each other, as for a
    /// change of the baud rate. Messages need no credit; like packets they arrive intact or not at all.
    pub fn send_message(&mut self, message: &[u8], sink: &mut impl FrameSink) -> Result<(), SendError> {
        let State::Established(established) = &mut self.state else { return Err(SendError::NotEstablished) };
        if !(1..=MESSAGE_MAX_BYTES).contains(&message.len()) {
            return Err(SendError::BadLength);
        }
        Ok(established.write(kind::MESSAGE, message, sink, &mut self.counters.sent)?)
    }

    /// Writes one frame that the session itself has to send, if there is one: call again until there is none. These frames
    /// are short, and go ahead of packets.
    pub fn poll_control(&mut self, now: Instant, sink: &mut impl FrameSink) -> Result<bool, NoRoom> {
        let sent = &mut self.counters.sent;
        match &mut self.state {
            State::Opening(opening) => {
                let written = opening.poll_hello(now, &self.config, sink)?;
                sent.frames += u64::from(written);
                Ok(written)
            }
            State::Established(established) => established.poll_control(now, &self.config, sink, sent),
            State::Over { end, farewell } => {
                let Some((seed, count)) = *farewell else { return Ok(false) };
                frame::write(seed, kind::CLOSE, count, &[end.code()], sink)?;
                sent.frames += 1;
                *farewell = None;
                Ok(true)
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next, if nothing else happens.
    /// [`poll_control`](Self::poll_control) should follow it: an instant that has passed stays until the frame that is due was
    /// written.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Opening(opening) => opening.poll_timeout(),
            State::Established(established) => Some(established.poll_timeout()),
            State::Over { .. } => None,
        }
    }

    /// Time has passed. Fails with the reason when that ends the session. Hand in what has arrived first: after a pause of
    /// the whole program, that is the peer's proof of life.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), End> {
        let result = match &mut self.state {
            State::Opening(opening) => opening.handle_timeout(now, &self.config),
            State::Established(established) => established.expired(now),
            State::Over { end, .. } => Err(*end),
        };
        result.inspect_err(|end| self.finish(*end))
    }

    /// Ends the session. A CLOSE for the peer follows with [`poll_control`](Self::poll_control).
    pub fn close(&mut self) {
        self.finish(End::Closed);
    }

    fn finish(&mut self, end: End) {
        let farewell = match &self.state {
            State::Over { .. } => return,
            // A peer that is gone, or has begun anew, would not understand it.
            _ if matches!(end, End::ClosedByPeer(_) | End::PeerReopened) => None,
            State::Opening(_) => None,
            State::Established(established) => Some((established.seed, established.sending.count())),
        };
        self.state = State::Over { end, farewell };
    }
}

impl Established {
    fn new(now: Instant, opening: Opening, peer: Hello, config: &Config) -> Self {
        let frame_max_bytes = u32::from(config.mtu_bytes.min(peer.mtu_bytes)) + FRAME_OVERHEAD_BYTES as u32;
        Self {
            seed: opening.epoch(config.role, peer.nonce),
            sending: SendCredit::new(peer.receive_buffer_bytes),
            receiving: ReceiveCredit::new(
                now,
                config.receive_buffer_bytes,
                frame_max_bytes,
                config.keep_alive,
            ),
            opening,
            peer,
            last_heard: now,
            hellos_since: None,
        }
    }

    fn handle_hello(&mut self, now: Instant, hello: &Hello) -> Result<(), End> {
        if self.opening.is_own(hello) {
            return Err(End::Loop);
        }
        if hello.nonce != self.peer.nonce {
            return Err(End::PeerReopened);
        }
        if now - *self.hellos_since.get_or_insert(now) >= HELLO_TIMEOUT {
            return Err(End::HelloForEver);
        }
        self.opening.answer(hello);
        Ok(())
    }

    fn handle_frame<'f>(
        &mut self,
        frame: &Frame<'f>,
        config: &Config,
        counters: &mut Counters,
    ) -> Result<Received<'f>, End> {
        let payload = frame.payload;
        let is_data = frame.kind == kind::DATA;
        if is_data && payload.len() > usize::from(config.mtu_bytes.min(self.peer.mtu_bytes)) {
            return Err(End::TooLong);
        }
        let credited_bytes = if is_data { payload.len() + FRAME_OVERHEAD_BYTES } else { 0 };
        self.receiving.on_frame(frame.count, credited_bytes as u32, counters)?;
        match frame.kind {
            kind::DATA if payload.is_empty() => return Err(End::Malformed),
            kind::DATA => {
                counters.received.packets += 1;
                counters.received.packet_bytes += payload.len() as u64;
                return Ok(Received::Packet(payload));
            }
            kind::CREDIT => {
                let limit = payload.first_chunk().ok_or(End::Malformed)?;
                self.sending.on_limit(u32::from_be_bytes(*limit))?;
            }
            kind::CLOSE => return Err(End::ClosedByPeer(*payload.first().ok_or(End::Malformed)?)),
            kind::MESSAGE if (1..=MESSAGE_MAX_BYTES).contains(&payload.len()) => {
                return Ok(Received::Message(payload));
            }
            kind::MESSAGE => return Err(End::Malformed),
            _ => counters.unknown_frames += 1,
        }
        Ok(Received::Nothing)
    }

    fn write(
        &self,
        kind: u8,
        payload: &[u8],
        sink: &mut impl FrameSink,
        sent: &mut DirectionCounters,
    ) -> Result<(), NoRoom> {
        frame::write(self.seed, kind, self.sending.count(), payload, sink)?;
        sent.frames += 1;
        Ok(())
    }

    fn poll_control(
        &mut self,
        now: Instant,
        config: &Config,
        sink: &mut impl FrameSink,
        sent: &mut DirectionCounters,
    ) -> Result<bool, NoRoom> {
        if self.opening.poll_answer(now, config, self.peer.nonce, sink)? {
            sent.frames += 1;
            return Ok(true);
        }
        if self.receiving.is_due(now) {
            self.write(kind::CREDIT, &self.receiving.limit().to_be_bytes(), sink, sent)?;
            self.receiving.on_told(now);
            return Ok(true);
        }
        Ok(false)
    }

    /// When a peer from which nothing more comes is taken to be gone. One that says HELLO is there, and gets the time that
    /// HELLOs have.
    fn dead_at(&self) -> Instant {
        let silent_at = self.last_heard + self.peer.keep_alive * KEEP_ALIVES_MISSED_MAX;
        self.hellos_since.map_or(silent_at, |since| silent_at.max(since + HELLO_TIMEOUT))
    }

    fn poll_timeout(&self) -> Instant {
        let next = self.receiving.repeat_at().min(self.dead_at());
        self.opening.answer_at().map_or(next, |at| at.min(next))
    }

    fn expired(&self, now: Instant) -> Result<(), End> {
        match self.hellos_since {
            _ if now < self.dead_at() => Ok(()),
            Some(_) => Err(End::HelloForEver),
            None => Err(End::Silent),
        }
    }
}
