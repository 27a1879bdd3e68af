//! Large buffers that are used again once everything cut from them is gone, shared by all bonds of the process.
//!
//! Packets and chunks are cut from buffers without a copy and live on for a while: a buffer is free again when the last
//! of them is dropped, wherever that happens. Fresh memory instead would cost a page fault for every 4 KiB, which is
//! more than all else that happens to these bytes in user space. A pool for each link instead would keep, for hundreds
//! of bonds, what each of them once needed at its peak.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use crate::limits::{COPY_BUFFERS_KEPT, READ_BUFFER_BYTES, READ_BUFFERS_KEPT, WRITE_BYTES_MAX};

/// What links read into.
pub(crate) static READ_BUFFERS: BufferPool = BufferPool::new(READ_BUFFER_BYTES, READ_BUFFERS_KEPT);

/// What applications' bytes are copied into.
pub(crate) static COPY_BUFFERS: BufferPool = BufferPool::new(WRITE_BYTES_MAX, COPY_BUFFERS_KEPT);

/// Buffers that are looked at for a free one; the oldest are the likeliest. Those of a reader that stands still are
/// passed over.
const LOOKS: usize = 8;

/// Buffers of one size, of which some are kept.
#[derive(Debug)]
pub(crate) struct BufferPool {
    buffer_bytes: usize,
    kept_max: usize,
    /// In the order of their retirement. Each is empty; parts of it may still be in use elsewhere.
    retired: Mutex<VecDeque<BytesMut>>,
}

impl BufferPool {
    pub(crate) const fn new(buffer_bytes: usize, kept_max: usize) -> Self {
        Self { buffer_bytes, kept_max, retired: Mutex::new(VecDeque::new()) }
    }

    /// An empty buffer.
    pub(crate) fn take(&self) -> BytesMut {
        self.take_free().unwrap_or_else(|| BytesMut::with_capacity(self.buffer_bytes))
    }

    fn take_free(&self) -> Option<BytesMut> {
        let mut retired = self.lock();
        let looks = LOOKS.min(retired.len());
        let free = (0..looks).find(|&at| retired[at].try_reclaim(self.buffer_bytes))?;
        retired.remove(free)
    }

    /// Keeps a buffer for later, if there is room for it. Parts of it may still be in use.
    pub(crate) fn retire(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut retired = self.lock();
        // Dropped after the lock is released.
        let _oldest = (retired.len() >= self.kept_max).then(|| retired.pop_front());
        retired.push_back(buffer);
        drop(retired);
    }

    /// Keeps a buffer of which nothing is in use; it will be the next to be taken, while it is still in the cache.
    pub(crate) fn give_back(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut retired = self.lock();
        if retired.len() < self.kept_max {
            retired.push_front(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<BytesMut>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies of a bond's applications' bytes, one behind the other in pooled buffers.
#[derive(Debug)]
pub(crate) struct CopyPool {
    pool: &'static BufferPool,
    /// The buffer that the next copy goes into.
    current: Mutex<Option<BytesMut>>,
}

impl CopyPool {
    pub(crate) const fn new(pool: &'static BufferPool) -> Self {
        Self { pool, current: Mutex::new(None) }
    }

    /// A copy of `data`, which is no longer than the pool's buffers. Copies outside the lock.
    pub(crate) fn copy(&self, data: &[u8]) -> Bytes {
        let mut buffer = self.take(data.len());
        buffer.extend_from_slice(data);
        let copy = buffer.split().freeze();
        // Another stream may have put one there meanwhile.
        let other = self.lock().replace(buffer);
        if let Some(other) = other {
            self.pool.retire(other);
        }
        copy
    }

    fn take(&self, bytes: usize) -> BytesMut {
        let current = self.lock().take();
        match current {
            Some(buffer) if buffer.capacity() >= bytes => return buffer,
            Some(used_up) => self.pool.retire(used_up),
            None => {}
        }
        self.pool.take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<BytesMut>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_parts_are_gone() {
        let pool = BufferPool::new(1000, 2);
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
    fn what_is_given_back_goes_out_next_and_no_more_is_kept_than_allowed() {
        let pool = BufferPool::new(1000, 2);
        let (first, second, third) = (pool.take(), pool.take(), pool.take());
        let place = second.as_ptr();
        pool.retire(first);
        pool.give_back(second);
        pool.give_back(third);
        assert_eq!(pool.lock().len(), 2);
        assert_eq!(pool.take().as_ptr(), place);
    }

    #[test]
    fn copies_share_buffers_and_stay_what_they_are() {
        static POOL: BufferPool = BufferPool::new(1000, 4);
        let copies = CopyPool::new(&POOL);
        let mut kept = VecDeque::new();
        for round in 0..500_usize {
            let data = vec![round as u8; 1 + round * 7 % 900];
            kept.push_back((copies.copy(&data), data));
            if kept.len() > 6 {
                kept.pop_front();
            }
            assert!(kept.iter().all(|(copy, data)| copy == data), "round {round}");
        }
        assert!(POOL.lock().len() <= 4);
    }
}
