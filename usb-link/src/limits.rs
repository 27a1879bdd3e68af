//! Every bound of USB links, with its unit and its reason.

use std::time::Duration;

/// Longest transfer both ways, in bytes. FunctionFS wants it contiguous in kernel memory, and many device controllers do
/// no more in one request.
pub const TRANSFER_MAX_BYTES: usize = 16 << 10;
/// Transfers under way each way on a fast cable: enough that the controller has the next one when it ends one.
pub const TRANSFERS_MAX: usize = 8;
/// Fewest transfers each way with which a link goes on when the kernel has no memory for more: with one the bus would be
/// idle between two.
pub const TRANSFERS_MIN: usize = 2;
/// Bytes of packets that came and that nobody has taken yet, of a high-speed cable: 13 ms of it. With data both ways a new limit
/// waits behind all transfers of its own direction, and the sender must not wait for it: so this is more than what is under way
/// both ways, with the quarter after which a limit is told.
pub const RECEIVE_BUFFER_BYTES: u32 = 512 << 10;
/// Bytes copied together at the receiver, one behind the other, before fresh memory is taken.
pub const COPY_BYTES: usize = 128 << 10;
/// Transfers handled before other tasks get their turn, and the link looks at the clock: all that can have come before.
pub const TRANSFERS_PER_TURN: usize = 2 * TRANSFERS_MAX;

/// Longest time between two frames. The other end takes this one for dead after four times as long, 1.6 s.
pub const KEEP_ALIVE: Duration = Duration::from_millis(400);
/// Time in which a host must be heard by the device's program, which may start anew just then.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// Time that a dial gets at least: long enough to say what is wrong when [`HELLO_TIMEOUT`] has passed.
pub const DIAL_PATIENCE: Duration = Duration::from_secs(3);
/// Time in which a device answers a question about one of its endpoints. Most do within a millisecond.
pub const STATUS_TIMEOUT: Duration = Duration::from_millis(200);
/// Time that the last transfers may take to leave when a link ends.
pub const LINGER: Duration = Duration::from_millis(500);
/// Time in which an interface becomes free after a link over it has ended: [`LINGER`], and what the kernel needs to cancel
/// what was under way.
pub const RELEASE_PATIENCE: Duration = Duration::from_secs(1);
/// How often a dialer looks whether it is free.
pub const RELEASE_RETRY: Duration = Duration::from_millis(20);

/// How often devices are listed anew although no event said that there is something new: without udev none does, and
/// on some systems an interface is not ready yet when its device is announced.
pub const LIST_INTERVAL: Duration = Duration::from_secs(2);
/// Cables that are dialled for one address: as many links as a bond takes.
pub const CABLES_MAX: usize = bondwire::limits::LINKS_MAX;
/// Longest hint in a string descriptor, in characters: a string descriptor holds 126.
pub const HINT_MAX_CHARS: usize = 64;
/// Links from one device side that wait to be taken.
pub const ACCEPT_QUEUE: usize = 16;
/// Wait of the device side after it could not serve a controller.
pub const SERVE_RETRY: Duration = Duration::from_secs(1);

/// AIO contexts of one program that are ended for it when it is killed: two for each link that a bond can have, and some.
#[cfg(target_os = "linux")]
pub(crate) const AIO_CONTEXTS_MAX: usize = 2 * bondwire::limits::LINKS_MAX + 16;
/// Stack of the process that does it, in bytes: a few system calls.
#[cfg(target_os = "linux")]
pub(crate) const CARETAKER_STACK_BYTES: usize = 64 << 10;
/// Descriptors that it closes one by one on kernels without `close_range`: the usual hard limit of a program is lower, and
/// more take too long.
#[cfg(target_os = "linux")]
pub(crate) const DESCRIPTORS_CLOSED_MAX: std::ffi::c_int = 65_536;
