//! A host as the device sees it: a session of the frame layer over either medium, which can be told to behave badly.

use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

use bondwire_frame::crc::Crc32c;
use bondwire_frame::hello::Hello;
use bondwire_frame::{Config, FrameSink, Received, Session, cobs, transfer};

use super::PACKET_BYTES;
use crate::nonces::Nonces;
use crate::{Duration, Instant, Role};

const MTU_BYTES: u16 = 2000;
const READ_BYTES: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Medium {
    Line,
    Usb,
}

pub(super) struct Host {
    pub(super) session: Session,
    medium: Medium,
    role: Role,
    /// To be sent as soon as there is credit.
    pub(super) queue: VecDeque<Vec<u8>>,
    pub(super) received: Vec<Vec<u8>>,
    /// Whether packets that come are taken at once.
    pub(super) takes: bool,
    untaken: Vec<Vec<u8>>,
    /// Changes the peer's HELLO before this end reads it.
    pub(super) alter_hello: Option<fn(&mut Hello)>,
    /// One piece in some is damaged on its way to the device; the seed of which.
    pub(super) noise: Option<u64>,
    decoder: cobs::Decoder<Vec<u8>>,
    transfer: Vec<u8>,
    sent: VecDeque<Vec<u8>>,
    /// The first bytes sent: HELLO.
    pub(super) first_sent: Vec<u8>,
}

fn config(medium: Medium, role: Role, mtu_bytes: u16) -> Config {
    Config {
        mtu_bytes,
        receive_buffer_bytes: 64 << 10,
        read_bytes: if medium == Medium::Usb { READ_BYTES as u32 } else { 0 },
        keep_alive: Duration::from_millis(if medium == Medium::Usb { 400 } else { 1000 }),
        ..Config::serial(role)
    }
}

impl Host {
    pub(super) fn new(now: Instant, medium: Medium, role: Role, seed: u64) -> Self {
        Self {
            session: Session::new(now, config(medium, role, MTU_BYTES), Nonces::new(seed << 32).next()),
            medium,
            role,
            queue: VecDeque::new(),
            received: Vec::new(),
            takes: true,
            untaken: Vec::new(),
            alter_hello: None,
            noise: None,
            decoder: cobs::Decoder::new(vec![0; 10_000]),
            transfer: Vec::new(),
            sent: VecDeque::new(),
            first_sent: Vec::new(),
        }
    }

    pub(super) fn reopen_with_mtu(&mut self, now: Instant, mtu_bytes: u16, seed: u64) {
        let nonce = Nonces::new(seed << 40).next();
        self.session = Session::new(now, config(self.medium, self.role, mtu_bytes), nonce);
    }

    pub(super) fn is_up(&self) -> bool {
        self.session.is_established()
    }

    /// How much of what the device sends comes at once.
    pub(super) fn piece_bytes(&self) -> usize {
        match self.medium {
            Medium::Line => 16,
            Medium::Usb => PACKET_BYTES,
        }
    }

    /// Writes what there is to send.
    pub(super) fn step(&mut self, now: Instant) {
        if self.session.poll_timeout().is_some_and(|at| at <= now) {
            let _ = self.session.handle_timeout(now);
        }
        loop {
            let mut memory = vec![0; 16 << 10];
            let len = match self.medium {
                Medium::Line => {
                    let mut writer = cobs::Writer::new(&mut memory);
                    fill(now, &mut self.session, &mut self.queue, &mut writer);
                    writer.len()
                }
                Medium::Usb => {
                    let read_bytes = self.session.peer_read_bytes().unwrap_or(63);
                    let mut writer = transfer::Writer::new(&mut memory, read_bytes, PACKET_BYTES);
                    fill(now, &mut self.session, &mut self.queue, &mut writer);
                    writer.finish()
                }
            };
            if len == 0 {
                return;
            }
            if self.first_sent.is_empty() {
                self.first_sent = memory[..len].to_vec();
            }
            let pieces: Vec<Vec<u8>> = memory[..len]
                .chunks(PACKET_BYTES)
                .map(<[u8]>::to_vec)
                .map(|piece| self.damaged(piece))
                .collect();
            self.sent.extend(pieces);
        }
    }

    fn damaged(&mut self, mut piece: Vec<u8>) -> Vec<u8> {
        let Some(seed) = &mut self.noise else { return piece };
        let mut dice = Nonces::new(*seed);
        *seed = dice.next();
        match *seed % 40 {
            0 => piece[0] ^= 1 << (*seed >> 60 & 7),
            1 => drop(piece.pop()),
            2 => piece.push(0x55),
            _ => {}
        }
        piece
    }

    pub(super) fn take_sent(&mut self) -> Option<Vec<u8>> {
        self.sent.pop_front()
    }

    /// Bytes came from the device; on USB one packet.
    pub(super) fn receive(&mut self, now: Instant, bytes: &[u8]) {
        let mut frames: Vec<Vec<u8>> = Vec::new();
        match self.medium {
            Medium::Line => {
                let mut bytes = bytes;
                while let Some(frame) = self.decoder.next_frame(&mut bytes) {
                    frames.push(frame.to_vec());
                }
            }
            Medium::Usb => {
                self.transfer.extend(bytes);
                if bytes.len() < PACKET_BYTES {
                    let transfer = core::mem::take(&mut self.transfer);
                    assert!(transfer.len() <= READ_BYTES);
                    frames.extend(transfer::frames(&transfer).map(|frame| frame.unwrap().to_vec()));
                }
            }
        }
        for frame in frames {
            self.handle_frame(now, frame);
        }
    }

    fn handle_frame(&mut self, now: Instant, mut frame: Vec<u8>) {
        const HELLO: u8 = 1;
        if let (Some(alter), HELLO) = (self.alter_hello, frame[0]) {
            let mut hello = Hello::read(&frame[5..frame.len() - 4]).unwrap();
            alter(&mut hello);
            let checked = [&frame[..5], &hello.write()[..]].concat();
            frame = [&checked[..], &Crc32c::new().with(&checked).value().to_le_bytes()[..]].concat();
        }
        if let Ok(Received::Packet(packet)) = self.session.handle_frame(now, &frame) {
            let packet = packet.to_vec();
            if self.takes {
                self.session.release(packet.len());
                self.received.push(packet);
            } else {
                self.untaken.push(packet);
            }
        }
    }

    /// Takes what was not taken so far.
    pub(super) fn take_all(&mut self) {
        for packet in self.untaken.drain(..) {
            self.session.release(packet.len());
            self.received.push(packet);
        }
    }
}

fn fill(now: Instant, session: &mut Session, queue: &mut VecDeque<Vec<u8>>, writer: &mut impl FrameSink) {
    while session.poll_control(now, writer) == Ok(true) {}
    while let Some(packet) = queue.front() {
        match session.send_packet(packet, writer) {
            Ok(()) => drop(queue.pop_front()),
            Err(_) => return,
        }
    }
}
