//! Many transfers that begin at the same moment and are served in turn, by one thread.
//!
//! With a thread for each the operating system would let some finish before it has started the others, and the
//! measurement would show its scheduler instead of what is between the two ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::client::{self, SILENCE_LIMIT};
use super::pattern;
use super::server::INTACT;

/// Bytes that one transfer is given before it is the next one's turn.
const TURN_BYTES: usize = 64 << 10;

/// Sends `size` pseudo-random bytes to each of `targets` at once, which the server checks. How long after the common
/// start each one had its verdict, in the order of `targets`.
///
/// # Errors
/// If a connection fails, stands still, or a byte arrives changed.
pub fn send_checked(targets: &[SocketAddr], size: u64) -> Result<Vec<Duration>> {
    let open = |(seed, &target): (usize, &SocketAddr)| Transfer::open(target, size, seed as u64);
    let mut transfers = targets.iter().enumerate().map(open).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    loop {
        let waiting: Vec<usize> = (0..transfers.len()).filter(|&at| transfers[at].took.is_none()).collect();
        if waiting.is_empty() {
            return Ok(transfers.into_iter().filter_map(|transfer| transfer.took).collect());
        }
        for at in ready(&transfers, &waiting)? {
            transfers[at].turn(start).with_context(|| format!("transfer {at} to {}", targets[at]))?;
        }
    }
}

/// Those of `waiting` that can go on.
fn ready(transfers: &[Transfer], waiting: &[usize]) -> Result<Vec<usize>> {
    let limit = Timespec::try_from(SILENCE_LIMIT)?;
    let mut polled: Vec<_> = waiting.iter().map(|&at| transfers[at].interest()).collect();
    let count = poll(&mut polled, Some(&limit))?;
    ensure!(count > 0, "{} transfers stand still for {SILENCE_LIMIT:?}", waiting.len());
    let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
    Ok(waiting.iter().zip(&polled).filter(|(_, fd)| is_ready(fd)).map(|(&at, _)| at).collect())
}

struct Transfer {
    stream: TcpStream,
    seed: u64,
    size: u64,
    /// Bytes made so far; the last of them are in `block`.
    made: u64,
    block: Vec<u8>,
    /// How much of `block` is sent.
    sent: usize,
    verdict: Vec<u8>,
    took: Option<Duration>,
}

impl Transfer {
    fn open(target: SocketAddr, size: u64, seed: u64) -> Result<Self> {
        let stream = client::announce_checked(target, size, seed)?;
        stream.set_nonblocking(true)?;
        let (block, verdict) = (Vec::with_capacity(TURN_BYTES), Vec::new());
        Ok(Self { stream, seed, size, made: 0, block, sent: 0, verdict, took: None })
    }

    fn is_sent(&self) -> bool {
        self.made == self.size && self.sent == self.block.len()
    }

    fn interest(&self) -> PollFd<'_> {
        PollFd::new(&self.stream, if self.is_sent() { PollFlags::IN } else { PollFlags::OUT })
    }

    /// Sends one block, or hears the verdict.
    fn turn(&mut self, start: Instant) -> Result<()> {
        let outcome = if self.is_sent() { self.hear(start) } else { self.send() };
        match outcome {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    fn send(&mut self) -> std::io::Result<()> {
        if self.sent == self.block.len() {
            let left = usize::try_from(self.size - self.made).unwrap_or(usize::MAX);
            self.block.resize(left.min(TURN_BYTES), 0);
            pattern::fill(self.seed, self.made, &mut self.block);
            self.made += self.block.len() as u64;
            self.sent = 0;
        }
        self.sent += self.stream.write(&self.block[self.sent..])?;
        Ok(())
    }

    fn hear(&mut self, start: Instant) -> std::io::Result<()> {
        let mut bytes = [0; 16];
        let length = self.stream.read(&mut bytes)?;
        self.verdict.extend_from_slice(&bytes[..length]);
        if length == 0 || !INTACT.starts_with(&self.verdict) {
            let said = String::from_utf8_lossy(&self.verdict).into_owned();
            return Err(std::io::Error::other(format!("the data arrived changed or in part: {said:?}")));
        }
        if self.verdict == INTACT {
            self.took = Some(start.elapsed());
        }
        Ok(())
    }
}
