//! One stream as one end's application sees it.

use crate::content::Content;
use crate::work::{Ending, HalfPlan, Work};
use bondwire_core::connection::Connection;
use bondwire_core::id::{Role, StreamId};
use bondwire_core::streams::{ReadError, StreamError, WriteError};
use bondwire_core::time::Instant;
use bytes::Bytes;
use std::fmt;

/// What a side of a lane waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wait {
    /// Nothing: it can go on.
    Ready,
    /// The engine's event.
    Event,
    /// Its own pause to be over.
    Pause,
    /// Nothing more to do.
    Done,
}

/// What comes after a step of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// An event of the engine, or nothing.
    Wait,
    /// Again at this time.
    Pause(Instant),
}

#[derive(Debug)]
struct Half {
    plan: HalfPlan,
    content: Content,
    /// Bytes written or read.
    position: u64,
    pause_at: u64,
    wait: Wait,
}

impl Half {
    fn new(work: &Work, stream: usize, half: usize, pause_every_bytes: u64) -> Self {
        let plan = work.streams[stream].halves[half];
        let content = work.content(stream, half);
        Self { plan, content, position: 0, pause_at: pause_every_bytes, wait: Wait::Ready }
    }
}

/// Both directions of a stream, at one end.
#[derive(Debug)]
pub(crate) struct Lane {
    id: StreamId,
    write: Half,
    read: Half,
    /// Contents from `buffered_from` on, kept while the engine has no room for them.
    buffer: Vec<u8>,
    buffered_from: u64,
}

impl Lane {
    /// The lane of a stream of the work, at the end with this role.
    pub(crate) fn new(work: &Work, stream: usize, id: StreamId, role: Role) -> Self {
        let plan = &work.streams[stream];
        let (out, inward) = if plan.opener == role { (0, 1) } else { (1, 0) };
        Self {
            id,
            write: Half::new(work, stream, out, plan.halves[out].writer.pause_every_bytes),
            read: Half::new(work, stream, inward, plan.halves[inward].reader.pause_every_bytes),
            buffer: Vec::new(),
            buffered_from: 0,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.write.wait == Wait::Done && self.read.wait == Wait::Done
    }

    pub(crate) fn awaits_writable(&self) -> bool {
        self.write.wait == Wait::Event
    }

    pub(crate) fn awaits_readable(&self) -> bool {
        self.read.wait == Wait::Event
    }

    /// Writes until the engine takes no more, a pause is due, or it is done.
    pub(crate) fn write(&mut self, now: Instant, connection: &mut Connection) -> Result<Step, String> {
        let plan = self.write.plan;
        let until = match plan.ending {
            Ending::Reset { at, .. } => at,
            Ending::Finish | Ending::Stop { .. } => plan.bytes,
        };
        if self.write.wait == Wait::Done {
            return Ok(Step::Wait);
        }
        self.write.wait = Wait::Ready;
        while self.write.position < until {
            if self.write.position >= self.write.pause_at && !plan.writer.pause.is_zero() {
                self.write.pause_at += plan.writer.pause_every_bytes;
                self.write.wait = Wait::Pause;
                return Ok(Step::Pause(now + plan.writer.pause));
            }
            match self.write_piece(connection, until) {
                Ok(written) => self.write.position += written as u64,
                Err(WriteError::Blocked(_)) => {
                    self.write.wait = Wait::Event;
                    return Ok(Step::Wait);
                }
                Err(WriteError::Stopped { code, .. }) => return self.on_stopped(code).map(|()| Step::Wait),
                Err(error) => return Err(format!("writing at {}: {error}", self.write.position)),
            }
        }
        self.write.wait = Wait::Done;
        let ended = match plan.ending {
            Ending::Reset { code, .. } => connection.reset(self.id, code),
            Ending::Finish | Ending::Stop { .. } => connection.finish(self.id),
        };
        match ended {
            Ok(()) => Ok(Step::Wait),
            Err(StreamError::Stopped { code, .. }) => self.on_stopped(code).map(|()| Step::Wait),
            Err(error) => Err(format!("ending the writing half: {error}")),
        }
    }

    fn write_piece(&mut self, connection: &mut Connection, until: u64) -> Result<usize, WriteError> {
        let left = usize::try_from(until - self.write.position).unwrap_or(usize::MAX);
        let len = self.write.plan.writer.piece_bytes.min(left);
        if (self.buffered_from, self.buffer.len()) != (self.write.position, len) {
            self.buffered_from = self.write.position;
            self.buffer.resize(len, 0);
            self.write.content.fill(self.buffered_from, &mut self.buffer);
        }
        if self.write.plan.gives_chunks {
            let mut chunk = Bytes::copy_from_slice(&self.buffer);
            connection.write_chunk(self.id, &mut chunk)
        } else {
            connection.write(self.id, &self.buffer)
        }
    }

    /// The reader wants no more; the engine has reset this half.
    pub(crate) fn on_stopped(&mut self, code: u64) -> Result<(), String> {
        if !matches!(self.write.plan.ending, Ending::Stop { code: planned, .. } if planned == code) {
            return Err(format!("stopped with code {code} against the plan {:?}", self.write.plan.ending));
        }
        self.write.wait = Wait::Done;
        Ok(())
    }

    /// Reads until there is nothing, a pause is due, or it is done.
    pub(crate) fn read(
        &mut self,
        now: Instant,
        connection: &mut Connection,
        verified: &mut u64,
    ) -> Result<Step, String> {
        let plan = self.read.plan;
        if self.read.wait == Wait::Done {
            return Ok(Step::Wait);
        }
        self.read.wait = Wait::Ready;
        loop {
            if let Ending::Stop { at, code } = plan.ending
                && self.read.position >= at
            {
                self.read.wait = Wait::Done;
                return match connection.stop_sending(self.id, code) {
                    Ok(()) => Ok(Step::Wait),
                    Err(error) => Err(format!("stopping the reading half: {error}")),
                };
            }
            if self.read.position >= self.read.pause_at && !plan.reader.pause.is_zero() {
                self.read.pause_at += plan.reader.pause_every_bytes;
                self.read.wait = Wait::Pause;
                return Ok(Step::Pause(now + plan.reader.pause));
            }
            match connection.read_chunk(self.id, plan.reader.piece_bytes) {
                Ok(Some(piece)) => *verified += self.verify(&piece)?,
                Err(ReadError::Blocked(_)) => {
                    self.read.wait = Wait::Event;
                    return Ok(Step::Wait);
                }
                Ok(None) => return self.ended(None),
                Err(ReadError::Reset { code, .. }) => return self.ended(Some(code)),
                Err(error) => return Err(format!("reading at {}: {error}", self.read.position)),
            }
        }
    }

    fn verify(&mut self, piece: &[u8]) -> Result<u64, String> {
        let read = &mut self.read;
        if piece.is_empty() || piece.len() > read.plan.reader.piece_bytes {
            return Err(format!(
                "a read of {} bytes for at most {}",
                piece.len(),
                read.plan.reader.piece_bytes
            ));
        }
        if let Some(at) = read.content.mismatch(read.position, piece) {
            return Err(format!("wrong byte at {at}"));
        }
        read.position += piece.len() as u64;
        if read.position > read.plan.bytes {
            return Err(format!("{} bytes read of {}", read.position, read.plan.bytes));
        }
        Ok(piece.len() as u64)
    }

    fn ended(&mut self, reset: Option<u64>) -> Result<Step, String> {
        let Half { plan, position, .. } = self.read;
        let right = match (plan.ending, reset) {
            (Ending::Finish | Ending::Stop { .. }, None) => position == plan.bytes,
            (Ending::Reset { at, code }, Some(got)) => code == got && position <= at,
            _ => false,
        };
        if !right {
            return Err(format!("ended at byte {position} with reset {reset:?}, planned was {plan:?}"));
        }
        self.read.wait = Wait::Done;
        Ok(Step::Wait)
    }

    /// Checks that there is really nothing to read.
    pub(crate) fn expect_blocked(&mut self, connection: &mut Connection) -> Result<(), String> {
        match connection.read_chunk(self.id, 1) {
            Err(ReadError::Blocked(_)) => Ok(()),
            other => Err(format!(
                "lost event: readable at {} ({other:?}) without having said so",
                self.read.position
            )),
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "id {}, written {} of {} ({:?}), read {} of {} ({:?})",
            self.id,
            self.write.position,
            self.write.plan.bytes,
            self.write.wait,
            self.read.position,
            self.read.plan.bytes,
            self.read.wait
        )
    }
}
