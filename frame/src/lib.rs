//! Packets over raw media: serial lines and USB bulk transfers become links that carry whole packets, in order, each
//! intact or absent. The same code runs on hosts and on microcontrollers: no allocation, no clock, no I/O.
//!
//! PROTOCOL.md, section 12, has the bytes. The parts:
//!
//! - [`Session`] is one end of one session: HELLO, credits, keep-alive, checksums, counters. Frames go in and come
//!   out, time is an argument, buffers are the caller's.
//! - [`cobs`] delimits frames on a byte stream, [`transfer`] packs them into USB transfers. Each has a reader, and a
//!   writer that is a [`FrameSink`].
//!
//! ```
//! use bondwire_frame::{Config, Instant, Received, Role, Session, cobs};
//!
//! let now = Instant::ZERO;
//! let config = |role| Config { mtu_bytes: 256, receive_buffer_bytes: 2048, ..Config::serial(role) };
//! let mut host = Session::new(now, config(Role::Dialer), 0x1111);
//! let mut device = Session::new(now, config(Role::Acceptor), 0x2222);
//! let mut decoders = [0; 2].map(|_| cobs::Decoder::new([0; 256 + 9]));
//!
//! // Whatever one end wants to send goes over the line to the other, until both are silent.
//! let mut talk = |from: &mut Session, to: &mut Session, decoder: &mut cobs::Decoder<[u8; 265]>| {
//!     let mut line = [0; 512];
//!     let mut writer = cobs::Writer::new(&mut line);
//!     while from.poll_control(now, &mut writer)? {}
//!     let written = writer.len();
//!     let mut bytes = &line[..written];
//!     while let Some(frame) = decoder.next_frame(&mut bytes) {
//!         to.handle_frame(now, frame)?;
//!     }
//!     Ok::<_, Box<dyn std::error::Error>>(written > 0)
//! };
//! while talk(&mut host, &mut device, &mut decoders[0])? | talk(&mut device, &mut host, &mut decoders[1])? {}
//! assert!(host.is_established() && device.is_established());
//!
//! let mut line = [0; 512];
//! let mut writer = cobs::Writer::new(&mut line);
//! host.send_packet(b"a packet", &mut writer)?;
//! let (written, mut received) = (writer.len(), 0);
//! let frame = decoders[0].next_frame(&mut &line[..written]).expect("a frame");
//! if let Received::Packet(packet) = device.handle_frame(now, frame)? {
//!     assert_eq!(packet, b"a packet");
//!     received = packet.len();
//! }
//! device.release(received); // its memory is free again
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(test)]
extern crate std;

pub mod cobs;
mod counters;
pub mod crc;
mod credit;
mod error;
mod frame;
pub mod hello;
pub mod limits;
mod session;
mod time;
pub mod transfer;

pub use counters::{Counters, DirectionCounters};
pub use error::{End, NoRoom, SendError};
pub use frame::FrameSink;
pub use hello::Role;
pub use limits::{FRAME_OVERHEAD_BYTES, HEADER_BYTES, TRAILER_BYTES};
pub use session::{Config, Received, Session};
pub use time::{Duration, Instant};
