//! What the controller decides, as pure functions.
//!
//! Each takes the image so far and a request and gives records and a reply; none does I/O, reads a
//! clock or remembers anything. The driver replays the records on its image, has them committed
//! and then lets the reply go. What a manager needs beyond the image (settings, config schema,
//! randomness) comes in a [`Context`]; what it knows of the liveness of brokers is the driver's
//! [`Sessions`], which it is handed.
//!
//! | file | requests |
//! |---|---|
//! | [`topics`] | `CreateTopics` |
//! | [`deletion`] | `DeleteTopics` |
//! | [`partitions`] | `CreatePartitions`, `AssignReplicasToDirs` |
//! | [`isr`] | `AlterPartition` |
//! | [`elections`] | `ElectLeaders`, the elections that follow a broker's coming and going |
//! | [`reassignments`] | `AlterPartitionReassignments`, `ListPartitionReassignments` |
//! | [`brokers`] | `BrokerRegistration`, `BrokerHeartbeat`, `UnregisterBroker` |
//! | [`controllers`] | `ControllerRegistration` |
//! | [`configs`] | `IncrementalAlterConfigs`, `AlterConfigs` |
//! | [`features`] | `UpdateFeatures`, the first records of a cluster |
//! | [`producer_ids`] | `AllocateProducerIds` |
//! | [`quotas`] | `AlterClientQuotas`, `DescribeClientQuotas` |
//! | [`scram`] | `AlterUserScramCredentials`, `DescribeUserScramCredentials` |
//! | [`acls`] | `CreateAcls`, `DeleteAcls`, `DescribeAcls` |

pub mod acls;
pub mod brokers;
pub mod configs;
pub mod controllers;
pub mod deletion;
pub mod elections;
pub mod features;
pub mod isr;
mod partition_change;
pub mod partitions;
pub mod placement;
pub mod producer_ids;
pub mod quotas;
pub mod reassignments;
pub mod scram;
mod sessions;
#[cfg(test)]
mod tests;
pub mod topics;

use std::fmt;

use klamm_env::Rng;
use klamm_metadata::{ConfigResource, MetadataImage, PartitionImage, ResourceType};
use klamm_protocol::metadata::MetadataRecord;
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

pub use self::sessions::Sessions;
use crate::schema::ConfigSchema;

/// Kafka's limit on the records of one request.
pub const RECORDS_PER_REQUEST_MAX: usize = 10_000;
/// Kafka's limit on the partitions that one request may create.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// `min.insync.replicas`, which the controller looks at itself.
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// `unclean.leader.election.enable`, which the controller looks at itself.
pub const UNCLEAN_LEADER_ELECTION: &str = "unclean.leader.election.enable";

/// What a request led to: records to commit, and what to answer once they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<T> {
    /// To be committed as one.
    pub records: Vec<MetadataRecord>,
    /// To be sent when the records are committed.
    pub reply: T,
}

impl<T> Outcome<T> {
    /// A reply without records.
    pub fn reply(reply: T) -> Self {
        Outcome {
            records: Vec::new(),
            reply,
        }
    }
}

/// Why a request, or a part of it, is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The code in the response.
    pub code: ErrorCode,
    /// Text for the response; `None` where the client's own text for the code says all.
    pub message: Option<String>,
}

impl ApiError {
    /// An error with a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ApiError {
            code,
            message: Some(message.into()),
        }
    }

    /// The message as responses carry it.
    pub fn wire_message(&self) -> Option<ByteStr> {
        self.message.as_deref().map(ByteStr::from)
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        ApiError {
            code,
            message: None,
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.name())?;
        self.message
            .as_ref()
            .map_or(Ok(()), |message| write!(f, ": {message}"))
    }
}

impl std::error::Error for ApiError {}

/// Code and message of a part's result, as responses carry them.
fn wire_result(result: &Result<(), ApiError>) -> (i16, Option<ByteStr>) {
    match result {
        Ok(()) => (ErrorCode::None.code(), None),
        Err(error) => (error.code.code(), error.wire_message()),
    }
}

/// Settings of the cluster that the managers apply, as brokers are configured with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `default.replication.factor`
    pub default_replication_factor: i16,
    /// `num.partitions`
    pub default_partitions: i32,
    /// `delete.topic.enable`
    pub delete_topic_enable: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            default_replication_factor: 1,
            default_partitions: 1,
            delete_topic_enable: true,
        }
    }
}

/// What a manager decides on.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// All that is decided so far, committed or on the way.
    pub image: &'a MetadataImage,
    /// This controller's node id.
    pub node_id: i32,
    /// The cluster's id.
    pub cluster_id: &'a str,
    /// Settings of the cluster.
    pub settings: &'a Settings,
    /// Knows the configs and checks their values.
    pub schema: &'a dyn ConfigSchema,
    /// Ids and placements are drawn from here.
    pub rng: &'a dyn Rng,
    /// Offset that the first record of the next group will get.
    pub next_offset: i64,
}

impl Context<'_> {
    /// A new random id that is neither reserved nor awkward on a command line.
    fn new_uuid(&self) -> Uuid {
        loop {
            if let Some(id) = Uuid::from_random(self.rng.next_16_bytes()) {
                return id;
            }
        }
    }

    /// The value of a topic config in force: the topic's own, this node's, the cluster's, or that
    /// of the static config.
    fn topic_config(&self, topic: &str, name: &str) -> Option<String> {
        let image = self.image;
        [
            image.config(&ConfigResource::topic(topic)),
            image.config(&ConfigResource::broker(self.node_id)),
            image.config(&ConfigResource::cluster()),
        ]
        .into_iter()
        .find_map(|configs| configs.get(name).cloned())
        .or_else(|| self.schema.default_value(ResourceType::Topic, name))
    }

    fn unclean_election_enabled(&self, topic: &str) -> bool {
        self.topic_config(topic, UNCLEAN_LEADER_ELECTION)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// `min.insync.replicas` in force, at most the replication factor.
    fn min_isr(&self, topic: &str, replicas: usize) -> usize {
        let configured = self.topic_config(topic, MIN_INSYNC_REPLICAS);
        configured
            .and_then(|value| value.parse().ok())
            .unwrap_or(1_usize)
            .min(replicas)
    }

    fn is_active(&self, broker: i32) -> bool {
        self.image
            .broker(broker)
            .is_some_and(|broker| broker.is_active())
    }

    /// Whether `broker` can serve its replica of a partition: its directory is online.
    fn has_online_dir(&self, broker: i32, partition: &PartitionImage) -> bool {
        self.image
            .broker(broker)
            .is_some_and(|registered| registered.has_online_dir(partition.directory(broker)))
    }

    /// The directory that a new replica on a broker gets.
    fn default_dir(&self, broker: i32) -> Uuid {
        self.image
            .broker(broker)
            .map_or(Uuid::UNASSIGNED_DIR, |broker| broker.default_dir())
    }

    /// Refuses requests of brokers that are not registered with this epoch.
    fn check_broker_epoch(&self, broker: i32, epoch: i64) -> Result<(), ApiError> {
        match self.image.broker(broker) {
            None => Err(ApiError::new(
                ErrorCode::StaleBrokerEpoch,
                format!("No broker registration found for broker id {broker}"),
            )),
            Some(registered) if registered.epoch != epoch => Err(ApiError::new(
                ErrorCode::StaleBrokerEpoch,
                format!(
                    "Expected broker epoch {}, but got broker epoch {epoch}",
                    registered.epoch
                ),
            )),
            Some(_) => Ok(()),
        }
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("offset", &self.image.offset())
            .field("next_offset", &self.next_offset)
            .finish_non_exhaustive()
    }
}
