//! The last offset of each key in the part of a log that is being compacted.
//!
//! Keys are not kept: 128 bits of a seeded hash stand for them, so that an entry takes 24 bytes
//! whatever its key. Two keys that hash alike would lose a record; with a secret seed that is a
//! matter of 2^-128 a pair, even against somebody who chooses keys.

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Bytes an entry takes.
const SLOT_BYTES: usize = 24;

/// A table of fixed size with linear probing. Memory is taken by [`OffsetMap::begin`] and given
/// back by [`OffsetMap::release`].
#[derive(Debug)]
pub(crate) struct OffsetMap {
    seed: u64,
    /// Entries that the configured memory allows.
    entries_max: usize,
    slots_max: usize,
    /// High and low half of the key's hash, and the offset plus one: zero marks a free slot.
    slots: Vec<[u64; 3]>,
    len: usize,
    latest_offset: i64,
}

impl OffsetMap {
    /// A map of at most `bytes`, filled up to `load_factor`. Takes no memory yet.
    pub(crate) fn new(bytes: usize, load_factor: f64, seed: u64) -> OffsetMap {
        let slots_max = (bytes / SLOT_BYTES).max(2);
        let entries_max = (slots_max as f64 * load_factor) as usize;
        OffsetMap {
            seed,
            // One entry at least, or no clean would ever get on; one slot stays free, or a search
            // for an unknown key would not end.
            entries_max: entries_max.clamp(1, slots_max - 1),
            slots_max,
            slots: Vec::new(),
            len: 0,
            latest_offset: -1,
        }
    }

    /// Empties the map and makes room for as many keys as `offsets` records can have.
    pub(crate) fn begin(&mut self, offsets: u64) {
        let entries = usize::try_from(offsets).unwrap_or(usize::MAX);
        // A tenth more than needed keeps the probes short.
        let wanted = entries.saturating_add(entries / 8).saturating_add(2);
        let slots = wanted.min(self.slots_max);
        self.slots = vec![[0; 3]; slots];
        self.len = 0;
        self.latest_offset = -1;
    }

    /// Gives the memory back.
    pub(crate) fn release(&mut self) {
        self.slots = Vec::new();
        self.len = 0;
    }

    /// Notes a key's newer offset. Returns false, and notes nothing, if the map is full.
    pub(crate) fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let full = self.len >= self.entries_max.min(self.slots.len().saturating_sub(1));
        // As in Kafka a full map takes nothing more, not even a key that it has: what follows
        // must be left to the next clean as a whole.
        if full {
            return false;
        }
        let (hash, slot) = self.find(key);
        if self.slots[slot][2] == 0 {
            self.len += 1;
        }
        self.slots[slot] = [hash[0], hash[1], offset.cast_unsigned().wrapping_add(1)];
        self.latest_offset = offset;
        true
    }

    /// The last offset of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<i64> {
        if self.slots.is_empty() {
            return None;
        }
        let (_, slot) = self.find(key);
        let stored = self.slots[slot][2];
        (stored != 0).then(|| stored.wrapping_sub(1).cast_signed())
    }

    /// The offset up to which the map knows the log; -1 if it knows nothing.
    pub(crate) fn latest_offset(&self) -> i64 {
        self.latest_offset
    }

    /// Notes that the log was read up to `offset`, whether or not there was a key.
    pub(crate) fn set_latest_offset(&mut self, offset: i64) {
        self.latest_offset = offset;
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The filled share of the memory that the configuration allows.
    pub(crate) fn utilization(&self) -> f64 {
        self.len as f64 / self.slots_max as f64
    }

    /// The hash of a key, and its slot or the free one where it belongs.
    fn find(&self, key: &[u8]) -> ([u64; 2], usize) {
        let hash = xxh3_128_with_seed(key, self.seed);
        let hash = [(hash >> 64) as u64, hash as u64];
        let count = self.slots.len();
        // The upper half of the product spreads the hash over any number of slots.
        let mut slot = ((u128::from(hash[1]) * count as u128) >> 64) as usize;
        loop {
            let known = &self.slots[slot];
            if known[2] == 0 || known[..2] == hash {
                return (hash, slot);
            }
            slot = if slot + 1 == count { 0 } else { slot + 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_last_offset_of_every_key() {
        let mut map = OffsetMap::new(1 << 20, 0.9, 7);
        map.begin(10_000);
        for offset in 0..10_000_i64 {
            assert!(map.put(format!("key-{}", offset % 3_000).as_bytes(), offset));
        }
        assert_eq!(map.len(), 3_000);
        for key in 0..3_000_i64 {
            let last = if key < 1_000 {
                9_000 + key
            } else {
                6_000 + key
            };
            assert_eq!(map.get(format!("key-{key}").as_bytes()), Some(last));
        }
        assert_eq!(map.get(b"another"), None);
        assert_eq!(map.latest_offset(), 9_999);
    }

    #[test]
    fn is_full_at_the_load_factor_and_usable_up_to_it() {
        let mut map = OffsetMap::new(100 * SLOT_BYTES, 0.5, 1);
        map.begin(1_000_000);
        for offset in 0..50_i64 {
            assert!(map.put(&offset.to_be_bytes(), offset));
        }
        assert!(!map.put(b"one more", 50));
        assert!(
            !map.put(&0_i64.to_be_bytes(), 50),
            "known keys have to wait, too"
        );
        assert_eq!(map.get(&0_i64.to_be_bytes()), Some(0));
        assert_eq!((map.len(), map.latest_offset()), (50, 49));
        assert!((map.utilization() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_load_factor_of_one_still_ends_every_search() {
        let mut map = OffsetMap::new(4 * SLOT_BYTES, 1.0, 1);
        map.begin(100);
        let taken = (0..4_i64).filter(|n| map.put(&n.to_be_bytes(), *n)).count();
        assert_eq!(taken, 3);
        assert_eq!(map.get(b"unknown"), None);
    }

    #[test]
    fn takes_no_more_memory_than_the_offsets_need() {
        let mut map = OffsetMap::new(1 << 30, 0.9, 1);
        assert_eq!(map.slots.capacity(), 0);
        map.begin(1_000);
        assert!(map.slots.capacity() < 1_200);
        for offset in 0..1_000_i64 {
            assert!(map.put(&offset.to_be_bytes(), offset));
        }
        map.release();
        assert_eq!(map.slots.capacity(), 0);
        assert_eq!(map.get(&0_i64.to_be_bytes()), None);
    }

    #[test]
    fn an_empty_map_knows_nothing() {
        let mut map = OffsetMap::new(1 << 20, 0.9, 1);
        assert_eq!(map.get(b"k"), None);
        map.begin(0);
        assert_eq!((map.get(b"k"), map.latest_offset()), (None, -1));
    }
}
