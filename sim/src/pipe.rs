//! One direction of a cable: a queue that drains at a rate, then a delay, always in order.

use bondwire_core::time::{Duration, Instant};
use std::collections::VecDeque;

/// One attachment of a cable to two ends; a plugged-in cable may see several, one after another or side by side.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SessionId(pub(crate) u32);

/// What travels.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) session: SessionId,
    pub(crate) load: Load,
}

/// The contents of a [`Parcel`].
#[derive(Clone, Debug)]
pub(crate) enum Load {
    Packet(Vec<u8>),
    /// The sender closed its end after what it sent before.
    End,
}

impl Parcel {
    fn len(&self) -> usize {
        match &self.load {
            Load::Packet(packet) => packet.len(),
            Load::End => 1,
        }
    }
}

/// One direction of a cable.
#[derive(Debug)]
pub(crate) struct Pipe {
    rate_bytes_per_second: u64,
    delay: Duration,
    queue_bytes_max: usize,
    /// Nothing leaves the queue, as behind a path that a retransmitting medium waits for.
    frozen: bool,
    queue: VecDeque<Parcel>,
    queued_bytes: usize,
    /// The parcel at the head of the queue is on its way into the cable.
    serving: bool,
    flight: VecDeque<(Instant, Parcel)>,
    last_arrival: Instant,
}

impl Pipe {
    pub(crate) fn new(rate_bytes_per_second: u64, delay: Duration, queue_bytes_max: usize) -> Self {
        Self {
            rate_bytes_per_second: rate_bytes_per_second.max(1),
            delay,
            queue_bytes_max,
            frozen: false,
            queue: VecDeque::new(),
            queued_bytes: 0,
            serving: false,
            flight: VecDeque::new(),
            last_arrival: Instant::ZERO,
        }
    }

    /// True if a sender may put another packet in. One may always be on its way, whatever the bound.
    pub(crate) fn has_room(&self) -> bool {
        self.queued_bytes < self.queue_bytes_max
    }

    /// Puts a parcel in. The answer is when the pipe wants [`Pipe::serve`], unless it was already busy.
    #[must_use]
    pub(crate) fn push(&mut self, now: Instant, parcel: Parcel) -> Option<Instant> {
        self.queued_bytes += parcel.len();
        self.queue.push_back(parcel);
        self.start(now)
    }

    /// The parcel that has left the queue, and when to serve the next.
    pub(crate) fn serve(&mut self, now: Instant) -> (Option<Parcel>, Option<Instant>) {
        self.serving = false;
        let parcel = self.queue.pop_front();
        self.queued_bytes -= parcel.as_ref().map_or(0, Parcel::len);
        (parcel, self.start(now))
    }

    /// Sends a parcel over the wire; it arrives at the given time, never before an earlier one.
    pub(crate) fn launch(&mut self, now: Instant, extra: Duration, parcel: Parcel) -> Instant {
        let arrival = (now + self.delay + extra).max(self.last_arrival);
        self.last_arrival = arrival;
        self.flight.push_back((arrival, parcel));
        arrival
    }

    /// The parcel that arrives now.
    pub(crate) fn arrive(&mut self) -> Option<Parcel> {
        self.flight.pop_front().map(|(_, parcel)| parcel)
    }

    pub(crate) fn set_rate(&mut self, rate_bytes_per_second: u64) {
        self.rate_bytes_per_second = rate_bytes_per_second.max(1);
    }

    /// Stops or restarts the queue; the answer is when to serve.
    #[must_use]
    pub(crate) fn set_frozen(&mut self, now: Instant, frozen: bool) -> Option<Instant> {
        self.frozen = frozen;
        self.start(now)
    }

    /// Forgets what a session still has in the queue, as when its device is pulled out. The head stays if it is on
    /// its way: its time is spent, and the session's end drops it on arrival.
    pub(crate) fn discard(&mut self, session: SessionId) {
        let keep_head = usize::from(self.serving);
        let mut index = 0;
        self.queue.retain(|parcel| {
            index += 1;
            index <= keep_head || parcel.session != session
        });
        self.queued_bytes = self.queue.iter().map(Parcel::len).sum();
    }

    fn start(&mut self, now: Instant) -> Option<Instant> {
        if self.serving || self.frozen {
            return None;
        }
        let bytes = self.queue.front()?.len() as u64;
        self.serving = true;
        Some(now + Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / self.rate_bytes_per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(len: usize) -> Parcel {
        Parcel { session: SessionId(0), load: Load::Packet(vec![0; len]) }
    }

    #[test]
    fn rate_delay_and_order() {
        let mut pipe = Pipe::new(1_000_000, Duration::from_millis(3), 1500);
        let start = Instant::ZERO;
        let served = pipe.push(start, packet(1000)).unwrap();
        assert_eq!(served, start + Duration::from_millis(1));
        assert_eq!(pipe.push(start, packet(500)), None);
        assert!(!pipe.has_room());
        let (first, next) = pipe.serve(served);
        assert!(pipe.has_room());
        assert_eq!(next, Some(served + Duration::from_micros(500)));
        let late = pipe.launch(served, Duration::from_millis(9), first.unwrap());
        assert_eq!(late, served + Duration::from_millis(12));
        let (second, none) = pipe.serve(next.unwrap());
        assert_eq!(none, None);
        assert_eq!(pipe.launch(next.unwrap(), Duration::ZERO, second.unwrap()), late, "never overtakes");
    }

    #[test]
    fn frozen_holds_and_discard_forgets() {
        let mut pipe = Pipe::new(1_000_000, Duration::ZERO, 1500);
        assert_eq!(pipe.set_frozen(Instant::ZERO, true), None);
        assert_eq!(pipe.push(Instant::ZERO, packet(1000)), None);
        let thaw = Instant::from_nanos(7);
        assert_eq!(pipe.set_frozen(thaw, false), Some(thaw + Duration::from_millis(1)));
        assert_eq!(pipe.push(thaw, packet(10)), None);
        pipe.discard(SessionId(0));
        assert_eq!(pipe.queued_bytes, 1000, "the head is on its way");
    }
}
