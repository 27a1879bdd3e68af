use bondwire_frame::{Config, FrameSink};

/// How frames travel over the hardware of a port: [`Line`](crate::Line) or [`Transfers`](crate::Transfers).
pub trait Framing {
    /// The settings of a session over this medium, made of those that the port wants.
    fn configure(&self, config: Config) -> Config;

    /// Longest packet that its memory is enough for, in bytes.
    fn mtu_max_bytes(&self) -> usize;

    /// Longest packet that the peer can read, in bytes, if its reads are `peer_read_bytes` long.
    fn peer_mtu_max_bytes(&self, peer_read_bytes: usize) -> usize;

    /// Rate of the line in bits per second; none where there is no such thing.
    fn baud(&self) -> Option<u32>;

    /// Takes bytes from the front of `input` up to the end of the next frame, and answers that frame; `None` when the
    /// input is used up.
    fn next_frame(&mut self, input: &mut &[u8]) -> Option<&[u8]>;

    /// Lets `fill` write frames behind those that the hardware has not taken yet, as far as there is room. `peer_read_bytes`
    /// is the length of the peer's reads, zero while it is not known.
    fn write(&mut self, peer_read_bytes: usize, fill: &mut dyn FnMut(&mut dyn FrameSink));

    /// What the hardware is to send next.
    fn outgoing(&self) -> &[u8];

    /// The hardware has taken so many bytes of that.
    fn sent(&mut self, bytes: usize);
}
