use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use klamm_env::Rng;

/// Randomness from a seed (SplitMix64). Clones share the sequence; [`SimRng::fork`] starts one of
/// its own, so that one part of a scenario drawing more numbers does not shift another's.
#[derive(Clone)]
pub struct SimRng(Arc<Mutex<u64>>);

impl SimRng {
    /// Randomness that starts from `seed`.
    pub fn new(seed: u64) -> SimRng {
        SimRng(Arc::new(Mutex::new(seed)))
    }

    /// Randomness of its own for the part called `name`; the same name twice gives two different
    /// sequences.
    pub fn fork(&self, name: &str) -> SimRng {
        let mut seed = self.next_u64();
        for byte in name.bytes() {
            seed = (seed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        SimRng::new(seed)
    }

    /// A number in `0..bound`, 0 if `bound` is 0.
    pub fn index(&self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    /// A number in `low..high`; `low` if the range is empty.
    pub fn range(&self, low: i64, high: i64) -> i64 {
        low + self.below(high.saturating_sub(low).max(0) as u64) as i64
    }

    /// True this often in a million.
    pub fn chance(&self, per_million: u32) -> bool {
        self.below(1_000_000) < u64::from(per_million)
    }

    /// True in one case of `of`.
    pub fn one_in(&self, of: u64) -> bool {
        self.below(of) == 0
    }

    /// One of `items`, `None` if there are none.
    pub fn pick<'a, T>(&self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.index(items.len()))
    }

    /// Random bytes.
    pub fn bytes(&self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8))
            .flat_map(|_| self.next_u64().to_le_bytes())
            .collect();
        bytes.truncate(len);
        bytes
    }
}

impl Rng for SimRng {
    fn next_u64(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl fmt::Debug for SimRng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimRng")
    }
}
