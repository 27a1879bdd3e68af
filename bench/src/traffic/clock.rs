//! The machine's clock, the same in every namespace and process on it.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on the machine's monotonic clock. Sender and receiver of a scenario share it, so one-way
/// times can be measured directly.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
