use klamm_metadata::NO_LEADER;
use klamm_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use klamm_protocol::messages::elect_leaders_request::TopicPartitions;
use klamm_protocol::messages::{AlterPartitionRequest, ElectLeadersRequest};

use super::*;
use crate::managers::configs::{self, Change};
use crate::managers::{elections, isr};

/// Asks, as `broker`, for `new_isr` of the first partition of topic "a"; the partition's error.
fn alter(cluster: &mut Cluster, broker: i32, new_isr: &[i32]) -> ErrorCode {
    alter_with(cluster, broker, new_isr, |_| ())
}

fn alter_with(
    cluster: &mut Cluster,
    broker: i32,
    new_isr: &[i32],
    change: impl FnOnce(&mut PartitionData),
) -> ErrorCode {
    let partition = cluster.partition("a", 0);
    let state = |id: &i32| BrokerState {
        broker_id: *id,
        broker_epoch: cluster.image.broker(*id).map_or(-1, |broker| broker.epoch),
        ..Default::default()
    };
    let mut data = PartitionData {
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        new_isr_with_epochs: new_isr.iter().map(state).collect(),
        ..Default::default()
    };
    change(&mut data);
    let request = AlterPartitionRequest {
        broker_id: broker,
        broker_epoch: cluster.image.broker(broker).unwrap().epoch,
        topics: vec![TopicData {
            topic_id: cluster.image.topic("a").unwrap().id(),
            partitions: vec![data],
            ..Default::default()
        }],
        ..Default::default()
    };
    let outcome = isr::alter_partition(&cluster.context(), &request).unwrap();
    let reply = cluster.commit(outcome);
    let answer = &reply.topics[0].partitions[0];
    let now = cluster.partition("a", 0);
    if answer.error_code == 0 {
        assert_eq!(
            (&answer.isr, answer.partition_epoch),
            (&now.isr, now.partition_epoch)
        );
    }
    ErrorCode::from_code(answer.error_code).unwrap()
}

fn three_replicas() -> Cluster {
    let mut cluster = Cluster::with_brokers(3);
    cluster.create_assigned("a", &[&[1, 2, 3]]);
    cluster
}

#[test]
fn the_leader_shrinks_and_expands_its_isr() {
    let mut cluster = three_replicas();
    assert_eq!(alter(&mut cluster, 1, &[1]), ErrorCode::None);
    let shrunk = cluster.partition("a", 0);
    assert_eq!(
        (&shrunk.isr[..], shrunk.leader_epoch, shrunk.partition_epoch),
        (&[1][..], 0, 1)
    );
    assert_eq!(alter(&mut cluster, 1, &[1, 2, 3]), ErrorCode::None);
    assert_eq!(cluster.partition("a", 0).isr, [1, 2, 3]);
}

#[test]
fn refuses_isrs_that_cannot_be_right() {
    let mut cluster = three_replicas();
    let mut fails = |broker, isr: &[i32], change: fn(&mut PartitionData)| {
        alter_with(&mut cluster, broker, isr, change)
    };
    use ErrorCode::{
        FencedLeaderEpoch, IneligibleReplica, InvalidRequest, InvalidUpdateVersion, NotController,
        UnknownTopicOrPartition,
    };
    assert_eq!(fails(1, &[1], |p| p.leader_epoch = 1), NotController);
    assert_eq!(fails(1, &[1], |p| p.partition_epoch = 1), NotController);
    assert_eq!(fails(1, &[1], |p| p.leader_epoch = -1), FencedLeaderEpoch);
    assert_eq!(fails(2, &[2], |_| ()), InvalidRequest);
    assert_eq!(
        fails(1, &[1], |p| p.partition_epoch = -1),
        InvalidUpdateVersion
    );
    assert_eq!(fails(1, &[2, 3], |_| ()), InvalidRequest);
    assert_eq!(fails(1, &[1, 9], |_| ()), InvalidRequest);
    assert_eq!(fails(1, &[1, 1], |_| ()), InvalidRequest);
    assert_eq!(
        fails(1, &[1], |p| p.leader_recovery_state = 1),
        InvalidRequest
    );
    assert_eq!(
        fails(1, &[1], |p| p.leader_recovery_state = 7),
        InvalidRequest
    );
    assert_eq!(
        fails(1, &[1, 2], |p| p.new_isr_with_epochs[1].broker_epoch = 3),
        IneligibleReplica
    );
    assert_eq!(
        fails(1, &[1], |p| p.partition_index = 5),
        UnknownTopicOrPartition
    );
    cluster.fence(2);
    assert_eq!(alter(&mut cluster, 1, &[1, 2]), IneligibleReplica);
}

#[test]
fn leadership_goes_to_who_is_in_sync_and_alive() {
    let mut cluster = three_replicas();
    assert_eq!(alter(&mut cluster, 1, &[1, 3]), ErrorCode::None);
    cluster.fence(1);
    let partition = cluster.partition("a", 0);
    assert_eq!(
        (partition.leader, &partition.isr[..], partition.leader_epoch),
        (3, &[3][..], 1)
    );
    cluster.fence(3);
    let partition = cluster.partition("a", 0);
    assert_eq!((partition.leader, partition.isr.len()), (NO_LEADER, 0));
    assert_eq!(partition.elr, [3], "it holds all that was acknowledged");
    // A replica that is neither in sync nor eligible does not lead.
    assert_eq!(partition.last_known_elr, [3]);
    cluster.beat(1, |_| ());
    assert_eq!(cluster.partition("a", 0).leader, NO_LEADER);
    cluster.beat(3, |_| ());
    let partition = cluster.partition("a", 0);
    assert_eq!((partition.leader, &partition.isr[..]), (3, &[3][..]));
    assert_eq!(partition.leader_recovery_state.value(), 0);
}

#[test]
fn replicas_stay_eligible_below_min_insync_replicas() {
    let mut cluster = three_replicas();
    let resource = klamm_metadata::ConfigResource::topic("a");
    let two = [(
        "min.insync.replicas".to_owned(),
        Change::Set("2".to_owned()),
    )]
    .into();
    let records = configs::alter_new_topic(&cluster.context(), &resource, &two).unwrap();
    cluster.replay(&records);
    assert_eq!(alter(&mut cluster, 1, &[1]), ErrorCode::None);
    assert_eq!(cluster.partition("a", 0).elr, [2, 3]);
    assert_eq!(alter(&mut cluster, 1, &[1, 2]), ErrorCode::None);
    assert!(cluster.partition("a", 0).elr.is_empty());
}

fn set_unclean(cluster: &mut Cluster) {
    let resource = klamm_metadata::ConfigResource::topic("a");
    let on = [(
        "unclean.leader.election.enable".to_owned(),
        Change::Set("true".to_owned()),
    )]
    .into();
    let records = configs::alter_new_topic(&cluster.context(), &resource, &on).unwrap();
    cluster.replay(&records);
}

#[test]
fn a_topic_that_permits_it_gets_any_live_leader() {
    let mut cluster = three_replicas();
    assert_eq!(alter(&mut cluster, 1, &[1]), ErrorCode::None);
    cluster.fence(1);
    assert_eq!(cluster.partition("a", 0).leader, NO_LEADER);
    assert!(elections::elect_leaderless(&cluster.context(), 10).is_empty());
    set_unclean(&mut cluster);
    let records = elections::elect_leaderless(&cluster.context(), 10);
    cluster.replay(&records);
    let partition = cluster.partition("a", 0);
    assert_eq!((partition.leader, &partition.isr[..]), (2, &[2][..]));
    assert_eq!(partition.leader_recovery_state.value(), 1);
    let recovered = alter_with(&mut cluster, 2, &[2], |data| data.leader_recovery_state = 0);
    assert_eq!(recovered, ErrorCode::None);
    assert_eq!(cluster.partition("a", 0).leader_recovery_state.value(), 0);
}

#[test]
fn leadership_returns_to_the_preferred_replica() {
    let mut cluster = three_replicas();
    cluster.fence(1);
    assert_eq!(cluster.partition("a", 0).leader, 2);
    cluster.beat(1, |_| ());
    assert!(
        elections::balance_leaders(&cluster.context(), 10).is_empty(),
        "not in sync yet"
    );
    assert_eq!(alter(&mut cluster, 2, &[1, 2, 3]), ErrorCode::None);
    assert!(elections::balance_leaders(&cluster.context(), 0).is_empty());
    let records = elections::balance_leaders(&cluster.context(), 10);
    cluster.replay(&records);
    assert_eq!(cluster.partition("a", 0).leader, 1);
}

#[test]
fn elections_are_asked_for_by_name_or_for_all() {
    let mut cluster = three_replicas();
    cluster.create_assigned("b", &[&[1], &[2]]);
    let ask = |cluster: &Cluster, election_type, topics: Option<&[(&str, i32)]>| {
        let topic = |(topic, partition): &(&str, i32)| TopicPartitions {
            topic: (*topic).into(),
            partitions: vec![*partition],
            ..Default::default()
        };
        let topic_partitions = topics.map(|topics| topics.iter().map(topic).collect());
        let request = ElectLeadersRequest {
            election_type,
            topic_partitions,
            ..Default::default()
        };
        elections::elect_leaders(&cluster.context(), &request)
    };
    let named = [("a", 0), ("gone", 0), ("a", 9)];
    let reply = ask(&cluster, 0, Some(&named)).unwrap().reply;
    let results: Vec<_> = reply
        .replica_election_results
        .iter()
        .map(|topic| {
            result_of(
                topic.partition_result[0].error_code,
                &topic.partition_result[0].error_message,
            )
        })
        .collect();
    assert_eq!(results[0], refused(ErrorCode::ElectionNotNeeded, ""));
    assert_eq!(
        results[1],
        refused(ErrorCode::UnknownTopicOrPartition, "No such topic as gone")
    );
    assert_eq!(
        results[2],
        refused(
            ErrorCode::UnknownTopicOrPartition,
            "No such partition as a-9"
        )
    );
    let error = ask(&cluster, 5, None).unwrap_err();
    assert_eq!(error.message.unwrap(), "Unknown election type 5");

    cluster.fence(1);
    let all = ask(&cluster, 0, None).unwrap();
    let told: Vec<i16> = all
        .reply
        .replica_election_results
        .iter()
        .flat_map(|topic| {
            topic
                .partition_result
                .iter()
                .map(|partition| partition.error_code)
        })
        .collect();
    let unavailable = ErrorCode::PreferredLeaderNotAvailable.code();
    assert_eq!(
        told,
        [unavailable, unavailable],
        "b-1 needs no election and is not told"
    );
}
