//! Large buffers that are used again once everything cut from them is gone.
//!
//! Packets and chunks are cut from buffers without a copy and live on for a while: a buffer is free again when the last
//! of them is dropped, wherever that happens. Fresh memory instead would cost a page fault for every 4 KiB, which is
//! more than all else that happens to these bytes in user space.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

/// Buffers that are looked at for a free one; the oldest are the likeliest.
const LOOKS: usize = 2;

/// Buffers of one size, of which some are kept.
#[derive(Debug)]
pub(crate) struct BufferPool {
    buffer_bytes: usize,
    kept_max: usize,
    /// In the order of their retirement. Each is empty; parts of it may still be in use elsewhere.
    retired: VecDeque<BytesMut>,
}

impl BufferPool {
    pub(crate) const fn new(buffer_bytes: usize, kept_max: usize) -> Self {
        Self { buffer_bytes, kept_max, retired: VecDeque::new() }
    }

    /// An empty buffer.
    pub(crate) fn take(&mut self) -> BytesMut {
        let free =
            (0..LOOKS.min(self.retired.len())).find(|&i| self.retired[i].try_reclaim(self.buffer_bytes));
        free.and_then(|i| self.retired.remove(i))
            .unwrap_or_else(|| BytesMut::with_capacity(self.buffer_bytes))
    }

    /// Keeps a buffer for later, if there is room for it.
    pub(crate) fn retire(&mut self, mut buffer: BytesMut) {
        buffer.clear();
        if self.retired.len() == self.kept_max {
            self.retired.pop_front();
        }
        self.retired.push_back(buffer);
    }
}

/// Copies of applications' bytes, one behind the other in pooled buffers.
#[derive(Debug)]
pub(crate) struct CopyPool {
    state: Mutex<CopyState>,
}

#[derive(Debug)]
struct CopyState {
    pool: BufferPool,
    /// The buffer that the next copy goes into.
    current: Option<BytesMut>,
}

impl CopyPool {
    pub(crate) fn new(buffer_bytes: usize, kept_max: usize) -> Self {
        let pool = BufferPool::new(buffer_bytes, kept_max);
        Self { state: Mutex::new(CopyState { pool, current: None }) }
    }

    /// A copy of `data`, which is no longer than the pool's buffers. Copies outside the pool's lock.
    pub(crate) fn copy(&self, data: &[u8]) -> Bytes {
        let mut buffer = self.take(data.len());
        buffer.extend_from_slice(data);
        let copy = buffer.split().freeze();
        let mut state = self.lock();
        // Another stream may have put one there meanwhile.
        if let Some(other) = state.current.replace(buffer) {
            state.pool.retire(other);
        }
        copy
    }

    fn take(&self, bytes: usize) -> BytesMut {
        let mut state = self.lock();
        match state.current.take() {
            Some(buffer) if buffer.capacity() >= bytes => return buffer,
            Some(used_up) => state.pool.retire(used_up),
            None => {}
        }
        state.pool.take()
    }

    fn lock(&self) -> MutexGuard<'_, CopyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_parts_are_gone() {
        let mut pool = BufferPool::new(1000, 2);
        let mut buffer = pool.take();
        buffer.extend_from_slice(&[1; 1000]);
        let (place, part) = (buffer.as_ptr(), buffer.split().freeze());
        pool.retire(buffer);
        let other = pool.take();
        assert_ne!(other.as_ptr(), place, "still in use");
        assert_eq!(part, [1; 1000][..]);
        drop(part);
        let again = pool.take();
        assert_eq!((again.as_ptr(), again.capacity(), again.len()), (place, 1000, 0));
    }

    #[test]
    fn copies_share_buffers_and_stay_what_they_are() {
        let pool = CopyPool::new(1000, 4);
        let mut kept = VecDeque::new();
        for round in 0..500_usize {
            let data = vec![round as u8; 1 + round * 7 % 900];
            kept.push_back((pool.copy(&data), data));
            if kept.len() > 6 {
                kept.pop_front();
            }
            assert!(kept.iter().all(|(copy, data)| copy == data), "round {round}");
        }
        assert!(pool.lock().pool.retired.len() <= 4);
    }
}
