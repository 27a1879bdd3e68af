//! How streams share a bounded buffer, in either direction.

use crate::pool::BufferPool;

/// A buffer that streams share. Each stream may always hold `floor_bytes`; what it holds beyond is *lent*.
///
/// A stream may be lent 7/8 of what is free, its own loan counted as free ("dynamic thresholds", Choudhury and Hahne
/// 1998). One stream alone gets nearly everything, `n` greedy streams about an equal part each, and there is always
/// something left for the next one, without any list of who is greedy: the check is O(1).
/// All bonds of a process share a pool besides, which may have less to lend.
#[derive(Debug)]
pub(super) struct Budget {
    floor_bytes: u64,
    lendable_bytes: u64,
    lent_bytes: u64,
    held_bytes: u64,
    pool: BufferPool,
}

impl Budget {
    pub(super) fn new(floor_bytes: u64, lendable_bytes: u64, pool: BufferPool) -> Self {
        Self { floor_bytes, lendable_bytes, lent_bytes: 0, held_bytes: 0, pool }
    }

    /// What a stream may always hold.
    pub(super) fn floor_bytes(&self) -> u64 {
        self.floor_bytes
    }

    /// What all streams hold together.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// The most that a stream which holds `held_bytes` may be lent, what it is lent already included, if no more than
    /// `lendable_bytes` were there to lend.
    pub(super) fn allowance_of(&self, held_bytes: u64, lendable_bytes: u64) -> u64 {
        let own = held_bytes.saturating_sub(self.floor_bytes);
        let lendable =
            lendable_bytes.min(self.lendable_bytes).min(self.pool.available_bytes(self.lent_bytes));
        let available = lendable.saturating_sub(self.lent_bytes - own);
        available - available / 8
    }

    /// As [`allowance_of`](Self::allowance_of), with all there is to lend.
    pub(super) fn allowance(&self, held_bytes: u64) -> u64 {
        self.allowance_of(held_bytes, self.lendable_bytes)
    }

    /// Takes note that what one stream holds has changed.
    pub(super) fn change(&mut self, held_before: u64, held_after: u64) {
        let lent = |held: u64| held.saturating_sub(self.floor_bytes);
        let before = self.lent_bytes;
        self.lent_bytes = before - lent(held_before) + lent(held_after);
        self.pool.change(before, self.lent_bytes);
        self.held_bytes = self.held_bytes - held_before + held_after;
        debug_assert!(self.lent_bytes <= self.lendable_bytes, "lent more than there is: {self:?}");
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.pool.change(self.lent_bytes, 0);
    }
}
