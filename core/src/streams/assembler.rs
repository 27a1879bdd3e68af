//! Puts the bytes of one stream back into their order.

use alloc::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

/// Pieces shorter than this are copied, so that a few bytes do not keep a whole receive buffer alive.
const COPY_BELOW_BYTES: usize = 1024;
/// Copied pieces grow together up to this size.
const COPY_TOGETHER_BYTES: usize = 16 << 10;

/// Bytes that follow each other.
#[derive(Debug)]
enum Piece {
    /// A slice of what a link received.
    Shared(Bytes),
    /// Small pieces, copied together.
    Copied(BytesMut),
}

impl Piece {
    fn new(data: Bytes) -> Self {
        if data.len() < COPY_BELOW_BYTES {
            Self::Copied(BytesMut::from(&data[..]))
        } else {
            Self::Shared(data)
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Shared(bytes) => bytes.len(),
            Self::Copied(bytes) => bytes.len(),
        }
    }

    /// Appends `data` if both are small.
    fn extend(&mut self, data: &[u8]) -> bool {
        match self {
            Self::Copied(bytes)
                if data.len() < COPY_BELOW_BYTES && bytes.len() + data.len() <= COPY_TOGETHER_BYTES =>
            {
                bytes.extend_from_slice(data);
                true
            }
            _ => false,
        }
    }

    /// Removes and returns the first `len` bytes.
    fn split_to(&mut self, len: usize) -> Bytes {
        match self {
            Self::Shared(bytes) => bytes.split_to(len),
            Self::Copied(bytes) => bytes.split_to(len).freeze(),
        }
    }
}

/// Bytes of one stream between their arrival and the reader.
///
/// The output is exactly the bytes 0..n, each once, whatever order, cuts and duplicates they arrived in. The caller
/// bounds the bytes (by the window it granted) and the pieces that wait ([`waiting_pieces`](Self::waiting_pieces)).
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// Bytes handed to the reader.
    read: u64,
    /// The bytes `read..ready_end`.
    ready: VecDeque<Piece>,
    ready_end: u64,
    /// Bytes behind a gap, by their offset. They do not overlap.
    waiting: BTreeMap<u64, Piece>,
    waiting_bytes: u64,
}

impl Assembler {
    /// Bytes handed to the reader so far.
    pub(super) fn read_offset(&self) -> u64 {
        self.read
    }

    /// All bytes before this have arrived.
    pub(super) fn ready_end(&self) -> u64 {
        self.ready_end
    }

    /// Bytes that have arrived and are not yet read.
    pub(super) fn buffered_bytes(&self) -> u64 {
        self.ready_end - self.read + self.waiting_bytes
    }

    /// Pieces that wait for a gap before them to close.
    pub(super) fn waiting_pieces(&self) -> usize {
        self.waiting.len()
    }

    /// Takes in `data` at `offset`; returns how many of its bytes are new. `offset + data.len()` must not overflow.
    pub(super) fn insert(&mut self, mut offset: u64, mut data: Bytes) -> u64 {
        if let Some(known) = self.ready_end.checked_sub(offset).filter(|known| *known > 0) {
            if known >= data.len() as u64 {
                return 0;
            }
            let _ = data.split_to(known as usize);
            offset = self.ready_end;
        }
        if data.is_empty() {
            return 0;
        }
        let new_bytes = if self.waiting.is_empty() && offset == self.ready_end {
            self.append(data)
        } else {
            let new_bytes = self.insert_between(offset, data);
            self.join();
            new_bytes
        };
        debug_assert!(self.waiting.keys().next().is_none_or(|first| *first > self.ready_end));
        new_bytes
    }

    /// Adds what is missing of `data` to the waiting pieces.
    fn insert_between(&mut self, mut offset: u64, mut data: Bytes) -> u64 {
        let mut new_bytes = 0;
        if let Some((start, piece)) = self.waiting.range_mut(..=offset).next_back() {
            let end = start + piece.len() as u64;
            if end > offset {
                let known = (end - offset).min(data.len() as u64);
                let _ = data.split_to(known as usize);
                offset += known;
            }
        }
        while !data.is_empty() {
            let next = self.waiting.range(offset..).next().map(|(start, piece)| (*start, piece.len()));
            let (start, known) = next.unwrap_or((u64::MAX, 0));
            let missing = data.split_to((start - offset).min(data.len() as u64) as usize);
            let end = offset + missing.len() as u64;
            new_bytes += missing.len() as u64;
            self.wait(offset, missing);
            let known = known.min(data.len());
            let _ = data.split_to(known);
            offset = end + known as u64;
        }
        self.waiting_bytes += new_bytes;
        new_bytes
    }

    /// Keeps a piece that overlaps no other.
    fn wait(&mut self, offset: u64, data: Bytes) {
        if data.is_empty() {
            return;
        }
        if let Some((start, before)) = self.waiting.range_mut(..offset).next_back()
            && start + before.len() as u64 == offset
            && before.extend(&data)
        {
            return;
        }
        self.waiting.insert(offset, Piece::new(data));
    }

    /// Moves waiting pieces that no gap holds back any longer.
    fn join(&mut self) {
        while let Some(first) = self.waiting.first_entry()
            && *first.key() == self.ready_end
        {
            let piece = first.remove();
            let len = piece.len() as u64;
            self.waiting_bytes -= len;
            self.ready_end += len;
            let joined = match (&piece, self.ready.back_mut()) {
                (Piece::Copied(data), Some(last)) => last.extend(data),
                _ => false,
            };
            if !joined {
                self.ready.push_back(piece);
            }
        }
    }

    fn append(&mut self, data: Bytes) -> u64 {
        let len = data.len() as u64;
        if !self.ready.back_mut().is_some_and(|last| last.extend(&data)) {
            self.ready.push_back(Piece::new(data));
        }
        self.ready_end += len;
        len
    }

    /// The next bytes, at most `max` of them; `None` if there are none. Nothing is copied.
    pub(super) fn read(&mut self, max: usize) -> Option<Bytes> {
        let first = self.ready.front_mut().filter(|_| max > 0)?;
        let bytes = first.split_to(max.min(first.len()));
        if first.len() == 0 {
            self.ready.pop_front();
        }
        self.read += bytes.len() as u64;
        Some(bytes)
    }

    /// Drops everything that is not read, and its memory.
    pub(super) fn discard(&mut self) {
        *self = Self { read: self.read, ready_end: self.read, ..Self::default() };
    }
}
