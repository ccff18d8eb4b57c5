use klamm_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use klamm_protocol::messages::alter_partition_request::{PartitionData, TopicData};
use klamm_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionRequest, ListPartitionReassignmentsRequest,
};

use super::*;
use crate::managers::{isr, reassignments};

fn reassign(
    cluster: &mut Cluster,
    name: &str,
    partition_index: i32,
    replicas: Option<&[i32]>,
    allow_replication_factor_change: bool,
) -> Result<(), (ErrorCode, String)> {
    let request = AlterPartitionReassignmentsRequest {
        allow_replication_factor_change,
        topics: vec![ReassignableTopic {
            name: name.into(),
            partitions: vec![ReassignablePartition {
                partition_index,
                replicas: replicas.map(<[i32]>::to_vec),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let outcome = reassignments::alter_partition_reassignments(&cluster.context(), &request);
    let reply = cluster.commit(outcome);
    let answer = &reply.responses[0].partitions[0];
    result_of(answer.error_code, &answer.error_message)
}

/// The leader reports who is in sync.
fn in_sync(cluster: &mut Cluster, isr: &[i32]) -> ErrorCode {
    let partition = cluster.partition("a", 0);
    let request = AlterPartitionRequest {
        broker_id: partition.leader,
        broker_epoch: cluster.image.broker(partition.leader).unwrap().epoch,
        topics: vec![TopicData {
            topic_id: cluster.image.topic("a").unwrap().id(),
            partitions: vec![PartitionData {
                leader_epoch: partition.leader_epoch,
                partition_epoch: partition.partition_epoch,
                new_isr: isr.to_vec(),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let outcome = isr::alter_partition(&cluster.context(), &request).unwrap();
    let reply = cluster.commit(outcome);
    ErrorCode::from_code(reply.topics[0].partitions[0].error_code).unwrap()
}

fn listed(cluster: &Cluster) -> Vec<(Vec<i32>, Vec<i32>, Vec<i32>)> {
    let request = ListPartitionReassignmentsRequest::default();
    let request = ListPartitionReassignmentsRequest {
        topics: None,
        ..request
    };
    reassignments::list_partition_reassignments(&cluster.image, &request)
        .topics
        .into_iter()
        .flat_map(|topic| topic.partitions)
        .map(|p| (p.replicas, p.adding_replicas, p.removing_replicas))
        .collect()
}

#[test]
fn a_partition_moves_once_the_new_replicas_are_in_sync() {
    let mut cluster = Cluster::with_brokers(4);
    cluster.create_assigned("a", &[&[1, 2]]);
    assert_eq!(reassign(&mut cluster, "a", 0, Some(&[3, 4]), false), Ok(()));
    let moving = cluster.partition("a", 0);
    assert_eq!(moving.replicas, [3, 4, 1, 2]);
    assert_eq!((moving.leader, &moving.isr[..]), (1, &[1, 2][..]));
    assert_eq!(
        listed(&cluster),
        [(vec![3, 4, 1, 2], vec![3, 4], vec![1, 2])]
    );
    assert_eq!(in_sync(&mut cluster, &[1, 2, 3]), ErrorCode::None);
    assert!(cluster.partition("a", 0).is_reassigning());
    // Done, and the leader that asked is no longer a replica.
    assert_eq!(
        in_sync(&mut cluster, &[1, 2, 3, 4]),
        ErrorCode::NewLeaderElected
    );
    let moved = cluster.partition("a", 0);
    assert_eq!(
        (&moved.replicas[..], &moved.isr[..], moved.leader),
        (&[3, 4][..], &[3, 4][..], 3)
    );
    assert_eq!(moved.directories, [directory(3), directory(4)]);
    assert!(!moved.is_reassigning() && listed(&cluster).is_empty());
}

#[test]
fn a_move_can_be_taken_back() {
    let mut cluster = Cluster::with_brokers(3);
    cluster.create_assigned("a", &[&[1, 2]]);
    let nothing = refused(ErrorCode::NoReassignmentInProgress, "");
    assert_eq!(reassign(&mut cluster, "a", 0, None, true), nothing);
    assert_eq!(reassign(&mut cluster, "a", 0, Some(&[1, 3]), false), Ok(()));
    assert_eq!(in_sync(&mut cluster, &[1, 2]), ErrorCode::None);
    assert_eq!(reassign(&mut cluster, "a", 0, None, true), Ok(()));
    let back = cluster.partition("a", 0);
    assert_eq!(
        (&back.replicas[..], back.is_reassigning()),
        (&[1, 2][..], false)
    );
    // Kafka forgets replica 3 with a new leader epoch.
    assert!(back.leader_epoch > 0);
}

#[test]
fn the_same_replicas_in_another_order_are_done_at_once() {
    let mut cluster = Cluster::with_brokers(2);
    cluster.create_assigned("a", &[&[1, 2]]);
    assert_eq!(reassign(&mut cluster, "a", 0, Some(&[2, 1]), false), Ok(()));
    let partition = cluster.partition("a", 0);
    assert_eq!(
        (&partition.replicas[..], partition.is_reassigning()),
        (&[2, 1][..], false)
    );
    assert_eq!(partition.directories, [directory(2), directory(1)]);
}

#[test]
fn refuses_reassignments_as_kafka_does() {
    let mut cluster = Cluster::with_brokers(2);
    cluster.create_assigned("a", &[&[1]]);
    let mut fails =
        |name, index, replicas: &[i32]| reassign(&mut cluster, name, index, Some(replicas), false);
    use ErrorCode::{InvalidReplicaAssignment, InvalidReplicationFactor, UnknownTopicOrPartition};
    let broker =
        "The manual partition assignment includes broker 5, but no such broker is registered.";
    assert_eq!(
        fails("a", 0, &[5]),
        refused(InvalidReplicaAssignment, broker)
    );
    let twice = "The manual partition assignment includes the broker 1 more than once.";
    assert_eq!(
        fails("a", 0, &[1, 1]),
        refused(InvalidReplicaAssignment, twice)
    );
    let factor = "The replication factor is changed from 1 to 2";
    assert_eq!(
        fails("a", 0, &[1, 2]),
        refused(InvalidReplicationFactor, factor)
    );
    let topic = "Unable to find a topic named gone.";
    assert_eq!(
        fails("gone", 0, &[1]),
        refused(UnknownTopicOrPartition, topic)
    );
    let partition = "Unable to find partition a:77.";
    assert_eq!(
        fails("a", 77, &[1]),
        refused(UnknownTopicOrPartition, partition)
    );
    assert_eq!(reassign(&mut cluster, "a", 0, Some(&[1, 2]), true), Ok(()));
    assert_eq!(listed(&cluster), [(vec![1, 2], vec![2], vec![])]);
}
