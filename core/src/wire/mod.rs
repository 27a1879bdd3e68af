//! The wire format: packet headers and frames, encoded and decoded. PROTOCOL.md is the text it follows.
//!
//! A packet fills one message of its link. [`packet::Packet`] collects what goes out, [`header::decode`] and
//! [`frame::frames`] read what came in. Sealing and opening lie between the two, in [`crate::crypto`]; the messages
//! of the handshake are a format of their own, told apart by the first bit ([`header::is_handshake`]).
//!
//! ```
//! use bondwire_core::id::{LinkId, StreamId};
//! use bondwire_core::wire::{frame::{Frame, frames}, header, packet::Packet};
//! use bytes::{Buf, Bytes};
//!
//! let mut packet = Packet::new();
//! packet.begin(LinkId(0), 7, 0, Some(6), 1200);
//! assert!(packet.push_ping());
//! assert!(packet.push_stream(StreamId(4), 0, true, Bytes::from_static(b"hello")));
//! let mut plain = Vec::new();
//! packet.gather(&mut plain);
//!
//! let mut received = Bytes::from(plain);
//! let (header, header_len) = header::decode(&received, Some(6)).unwrap();
//! assert_eq!(header.number, 7);
//! received.advance(header_len);
//! let names: Vec<_> = frames(received).map(|frame| frame.unwrap().name()).collect();
//! assert_eq!(names, ["PING", "STREAM"]);
//! ```

pub mod ack;
mod fields;
pub mod frame;
pub mod header;
pub mod packet;
pub mod varint;

#[cfg(test)]
mod tests;
