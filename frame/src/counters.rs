/// What one direction of a session has seen. All counts are since the session began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DirectionCounters {
    /// Packets.
    pub packets: u64,
    /// Bytes of packets.
    pub packet_bytes: u64,
    /// Frames of all types.
    pub frames: u64,
}

/// What a session has seen, for people who want to know how good a cable is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// What this end has sent.
    pub sent: DirectionCounters,
    /// What it has received whole.
    pub received: DirectionCounters,
    /// Frames whose checksum was wrong: noise, or what an earlier session left in the pipe.
    pub checksum_errors: u64,
    /// Bytes of frames that the peer sent and that did not arrive whole.
    pub lost_bytes: u64,
    /// Good frames of types that this version does not know.
    pub unknown_frames: u64,
    /// HELLOs received.
    pub hellos: u64,
    /// Times that this end had a packet to send, and the peer's buffer had no room for it.
    pub credit_stalls: u64,
}
