//! The requests that brokers and administrators send.

use klamm_controller::managers::features::SUPPORTED;
use klamm_protocol::ByteStr;
use klamm_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use klamm_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use klamm_protocol::messages::broker_registration_request::{Feature, Listener};
use klamm_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use klamm_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use klamm_protocol::messages::delete_topics_request::DeleteTopicState;
use klamm_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionRequest, BrokerHeartbeatRequest,
    BrokerRegistrationRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
};
use klamm_records::Uuid;

use super::cluster::{CLUSTER_ID, Process};

pub(super) fn register(id: i32, process: &Process) -> BrokerRegistrationRequest {
    BrokerRegistrationRequest {
        broker_id: id,
        cluster_id: CLUSTER_ID.into(),
        incarnation_id: process.incarnation,
        listeners: vec![Listener {
            name: "PLAINTEXT".into(),
            host: "localhost".into(),
            port: 9000 + id as u16,
            ..Listener::default()
        }],
        features: SUPPORTED
            .iter()
            .map(|feature| Feature {
                name: feature.name.into(),
                min_supported_version: 0,
                max_supported_version: feature.max,
                ..Feature::default()
            })
            .collect(),
        rack: Some(if id % 2 == 0 { "even" } else { "odd" }.into()),
        log_dirs: vec![process.dir],
        previous_broker_epoch: process.clean_epoch,
        ..BrokerRegistrationRequest::default()
    }
}

pub(super) fn heartbeat(id: i32, process: &Process, offset: i64) -> BrokerHeartbeatRequest {
    BrokerHeartbeatRequest {
        broker_id: id,
        broker_epoch: process.epoch,
        current_metadata_offset: offset,
        want_shut_down: process.wants_shut_down,
        ..BrokerHeartbeatRequest::default()
    }
}

pub(super) fn create_topic(
    name: &str,
    partitions: i32,
    replicas: i16,
    min_isr: usize,
) -> CreateTopicsRequest {
    let min_isr: ByteStr = min_isr.to_string().as_str().into();
    CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: replicas,
            configs: vec![CreatableTopicConfig {
                name: "min.insync.replicas".into(),
                value: Some(min_isr),
                ..CreatableTopicConfig::default()
            }],
            ..CreatableTopic::default()
        }],
        ..CreateTopicsRequest::default()
    }
}

pub(super) fn delete_topic(name: &str) -> DeleteTopicsRequest {
    DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: Some(name.into()),
            ..DeleteTopicState::default()
        }],
        ..DeleteTopicsRequest::default()
    }
}

pub(super) fn grow_topic(name: &str, count: i32) -> CreatePartitionsRequest {
    CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: name.into(),
            count,
            ..CreatePartitionsTopic::default()
        }],
        ..CreatePartitionsRequest::default()
    }
}

pub(super) fn move_partition(
    name: &str,
    index: i32,
    replicas: Option<Vec<i32>>,
) -> AlterPartitionReassignmentsRequest {
    AlterPartitionReassignmentsRequest {
        topics: vec![ReassignableTopic {
            name: name.into(),
            partitions: vec![ReassignablePartition {
                partition_index: index,
                replicas,
                ..ReassignablePartition::default()
            }],
            ..ReassignableTopic::default()
        }],
        ..AlterPartitionReassignmentsRequest::default()
    }
}

pub(super) struct Alter {
    pub(super) topic_id: Uuid,
    pub(super) index: i32,
    pub(super) leader: i32,
    pub(super) leader_broker_epoch: i64,
    pub(super) leader_epoch: i32,
    pub(super) partition_epoch: i32,
    pub(super) isr: Vec<(i32, i64)>,
}

pub(super) fn alter_partition(alter: &Alter) -> AlterPartitionRequest {
    let member = |&(broker_id, broker_epoch): &(i32, i64)| BrokerState {
        broker_id,
        broker_epoch,
        ..BrokerState::default()
    };
    AlterPartitionRequest {
        broker_id: alter.leader,
        broker_epoch: alter.leader_broker_epoch,
        topics: vec![TopicData {
            topic_id: alter.topic_id,
            partitions: vec![PartitionData {
                partition_index: alter.index,
                leader_epoch: alter.leader_epoch,
                new_isr_with_epochs: alter.isr.iter().map(member).collect(),
                partition_epoch: alter.partition_epoch,
                ..PartitionData::default()
            }],
            ..TopicData::default()
        }],
        ..AlterPartitionRequest::default()
    }
}
