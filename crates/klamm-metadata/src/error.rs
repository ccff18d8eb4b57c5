use klamm_records::Uuid;
use thiserror::Error;

/// A metadata record that does not fit the image it is replayed on. The log or snapshot it came
/// from is damaged, or was written by something newer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// A topic of this name exists already.
    #[error("a topic named {name} exists already, with id {id}")]
    DuplicateTopic {
        /// The name.
        name: String,
        /// Id of the topic that has it.
        id: Uuid,
    },
    /// No topic has this id.
    #[error("there is no topic with id {id}")]
    UnknownTopic {
        /// The id.
        id: Uuid,
    },
    /// No topic has this name.
    #[error("there is no topic named {name}")]
    UnknownTopicName {
        /// The name.
        name: String,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has no partition {partition}")]
    UnknownPartition {
        /// Name of the topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// A partition with another number of directories than of replicas.
    #[error("{directories} directories for {replicas} replicas")]
    DirectoryCount {
        /// Directories in the record.
        directories: usize,
        /// Replicas in the record.
        replicas: usize,
    },
    /// A number that is no leader recovery state.
    #[error("{value} is no leader recovery state")]
    LeaderRecoveryState {
        /// The number.
        value: i8,
    },
    /// No broker of this id is registered.
    #[error("broker {id} is not registered")]
    UnknownBroker {
        /// The id.
        id: i32,
    },
    /// The broker is registered with another epoch.
    #[error("broker {id} is registered with epoch {registered}, not {epoch}")]
    BrokerEpoch {
        /// The broker.
        id: i32,
        /// Epoch of its registration.
        registered: i64,
        /// Epoch in the record.
        epoch: i64,
    },
    /// A number that is no change of a broker's state.
    #[error("{value} is no value for {field}")]
    BrokerStateChange {
        /// The field.
        field: &'static str,
        /// The number.
        value: i8,
    },
    /// A level of `metadata.version` that this software does not support.
    #[error("metadata.version {level} is not supported")]
    MetadataVersion {
        /// The level.
        level: i16,
    },
    /// Producer ids went back.
    #[error("the next producer id would go back from {current} to {next}")]
    ProducerIds {
        /// The next id so far.
        current: i64,
        /// The next id in the record.
        next: i64,
    },
    /// No access control entry has this id.
    #[error("there is no access control entry with id {id}")]
    UnknownAcl {
        /// The id.
        id: Uuid,
    },
    /// The user has no such credential.
    #[error("user {user} has no SCRAM credential of mechanism {mechanism}")]
    UnknownScramCredential {
        /// The user.
        user: String,
        /// The mechanism.
        mechanism: i8,
    },
    /// Begin, end and abort of a metadata transaction out of order.
    #[error("{record} does not fit the state of the metadata transaction")]
    Transaction {
        /// The record.
        record: &'static str,
    },
}
