//! When the dialling host dials over a cable: back-off, and replacements for suspect links.

use crate::dice::Dice;
use crate::net::End;
use bondwire_core::id::LinkId;
use bondwire_core::time::{Duration, Instant};

const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// While its link is suspect, a replacement is tried this often for the first minute.
const REPLACE_EVERY: Duration = Duration::from_millis(500);
const REPLACE_EAGERLY_FOR: Duration = Duration::from_secs(60);
const REPLACE_LATER_EVERY: Duration = Duration::from_secs(5);

/// What is to be dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// A link.
    Fresh,
    /// A link in place of this one, which is suspect.
    Replace(LinkId),
}

/// Keeps one cable's link up.
#[derive(Debug)]
pub(crate) struct Dialer {
    link: Option<(End, LinkId)>,
    suspect_since: Option<Instant>,
    dialling: Option<End>,
    next: Instant,
    back_off: Duration,
    /// Whether two sessions of the cable may exist at once; otherwise a suspect link is waited for.
    replaces: bool,
}

impl Dialer {
    pub(crate) fn new(now: Instant, replaces: bool) -> Self {
        Self { link: None, suspect_since: None, dialling: None, next: now, back_off: BACK_OFF_MIN, replaces }
    }

    /// When [`Dialer::wish`] has something.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let waits = self.dialling.is_some() || (self.link.is_some() && !self.may_replace());
        (!waits).then_some(self.next)
    }

    /// What to dial now.
    pub(crate) fn wish(&self, now: Instant) -> Option<Wish> {
        self.poll_timeout().filter(|&at| at <= now)?;
        Some(self.link.map_or(Wish::Fresh, |(_, link)| Wish::Replace(link)))
    }

    /// The cable's link, if it is up.
    pub(crate) fn link(&self) -> Option<LinkId> {
        self.link.map(|(_, link)| link)
    }

    pub(crate) fn on_dialled(&mut self, end: End) {
        self.dialling = Some(end);
    }

    /// Nothing was plugged in, or a handshake failed.
    pub(crate) fn on_failed(&mut self, now: Instant, dice: &mut Dice) {
        self.dialling = None;
        let wait = if let Some(since) = self.suspect_since {
            if now - since < REPLACE_EAGERLY_FOR { REPLACE_EVERY } else { REPLACE_LATER_EVERY }
        } else {
            let wait = self.back_off;
            self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
            wait
        };
        self.next = now + wait / 2 + wait * u32::try_from(dice.below(512)).unwrap_or(0) / 1024;
    }

    pub(crate) fn on_up(&mut self, end: End, link: LinkId) {
        self.dialling = None;
        self.suspect_since = None;
        self.back_off = BACK_OFF_MIN;
        self.link = Some((end, link));
    }

    /// An end of this cable is gone.
    pub(crate) fn on_gone(&mut self, now: Instant, end: End, dice: &mut Dice) {
        if self.dialling == Some(end) {
            self.on_failed(now, dice);
        }
        if self.link.is_some_and(|(own, _)| own == end) {
            self.link = None;
            self.suspect_since = None;
            if self.dialling.is_none() {
                self.on_failed(now, dice);
            }
        }
    }

    pub(crate) fn on_suspect(&mut self, now: Instant, link: LinkId) {
        if self.link() == Some(link) {
            self.suspect_since = Some(now);
            self.next = now + REPLACE_EVERY;
        }
    }

    /// The link answers again; the answer is the replacement that is no longer wanted.
    pub(crate) fn on_answered(&mut self, link: LinkId) -> Option<End> {
        if self.link() != Some(link) {
            return None;
        }
        self.suspect_since = None;
        self.dialling.take()
    }

    fn may_replace(&self) -> bool {
        self.replaces && self.suspect_since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::SessionId;

    fn end(session: u32) -> End {
        End { session: SessionId(session), side: 0 }
    }

    #[test]
    fn failures_back_off_and_success_forgets_them() {
        let mut dice = Dice::new(1, 1);
        let mut now = Instant::ZERO;
        let mut dialer = Dialer::new(now, true);
        let mut waits = Vec::new();
        for session in 0..12 {
            assert_eq!(dialer.wish(now), Some(Wish::Fresh));
            dialer.on_dialled(end(session));
            assert_eq!(dialer.wish(now), None);
            dialer.on_failed(now, &mut dice);
            let next = dialer.poll_timeout().unwrap();
            waits.push(next - now);
            now = next;
        }
        assert!(waits[0] <= BACK_OFF_MIN && *waits.last().unwrap() >= BACK_OFF_MAX / 2);
        assert!(waits.iter().all(|&wait| wait <= BACK_OFF_MAX));
        dialer.on_up(end(20), LinkId(3));
        dialer.on_gone(now, end(20), &mut dice);
        assert!(dialer.poll_timeout().unwrap() - now <= BACK_OFF_MIN);
    }

    #[test]
    fn a_suspect_link_is_replaced_only_where_that_works() {
        let now = Instant::ZERO;
        for replaces in [true, false] {
            let mut dialer = Dialer::new(now, replaces);
            dialer.on_up(end(0), LinkId(0));
            assert_eq!(dialer.poll_timeout(), None);
            dialer.on_suspect(now, LinkId(0));
            let wish = dialer.wish(now + REPLACE_EVERY);
            assert_eq!(wish, replaces.then_some(Wish::Replace(LinkId(0))));
            dialer.on_dialled(end(1));
            assert_eq!(dialer.on_answered(LinkId(0)), Some(end(1)));
            assert_eq!(dialer.poll_timeout(), None);
        }
    }
}
