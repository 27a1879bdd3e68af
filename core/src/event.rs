//! What the engine tells its caller.

use alloc::string::String;
use core::fmt;

use crate::config::{LinkPolicy, Policy};
use crate::error::{CloseReason, DownReason};
use crate::id::LinkId;
pub use crate::streams::StreamEvent;
use crate::time::{Duration, Instant};

/// Something the caller may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A stream can be read, written, accepted, or has ended.
    Stream(StreamEvent),
    /// A datagram can be read.
    DatagramReadable,
    /// An ordered datagram can be read.
    OrderedReadable,
    /// A link changed its state.
    Link {
        /// The link.
        id: LinkId,
        /// Its name.
        name: String,
        /// Its state before.
        from: LinkState,
        /// Its state now.
        to: LinkState,
        /// What made it change.
        why: Change,
    },
    /// The bond ended; streams that are not finished fail.
    Closed(CloseReason),
}

/// States of a link. All transitions are in `link/state.rs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub enum LinkState {
    /// The handshake is done; the initiator's first sealed packet has not arrived.
    Joining,
    /// Carries data, as far as its policy lets it.
    Active,
    /// Silent for too long; probed, and its data goes elsewhere.
    Suspect,
    /// Left the bond.
    Closed,
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Suspect => "suspect",
            Self::Closed => "closed",
        })
    }
}

/// Why a link changed its state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It joined the bond.
    Joined,
    /// The first sealed packet arrived.
    FirstPacket,
    /// Nothing was acknowledged for too long.
    Silence {
        /// How long.
        silent: Duration,
        /// Bytes that were given to other links.
        moved_bytes: u64,
    },
    /// A probe was answered.
    Answered {
        /// How long the link was suspect.
        suspect: Duration,
    },
    /// It left the bond.
    Down(DownReason),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined => f.write_str("joined"),
            Self::FirstPacket => f.write_str("first packet"),
            Self::Silence { silent, moved_bytes: 0 } => write!(f, "silent for {} ms", silent.as_millis()),
            Self::Silence { silent, moved_bytes } => {
                write!(f, "silent for {} ms; {moved_bytes} bytes go over other links", silent.as_millis())
            }
            Self::Answered { suspect } => write!(f, "answered again after {} ms", suspect.as_millis()),
            Self::Down(reason) => write!(f, "{reason}"),
        }
    }
}

/// Why the timer of [`crate::connection::Connection::poll_timeout`] is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerReason {
    /// An acknowledgement has waited long enough.
    Ack(LinkId),
    /// An answer is overdue: probe the link.
    Probe(LinkId),
    /// The oldest packet in flight is overdue, whatever became of those before it.
    Late(LinkId),
    /// The link has been silent for so long that it becomes suspect.
    Silence(LinkId),
    /// The link has been idle: see whether it is still there.
    KeepAlive(LinkId),
    /// The initiator's first packet has not come.
    Joining(LinkId),
    /// A link that came and went is no longer held back.
    Hold(LinkId),
    /// A link refused data in favour of a faster one that may have failed it.
    ThinkAgain,
    /// Nothing was usable for the idle timeout.
    Idle,
    /// The bond has been closing for long enough.
    Close,
    /// Datagrams grow too old, or were held for long enough.
    Datagrams,
}

/// Why a link carries nothing at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IdleReason {
    /// The handshake is not finished.
    Joining,
    /// It is silent; probes are under way.
    Suspect,
    /// Its policy here keeps it out.
    PolicyHere(Policy),
    /// The peer's policy keeps it out.
    PolicyOfPeer(Policy),
    /// Links of a lower tier carry what there is.
    Tier(u8),
    /// It came and went too often, and has to prove itself for so long.
    Held(Duration),
    /// Its cap is used up for the moment.
    Cap(u64),
    /// It has carried its share by weight; other links are to catch up.
    Share,
    /// There is nothing to send.
    NothingToSend,
    /// Faster links carry what there is.
    FasterLinksSuffice,
    /// As much is in flight as the link can use.
    WindowFull,
}

impl fmt::Display for IdleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joining => f.write_str("the handshake is not finished"),
            Self::Suspect => f.write_str("silent; probing"),
            Self::PolicyHere(policy) => write!(f, "policy {policy} here"),
            Self::PolicyOfPeer(policy) => write!(f, "policy {policy} at the peer"),
            Self::Tier(tier) => write!(f, "links of a tier below {tier} are usable"),
            Self::Held(left) => {
                write!(f, "came and went too often; held back for {} s more", left.as_secs() + 1)
            }
            Self::Cap(cap) => write!(f, "at its cap of {cap} bytes per second"),
            Self::Share => f.write_str("carried its share by weight; others are to catch up"),
            Self::NothingToSend => f.write_str("nothing to send"),
            Self::FasterLinksSuffice => f.write_str("faster links carry it all"),
            Self::WindowFull => f.write_str("waiting for acknowledgements"),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Backup => "backup",
            Self::Paused => "paused",
        })
    }
}

/// A link as it is now.
#[derive(Clone, Debug)]
pub struct LinkSnapshot {
    /// The link.
    pub id: LinkId,
    /// For messages.
    pub name: String,
    /// The medium.
    pub kind: &'static str,
    /// Its state.
    pub state: LinkState,
    /// Since when.
    pub since: Instant,
    /// Policy set here.
    pub policy: LinkPolicy,
    /// Policy the peer asks for.
    pub peer_policy: LinkPolicy,
    /// Until when it is held back because it came and went too often.
    pub held_until: Option<Instant>,
    /// Estimated delivery rate in bytes per second.
    pub rate: Option<u64>,
    /// Smoothed round trip.
    pub rtt: Option<Duration>,
    /// Round trip without queues.
    pub rtt_base: Duration,
    /// Bytes sent and not acknowledged.
    pub in_flight_bytes: u64,
    /// Bytes that may be in flight.
    pub window_bytes: u64,
    /// Largest packet.
    pub mtu_bytes: usize,
    /// Why it carries nothing, if so.
    pub idle: Option<IdleReason>,
    /// Counters.
    pub stats: LinkStats,
}

/// Counters of a link since it joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Bytes of packets sent, headers and tags included.
    pub sent_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Bytes of packets received, headers and tags not included.
    pub received_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Stream and datagram bytes sent, copies included.
    pub sent_data_bytes: u64,
    /// Stream and datagram bytes received, copies included.
    pub received_data_bytes: u64,
    /// Stream bytes received that had arrived before.
    pub duplicate_data_bytes: u64,
    /// Packets that the link lost.
    pub lost_packets: u64,
    /// Stream bytes that went to other links because this one was suspect or closed.
    pub moved_bytes: u64,
    /// Stream bytes of this link that others were given while it was not suspect, because they were late or nobody at the
    /// keys should have to wait for them: they may arrive twice.
    pub reinjected_bytes: u64,
    /// Times the link became suspect.
    pub suspects: u64,
    /// Probes sent.
    pub probes: u64,
}

/// Counters of a bond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Links that joined.
    pub links_joined: u64,
    /// Violations of the protocol, each of which ended a link.
    pub violations: u64,
    /// Stream bytes acknowledged by the peer.
    pub acked_bytes: u64,
    /// Events dropped because nobody fetched them.
    pub events_dropped: u64,
}
