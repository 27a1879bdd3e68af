//! Every bound of the device side, with its unit and its reason.

use bondwire_frame::Duration;

/// Longest time between two signs of life to a host on USB. The host takes the device for dead after four times as long;
/// hosts do the same.
pub const USB_KEEP_ALIVE: Duration = Duration::from_millis(400);
/// Wait before what is due is tried again while the hardware has not taken what is ahead of it.
pub const BLOCKED_RETRY: Duration = Duration::from_millis(20);
/// Wait before a port that has lost a session dials again.
pub const REOPEN_PAUSE: Duration = Duration::from_millis(200);
/// Reads from one port before the other one gets its turn: a host that talks without a pause must not starve it.
pub const READS_PER_TURN: usize = 8;
/// Bits on a serial line for each byte: 8N1.
pub const BITS_PER_BYTE: u64 = 10;
