//! Every bound of a recording, with its unit and its reason.

use std::time::Duration;

/// Time between two samples: short enough to see a fail-over, which takes some 50 ms, as a gap; a look at the counters costs
/// some microseconds.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// The same of a bond in another process: what it takes to answer.
#[cfg(unix)]
pub(super) const REMOTE_INTERVAL: Duration = Duration::from_millis(200);
/// Samples and messages of another process that wait to be written.
#[cfg(unix)]
pub(super) const NEWS_QUEUE_MAX: usize = 64;
/// A sample takes at most the inverse of this share of one processor's time: with hundreds of bonds they become rarer.
pub(super) const SAMPLE_SHARE: u32 = 50;
/// Bytes that wait for a slow file: some seconds' worth. What comes after them is left out.
pub(super) const QUEUE_MAX_BYTES: usize = 1 << 20;
/// Longest recording, in bytes: ten hours of four links. One that was forgotten must not fill the disk.
pub(super) const RECORDING_MAX_BYTES: u64 = 1 << 30;
/// Time for the file to open: a pipe that nobody reads never does.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the last lines to be written when the command ends.
pub(super) const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(2);
