//! The bonds this end accepted, and which of their link numbers are taken.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::crypto::{BondKeys, BondOrigin};
use crate::handshake::{Acceptance, Intent, Refusal, TokenId};
use crate::id::{BondId, LinkId, PublicKey};
use crate::limits::{BONDS_MAX, ENDED_ATTEMPTS_MAX, HANDSHAKE_TIMEOUT, JOIN_WINDOW, LINKS_MAX};
use crate::time::Instant;

/// An OPEN whose initiator has proved its key.
pub(crate) struct OpenRequest<'a> {
    pub(crate) now: Instant,
    pub(crate) peer: PublicKey,
    pub(crate) attempt: [u8; 16],
    pub(crate) link: LinkId,
    pub(crate) intent: Intent,
    /// The listening point that the link came in by.
    pub(crate) via: u32,
    /// The token that the initiator has proved, too.
    pub(crate) token: Option<TokenId>,
    pub(crate) initiator_random: &'a [u8; 32],
    pub(crate) responder_random: &'a [u8; 32],
}

/// What a link needs to join a bond.
pub(crate) struct JoinTicket {
    pub(crate) keys: BondKeys,
    pub(crate) peer: PublicKey,
    pub(crate) opener: LinkId,
}

/// The initiator's key and the attempt id: what names a bond before it has an id.
type AttemptName = (PublicKey, [u8; 16]);

/// All bonds, by id and by the attempt that made them.
#[derive(Default)]
pub(super) struct BondTable {
    bonds: BTreeMap<BondId, Bond>,
    attempts: BTreeMap<AttemptName, BondId>,
    ended: EndedAttempts,
    /// Bonds so far: their order of age.
    opened: u64,
}

struct Bond {
    keys: BondKeys,
    peer: PublicKey,
    attempt: [u8; 16],
    opener: LinkId,
    opener_random: [u8; 32],
    taken: TakenLinks,
    links: usize,
    age: u64,
}

impl BondTable {
    pub(super) fn len(&self) -> usize {
        self.bonds.len()
    }

    pub(super) fn ticket(&self, bond: BondId) -> Option<JoinTicket> {
        let Bond { keys, peer, opener, .. } = self.bonds.get(&bond)?;
        Some(JoinTicket { keys: keys.clone(), peer: *peer, opener: *opener })
    }

    pub(super) fn peer_of(&self, bond: BondId) -> Option<PublicKey> {
        self.bonds.get(&bond).map(|bond| bond.peer)
    }

    pub(super) fn take_link(&mut self, bond: BondId, link: LinkId) -> Option<Result<(), Refusal>> {
        self.bonds.get_mut(&bond).map(|bond| bond.take_link(link))
    }

    /// Opens a bond, or joins the one that another link of the same attempt has opened.
    /// The peer may have `peer_max` bonds.
    pub(super) fn open(
        &mut self,
        request: &OpenRequest<'_>,
        own: PublicKey,
        peer_max: usize,
    ) -> Result<Acceptance, Refusal> {
        let attempt = (request.peer, request.attempt);
        let known = self.attempts.get(&attempt).copied();
        if let Some(bond) = known.and_then(|id| self.bonds.get_mut(&id)) {
            bond.take_link(request.link)?;
            return Ok(bond.acceptance(false, Vec::new()));
        }

        if self.ended.contains(request.now, attempt) {
            return Err(Refusal::AttemptEnded);
        }
        let keys = BondKeys::derive(&BondOrigin {
            initiator_random: request.initiator_random,
            responder_random: request.responder_random,
            initiator: request.peer,
            responder: own,
        });
        let evicted = self.make_room(request.now, request.peer, peer_max)?;
        self.opened += 1;
        let mut bond = Bond {
            peer: request.peer,
            attempt: request.attempt,
            opener: request.link,
            opener_random: *request.responder_random,
            taken: TakenLinks::default(),
            // The opener's own; the caller counts from here on.
            links: 1,
            age: self.opened,
            keys,
        };
        bond.taken.take(request.link);
        let acceptance = bond.acceptance(true, evicted);
        self.attempts.insert(attempt, bond.keys.id());
        self.bonds.insert(bond.keys.id(), bond);
        Ok(acceptance)
    }

    /// Makes room for one more bond of `peer` and tells which bonds go for it. Its own without links go: most likely it
    /// has restarted and lost them. If it still has too many, so does the one with the fewest links, the oldest first: a
    /// peer that restarts again and again gets in, and harms only itself. Others' bonds go only without links.
    fn make_room(&mut self, now: Instant, peer: PublicKey, peer_max: usize) -> Result<Vec<BondId>, Refusal> {
        let (mut victims, linked): (Vec<_>, Vec<_>) = self.of(peer).partition(|(_, links)| *links == 0);
        if linked.len() >= peer_max {
            victims.extend(linked.into_iter().min_by_key(|(_, links)| *links));
        } else if victims.is_empty() && self.bonds.len() >= BONDS_MAX {
            let unused = self.bonds.iter().filter(|(_, bond)| bond.links == 0);
            let oldest = unused.min_by_key(|(_, bond)| bond.age).ok_or(Refusal::TooManyBonds)?;
            victims.push((*oldest.0, 0));
        }
        let victims: Vec<_> = victims.into_iter().map(|(id, _)| id).collect();
        victims.iter().for_each(|id| self.forget(now, *id));
        Ok(victims)
    }

    pub(super) fn set_links(&mut self, bond: BondId, links: usize) {
        if let Some(bond) = self.bonds.get_mut(&bond) {
            bond.links = links;
        }
    }

    pub(super) fn forget(&mut self, now: Instant, bond: BondId) {
        if let Some(bond) = self.bonds.remove(&bond) {
            let attempt = (bond.peer, bond.attempt);
            self.attempts.remove(&attempt);
            self.ended.add(now, attempt);
        }
    }

    pub(super) fn of(&self, peer: PublicKey) -> impl Iterator<Item = (BondId, usize)> + '_ {
        let mut bonds: Vec<_> =
            self.bonds.values().filter(|bond| bond.peer == peer).map(|bond| (bond.age, bond)).collect();
        bonds.sort_unstable_by_key(|(age, _)| *age);
        bonds.into_iter().map(|(_, bond)| (bond.keys.id(), bond.links))
    }
}

impl Bond {
    fn take_link(&mut self, link: LinkId) -> Result<(), Refusal> {
        // First the number: a replay must get no answer, not even that there is no room.
        if !self.taken.take(link) {
            return Err(Refusal::LinkIdTaken);
        }
        if self.links < LINKS_MAX { Ok(()) } else { Err(Refusal::TooManyLinks) }
    }

    fn acceptance(&self, new: bool, evicted: Vec<BondId>) -> Acceptance {
        let Self { keys, opener, opener_random, .. } = self;
        Acceptance::Bond { keys: keys.clone(), opener: *opener, opener_random: *opener_random, new, evicted }
    }
}

/// Attempts whose bonds have ended a moment ago. An OPEN3 of such an attempt may still be under way on another link; it
/// must not make a bond that its initiator has left.
#[derive(Default)]
struct EndedAttempts(VecDeque<(Instant, AttemptName)>);

impl EndedAttempts {
    fn add(&mut self, now: Instant, attempt: AttemptName) {
        self.drop_old(now);
        if self.0.len() >= ENDED_ATTEMPTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((now, attempt));
    }

    fn contains(&mut self, now: Instant, attempt: AttemptName) -> bool {
        self.drop_old(now);
        self.0.iter().any(|(_, ended)| *ended == attempt)
    }

    /// After the time for a handshake no exchange is left that began before the bond's end.
    fn drop_old(&mut self, now: Instant) {
        while self.0.front().is_some_and(|(at, _)| now - *at > HANDSHAKE_TIMEOUT) {
            self.0.pop_front();
        }
    }
}

/// Link numbers that were taken: a window below the highest, as a receiver of IPsec keeps it (RFC 4303 section 3.4.3).
/// Numbers below the window count as taken, so its size does not depend on how a peer chooses its numbers.
#[derive(Default)]
struct TakenLinks {
    /// One more than the highest taken.
    end: u32,
    /// Bit `n % JOIN_WINDOW` is number `n`, for those in the window.
    window: [u64; WORDS],
}

const WORDS: usize = JOIN_WINDOW as usize / 64;

impl TakenLinks {
    /// Takes `link`; `false` if it was taken, or lies below the window.
    fn take(&mut self, link: LinkId) -> bool {
        let number = link.0;
        if number >= self.end {
            let passed = number - self.end;
            if passed >= JOIN_WINDOW {
                self.window = [0; WORDS];
            } else {
                (self.end..number).for_each(|skipped| self.set(skipped, false));
            }
            self.end = number.saturating_add(1);
        } else if self.end - number > JOIN_WINDOW || self.get(number) {
            return false;
        }
        self.set(number, true);
        true
    }

    fn place(number: u32) -> (usize, u64) {
        let bit = number % JOIN_WINDOW;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn get(&self, number: u32) -> bool {
        let (word, mask) = Self::place(number);
        self.window[word] & mask != 0
    }

    fn set(&mut self, number: u32, taken: bool) {
        let (word, mask) = Self::place(number);
        if taken {
            self.window[word] |= mask;
        } else {
            self.window[word] &= !mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BONDS_PER_PEER_MAX;
    use crate::time::Duration;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    const OWN: PublicKey = PublicKey([9; 32]);
    const NOW: Instant = Instant::from_nanos(1 << 40);

    fn open(
        table: &mut BondTable,
        peer: u8,
        attempt: u16,
        link: u32,
    ) -> Result<(BondId, bool, Vec<BondId>), Refusal> {
        open_at(NOW, table, peer, attempt, link)
    }

    fn open_at(
        now: Instant,
        table: &mut BondTable,
        peer: u8,
        attempt: u16,
        link: u32,
    ) -> Result<(BondId, bool, Vec<BondId>), Refusal> {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&attempt.to_be_bytes());
        let mut random = [peer; 32];
        random[..2].copy_from_slice(&attempt.to_be_bytes());
        let request = OpenRequest {
            now,
            peer: PublicKey([peer; 32]),
            attempt: id,
            link: LinkId(link),
            intent: Intent::Open,
            via: 0,
            token: None,
            initiator_random: &random,
            responder_random: &[link as u8; 32],
        };
        match table.open(&request, OWN, BONDS_PER_PEER_MAX)? {
            Acceptance::Bond { keys, new, evicted, .. } => Ok((keys.id(), new, evicted)),
            Acceptance::Checked { .. } => unreachable!(),
        }
    }

    #[test]
    fn one_attempt_makes_one_bond() {
        let mut table = BondTable::default();
        let (bond, new, _) = open(&mut table, 1, 1, 3).unwrap();
        assert!(new);
        assert_eq!(open(&mut table, 1, 1, 0), Ok((bond, false, Vec::new())));
        assert_eq!(open(&mut table, 1, 1, 3), Err(Refusal::LinkIdTaken));
        assert_ne!(open(&mut table, 1, 2, 3).unwrap().0, bond);
        assert_ne!(open(&mut table, 2, 1, 3).unwrap().0, bond);
        assert_eq!(table.len(), 3);
        assert_eq!(table.attempts.len(), table.bonds.len());
    }

    #[test]
    fn a_late_open_does_not_bring_an_ended_bond_back() {
        let mut table = BondTable::default();
        let bond = open(&mut table, 1, 1, 0).unwrap().0;
        table.forget(NOW, bond);
        assert!(table.ticket(bond).is_none());
        let last = NOW + HANDSHAKE_TIMEOUT;
        assert_eq!(open_at(last, &mut table, 1, 1, 1), Err(Refusal::AttemptEnded));
        assert!(open_at(last, &mut table, 1, 2, 0).unwrap().1, "another attempt of this peer");
        assert!(open_at(last, &mut table, 2, 1, 0).unwrap().1, "another peer's attempt");
        // Whoever still asks after that has not heard of the end, and wants a bond.
        assert!(open_at(last + Duration::from_nanos(1), &mut table, 1, 1, 2).unwrap().1);
        assert!(table.ended.0.is_empty());
    }

    #[test]
    fn ended_attempts_are_remembered_up_to_a_bound() {
        let mut ended = EndedAttempts::default();
        let attempt = |n: usize| (OWN, (n as u128).to_be_bytes());
        (0..=ENDED_ATTEMPTS_MAX).for_each(|n| ended.add(NOW, attempt(n)));
        assert_eq!(ended.0.len(), ENDED_ATTEMPTS_MAX);
        assert!(!ended.contains(NOW, attempt(0)));
        assert!(ended.contains(NOW, attempt(1)) && ended.contains(NOW, attempt(ENDED_ATTEMPTS_MAX)));
    }

    #[test]
    fn a_new_bond_takes_the_place_of_those_of_its_peer_without_links() {
        let mut table = BondTable::default();
        let [first, second, third] = [0, 1, 2].map(|attempt| open(&mut table, 1, attempt, 0).unwrap().0);
        let other = open(&mut table, 2, 0, 0).unwrap().0;
        [third, first, other].iter().for_each(|bond| table.set_links(*bond, 0));
        let (fourth, _, evicted) = open(&mut table, 1, 3, 0).unwrap();
        assert_eq!(evicted, [first, third], "the oldest first");
        assert!(table.of(PublicKey([1; 32])).eq([(second, 1), (fourth, 1)]));
        assert!(table.ticket(other).is_some(), "another peer's bond stays");
        assert_eq!(open(&mut table, 1, 0, 1), Err(Refusal::AttemptEnded));
    }

    #[test]
    fn a_peer_with_too_many_bonds_loses_the_one_with_the_fewest_links() {
        let mut table = BondTable::default();
        let mut bonds = Vec::new();
        for attempt in 0..BONDS_PER_PEER_MAX as u16 {
            bonds.push(open(&mut table, 1, attempt, 0).unwrap().0);
        }
        open(&mut table, 2, 0, 0).unwrap();
        bonds.iter().for_each(|bond| table.set_links(*bond, 3));
        table.set_links(bonds[5], 2);
        table.set_links(bonds[9], 2);
        for (attempt, victim) in [(100, 5), (101, 9), (102, 0)] {
            let (bond, _, evicted) = open(&mut table, 1, attempt, 0).unwrap();
            assert_eq!(evicted, [bonds[victim]]);
            table.set_links(bond, 3);
        }
        assert_eq!(table.of(PublicKey([1; 32])).count(), BONDS_PER_PEER_MAX);
        assert_eq!(table.of(PublicKey([1; 32])).next().map(|(id, _)| id), Some(bonds[1]));
        assert_eq!(table.len(), BONDS_PER_PEER_MAX + 1);
        assert_eq!(table.attempts.len(), table.bonds.len());
    }

    #[test]
    fn a_full_table_gives_way_only_where_a_bond_has_no_links() {
        let mut table = BondTable::default();
        let mut first = None;
        for n in 0..BONDS_MAX {
            let bond = open(&mut table, (n / BONDS_PER_PEER_MAX) as u8, n as u16, 0).unwrap().0;
            first.get_or_insert(bond);
            // 256 keys of one byte would not be enough to fill the table honestly.
            table.bonds.get_mut(&bond).unwrap().peer.0[1] = (n / BONDS_PER_PEER_MAX / 256) as u8;
        }
        assert_eq!(open(&mut table, 255, 9999, 0), Err(Refusal::TooManyBonds));
        table.set_links(first.unwrap(), 0);
        assert_eq!(open(&mut table, 254, 9998, 0).map(|opened| opened.2), Ok(Vec::from_iter(first)));
    }

    #[test]
    fn a_bond_has_at_most_so_many_links() {
        let mut table = BondTable::default();
        let (bond, ..) = open(&mut table, 1, 1, 0).unwrap();
        table.set_links(bond, LINKS_MAX);
        assert_eq!(table.take_link(bond, LinkId(1)), Some(Err(Refusal::TooManyLinks)));
        assert_eq!(table.take_link(bond, LinkId(1)), Some(Err(Refusal::LinkIdTaken)));
        table.set_links(bond, LINKS_MAX - 1);
        assert_eq!(table.take_link(bond, LinkId(2)), Some(Ok(())));
        assert_eq!(table.take_link(bond, LinkId(2)), Some(Err(Refusal::LinkIdTaken)));
    }

    proptest! {
        #[test]
        fn a_link_number_is_taken_once(numbers in proptest::collection::vec(0..3 * JOIN_WINDOW, 1..400)) {
            let mut taken = TakenLinks::default();
            let mut model = BTreeSet::new();
            for number in numbers {
                let highest = model.last().copied().unwrap_or(0);
                let fresh = number + JOIN_WINDOW > highest && !model.contains(&number);
                prop_assert_eq!(taken.take(LinkId(number)), fresh, "{} after {}", number, highest);
                if fresh {
                    model.insert(number);
                }
            }
        }
    }
}
