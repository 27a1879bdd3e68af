use bondwire_frame::hello::HELLO_BYTES;
use bondwire_frame::{Config, Duration, FRAME_OVERHEAD_BYTES, FrameSink, cobs};

use crate::Framing;
use crate::limits::BITS_PER_BYTE;

/// Memory for one frame with a packet of `mtu_bytes`.
pub const fn line_frame_bytes(mtu_bytes: u16) -> usize {
    mtu_bytes as usize + FRAME_OVERHEAD_BYTES
}

/// Memory for what is to be sent next: a frame with a packet of `mtu_bytes`, what the session has to say, and a delimiter.
pub const fn line_outgoing_bytes(mtu_bytes: u16) -> usize {
    cobs::encoded_max_bytes(line_frame_bytes(mtu_bytes))
        + cobs::encoded_max_bytes(HELLO_BYTES + FRAME_OVERHEAD_BYTES)
        + 1
}

/// A UART: 8 data bits, no parity, one stop bit (PROTOCOL.md, section 12.2). It stays at one rate.
#[derive(Debug)]
pub struct Line<'b> {
    decoder: cobs::Decoder<&'b mut [u8]>,
    outgoing: &'b mut [u8],
    /// What of it the hardware has not taken yet.
    start: usize,
    end: usize,
    baud: u32,
}

impl<'b> Line<'b> {
    /// With memory of [`line_frame_bytes`] and [`line_outgoing_bytes`], at `baud` bits per second. Hosts begin at 115 200
    /// unless told otherwise.
    pub fn new(frame: &'b mut [u8], outgoing: &'b mut [u8], baud: u32) -> Self {
        Self { decoder: cobs::Decoder::new(frame), outgoing, start: 0, end: 0, baud: baud.max(1) }
    }

    /// Times that the place in the byte stream was lost, and found again at the next delimiter.
    pub fn resyncs(&self) -> u64 {
        self.decoder.resyncs()
    }

    fn bytes_time(&self, bytes: u64) -> Duration {
        Duration::from_micros(bytes * BITS_PER_BYTE * 1_000_000 / u64::from(self.baud))
    }
}

impl Framing for Line<'_> {
    fn configure(&self, config: Config) -> Config {
        // On very slow lines a frame takes seconds, and so must everything else.
        Config {
            hello_repeat: config.hello_repeat.max(self.bytes_time(100)),
            hello_timeout: config.hello_timeout.max(self.bytes_time(1000)),
            keep_alive: config.keep_alive.max(self.bytes_time(u64::from(config.mtu_bytes))),
            read_bytes: 0,
            ..config
        }
    }

    fn mtu_max_bytes(&self) -> usize {
        let frame = self.decoder.frame_max_bytes();
        let mut mtu_bytes = frame.min(self.outgoing.len()).saturating_sub(FRAME_OVERHEAD_BYTES);
        while mtu_bytes > 0 && line_outgoing_bytes(mtu_bytes as u16) > self.outgoing.len() {
            mtu_bytes -= 1;
        }
        mtu_bytes
    }

    fn peer_mtu_max_bytes(&self, _peer_read_bytes: usize) -> usize {
        usize::MAX
    }

    fn baud(&self) -> Option<u32> {
        Some(self.baud)
    }

    fn next_frame(&mut self, input: &mut &[u8]) -> Option<&[u8]> {
        self.decoder.next_frame(input).map(|frame| &*frame)
    }

    fn write(&mut self, _peer_read_bytes: usize, fill: &mut dyn FnMut(&mut dyn FrameSink)) {
        if self.start == self.end || self.start > self.outgoing.len() / 2 {
            self.outgoing.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let is_idle = self.end == 0;
        let room = &mut self.outgoing[self.end..];
        let mut writer = if is_idle { cobs::Writer::after_idle(room) } else { cobs::Writer::new(room) };
        let nothing = writer.len();
        fill(&mut writer);
        if writer.len() > nothing {
            self.end += writer.len();
        }
    }

    fn outgoing(&self) -> &[u8] {
        &self.outgoing[self.start..self.end]
    }

    fn sent(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
    }
}
