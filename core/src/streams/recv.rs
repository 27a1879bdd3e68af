//! The half of a stream that this end receives.

use bytes::Bytes;

use super::assembler::Assembler;
use super::error::Violation;
use super::flow::Budget;
use crate::id::StreamId;
use crate::limits::{STREAM_WINDOW_GROWN_BYTES, STREAM_WINDOW_MIN_BYTES};
use crate::wire::varint::VARINT_MAX;

/// Advertised windows that are remembered, see [`RecvHalf::note_limit`].
const LIMITS_REMEMBERED: usize = 4;

/// How far a receiving half has come (RFC 9000 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecvState {
    /// Bytes may come.
    Open,
    /// The application wants no more; what comes is dropped.
    Stopped { code: u64 },
    /// The peer gave up.
    Reset { code: u64 },
}

/// What arrived, for statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Bytes that had not arrived before.
    pub new_bytes: u64,
    /// Bytes that had, or that nobody wants any more.
    pub duplicate_bytes: u64,
}

/// The receiving half of a stream.
#[derive(Debug)]
pub(super) struct RecvHalf {
    pub(super) assembler: Assembler,
    pub(super) state: RecvState,
    /// The application knows how the half ended, or gave it up and the end is known.
    is_over: bool,
    /// The window: bytes below this offset may come. Never falls.
    granted: u64,
    /// Where the newest windows ended, the newest first.
    limits: [u64; LIMITS_REMEMBERED],
    /// The peer used a window up to its last byte.
    window_was_full: bool,
    /// Window wanted for this stream.
    window_bytes: u64,
    /// The window grows only once the reader has come this far.
    grow_at: u64,
    final_size: Option<u64>,
    /// End of what has arrived.
    received_end: u64,
    /// What the receive budget counts for this stream.
    committed_bytes: u64,
    /// A reader was turned away and waits, or has never come.
    pub(super) reader_waits: bool,
}

impl RecvHalf {
    /// A half with the window that every stream starts with.
    pub(super) fn new(budget: &mut Budget) -> Self {
        let window = STREAM_WINDOW_MIN_BYTES;
        budget.change(0, window);
        Self {
            assembler: Assembler::default(),
            state: RecvState::Open,
            is_over: false,
            granted: window,
            limits: [window; LIMITS_REMEMBERED],
            window_was_full: false,
            window_bytes: window,
            grow_at: 0,
            final_size: None,
            received_end: 0,
            committed_bytes: window,
            reader_waits: true,
        }
    }

    /// The window's end.
    pub(super) fn granted(&self) -> u64 {
        self.granted
    }

    /// Whether nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The application has heard of the end.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    /// Whether the peer gave up.
    pub(super) fn is_reset(&self) -> bool {
        matches!(self.state, RecvState::Reset { .. })
    }

    /// Whether the window was ever found too small.
    pub(super) fn borrows(&self) -> bool {
        self.window_bytes > STREAM_WINDOW_MIN_BYTES
    }

    /// Whether a reader finds something: bytes, the end or a reset.
    pub(super) fn is_readable(&self) -> bool {
        match self.state {
            RecvState::Open => self.assembler.ready_end() > self.assembler.read_offset() || self.all_read(),
            RecvState::Reset { .. } => true,
            RecvState::Stopped { .. } => false,
        }
    }

    /// Whether the reader has had every byte up to the end of the stream.
    pub(super) fn all_read(&self) -> bool {
        self.final_size == Some(self.assembler.read_offset())
    }

    /// Whether the peer may still send something new.
    pub(super) fn is_unfinished(&self) -> bool {
        self.state == RecvState::Open && self.final_size.is_none()
    }

    /// Checks and takes in the bytes of a STREAM frame. `may_wait` allows one more piece behind a gap.
    pub(super) fn receive(
        &mut self,
        id: StreamId,
        offset: u64,
        data: Bytes,
        fin: bool,
        may_wait: bool,
    ) -> Result<Received, Violation> {
        let len = data.len() as u64;
        let end = offset.saturating_add(len);
        if end > self.granted {
            return Err(Violation::FlowControl { id, end, granted: self.granted });
        }
        self.check_final_size(id, end, fin)?;
        let wanted = self.state == RecvState::Open;
        if wanted && !may_wait && offset > self.assembler.ready_end() {
            return Err(Violation::Pieces(id));
        }
        if fin {
            self.final_size = Some(end);
        }
        self.received_end = self.received_end.max(end);
        if !fin && self.limits.contains(&end) {
            self.window_was_full = true;
        }
        let new_bytes = if wanted { self.assembler.insert(offset, data) } else { 0 };
        self.finish_if_stopped();
        Ok(Received { new_bytes, duplicate_bytes: len - new_bytes })
    }

    /// Takes in a RESET_STREAM.
    pub(super) fn reset(&mut self, id: StreamId, code: u64, final_size: u64) -> Result<(), Violation> {
        if final_size > self.granted {
            return Err(Violation::FlowControl { id, end: final_size, granted: self.granted });
        }
        self.check_final_size(id, final_size, true)?;
        // Once everything up to a FIN has arrived, a reset changes nothing (RFC 9000 section 3.2).
        let is_complete = self.final_size == Some(self.assembler.ready_end());
        self.final_size = Some(final_size);
        if self.state == RecvState::Open && !is_complete {
            self.state = RecvState::Reset { code };
            self.assembler.discard();
        }
        self.finish_if_stopped();
        Ok(())
    }

    fn check_final_size(&self, id: StreamId, end: u64, is_final: bool) -> Result<(), Violation> {
        match self.final_size {
            Some(known) if end > known || is_final && end != known => {
                Err(Violation::FinalSize { id, known, said: end })
            }
            None if is_final && end < self.received_end => {
                Err(Violation::FinalSize { id, known: self.received_end, said: end })
            }
            _ => Ok(()),
        }
    }

    /// The application wants no more. Returns whether the peer has to be told.
    pub(super) fn stop(&mut self, code: u64) -> bool {
        // A stream that is closed after it was stopped keeps the first code.
        if matches!(self.state, RecvState::Stopped { .. }) {
            return false;
        }
        let unfinished = self.is_unfinished();
        if !self.is_over {
            self.assembler.discard();
            self.state = RecvState::Stopped { code };
            self.finish_if_stopped();
        }
        unfinished
    }

    /// With the end known, a half that nobody reads is over.
    fn finish_if_stopped(&mut self) {
        if matches!(self.state, RecvState::Stopped { .. }) && self.final_size.is_some() {
            self.is_over = true;
        }
    }

    /// Brings the budget up to date. To be called after every change.
    pub(super) fn settle(&mut self, budget: &mut Budget) {
        let read = self.assembler.read_offset();
        let committed = match self.state {
            RecvState::Open if !self.is_over => self.final_size.unwrap_or(self.granted).saturating_sub(read),
            // Nothing is kept any more, whatever comes.
            _ => 0,
        };
        debug_assert!(self.assembler.buffered_bytes() <= committed, "more is buffered than was granted");
        budget.change(self.committed_bytes, committed);
        self.committed_bytes = committed;
    }

    /// Lets the window grow if the peer used the last one up and the reader keeps pace.
    ///
    /// There is no clock here. That a window is too small shows in a frame which ends exactly at its limit: the window
    /// cut it. A stream that sends little now and then never ends a frame right there, so it never takes room from
    /// streams that need it, however much it moves in a day.
    fn grow(&mut self, wanted_bytes: u64) {
        let read = self.assembler.read_offset();
        if self.window_was_full && read >= self.grow_at {
            self.window_was_full = false;
            self.window_bytes =
                self.window_bytes.saturating_mul(2).max(wanted_bytes).max(STREAM_WINDOW_GROWN_BYTES);
            self.grow_at = read.saturating_add(self.window_bytes);
        }
    }

    /// After a read: grants what the stream may have. Returns whether the peer has to be told a new limit.
    pub(super) fn grant(&mut self, wanted_bytes: u64, budget: &mut Budget) -> bool {
        if !self.is_unfinished() {
            return false;
        }
        self.grow(wanted_bytes);
        let loan = (self.window_bytes - STREAM_WINDOW_MIN_BYTES).min(budget.allowance(self.committed_bytes));
        let window = STREAM_WINDOW_MIN_BYTES + loan;
        let limit = self.assembler.read_offset().saturating_add(window).min(VARINT_MAX);
        if limit < self.granted.saturating_add(window / 4) {
            return false;
        }
        self.granted = limit;
        self.note_limit();
        self.settle(budget);
        true
    }

    /// The peer could use `wanted_bytes`. For a stream whose window was found too small before and whose reader keeps
    /// pace that is granted at once. Returns whether the peer has to be told a new limit.
    pub(super) fn want(&mut self, wanted_bytes: u64, budget: &mut Budget) -> bool {
        let keeps_pace = self.assembler.buffered_bytes() <= self.committed_bytes / 2;
        if !keeps_pace || self.window_bytes >= wanted_bytes {
            return false;
        }
        self.window_bytes = wanted_bytes;
        self.grant(wanted_bytes, budget)
    }

    /// While a new limit is on its way the peer runs into earlier ones; a few are remembered to notice.
    fn note_limit(&mut self) {
        self.limits.rotate_right(1);
        self.limits[0] = self.granted;
    }
}
