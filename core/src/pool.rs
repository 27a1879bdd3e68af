//! Memory for stream buffers that all bonds of a process share.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::limits;

/// What the streams of many bonds may hold together beyond their smallest windows, in either direction.
///
/// Clones are the same pool. A [`Config`](crate::config::Config) has one, and so all bonds made with clones of that
/// share it: none gets more than an even part among those that hold much, in each direction; each stream keeps its smallest
/// window, so that all go on. Bonds on several threads may borrow at the same moment, and so exceed it for that moment.
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
    /// Borrowers that hold more than [`SMALL_LOAN_BYTES`].
    large_loans: AtomicUsize,
}

/// Borrowers with less are not in each other's way, and take no part from those that want more.
const SMALL_LOAN_BYTES: u64 = 256 << 10;

impl BufferPool {
    /// A pool of `lendable_bytes`.
    pub fn new(lendable_bytes: u64) -> Self {
        Self(Arc::new(Pool {
            lendable_bytes,
            lent_bytes: AtomicUsize::new(0),
            large_loans: AtomicUsize::new(0),
        }))
    }

    /// Bytes that are lent now.
    pub fn lent_bytes(&self) -> u64 {
        self.0.lent_bytes.load(Ordering::Relaxed) as u64
    }

    /// What one borrower may hold, of which it holds `own_bytes` already. First come, first served would give all to those
    /// whose windows grow first, and the others would wait for their ends.
    pub(crate) fn available_bytes(&self, own_bytes: u64) -> u64 {
        let free = self.0.lendable_bytes.saturating_sub(self.lent_bytes().saturating_sub(own_bytes));
        let large = self.0.large_loans.load(Ordering::Relaxed) as u64;
        let others = large.saturating_sub(u64::from(own_bytes > SMALL_LOAN_BYTES));
        free.min(self.0.lendable_bytes / (others + 1))
    }

    /// One borrower holds `after` bytes and no longer `before`.
    pub(crate) fn change(&self, before: u64, after: u64) {
        match (before > SMALL_LOAN_BYTES, after > SMALL_LOAN_BYTES) {
            (false, true) => _ = self.0.large_loans.fetch_add(1, Ordering::Relaxed),
            (true, false) => _ = self.0.large_loans.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        }
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
