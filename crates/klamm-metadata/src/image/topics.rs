use std::sync::Arc;

use klamm_records::Uuid;

use super::partition::PartitionImage;
use crate::cow_map::CowMap;

/// A topic and its partitions.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicImage {
    pub(crate) name: Arc<str>,
    pub(crate) id: Uuid,
    pub(crate) partitions: CowMap<i32, Arc<PartitionImage>>,
}

impl TopicImage {
    /// The topic's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The topic's id; a topic that is deleted and made anew gets another one.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// A partition by index.
    pub fn partition(&self, index: i32) -> Option<&Arc<PartitionImage>> {
        self.partitions.get(&index)
    }

    /// All partitions by index.
    pub fn partitions(&self) -> impl Iterator<Item = (i32, &Arc<PartitionImage>)> {
        self.partitions
            .iter()
            .map(|(&index, partition)| (index, partition))
    }

    /// Partitions from an index on, by index.
    pub fn partitions_from(&self, index: i32) -> impl Iterator<Item = (i32, &Arc<PartitionImage>)> {
        self.partitions
            .range_from(&index)
            .map(|(&index, partition)| (index, partition))
    }

    /// Number of partitions.
    pub fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    /// Replicas of the topic's first partition; 0 without partitions.
    pub fn replication_factor(&self) -> usize {
        self.partitions
            .values()
            .next()
            .map_or(0, |partition| partition.replicas.len())
    }
}

/// All topics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicsImage {
    pub(crate) by_id: CowMap<Uuid, Arc<TopicImage>>,
    pub(crate) ids: CowMap<Arc<str>, Uuid>,
    /// Topics whose names hold `.` or `_`, by the name with each `.` as `_`: in metric names the
    /// two look alike, so Kafka lets one such name exist only.
    pub(crate) alike: CowMap<String, Arc<[Arc<str>]>>,
    pub(crate) partition_count: usize,
}

impl TopicsImage {
    /// A topic by its name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.by_id.get(self.ids.get(name)?)
    }

    /// A topic by its id.
    pub fn by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.by_id.get(&id)
    }

    /// All topics by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.ids.values().filter_map(|id| self.by_id.get(id))
    }

    /// Topics from a name on, by name.
    pub fn iter_from(&self, name: &str) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.ids
            .range_from(name)
            .filter_map(|(_, id)| self.by_id.get(id))
    }

    /// Number of topics.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are no topics.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Number of partitions of all topics.
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// Topics that a new topic of this name could be mistaken for: equal but for `.` and `_`.
    pub fn colliding_with(&self, name: &str) -> &[Arc<str>] {
        unified(name)
            .and_then(|unified| self.alike.get(&unified))
            .map_or(&[], |names| names)
    }

    pub(crate) fn insert(&mut self, topic: Arc<TopicImage>) {
        self.ids.insert(Arc::clone(&topic.name), topic.id);
        if let Some(unified) = unified(&topic.name) {
            let names = self
                .alike
                .get(&unified)
                .into_iter()
                .flat_map(|names| names.iter());
            let names = names.cloned().chain([Arc::clone(&topic.name)]).collect();
            self.alike.insert(unified, names);
        }
        self.partition_count += topic.partitions.len();
        self.by_id.insert(topic.id, topic);
    }

    pub(crate) fn remove(&mut self, id: Uuid) -> Option<Arc<TopicImage>> {
        let topic = self.by_id.remove(&id)?;
        self.ids.remove(&topic.name);
        if let Some(unified) = unified(&topic.name) {
            let names = self.alike.remove(&unified).unwrap_or_default();
            let left: Arc<[_]> = names
                .iter()
                .filter(|name| **name != topic.name)
                .cloned()
                .collect();
            if !left.is_empty() {
                self.alike.insert(unified, left);
            }
        }
        self.partition_count -= topic.partitions.len();
        Some(topic)
    }
}

/// A name with each `.` as `_`; `None` if it has neither.
fn unified(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}
