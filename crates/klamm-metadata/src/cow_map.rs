//! An ordered map whose copies share what they have in common.
//!
//! Entries lie sorted in chunks of up to [`CHUNK_MAX`], each behind an `Arc`, and so does the list
//! of chunks. Copying the map copies one pointer. A change copies the list (one pointer per chunk)
//! and one chunk, and leaves all others shared: a delta over a map of a hundred thousand entries
//! touches a few kilobytes.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A chunk that grows over this many entries is cut in two.
const CHUNK_MAX: usize = 64;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// A copy-on-write map ordered by key. `V` should be cheap to copy; wrap what is not in an `Arc`.
pub struct CowMap<K, V> {
    /// No chunk is empty.
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

impl<K, V> Clone for CowMap<K, V> {
    fn clone(&self) -> Self {
        CowMap {
            chunks: Arc::clone(&self.chunks),
            len: self.len,
        }
    }
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        CowMap {
            chunks: Arc::new(Vec::new()),
            len: 0,
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for CowMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for CowMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks)
            || self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K, V> CowMap<K, V> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.iter().map(|(k, v)| (k, v)))
    }

    /// All keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord + Clone, V: Clone> CowMap<K, V> {
    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let chunk = &self.chunks[self.chunk_of(key)?];
        let at = chunk.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        Some(&chunk[at].1)
    }

    /// Whether a key is present.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The value of a key, to be changed; copies its chunk if it is shared.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let index = self.chunk_of(key)?;
        let at = self.chunks[index]
            .binary_search_by(|(k, _)| k.borrow().cmp(key))
            .ok()?;
        let chunk = &mut Arc::make_mut(&mut self.chunks)[index];
        Some(&mut Arc::make_mut(chunk)[at].1)
    }

    /// Sets the value of a key; returns what it was.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let index = self.chunk_of(&key).unwrap_or(0);
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.is_empty() {
            chunks.push(Arc::default());
        }
        let chunk = Arc::make_mut(&mut chunks[index]);
        match chunk.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(at) => return Some(std::mem::replace(&mut chunk[at].1, value)),
            Err(at) => chunk.insert(at, (key, value)),
        }
        self.len += 1;
        if chunk.len() > CHUNK_MAX {
            // Keys mostly arrive in order: a full last chunk stays full and a new one begins.
            let keep = if index + 1 == chunks.len() {
                CHUNK_MAX
            } else {
                CHUNK_MAX / 2
            };
            let rest = Arc::make_mut(&mut chunks[index]).split_off(keep);
            chunks.insert(index + 1, Arc::new(rest));
        }
        None
    }

    /// Removes a key; returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let index = self.chunk_of(key)?;
        let at = self.chunks[index]
            .binary_search_by(|(k, _)| k.borrow().cmp(key))
            .ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[index]);
        let (_, value) = chunk.remove(at);
        if chunk.is_empty() {
            chunks.remove(index);
        }
        self.len -= 1;
        Some(value)
    }

    /// Entries from the first key that is not before `from`, in order.
    pub fn range_from<'a, Q: Ord + ?Sized>(
        &'a self,
        from: &Q,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let first = self.chunk_of(from).unwrap_or(0);
        let skip = self
            .chunks
            .get(first)
            .map_or(0, |chunk| chunk.partition_point(|(k, _)| k.borrow() < from));
        self.chunks[first.min(self.chunks.len())..]
            .iter()
            .flat_map(|chunk| chunk.iter().map(|(k, v)| (k, v)))
            .skip(skip)
    }

    /// The chunk that holds `key` or would take it; `None` if there are no chunks.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        if self.chunks.is_empty() {
            return None;
        }
        let after = self
            .chunks
            .partition_point(|chunk| chunk[0].0.borrow() <= key);
        Some(after.saturating_sub(1))
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for CowMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = CowMap::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn copies_are_unaffected_by_later_changes() {
        let mut map: CowMap<i32, i32> = (0..1000).map(|n| (n, n)).collect();
        let before = map.clone();
        map.insert(5, 50);
        map.remove(&6);
        *map.get_mut(&7).unwrap() = 70;
        assert_eq!(
            (before.get(&5), before.get(&6), before.get(&7)),
            (Some(&5), Some(&6), Some(&7))
        );
        assert_eq!(
            (map.get(&5), map.get(&6), map.get(&7)),
            (Some(&50), None, Some(&70))
        );
        assert_eq!((before.len(), map.len()), (1000, 999));
    }

    #[test]
    fn a_change_leaves_the_other_chunks_shared() {
        let map: CowMap<i32, i32> = (0..1000).map(|n| (n, n)).collect();
        let mut copy = map.clone();
        copy.insert(500, 0);
        let shared = map
            .chunks
            .iter()
            .zip(copy.chunks.iter())
            .filter(|(a, b)| Arc::ptr_eq(a, b));
        assert_eq!(shared.count(), map.chunks.len() - 1);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u16, u16),
        Remove(u16),
        Update(u16, u16),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0..600_u16, any::<u16>()).prop_map(|(k, v)| Op::Insert(k, v)),
            2 => (0..600_u16).prop_map(Op::Remove),
            1 => (0..600_u16, any::<u16>()).prop_map(|(k, v)| Op::Update(k, v)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_a_btree_map(ops in prop::collection::vec(op(), 0..800), from in 0..700_u16) {
            let mut map = CowMap::default();
            let mut model = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Insert(k, v) => prop_assert_eq!(map.insert(k, v), model.insert(k, v)),
                    Op::Remove(k) => prop_assert_eq!(map.remove(&k), model.remove(&k)),
                    Op::Update(k, v) => {
                        let found = map.get_mut(&k).map(|value| *value = v);
                        prop_assert_eq!(found, model.get_mut(&k).map(|value| *value = v));
                    }
                }
                prop_assert_eq!(map.len(), model.len());
            }
            prop_assert!(map.iter().eq(model.iter()));
            prop_assert!(map.range_from(&from).eq(model.range(from..)));
            prop_assert!((0..700_u16).all(|k| map.get(&k) == model.get(&k)));
        }
    }
}
