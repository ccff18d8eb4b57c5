//! One file per API key (or per family of keys that share everything but their types), and the
//! table of what is served.
//!
//! A request comes in through [`crate::service`], is found here by key and version, decoded, and
//! handed to its file, which turns it into calls of the crates below and their answers into one
//! response. Nothing is decided here that a crate below could decide.
//!
//! To add an API: write its file, implement [`crate::dispatch::Api`] for its request, and add its
//! line to [`BROKER_APIS`] (and to [`CONTROLLER_APIS`] if it is offered on controller listeners).

use klamm_protocol::messages::*;
use klamm_protocol::{ApiKey, Listener};

use crate::dispatch::{Dispatch, Entry, Forwarded, entry, forwarded};
use crate::shared::Shared;

mod acls;
mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod alter_client_quotas;
mod alter_configs;
mod alter_partition_reassignments;
mod alter_replica_log_dirs;
mod alter_share_group_offsets;
mod alter_user_scram_credentials;
pub(crate) mod api_versions;
mod cluster_membership;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_partitions;
mod create_topics;
mod delegation_tokens;
mod delete_groups;
mod delete_records;
mod delete_share_group_offsets;
mod delete_topics;
mod describe_client_quotas;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_share_group_offsets;
mod describe_topic_partitions;
mod describe_transactions;
mod describe_user_scram_credentials;
mod elect_leaders;
mod end_txn;
mod envelope;
mod fetch;
mod fetch_metadata;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod raft_voters;
pub(crate) mod read_replica;
mod sasl;
mod share_acknowledge;
mod share_fetch;
mod share_group_describe;
mod share_group_heartbeat;
mod share_group_state;
mod streams_group_describe;
mod streams_group_heartbeat;
mod sync_group;
mod transactional_writes;
mod txn_offset_commit;
mod unregister_broker;
mod update_features;
mod write_txn_markers;

/// What clients are offered on broker listeners.
const BROKER_APIS: &[Entry] = &[
    produce::ENTRY,
    fetch::ENTRY,
    entry::<ListOffsetsRequest>(),
    entry::<MetadataRequest>(),
    entry::<OffsetCommitRequest>(),
    entry::<OffsetFetchRequest>(),
    entry::<FindCoordinatorRequest>(),
    entry::<JoinGroupRequest>(),
    entry::<HeartbeatRequest>(),
    entry::<LeaveGroupRequest>(),
    entry::<SyncGroupRequest>(),
    entry::<DescribeGroupsRequest>(),
    entry::<ListGroupsRequest>(),
    entry::<SaslHandshakeRequest>(),
    entry::<ApiVersionsRequest>(),
    entry::<CreateTopicsRequest>(),
    entry::<DeleteTopicsRequest>(),
    entry::<DeleteRecordsRequest>(),
    entry::<InitProducerIdRequest>(),
    entry::<OffsetForLeaderEpochRequest>(),
    entry::<AddPartitionsToTxnRequest>(),
    entry::<AddOffsetsToTxnRequest>(),
    entry::<EndTxnRequest>(),
    entry::<WriteTxnMarkersRequest>(),
    entry::<TxnOffsetCommitRequest>(),
    entry::<DescribeAclsRequest>(),
    entry::<CreateAclsRequest>(),
    entry::<DeleteAclsRequest>(),
    entry::<DescribeConfigsRequest>(),
    entry::<AlterConfigsRequest>(),
    entry::<AlterReplicaLogDirsRequest>(),
    entry::<DescribeLogDirsRequest>(),
    entry::<SaslAuthenticateRequest>(),
    entry::<CreatePartitionsRequest>(),
    entry::<CreateDelegationTokenRequest>(),
    entry::<RenewDelegationTokenRequest>(),
    entry::<ExpireDelegationTokenRequest>(),
    entry::<DescribeDelegationTokenRequest>(),
    entry::<DeleteGroupsRequest>(),
    entry::<ElectLeadersRequest>(),
    entry::<IncrementalAlterConfigsRequest>(),
    entry::<AlterPartitionReassignmentsRequest>(),
    entry::<ListPartitionReassignmentsRequest>(),
    entry::<OffsetDeleteRequest>(),
    entry::<DescribeClientQuotasRequest>(),
    entry::<AlterClientQuotasRequest>(),
    entry::<DescribeUserScramCredentialsRequest>(),
    entry::<AlterUserScramCredentialsRequest>(),
    entry::<DescribeQuorumRequest>(),
    entry::<UpdateFeaturesRequest>(),
    entry::<DescribeClusterRequest>(),
    entry::<DescribeProducersRequest>(),
    entry::<DescribeTransactionsRequest>(),
    entry::<ListTransactionsRequest>(),
    entry::<UnregisterBrokerRequest>(),
    entry::<ConsumerGroupHeartbeatRequest>(),
    entry::<ConsumerGroupDescribeRequest>(),
    entry::<ListConfigResourcesRequest>(),
    entry::<DescribeTopicPartitionsRequest>(),
    entry::<AddRaftVoterRequest>(),
    entry::<RemoveRaftVoterRequest>(),
    entry::<ShareGroupHeartbeatRequest>(),
    entry::<ShareGroupDescribeRequest>(),
    entry::<ShareFetchRequest>(),
    entry::<ShareAcknowledgeRequest>(),
    entry::<InitializeShareGroupStateRequest>(),
    entry::<ReadShareGroupStateRequest>(),
    entry::<WriteShareGroupStateRequest>(),
    entry::<DeleteShareGroupStateRequest>(),
    entry::<ReadShareGroupStateSummaryRequest>(),
    entry::<DescribeShareGroupOffsetsRequest>(),
    entry::<AlterShareGroupOffsetsRequest>(),
    entry::<DeleteShareGroupOffsetsRequest>(),
    entry::<StreamsGroupHeartbeatRequest>(),
    entry::<StreamsGroupDescribeRequest>(),
];

/// What brokers and tools are offered on controller listeners.
const CONTROLLER_APIS: &[Entry] = &[
    entry::<FetchRequest>(),
    entry::<SaslHandshakeRequest>(),
    entry::<ApiVersionsRequest>(),
    entry::<CreateTopicsRequest>(),
    entry::<DeleteTopicsRequest>(),
    entry::<DescribeAclsRequest>(),
    entry::<CreateAclsRequest>(),
    entry::<DeleteAclsRequest>(),
    entry::<DescribeConfigsRequest>(),
    entry::<AlterConfigsRequest>(),
    entry::<SaslAuthenticateRequest>(),
    entry::<CreatePartitionsRequest>(),
    entry::<CreateDelegationTokenRequest>(),
    entry::<RenewDelegationTokenRequest>(),
    entry::<ExpireDelegationTokenRequest>(),
    entry::<DescribeDelegationTokenRequest>(),
    entry::<ElectLeadersRequest>(),
    entry::<IncrementalAlterConfigsRequest>(),
    entry::<AlterPartitionReassignmentsRequest>(),
    entry::<ListPartitionReassignmentsRequest>(),
    entry::<AlterClientQuotasRequest>(),
    entry::<DescribeUserScramCredentialsRequest>(),
    entry::<AlterUserScramCredentialsRequest>(),
    entry::<DescribeQuorumRequest>(),
    entry::<AlterPartitionRequest>(),
    entry::<UpdateFeaturesRequest>(),
    entry::<DescribeClusterRequest>(),
    entry::<EnvelopeRequest>(),
    entry::<FetchSnapshotRequest>(),
    entry::<BrokerRegistrationRequest>(),
    entry::<BrokerHeartbeatRequest>(),
    entry::<UnregisterBrokerRequest>(),
    entry::<AllocateProducerIdsRequest>(),
    entry::<ControllerRegistrationRequest>(),
    entry::<AssignReplicasToDirsRequest>(),
    entry::<AddRaftVoterRequest>(),
    entry::<RemoveRaftVoterRequest>(),
    entry::<UpdateRaftVoterRequest>(),
];

/// What brokers pass on to the active controller in an Envelope, for their clients.
const FORWARDED_APIS: &[Forwarded] = &[
    forwarded::<CreateTopicsRequest>(),
    forwarded::<DeleteTopicsRequest>(),
    forwarded::<AlterConfigsRequest>(),
    forwarded::<CreatePartitionsRequest>(),
    forwarded::<ElectLeadersRequest>(),
    forwarded::<IncrementalAlterConfigsRequest>(),
    forwarded::<AlterPartitionReassignmentsRequest>(),
    forwarded::<ListPartitionReassignmentsRequest>(),
    forwarded::<AlterClientQuotasRequest>(),
    forwarded::<AlterUserScramCredentialsRequest>(),
    forwarded::<DescribeQuorumRequest>(),
    forwarded::<UpdateFeaturesRequest>(),
    forwarded::<UnregisterBrokerRequest>(),
    forwarded::<AddRaftVoterRequest>(),
    forwarded::<RemoveRaftVoterRequest>(),
];

/// Whether the cluster has the consumer group protocol turned on (`group.version`).
fn consumer_groups_are_on(broker: &Shared) -> bool {
    broker.image().features().level("group.version") >= 1
}

/// Whether the cluster has share groups turned on (`share.version`).
fn share_groups_are_on(broker: &Shared) -> bool {
    broker.image().features().level("share.version") >= 1
}

/// Whether streams groups are turned on, in the cluster (`streams.version`) and in this broker
/// (`group.coordinator.rebalance.protocols`).
fn streams_groups_are_on(broker: &Shared) -> bool {
    let config = broker.config();
    let protocols = config.list("group.coordinator.rebalance.protocols");
    broker.image().features().level("streams.version") >= 1
        && protocols.iter().any(|protocol| protocol == "streams")
}

/// The APIs of a listener, by key.
#[derive(Debug)]
pub(crate) struct Table {
    /// By key; `None` where the key is not served.
    by_key: Vec<Option<(ApiKey, Dispatch)>>,
    /// The kind of listener this is the table of.
    pub(crate) listener: Listener,
}

/// What a key and a version come to.
pub(crate) enum Found {
    /// Call this.
    Served(Dispatch),
    /// The key is served, the version is not.
    UnknownVersion(ApiKey),
    /// The key is not served.
    UnknownKey,
}

impl Table {
    /// What broker listeners offer.
    pub(crate) fn broker() -> Self {
        Table::of(BROKER_APIS, Listener::Broker)
    }

    /// What controller listeners offer.
    pub(crate) fn controller() -> Self {
        Table::of(CONTROLLER_APIS, Listener::Controller)
    }

    fn of(entries: &[Entry], listener: Listener) -> Self {
        let mut by_key = Vec::new();
        for entry in entries {
            let index = entry.key as usize;
            if by_key.len() <= index {
                by_key.resize(index + 1, None);
            }
            by_key[index] = Some((entry.key, entry.dispatch));
        }
        Table { by_key, listener }
    }

    /// How to handle a request.
    pub(crate) fn find(&self, key: i16, version: i16) -> Found {
        let entry = usize::try_from(key)
            .ok()
            .and_then(|key| self.by_key.get(key));
        match entry {
            Some(Some((key, dispatch))) if key.stable_versions().contains(version) => {
                Found::Served(*dispatch)
            }
            Some(Some((key, _))) => Found::UnknownVersion(*key),
            _ => Found::UnknownKey,
        }
    }

    /// The served keys in ascending order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = ApiKey> {
        self.by_key.iter().flatten().map(|(key, _)| *key)
    }
}
