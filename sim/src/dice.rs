//! Everything random in a run, from one seed.

use bondwire_core::time::Duration;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// A seeded source of choices. Each part of a run has its own, so that one more roll in one part leaves the others
/// as they were.
#[derive(Debug)]
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    /// The dice of one `part` of the run with this `seed`.
    pub(crate) fn new(seed: u64, part: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(part);
        Self(rng)
    }

    /// A number below `bound`; 0 if `bound` is 0. The bias of the multiplication is far below what a run can show.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.0.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number in `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// A number in `low..=high` whose order of magnitude is even: as many in 1..10 as in 1000..10 000.
    pub(crate) fn skewed(&mut self, low: u64, high: u64) -> u64 {
        let (low_bits, high_bits) = ((low.max(1)).ilog2(), high.max(1).ilog2());
        let magnitude = self.between(u64::from(low_bits), u64::from(high_bits));
        let floor = 1_u64 << magnitude;
        (floor + self.below(floor)).clamp(low, high)
    }

    /// A time in `low..=high`, skewed as [`Dice::skewed`] is.
    pub(crate) fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.skewed(micros(low), micros(high)))
    }

    /// True in `percent` of a hundred.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// True in `permille` of a thousand; rolls nothing when it cannot be.
    pub(crate) fn permille(&mut self, permille: u64) -> bool {
        permille > 0 && self.below(1000) < permille
    }

    /// One of `choices`, which must not be empty.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// An index below `len`.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// 32 bytes to seed something with entropy of its own.
    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_rolls_and_parts_differ() {
        let rolls = |seed, part| {
            let mut dice = Dice::new(seed, part);
            (0..50).map(|_| dice.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(rolls(1, 2), rolls(1, 2));
        assert_ne!(rolls(1, 2), rolls(1, 3));
        assert_ne!(rolls(1, 2), rolls(2, 2));
    }

    #[test]
    fn rolls_stay_in_bounds() {
        let mut dice = Dice::new(7, 0);
        for _ in 0..2000 {
            assert!((3..=9).contains(&dice.between(3, 9)));
            assert!((5..=70_000).contains(&dice.skewed(5, 70_000)));
            assert!((1..=1).contains(&dice.skewed(0, 1).max(1)));
        }
        assert_eq!(dice.below(0), 0);
    }
}
