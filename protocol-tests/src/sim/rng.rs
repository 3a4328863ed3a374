//! The one source of chance of a run: SplitMix64 (Steele, Lea, Flood 2014), because a seed must mean the same for ever.

/// A stream of numbers that its seed decides.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for one part of the run: what that part draws does not shift what the others get.
    #[must_use]
    pub fn fork(&self, part: &str) -> Self {
        let hash = part.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(Self(self.0 ^ hash).next_u64())
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = u64::try_from(high - low + 1).expect("low is not above high");
        low + (self.next_u64() % span).cast_signed()
    }

    /// An index below `len`.
    pub fn below(&mut self, len: usize) -> usize {
        usize::try_from(self.next_u64() % len as u64).expect("below len")
    }

    /// True in `percent` of a hundred draws.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.next_u64() % 100 < percent
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Milliseconds between these two, the short ones as likely as the long ones (log-uniform).
    pub fn wait_ms(&mut self, low: u64, high: u64) -> std::time::Duration {
        let (low, high) = (low.max(1), high.max(1));
        let doublings = (high / low).max(1).ilog2();
        let base = low << self.below(doublings as usize + 1);
        std::time::Duration::from_millis((base + self.next_u64() % base).clamp(low, high))
    }
}
