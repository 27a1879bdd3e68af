//! What an end that stays at one baud rate answers to one that wants to climb (PROTOCOL.md, section 12.7). Without an answer
//! the other would wait for one.

use bondwire_frame::Role;

/// Longest of these messages.
const MESSAGE_MAX_BYTES: usize = 5;

/// What is to be said about the rate.
#[derive(Clone, Debug)]
pub(crate) struct FixedRate {
    /// None on USB, where there is nothing to say.
    baud: Option<u32>,
    /// Number of the change that was asked for.
    refuse: Option<u8>,
    pong: bool,
    done: bool,
}

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Message {
    bytes: [u8; MESSAGE_MAX_BYTES],
    len: usize,
}

impl Message {
    fn new(parts: &[u8]) -> Self {
        let mut bytes = [0; MESSAGE_MAX_BYTES];
        let len = parts.len().min(MESSAGE_MAX_BYTES);
        bytes[..len].copy_from_slice(&parts[..len]);
        Self { bytes, len }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl FixedRate {
    pub(crate) fn new(baud: Option<u32>) -> Self {
        Self { baud, refuse: None, pong: false, done: false }
    }

    /// A session is established: the end that dialled says that it tries no other rate.
    pub(crate) fn begin(&mut self, role: Role) {
        (self.refuse, self.pong, self.done) = (None, false, role == Role::Dialer);
    }

    /// A message of the other end. What this end has no use for is ignored.
    pub(crate) fn on_message(&mut self, message: &[u8]) {
        match *message {
            [1, id, _, _, _, _] => self.refuse = Some(id),
            [10] => self.pong = true,
            _ => {}
        }
    }

    /// The next message to send, if there is one. It stays until [`said`](Self::said).
    pub(crate) fn next(&self) -> Option<Message> {
        let baud = self.baud?;
        if let Some(id) = self.refuse {
            return Some(Message::new(&[3, id]));
        }
        if self.pong {
            return Some(Message::new(&[11]));
        }
        let [a, b, c, d] = baud.to_be_bytes();
        self.done.then(|| Message::new(&[9, a, b, c, d]))
    }

    /// The next message was sent.
    pub(crate) fn said(&mut self) {
        if self.refuse.take().is_none() && !core::mem::take(&mut self.pong) {
            self.done = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    fn all(rate: &mut FixedRate) -> Vec<Vec<u8>> {
        core::iter::from_fn(|| {
            let message = rate.next()?.bytes().to_vec();
            rate.said();
            Some(message)
        })
        .collect()
    }

    #[test]
    fn other_rates_are_refused_and_questions_answered() {
        let mut rate = FixedRate::new(Some(115_200));
        rate.begin(Role::Acceptor);
        assert!(all(&mut rate).is_empty());
        rate.on_message(&[1, 7, 0, 0x0e, 0x10, 0]);
        rate.on_message(&[10]);
        for ignored in [&[][..], &[1, 7], &[2, 7], &[11], &[10, 10], &[99; 32]] {
            rate.on_message(ignored);
        }
        assert_eq!(all(&mut rate), [vec![3, 7], vec![11]]);
    }

    #[test]
    fn who_dialled_says_that_it_stays() {
        let mut rate = FixedRate::new(Some(115_200));
        rate.begin(Role::Dialer);
        assert_eq!(all(&mut rate), [vec![9, 0, 1, 0xc2, 0]]);
        let mut rate = FixedRate::new(None);
        rate.begin(Role::Dialer);
        rate.on_message(&[10]);
        assert_eq!(rate.next(), None, "on USB there are no such messages");
    }
}
