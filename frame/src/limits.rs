//! Every bound of the frame layer, with its unit and its reason.

use crate::time::Duration;

/// Bytes of a frame in front of its payload: type and count.
pub const HEADER_BYTES: usize = 5;
/// Bytes of a frame behind its payload: the CRC-32C.
pub const TRAILER_BYTES: usize = 4;
/// Bytes of a frame that are not payload.
pub const FRAME_OVERHEAD_BYTES: usize = HEADER_BYTES + TRAILER_BYTES;
/// Smallest MTU: what a bond wants of every link, in bytes.
pub const MTU_MIN_BYTES: u16 = 256;
/// Longest frame on a serial line unless configured otherwise, in bytes. Up to 655 bytes of data CRC-32C tells any five
/// flipped bits (Koopman, "32-bit cyclic redundancy codes for Internet applications", 2002, table 1).
pub const SERIAL_FRAME_BYTES: u16 = 640;
/// Packet that fits such a frame, in bytes.
pub const SERIAL_MTU_BYTES: u16 = SERIAL_FRAME_BYTES - FRAME_OVERHEAD_BYTES as u16;
/// Largest receive buffer that an end may announce, in bytes: limits stay comparable in 32 bits that wrap.
pub const RECEIVE_BUFFER_MAX_BYTES: u32 = 1 << 30;
/// Longest message of a medium (see [`crate::Session::send_message`]), in bytes: it is exempt from credits, so a receiver
/// must be able to act on it at once.
pub const MESSAGE_MAX_BYTES: usize = 32;
/// Longest HELLO as it stands in a transfer, in bytes: it fits one USB packet of full speed, and is not a multiple of it.
pub const HELLO_MAX_BYTES: usize = 63;

/// First wait before a HELLO is repeated; doubles each time up to [`HELLO_REPEAT_MAX`].
pub const HELLO_REPEAT_MIN: Duration = Duration::from_millis(50);
/// Longest wait between two HELLOs of an end that dials.
pub const HELLO_REPEAT_MAX: Duration = Duration::from_millis(400);
/// Time after which a dialling end that was not heard gives up, and after which an end gives up a peer that says nothing
/// but HELLO.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Least time between two answers to HELLO: a peer that floods is not flooded.
pub const HELLO_ANSWER_INTERVAL: Duration = Duration::from_millis(20);
/// Longest time between two frames that tell the limit, unless configured otherwise.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Longest keep-alive that can be told, in milliseconds: it travels in 16 bits.
pub const KEEP_ALIVE_MAX: Duration = Duration::from_millis(u16::MAX as u64);
/// Keep-alives of the peer that may go missing before it is taken to be gone.
pub const KEEP_ALIVES_MISSED_MAX: u32 = 4;
/// Wait before a limit is repeated that may have been lost while the sender waits for it; doubles up to the keep-alive.
pub const CREDIT_REPEAT: Duration = Duration::from_millis(50);
/// A new limit is told when it has risen by this part of the receive buffer.
pub const CREDIT_STEPS: u32 = 4;
