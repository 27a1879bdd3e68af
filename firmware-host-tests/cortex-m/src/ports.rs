//! Memory and settings of a port.

use core::fmt::Write as _;

use bondwire_firmware::{
    Instant, Line, Port, PortConfig, Roles, TooSmall, line_frame_bytes, line_outgoing_bytes, queue_bytes,
};

use crate::board::{BAUD, Console, Uart};

/// Longest packet, in bytes: frames of 640.
pub const MTU_BYTES: u16 = 631;
/// Packets of so many bytes may wait at a port: 0.7 s of the line.
pub const BUFFER_BYTES: usize = 8 << 10;

/// All memory of one port.
pub struct Memory {
    frame: [u8; line_frame_bytes(MTU_BYTES)],
    outgoing: [u8; line_outgoing_bytes(MTU_BYTES)],
    queue: [u8; queue_bytes(MTU_BYTES, BUFFER_BYTES)],
}

impl Memory {
    /// Fresh memory.
    pub const fn new() -> Self {
        Self {
            frame: [0; line_frame_bytes(MTU_BYTES)],
            outgoing: [0; line_outgoing_bytes(MTU_BYTES)],
            queue: [0; queue_bytes(MTU_BYTES, BUFFER_BYTES)],
        }
    }

    /// The port that it is for.
    pub fn port(&mut self, now: Instant, roles: Roles, seed: u64) -> Result<Port<'_, Line<'_>>, TooSmall> {
        let line = Line::new(&mut self.frame, &mut self.outgoing, BAUD);
        Port::new(now, line, &mut self.queue, PortConfig { roles, mtu_bytes: MTU_BYTES, seed })
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// Tells people on the console when a session ended.
pub struct Reporter {
    name: char,
    sessions: u32,
}

impl Reporter {
    /// For the port of this name.
    pub fn new(name: char) -> Self {
        Self { name, sessions: 1 }
    }

    /// Writes a line if there is something new.
    pub fn report(&mut self, port: &Port<'_, Line<'_>>, console: &mut Uart) {
        if port.sessions() != self.sessions
            && let Some(end) = port.last_end()
        {
            let _ = writeln!(Console(console), "port {}: {end}\r", self.name);
        }
        self.sessions = port.sessions();
    }
}
