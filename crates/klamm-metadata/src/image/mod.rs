//! The metadata image: all that is known of a cluster at one offset of its metadata log.
//!
//! An image never changes. [`MetadataDelta`](crate::MetadataDelta) makes the next one out of it
//! and shares what stayed the same, so that holding an old image is cheap and handing out the
//! newest one costs a pointer.

mod cluster;
mod configs;
mod partition;
mod security;
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_records::Uuid;

pub use self::cluster::{BrokerImage, ClusterImage, ControllerImage, Endpoint};
pub use self::configs::{ConfigResource, ConfigsImage, QuotaEntity, QuotasImage, ResourceType};
pub use self::partition::{LeaderRecoveryState, NO_LEADER, PartitionImage};
pub use self::security::{Acl, AclsImage, DelegationToken, ScramCredential, ScramImage};
pub use self::topics::{TopicImage, TopicsImage};
use crate::version::MetadataVersion;

/// Name of the feature that says how the metadata quorum keeps its voters.
pub const KRAFT_VERSION: &str = "kraft.version";

/// Where in the metadata log an image stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Offset of the last record that the image contains; -1 if none.
    pub offset: i64,
    /// Leader epoch of that record; -1 if none.
    pub epoch: i32,
    /// Append time of that record in milliseconds since the Unix epoch; -1 if none.
    pub timestamp_ms: i64,
}

impl Provenance {
    /// Before the first record.
    pub const EMPTY: Provenance = Provenance {
        offset: -1,
        epoch: -1,
        timestamp_ms: -1,
    };
}

/// Finalized features.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeaturesImage {
    pub(crate) metadata_version: Option<MetadataVersion>,
    pub(crate) levels: BTreeMap<String, i16>,
    pub(crate) kraft_version: i16,
}

impl FeaturesImage {
    /// The level of `metadata.version`; the oldest supported one before the first record.
    pub fn metadata_version(&self) -> MetadataVersion {
        self.metadata_version.unwrap_or(MetadataVersion::MINIMUM)
    }

    /// The finalized level of a feature; 0 if it is off or unknown.
    pub fn level(&self, feature: &str) -> i16 {
        match feature {
            MetadataVersion::FEATURE_NAME => {
                self.metadata_version.map_or(0, MetadataVersion::level)
            }
            KRAFT_VERSION => self.kraft_version,
            _ => self.levels.get(feature).copied().unwrap_or(0),
        }
    }

    /// All finalized features with a level above 0, by name.
    pub fn finalized(&self) -> BTreeMap<String, i16> {
        let mut all = self.levels.clone();
        if let Some(version) = self.metadata_version {
            all.insert(MetadataVersion::FEATURE_NAME.to_owned(), version.level());
        }
        if self.kraft_version > 0 {
            all.insert(KRAFT_VERSION.to_owned(), self.kraft_version);
        }
        all
    }
}

/// What is known of a cluster at one offset of its metadata log.
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataImage {
    pub(crate) provenance: Provenance,
    pub(crate) features: Arc<FeaturesImage>,
    pub(crate) cluster: Arc<ClusterImage>,
    pub(crate) topics: Arc<TopicsImage>,
    pub(crate) configs: Arc<ConfigsImage>,
    pub(crate) quotas: Arc<QuotasImage>,
    pub(crate) acls: Arc<AclsImage>,
    pub(crate) scram: Arc<ScramImage>,
    pub(crate) tokens: Arc<BTreeMap<String, DelegationToken>>,
    pub(crate) next_producer_id: i64,
}

impl Default for MetadataImage {
    fn default() -> Self {
        MetadataImage {
            provenance: Provenance::EMPTY,
            features: Arc::default(),
            cluster: Arc::default(),
            topics: Arc::default(),
            configs: Arc::default(),
            quotas: Arc::default(),
            acls: Arc::default(),
            scram: Arc::default(),
            tokens: Arc::default(),
            next_producer_id: 0,
        }
    }
}

impl MetadataImage {
    /// Where in the metadata log the image stands.
    pub fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// Offset of the last record that the image contains; -1 if none.
    pub fn offset(&self) -> i64 {
        self.provenance.offset
    }

    /// Leader epoch of the last record; -1 if none.
    pub fn epoch(&self) -> i32 {
        self.provenance.epoch
    }

    /// Finalized features.
    pub fn features(&self) -> &FeaturesImage {
        &self.features
    }

    /// The finalized `metadata.version`.
    pub fn metadata_version(&self) -> MetadataVersion {
        self.features.metadata_version()
    }

    /// Whether eligible leader replicas are kept (KIP-966).
    pub fn elr_enabled(&self) -> bool {
        self.features.level("eligible.leader.replicas.version") >= 1
            && self.metadata_version().supports_elr()
    }

    /// Brokers and controllers.
    pub fn cluster(&self) -> &ClusterImage {
        &self.cluster
    }

    /// All registered brokers, fenced ones too, by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<BrokerImage>> {
        self.cluster.brokers.values()
    }

    /// A registered broker.
    pub fn broker(&self, id: i32) -> Option<&Arc<BrokerImage>> {
        self.cluster.brokers.get(&id)
    }

    /// Topics and their partitions.
    pub fn topics(&self) -> &TopicsImage {
        &self.topics
    }

    /// A topic by its name.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.by_name(name)
    }

    /// A topic by its id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.topics.by_id(id)
    }

    /// A partition by topic name and index.
    pub fn partition(&self, topic: &str, partition: i32) -> Option<&Arc<PartitionImage>> {
        self.topic(topic)?.partition(partition)
    }

    /// Dynamic configs.
    pub fn configs(&self) -> &ConfigsImage {
        &self.configs
    }

    /// The dynamic configs of a resource; empty if it has none.
    pub fn config(&self, resource: &ConfigResource) -> &BTreeMap<String, String> {
        self.configs.of(resource)
    }

    /// Client quotas.
    pub fn quotas(&self) -> &QuotasImage {
        &self.quotas
    }

    /// Access control entries.
    pub fn acls(&self) -> &AclsImage {
        &self.acls
    }

    /// SCRAM credentials.
    pub fn scram(&self) -> &ScramImage {
        &self.scram
    }

    /// Delegation tokens by token id.
    pub fn delegation_tokens(&self) -> &BTreeMap<String, DelegationToken> {
        &self.tokens
    }

    /// The first producer id that no broker was given yet.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// Replicas of a partition that cannot serve: their broker is not registered or fenced, or
    /// their log directory is offline. In replica order.
    pub fn offline_replicas(&self, partition: &PartitionImage) -> Vec<i32> {
        let online = |replica: i32| {
            self.broker(replica).is_some_and(|broker| {
                !broker.fenced && broker.has_online_dir(partition.directory(replica))
            })
        };
        partition
            .replicas
            .iter()
            .copied()
            .filter(|&replica| !online(replica))
            .collect()
    }
}
