use std::fmt;

/// Packets to send, one behind the other in one reusable buffer:
/// `headroom | packet | headroom | packet | …`.
///
/// The headroom belongs to the link ([`PacketWriter::headroom_bytes`](super::PacketWriter::headroom_bytes)): a byte
/// stream puts a length there and writes the whole buffer with one system call.
#[derive(Default)]
pub struct PacketBatch {
    buffer: Vec<u8>,
    /// Where each packet ends in `buffer`; the next one's headroom starts there.
    ends: Vec<usize>,
    headroom_bytes: usize,
}

impl PacketBatch {
    /// An empty batch with `headroom_bytes` in front of each packet.
    pub fn new(headroom_bytes: usize) -> Self {
        Self { headroom_bytes, ..Self::default() }
    }

    /// Forgets the packets and keeps the memory.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.ends.clear();
    }

    /// Number of packets.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes in front of each packet.
    pub fn headroom_bytes(&self) -> usize {
        self.headroom_bytes
    }

    /// All of it, headrooms included.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Adds a copy of `packet`.
    pub fn push(&mut self, packet: &[u8]) {
        self.push_with(|buffer, _| buffer.extend_from_slice(packet));
    }

    /// Adds what `fill` appends to the buffer as one packet; `fill` is told where the packet starts in it, and
    /// must leave what is before that alone.
    pub(crate) fn push_with<T>(&mut self, fill: impl FnOnce(&mut Vec<u8>, usize) -> T) -> T {
        let start = self.buffer.len() + self.headroom_bytes;
        self.buffer.resize(start, 0);
        let result = fill(&mut self.buffer, start);
        debug_assert!(self.buffer.len() >= start, "a packet was filled backwards");
        self.ends.push(self.buffer.len());
        result
    }

    /// The packets, in order.
    pub fn packets(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let packet = &self.buffer[start + self.headroom_bytes..end];
            start = end;
            packet
        })
    }

    /// Each packet with the headroom in front of it, in order.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = (&mut [u8], &mut [u8])> {
        let headroom_bytes = self.headroom_bytes;
        let mut rest = self.buffer.as_mut_slice();
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(end - start);
            rest = behind;
            start = end;
            part.split_at_mut(headroom_bytes)
        })
    }
}

impl fmt::Debug for PacketBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketBatch({} packets, {} bytes)", self.ends.len(), self.buffer.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_and_headrooms_lie_where_they_should() {
        let mut batch = PacketBatch::new(2);
        batch.push(b"one");
        batch.push(b"");
        batch.push(b"three");
        for (headroom, packet) in batch.parts_mut() {
            headroom.copy_from_slice(&(packet.len() as u16).to_be_bytes());
        }
        assert_eq!(batch.as_bytes(), b"\0\x03one\0\0\0\x05three");
        assert_eq!(batch.packets().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        assert_eq!(batch.len(), 3);

        batch.clear();
        assert!(batch.is_empty());
        assert_eq!(batch.packets().count(), 0);
        batch.push(b"x");
        assert_eq!(batch.as_bytes(), b"\0\0x");
    }
}
