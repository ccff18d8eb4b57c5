use std::sync::Arc;

use klamm_protocol::metadata::{PartitionChangeRecord, PartitionRecord, TopicRecord};
use klamm_records::Uuid;

use super::{MetadataDelta, TopicDelta};
use crate::cow_map::CowMap;
use crate::error::ReplayError;
use crate::image::{ConfigResource, PartitionImage, TopicImage};

impl MetadataDelta {
    pub(super) fn create_topic(&mut self, record: &TopicRecord) -> Result<(), ReplayError> {
        let topics = Arc::make_mut(&mut self.image.topics);
        if let Some(existing) = topics.by_name(&record.name) {
            return Err(ReplayError::DuplicateTopic {
                name: record.name.to_string(),
                id: existing.id,
            });
        }
        topics.insert(Arc::new(TopicImage {
            name: Arc::from(&*record.name),
            id: record.topic_id,
            partitions: CowMap::default(),
        }));
        let created = TopicDelta {
            created: true,
            ..TopicDelta::default()
        };
        self.changed_topics.insert(record.topic_id, created);
        Ok(())
    }

    pub(super) fn set_partition(&mut self, record: &PartitionRecord) -> Result<(), ReplayError> {
        let partition = PartitionImage::from_record(record)?;
        let topic = self.topic_mut(record.topic_id)?;
        let previous = topic
            .partitions
            .insert(record.partition_id, Arc::new(partition));
        if previous.is_none() {
            Arc::make_mut(&mut self.image.topics).partition_count += 1;
        }
        self.note_partition(record.topic_id, record.partition_id);
        Ok(())
    }

    pub(super) fn change_partition(
        &mut self,
        change: &PartitionChangeRecord,
    ) -> Result<(), ReplayError> {
        let topic = self.topic_mut(change.topic_id)?;
        let Some(partition) = topic.partitions.get_mut(&change.partition_id) else {
            return Err(ReplayError::UnknownPartition {
                topic: topic.name.to_string(),
                partition: change.partition_id,
            });
        };
        *partition = Arc::new(partition.merge(change)?);
        self.note_partition(change.topic_id, change.partition_id);
        Ok(())
    }

    pub(super) fn remove_topic(&mut self, id: Uuid) -> Result<(), ReplayError> {
        let topic = Arc::make_mut(&mut self.image.topics)
            .remove(id)
            .ok_or(ReplayError::UnknownTopic { id })?;
        self.changed_topics.remove(&id);
        // A topic's configs end with it, without records of their own.
        let resource = ConfigResource::topic(&topic.name);
        if Arc::make_mut(&mut self.image.configs)
            .resources
            .remove(&resource)
            .is_some()
        {
            self.changed_configs.insert(resource);
        }
        if let Some(topic) = self.base.topic_by_id(id) {
            self.deleted_topics.insert(id, Arc::clone(topic));
        }
        Ok(())
    }

    /// Forgets the eligible leader replicas of a topic, or of all topics if the name is empty.
    pub(super) fn clear_elr(&mut self, name: &str) -> Result<(), ReplayError> {
        let topics = &self.image.topics;
        let ids: Vec<Uuid> = if name.is_empty() {
            topics.by_id.keys().copied().collect()
        } else {
            let unknown = || ReplayError::UnknownTopicName {
                name: name.to_owned(),
            };
            vec![topics.by_name(name).ok_or_else(unknown)?.id]
        };
        for id in ids {
            let has_elr = |p: &PartitionImage| !p.elr.is_empty() || !p.last_known_elr.is_empty();
            let topic = self
                .image
                .topics
                .by_id(id)
                .ok_or(ReplayError::UnknownTopic { id })?;
            let partitions: Vec<i32> = topic
                .partitions()
                .filter(|(_, p)| has_elr(p))
                .map(|(index, _)| index)
                .collect();
            for index in partitions {
                if let Some(partition) = self.topic_mut(id)?.partitions.get_mut(&index) {
                    let partition = Arc::make_mut(partition);
                    partition.elr.clear();
                    partition.last_known_elr.clear();
                    partition.partition_epoch += 1;
                }
                self.note_partition(id, index);
            }
        }
        Ok(())
    }

    fn topic_mut(&mut self, id: Uuid) -> Result<&mut TopicImage, ReplayError> {
        Arc::make_mut(&mut self.image.topics)
            .by_id
            .get_mut(&id)
            .map(Arc::make_mut)
            .ok_or(ReplayError::UnknownTopic { id })
    }

    fn note_partition(&mut self, id: Uuid, partition: i32) {
        self.changed_topics
            .entry(id)
            .or_default()
            .partitions
            .insert(partition);
    }
}
