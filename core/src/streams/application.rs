//! What the application does with streams.

use alloc::string::String;

use bytes::Bytes;

use super::recv::RecvState;
use super::send::SendState;
use super::{OpenError, ReadError, Stream, StreamError, Streams, WriteError, control, events};
use crate::id::{Class, StreamId};
use crate::limits::STREAM_LABEL_MAX_BYTES;

/// Code of a STOP_SENDING for a stream that the application merely dropped.
const NO_ERROR: u64 = 0;

/// A stream that the peer opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The stream.
    pub id: StreamId,
    /// Its class, in both directions.
    pub class: Class,
    /// Its rank within the class, lower first.
    pub priority: u8,
    /// What the peer's application calls it.
    pub label: String,
}

impl Streams {
    /// Opens a stream. It can be written at once; the peer can accept it once OPEN_STREAM has arrived there.
    ///
    /// Among streams of one class lower `priority` numbers are served first.
    ///
    /// # Errors
    /// [`OpenError`]; after `LimitReached` comes [`StreamEvent::OpenPossible`](super::StreamEvent::OpenPossible).
    pub fn open(&mut self, class: Class, priority: u8, label: &str) -> Result<StreamId, OpenError> {
        if label.len() > STREAM_LABEL_MAX_BYTES {
            return Err(OpenError::LabelTooLong { len: label.len() });
        }
        if !self.openable() {
            self.opener_waits = true;
            let peer_max = self.own_open + self.peer_allows.saturating_sub(self.opened);
            return Err(OpenError::LimitReached { open: self.own_open, max: self.own_max.min(peer_max) });
        }
        let id = StreamId::new(self.role, self.opened);
        self.opened += 1;
        self.own_open += 1;
        self.insert(id, class, priority, label.into());
        self.queue_control(id, control::OPEN);
        Ok(id)
    }

    /// Whether a stream could be opened now.
    pub(super) fn openable(&self) -> bool {
        self.own_open < self.own_max && self.opened < self.peer_allows
    }

    /// The next stream that the peer opened.
    pub fn accept(&mut self) -> Option<Accepted> {
        let id = self.to_accept.pop_front()?;
        let stream = self.streams.get_mut(&id)?;
        let label = core::mem::take(&mut stream.label);
        Some(Accepted { id, class: stream.class, priority: stream.priority, label })
    }

    /// Writes a copy of the first bytes of `data`, as many as there is room for; returns how many.
    ///
    /// # Errors
    /// [`WriteError`]; `Blocked` if there is no room at all.
    pub fn write(&mut self, id: StreamId, data: &[u8]) -> Result<usize, WriteError> {
        let len = self.room(id, data.len())?;
        if let Some(stream) = self.streams.get_mut(&id) {
            let range = stream.send.buffer.write(&data[..len]);
            stream.send.appended(&range);
        }
        self.settle(id);
        Ok(len)
    }

    /// Takes the first bytes off `chunk`, as many as there is room for, and writes them without copying (a copy is
    /// made of less than 1 KiB); returns how many.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_chunk(&mut self, id: StreamId, chunk: &mut Bytes) -> Result<usize, WriteError> {
        let len = self.room(id, chunk.len())?;
        if let Some(stream) = self.streams.get_mut(&id) {
            let range = stream.send.buffer.push(chunk.split_to(len));
            stream.send.appended(&range);
        }
        self.settle(id);
        Ok(len)
    }

    /// How many of `len` bytes may be written now.
    fn room(&mut self, id: StreamId, len: usize) -> Result<usize, WriteError> {
        let stream = self.streams.get_mut(&id).ok_or(WriteError::Unknown(id))?;
        stream.check_writable(id)?;
        let room = stream.send.room_bytes(&self.send_budget, self.send_tuned_bytes);
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(len);
        if room == 0 && len > 0 {
            stream.send.writer_waits = true;
            return Err(WriteError::Blocked(id));
        }
        Ok(room)
    }

    /// Ends the sending half: the peer reads everything written so far, and then the end.
    /// [`StreamEvent::Finished`](super::StreamEvent::Finished) tells when the peer has it all. Finishing twice is
    /// the same as once.
    ///
    /// # Errors
    /// [`StreamError`]: the sending half has ended in another way.
    pub fn finish(&mut self, id: StreamId) -> Result<(), StreamError> {
        let stream = self.streams.get_mut(&id).ok_or(StreamError::Unknown(id))?;
        match (stream.send.stopped, stream.send.state) {
            (Some(code), _) => Err(StreamError::Stopped { id, code }),
            (None, SendState::Reset { .. } | SendState::ResetDelivered) => Err(StreamError::Reset(id)),
            (None, SendState::Finished | SendState::Delivered) => Ok(()),
            (None, SendState::Open) => {
                let range = stream.send.buffer.finish();
                stream.send.appended(&range);
                stream.send.state = SendState::Finished;
                self.settle(id);
                Ok(())
            }
        }
    }

    /// Gives up the sending half: what is not delivered is dropped, and the peer's reader gets `code`. Without effect
    /// on a half that was reset before, and on one that is finished and acknowledged.
    ///
    /// # Errors
    /// [`StreamError::Unknown`].
    pub fn reset(&mut self, id: StreamId, code: u64) -> Result<(), StreamError> {
        let stream = self.streams.get_mut(&id).ok_or(StreamError::Unknown(id))?;
        if !matches!(stream.send.state, SendState::Open | SendState::Finished) {
            return Ok(());
        }
        stream.send.state = SendState::Reset { code, final_size: stream.send.buffer.sent_end() };
        stream.send.discard();
        self.queue_control(id, control::RESET);
        self.settle(id);
        Ok(())
    }

    /// The next bytes of a stream, at most `max` of them; `None` at its end. Big pieces are handed out as they
    /// arrived, without a copy.
    ///
    /// # Errors
    /// [`ReadError`]; `Blocked` if nothing has arrived.
    pub fn read_chunk(&mut self, id: StreamId, max: usize) -> Result<Option<Bytes>, ReadError> {
        let stream = self.streams.get_mut(&id).ok_or(ReadError::Unknown(id))?;
        let recv = &mut stream.recv;
        match recv.state {
            RecvState::Open => {}
            RecvState::Stopped { .. } => return Err(ReadError::Stopped(id)),
            RecvState::Reset { code } => {
                recv.end();
                self.settle(id);
                return Err(ReadError::Reset { id, code });
            }
        }
        if let Some(bytes) = recv.assembler.read(max) {
            recv.settle(&mut self.receive_budget);
            if recv.grant(self.wanted_bytes, &mut self.receive_budget) {
                if recv.borrows() {
                    self.borrowers.insert(id);
                }
                self.queue_control(id, control::MAX_DATA);
            }
            return Ok(Some(bytes));
        }
        if recv.all_read() {
            recv.end();
            self.settle(id);
            return Ok(None);
        }
        if max == 0 {
            return Ok(Some(Bytes::new()));
        }
        recv.reader_waits = true;
        Err(ReadError::Blocked(id))
    }

    /// Tells the peer that nobody reads its half of the stream any more. Bytes that arrive are dropped.
    ///
    /// # Errors
    /// [`StreamError::Unknown`].
    pub fn stop_sending(&mut self, id: StreamId, code: u64) -> Result<(), StreamError> {
        let stream = self.streams.get_mut(&id).ok_or(StreamError::Unknown(id))?;
        let unread = stream.recv.assembler.waiting_pieces();
        if stream.recv.stop(code) {
            self.queue_control(id, control::STOP);
        }
        self.waiting_pieces -= unread;
        self.settle(id);
        Ok(())
    }

    /// The application drops the stream: what it wrote is still delivered, what it has not read is not wanted, and no
    /// more events come.
    pub fn close(&mut self, id: StreamId) {
        // Both fail only where the half has ended already.
        let _ = self.finish(id);
        let _ = self.stop_sending(id, NO_ERROR);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.silence();
        }
        self.settle(id);
    }

    pub(super) fn queue_control(&mut self, id: StreamId, frame: u8) {
        if let Some(stream) = self.streams.get_mut(&id) {
            self.control.queue(id, stream, frame);
        }
    }

    /// Wakes a writer that waits, if there is room.
    pub(super) fn wake_writer(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.send.writer_waits
            && stream.send.has_room(&self.send_budget, self.send_tuned_bytes)
        {
            stream.send.writer_waits = false;
            self.events.add(id, stream, events::WRITABLE);
        }
    }
}

impl Stream {
    fn check_writable(&self, id: StreamId) -> Result<(), WriteError> {
        match (self.send.stopped, self.send.state) {
            (Some(code), _) => Err(WriteError::Stopped { id, code }),
            (None, SendState::Open) => Ok(()),
            (None, SendState::Finished | SendState::Delivered) => Err(WriteError::Finished(id)),
            (None, SendState::Reset { .. } | SendState::ResetDelivered) => Err(WriteError::Reset(id)),
        }
    }
}
