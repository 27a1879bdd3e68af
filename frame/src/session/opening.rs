//! HELLO: finding the peer, and answering it later.

use super::Config;
use crate::crc::Crc32c;
use crate::frame::{self, kind};
use crate::hello::Hello;
use crate::limits::{HELLO_ANSWER_INTERVAL, HELLO_REPEAT_MAX};
use crate::time::{Duration, Instant};
use crate::{End, FrameSink, NoRoom, Role};

/// What an end knows of the opening; kept for the length of the session, as the peer may have missed an answer.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    nonce: u64,
    /// When a dialer gives up, and an acceptor stops answering a peer that has fallen silent.
    give_up_at: Option<Instant>,
    peer_nonce: Option<u64>,
    /// When the next HELLO goes out: repeated by a dialer, asked for by the peer.
    hello_at: Option<Instant>,
    repeat: Duration,
    last_hello: Option<Instant>,
}

impl Opening {
    pub(super) fn new(now: Instant, config: &Config, nonce: u64) -> Self {
        let dials = config.role == Role::Dialer;
        Self {
            nonce,
            give_up_at: dials.then_some(now + config.hello_timeout),
            peer_nonce: None,
            hello_at: dials.then_some(now),
            repeat: config.hello_repeat,
            last_hello: None,
        }
    }

    pub(super) fn has_heard_peer(&self) -> bool {
        self.peer_nonce.is_some()
    }

    pub(super) fn is_own(&self, hello: &Hello) -> bool {
        hello.nonce == self.nonce
    }

    /// A HELLO came before this end was established. Answers whether it is now: the peer has heard it.
    pub(super) fn handle_hello(&mut self, now: Instant, hello: &Hello, config: &Config) -> Result<bool, End> {
        if self.is_own(hello) {
            return Err(End::Loop);
        }
        if hello.role == config.role {
            return Err(End::SameRole(config.role));
        }
        // The last one counts: what an earlier session left in the pipe came before.
        let is_new = self.peer_nonce.replace(hello.nonce) != Some(hello.nonce);
        let established = hello.peer_nonce == Some(self.nonce);
        if established {
            self.hello_at = None;
        } else if config.role == Role::Acceptor {
            self.give_up_at = Some(now + config.hello_timeout);
        }
        if is_new {
            self.repeat = config.hello_repeat;
            self.hello_at = hello.answer_wanted.then_some(now);
        } else {
            self.answer(hello);
        }
        Ok(established)
    }

    /// Has HELLO sent if the peer wants one: soon, and not too often.
    pub(super) fn answer(&mut self, hello: &Hello) {
        if hello.answer_wanted {
            let earliest = self.last_hello.map_or(Instant::ZERO, |last| last + HELLO_ANSWER_INTERVAL);
            self.hello_at = Some(self.hello_at.map_or(earliest, |at| at.min(earliest)));
        }
    }

    /// The checksum that has taken the epoch: the dialer's nonce, then the acceptor's.
    pub(super) fn epoch(&self, role: Role, peer_nonce: u64) -> Crc32c {
        let (first, second) = match role {
            Role::Dialer => (self.nonce, peer_nonce),
            Role::Acceptor => (peer_nonce, self.nonce),
        };
        Crc32c::new().with(&first.to_be_bytes()).with(&second.to_be_bytes())
    }

    /// While opening: writes HELLO if it is time.
    pub(super) fn poll_hello(
        &mut self,
        now: Instant,
        config: &Config,
        sink: &mut impl FrameSink,
    ) -> Result<bool, NoRoom> {
        if self.hello_at.is_none_or(|at| at > now) {
            return Ok(false);
        }
        self.write(now, config, true, self.peer_nonce, sink)?;
        self.hello_at = Some(now + self.repeat);
        self.repeat = (self.repeat * 2).min(HELLO_REPEAT_MAX.max(config.hello_repeat));
        Ok(true)
    }

    /// Once established: writes HELLO if the peer still wants one.
    pub(super) fn poll_answer(
        &mut self,
        now: Instant,
        config: &Config,
        peer_nonce: u64,
        sink: &mut impl FrameSink,
    ) -> Result<bool, NoRoom> {
        if self.hello_at.is_none_or(|at| at > now) {
            return Ok(false);
        }
        self.write(now, config, false, Some(peer_nonce), sink)?;
        self.hello_at = None;
        Ok(true)
    }

    pub(super) fn answer_at(&self) -> Option<Instant> {
        self.hello_at
    }

    fn write(
        &mut self,
        now: Instant,
        config: &Config,
        answer_wanted: bool,
        peer_nonce: Option<u64>,
        sink: &mut impl FrameSink,
    ) -> Result<(), NoRoom> {
        let hello = Hello {
            role: config.role,
            answer_wanted,
            mtu_bytes: config.mtu_bytes,
            receive_buffer_bytes: config.receive_buffer_bytes,
            read_bytes: config.read_bytes,
            keep_alive: config.keep_alive,
            nonce: self.nonce,
            peer_nonce,
        };
        frame::write(Crc32c::new(), kind::HELLO, 0, &hello.write(), sink)?;
        self.last_hello = Some(now);
        Ok(())
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.hello_at, self.give_up_at].into_iter().flatten().min()
    }

    /// Time has passed. A dialer that was not heard gives up; an acceptor forgets the peer, and is silent again.
    pub(super) fn handle_timeout(&mut self, now: Instant, config: &Config) -> Result<(), End> {
        if self.give_up_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        match config.role {
            Role::Dialer if self.has_heard_peer() => Err(End::NotHeard),
            Role::Dialer => Err(End::NoAnswer),
            Role::Acceptor => {
                (self.peer_nonce, self.hello_at, self.give_up_at) = (None, None, None);
                Ok(())
            }
        }
    }
}
