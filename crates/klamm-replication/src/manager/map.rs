//! The partitions of this broker, by name and by topic id.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;
use hashbrown::{Equivalent, HashMap};
use klamm_records::{TopicPartition, Uuid};

use super::partition::Partition;

const SHARDS: usize = 16;

/// What this broker has of a partition.
#[derive(Clone, Debug)]
pub(crate) enum Hosted {
    /// A replica that can serve.
    Online(Arc<Partition>),
    /// A replica whose log cannot be opened or whose disk has failed.
    Offline,
}

/// Read by every request, written only when replicas come and go.
#[derive(Debug)]
pub(crate) struct PartitionMap {
    hasher: RandomState,
    names: [Shard<TopicPartition>; SHARDS],
    ids: [Shard<(Uuid, i32)>; SHARDS],
}

type Shard<K> = RwLock<HashMap<K, Hosted, RandomState>>;

/// A [`TopicPartition`] that borrows its name.
#[derive(Debug)]
struct NameRef<'a>(&'a str, i32);

impl Hash for NameRef<'_> {
    /// As the derived hash of [`TopicPartition`].
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        self.1.hash(state);
    }
}

impl Equivalent<TopicPartition> for NameRef<'_> {
    fn equivalent(&self, key: &TopicPartition) -> bool {
        *self.0 == *key.topic && self.1 == key.partition
    }
}

impl Default for PartitionMap {
    fn default() -> Self {
        PartitionMap {
            hasher: RandomState::default(),
            names: std::array::from_fn(|_| RwLock::new(HashMap::default())),
            ids: std::array::from_fn(|_| RwLock::new(HashMap::default())),
        }
    }
}

impl PartitionMap {
    pub(crate) fn by_name(&self, topic: &str, partition: i32) -> Option<Hosted> {
        self.get(&self.names, &NameRef(topic, partition))
    }

    pub(crate) fn by_id(&self, topic_id: Uuid, partition: i32) -> Option<Hosted> {
        self.get(&self.ids, &(topic_id, partition))
    }

    pub(crate) fn insert(&self, name: &TopicPartition, topic_id: Uuid, hosted: Hosted) {
        let shard = self.shard(&self.ids, &(topic_id, name.partition));
        write(shard).insert((topic_id, name.partition), hosted.clone());
        let shard = self.shard(&self.names, name);
        write(shard).insert(name.clone(), hosted);
    }

    pub(crate) fn remove(&self, name: &TopicPartition, topic_id: Uuid) -> Option<Hosted> {
        let shard = self.shard(&self.names, name);
        write(shard).remove(name);
        let shard = self.shard(&self.ids, &(topic_id, name.partition));
        write(shard).remove(&(topic_id, name.partition))
    }

    /// All replicas that can serve, ordered by name.
    pub(crate) fn online(&self) -> Vec<Arc<Partition>> {
        let mut all = Vec::new();
        for shard in &self.names {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.values().filter_map(|hosted| match hosted {
                Hosted::Online(partition) => Some(Arc::clone(partition)),
                Hosted::Offline => None,
            }));
        }
        all.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// How many replicas cannot serve.
    pub(crate) fn offline_count(&self) -> usize {
        let offline = |shard: &Shard<TopicPartition>| {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            let count = shard
                .values()
                .filter(|hosted| matches!(hosted, Hosted::Offline));
            count.count()
        };
        self.names.iter().map(offline).sum()
    }

    fn get<K, Q>(&self, shards: &[Shard<K>; SHARDS], key: &Q) -> Option<Hosted>
    where
        K: Hash + Eq,
        Q: Hash + Equivalent<K>,
    {
        let shard = self.shard(shards, key);
        let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
        shard.get(key).cloned()
    }

    fn shard<'a, K, Q: Hash>(&self, shards: &'a [Shard<K>; SHARDS], key: &Q) -> &'a Shard<K> {
        // The map itself uses the low bits.
        let index = self.hasher.hash_one(key) >> 48;
        &shards[index as usize % SHARDS]
    }
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_borrowed_name_hashes_like_an_owned_one() {
        let hasher = RandomState::default();
        let owned = TopicPartition::new("topic", 3);
        assert_eq!(
            hasher.hash_one(&owned),
            hasher.hash_one(NameRef("topic", 3))
        );
        let map = PartitionMap::default();
        let id = Uuid::from_bytes([1; 16]);
        map.insert(&owned, id, Hosted::Offline);
        assert!(map.by_name("topic", 3).is_some() && map.by_id(id, 3).is_some());
        assert!(map.by_name("topic", 4).is_none() && map.by_name("topi", 3).is_none());
        assert_eq!(map.offline_count(), 1);
        assert!(map.remove(&owned, id).is_some());
        assert!(map.by_name("topic", 3).is_none() && map.by_id(id, 3).is_none());
    }
}
