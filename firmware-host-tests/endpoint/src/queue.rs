//! Packets that wait, in memory of the caller.

/// Bytes in front of each packet: its length.
pub(crate) const PREFIX_BYTES: usize = 2;

/// First in, first out. Each packet lies in one piece, so the end of the memory stays unused while the next packet does not
/// fit there. With memory for one packet more than the credits allow, that never makes it full.
#[derive(Debug)]
pub(crate) struct PacketQueue<'b> {
    memory: &'b mut [u8],
    /// Where the first packet begins, and where the next one will.
    read: usize,
    write: usize,
    /// Packets go on at the beginning of the memory behind here.
    wrapped_at: Option<usize>,
    packets: usize,
}

/// The packet does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full;

impl<'b> PacketQueue<'b> {
    pub(crate) fn new(memory: &'b mut [u8]) -> Self {
        Self { memory, read: 0, write: 0, wrapped_at: None, packets: 0 }
    }

    pub(crate) fn clear(&mut self) {
        (self.read, self.write, self.wrapped_at, self.packets) = (0, 0, None, 0);
    }

    pub(crate) fn len(&self) -> usize {
        self.packets
    }

    pub(crate) fn push(&mut self, packet: &[u8]) -> Result<(), Full> {
        if self.packets == 0 {
            self.clear();
        }
        let length = u16::try_from(packet.len()).map_err(|_| Full)?.to_be_bytes();
        let needed = PREFIX_BYTES + packet.len();
        let at = self.place(needed).ok_or(Full)?;
        let place = self.memory.get_mut(at..at + needed).ok_or(Full)?;
        let (prefix, body) = place.split_at_mut(PREFIX_BYTES);
        prefix.copy_from_slice(&length);
        body.copy_from_slice(packet);
        self.write = at + needed;
        self.packets += 1;
        Ok(())
    }

    /// Where so many bytes are free in one piece.
    fn place(&mut self, needed: usize) -> Option<usize> {
        let end = if self.wrapped_at.is_some() { self.read } else { self.memory.len() };
        if end - self.write >= needed {
            return Some(self.write);
        }
        if self.wrapped_at.is_none() && self.read >= needed {
            self.wrapped_at = Some(self.write);
            return Some(0);
        }
        None
    }

    /// The packet that came first.
    pub(crate) fn front(&self) -> Option<&[u8]> {
        if self.packets == 0 {
            return None;
        }
        let (length, rest) = self.memory.get(self.read..)?.split_first_chunk::<PREFIX_BYTES>()?;
        rest.get(..usize::from(u16::from_be_bytes(*length)))
    }

    /// Drops it.
    pub(crate) fn pop(&mut self) {
        let Some(packet) = self.front() else { return };
        self.read += PREFIX_BYTES + packet.len();
        self.packets -= 1;
        if self.wrapped_at == Some(self.read) {
            (self.read, self.wrapped_at) = (0, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// What the frame layer counts for each packet beside it.
    const OVERHEAD_BYTES: usize = bondwire_frame::FRAME_OVERHEAD_BYTES;
    const MTU_BYTES: usize = 300;

    proptest! {
        /// As long as the credits hold, no packet is refused, and all come out as they went in.
        #[test]
        fn credits_keep_it_from_being_full(
            buffer_bytes in MTU_BYTES + OVERHEAD_BYTES..2000,
            lengths in prop::collection::vec(1..=MTU_BYTES, 1..300),
            pops in prop::collection::vec(any::<bool>(), 300),
        ) {
            let mut memory = vec![0; buffer_bytes + MTU_BYTES + PREFIX_BYTES];
            let mut queue = PacketQueue::new(&mut memory);
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            for (number, (length, pop)) in lengths.into_iter().zip(pops).enumerate() {
                let held = |model: &VecDeque<Vec<u8>>| model.iter().map(|p| p.len() + OVERHEAD_BYTES).sum::<usize>();
                while pop && !model.is_empty() || held(&model) + length + OVERHEAD_BYTES > buffer_bytes {
                    let expected = model.pop_front();
                    prop_assert_eq!(queue.front(), expected.as_deref());
                    queue.pop();
                    if pop && number % 2 == 0 {
                        break;
                    }
                }
                if held(&model) + length + OVERHEAD_BYTES <= buffer_bytes {
                    let packet = vec![number as u8; length];
                    prop_assert_eq!(queue.push(&packet), Ok(()));
                    model.push_back(packet);
                }
                prop_assert_eq!(queue.len(), model.len());
            }
            while let Some(packet) = model.pop_front() {
                prop_assert_eq!(queue.front(), Some(&packet[..]));
                queue.pop();
            }
            prop_assert_eq!(queue.front(), None);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut memory = [0; 10];
        let mut queue = PacketQueue::new(&mut memory);
        assert_eq!(queue.push(&[1; 9]), Err(Full));
        assert_eq!(queue.push(&[1; 8]), Ok(()));
        assert_eq!(queue.push(&[]), Err(Full));
        queue.clear();
        assert_eq!(queue.push(&[2; 4]), Ok(()));
        assert_eq!(queue.front(), Some(&[2; 4][..]));
    }
}
