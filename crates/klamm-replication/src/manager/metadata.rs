//! Following the metadata: which replicas this broker has, and in which role.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use klamm_log::{Log, LogConfig, LogError, ManagerError};
use klamm_metadata::{ConfigResource, MetadataDelta, MetadataImage, PartitionImage, TopicImage};
use klamm_records::produce::ProduceRules;
use klamm_records::{TopicPartition, Uuid};

use super::map::Hosted;
use super::partition::Partition;
use super::quota::ThrottledPartitions;
use super::{ReplicaManager, lock};
use crate::partition::{BrokerLiveness, PartitionMetadata, Transition};

/// The configs of a topic that replication acts on.
#[derive(Clone, Debug)]
pub struct TopicSettings {
    /// The log's.
    pub log: LogConfig,
    /// What produced batches must fulfil. The request's version is filled in per request.
    pub rules: ProduceRules,
    /// `min.insync.replicas`.
    pub min_insync_replicas: i32,
    /// `leader.replication.throttled.replicas`, those of this broker.
    pub leader_throttled: ThrottledPartitions,
    /// `follower.replication.throttled.replicas`, those of this broker.
    pub follower_throttled: ThrottledPartitions,
}

impl Default for TopicSettings {
    /// Kafka's defaults.
    fn default() -> Self {
        TopicSettings {
            log: LogConfig::default(),
            rules: ProduceRules::default(),
            min_insync_replicas: 1,
            leader_throttled: ThrottledPartitions::None,
            follower_throttled: ThrottledPartitions::None,
        }
    }
}

/// What a change of the metadata did to this broker's replicas. Coordinators load and unload by it.
#[derive(Debug, Default)]
pub struct ReplicaChanges {
    /// Partitions that this broker leads in a new epoch.
    pub elected: Vec<Elected>,
    /// Partitions that this broker led until now, with the epoch in which it does not lead any
    /// more; `None` if the replica is gone.
    pub resigned: Vec<(TopicPartition, Option<i32>)>,
    /// Partitions that this broker follows in a new epoch.
    pub following: Vec<Following>,
    /// Partitions that this broker has no replica of any more, with their topics' ids.
    pub removed: Vec<(TopicPartition, Uuid)>,
    /// Replicas that could not be opened; they answer with `KAFKA_STORAGE_ERROR`.
    pub failed: Vec<(TopicPartition, ManagerError)>,
}

/// A partition that this broker leads in a new epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elected {
    /// The partition.
    pub partition: TopicPartition,
    /// Its topic's id.
    pub topic_id: Uuid,
    /// The new leader epoch.
    pub leader_epoch: i32,
}

/// A partition that this broker follows in a new epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Following {
    /// The partition.
    pub partition: TopicPartition,
    /// Its topic's id.
    pub topic_id: Uuid,
    /// Whom it follows; `None` while there is no leader.
    pub leader: Option<i32>,
}

/// A replica of this broker as the metadata wants it.
struct Assignment<'a> {
    topic: &'a TopicImage,
    index: i32,
    metadata: &'a PartitionImage,
    settings: Arc<TopicSettings>,
}

impl From<&PartitionImage> for PartitionMetadata {
    fn from(image: &PartitionImage) -> PartitionMetadata {
        PartitionMetadata {
            replicas: image.replicas.clone(),
            isr: image.isr.clone(),
            adding: image.adding_replicas.clone(),
            removing: image.removing_replicas.clone(),
            leader: image.leader,
            leader_epoch: image.leader_epoch,
            partition_epoch: image.partition_epoch,
        }
    }
}

/// Broker `id` as the metadata shows it.
fn liveness(image: &MetadataImage, id: i32) -> BrokerLiveness {
    image
        .broker(id)
        .map_or_else(BrokerLiveness::default, |broker| BrokerLiveness {
            epoch: Some(broker.epoch),
            fenced: broker.fenced,
            shutting_down: broker.in_controlled_shutdown,
        })
}

impl ReplicaManager {
    /// Follows a change of the metadata: deletes, makes and opens logs, becomes leader or
    /// follower, takes over configs. `settings` gives the configs of a topic under the new image.
    ///
    /// Blocks on the file system. Calls must come in the order of the images; the first one is
    /// [`MetadataDelta::from_nothing`].
    pub fn apply_metadata(
        &self,
        delta: &MetadataDelta,
        image: &Arc<MetadataImage>,
        settings: &dyn Fn(&str) -> TopicSettings,
    ) -> ReplicaChanges {
        let inner = &*self.0;
        let _one_at_a_time = lock(&inner.changes);
        let mut changes = ReplicaChanges::default();
        // Requests see the image before the replicas move: a topic that is new or gone is named
        // by the image, and whether this broker serves it by the replicas.
        inner.image.store(Arc::clone(image));
        for (&id, topic) in delta.deleted_topics() {
            for (partition, _) in topic.partitions() {
                self.remove(topic.name(), id, partition, &mut changes);
            }
        }
        for &id in delta.changed_brokers() {
            let liveness = liveness(image, id);
            for partition in inner.partitions.online() {
                partition.set_liveness(id, liveness);
            }
        }
        let mut assignments = Vec::new();
        for (&id, changed) in delta.changed_topics() {
            let Some(topic) = image.topic_by_id(id) else {
                continue;
            };
            let mut topic_settings = None;
            for &index in &changed.partitions {
                let Some(metadata) = topic.partition(index) else {
                    continue;
                };
                if metadata.replicas.contains(&inner.config.node_id) {
                    let settings =
                        topic_settings.get_or_insert_with(|| Arc::new(settings(topic.name())));
                    assignments.push(Assignment {
                        topic,
                        index,
                        metadata,
                        settings: Arc::clone(settings),
                    });
                } else {
                    self.remove(topic.name(), id, index, &mut changes);
                }
            }
        }
        self.assign_all(&assignments, image, &mut changes);
        self.reconfigure(delta, image, settings);
        changes
    }

    /// Takes on all `assignments`. Logs are read and made, so that this is mostly waiting for disks;
    /// they work best when several wait at once.
    fn assign_all(
        &self,
        assignments: &[Assignment<'_>],
        image: &MetadataImage,
        changes: &mut ReplicaChanges,
    ) {
        let threads = self.0.config.assign_threads.min(assignments.len());
        if threads <= 1 {
            for assignment in assignments {
                self.assign(assignment, image, changes);
            }
            return;
        }
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(assignment) = assignments.get(index) else {
                    return done;
                };
                let mut changes = ReplicaChanges::default();
                self.assign(assignment, image, &mut changes);
                done.push((index, changes));
            }
        };
        let mut done = std::thread::scope(|scope| {
            let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut done = work();
            for worker in workers {
                match worker.join() {
                    Ok(part) => done.extend(part),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            done
        });
        done.sort_unstable_by_key(|(index, _)| *index);
        for (_, made) in done {
            changes.elected.extend(made.elected);
            changes.resigned.extend(made.resigned);
            changes.following.extend(made.following);
            changes.removed.extend(made.removed);
            changes.failed.extend(made.failed);
        }
    }

    /// Takes on the role that the metadata gives to this broker's replica of a partition.
    fn assign(
        &self,
        assignment: &Assignment<'_>,
        image: &MetadataImage,
        changes: &mut ReplicaChanges,
    ) {
        let inner = &*self.0;
        let Assignment {
            topic,
            index,
            metadata,
            ref settings,
        } = *assignment;
        let name = TopicPartition::new(Arc::clone(topic.name()), index);
        let partition = match inner.partitions.by_name(&name.topic, index) {
            Some(Hosted::Online(partition)) if partition.topic_id() == topic.id() => Ok(partition),
            Some(Hosted::Online(former)) => {
                self.remove(topic.name(), former.topic_id(), index, changes);
                self.open(&name, topic.id(), metadata, settings)
            }
            Some(Hosted::Offline) | None => self.open(&name, topic.id(), metadata, settings),
        };
        let now_ms = inner.env.clock.wall_ms();
        let applied = partition.and_then(|partition| {
            let transition = partition.apply(
                &PartitionMetadata::from(metadata),
                &|id| liveness(image, id),
                now_ms,
            )?;
            Ok((partition, transition))
        });
        match applied {
            Ok((partition, transition)) => {
                inner
                    .partitions
                    .insert(&name, topic.id(), Hosted::Online(partition));
                self.report_directory(&name);
                match transition {
                    Transition::Elected { .. } => changes.elected.push(Elected {
                        partition: name,
                        topic_id: topic.id(),
                        leader_epoch: metadata.leader_epoch,
                    }),
                    Transition::Following { resigned } => {
                        if resigned {
                            let epoch = Some(metadata.leader_epoch);
                            changes.resigned.push((name.clone(), epoch));
                        }
                        changes.following.push(Following {
                            partition: name,
                            topic_id: topic.id(),
                            leader: (metadata.leader >= 0).then_some(metadata.leader),
                        });
                    }
                    Transition::Stale | Transition::Unchanged => {}
                }
            }
            Err(error) => {
                tracing::error!(partition = %name, %error, "replica is offline");
                inner.partitions.insert(&name, topic.id(), Hosted::Offline);
                changes.failed.push((name, error));
            }
        }
    }

    fn open(
        &self,
        name: &TopicPartition,
        topic_id: Uuid,
        metadata: &PartitionImage,
        settings: &TopicSettings,
    ) -> Result<Arc<Partition>, ManagerError> {
        let log = match self.open_log(name, topic_id, metadata, settings) {
            Err(ManagerError::Log(LogError::InconsistentTopicId { dir, .. })) => {
                // The topic was deleted and made anew while this broker was down.
                tracing::warn!(dir = %dir.display(), "setting the log of a former topic aside");
                self.0.logs.set_stray(name)?;
                self.open_log(name, topic_id, metadata, settings)?
            }
            opened => opened?,
        };
        self.resume_move(name, topic_id);
        let config = &self.0.config;
        let clock = Arc::clone(&self.0.env.clock);
        Ok(Partition::new(
            name.clone(),
            topic_id,
            config,
            log,
            settings,
            clock,
            Arc::clone(&self.0.follower_synced),
        ))
    }

    /// The log of a replica, made if it is new: in the directory that the metadata names, or in
    /// any if it names none or one that this broker never had.
    fn open_log(
        &self,
        name: &TopicPartition,
        topic_id: Uuid,
        metadata: &PartitionImage,
        settings: &TopicSettings,
    ) -> Result<Arc<Log>, ManagerError> {
        let inner = &*self.0;
        let directory = metadata.directory(inner.config.node_id);
        // A move was interrupted at its very end, or its source was lost after the controller had
        // agreed to the target.
        if inner.logs.get(name).is_none()
            && let Some(future) = inner.logs.future(name)
            && future.topic_id() == Some(topic_id)
            && (inner.logs.future_directory_of(name) == Some(directory)
                || self.all_directories_online())
        {
            inner.logs.promote_future(name)?;
        }
        let named = (!directory.is_reserved()).then_some(directory);
        let create = |directory| {
            let config = settings.log.clone();
            inner.logs.create(name, Some(topic_id), config, directory)
        };
        let known = directory == Uuid::UNASSIGNED_DIR || inner.logs.get(name).is_some();
        if named.is_none() && !known && !self.all_directories_online() {
            // It was in some directory once: perhaps in the one that is offline.
            return Err(ManagerError::NoSuchDirectory(directory));
        }
        match create(named) {
            Err(ManagerError::NoSuchDirectory(_)) if self.all_directories_online() => create(None),
            created => created,
        }
    }

    /// Whether a directory that is not there can hold no replicas: it is not just offline.
    fn all_directories_online(&self) -> bool {
        let directories = self.0.logs.directories();
        directories.iter().all(|directory| directory.online)
    }

    /// Sets aside, by renaming their directories, the logs that the metadata does not assign to
    /// this broker. To be called once, after the first [`ReplicaManager::apply_metadata`] with an
    /// image that is known to be complete. Returns whose logs they were.
    pub fn set_stray_logs_aside(&self) -> Result<Vec<TopicPartition>, ManagerError> {
        let inner = &*self.0;
        let _one_at_a_time = lock(&inner.changes);
        let mut stray = Vec::new();
        for log in inner.logs.logs() {
            let name = log.topic_partition();
            if inner
                .partitions
                .by_name(&name.topic, name.partition)
                .is_none()
            {
                inner.logs.set_stray(name)?;
                stray.push(name.clone());
            }
        }
        for copy in inner.logs.future_logs() {
            let name = copy.topic_partition();
            let hosted = inner.partitions.by_name(&name.topic, name.partition);
            if hosted.is_none() {
                inner.logs.delete_future(name)?;
            }
        }
        Ok(stray)
    }

    /// Upkeep of the logs: flushes, retention, checkpoints (see [`klamm_log::LogManager::tick`]).
    /// Blocks; to be called about every second on a thread of its own. Returns the directories
    /// whose disk failed; their replicas are offline.
    pub fn tick(&self) -> Vec<Uuid> {
        let inner = &*self.0;
        let failed = inner.logs.tick(inner.env.clock.wall_ms());
        if !failed.is_empty() {
            let _one_at_a_time = lock(&inner.changes);
            for partition in inner.partitions.online() {
                if partition.log().is_offline() {
                    partition.retire();
                    inner.partitions.insert(
                        partition.name(),
                        partition.topic_id(),
                        Hosted::Offline,
                    );
                }
            }
        }
        failed
    }

    /// Gives up a replica and its log.
    fn remove(&self, topic: &Arc<str>, topic_id: Uuid, index: i32, changes: &mut ReplicaChanges) {
        let inner = &*self.0;
        let name = TopicPartition::new(Arc::clone(topic), index);
        self.forget_move(&name);
        match inner.partitions.remove(&name, topic_id) {
            Some(Hosted::Online(partition)) => {
                if partition.retire() {
                    changes.resigned.push((name.clone(), None));
                }
            }
            Some(Hosted::Offline) => {}
            None => return,
        }
        changes.removed.push((name.clone(), topic_id));
        if let Err(error) = inner.logs.delete(&name) {
            tracing::error!(partition = %name, %error, "cannot delete the log");
            changes.failed.push((name, error));
        }
    }

    fn reconfigure(
        &self,
        delta: &MetadataDelta,
        image: &MetadataImage,
        settings: &dyn Fn(&str) -> TopicSettings,
    ) {
        let inner = &*self.0;
        let now_ms = inner.env.clock.wall_ms();
        let configure = |topic: &TopicImage| {
            let settings = settings(topic.name());
            for (index, _) in topic.partitions() {
                if let Some(Hosted::Online(partition)) = inner.partitions.by_id(topic.id(), index) {
                    partition.configure(&settings, now_ms);
                    if let Some(copy) = inner.logs.future(partition.name()) {
                        copy.update_config(settings.log.clone());
                    }
                }
            }
        };
        let broker_wide = delta
            .changed_configs()
            .iter()
            .any(|resource| self.concerns_all_topics(resource));
        if broker_wide {
            image.topics().iter().for_each(|topic| configure(topic));
        } else {
            for resource in delta.changed_configs() {
                if resource.resource_type == klamm_metadata::ResourceType::Topic
                    && let Some(topic) = image.topic(&resource.name)
                {
                    configure(topic);
                }
            }
        }
    }

    /// Whether a change of a resource's configs may change the defaults of all topics here: this
    /// broker's, or those of all brokers.
    fn concerns_all_topics(&self, resource: &ConfigResource) -> bool {
        resource.resource_type == klamm_metadata::ResourceType::Broker
            && (resource.name.is_empty() || resource.name.parse() == Ok(self.0.config.node_id))
    }
}
