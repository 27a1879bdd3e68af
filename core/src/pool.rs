//! Memory for stream buffers that all bonds of a process share.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::limits;

/// What the streams of many bonds may hold together beyond their smallest windows, in either direction.
///
/// Clones are the same pool. A [`Config`](crate::config::Config) has one, and so all bonds made with clones of that
/// share it. While much is lent, each bond is lent less of it, as streams are within a bond; each stream keeps its smallest
/// window, so that all go on. Bonds on several threads may lend at the same moment, and so exceed it for that moment.
///
/// ```
/// use bondwire_core::config::{BufferPool, Config};
/// let config = Config { buffers: BufferPool::new(64 << 20), ..Config::default() };
/// assert_eq!(config.buffers.lent_bytes(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct BufferPool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    lendable_bytes: u64,
    /// A word of the machine, since small processors have no larger atomics.
    lent_bytes: AtomicUsize,
}

impl BufferPool {
    /// A pool of `lendable_bytes`.
    pub fn new(lendable_bytes: u64) -> Self {
        Self(Arc::new(Pool { lendable_bytes, lent_bytes: AtomicUsize::new(0) }))
    }

    /// Bytes that are lent now.
    pub fn lent_bytes(&self) -> u64 {
        self.0.lent_bytes.load(Ordering::Relaxed) as u64
    }

    /// What one borrower may hold, of which it holds `own_bytes` already.
    pub(crate) fn available_bytes(&self, own_bytes: u64) -> u64 {
        self.0.lendable_bytes.saturating_sub(self.lent_bytes().saturating_sub(own_bytes))
    }

    /// One borrower holds `after` bytes and no longer `before`.
    pub(crate) fn change(&self, before: u64, after: u64) {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        // Only sums are wanted, nothing is read by them: no ordering.
        if after > before {
            self.0.lent_bytes.fetch_add(bytes(after - before), Ordering::Relaxed);
        } else if before > after {
            self.0.lent_bytes.fetch_sub(bytes(before - after), Ordering::Relaxed);
        }
    }
}

impl Default for BufferPool {
    fn default() -> Self {
        Self::new(limits::PROCESS_BUFFER_BYTES)
    }
}
