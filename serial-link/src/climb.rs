//! The baud rate that both ends use: agreed step by step, tested with challenges, and left when it turns out bad.
//!
//! The dialer leads. It proposes a rate; the other end answers, both change, and challenges must come back unharmed. Whatever
//! goes wrong, an end that hears nothing goes back to the first rate, and so does the other: they meet there. PROTOCOL.md,
//! section 12.7, has the messages.

mod message;

use std::collections::VecDeque;

use bondwire_frame::{Duration, Instant, Role};

use crate::limits::{
    CHALLENGE_INTERVAL, CHALLENGE_TIMEOUT, CHALLENGES, COMMIT_INTERVAL, COMMIT_TIMEOUT, FOLLOW_TIMEOUT,
    LADDER, LOST_AFTER, PING_AFTER, PING_INTERVAL, PROPOSE_INTERVAL, PROPOSE_TIMEOUT, RETRY_MAX, RETRY_MIN,
    RETURN, SETTLE,
};
pub(crate) use message::Message;

/// Proposals without an answer after which packets flow again.
const PROPOSALS_HELD: u8 = 3;
/// Messages that may wait to be sent.
const OUTBOX_MAX: usize = 2 * CHALLENGES as usize;

/// One end's part in the choice of the rate.
#[derive(Clone, Debug)]
pub(crate) struct Climb {
    leads: bool,
    /// The rate at which both ends begin and meet again.
    start: u32,
    max: u32,
    /// The rate of the port.
    rate: u32,
    /// The rate that both ends are known to have used, to go back to.
    base: u32,
    state: State,
    /// Number of the change under way.
    id: u8,
    outbox: VecDeque<Message>,
    /// Rates from here on have failed, until it is time to try again.
    ceiling: Option<u32>,
    retry_at: Option<Instant>,
    retry_wait: Duration,
    last_heard: Instant,
    ping_at: Option<Instant>,
    /// The climb is over for now.
    settled: bool,
    seed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Steady,
    /// The leader asks for another rate.
    Proposing {
        rate: u32,
        asked: u8,
        resend_at: Instant,
        give_up_at: Instant,
    },
    /// Everything sent must have left before the port changes to this rate.
    Leaving {
        rate: u32,
        then: Then,
    },
    /// The leader challenges the other end at the new rate; a bit for each echo.
    Testing {
        echoed: u8,
        resend_at: Instant,
        give_up_at: Instant,
    },
    /// The challenges were passed, and the other end is told.
    Committing {
        resend_at: Instant,
        give_up_at: Instant,
    },
    /// Back at the old rate, the leader lets the other end come back too.
    Returning {
        until: Instant,
    },
    /// The other end waits for challenges.
    Following {
        give_up_at: Instant,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Test,
    Return,
    Follow,
    /// Back to the first rate after silence.
    Meet,
}

impl Climb {
    /// At rate `start`, never above `max`. With both the same there is nothing to climb. The challenges follow from `seed`.
    pub(crate) fn new(now: Instant, role: Role, start: u32, max: u32, seed: u64) -> Self {
        Self {
            leads: role == Role::Dialer,
            start,
            max: max.max(start),
            rate: start,
            base: start,
            state: State::Steady,
            id: 0,
            outbox: VecDeque::new(),
            ceiling: None,
            retry_at: None,
            retry_wait: RETRY_MIN,
            last_heard: now,
            ping_at: None,
            settled: false,
            seed,
        }
    }

    /// The session is established: now the leader may climb.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.last_heard = now;
        self.go_on(now);
    }

    /// The rate of the port.
    pub(crate) fn rate(&self) -> u32 {
        self.rate
    }

    /// Whether the first climb is over, as far as this end knows.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether packets must wait: they could be lost in the change.
    pub(crate) fn holds_packets(&self) -> bool {
        match self.state {
            State::Steady | State::Committing { .. } => false,
            // Who has not answered by then may have no such messages.
            State::Proposing { asked, .. } => asked <= PROPOSALS_HELD,
            _ => true,
        }
    }

    /// The rate to change to as soon as everything sent has left. Until then nothing more may be sent.
    pub(crate) fn leaving_for(&self) -> Option<u32> {
        match self.state {
            State::Leaving { rate, .. } => Some(rate),
            _ => None,
        }
    }

    /// The next message to send, if there is one.
    pub(crate) fn poll_message(&mut self) -> Option<Message> {
        self.outbox.pop_front()
    }

    fn say(&mut self, message: Message) {
        if self.outbox.len() < OUTBOX_MAX {
            self.outbox.push_back(message);
        }
    }

    /// Steady at some rate: what next? The leader climbs while there is a higher rate that has not failed.
    fn go_on(&mut self, now: Instant) {
        self.state = State::Steady;
        if !self.leads || self.settled {
            return;
        }
        match self.next_rate() {
            Some(rate) => self.propose(now, rate),
            None => self.settle(now),
        }
    }

    fn settle(&mut self, now: Instant) {
        self.settled = true;
        self.say(Message::Done { rate: self.rate });
        if self.ceiling.is_some() && self.retry_at.is_none() {
            self.retry_at = Some(now + self.retry_wait);
            self.retry_wait = (self.retry_wait * 2).min(RETRY_MAX);
        }
    }

    /// The next step up, if there is one.
    fn next_rate(&self) -> Option<u32> {
        let fits =
            |rate: &u32| *rate > self.rate && *rate <= self.max && self.ceiling.is_none_or(|c| *rate < c);
        // The highest allowed rate need not be a step of the ladder.
        LADDER.into_iter().chain([self.max]).filter(fits).min()
    }

    /// The next step down; the first rate is the lowest.
    fn lower_rate(&self) -> u32 {
        let fits = |rate: &u32| *rate < self.rate && *rate > self.start;
        LADDER.into_iter().filter(fits).max().unwrap_or(self.start)
    }

    fn propose(&mut self, now: Instant, rate: u32) {
        self.id = self.id.wrapping_add(1);
        self.say(Message::Switch { id: self.id, rate });
        self.state = State::Proposing {
            rate,
            asked: 1,
            resend_at: now + PROPOSE_INTERVAL,
            give_up_at: now + PROPOSE_TIMEOUT,
        };
    }

    /// A rate has failed: nothing from there on is tried for a while.
    fn failed(&mut self, rate: u32) {
        self.ceiling = Some(self.ceiling.map_or(rate, |ceiling| ceiling.min(rate)).max(self.start + 1));
        self.retry_at = None;
        self.settled = false;
    }

    /// A good frame came, of whatever type.
    pub(crate) fn on_heard(&mut self, now: Instant) {
        self.last_heard = now;
        self.ping_at = None;
        if let State::Following { give_up_at } = &mut self.state {
            *give_up_at = now + FOLLOW_TIMEOUT;
        }
    }

    /// A packet came. The leader sends none before it has confirmed a rate.
    pub(crate) fn on_packet(&mut self) {
        if matches!(self.state, State::Following { .. }) {
            self.followed();
        }
        self.settled |= !self.leads;
    }

    fn followed(&mut self) {
        self.base = self.rate;
        self.state = State::Steady;
    }

    /// Too many frames arrive damaged.
    pub(crate) fn on_noise(&mut self, now: Instant) {
        if self.state != State::Steady || self.rate <= self.start {
            return;
        }
        if self.leads {
            self.failed(self.rate);
            self.propose(now, self.lower_rate());
        } else {
            self.say(Message::Slower { rate: self.rate });
        }
    }

    /// A message of the other end. What is malformed or out of place is ignored.
    pub(crate) fn on_message(&mut self, now: Instant, message: &[u8]) {
        let Some(message) = Message::read(message) else { return };
        match message {
            Message::Ping => self.say(Message::Pong),
            Message::Pong => {}
            Message::Switch { .. }
            | Message::Challenge { .. }
            | Message::Commit { .. }
            | Message::Done { .. }
                if self.leads => {}
            Message::Switch { id, rate } => self.follow(id, rate),
            Message::Challenge { id, index, bytes } if self.is_following(id) => {
                self.say(Message::Echo { id, index, bytes });
            }
            Message::Commit { id } if id == self.id => {
                if self.is_following(id) {
                    self.followed();
                }
                if self.state == State::Steady {
                    self.say(Message::Committed { id });
                }
            }
            Message::Done { rate } => self.settled |= rate == self.rate,
            _ if !self.leads => {}
            Message::Slower { rate } if rate == self.rate => self.on_noise(now),
            Message::Ready { id } if id == self.id => self.on_ready(),
            Message::Refuse { id } if id == self.id => self.on_refusal(now),
            Message::Echo { id, index, bytes } if id == self.id => self.on_echo(now, index, bytes),
            Message::Committed { id } if id == self.id => {
                if matches!(self.state, State::Committing { .. }) {
                    self.go_on(now);
                }
            }
            _ => {}
        }
    }

    fn is_following(&self, id: u8) -> bool {
        id == self.id && matches!(self.state, State::Following { .. })
    }

    /// The leader wants another rate.
    fn follow(&mut self, id: u8, rate: u32) {
        if matches!(self.state, State::Leaving { .. }) {
            return;
        }
        if rate < self.start || rate > self.max {
            return self.say(Message::Refuse { id });
        }
        self.id = id;
        self.say(Message::Ready { id });
        self.state = State::Leaving { rate, then: Then::Follow };
    }

    fn on_ready(&mut self) {
        if let State::Proposing { rate, .. } = self.state {
            self.state = State::Leaving { rate, then: Then::Test };
        }
    }

    fn on_refusal(&mut self, now: Instant) {
        if let State::Proposing { rate, .. } = self.state {
            self.failed(rate);
            self.go_on(now);
        }
    }

    fn challenge(&self, index: u8) -> [u8; message::CHALLENGE_BYTES] {
        message::challenge(self.seed, self.id, index)
    }

    fn on_echo(&mut self, now: Instant, index: u8, bytes: [u8; message::CHALLENGE_BYTES]) {
        let expected = self.challenge(index);
        let State::Testing { echoed, .. } = &mut self.state else { return };
        if index >= CHALLENGES || bytes != expected {
            return;
        }
        *echoed |= 1 << index;
        if echoed.count_ones() == u32::from(CHALLENGES) {
            self.base = self.rate;
            self.say(Message::Commit { id: self.id });
            self.state =
                State::Committing { resend_at: now + COMMIT_INTERVAL, give_up_at: now + COMMIT_TIMEOUT };
        }
    }

    /// Everything sent has left, and the port has changed its rate, or could not.
    pub(crate) fn on_changed(&mut self, now: Instant, changed: bool) {
        let State::Leaving { rate, then } = self.state else { return };
        if changed {
            self.rate = rate;
        }
        self.last_heard = self.last_heard.max(now);
        match then {
            Then::Test if changed => {
                let first = now + SETTLE;
                self.state =
                    State::Testing { echoed: 0, resend_at: first, give_up_at: first + CHALLENGE_TIMEOUT };
            }
            Then::Follow if changed => self.state = State::Following { give_up_at: now + FOLLOW_TIMEOUT },
            Then::Test => {
                self.failed(rate);
                self.state = State::Returning { until: now + RETURN };
            }
            Then::Follow => {
                self.say(Message::Refuse { id: self.id });
                self.state = State::Steady;
            }
            Then::Return if self.leads => self.state = State::Returning { until: now + RETURN },
            Then::Return => self.state = State::Steady,
            Then::Meet => {
                self.base = self.rate;
                self.say(Message::Ping);
                // The other end may take as long as this one did to notice.
                self.state =
                    if self.leads { State::Returning { until: now + LOST_AFTER / 4 } } else { State::Steady };
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let of_state = match self.state {
            State::Steady => self.retry_at,
            State::Leaving { .. } => None,
            State::Proposing { resend_at, give_up_at, .. }
            | State::Testing { resend_at, give_up_at, .. }
            | State::Committing { resend_at, give_up_at } => Some(resend_at.min(give_up_at)),
            State::Returning { until } => Some(until),
            State::Following { give_up_at } => Some(give_up_at),
        };
        [of_state, self.sign_wanted_at()].into_iter().flatten().min()
    }

    /// When silence is to be noticed: away from the first rate, and not in the midst of a change.
    fn sign_wanted_at(&self) -> Option<Instant> {
        let settled_state =
            matches!(self.state, State::Steady | State::Proposing { .. } | State::Returning { .. });
        let silent_at = self.last_heard + LOST_AFTER;
        (settled_state && self.rate != self.start)
            .then(|| self.ping_at.unwrap_or(self.last_heard + PING_AFTER).min(silent_at))
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.sign_wanted_at().is_some_and(|at| at <= now) {
            self.ask_for_sign(now);
        }
        match self.state {
            State::Steady if self.retry_at.is_some_and(|at| at <= now) => {
                (self.ceiling, self.retry_at, self.settled) = (None, None, false);
                self.go_on(now);
            }
            State::Proposing { rate, give_up_at, .. } if give_up_at <= now => self.unanswered(now, rate),
            State::Proposing { rate, asked, resend_at, give_up_at } if resend_at <= now => {
                self.say(Message::Switch { id: self.id, rate });
                let (asked, resend_at) = (asked.saturating_add(1), now + PROPOSE_INTERVAL);
                self.state = State::Proposing { rate, asked, resend_at, give_up_at };
            }
            State::Testing { give_up_at, .. } if give_up_at <= now => {
                self.failed(self.rate);
                self.state = State::Leaving { rate: self.base, then: Then::Return };
            }
            State::Testing { echoed, resend_at, give_up_at } if resend_at <= now => {
                for index in (0..CHALLENGES).filter(|index| echoed & (1 << index) == 0) {
                    self.say(Message::Challenge { id: self.id, index, bytes: self.challenge(index) });
                }
                self.state = State::Testing { echoed, resend_at: now + CHALLENGE_INTERVAL, give_up_at };
            }
            State::Committing { give_up_at, .. } if give_up_at <= now => self.go_on(now),
            State::Committing { resend_at, give_up_at } if resend_at <= now => {
                self.say(Message::Commit { id: self.id });
                self.state = State::Committing { resend_at: now + COMMIT_INTERVAL, give_up_at };
            }
            State::Returning { until } if until <= now => self.go_on(now),
            State::Following { give_up_at } if give_up_at <= now => {
                self.state = State::Leaving { rate: self.base, then: Then::Return };
            }
            _ => {}
        }
    }

    fn ask_for_sign(&mut self, now: Instant) {
        if now >= self.last_heard + LOST_AFTER {
            self.failed(self.rate);
            self.outbox.clear();
            self.state = State::Leaving { rate: self.start, then: Then::Meet };
        } else {
            self.say(Message::Ping);
            self.ping_at = Some(now + PING_INTERVAL);
        }
    }

    /// A proposal that nobody answered: the other end has no such messages, or hears nothing.
    fn unanswered(&mut self, now: Instant, rate: u32) {
        if rate < self.rate {
            // It was to go down, because of noise: then at the first rate, where the other end will come too.
            self.state = State::Leaving { rate: self.start, then: Then::Meet };
        } else {
            self.failed(rate);
            self.go_on(now);
        }
    }
}
