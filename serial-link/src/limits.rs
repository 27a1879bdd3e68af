//! Every bound of serial links, with its unit and its reason.

use std::time::Duration;

/// Rate at which both ends begin unless told otherwise: every port and almost every boot loader has it.
pub const BAUD_START: u32 = 115_200;
/// Highest rate that is tried unless told otherwise: what common adapters do.
pub const BAUD_MAX: u32 = 3_000_000;
/// Lowest and highest rate that can be asked for.
pub const BAUD_RANGE: std::ops::RangeInclusive<u32> = 1200..=24_000_000;
/// Rates that are climbed through, one after another.
pub const LADDER: [u32; 11] = [
    57_600, 115_200, 230_400, 460_800, 921_600, 1_500_000, 2_000_000, 3_000_000, 4_000_000, 6_000_000,
    12_000_000,
];

/// Time on the line that may be queued in the port before the next packet is decided upon: more than a busy host's
/// wake-ups take, so that the line never runs dry.
pub const QUEUE: Duration = Duration::from_millis(15);
/// Time for the last bytes in an adapter's own buffer to leave, which no driver tells of.
pub const DRAIN_GUARD: Duration = Duration::from_millis(20);
/// Time without a byte to send after which the next begins with a delimiter.
pub const IDLE: Duration = Duration::from_millis(5);
/// Bytes of own frames that may wait for the port before no more are made.
pub const OUTGOING_MAX_BYTES: usize = 4096;
/// Bytes of packets that the other end may have sent and nobody has taken yet.
pub const RECEIVE_BUFFER_BYTES: u32 = 32 << 10;

/// Time in which a dialer must be heard by the other end.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for a dial, with all steps of the climb.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(8);
/// Time for the first climb, at either end: after that the link is used as it is.
pub const CLIMB_TIMEOUT: Duration = Duration::from_secs(4);
/// Time that the last frame of a link may take to leave before its port is closed.
pub const LINGER: Duration = Duration::from_millis(500);
/// How often a port that is not there is looked for.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How often a proposal is repeated, and how long.
pub const PROPOSE_INTERVAL: Duration = Duration::from_millis(100);
/// Time after which a proposal that nobody answered is dropped.
pub const PROPOSE_TIMEOUT: Duration = Duration::from_millis(1200);
/// Time for both ends to have changed their rate before the first challenge.
pub const SETTLE: Duration = Duration::from_millis(30);
/// How often challenges that were not echoed are sent again.
pub const CHALLENGE_INTERVAL: Duration = Duration::from_millis(80);
/// Time in which all challenges must have been echoed.
pub const CHALLENGE_TIMEOUT: Duration = Duration::from_millis(500);
/// Challenges for each rate: about 400 bytes each way.
pub const CHALLENGES: u8 = 8;
/// Time that the end which follows waits at a new rate for a sign of life. Shorter than the other's
/// [`PROPOSE_TIMEOUT`], so that it hears the next proposal at the old rate.
pub const FOLLOW_TIMEOUT: Duration = Duration::from_millis(700);
/// Time that the leader gives the other end to come back to the old rate: [`FOLLOW_TIMEOUT`] and what it needs to drain.
pub const RETURN: Duration = Duration::from_millis(800);
/// How often the end of a change is confirmed, and how long.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(50);
/// Time after which an unconfirmed change counts as done.
pub const COMMIT_TIMEOUT: Duration = Duration::from_millis(600);
/// Silence at a rate other than the first after which the peer is asked for a sign of life.
pub const PING_AFTER: Duration = Duration::from_millis(700);
/// Time between two such questions.
pub const PING_INTERVAL: Duration = Duration::from_millis(250);
/// Silence after which an end goes back to the first rate. Both do, so they meet there; well below the four seconds after
/// which the frame layer gives the peer up.
pub const LOST_AFTER: Duration = Duration::from_millis(1600);
/// First wait before a rate that failed is tried again; doubles each time.
pub const RETRY_MIN: Duration = Duration::from_secs(30);
/// Longest such wait.
pub const RETRY_MAX: Duration = Duration::from_secs(900);
/// Over such a time the share of damaged frames is judged.
pub const NOISE_WINDOW: Duration = Duration::from_millis(500);
/// Damaged frames below which a window says nothing.
pub const NOISE_MIN_FRAMES: u64 = 5;
