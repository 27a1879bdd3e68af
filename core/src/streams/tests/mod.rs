//! Tests of the parts against models, and of two ends against each other.

mod assembler;
mod flow;
mod pair;
mod rules;
mod send_buffer;

use alloc::vec::Vec;

use bytes::Bytes;

use super::{Pieces, Streams, StreamsConfig};
use crate::id::Role;
use crate::limits::STREAM_WINDOW_MIN_BYTES;
use crate::pool::BufferPool;

/// The byte that belongs at `offset` of the stream with number `id`.
fn byte_at(id: u64, offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ (id as u8).wrapping_mul(29)
}

fn contents(id: u64, range: core::ops::Range<u64>) -> Vec<u8> {
    range.map(|offset| byte_at(id, offset)).collect()
}

fn join(pieces: &Pieces) -> Bytes {
    pieces.concat().into()
}

/// Streams whose peer allows them everything that the same configuration allows.
fn streams(role: Role, receive_buffer_bytes: u64) -> Streams {
    streams_in(BufferPool::default(), role, receive_buffer_bytes)
}

/// The same with memory that others share.
fn streams_in(buffers: BufferPool, role: Role, receive_buffer_bytes: u64) -> Streams {
    let mut streams = Streams::new(StreamsConfig {
        buffers,
        role,
        receive_buffer_bytes,
        send_buffer_max_bytes: 48 << 20,
        streams_max_local: 1 << 14,
        streams_told: None,
    });
    streams.set_peer_limits(super::streams_allowed(receive_buffer_bytes, 1 << 14), STREAM_WINDOW_MIN_BYTES);
    streams
}
