//! Every bound of the engine, each with its unit and its reason.
//!
//! Nothing that arrives from outside makes the engine hold more than these allow.

use crate::time::Duration;

/// Smallest MTU a packet link may have, in bytes: a handshake message and every control frame fit.
pub const MTU_MIN_BYTES: usize = 256;
/// Largest packet, in bytes: lengths fit 16 bits, and one packet's copy stays within the L2 cache.
pub const MTU_MAX_BYTES: usize = 65_535;
/// Bytes that sealing adds behind a packet: an AEAD tag (a CRC-32C without encryption is shorter).
pub const TAG_MAX_BYTES: usize = 16;
/// Longest packet header in bytes: flags and a packet number of four bytes.
pub const HEADER_MAX_BYTES: usize = 5;

/// Links of one bond at once: the scheduler's work per packet is linear in it.
pub const LINKS_MAX: usize = 64;
/// Largest link id: 2³⁰ attachments last a bond longer than its hosts, and ids stay four-byte varints.
pub const LINK_ID_MAX: u32 = (1 << 30) - 1;
/// Bonds of one peer key at once that have links, unless the endpoint's rules say less; those without make way for a new
/// one in any case.
pub const BONDS_PER_PEER_MAX: usize = 16;
/// Links between their first byte and a finished handshake, at once, per endpoint.
pub const HALF_OPEN_LINKS_MAX: usize = 1024;
/// Time a link may take for its handshake: three round trips over a slow serial line with losses.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// First repeat of an unanswered handshake message; doubles each time.
pub const HANDSHAKE_REPEAT: Duration = Duration::from_millis(250);
/// Largest handshake message in bytes: fits the smallest MTU.
pub const HANDSHAKE_MESSAGE_MAX_BYTES: usize = MTU_MIN_BYTES;
/// Length of OPEN1 and JOIN1 in bytes, padding included: no answer is longer, so an answer never amplifies.
pub const HANDSHAKE_FIRST_MESSAGE_BYTES: usize = 192;
/// Time that an authenticated answer has to overtake a sign, which nothing authenticates, that there will be none.
pub const HANDSHAKE_GRACE: Duration = HANDSHAKE_REPEAT;
/// Bytes that a link may bring before its handshake is done: every message of one, repeated ten times and more.
pub const HANDSHAKE_LINK_MAX_BYTES: usize = 16 << 10;
/// Exchanges begun on one link before its handshake is done, failed ones included: each costs up to five X25519.
pub const HANDSHAKE_EXCHANGES_MAX: u32 = 8;
/// OPENs that an endpoint begins to answer in a second, and at once after a quiet one: at about 0.3 ms each (four
/// X25519) a flood takes a sixth of one processor. JOINs prove their bond first and need no such bound.
pub const OPENS_PER_SECOND_MAX: u32 = 512;
/// Attempts whose bonds have ended that are remembered, each for [`HANDSHAKE_TIMEOUT`]: as many as can begin in that time.
pub const ENDED_ATTEMPTS_MAX: usize = OPENS_PER_SECOND_MAX as usize * HANDSHAKE_TIMEOUT.as_secs() as usize;
/// Bytes of a pairing token: 128 bits, so that nobody guesses one.
pub const PAIRING_TOKEN_BYTES: usize = 16;
/// Time that a pairing token is valid, unless the caller says less; it cannot say more than
/// [`PAIRING_TOKEN_VALID_MAX`]. Enough to walk to the other host.
pub const PAIRING_TOKEN_VALID: Duration = Duration::from_secs(600);
/// Longest time that a pairing token can be valid.
pub const PAIRING_TOKEN_VALID_MAX: Duration = Duration::from_secs(24 * 3600);
/// Time that an expired or used token is remembered, so that who comes late is told why it is refused.
pub const PAIRING_TOKEN_REMEMBERED: Duration = Duration::from_secs(600);
/// Pairing tokens of an endpoint at once, remembered ones included: more than a person gives out in ten minutes.
pub const PAIRING_TOKENS_MAX: usize = 64;
/// Initiators in a second, and at once after a quiet one, that an endpoint lets prove a pairing token: each link of a
/// genuine pairing needs one; wrong proofs in the life of a token stay below 10 000 of 2¹²⁸.
pub const PAIRING_PROOFS_PER_SECOND_MAX: u32 = 16;
/// Bonds of all peers at once, per endpoint: bounds the table when any peer is allowed.
pub const BONDS_MAX: usize = 4096;
/// Join numbers behind the highest taken one that can still be taken; dials overtake each other by far less.
pub const JOIN_WINDOW: u32 = 1024;
/// Text of a refusal, in bytes: a short sentence, so that the message stays small.
pub const REFUSAL_TEXT_MAX_BYTES: usize = 64;
/// Longest acknowledgement delay that an end may tell (RFC 9000 section 18.2: less than 2¹⁴ ms).
pub const ACK_DELAY_TOLD_MAX: Duration = Duration::from_millis((1 << 14) - 1);

/// Least cap of a link in bytes per second: one packet of the smallest MTU each second keeps it answering.
pub const LINK_CAP_MIN_BYTES_PER_SECOND: u64 = MTU_MIN_BYTES as u64;

/// Acknowledgement ranges kept and sent for each link: more means a link so lossy that the oldest no longer matter.
pub const ACK_RANGES_MAX: usize = 64;
/// Longest time an acknowledgement is held back.
pub const ACK_DELAY_MAX: Duration = Duration::from_millis(5);
/// Packets on one link that may be unacknowledged: bounds the record of what was sent.
pub const SENT_PACKETS_MAX: usize = 16_384;

/// Streams one end may have open at once that the other opened, unless the configuration says less.
pub const STREAMS_MAX: u64 = 16_384;
/// Streams one end may ever open in a bond: the ids of more would not fit a varint.
pub const STREAM_COUNT_MAX: u64 = 1 << 61;
/// Label of a stream, in bytes: holds a host name and port, and its OPEN_STREAM still fits the smallest MTU.
pub const STREAM_LABEL_MAX_BYTES: usize = 200;
/// Smallest receive window of a stream, in bytes; half of the receive buffer is kept for these.
pub const STREAM_WINDOW_MIN_BYTES: u64 = 4096;
/// Receive window of a stream that was found too small once, in bytes, as far as there is anything to lend: a stream of
/// 4 Mbit/s goes on for 120 ms, in which a link that took its last window update with it is found out.
pub const STREAM_WINDOW_GROWN_BYTES: u64 = 64 << 10;
/// Receive buffer of a bond, in bytes: 2 Gbit/s at 100 ms, the default of [`crate::config::Config`].
pub const RECEIVE_BUFFER_BYTES: u64 = 48 << 20;
/// Most the send buffer of a bond grows to, in bytes; the default of [`crate::config::Config`].
pub const SEND_BUFFER_BYTES: u64 = 48 << 20;
/// What the buffers of all bonds of a process may hold beyond the smallest windows of their streams, in bytes, both directions
/// together: twenty bonds with all that one may have, or hundreds with eight megabytes each. With much less, those of hundreds that
/// get more of a busy processor keep it.
pub const PROCESS_BUFFER_BYTES: u64 = 2 << 30;
/// Least the send buffer of a stream holds before a writer waits, in bytes.
pub const SEND_BUFFER_MIN_BYTES: u64 = 256 << 10;
/// Separate pieces of all streams of a bond that wait for a gap to close; a sender of sane packets stays far below.
pub const ASSEMBLER_CHUNKS_MAX: usize = 65_536;

/// Largest datagram in bytes.
pub const DATAGRAM_MAX_BYTES: usize = 64 << 10;
/// Bytes of datagrams that wait for their missing fragments, per bond.
pub const DATAGRAM_REASSEMBLY_BYTES: usize = 256 << 10;
/// Age at which an incomplete or unsent datagram is dropped.
pub const DATAGRAM_AGE_MAX: Duration = Duration::from_millis(200);
/// Bytes of datagrams queued to be sent, and received but not yet taken, per bond and direction.
pub const DATAGRAM_QUEUE_BYTES: usize = 1 << 20;
/// What each queued datagram counts beyond its own bytes, so that many tiny ones are bounded too.
pub const DATAGRAM_OVERHEAD_BYTES: usize = 128;
/// Idle datagram flows whose link is remembered; a flow that is forgotten may choose another link.
pub const DATAGRAM_FLOWS_MAX: usize = 1024;
/// Ranges of datagram numbers that are remembered to tell duplicates; an older duplicate is delivered twice.
pub const DATAGRAM_SEEN_RANGES_MAX: usize = 1024;

/// Largest ordered datagram in bytes: the largest packet of IP.
pub const ORDERED_MAX_BYTES: usize = 64 << 10;
/// Flows of ordered datagrams, the lowest, for which links keep their queues short. There are 256 in all: few enough that both
/// ends keep the numbers of each for as long as the bond lives, and enough that two busy ones seldom share one.
pub const ORDERED_PROMPT_FLOWS: u8 = 32;
/// Bytes that a flow of ordered datagrams sends before others have their turn: a full packet of Ethernet.
pub const ORDERED_QUANTUM_BYTES: usize = 1514;
/// Ordered datagrams that may wait to be sent, by the time the links need for them. A connection inside fills this; less would keep
/// it from filling links that differ in delay, and what is more only delays it. Others do not wait for it, since flows take turns.
pub const ORDERED_QUEUE_TIME: Duration = Duration::from_millis(100);
/// Bytes of ordered datagrams that may wait in any case: a window with which connections begin, ten packets.
pub const ORDERED_QUEUE_MIN_BYTES: usize = 16 << 10;
/// Most bytes of ordered datagrams that wait to be sent: 300 Mbit/s for that time.
pub const ORDERED_QUEUE_MAX_BYTES: usize = 4 << 20;
/// Age at which an unsent ordered datagram is dropped, and time after its last fragment at which an incomplete one is: a line of
/// 9600 baud needs more than a second for one of 1280 bytes.
pub const ORDERED_AGE_MAX: Duration = Duration::from_secs(2);
/// Time for which ordered datagrams are held for an earlier one: less than the shortest time-out of a TCP inside (200 ms on Linux).
pub const ORDERED_HOLD_TIME: Duration = Duration::from_millis(100);
/// By how much a link may deliver later than the first one to carry ordered datagrams: half of the time for which they are held,
/// since estimates err.
pub const ORDERED_SPREAD_MAX: Duration = Duration::from_millis(50);
/// Bytes of ordered datagrams that a link of unknown rate is given so that its rate shows, in windows that double: the fifth of them.
/// A line that turns out to be slow delivers them late, once.
pub const ORDERED_TRIAL_BYTES: u64 = 64 << 10;
/// Bytes of ordered datagrams held for earlier ones, per bond: 300 Mbit/s for that time.
pub const ORDERED_HOLD_BYTES: usize = 4 << 20;
/// Bytes of ordered datagrams received but not yet taken, per bond.
pub const ORDERED_UNREAD_BYTES: usize = 4 << 20;

/// Packets sealed with one key before the next key phase (design margin far below the AEAD's limits).
pub const KEY_PHASE_PACKETS: u64 = 1 << 22;

/// Time without any link after which a bond gives up.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Time without traffic after which a link is probed.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Shortest silence that makes a link suspect: below it, scheduling noise of a busy host would.
pub const SUSPECT_MIN: Duration = Duration::from_millis(20);
/// Round trip assumed before the first sample, as RFC 9002 section 6.2.2 has it, in milliseconds lowered to
/// what a cable or a metropolitan path shows.
pub const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Most that the queue of a link adds to the silence it is allowed: an estimated rate far too low, as after a host
/// that stood still, must not keep a dead link's data for minutes.
pub const SILENCE_QUEUE_MAX: Duration = Duration::from_secs(5);
/// Longest time between two probes of a suspect link.
pub const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(2);
/// Packets in flight at the start on a link without a rate hint, in bytes (RFC 6928: ten segments).
pub const INITIAL_WINDOW_BYTES: u64 = 10 * 1200;

/// Pieces of interactive data that wait for a second link to send them, too; the oldest go first. More than a person at
/// the keys makes in a round trip.
pub const COPIES_MAX: usize = 64;

/// Longest reason text of a CLOSE, in bytes.
pub const CLOSE_REASON_MAX_BYTES: usize = 128;
/// Events kept for a caller that does not fetch them; the oldest go first.
pub const EVENTS_MAX: usize = 4096;
