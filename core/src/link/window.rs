//! How many bytes a link may have in flight, and how large its packets are.
//!
//! Judged by acknowledgements of the peer's engine alone: sockets, USB queues and ttys hide buffers.

use super::rate::{Growth, bytes_in, bytes_per_second, transmit_time};
use super::rtt::{Rtt, UNQUEUED_SHARE};
use crate::limits;
use crate::time::Duration;

/// At microsecond round trips the hosts' wake-ups, not the link, decide: keep at least this much time in flight.
const FLOOR: Duration = Duration::from_millis(5);
/// The same while latency matters.
const FLOOR_INTERACTIVE: Duration = Duration::from_millis(1);
/// Time one packet may occupy the link.
const PACKET_TIME: Duration = Duration::from_millis(2);
const PACKET_TIME_INTERACTIVE: Duration = Duration::from_millis(1);
/// Time one packet may occupy a link so slow that smaller packets would waste it on overhead.
const PACKET_TIME_SLOW: Duration = Duration::from_millis(30);
/// Size below which overhead counts: what an Ethernet frame carries.
const PACKET_SMALL_BYTES: u64 = 1200;

/// Beyond twice the base round trip, the time that packets of a link in search may wait: a longer queue says that the link
/// carries no more. Rounds that bring nothing new say so, too, but on a slow line each of them lasts as long as its queue.
const SEARCH_QUEUE_MAX: Duration = Duration::from_millis(100);

/// Packets that an unknown link may have in flight while others carry the bond: if it is slow, few bytes wait for it.
const PROBATION_PACKETS: u64 = 2;

#[derive(Clone, Debug)]
pub(crate) struct Window {
    phase: Phase,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Doubles each round trip until the rate stops growing.
    Startup {
        window: u64,
        first: u64,
    },
    Steady,
}

/// What decides the window besides its own state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    /// Estimated rate in bytes per second.
    pub(crate) rate: Option<u64>,
    /// The medium retransmits and queues by itself.
    pub(crate) reliable: bool,
    /// An interactive stream was active lately.
    pub(crate) interactive: bool,
    /// By how much acknowledgements come later than their way takes.
    pub(crate) way_back: Duration,
    /// Nothing is known of the link, and others carry the bond meanwhile: it proves itself with little.
    pub(crate) on_probation: bool,
    /// Largest packet in bytes.
    pub(crate) mtu: u64,
}

impl Window {
    /// Starts from what the medium is known to move, or from ten segments; twice as many where the medium has a window of
    /// its own, so that its own start decides. Were it held back, it would never learn what its path carries.
    pub(crate) fn new(rate_hint: Option<u64>, reliable: bool, rtt: &Rtt) -> Self {
        let hinted = rate_hint.map_or(0, |rate| bytes_in(rate, rtt.base().max(FLOOR)));
        let unknown = limits::INITIAL_WINDOW_BYTES * if reliable && rate_hint.is_none() { 2 } else { 1 };
        let window = hinted.max(unknown);
        Self { phase: Phase::Startup { window, first: window } }
    }

    /// Whether what is in flight would fill the window of a link with a known rate. A link that is refused data in favour
    /// of faster ones is limited by the application all the time; if it was full nevertheless, its rate is as good as
    /// another's.
    pub(crate) fn is_filled_by(&self, bytes: u64, rtt: &Rtt, c: Conditions) -> bool {
        self.steady(rtt, c).is_some_and(|steady| bytes >= steady)
    }

    /// Whether packets that are acknowledged after `age` waited longer than a search may make them, behind `bytes` of the link's
    /// own. Not so if a busy host made them wait: on a line that slow, no packet ever came back as soon as one did. Such a
    /// queue does harm beside a link only that is much faster: the caller asks for one that is.
    pub(crate) fn is_queue(age: Duration, bytes: u64, rate: Option<u64>, rtt: &Rtt) -> bool {
        rate.is_some_and(|rate| {
            age > rtt.base() * 2 + SEARCH_QUEUE_MAX
                && transmit_time(bytes, rate) > SEARCH_QUEUE_MAX
                && transmit_time(limits::HANDSHAKE_FIRST_MESSAGE_BYTES as u64, rate) <= rtt.base() * 2
        })
    }

    /// An acknowledgement of `acked` bytes came for a link that was full, and `in_flight` bytes remain; with `is_queued` they
    /// waited too long ([`Self::is_queue`]).
    pub(crate) fn on_ack(&mut self, acked: u64, in_flight: u64, growth: &Growth, is_queued: bool) {
        let Phase::Startup { window, .. } = &mut self.phase else { return };
        // What is not used need not grow.
        if in_flight.saturating_add(acked) >= *window / 2 {
            *window = window.saturating_add(acked);
        }
        if growth.is_over() || is_queued {
            self.phase = Phase::Steady;
        }
    }

    /// Bytes that may be in flight.
    pub(crate) fn limit(&self, rtt: &Rtt, c: Conditions) -> u64 {
        let packet = self.packet_bytes(c);
        let limit = match (&self.phase, self.steady(rtt, c)) {
            (&Phase::Startup { window, first }, _) => window.min(Self::search_limit(first, rtt, c)),
            (Phase::Steady, Some(steady)) => steady,
            (Phase::Steady, None) => limits::INITIAL_WINDOW_BYTES,
        };
        let limit = if c.on_probation { limit.min(PROBATION_PACKETS * PACKET_SMALL_BYTES) } else { limit };
        let limit = if rtt.is_refreshing() { limit / 2 } else { limit };
        limit.max(2 * packet.min(PACKET_SMALL_BYTES))
    }

    /// What a search may have in flight. Beside interactive data that is twice what the rate found so far fills the way with:
    /// enough for the rate to double each round trip, and no more of a queue than one of those.
    fn search_limit(first: u64, rtt: &Rtt, c: Conditions) -> u64 {
        match c.rate {
            Some(rate) if c.interactive => bytes_in(rate, (rtt.base() + c.way_back) * 2).max(first),
            _ => u64::MAX,
        }
    }

    /// The rate of a link that was found to carry `rate`. While it searches that is only what was tried: if the round trip
    /// did not lengthen, several times as much would have come through. Else a link that began with a few packets on
    /// a long way would be taken for a slow one, be given little for that reason, and so stay one.
    pub(crate) fn rate_expected(&self, rate: u64, rtt: &Rtt) -> u64 {
        match self.phase {
            Phase::Startup { window, .. } if rtt.is_unqueued() => {
                let tried_next = bytes_per_second(window, rtt.base());
                rate.saturating_mul(UNQUEUED_SHARE.into()).min(tried_next).max(rate)
            }
            _ => rate,
        }
    }

    /// The rate, in bytes per second, that the link may have found two round trips from now: 0 if it does not search.
    pub(crate) fn rate_soon(&self, rtt: &Rtt) -> u64 {
        match self.phase {
            Phase::Startup { window, .. } => bytes_per_second(window.saturating_mul(2), rtt.base()),
            Phase::Steady => 0,
        }
    }

    /// What the estimated rate and round trip allow.
    fn steady(&self, rtt: &Rtt, c: Conditions) -> Option<u64> {
        let rate = c.rate?;
        let (in_transit, floor, packets) = if c.reliable && !c.interactive {
            (bytes_in(rate, rtt.base() * 3), FLOOR, 2)
        } else {
            // Every second packet is acknowledged: while one waits for that, another must be on its way. Where a packet takes
            // as long as the whole round trip, as on a serial line, one alone would leave the line idle between them.
            let packets = if c.interactive { 1 } else { 2 };
            // What waits on the way back no longer fills the link. Were it counted, traffic the other way would slow this one
            // down, the rate found would fall, and with it what may be in flight.
            (bytes_in(rate, rtt.base() + rtt.base() / 10 + c.way_back), FLOOR_INTERACTIVE, packets)
        };
        Some(in_transit.max(bytes_in(rate, floor)).saturating_add(packets * self.packet_bytes(c)))
    }

    /// Largest packet to make now, in bytes.
    pub(crate) fn packet_bytes(&self, c: Conditions) -> u64 {
        let bytes = match (c.rate, &self.phase) {
            (None, Phase::Startup { window, .. }) if !c.on_probation => (window / 4).max(PACKET_SMALL_BYTES),
            (None, _) => PACKET_SMALL_BYTES,
            (Some(rate), _) => {
                let time = if c.interactive { PACKET_TIME_INTERACTIVE } else { PACKET_TIME };
                let efficient = PACKET_SMALL_BYTES.min(bytes_in(rate, PACKET_TIME_SLOW));
                bytes_in(rate, time).max(efficient)
            }
        };
        bytes.max(limits::MTU_MIN_BYTES as u64).min(c.mtu)
    }

    /// Whether the link still searches for its rate.
    #[cfg(test)]
    pub(crate) fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Startup { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    const CALM: Conditions = Conditions {
        rate: None,
        reliable: true,
        interactive: false,
        way_back: Duration::ZERO,
        on_probation: false,
        mtu: 65_535,
    };

    const MS: Duration = Duration::from_millis(1);

    fn rtt_ms(ms: u64) -> Rtt {
        Rtt::new(Instant::ZERO, Some(Duration::from_millis(ms)))
    }

    #[test]
    fn doubles_until_the_rate_is_flat() {
        let rtt = rtt_ms(20);
        let mut window = Window::new(None, false, &rtt);
        let mut growth = Growth::default();
        let mut rate = 100_000;
        for _ in 0..5 {
            let before = window.limit(&rtt, CALM);
            growth.on_round(rate, true);
            window.on_ack(before, 0, &growth, false);
            assert_eq!(window.limit(&rtt, CALM), 2 * before);
            rate *= 2;
        }
        for _ in 0..3 {
            growth.on_round(rate, true);
            window.on_ack(1, 0, &growth, false);
        }
        assert!(window.is_starting(), "one round of growth and two without may be chance");
        growth.on_round(rate, true);
        window.on_ack(1, 0, &growth, false);
        assert!(!window.is_starting());
        let limit = window.limit(&rtt, Conditions { rate: Some(rate), ..CALM });
        assert_eq!(limit, 3 * bytes_in(rate, Duration::from_millis(20)) + 2 * bytes_in(rate, PACKET_TIME));
    }

    #[test]
    fn a_long_queue_ends_the_search() {
        let rtt = rtt_ms(20);
        let mut window = Window::new(None, true, &rtt);
        let slow = Conditions { rate: Some(11_500), ..CALM };
        for (age_ms, is_queue) in [(140, false), (141, true)] {
            assert!(window.is_starting());
            assert_eq!(Window::is_queue(MS * age_ms, 1200, slow.rate, &rtt), is_queue);
            window.on_ack(1200, 20_000, &Growth::default(), is_queue);
        }
        assert!(!window.is_starting());
        assert!(window.limit(&rtt, slow) < 2400, "{}", window.limit(&rtt, slow));
        assert!(!Window::is_queue(MS * 900, 1200, Some(1_000_000), &rtt), "it holds little");
        assert!(!Window::is_queue(MS * 900, 1200, slow.rate, &rtt_ms(5)), "the host was busy");
    }

    #[test]
    fn a_search_beside_interactive_data_queues_one_round_trip_at_most() {
        let rtt = rtt_ms(20);
        let mut window = Window::new(None, true, &rtt);
        window.on_ack(1 << 20, 0, &Growth::default(), false);
        let c = Conditions { rate: Some(5_000_000), ..CALM };
        assert!(window.limit(&rtt, c) > 1 << 20);
        let interactive = Conditions { interactive: true, ..c };
        assert_eq!(window.limit(&rtt, interactive), bytes_in(5_000_000, MS * 40));
        let back = Conditions { way_back: MS * 5, ..interactive };
        assert_eq!(window.limit(&rtt, back), bytes_in(5_000_000, MS * 50));
        let first = window.limit(&rtt, Conditions { rate: Some(1000), ..interactive });
        assert_eq!(first, 2 * limits::INITIAL_WINDOW_BYTES, "what it began with");
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let mut window = Window::new(None, false, &rtt_ms(20));
        window.on_ack(100, 200, &Growth::default(), false);
        assert_eq!(window.limit(&rtt_ms(20), CALM), limits::INITIAL_WINDOW_BYTES);
    }

    #[test]
    fn a_medium_with_a_window_of_its_own_is_not_held_back() {
        let rtt = rtt_ms(20);
        let window = |hint, reliable| Window::new(hint, reliable, &rtt).limit(&rtt, CALM);
        assert_eq!(window(None, true), 2 * limits::INITIAL_WINDOW_BYTES);
        assert_eq!(window(Some(1000), true), limits::INITIAL_WINDOW_BYTES, "its rate is known");
    }

    #[test]
    fn a_round_trip_that_does_not_lengthen_tells_of_more() {
        let mut rtt = rtt_ms(200);
        let mut window = Window::new(None, false, &rtt);
        let tried = 2400 * 5;
        assert_eq!(window.rate_expected(tried, &rtt), 5 * limits::INITIAL_WINDOW_BYTES, "what is tried next");
        window.on_ack(limits::INITIAL_WINDOW_BYTES * 9, 0, &Growth::default(), false);
        assert_eq!(window.rate_expected(tried, &rtt), 8 * tried, "what the bytes in flight can tell of");
        rtt.on_sample(Instant::ZERO, Duration::from_millis(600), Duration::ZERO);
        assert_eq!(window.rate_expected(tried, &rtt), tried, "they queue");
        let steady = Window { phase: Phase::Steady };
        assert_eq!(steady.rate_expected(tried, &rtt_ms(200)), tried);
    }

    #[test]
    fn a_search_tells_what_it_may_find() {
        let rtt = rtt_ms(100);
        let window = Window::new(None, false, &rtt);
        assert_eq!(window.rate_soon(&rtt), 2 * 10 * limits::INITIAL_WINDOW_BYTES);
        assert_eq!(Window { phase: Phase::Steady }.rate_soon(&rtt), 0);
    }

    #[test]
    fn a_link_that_is_never_filled_is_bounded_by_its_rate() {
        let rtt = rtt_ms(10);
        let slow = Conditions { rate: Some(11_500), ..CALM };
        let mut window = Window::new(None, false, &rtt);
        assert!(window.is_filled_by(2400, &rtt, slow), "as full as a link with this rate can be");
        assert!(!window.is_filled_by(2400, &rtt, CALM), "nothing is known");
        let mut growth = Growth::default();
        for _ in 0..4 {
            growth.on_round(11_500, true);
            window.on_ack(1200, 1200, &growth, false);
        }
        assert!(!window.is_starting());
        assert!(window.limit(&rtt, slow) < 2400, "{}", window.limit(&rtt, slow));
        let window = Window::new(None, false, &rtt);
        let unknown = Conditions { on_probation: true, ..CALM };
        assert_eq!(window.limit(&rtt, unknown), 2400);
        assert_eq!(window.packet_bytes(unknown), 1200);
    }

    #[test]
    fn a_serial_line_gets_packets_of_at_most_30_ms() {
        let window = Window::new(Some(11_520), false, &rtt_ms(50));
        let size = window.packet_bytes(Conditions { rate: Some(11_520), reliable: false, ..CALM });
        assert_eq!(size, 345);
        let fast = window.packet_bytes(Conditions { rate: Some(1 << 30), ..CALM });
        assert_eq!(fast, 65_535);
        let tiny_mtu = window.packet_bytes(Conditions { rate: Some(1 << 30), mtu: 640, ..CALM });
        assert_eq!(tiny_mtu, 640);
    }

    #[test]
    fn a_serial_line_holds_two_packets_beyond_its_round_trip() {
        let rtt = rtt_ms(10);
        let window = Window { phase: Phase::Steady };
        let serial = Conditions { rate: Some(92_160), reliable: false, mtu: 631, ..CALM };
        assert_eq!(window.limit(&rtt, serial), bytes_in(92_160, Duration::from_millis(11)) + 2 * 631);
        let interactive = window.limit(&rtt, Conditions { interactive: true, ..serial });
        assert_eq!(interactive, window.limit(&rtt, serial) - 631);
    }

    #[test]
    fn a_refresh_of_the_base_halves_the_window() {
        let mut rtt = rtt_ms(20);
        let window = Window { phase: Phase::Steady };
        let c = Conditions { rate: Some(10_000_000), ..CALM };
        let whole = window.limit(&rtt, c);
        rtt.begin_refresh(Instant::ZERO);
        assert_eq!(window.limit(&rtt, c), whole / 2);
    }

    #[test]
    fn interactive_traffic_keeps_queues_short() {
        let rtt = rtt_ms(20);
        let window = Window { phase: Phase::Steady };
        let c = Conditions { rate: Some(10_000_000), ..CALM };
        let busy = window.limit(&rtt, Conditions { interactive: true, ..c });
        assert!(busy < window.limit(&rtt, c) * 6 / 10);
        assert!(busy >= bytes_in(10_000_000, rtt.base()));
    }
}
