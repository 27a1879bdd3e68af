/// Numbers of sessions: each follows from the one before, and all from the seed (SplitMix64; Steele, Lea and Flood, 2014).
/// They tell sessions apart and are no secret.
#[derive(Clone, Debug)]
pub(crate) struct Nonces(u64);

impl Nonces {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
