//! For which partitions the share coordinator has, gets or loses state: the record
//! `ShareGroupStatePartitionMetadata`.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ByteStr;
use klamm_protocol::group_records::ShareGroupStatePartitionMetadataValue;
use klamm_protocol::group_records::share_group_state_partition_metadata_value::{
    TopicInfo, TopicPartitionsInfo,
};
use klamm_records::Uuid;

/// Partitions of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicStates {
    /// Its name.
    pub name: ByteStr,
    /// The partitions.
    pub partitions: BTreeSet<i32>,
    /// When the record was replayed, in wall milliseconds: an initialisation that takes too long
    /// is begun again.
    pub since_ms: i64,
}

/// Topics by id.
pub(super) type Topics = BTreeMap<Uuid, TopicStates>;

/// Which partitions of a group have share state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareStates {
    /// The share coordinator was asked to make state for these.
    pub initializing: Topics,
    /// These have state.
    pub initialized: Topics,
    /// The state of these topics is being deleted.
    pub deleting: BTreeMap<Uuid, ByteStr>,
}

impl ShareStates {
    /// What a record says.
    pub(super) fn from_record(value: &ShareGroupStatePartitionMetadataValue, now_ms: i64) -> Self {
        let topics = |topics: &[TopicPartitionsInfo]| {
            let topics = topics.iter().map(|topic| {
                let states = TopicStates {
                    name: topic.topic_name.detached(),
                    partitions: topic.partitions.iter().copied().collect(),
                    since_ms: now_ms,
                };
                (topic.topic_id, states)
            });
            topics.collect()
        };
        ShareStates {
            initializing: topics(&value.initializing_topics),
            initialized: topics(&value.initialized_topics),
            deleting: value
                .deleting_topics
                .iter()
                .map(|topic| (topic.topic_id, topic.topic_name.detached()))
                .collect(),
        }
    }

    /// The value of its record.
    pub(super) fn to_record(&self) -> ShareGroupStatePartitionMetadataValue {
        let topics = |topics: &Topics| {
            let topics = topics.iter().map(|(id, topic)| TopicPartitionsInfo {
                topic_id: *id,
                topic_name: topic.name.clone(),
                partitions: topic.partitions.iter().copied().collect(),
                ..TopicPartitionsInfo::default()
            });
            topics.collect()
        };
        let deleting = self.deleting.iter().map(|(id, name)| TopicInfo {
            topic_id: *id,
            topic_name: name.clone(),
            ..TopicInfo::default()
        });
        ShareGroupStatePartitionMetadataValue {
            initializing_topics: topics(&self.initializing),
            initialized_topics: topics(&self.initialized),
            deleting_topics: deleting.collect(),
            ..ShareGroupStatePartitionMetadataValue::default()
        }
    }

    /// State of these is to be made.
    pub(super) fn begin_initializing(&mut self, topics: &Topics) {
        add(&mut self.initializing, topics);
        self.deleting.retain(|id, _| !topics.contains_key(id));
    }

    /// State of these is there.
    pub(super) fn initialized(&mut self, topics: &Topics) {
        remove(&mut self.initializing, topics);
        add(&mut self.initialized, topics);
    }

    /// State of these could not be made.
    pub(super) fn not_initialized(&mut self, topics: &Topics) {
        remove(&mut self.initializing, topics);
    }

    /// Every partition that has state or may have.
    pub(super) fn all(&self) -> Topics {
        let mut all = self.initialized.clone();
        add(&mut all, &self.initializing);
        all
    }
}

fn add(to: &mut Topics, topics: &Topics) {
    for (id, topic) in topics {
        let entry = to.entry(*id).or_insert_with(|| TopicStates {
            partitions: BTreeSet::new(),
            ..topic.clone()
        });
        entry.partitions.extend(&topic.partitions);
        entry.since_ms = topic.since_ms;
    }
}

fn remove(from: &mut Topics, topics: &Topics) {
    for (id, topic) in topics {
        if let Some(entry) = from.get_mut(id) {
            entry.partitions.retain(|p| !topic.partitions.contains(p));
        }
    }
    from.retain(|_, topic| !topic.partitions.is_empty());
}
