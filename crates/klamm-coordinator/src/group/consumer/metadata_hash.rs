//! The hash by which a group notices that the topics it subscribes to have changed. It is part of
//! the group's record, so it has to be Kafka's to the bit.

use std::collections::BTreeMap;

use klamm_protocol::ByteStr;
use xxhash_rust::xxh3::xxh3_64;

use crate::group::cluster::TopicsView;

/// The version of the way topics are hashed.
const MAGIC: u8 = 0;

/// Hashes of topics as of one view of them.
#[derive(Debug, Default)]
pub(in crate::group) struct TopicHashes {
    version: i64,
    hashes: BTreeMap<ByteStr, Option<u64>>,
}

impl TopicHashes {
    /// The hash of the topics with these names, as far as they exist; 0 if none does.
    pub(in crate::group) fn group_hash<'a>(
        &mut self,
        names: impl Iterator<Item = &'a ByteStr>,
        topics: &dyn TopicsView,
    ) -> i64 {
        if self.version != topics.version() {
            self.version = topics.version();
            self.hashes.clear();
        }
        // Sorted by the names' UTF-16 units in Kafka; topics have ASCII names.
        let mut bytes = Vec::new();
        for name in names {
            if !self.hashes.contains_key(name) {
                self.hashes.insert(name.clone(), topic_hash(name, topics));
            }
            if let Some(Some(hash)) = self.hashes.get(name) {
                bytes.extend(hash.to_le_bytes());
            }
        }
        if bytes.is_empty() {
            return 0;
        }
        xxh3_64(&bytes) as i64
    }
}

/// The hash of a topic's id, name, partitions and racks; none if it does not exist.
fn topic_hash(name: &str, topics: &dyn TopicsView) -> Option<u64> {
    let id = topics.topic_id(name)?;
    let partition_count = topics.partition_count(name)?;
    let (most, least) = crate::group::java::uuid_halves(id);
    let mut bytes = vec![MAGIC];
    bytes.extend(most.to_le_bytes());
    bytes.extend(least.to_le_bytes());
    put_string(&mut bytes, name);
    bytes.extend(partition_count.to_le_bytes());
    for partition in 0..partition_count {
        bytes.extend(partition.to_le_bytes());
        let mut racks = topics.partition_racks(name, partition);
        racks.sort();
        for rack in racks {
            bytes.extend(utf16_len(&rack).to_le_bytes());
            put_string(&mut bytes, &rack);
        }
    }
    Some(xxh3_64(&bytes))
}

/// UTF-16 units, then how many they are.
fn put_string(bytes: &mut Vec<u8>, text: &str) {
    for unit in text.encode_utf16() {
        bytes.extend(unit.to_le_bytes());
    }
    bytes.extend(utf16_len(text).to_le_bytes());
}

fn utf16_len(text: &str) -> i32 {
    i32::try_from(crate::group::java::utf16_len(text)).unwrap_or(i32::MAX)
}
