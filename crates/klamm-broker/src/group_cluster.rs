//! The cluster's metadata and configurations, as the group coordinator asks for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use klamm_config::{BrokerConfig, GroupConfig};
use klamm_coordinator::group::{
    Cluster, ConsumerGroupSettings, ShareGroupSettings, StreamsGroupSettings, TopicsView,
};
use klamm_metadata::{ConfigResource, MetadataDelta, MetadataImage, ResourceType};
use klamm_protocol::ByteStr;
use klamm_records::Uuid;
use tracing::warn;

use crate::shares::ShareConfig;

/// Dynamic broker configurations that take effect at once.
pub(crate) const DYNAMIC_CONFIGS: [&str; 3] = [
    "group.consumer.assignment.interval.ms",
    "group.share.assignment.interval.ms",
    "group.streams.assignment.interval.ms",
];

/// What the group coordinator sees of the cluster, kept up to date by the metadata follower.
#[derive(Debug)]
pub(crate) struct GroupCluster {
    config: Arc<ArcSwap<BrokerConfig>>,
    /// The metadata of now, for configurations.
    image: ArcSwap<MetadataImage>,
    /// The topics as of their last change: what else happens in the metadata is not theirs.
    topics: ArcSwap<Topics>,
}

impl GroupCluster {
    /// A cluster of which nothing is known yet.
    pub(crate) fn new(config: Arc<ArcSwap<BrokerConfig>>) -> Self {
        GroupCluster {
            config,
            image: ArcSwap::default(),
            topics: ArcSwap::default(),
        }
    }

    /// Takes note of a change of the metadata.
    pub(crate) fn update(&self, delta: &MetadataDelta, image: &Arc<MetadataImage>) {
        self.image.store(image.clone());
        if delta.changed_topics().is_empty() && delta.deleted_topics().is_empty() {
            return;
        }
        let created = delta.changed_topics().values().any(|topic| topic.created);
        let newest_topic_offset = if created {
            image.offset()
        } else {
            self.topics.load().newest_topic_offset
        };
        self.topics.store(Arc::new(Topics {
            image: image.clone(),
            newest_topic_offset,
        }));
    }
}

impl GroupCluster {
    /// What a share group is set to.
    pub(crate) fn share_config(&self, group_id: &str) -> ShareConfig {
        let config = self.config.load();
        let image = self.image.load();
        let overrides = image.config(&ConfigResource::new(ResourceType::Group, group_id));
        ShareConfig::resolve(group_id, overrides, &config)
    }
}

impl Cluster for GroupCluster {
    fn topics(&self) -> Arc<dyn TopicsView> {
        self.topics.load_full()
    }

    fn share_settings(&self, group_id: &str) -> ShareGroupSettings {
        self.share_config(group_id).membership
    }

    fn streams_settings(&self, group_id: &str) -> StreamsGroupSettings {
        let config = self.config.load();
        let image = self.image.load();
        let overrides = image.config(&ConfigResource::new(ResourceType::Group, group_id));
        streams_settings(group_id, overrides, &config)
    }

    fn consumer_settings(&self, group_id: &str) -> ConsumerGroupSettings {
        let config = self.config.load();
        let image = self.image.load();
        let overrides = image.config(&ConfigResource::new(ResourceType::Group, group_id));
        let of_broker = |name: &str| config.int(&format!("group.{name}"));
        if overrides.is_empty() {
            return ConsumerGroupSettings {
                session_timeout_ms: of_broker("consumer.session.timeout.ms"),
                heartbeat_interval_ms: of_broker("consumer.heartbeat.interval.ms"),
                assignment_interval_ms: of_broker("consumer.assignment.interval.ms"),
            };
        }
        // The controller takes no value that would be refused here, unless it did so under other
        // bounds; those of this broker hold, as in Kafka.
        let of_group = GroupConfig::resolve(overrides, &config);
        if let Err(refused) = &of_group {
            warn!(group = group_id, error = %refused, "a group's configuration cannot be read");
        }
        let value = |name: &str, kind: &str| {
            let wanted = match &of_group {
                Ok(values) => values.int(&format!("consumer.{name}")),
                Err(_) => of_broker(&format!("consumer.{name}")),
            };
            let min = config.int(&format!("group.consumer.min.{kind}"));
            let max = config.int(&format!("group.consumer.max.{kind}"));
            wanted.max(min).min(max)
        };
        ConsumerGroupSettings {
            session_timeout_ms: value("session.timeout.ms", "session.timeout.ms"),
            heartbeat_interval_ms: value("heartbeat.interval.ms", "heartbeat.interval.ms"),
            assignment_interval_ms: value("assignment.interval.ms", "assignment.interval.ms"),
        }
    }
}

/// The settings of a streams group with these overrides. A value that this broker's bounds do not
/// allow counts as the nearest that they do, as in Kafka.
fn streams_settings(
    group_id: &str,
    overrides: &BTreeMap<String, String>,
    config: &BrokerConfig,
) -> StreamsGroupSettings {
    let of_group = match GroupConfig::resolve(overrides, config) {
        Ok(values) => Some(values),
        Err(refused) => {
            warn!(group = group_id, error = %refused, "a group's configuration cannot be read");
            None
        }
    };
    let value = |name: &str| {
        let name = format!("streams.{name}");
        let own = of_group.as_ref().filter(|_| overrides.contains_key(&name));
        own.map_or_else(|| config.int(&format!("group.{name}")), |of| of.int(&name))
    };
    let bounded = |kind: &str| {
        let min = config.int(&format!("group.streams.min.{kind}"));
        let max = config.int(&format!("group.streams.max.{kind}"));
        value(kind).max(min).min(max)
    };
    let standbys_max = config.int("group.streams.max.standby.replicas");
    StreamsGroupSettings {
        session_timeout_ms: bounded("session.timeout.ms"),
        heartbeat_interval_ms: bounded("heartbeat.interval.ms"),
        assignment_interval_ms: bounded("assignment.interval.ms"),
        initial_rebalance_delay_ms: value("initial.rebalance.delay.ms"),
        num_standby_replicas: value("num.standby.replicas").min(standbys_max),
    }
}

/// The topics of an image.
#[derive(Debug, Default)]
struct Topics {
    image: Arc<MetadataImage>,
    newest_topic_offset: i64,
}

impl TopicsView for Topics {
    fn version(&self) -> i64 {
        self.image.offset()
    }

    fn newest_topic_version(&self) -> i64 {
        self.newest_topic_offset
    }

    fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.image.topic(name).map(|topic| topic.id())
    }

    fn topic_name(&self, id: Uuid) -> Option<ByteStr> {
        let topic = self.image.topic_by_id(id)?;
        Some(ByteStr::from(&**topic.name()))
    }

    fn partition_count(&self, name: &str) -> Option<i32> {
        let count = self.image.topic(name)?.partition_count();
        Some(i32::try_from(count).unwrap_or(i32::MAX))
    }

    fn partition_racks(&self, name: &str, partition: i32) -> Vec<ByteStr> {
        let partition = self.image.partition(name, partition);
        let replicas = partition.iter().flat_map(|partition| &partition.replicas);
        replicas
            .filter_map(|id| self.image.broker(*id)?.rack.as_deref())
            .map(ByteStr::from)
            .collect()
    }

    fn for_each_topic(&self, visit: &mut dyn FnMut(&str)) {
        for topic in self.image.topics().iter() {
            visit(topic.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_streams_group_go_over_the_brokers_within_bounds() {
        let config = BrokerConfig::from_pairs([
            ("node.id", "1"),
            ("group.streams.session.timeout.ms", "50000"),
        ]);
        let config = config.unwrap();
        let plain = streams_settings("g", &BTreeMap::new(), &config);
        let expected = StreamsGroupSettings {
            session_timeout_ms: 50_000,
            ..StreamsGroupSettings::default()
        };
        assert_eq!(plain, expected);
        let overrides = [
            ("streams.session.timeout.ms", "55000"),
            ("streams.heartbeat.interval.ms", "6000"),
            ("streams.assignment.interval.ms", "20000"),
            ("streams.initial.rebalance.delay.ms", "0"),
            ("streams.num.standby.replicas", "1"),
        ];
        let overrides = overrides.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let own = streams_settings("g", &overrides.into_iter().collect(), &config);
        let expected = StreamsGroupSettings {
            session_timeout_ms: 55_000,
            heartbeat_interval_ms: 6_000,
            assignment_interval_ms: 15_000,
            initial_rebalance_delay_ms: 0,
            num_standby_replicas: 1,
        };
        assert_eq!(own, expected);
    }
}
