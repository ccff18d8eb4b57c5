use klamm_protocol::messages::{AllocateProducerIdsRequest, UnregisterBrokerRequest};

use super::*;
use crate::managers::{brokers, producer_ids};

#[test]
fn a_broker_is_fenced_until_it_has_seen_its_registration() {
    let mut cluster = Cluster::empty();
    let epoch = cluster.register(1, 1);
    assert_eq!(
        epoch,
        cluster.image.offset(),
        "the epoch is the offset of the registration"
    );
    assert!(cluster.image.broker(1).unwrap().fenced);
    let behind = cluster.beat(1, |request| request.current_metadata_offset = epoch - 1);
    assert!(behind.is_fenced && !behind.is_caught_up);
    let there = cluster.beat(1, |_| ());
    assert!(!there.is_fenced && there.is_caught_up);
    assert!(cluster.image.broker(1).unwrap().is_active());
}

#[test]
fn refuses_registrations_that_cannot_be_right() {
    let mut cluster = Cluster::with_brokers(1);
    let mut code = |change: fn(&mut BrokerRegistrationRequest)| {
        let mut request = registration(2, 1);
        change(&mut request);
        cluster.try_register(&request).unwrap_err().code
    };
    use ErrorCode::{
        BrokerIdNotRegistered, InconsistentClusterId, InvalidRegistration, UnsupportedVersion,
    };
    assert_eq!(
        code(|r| r.cluster_id = "other".into()),
        InconsistentClusterId
    );
    assert_eq!(
        code(|r| r.is_migrating_zk_broker = true),
        BrokerIdNotRegistered
    );
    assert_eq!(code(|r| r.log_dirs.clear()), InvalidRegistration);
    assert_eq!(code(|r| r.log_dirs.push(Uuid::ONE)), InvalidRegistration);
    assert_eq!(
        code(|r| r.log_dirs.push(r.log_dirs[0])),
        InvalidRegistration
    );
    assert_eq!(
        code(|r| r.log_dirs = vec![directory(1)]),
        InvalidRegistration
    );
    assert_eq!(code(|r| drop(r.features.remove(0))), InvalidRegistration);
    assert_eq!(
        code(|r| r.features[0].max_supported_version = 29),
        UnsupportedVersion
    );
    assert_eq!(code(|r| r.features.truncate(1)), UnsupportedVersion);
}

#[test]
fn refuses_a_second_process_while_the_first_is_alive() {
    let mut cluster = Cluster::with_brokers(1);
    let second = registration(1, 2);
    let error = cluster.try_register(&second).unwrap_err();
    assert_eq!(error.code, ErrorCode::DuplicateBrokerRegistration);
    // Its own process may register again, and keeps its epoch.
    let epoch = cluster.image.broker(1).unwrap().epoch;
    assert_eq!(cluster.register(1, 1), epoch);
    assert!(!cluster.image.broker(1).unwrap().fenced);
    // A process that shares the controller's proves by that that the one before is gone.
    let mut sessions = cluster.sessions.clone();
    let same = brokers::register_broker(
        &cluster.context(),
        &mut sessions,
        &second,
        true,
        cluster.now,
    );
    assert!(same.is_ok());
    cluster.now += SESSION + Duration::from_millis(1);
    assert!(cluster.try_register(&second).unwrap() > epoch);
}

#[test]
fn refuses_heartbeats_of_another_epoch() {
    let mut cluster = Cluster::with_brokers(1);
    let request = BrokerHeartbeatRequest {
        broker_id: 1,
        broker_epoch: 1,
        ..Default::default()
    };
    let error = cluster.try_beat(&request).unwrap_err();
    assert_eq!(error.code, ErrorCode::StaleBrokerEpoch);
    let request = BrokerHeartbeatRequest {
        broker_id: 9,
        ..Default::default()
    };
    let error = cluster.try_beat(&request).unwrap_err();
    assert_eq!(
        error.message.unwrap(),
        "No broker registration found for broker id 9"
    );
}

#[test]
fn a_broker_that_is_gone_is_fenced_before_its_session_is_over() {
    let mut cluster = Cluster::with_brokers(2);
    cluster.create_assigned("a", &[&[1, 2]]);
    let epoch = cluster.image.broker(1).unwrap().epoch;
    let mut sessions = cluster.sessions.clone();
    // One that has registered anew is another one.
    let outcome = brokers::fence_gone(&cluster.context(), &mut sessions, (1, epoch + 1));
    assert!(outcome.records.is_empty());
    let outcome = brokers::fence_gone(&cluster.context(), &mut sessions, (1, epoch));
    cluster.replay(&outcome.records);
    assert!(cluster.image.broker(1).unwrap().fenced);
    assert_eq!(cluster.partition("a", 0).leader, 2);
    let outcome = brokers::fence_gone(&cluster.context(), &mut sessions, (1, epoch));
    assert!(outcome.records.is_empty());
}

#[test]
fn a_silent_broker_is_fenced_once_its_session_is_over() {
    let mut cluster = Cluster::with_brokers(2);
    cluster.create_assigned("a", &[&[1, 2], &[2, 1]]);
    cluster.now += Duration::from_secs(5);
    cluster.beat(2, |_| ());
    cluster.now += Duration::from_secs(4);
    let mut sessions = cluster.sessions.clone();
    assert!(brokers::fence_expired(&cluster.context(), &mut sessions, cluster.now).is_none());
    cluster.now += Duration::from_millis(1);
    let (id, records) =
        brokers::fence_expired(&cluster.context(), &mut sessions, cluster.now).unwrap();
    assert_eq!(id, 1);
    cluster.replay(&records);
    assert!(cluster.image.broker(1).unwrap().fenced);
    assert_eq!(
        (
            cluster.partition("a", 0).leader,
            cluster.partition("a", 1).leader
        ),
        (2, 2)
    );
    assert_eq!(cluster.partition("a", 1).isr, [2]);
    assert!(brokers::fence_expired(&cluster.context(), &mut sessions, cluster.now).is_none());
    assert_eq!(sessions.next_deadline(), Some(Duration::from_secs(114)));
}

#[test]
fn a_broker_goes_once_others_lead_and_know_it() {
    let mut cluster = Cluster::with_brokers(2);
    cluster.create_assigned("a", &[&[1, 2]]);
    let leaving = |request: &mut BrokerHeartbeatRequest| request.want_shut_down = true;
    let first = cluster.beat(1, leaving);
    assert!(!first.should_shut_down && !first.is_fenced);
    assert_eq!(cluster.partition("a", 0).leader, 2);
    assert!(cluster.image.broker(1).unwrap().in_controlled_shutdown);
    // Broker 2 has not seen that it leads now.
    assert!(!cluster.beat(1, leaving).should_shut_down);
    cluster.beat(2, |_| ());
    let last = cluster.beat(1, leaving);
    assert!(last.should_shut_down && last.is_fenced);
    assert!(cluster.image.broker(1).unwrap().fenced);
}

#[test]
fn a_broker_that_leads_nothing_goes_at_once() {
    let mut cluster = Cluster::with_brokers(1);
    assert!(
        cluster
            .beat(1, |request| request.want_shut_down = true)
            .should_shut_down
    );
}

#[test]
fn the_only_replica_stays_eligible_over_a_clean_restart() {
    let mut cluster = Cluster::with_brokers(1);
    cluster.create(topic("a", 1, 1)).unwrap();
    cluster.beat(1, |request| request.want_shut_down = true);
    let partition = cluster.partition("a", 0);
    assert_eq!((partition.leader, partition.isr.len()), (-1, 0));
    assert_eq!(
        (&partition.elr[..], &partition.last_known_elr[..]),
        (&[1][..], &[1][..])
    );
    cluster.fence(1);
    let mut again = registration(1, 2);
    again.previous_broker_epoch = cluster.image.broker(1).unwrap().epoch;
    cluster.try_register(&again).unwrap();
    cluster.beat(1, |_| ());
    let partition = cluster.partition("a", 0);
    assert_eq!((partition.leader, &partition.isr[..]), (1, &[1][..]));
    assert_eq!(
        partition.leader_recovery_state.value(),
        0,
        "nothing can be missing"
    );
    assert!(partition.elr.is_empty() && partition.last_known_elr.is_empty());
}

#[test]
fn after_a_kill_the_last_leader_recovers() {
    let mut cluster = Cluster::with_brokers(1);
    cluster.create(topic("a", 1, 1)).unwrap();
    cluster.now += SESSION + Duration::from_millis(1);
    cluster.register(1, 2);
    let partition = cluster.partition("a", 0);
    assert_eq!((partition.leader, partition.elr.len()), (-1, 0));
    assert_eq!(partition.last_known_elr, [1]);
    cluster.beat(1, |_| ());
    let partition = cluster.partition("a", 0);
    assert_eq!((partition.leader, &partition.isr[..]), (1, &[1][..]));
    assert_eq!(partition.leader_recovery_state.value(), 1);
}

#[test]
fn replicas_in_a_failed_directory_lose_their_leadership() {
    let mut cluster = Cluster::with_brokers(2);
    let mut two_dirs = registration(1, 1);
    two_dirs.log_dirs.push(Uuid::from_bytes([77; 16]));
    cluster.try_register(&two_dirs).unwrap();
    cluster.create_assigned("a", &[&[1, 2]]);
    assert_eq!(
        cluster.partition("a", 0).directories[0],
        Uuid::UNASSIGNED_DIR
    );
    let assign = klamm_protocol::messages::AssignReplicasToDirsRequest {
        broker_id: 1,
        broker_epoch: cluster.image.broker(1).unwrap().epoch,
        directories: vec![
            klamm_protocol::messages::assign_replicas_to_dirs_request::DirectoryData {
                id: directory(1),
                topics: vec![
                    klamm_protocol::messages::assign_replicas_to_dirs_request::TopicData {
                        topic_id: cluster.image.topic("a").unwrap().id(),
                        partitions: vec![Default::default()],
                        ..Default::default()
                    },
                ],
                ..Default::default()
            },
        ],
        ..Default::default()
    };
    let outcome =
        crate::managers::partitions::assign_replicas_to_dirs(&cluster.context(), &assign).unwrap();
    let reply = cluster.commit(outcome);
    assert_eq!(reply.directories[0].topics[0].partitions[0].error_code, 0);
    assert_eq!(cluster.partition("a", 0).directories[0], directory(1));
    cluster.beat(1, |request| request.offline_log_dirs = vec![directory(1)]);
    assert_eq!(cluster.partition("a", 0).leader, 2);
    assert_eq!(
        cluster.image.broker(1).unwrap().log_dirs,
        [Uuid::from_bytes([77; 16])]
    );
}

#[test]
fn a_cordoned_broker_gets_no_new_replicas() {
    let mut cluster = Cluster::with_brokers(2);
    cluster.beat(1, |request| {
        request.cordoned_log_dirs = Some(vec![directory(1)])
    });
    assert!(cluster.image.broker(1).unwrap().is_cordoned());
    assert_eq!(cluster.create(topic("a", 4, 1)), Ok(()));
    assert!((0..4).all(|index| cluster.partition("a", index).replicas == [2]));
    assert_eq!(
        cluster.create(topic("b", 1, 2)).unwrap_err().0,
        ErrorCode::InvalidReplicationFactor
    );
}

#[test]
fn a_broker_is_forgotten_with_its_place_in_sync() {
    let mut cluster = Cluster::with_brokers(2);
    cluster.create_assigned("a", &[&[2, 1]]);
    let request = UnregisterBrokerRequest {
        broker_id: 2,
        ..Default::default()
    };
    let mut sessions = cluster.sessions.clone();
    let outcome = brokers::unregister_broker(&cluster.context(), &mut sessions, &request).unwrap();
    cluster.commit(outcome);
    assert!(cluster.image.broker(2).is_none());
    assert_eq!(
        (
            cluster.partition("a", 0).leader,
            cluster.partition("a", 0).isr
        ),
        (1, vec![1])
    );
    let error =
        brokers::unregister_broker(&cluster.context(), &mut sessions, &request).unwrap_err();
    assert_eq!(error.code, ErrorCode::BrokerIdNotRegistered);
    assert_eq!(
        error.message.unwrap(),
        "Broker ID 2 is not currently registered"
    );
}

#[test]
fn producer_ids_come_in_blocks_that_never_overlap() {
    let mut cluster = Cluster::with_brokers(1);
    let broker_epoch = cluster.image.broker(1).unwrap().epoch;
    let request = AllocateProducerIdsRequest {
        broker_id: 1,
        broker_epoch,
        ..Default::default()
    };
    for block in 0..3 {
        let outcome = producer_ids::allocate_producer_ids(&cluster.context(), &request).unwrap();
        let reply = cluster.commit(outcome);
        assert_eq!(
            (reply.producer_id_start, reply.producer_id_len),
            (block * 1000, 1000)
        );
    }
    let stale = AllocateProducerIdsRequest {
        broker_epoch: 0,
        ..request
    };
    let error = producer_ids::allocate_producer_ids(&cluster.context(), &stale).unwrap_err();
    assert_eq!(error.code, ErrorCode::StaleBrokerEpoch);
}
