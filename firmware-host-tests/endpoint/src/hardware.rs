use bondwire_frame::Instant;
use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};

use crate::limits::READS_PER_TURN;
use crate::{Framing, Port};

/// Moves bytes between a port and its hardware, as far as that is possible without waiting. Answers whether there were any.
///
/// `chunk` is memory for one read; on USB it holds at least one packet of the endpoint, and each read is one packet. After it
/// comes [`Bridge::step`](crate::Bridge::step) or [`Echo::step`](crate::Echo::step), which may have more to send.
pub fn exchange<F, H>(
    port: &mut Port<'_, F>,
    now: Instant,
    hardware: &mut H,
    chunk: &mut [u8],
) -> Result<bool, <H as ErrorType>::Error>
where
    F: Framing,
    H: Read + ReadReady + Write + WriteReady,
{
    let mut has_moved = false;
    for _ in 0..READS_PER_TURN {
        if !hardware.read_ready()? {
            break;
        }
        let bytes = hardware.read(chunk)?;
        port.handle_bytes(now, &chunk[..bytes.min(chunk.len())]);
        has_moved = true;
    }
    while !port.outgoing().is_empty() && hardware.write_ready()? {
        let bytes = hardware.write(port.outgoing())?;
        if bytes == 0 {
            break;
        }
        port.sent(bytes);
        has_moved = true;
    }
    Ok(has_moved)
}
