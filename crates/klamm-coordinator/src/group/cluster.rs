//! What the groups whose members are assigned by the coordinator must know of the cluster: its
//! topics, and the configurations of groups.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use klamm_protocol::ByteStr;
use klamm_records::Uuid;

use crate::runtime::Now;

/// The topics of the cluster at one moment.
pub trait TopicsView: Debug + Send + Sync {
    /// The metadata offset of the last change of topics. Two views with the same version are the
    /// same.
    fn version(&self) -> i64;

    /// The metadata offset of the last change that made a new topic.
    fn newest_topic_version(&self) -> i64;

    /// The id of the topic of this name.
    fn topic_id(&self, name: &str) -> Option<Uuid>;

    /// The name of the topic with this id.
    fn topic_name(&self, id: Uuid) -> Option<ByteStr>;

    /// How many partitions the topic of this name has.
    fn partition_count(&self, name: &str) -> Option<i32>;

    /// The racks of a partition's replicas, as far as their brokers have any; in any order.
    fn partition_racks(&self, name: &str, partition: i32) -> Vec<ByteStr>;

    /// Calls `visit` with the name of every topic.
    fn for_each_topic(&self, visit: &mut dyn FnMut(&str));
}

/// The settings of one consumer group: its own configuration over the broker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerGroupSettings {
    /// `consumer.session.timeout.ms`
    pub session_timeout_ms: i32,
    /// `consumer.heartbeat.interval.ms`
    pub heartbeat_interval_ms: i32,
    /// `consumer.assignment.interval.ms`: how soon after a target assignment the next is made.
    pub assignment_interval_ms: i32,
}

impl Default for ConsumerGroupSettings {
    fn default() -> Self {
        ConsumerGroupSettings {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5_000,
            assignment_interval_ms: 1_000,
        }
    }
}

/// The settings of one share group: its own configuration over the broker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareGroupSettings {
    /// `share.session.timeout.ms`
    pub session_timeout_ms: i32,
    /// `share.heartbeat.interval.ms`
    pub heartbeat_interval_ms: i32,
    /// `share.assignment.interval.ms`: how soon after a target assignment the next is made.
    pub assignment_interval_ms: i32,
}

impl Default for ShareGroupSettings {
    fn default() -> Self {
        ShareGroupSettings {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5_000,
            assignment_interval_ms: 1_000,
        }
    }
}

/// The settings of one streams group: its own configuration over the broker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamsGroupSettings {
    /// `streams.session.timeout.ms`
    pub session_timeout_ms: i32,
    /// `streams.heartbeat.interval.ms`
    pub heartbeat_interval_ms: i32,
    /// `streams.assignment.interval.ms`: how soon after a target assignment the next is made.
    pub assignment_interval_ms: i32,
    /// `streams.initial.rebalance.delay.ms`: how long a new group waits for more members.
    pub initial_rebalance_delay_ms: i32,
    /// `streams.num.standby.replicas`
    pub num_standby_replicas: i32,
}

impl Default for StreamsGroupSettings {
    fn default() -> Self {
        StreamsGroupSettings {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5_000,
            assignment_interval_ms: 1_000,
            initial_rebalance_delay_ms: 3_000,
            num_standby_replicas: 0,
        }
    }
}

/// The cluster as a group coordinator sees it. Each question is answered as of now.
pub trait Cluster: Debug + Send + Sync {
    /// The topics.
    fn topics(&self) -> Arc<dyn TopicsView>;

    /// The settings of a consumer group.
    fn consumer_settings(&self, group_id: &str) -> ConsumerGroupSettings;

    /// The settings of a share group.
    fn share_settings(&self, group_id: &str) -> ShareGroupSettings;

    /// The settings of a streams group.
    fn streams_settings(&self, group_id: &str) -> StreamsGroupSettings;
}

/// Whether a target assignment that was made at `made_ms` (0 for none) may be replaced (KIP-1263).
/// One from the future was made by a coordinator whose clock was ahead: to wait until that time (as
/// Kafka does) would leave the group as it is for as long as the clocks are apart.
pub(super) fn is_assignment_due(made_ms: i64, interval_ms: i32, now: Now) -> bool {
    let age_ms = now.wall_ms.saturating_sub(made_ms);
    made_ms == 0 || !(0..i64::from(interval_ms)).contains(&age_ms)
}

/// A topic of a [`TopicList`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTopic {
    /// Its id.
    pub id: Uuid,
    /// The racks of each partition's replicas.
    pub partitions: Vec<Vec<ByteStr>>,
}

/// Topics as a plain list, for a coordinator without a cluster around it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicList {
    /// The topics by name.
    pub topics: BTreeMap<ByteStr, ListedTopic>,
    /// See [`TopicsView::version`].
    pub version: i64,
    /// See [`TopicsView::newest_topic_version`].
    pub newest_topic_version: i64,
}

impl TopicsView for TopicList {
    fn version(&self) -> i64 {
        self.version
    }

    fn newest_topic_version(&self) -> i64 {
        self.newest_topic_version
    }

    fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.topics.get(name).map(|topic| topic.id)
    }

    fn topic_name(&self, id: Uuid) -> Option<ByteStr> {
        let mut topics = self.topics.iter();
        topics
            .find(|(_, topic)| topic.id == id)
            .map(|(name, _)| name.clone())
    }

    fn partition_count(&self, name: &str) -> Option<i32> {
        let count = self.topics.get(name)?.partitions.len();
        Some(i32::try_from(count).unwrap_or(i32::MAX))
    }

    fn partition_racks(&self, name: &str, partition: i32) -> Vec<ByteStr> {
        let topic = self.topics.get(name);
        topic
            .zip(usize::try_from(partition).ok())
            .and_then(|(topic, at)| topic.partitions.get(at).cloned())
            .unwrap_or_default()
    }

    fn for_each_topic(&self, visit: &mut dyn FnMut(&str)) {
        self.topics.keys().for_each(|name| visit(name));
    }
}

/// A cluster that is what it was last set to.
#[derive(Debug, Default)]
pub struct FixedCluster {
    topics: Mutex<Arc<TopicList>>,
    settings: Mutex<ConsumerGroupSettings>,
    streams: Mutex<StreamsGroupSettings>,
}

impl FixedCluster {
    /// Changes the topics. A view handed out before stays as it was.
    pub fn change(&self, change: impl FnOnce(&mut TopicList)) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut *topics));
    }

    /// Sets what every group is set to.
    pub fn set(&self, settings: ConsumerGroupSettings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// Sets what every streams group is set to.
    pub fn set_streams(&self, settings: StreamsGroupSettings) {
        *self.streams.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }
}

impl Cluster for FixedCluster {
    fn topics(&self) -> Arc<dyn TopicsView> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&*topics) as Arc<dyn TopicsView>
    }

    fn consumer_settings(&self, _group_id: &str) -> ConsumerGroupSettings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn share_settings(&self, group_id: &str) -> ShareGroupSettings {
        let settings = self.consumer_settings(group_id);
        ShareGroupSettings {
            session_timeout_ms: settings.session_timeout_ms,
            heartbeat_interval_ms: settings.heartbeat_interval_ms,
            assignment_interval_ms: settings.assignment_interval_ms,
        }
    }

    fn streams_settings(&self, _group_id: &str) -> StreamsGroupSettings {
        *self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
