//! One end of a serial link without its port: bytes in and out, packets in and out, the rate that the port should have. Time is
//! an argument.

mod noise;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;

use bondwire_frame::{
    Config, Counters, Duration, End, FRAME_OVERHEAD_BYTES, FrameSink, Instant, NoRoom, Received, Role,
    SendError, Session, cobs,
};
use bytes::BytesMut;

use crate::climb::Climb;
use crate::diagnosis::Heard;
use crate::limits::{DRAIN_GUARD, HELLO_TIMEOUT, IDLE, OUTGOING_MAX_BYTES, QUEUE, RECEIVE_BUFFER_BYTES};
use noise::NoiseWatch;

/// Bits on the line for each byte: 8N1.
const BITS_PER_BYTE: u64 = 10;

/// What one end is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Setup {
    pub(crate) role: Role,
    /// Rate at the beginning.
    pub(crate) start: u32,
    /// Highest rate to climb to; the same as `start` for none.
    pub(crate) max: u32,
    /// Whether the port has the pace of its rate. USB devices that only look like serial ports have not.
    pub(crate) paced: bool,
    /// Random, for the session and the challenges.
    pub(crate) nonce: u64,
}

/// What a link has seen of its line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LineCounters {
    /// Of the frame layer.
    pub frames: Counters,
    /// Times that the place in the byte stream was lost, and found again at the next delimiter.
    pub resyncs: u64,
}

impl fmt::Display for LineCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counters { sent, received, checksum_errors, lost_bytes, credit_stalls, .. } = &self.frames;
        write!(
            f,
            "{} packets sent, {} received; {checksum_errors} frames damaged, {} times out of step, {lost_bytes} bytes lost on \
             the line; waited {credit_stalls} times for the other end",
            sent.packets, received.packets, self.resyncs
        )
    }
}

/// One end of a serial link.
#[derive(Debug)]
pub(crate) struct Endpoint {
    session: Session,
    decoder: cobs::Decoder<Box<[u8]>>,
    climb: Climb,
    paced: bool,
    /// Encoded, for the port.
    outgoing: Vec<u8>,
    /// Packets that nobody has taken yet.
    incoming: VecDeque<BytesMut>,
    /// When everything given to the port will have left, by its rate.
    line_free_at: Instant,
    noise: NoiseWatch,
    heard: Heard,
}

impl Endpoint {
    pub(crate) fn new(now: Instant, setup: Setup) -> Self {
        let config = config(setup.role, setup.start);
        let frame_max_bytes = usize::from(config.mtu_bytes) + FRAME_OVERHEAD_BYTES;
        Self {
            session: Session::new(now, config, setup.nonce),
            decoder: cobs::Decoder::new(vec![0; frame_max_bytes].into()),
            climb: Climb::new(now, setup.role, setup.start, setup.max, setup.nonce),
            paced: setup.paced,
            outgoing: Vec::new(),
            incoming: VecDeque::new(),
            line_free_at: now,
            noise: NoiseWatch::new(now),
            heard: Heard::default(),
        }
    }

    /// Whether packets can travel.
    pub(crate) fn is_established(&self) -> bool {
        self.session.is_established()
    }

    /// Whether the first climb is over.
    pub(crate) fn is_settled(&self) -> bool {
        self.climb.is_settled()
    }

    /// Why it is over, if it is.
    pub(crate) fn end(&self) -> Option<End> {
        self.session.end()
    }

    /// What came over the line before the other end was understood.
    pub(crate) fn heard(&self) -> &Heard {
        &self.heard
    }

    pub(crate) fn counters(&self) -> LineCounters {
        LineCounters { frames: *self.session.counters(), resyncs: self.decoder.resyncs() }
    }

    pub(crate) fn rate(&self) -> u32 {
        self.climb.rate()
    }

    /// Longest packet, once established.
    pub(crate) fn mtu_bytes(&self) -> Option<usize> {
        self.session.mtu_bytes()
    }

    /// Bytes came from the port.
    pub(crate) fn handle_bytes(&mut self, now: Instant, mut bytes: &[u8]) {
        if !self.session.is_established() {
            self.heard.note(bytes);
        }
        while let Some(frame) = self.decoder.next_frame(&mut bytes) {
            let good_before = self.session.counters().received.frames;
            match self.session.handle_frame(now, frame) {
                Ok(Received::Established) => self.climb.begin(now),
                Ok(Received::Packet(packet)) => {
                    self.climb.on_packet();
                    self.incoming.push_back(packet.into());
                }
                Ok(Received::Message(message)) => self.climb.on_message(now, message),
                Ok(Received::Nothing) | Err(_) => {}
            }
            if self.session.counters().received.frames > good_before {
                self.climb.on_heard(now);
            }
        }
        if self.noise.is_bad(now, self.session.counters(), self.decoder.resyncs()) {
            self.climb.on_noise(now);
        }
        self.fill(now);
    }

    /// The next packet that came.
    pub(crate) fn take_packet(&mut self) -> Option<BytesMut> {
        let packet = self.incoming.pop_front()?;
        self.session.release(packet.len());
        Some(packet)
    }

    pub(crate) fn has_packets(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// When a packet can be taken for sending, going by the pace of the line; `None` while something else stands in the way.
    pub(crate) fn room_at(&mut self) -> Option<Instant> {
        let mtu_bytes = self.session.mtu_bytes()?;
        if self.climb.holds_packets()
            || self.outgoing.len() > OUTGOING_MAX_BYTES
            || !self.session.can_send(mtu_bytes)
        {
            return None;
        }
        let queued = self.outgoing.len() as u64 * BITS_PER_BYTE * 1_000_000 / u64::from(self.rate());
        let until_free = self.line_free_at + Duration::from_micros(queued);
        Some(Instant::from_micros(until_free.as_micros().saturating_sub(QUEUE.as_micros() as u64)))
    }

    /// Sends a packet. There must be [room](Self::room_at).
    pub(crate) fn send_packet(&mut self, now: Instant, packet: &[u8]) -> Result<(), SendError> {
        if self.climb.holds_packets() {
            return Err(SendError::NoCredit);
        }
        let after_idle = self.is_idle(now);
        self.session.send_packet(packet, &mut LineSink { out: &mut self.outgoing, after_idle })
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.outgoing.is_empty() && now >= self.line_free_at + IDLE
    }

    /// What the port is to send. Tell [`written`](Self::written) how much it took.
    pub(crate) fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    /// The port took so many bytes.
    pub(crate) fn written(&mut self, now: Instant, bytes: usize) {
        self.outgoing.drain(..bytes);
        if self.paced && bytes > 0 {
            let micros = bytes as u64 * BITS_PER_BYTE * 1_000_000 / u64::from(self.rate());
            self.line_free_at = self.line_free_at.max(now) + Duration::from_micros(micros);
        }
        self.fill(now);
    }

    /// Writes what the session and the climb have to say. Before a change of the rate only what was said about it goes out.
    fn fill(&mut self, now: Instant) {
        while self.outgoing.len() < OUTGOING_MAX_BYTES {
            let after_idle = self.is_idle(now);
            let mut sink = LineSink { out: &mut self.outgoing, after_idle };
            let is_leaving = self.climb.leaving_for().is_some();
            if !is_leaving && self.session.poll_control(now, &mut sink) == Ok(true) {
                continue;
            }
            let message = if self.session.is_established() { self.climb.poll_message() } else { None };
            let Some(message) = message else { return };
            // It fits, and if it got lost it would be repeated.
            let _ = self.session.send_message(&message.write(), &mut sink);
        }
    }

    /// The rate to set the port to now, if everything sent has left it. `port_queued_bytes` is what the port says it still
    /// has. [`rate_changed`](Self::rate_changed) must follow.
    pub(crate) fn poll_rate(&self, now: Instant, port_queued_bytes: usize) -> Option<u32> {
        let rate = self.climb.leaving_for()?;
        let drained =
            self.outgoing.is_empty() && port_queued_bytes == 0 && now >= self.line_free_at + DRAIN_GUARD;
        drained.then_some(rate)
    }

    /// The port has the rate that was asked for, or could not take it.
    pub(crate) fn rate_changed(&mut self, now: Instant, changed: bool) {
        self.climb.on_changed(now, changed);
        self.decoder.restart();
        self.noise.restart(now, self.session.counters(), self.decoder.resyncs());
        self.fill(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let drained_at = self.climb.leaving_for().map(|_| {
            let expected = self.line_free_at + DRAIN_GUARD;
            // The port has more than was expected: look again soon.
            if expected > now { expected } else { now + Duration::from_millis(2) }
        });
        let of_session = self.session.poll_timeout().map(|at| {
            // What is due cannot be written at the moment.
            let is_blocked = self.climb.leaving_for().is_some() || self.outgoing.len() >= OUTGOING_MAX_BYTES;
            if is_blocked { at.max(now + Duration::from_millis(20)) } else { at }
        });
        let of_climb = self.session.is_established().then(|| self.climb.poll_timeout()).flatten();
        [drained_at, of_session, of_climb].into_iter().flatten().min()
    }

    /// Time has passed. What has arrived comes first.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        // A session that ends says so with `end`.
        if self.session.poll_timeout().is_some_and(|at| at <= now) {
            let _ = self.session.handle_timeout(now);
        }
        if self.session.is_established() && self.climb.poll_timeout().is_some_and(|at| at <= now) {
            self.climb.handle_timeout(now);
        }
        self.fill(now);
    }

    /// Ends the link: the other end is told, as far as the line lets it be.
    pub(crate) fn close(&mut self, now: Instant) {
        self.session.close();
        self.fill(now);
    }

    /// Whether everything has left, as far as this end can know.
    pub(crate) fn is_drained(&self, now: Instant) -> bool {
        self.outgoing.is_empty() && now >= self.line_free_at
    }
}

/// The session of a line that starts at `baud`: on very slow ones a frame takes seconds, and so must everything else.
fn config(role: Role, baud: u32) -> Config {
    let bytes_time = |bytes: u64| Duration::from_micros(bytes * BITS_PER_BYTE * 1_000_000 / u64::from(baud));
    let serial = Config::serial(role);
    Config {
        receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
        hello_timeout: HELLO_TIMEOUT.max(bytes_time(1000)),
        hello_repeat: serial.hello_repeat.max(bytes_time(100)),
        keep_alive: serial.keep_alive.max(bytes_time(u64::from(serial.mtu_bytes))),
        ..serial
    }
}

/// Appends encoded frames to a vector.
struct LineSink<'a> {
    out: &'a mut Vec<u8>,
    after_idle: bool,
}

impl FrameSink for LineSink<'_> {
    fn put(&mut self, parts: [&[u8]; 3]) -> Result<(), NoRoom> {
        let start = self.out.len();
        let frame_bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.out.resize(start + 1 + cobs::encoded_max_bytes(frame_bytes), 0);
        let room = &mut self.out[start..];
        let mut writer = if std::mem::take(&mut self.after_idle) {
            cobs::Writer::after_idle(room)
        } else {
            cobs::Writer::new(room)
        };
        writer.put(parts)?;
        let len = writer.len();
        self.out.truncate(start + len);
        Ok(())
    }
}
