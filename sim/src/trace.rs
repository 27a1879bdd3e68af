//! What happened in a run: always as a hash, and as text when someone wants to read it.

use crate::content::mix;
use bondwire_core::time::Instant;
use std::fmt;
use std::io::Write;

/// Folds every event of a run into one number; two runs with the same number went the same way.
pub(crate) struct Trace {
    hash: u64,
    now: Instant,
    text: Option<Box<dyn Write>>,
}

impl Trace {
    /// A trace that only hashes.
    pub(crate) fn quiet() -> Self {
        Self { hash: 0, now: Instant::ZERO, text: None }
    }

    /// A trace that also writes a line per event.
    pub(crate) fn to(text: Box<dyn Write>) -> Self {
        Self { text: Some(text), ..Self::quiet() }
    }

    /// The clock moved on.
    pub(crate) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Folds an event into the hash.
    pub(crate) fn note(&mut self, kind: u64, a: u64, b: u64) {
        let event = mix(kind ^ mix(a ^ mix(b ^ self.now.as_nanos())));
        self.hash = mix(self.hash.rotate_left(17) ^ event);
    }

    /// Folds bytes that went over a link into the hash.
    pub(crate) fn bytes(&mut self, kind: u64, bytes: &[u8]) {
        let folded = bytes.chunks(8).fold(bytes.len() as u64, |hash, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            (hash.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(0x9fb2_1c65_1e98_df25)
        });
        self.note(kind, folded, 0);
    }

    /// Writes a line, if someone reads.
    pub(crate) fn line(&mut self, host: &str, line: fmt::Arguments<'_>) {
        if let Some(text) = &mut self.text
            && writeln!(text, "{:?} {host:>4} {line}", self.now).is_err()
        {
            self.text = None; // the reader went away, as `head` does
        }
    }

    /// The hash so far.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({:016x})", self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_time_count() {
        let run = |events: &[(u64, u64)]| {
            let mut trace = Trace::quiet();
            for &(at, kind) in events {
                trace.set_now(Instant::from_nanos(at));
                trace.note(kind, 0, 0);
            }
            trace.hash()
        };
        assert_eq!(run(&[(1, 1), (2, 2)]), run(&[(1, 1), (2, 2)]));
        assert_ne!(run(&[(1, 1), (2, 2)]), run(&[(1, 2), (2, 1)]));
        assert_ne!(run(&[(1, 1), (2, 2)]), run(&[(1, 1), (3, 2)]));
    }
}
