//! Flap damping: a link that falls silent again and again is held back for a while each time it returns.
//!
//! While held it is used only if there is nothing else, as if its policy said so.

use crate::time::{Duration, Instant};

/// Silences within [`MEMORY`] of one another that are borne: a link may well fail and return twice.
const SILENCES_BORNE: u32 = 2;
/// Time after which a silence is forgotten.
const MEMORY: Duration = Duration::from_secs(60);
/// How long the link is held back the first time; doubles with each further silence.
const HOLD_MIN: Duration = Duration::from_secs(2);
/// Longest time that a link is held back.
const HOLD_MAX: Duration = Duration::from_secs(60);

/// What is remembered of a link's silences.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hold {
    /// Silences, each within [`MEMORY`] of the one before.
    silences: u32,
    last_at: Option<Instant>,
    until: Option<Instant>,
}

impl Hold {
    /// The link fell silent.
    pub(crate) fn on_silence(&mut self, now: Instant) {
        let again = self.last_at.is_some_and(|last| now - last < MEMORY);
        self.silences = if again { self.silences.saturating_add(1) } else { 1 };
        self.last_at = Some(now);
        self.until = None;
    }

    /// The link answers again. From now on it is held back, if it has fallen silent too often.
    pub(crate) fn on_return(&mut self, now: Instant) {
        if let Some(beyond) = self.silences.checked_sub(SILENCES_BORNE + 1) {
            // Six doublings reach the longest time.
            let hold = (HOLD_MIN * (1 << beyond.min(6))).min(HOLD_MAX);
            self.until = Some(now + hold);
        }
    }

    /// Until when the link is held back, if it is.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Ends the hold if its time has come; answers whether it did.
    pub(crate) fn end_if_due(&mut self, now: Instant) -> bool {
        let due = self.until.is_some_and(|until| until <= now);
        if due {
            self.until = None;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_third_silence_in_a_row_holds_the_link_back() {
        let mut hold = Hold::default();
        let mut now = Instant::ZERO;
        let mut holds = alloc::vec::Vec::new();
        for _ in 0..10 {
            now += SECOND;
            hold.on_silence(now);
            assert_eq!(hold.until(), None, "a silent link is suspect, not held");
            hold.on_return(now);
            holds.push(hold.until().map(|until| (until - now).as_secs()));
        }
        let expected =
            [None, None, Some(2), Some(4), Some(8), Some(16), Some(32), Some(60), Some(60), Some(60)];
        assert_eq!(holds, expected);
        assert!(!hold.end_if_due(now + SECOND * 59) && hold.end_if_due(now + SECOND * 60));
        assert_eq!(hold.until(), None);
    }

    #[test]
    fn rare_silences_are_forgotten() {
        let mut hold = Hold::default();
        for minute in 1..20 {
            let now = Instant::ZERO + SECOND * 60 * minute;
            hold.on_silence(now);
            hold.on_return(now);
            assert_eq!(hold.until(), None);
        }
    }
}
