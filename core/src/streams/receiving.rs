//! Frames of the peer's.

use alloc::string::String;

use bytes::Bytes;
use smallvec::SmallVec;

use super::send::SendState;
use super::{Received, Streams, Violation, control, events};
use crate::id::{Class, StreamId};
use crate::limits::ASSEMBLER_CHUNKS_MAX;

/// Streams that get a larger window at once when the peer says it could use one.
const REGRANTS_MAX: usize = 64;

/// What a frame's stream id means.
enum Known {
    /// The stream is open, perhaps since just now.
    Open,
    /// The stream is over; the frame is late.
    Over,
}

impl Streams {
    /// A STREAM frame.
    ///
    /// # Errors
    /// [`Violation`]: the frame is not taken in.
    pub fn on_stream(
        &mut self,
        id: StreamId,
        offset: u64,
        data: Bytes,
        fin: bool,
    ) -> Result<Received, Violation> {
        if let Known::Over = self.know(id)? {
            return Ok(Received { new_bytes: 0, duplicate_bytes: data.len() as u64 });
        }
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(Received::default()) };
        let pieces = stream.recv.assembler.waiting_pieces();
        let may_wait = self.waiting_pieces < ASSEMBLER_CHUNKS_MAX;
        let received = stream.recv.receive(id, offset, data, fin, may_wait)?;
        self.waiting_pieces = self.waiting_pieces - pieces + stream.recv.assembler.waiting_pieces();
        self.wake_reader(id);
        self.settle(id);
        Ok(received)
    }

    /// An OPEN_STREAM frame.
    ///
    /// # Errors
    /// [`Violation`]: the frame is not taken in.
    pub fn on_open(
        &mut self,
        id: StreamId,
        class: Class,
        priority: u8,
        label: String,
    ) -> Result<(), Violation> {
        if id.opener() == self.role {
            return Err(Violation::OpenMismatch(id));
        }
        if let Known::Over = self.know(id)? {
            return Ok(());
        }
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if stream.announced {
            // Sent again because the acknowledgement was late.
            let same = stream.class == class && stream.priority == priority;
            return if same { Ok(()) } else { Err(Violation::OpenMismatch(id)) };
        }
        stream.announced = true;
        (stream.class, stream.priority, stream.label) = (class, priority, label);
        if class == Class::Redundant {
            self.links.iter().for_each(|link| stream.send.link_added(*link));
        }
        self.to_accept.push_back(id);
        self.events.opened = true;
        self.settle(id);
        Ok(())
    }

    /// A RESET_STREAM frame.
    ///
    /// # Errors
    /// [`Violation`]: the frame is not taken in.
    pub fn on_reset_stream(&mut self, id: StreamId, code: u64, final_size: u64) -> Result<(), Violation> {
        if let Known::Over = self.know(id)? {
            return Ok(());
        }
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let pieces = stream.recv.assembler.waiting_pieces();
        stream.recv.reset(id, code, final_size)?;
        self.waiting_pieces = self.waiting_pieces - pieces + stream.recv.assembler.waiting_pieces();
        if stream.recv.is_reset() {
            self.events.add(id, stream, events::RESET);
        }
        self.wake_reader(id);
        self.settle(id);
        Ok(())
    }

    /// A STOP_SENDING frame: the sending half is reset with the peer's code.
    ///
    /// # Errors
    /// [`Violation`]: the frame is not taken in.
    pub fn on_stop_sending(&mut self, id: StreamId, code: u64) -> Result<(), Violation> {
        if let Known::Over = self.know(id)? {
            return Ok(());
        }
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if matches!(stream.send.state, SendState::Open | SendState::Finished) {
            stream.send.stopped = Some(code);
            self.events.add(id, stream, events::STOPPED);
            // The stream is there, so this cannot fail.
            let _ = self.reset(id, code);
        }
        Ok(())
    }

    /// A MAX_STREAM_DATA frame.
    ///
    /// # Errors
    /// [`Violation`]: the frame is not taken in.
    pub fn on_max_stream_data(&mut self, id: StreamId, maximum: u64) -> Result<(), Violation> {
        if let Known::Open = self.know(id)?
            && let Some(stream) = self.streams.get_mut(&id)
        {
            stream.send.raise_window(maximum);
            self.settle(id);
            self.wake_writer(id);
        }
        Ok(())
    }

    /// A MAX_STREAMS frame: `count` streams in all, since the start of the bond, may be opened. It never falls.
    pub fn on_max_streams(&mut self, count: u64) {
        self.peer_allows = self.peer_allows.max(count);
        self.announce_opening();
    }

    /// A WINDOW_WANTED frame: the peer could use a receive window of so many bytes for the whole bond. Streams whose
    /// window was too small before get a larger one at once.
    pub fn on_window_wanted(&mut self, bytes: u64) {
        self.wanted_bytes = bytes;
        let borrowers: SmallVec<[StreamId; REGRANTS_MAX]> =
            self.borrowers.iter().copied().take(REGRANTS_MAX).collect();
        for id in borrowers {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            if stream.recv.want(bytes, &mut self.receive_budget) {
                self.control.queue(id, stream, control::MAX_DATA);
            }
        }
    }

    /// Finds or makes the stream of a frame. Streams of the peer's come to be with the first frame that names them.
    fn know(&mut self, id: StreamId) -> Result<Known, Violation> {
        if self.streams.contains_key(&id) {
            return Ok(Known::Open);
        }
        let index = id.index();
        if id.opener() == self.role {
            return if index < self.opened { Ok(Known::Over) } else { Err(Violation::NotOpened(id)) };
        }
        if index >= self.peer_granted {
            return Err(Violation::StreamLimit { id, max: self.peer_granted });
        }
        if self.peer_over.contains(index) {
            return Ok(Known::Over);
        }
        self.insert(id, Class::default(), 0, String::new());
        Ok(Known::Open)
    }

    /// Wakes a reader that waits, if it finds something.
    fn wake_reader(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.recv.reader_waits
            && stream.recv.is_readable()
        {
            stream.recv.reader_waits = false;
            self.events.add(id, stream, events::READABLE);
        }
    }
}
