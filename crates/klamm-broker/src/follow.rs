//! From changes of the cluster's metadata to what this broker does about them.

use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use klamm_config::BrokerConfig;
use klamm_config::table::TOPIC_CONFIGS;
use klamm_controller::{MetadataPublisher, MetadataUpdate};
use klamm_coordinator::group::DeletedTopic;
use klamm_coordinator::{GroupCoordinator, ShareStateCoordinator, TransactionCoordinator};
use klamm_metadata::{ConfigResource, MetadataDelta, MetadataImage};
use klamm_protocol::topic_name::{CONSUMER_OFFSETS, SHARE_GROUP_STATE, TRANSACTION_STATE};
use klamm_replication::{ReplicaChanges, ReplicaManager};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::cleaner;
use crate::directories;
use crate::fetchers::Fetchers;
use crate::group_cluster::{self, GroupCluster};
use crate::movers::Movers;
use crate::ops::Metrics;
use crate::peers::Peers;
use crate::settings::topic_settings;
use crate::supervise::Supervisor;

/// Configurations of brokers that take effect when they change, besides the topics' defaults.
const DYNAMIC: [&str; 5] = [
    "cordoned.log.dirs",
    "follower.replication.throttled.rate",
    "leader.replication.throttled.rate",
    "num.replica.fetchers",
    "replica.alter.log.dirs.io.max.bytes.per.second",
];

/// Applies each change of the metadata to this broker, in order.
#[derive(Clone, Debug)]
pub(crate) struct MetadataFollower {
    pub(crate) node_id: i32,
    pub(crate) config: Arc<ArcSwap<BrokerConfig>>,
    pub(crate) replicas: ReplicaManager,
    pub(crate) groups: Arc<GroupCoordinator>,
    pub(crate) group_cluster: Arc<GroupCluster>,
    pub(crate) transactions: Arc<TransactionCoordinator>,
    pub(crate) share_states: Arc<ShareStateCoordinator>,
    pub(crate) movers: Movers,
    pub(crate) peers: Peers,
    pub(crate) fetchers: Fetchers,
    pub(crate) directories_changed: Arc<Notify>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) supervisor: Supervisor,
}

impl MetadataFollower {
    /// Whether a change touches files.
    fn moves_replicas(delta: &MetadataDelta) -> bool {
        !delta.changed_topics().is_empty() || !delta.deleted_topics().is_empty()
    }

    /// Brings this broker in line with `image`. Opens, creates and deletes logs, so it blocks on the
    /// file system.
    pub(crate) fn apply(&self, delta: &MetadataDelta, image: &Arc<MetadataImage>) {
        self.update_config(delta, image);
        self.peers.update(image);
        self.group_cluster.update(delta, image);
        if !delta.changed_quotas().is_empty() {
            warn!("client quotas are kept and described but not enforced yet");
        }
        let config = self.config.load_full();
        let changes = self.replicas.apply_metadata(delta, image, &|topic| {
            topic_settings(topic, image.config(&ConfigResource::topic(topic)), &config)
        });
        self.fetchers.apply(&changes);
        self.update_groups(&changes, image);
        self.update_transactions(&changes, image);
        self.update_share_states(&changes, image);
        // Moves that a restart interrupted are found when their replicas are opened.
        self.movers.start();
        for (partition, failed) in &changes.failed {
            error!(%partition, error = %failed, "a replica cannot be opened");
        }
        self.forget_topics(delta);
    }

    fn update_config(&self, delta: &MetadataDelta, image: &MetadataImage) {
        let own = ConfigResource::broker(self.node_id);
        let cluster = ConfigResource::cluster();
        let changed = delta.changed_configs();
        if !changed.contains(&own) && !changed.contains(&cluster) {
            return;
        }
        let config = self.config.load_full();
        for name in image
            .config(&cluster)
            .keys()
            .chain(image.config(&own).keys())
        {
            let takes_effect =
                is_topic_default(name) || is_looked_up(name) || DYNAMIC.contains(&&**name);
            if !takes_effect {
                warn!(
                    config = name,
                    "a dynamic value without effect: Klamm reads this at start only, or not yet"
                );
            }
        }
        match config.with_dynamic(image.config(&cluster), image.config(&own)) {
            Ok(config) => {
                if directories::cordon(self.replicas.logs(), &config) {
                    self.directories_changed.notify_one();
                }
                self.replicas.set_replication_rates(
                    config.leader_replication_bytes_per_second(),
                    config.follower_replication_bytes_per_second(),
                );
                self.config.store(Arc::new(config));
            }
            Err(refused) => warn!(error = %refused, "a dynamic configuration is ignored"),
        }
    }

    fn update_groups(&self, changes: &ReplicaChanges, image: &MetadataImage) {
        for elected in &changes.elected {
            if &*elected.partition.topic == CONSUMER_OFFSETS {
                if let Some(topic) = image.topic(CONSUMER_OFFSETS) {
                    let count = i32::try_from(topic.partition_count()).unwrap_or(i32::MAX);
                    self.groups.set_partition_count(count);
                }
                self.groups
                    .on_elected(elected.partition.partition, elected.leader_epoch);
            }
        }
        for (partition, leader_epoch) in &changes.resigned {
            if &*partition.topic == CONSUMER_OFFSETS {
                self.groups.on_resigned(partition.partition, *leader_epoch);
            }
        }
    }

    fn update_transactions(&self, changes: &ReplicaChanges, image: &MetadataImage) {
        let level = image.features().level("transaction.version");
        self.transactions.set_transaction_version(level);
        for elected in &changes.elected {
            if &*elected.partition.topic == TRANSACTION_STATE {
                if let Some(topic) = image.topic(TRANSACTION_STATE) {
                    let count = i32::try_from(topic.partition_count()).unwrap_or(i32::MAX);
                    self.transactions.set_partition_count(count);
                }
                self.transactions
                    .on_elected(elected.partition.partition, elected.leader_epoch);
            }
        }
        for (partition, leader_epoch) in &changes.resigned {
            if &*partition.topic == TRANSACTION_STATE {
                self.transactions
                    .on_resigned(partition.partition, *leader_epoch);
            }
        }
    }

    fn update_share_states(&self, changes: &ReplicaChanges, image: &MetadataImage) {
        for elected in &changes.elected {
            if &*elected.partition.topic == SHARE_GROUP_STATE {
                if let Some(topic) = image.topic(SHARE_GROUP_STATE) {
                    let count = i32::try_from(topic.partition_count()).unwrap_or(i32::MAX);
                    self.share_states.set_partition_count(count);
                }
                self.share_states
                    .on_elected(elected.partition.partition, elected.leader_epoch);
            }
        }
        for (partition, leader_epoch) in &changes.resigned {
            if &*partition.topic == SHARE_GROUP_STATE {
                self.share_states
                    .on_resigned(partition.partition, *leader_epoch);
            }
        }
    }

    /// Offsets committed for deleted topics go with them, and what share groups are done with.
    #[expect(
        clippy::disallowed_methods,
        reason = "the driver; the metadata goes on meanwhile"
    )]
    fn forget_topics(&self, delta: &MetadataDelta) {
        if delta.deleted_topics().is_empty() {
            return;
        }
        let mut deleted = Vec::new();
        for (id, topic) in delta.deleted_topics() {
            info!(topic = %topic.name(), %id, "deleted");
            self.metrics.remove_topic(topic.name());
            deleted.push(DeletedTopic {
                name: (&**topic.name()).into(),
                id: *id,
            });
        }
        let groups = self.groups.clone();
        let share_states = self.share_states.clone();
        tokio::spawn(async move {
            let ids = deleted.iter().map(|topic| topic.id).collect();
            groups.on_topics_deleted(deleted).await;
            share_states.on_topics_deleted(ids).await;
        });
    }
}

/// Whether a dynamic value is looked up each time it is needed.
fn is_looked_up(name: &str) -> bool {
    cleaner::DYNAMIC_CONFIGS.contains(&name) || group_cluster::DYNAMIC_CONFIGS.contains(&name)
}

/// Whether topics inherit a broker's value, which is what dynamic values take effect through.
fn is_topic_default(name: &str) -> bool {
    let mut synonyms = TOPIC_CONFIGS.iter().flat_map(|topic| topic.synonyms);
    synonyms.any(|synonym| synonym.name == name)
}

impl MetadataPublisher for MetadataFollower {
    fn publish<'a>(
        &'a self,
        update: &'a MetadataUpdate,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            // A change that cannot be applied must not keep the next ones, or the task that brings
            // them, from going on.
            let (follower, changed) = (self.clone(), update.clone());
            let apply = move || {
                let apply = || follower.apply(&changed.delta, &changed.image);
                follower.supervisor.round("metadata", apply)
            };
            let applied = if MetadataFollower::moves_replicas(&update.delta) {
                spawn_blocking(apply).await.ok().flatten()
            } else {
                apply()
            };
            if applied.is_none() {
                let offset = update.image.offset();
                error!(offset, "a change of the metadata was not applied in full");
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_dynamic_values_with_effect_from_those_without() {
        for name in [
            "log.retention.ms",
            "message.max.bytes",
            "min.insync.replicas",
        ] {
            assert!(is_topic_default(name), "{name}");
        }
        for name in ["max.connections", "num.io.threads", "nonsense"] {
            assert!(!is_topic_default(name), "{name}");
        }
    }
}
