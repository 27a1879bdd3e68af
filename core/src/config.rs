//! What a caller decides: sizes and times of a bond, and what is known of a link.

use alloc::string::String;

use crate::limits;
pub use crate::policy::{LinkPolicy, Policy};
pub use crate::pool::BufferPool;
use crate::time::Duration;

/// Sizes and times of one bond.
///
/// ```
/// let config = bondwire_core::config::Config { idle_timeout: None, ..Default::default() };
/// assert!(config.receive_buffer_bytes > 0);
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes this end holds for streams that have arrived and are not yet read; the peer is never granted more.
    pub receive_buffer_bytes: u64,
    /// Bytes this end holds that the peer has not yet acknowledged; a writer waits beyond it.
    pub send_buffer_bytes: u64,
    /// Memory that these buffers share with those of other bonds: of all that are made with a clone of this.
    pub buffers: BufferPool,
    /// Streams that the peer may have open at once.
    pub streams_max: u64,
    /// Streams that the handshake allowed the peer at first, if that was another number: a listener knows its peer, and
    /// so what it may have, only after that. The rest is granted once the bond is open.
    pub streams_told: Option<u64>,
    /// Time without a usable link after which the bond ends; `None` waits for ever.
    pub idle_timeout: Option<Duration>,
    /// Time without traffic after which a link is probed; `None` never probes an idle link.
    pub keep_alive: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            receive_buffer_bytes: limits::RECEIVE_BUFFER_BYTES,
            send_buffer_bytes: limits::SEND_BUFFER_BYTES,
            buffers: BufferPool::default(),
            streams_max: limits::STREAMS_MAX,
            streams_told: None,
            idle_timeout: Some(limits::IDLE_TIMEOUT),
            keep_alive: Some(limits::KEEP_ALIVE),
        }
    }
}

/// What the driver knows of a link when it joins the bond.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// For messages, such as `tcp 192.0.2.7:7700`.
    pub name: String,
    /// The medium, such as `tcp`.
    pub kind: &'static str,
    /// Largest packet this end may send, header and tag included: the smaller of the link's and the peer's MTU.
    pub mtu_bytes: usize,
    /// Bytes that sealing adds behind each packet.
    pub tag_bytes: usize,
    /// What the medium is known to move, in bytes per second (baud/10, a USB speed); `None` where unknown.
    pub rate_hint: Option<u64>,
    /// Whether the medium retransmits by itself (TCP, USB), so that it hides a queue of its own.
    pub reliable: bool,
    /// Round trip of the handshake, if it was not repeated.
    pub rtt: Option<Duration>,
    /// Longest time the peer holds an acknowledgement back.
    pub peer_ack_delay: Duration,
}
