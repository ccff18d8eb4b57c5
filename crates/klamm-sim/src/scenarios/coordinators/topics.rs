//! The topics of a run: those that are there, and those that were. Properties number the partitions
//! of all of them through, so that those of a topic that is made again are others.

use std::sync::{Mutex, MutexGuard, PoisonError};

use klamm_coordinator::group::{DeletedTopic, FixedCluster, ListedTopic, TopicsView};
use klamm_protocol::ByteStr;
use klamm_records::Uuid;

/// The topic with data.
pub(super) const DATA: &str = "data";

/// The most partitions that a topic has.
const PARTITIONS_MAX: i32 = 100;

/// A topic, or what was one.
#[derive(Clone, Debug)]
struct Made {
    name: ByteStr,
    id: Uuid,
    partitions: i32,
    is_gone: bool,
}

/// A partition by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    pub(super) name: ByteStr,
    pub(super) topic_id: Uuid,
    pub(super) partition: i32,
}

/// All topics that there were, and the cluster that tells coordinators of those that are.
#[derive(Debug, Default)]
pub(super) struct Topics {
    made: Mutex<Vec<Made>>,
}

impl Topics {
    fn made(&self) -> MutexGuard<'_, Vec<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a topic, unless there is one of this name.
    pub(super) fn make(&self, cluster: &FixedCluster, name: &str, partitions: i32) -> bool {
        let mut made = self.made();
        if made
            .iter()
            .any(|topic| topic.name == name && !topic.is_gone)
        {
            return false;
        }
        let mut bytes = [0x22; 16];
        bytes[0] = made.len() as u8;
        let id = Uuid::from_bytes(bytes);
        made.push(Made {
            name: name.into(),
            id,
            partitions,
            is_gone: false,
        });
        drop(made);
        cluster.change(|topics| {
            topics.version += 1;
            topics.newest_topic_version = topics.version;
            let topic = ListedTopic {
                id,
                partitions: vec![Vec::new(); partitions as usize],
            };
            topics.topics.insert(name.into(), topic);
        });
        true
    }

    /// Deletes a topic, if there is one of this name.
    pub(super) fn remove(&self, cluster: &FixedCluster, name: &str) -> Option<DeletedTopic> {
        let mut made = self.made();
        let present = made
            .iter_mut()
            .find(|topic| topic.name == name && !topic.is_gone)?;
        present.is_gone = true;
        let deleted = DeletedTopic {
            name: present.name.clone(),
            id: present.id,
        };
        drop(made);
        cluster.change(|topics| {
            topics.version += 1;
            topics.topics.remove(name);
        });
        Some(deleted)
    }

    /// The id of the topic of this name; that of the last one, if it is gone.
    pub(super) fn id(&self, name: &str) -> Uuid {
        let made = self.made();
        let newest = made.iter().rev().find(|topic| topic.name == name);
        newest.map_or_else(Uuid::default, |topic| topic.id)
    }

    /// The number of a partition.
    pub(super) fn number(&self, topic_id: Uuid, partition: i32) -> Option<i32> {
        let made = self.made();
        let at = made.iter().position(|topic| topic.id == topic_id)?;
        Some(at as i32 * PARTITIONS_MAX + partition)
    }

    /// The partition of a number.
    pub(super) fn partition(&self, number: i32) -> Option<Numbered> {
        let made = self.made();
        let topic = made.get((number / PARTITIONS_MAX) as usize)?;
        Some(Numbered {
            name: topic.name.clone(),
            topic_id: topic.id,
            partition: number % PARTITIONS_MAX,
        })
    }

    /// The numbers of all partitions of the topics that there are and that `is_wanted`.
    pub(super) fn present(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<i32> {
        let made = self.made();
        let topics = made.iter().enumerate();
        topics
            .filter(|(_, topic)| !topic.is_gone && is_wanted(&topic.name))
            .flat_map(|(at, topic)| {
                let first = at as i32 * PARTITIONS_MAX;
                first..first + topic.partitions
            })
            .collect()
    }
}

/// Topics as request handlers look them up.
pub(super) struct Lookup(pub(super) std::sync::Arc<dyn TopicsView>);

impl klamm_coordinator::TopicLookup for Lookup {
    fn topic_name(&self, id: Uuid) -> Option<ByteStr> {
        self.0.topic_name(id)
    }

    fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.0.topic_id(name)
    }

    fn has_partition(&self, name: &str, partition: i32) -> bool {
        let count = self.0.partition_count(name);
        count.is_some_and(|count| (0..count).contains(&partition))
    }
}
