//! Every bound of the driver, with its unit and its reason; those of the engine come first.

use std::time::Duration;

pub use bondwire_core::limits::*;

/// Bytes a link's writer seals and sends at once: large enough that a system call is a small part of its cost, small
/// enough to stay in the L2 cache and to be decided upon late.
pub const BATCH_BYTES: usize = 128 << 10;
/// Packets in such a batch: bounds the time the bond's lock is held.
pub const BATCH_PACKETS_MAX: usize = 64;
/// Size of a byte stream's read buffer once the other end is authenticated, in bytes.
pub const READ_BUFFER_BYTES: usize = 256 << 10;
/// Such buffers that a process keeps to use again: what eight fast links have in use, 16 MiB.
pub const READ_BUFFERS_KEPT: usize = 64;
/// Room left in it, in bytes, below which a fresh one is taken: what remains is not worth a system call.
pub const READ_SPACE_MIN_BYTES: usize = 32 << 10;
/// Bytes that one write copies at most: the bond's lock is held for as long as that takes.
pub const WRITE_BYTES_MAX: usize = 128 << 10;
/// Writes of at least this many bytes are copied outside the bond's lock; smaller ones are put together by the engine.
pub const COPY_MIN_BYTES: usize = 8 << 10;
/// Buffers of [`WRITE_BYTES_MAX`] for such copies that a process keeps to use again: as many as are in flight on fast
/// links, 8 MiB.
pub const COPY_BUFFERS_KEPT: usize = 64;
/// Bytes a stream takes from the engine ahead of small reads, so that not each of them takes the lock.
pub const READ_AHEAD_BYTES: usize = 32 << 10;

/// Time for a closed link to hand over its last packets before the medium is dropped.
pub const LINK_LINGER: Duration = Duration::from_secs(1);
/// Time for which a link is still read whose medium takes no more packets: what the other end sent before it went away, its
/// farewell above all, may be waiting there.
pub const LAST_WORDS_WAIT: Duration = Duration::from_millis(50);
/// Time that [`Bond::close`](crate::Bond::close) gives finished streams to be delivered.
pub const CLOSE_LINGER: Duration = Duration::from_secs(10);

/// First wait of a dialer after a failure; doubles each time, with jitter.
pub const DIAL_BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait of a dialer.
pub const DIAL_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Silence after which a suspect link is dialled anew. One that is only late answers before that: TCP with BBR pauses for 200 ms,
/// and a busy host for less. A fresh link in its place would begin at nothing.
pub const REPLACE_AFTER: Duration = Duration::from_millis(250);
/// Time between two dials for a link that is missing or suspect.
pub const REPLACE_INTERVAL: Duration = Duration::from_millis(500);
/// Time after which such a link is dialled every [`DIAL_BACKOFF_MAX`] only: most cuts are shorter.
pub const REPLACE_EAGER: Duration = Duration::from_secs(60);
/// Silence after which a link that answers again is given up for a fresh one, where the medium has a memory of it: below
/// that its retransmissions have not backed off far.
pub const RENEW_AFTER: Duration = Duration::from_secs(1);
/// First wait of an acceptor after a failure; doubles each time up to [`ACCEPT_BACKOFF_MAX`].
pub const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest wait of an acceptor: the time after which new links come in once descriptors are free again.
pub const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Bonds that wait for [`Listener::accept`](crate::Listener::accept); later ones are refused.
pub const ACCEPT_QUEUE_MAX: usize = 1024;
/// Events kept for a subscriber that does not fetch them; then it is told how many it missed.
pub const EVENT_QUEUE_MAX: usize = 1024;
