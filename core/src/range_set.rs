//! A set of 64-bit numbers kept as ranges: bytes of a stream, or packet numbers of a link.

use alloc::collections::VecDeque;
use core::fmt;
use core::ops::Range;

/// A set of numbers, kept as half-open ranges that neither touch nor overlap.
///
/// Finding a place takes a binary search. The two ends, where nearly all changes happen, change at once; a change
/// among thousands of ranges moves those on its shorter side. An empty range, or one that ends before it starts,
/// holds no number and changes nothing.
///
/// ```
/// use bondwire_core::range_set::RangeSet;
/// let mut unsent = RangeSet::new();
/// assert_eq!(unsent.insert(0..100), 100);
/// assert_eq!(unsent.remove(10..20), 10);
/// assert_eq!(unsent.insert(5..15), 5);
/// assert!(unsent.iter().eq([0..15, 20..100]));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Sorted; between two neighbours lies at least one number.
    ranges: VecDeque<Range<u64>>,
    covered: u64,
}

impl RangeSet {
    /// The empty set; takes no memory until the first insertion.
    pub const fn new() -> Self {
        Self { ranges: VecDeque::new(), covered: 0 }
    }

    /// Adds the numbers of `range`; returns how many were not yet there.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let added = match self.ranges.back_mut() {
            Some(last) if range.start < last.start => self.insert_before_last(range),
            Some(last) if range.start <= last.end => {
                let added = range.end.saturating_sub(last.end);
                last.end += added;
                added
            }
            _ => {
                let added = amount(&range);
                self.ranges.push_back(range);
                added
            }
        };
        self.covered += added;
        added
    }

    fn insert_before_last(&mut self, range: Range<u64>) -> u64 {
        // The ranges from..to overlap the new one or touch it, and become one with it.
        let from = self.ranges.partition_point(|r| r.end < range.start);
        let to = self.ranges.partition_point(|r| r.start <= range.end);
        if from == to {
            let added = amount(&range);
            self.ranges.insert(from, range);
            return added;
        }
        let merged = range.start.min(self.ranges[from].start)..range.end.max(self.ranges[to - 1].end);
        let added = amount(&merged) - self.amount_of(from..to);
        self.ranges[from] = merged;
        self.delete(from + 1..to);
        added
    }

    /// Removes the numbers of `range`; returns how many were there.
    pub fn remove(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        // The ranges from..to overlap the one to go.
        let from = self.ranges.partition_point(|r| r.end <= range.start);
        let to = self.ranges.partition_point(|r| r.start < range.end);
        if from == to {
            return 0;
        }
        let head = self.ranges[from].start..range.start;
        let tail = range.end..self.ranges[to - 1].end;
        let removed = self.amount_of(from..to) - amount(&head) - amount(&tail);
        match (head.is_empty(), tail.is_empty()) {
            (true, true) => self.delete(from..to),
            (false, true) => {
                self.ranges[from] = head;
                self.delete(from + 1..to);
            }
            (true, false) => {
                self.ranges[to - 1] = tail;
                self.delete(from..to - 1);
            }
            (false, false) if to - from == 1 => {
                self.ranges[from] = tail;
                self.ranges.insert(from, head);
            }
            (false, false) => {
                self.ranges[from] = head;
                self.ranges[to - 1] = tail;
                self.delete(from + 1..to - 1);
            }
        }
        self.covered -= removed;
        removed
    }

    /// Removes and returns the lowest numbers that lie together, `max` of them at most; `None` from the empty set and
    /// for `max` 0.
    pub fn pop_front_up_to(&mut self, max: u64) -> Option<Range<u64>> {
        let first = self.ranges.front_mut().filter(|_| max > 0)?;
        let popped = first.start..first.end.min(first.start.saturating_add(max));
        first.start = popped.end;
        if first.is_empty() {
            self.ranges.pop_front();
        }
        self.covered -= amount(&popped);
        Some(popped)
    }

    /// Removes and returns the lowest numbers at or above `from` that lie together, `max_len` of them at most; `None`
    /// if none lie there, and for `max_len` 0.
    pub fn take_at(&mut self, from: u64, max_len: u64) -> Option<Range<u64>> {
        let start = self.next_at(from)?;
        let taken = start.start..start.end.min(start.start.saturating_add(max_len));
        self.remove(taken.clone());
        Some(taken).filter(|taken| !taken.is_empty())
    }

    /// The lowest numbers at or above `from` that lie together, all of them.
    pub fn next_at(&self, from: u64) -> Option<Range<u64>> {
        let index = self.ranges.partition_point(|r| r.end <= from);
        self.ranges.get(index).map(|r| r.start.max(from)..r.end)
    }

    /// The number that has exactly `n` numbers of the set below it; `None` if the set has no more than `n`. Walks the
    /// ranges from the front.
    pub fn nth(&self, mut n: u64) -> Option<u64> {
        for range in &self.ranges {
            if n < amount(range) {
                return Some(range.start + n);
            }
            n -= amount(range);
        }
        None
    }

    /// Drops all but the highest `n` ranges.
    pub fn retain_last(&mut self, n: usize) {
        let surplus = self.ranges.len().saturating_sub(n);
        self.covered -= self.amount_of(0..surplus);
        self.delete(0..surplus);
    }

    /// Removes everything. Keeps the memory.
    pub fn clear(&mut self) {
        self.ranges.clear();
        self.covered = 0;
    }

    /// Whether `number` is in the set.
    pub fn contains(&self, number: u64) -> bool {
        let index = self.ranges.partition_point(|r| r.end <= number);
        self.ranges.get(index).is_some_and(|r| r.start <= number)
    }

    /// Whether all of `range` is in the set. An empty range is in every set.
    pub fn contains_range(&self, range: Range<u64>) -> bool {
        range.is_empty()
            || self.next_at(range.start).is_some_and(|r| r.start == range.start && range.end <= r.end)
    }

    /// The ranges, lowest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + ExactSizeIterator + Clone {
        self.ranges.iter().cloned()
    }

    /// The lowest range.
    pub fn first(&self) -> Option<Range<u64>> {
        self.ranges.front().cloned()
    }

    /// The highest range.
    pub fn last(&self) -> Option<Range<u64>> {
        self.ranges.back().cloned()
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether no number is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many numbers (of bytes, of packets) are in the set; kept, not counted.
    pub fn covered_bytes(&self) -> u64 {
        self.covered
    }

    fn amount_of(&self, indexes: Range<usize>) -> u64 {
        self.ranges.range(indexes).map(amount).sum()
    }

    fn delete(&mut self, indexes: Range<usize>) {
        if !indexes.is_empty() {
            self.ranges.drain(indexes);
        }
    }
}

/// How many numbers `range` holds.
fn amount(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

impl fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(&self.ranges).finish()
    }
}

impl Extend<Range<u64>> for RangeSet {
    fn extend<I: IntoIterator<Item = Range<u64>>>(&mut self, ranges: I) {
        for range in ranges {
            self.insert(range);
        }
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::new();
        set.extend(ranges);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Few enough numbers that ranges touch, overlap and split all the time.
    const NUMBERS: u64 = 48;

    #[derive(Clone, Debug)]
    enum Op {
        Insert(Range<u64>),
        Remove(Range<u64>),
        PopFrontUpTo(u64),
        TakeAt(u64, u64),
        RetainLast(usize),
    }

    fn any_op() -> impl Strategy<Value = Op> {
        // Some of these are empty or inverted.
        let range = || (0..NUMBERS, 0..10u64).prop_map(|(start, len)| start..(start + len).saturating_sub(1));
        prop_oneof![
            6 => range().prop_map(Op::Insert),
            4 => range().prop_map(Op::Remove),
            1 => (0..6u64).prop_map(Op::PopFrontUpTo),
            2 => (0..NUMBERS + 2, 0..6u64).prop_map(|(from, max_len)| Op::TakeAt(from, max_len)),
            1 => (1..8usize).prop_map(Op::RetainLast),
        ]
    }

    /// The same set, number by number.
    #[derive(Default)]
    struct Model(BTreeSet<u64>);

    impl Model {
        fn ranges(&self) -> Vec<Range<u64>> {
            let mut ranges: Vec<Range<u64>> = Vec::new();
            for &number in &self.0 {
                match ranges.last_mut() {
                    Some(last) if last.end == number => last.end += 1,
                    _ => ranges.push(number..number + 1),
                }
            }
            ranges
        }

        fn take_at(&mut self, from: u64, max_len: u64) -> Option<Range<u64>> {
            let next = next_at(&self.ranges(), from)?;
            let taken = next.start..next.end.min(next.start + max_len);
            self.0.retain(|number| !taken.contains(number));
            Some(taken).filter(|taken| !taken.is_empty())
        }

        fn retain_last(&mut self, n: usize) {
            let ranges = self.ranges();
            let surplus = ranges.len().saturating_sub(n);
            self.0.retain(|number| !ranges[..surplus].iter().any(|r| r.contains(number)));
        }
    }

    fn next_at(ranges: &[Range<u64>], from: u64) -> Option<Range<u64>> {
        ranges.iter().find(|r| r.end > from).map(|r| r.start.max(from)..r.end)
    }

    fn check(set: &RangeSet, model: &Model) {
        let ranges = model.ranges();
        assert!(set.iter().eq(ranges.iter().cloned()), "{set:?} is not {ranges:?}");
        assert!(set.iter().rev().eq(ranges.iter().rev().cloned()));
        assert_eq!((set.len(), set.is_empty()), (ranges.len(), ranges.is_empty()));
        assert_eq!(set.covered_bytes(), model.0.len() as u64);
        assert_eq!((set.first(), set.last()), (ranges.first().cloned(), ranges.last().cloned()));
        for number in 0..=NUMBERS + 10 {
            assert_eq!(set.contains(number), model.0.contains(&number));
            assert_eq!(set.next_at(number), next_at(&ranges, number));
            assert_eq!(set.nth(number), model.0.iter().nth(number as usize).copied());
            let all_there = (number..number + 4).all(|n| model.0.contains(&n));
            assert_eq!(set.contains_range(number..number + 4), all_there);
        }
    }

    proptest! {
        #[test]
        fn does_what_a_set_of_numbers_does(ops in prop::collection::vec(any_op(), 0..60)) {
            let (mut set, mut model) = (RangeSet::new(), Model::default());
            for op in ops {
                match op {
                    Op::Insert(range) => {
                        let added = range.clone().filter(|&number| model.0.insert(number)).count();
                        prop_assert_eq!(set.insert(range), added as u64);
                    }
                    Op::Remove(range) => {
                        let removed = range.clone().filter(|number| model.0.remove(number)).count();
                        prop_assert_eq!(set.remove(range), removed as u64);
                    }
                    Op::PopFrontUpTo(max) => prop_assert_eq!(set.pop_front_up_to(max), model.take_at(0, max)),
                    Op::TakeAt(from, max_len) => {
                        prop_assert_eq!(set.take_at(from, max_len), model.take_at(from, max_len));
                    }
                    Op::RetainLast(n) => {
                        set.retain_last(n);
                        model.retain_last(n);
                    }
                }
                check(&set, &model);
            }
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut set = RangeSet::new();
        assert_eq!(set.insert(0..u64::MAX), u64::MAX);
        assert_eq!(set.insert(5..u64::MAX), 0);
        assert_eq!(set.remove(1..u64::MAX - 1), u64::MAX - 2);
        assert_eq!(set.take_at(2, u64::MAX), Some(u64::MAX - 1..u64::MAX));
        assert_eq!(set.pop_front_up_to(u64::MAX), Some(0..1));
        assert_eq!((set.len(), set.covered_bytes(), set.nth(0)), (0, 0, None));
    }

    #[test]
    fn clear_and_collect() {
        let mut set: RangeSet = [5..7, 0..2, 2..3].into_iter().collect();
        assert!(set.iter().eq([0..3, 5..7]));
        assert_eq!(std::format!("{set:?}"), "{0..3, 5..7}");
        set.clear();
        assert_eq!(set, RangeSet::new());
        assert!(set.contains_range(9..9));
    }
}
