use super::leader::FollowerRefused;
use super::*;

const LAG_MAX_MS: i64 = 30_000;

fn metadata(replicas: &[i32], isr: &[i32], leader: i32, epoch: i32) -> PartitionMetadata {
    PartitionMetadata {
        replicas: replicas.to_vec(),
        isr: isr.to_vec(),
        leader,
        leader_epoch: epoch,
        partition_epoch: epoch,
        ..PartitionMetadata::default()
    }
}

fn log(end_offset: i64, high_watermark: i64, min_insync_replicas: i32) -> LocalLog {
    LocalLog {
        durable_offset: None,
        end_offset,
        high_watermark,
        min_insync_replicas,
        lag_max_ms: LAG_MAX_MS,
    }
}

fn fetch(replica: i32, offset: i64, leader_end_offset: i64, now_ms: i64) -> FollowerFetch {
    FollowerFetch {
        replica,
        broker_epoch: 100,
        offset,
        log_start_offset: 0,
        leader_end_offset,
        now_ms,
    }
}

fn leader(replicas: &[i32], isr: &[i32], log: LocalLog) -> LeaderState {
    let mut leader = LeaderState::elected(1, &metadata(replicas, isr, 1, 5), log, 1_000);
    for &id in replicas {
        leader.set_liveness(
            id,
            BrokerLiveness {
                epoch: Some(100),
                ..BrokerLiveness::default()
            },
        );
    }
    leader
}

#[test]
fn alone_everything_is_committed_at_once() {
    let mut leader = leader(&[1], &[1], log(7, 3, 1));
    assert_eq!(leader.high_watermark(), 7);
    assert_eq!(leader.appended(12, 1_000), Some(12));
    assert_eq!(leader.appended(12, 1_000), None);
    assert_eq!(leader.ack_state(12), AckState::Done);
    assert_eq!(leader.ack_state(13), AckState::Waiting);
}

#[test]
fn appends_reported_out_of_order_do_not_move_the_end_back() {
    let mut leader = leader(&[1], &[1], log(0, 0, 1));
    assert_eq!(leader.appended(20, 0), Some(20));
    assert_eq!(leader.appended(10, 0), None);
    assert_eq!(leader.log_end_offset(), 20);
}

#[test]
fn min_isr_above_the_replication_factor_counts_as_the_factor() {
    let leader = leader(&[1], &[1], log(0, 0, 2));
    assert!(leader.has_enough_replicas());
    assert!(leader.is_at_min_isr());
}

#[test]
fn the_slowest_in_sync_replica_decides() {
    let mut leader = leader(&[1, 2, 3], &[1, 2, 3], log(10, 10, 2));
    assert_eq!(leader.appended(20, 1_000), None);
    let effects = leader.follower_fetched(fetch(2, 20, 20, 1_001)).unwrap();
    assert_eq!(effects, FollowerFetchEffects::default());
    let effects = leader.follower_fetched(fetch(3, 15, 20, 1_002)).unwrap();
    assert_eq!(effects.high_watermark, Some(15));
    assert_eq!(leader.ack_state(20), AckState::Waiting);
    let effects = leader.follower_fetched(fetch(3, 20, 20, 1_003)).unwrap();
    assert_eq!(effects.high_watermark, Some(20));
    assert_eq!(leader.ack_state(20), AckState::Done);
}

#[test]
fn under_min_isr_nothing_is_committed() {
    let mut leader = leader(&[1, 2], &[1], log(10, 5, 2));
    assert_eq!(leader.high_watermark(), 5);
    assert!(!leader.has_enough_replicas());
    assert!(leader.is_under_min_isr() && leader.is_under_replicated());
    assert_eq!(leader.appended(12, 1_000), None);
}

#[test]
fn a_lagging_replica_is_proposed_to_leave_and_still_counts_until_then() {
    let mut leader = leader(&[1, 2], &[1, 2], log(10, 10, 1));
    leader.follower_fetched(fetch(2, 10, 10, 1_000)).unwrap();
    leader.appended(20, 2_000);
    assert_eq!(leader.check_lag(1_000 + LAG_MAX_MS), None);
    let proposal = leader.check_lag(1_001 + LAG_MAX_MS).unwrap();
    assert_eq!(proposal.isr.len(), 1);
    assert_eq!(proposal.isr[0].id, 1);
    assert_eq!(leader.high_watermark(), 10);
    assert_eq!(leader.check_lag(90_000), None, "one proposal at a time");

    let mut committed = metadata(&[1, 2], &[1], 1, 5);
    committed.partition_epoch = 6;
    let outcome = leader.alter_partition_answered(proposal.id, Ok(&committed), 90_000);
    assert_eq!(
        outcome,
        AlterOutcome::Committed {
            high_watermark: Some(20)
        }
    );
    assert_eq!(leader.partition_epoch(), 6);
}

#[test]
fn a_replica_that_stands_at_the_end_is_in_sync_however_long_ago_it_came() {
    let mut leader = leader(&[1, 2], &[1, 2], log(10, 10, 1));
    leader.follower_fetched(fetch(2, 10, 10, 1_000)).unwrap();
    assert_eq!(leader.check_lag(10 * LAG_MAX_MS), None);
}

#[test]
fn a_replica_always_one_fetch_behind_stays_in_sync() {
    let mut leader = leader(&[1, 2], &[1, 2], log(10, 10, 1));
    for round in 0_i64..10 {
        let now_ms = 1_000 + round * 20_000;
        let end = 10 + (round + 1) * 10;
        leader.appended(end, now_ms);
        leader
            .follower_fetched(fetch(2, end - 10, end, now_ms))
            .unwrap();
        assert_eq!(leader.check_lag(now_ms), None, "round {round}");
    }
}

#[test]
fn a_joining_replica_counts_as_soon_as_it_is_proposed() {
    let mut leader = leader(&[1, 2], &[1], log(10, 10, 1));
    assert_eq!(leader.appended(20, 1_000), Some(20));
    // Behind the high watermark: not yet.
    let effects = leader.follower_fetched(fetch(2, 15, 20, 1_001)).unwrap();
    assert_eq!(effects.proposal, None);
    let effects = leader.follower_fetched(fetch(2, 20, 20, 1_002)).unwrap();
    let proposal = effects.proposal.unwrap();
    assert_eq!(
        proposal.isr[1],
        IsrMember {
            id: 2,
            broker_epoch: 100
        }
    );
    assert_eq!(leader.appended(30, 1_003), None);
    assert_eq!(leader.isr().maximal_len(), 2);

    let refused = Err(AlterPartitionError::Refused);
    assert_eq!(
        leader.alter_partition_answered(proposal.id, refused, 1_004),
        AlterOutcome::Withdrawn
    );
    assert_eq!(leader.isr().members(), &[1]);
}

#[test]
fn a_replica_short_of_the_epoch_start_does_not_join() {
    // Elected with end offset 10 and high watermark 4 while replica 3 is a lagging ISR member.
    let mut leader = leader(&[1, 2, 3], &[1, 3], log(10, 4, 1));
    let effects = leader.follower_fetched(fetch(2, 6, 10, 1_001)).unwrap();
    assert_eq!(effects.proposal, None);
    let effects = leader.follower_fetched(fetch(2, 10, 10, 1_002)).unwrap();
    assert!(effects.proposal.is_some());
}

#[test]
fn fenced_leaving_and_restarted_brokers_do_not_join() {
    for liveness in [
        BrokerLiveness {
            epoch: Some(100),
            fenced: true,
            shutting_down: false,
        },
        BrokerLiveness {
            epoch: Some(100),
            fenced: false,
            shutting_down: true,
        },
        BrokerLiveness {
            epoch: Some(99),
            ..BrokerLiveness::default()
        },
        BrokerLiveness::default(),
    ] {
        let mut leader = leader(&[1, 2], &[1], log(10, 10, 1));
        leader.set_liveness(2, liveness);
        let effects = leader.follower_fetched(fetch(2, 10, 10, 1_001)).unwrap();
        assert_eq!(effects.proposal, None, "{liveness:?}");
    }
}

#[test]
fn refuses_fetches_of_strangers_and_former_incarnations() {
    let mut leader = leader(&[1, 2], &[1], log(10, 10, 1));
    assert_eq!(
        leader.follower_fetched(fetch(9, 10, 10, 0)),
        Err(FollowerRefused::NotAReplica)
    );
    let mut old = fetch(2, 10, 10, 0);
    old.broker_epoch = 99;
    assert_eq!(
        leader.follower_fetched(old),
        Err(FollowerRefused::StaleBrokerEpoch)
    );
    old.broker_epoch = -1;
    assert!(leader.follower_fetched(old).is_ok());
}

#[test]
fn an_unclear_answer_waits_for_metadata_and_a_lost_one_is_repeated() {
    let mut leader = leader(&[1, 2], &[1], log(10, 10, 1));
    let proposal = leader
        .follower_fetched(fetch(2, 10, 10, 1_001))
        .unwrap()
        .proposal
        .unwrap();
    let answer = |leader: &mut LeaderState, error| {
        leader.alter_partition_answered(proposal.id, Err(error), 1_002)
    };
    assert_eq!(
        answer(&mut leader, AlterPartitionError::Retry),
        AlterOutcome::Retry(proposal.clone())
    );
    assert_eq!(
        answer(&mut leader, AlterPartitionError::AwaitMetadata),
        AlterOutcome::AwaitMetadata
    );
    assert!(leader.isr().is_in_flight());

    let mut newer = metadata(&[1, 2], &[1, 2], 1, 5);
    newer.partition_epoch = 6;
    leader.update(&newer, log(10, 10, 1), 1_003);
    assert_eq!(
        answer(&mut leader, AlterPartitionError::Retry),
        AlterOutcome::Ignored
    );
    assert_eq!(leader.isr().members(), &[1, 2]);
}

#[test]
fn the_low_watermark_is_that_of_the_live_replicas() {
    let mut leader = leader(&[1, 2, 3], &[1, 2, 3], log(10, 10, 1));
    let mut slow = fetch(2, 10, 10, 0);
    slow.log_start_offset = 3;
    leader.follower_fetched(slow).unwrap();
    assert_eq!(leader.low_watermark(8), -1, "3 has not told yet");
    leader.set_liveness(3, BrokerLiveness::default());
    assert_eq!(leader.low_watermark(8), 3);
    assert_eq!(leader.low_watermark(2), 2);
}

/// Else the high watermark could pass a replica that the controller has let into the ISR already.
#[test]
fn the_same_record_again_does_not_drop_a_proposal_in_flight() {
    let record = metadata(&[1, 2], &[1], 1, 5);
    let mut leader = leader(&[1, 2], &[1], log(10, 10, 1));
    let effects = leader.follower_fetched(fetch(2, 10, 10, 1_001)).unwrap();
    assert!(effects.proposal.is_some());
    leader.update(&record, log(10, 10, 1), 1_002);
    assert!(leader.isr().is_in_flight());
    leader.appended(12, 100_000);
    assert_eq!(
        leader.high_watermark(),
        10,
        "2 counts until the controller has answered"
    );
}

#[test]
fn roles_change_by_epoch() {
    let mut role = Role::unassigned(4);
    assert_eq!(
        role.apply(1, &metadata(&[1, 2], &[1, 2], 1, 3), log(10, 4, 1), 0),
        Transition::Elected { newly: true }
    );
    assert_eq!(role.check_epoch(Some(2)), Err(EpochMismatch::Fenced));
    assert_eq!(role.check_epoch(Some(3)), Ok(()));
    assert_eq!(role.check_epoch(Some(4)), Err(EpochMismatch::Unknown));
    assert_eq!(role.check_epoch(None), Ok(()));
    assert_eq!(
        role.apply(1, &metadata(&[1, 2], &[2], 2, 2), log(10, 4, 1), 0),
        Transition::Stale
    );
    let mut shrunk = metadata(&[1, 2], &[1], 1, 3);
    shrunk.partition_epoch = 4;
    assert_eq!(
        role.apply(1, &shrunk, log(10, 4, 1), 0),
        Transition::Unchanged
    );
    assert_eq!(role.high_watermark(), 10, "alone in the ISR now");
    assert_eq!(
        role.apply(1, &metadata(&[1, 2], &[1], 1, 4), log(12, 10, 1), 0),
        Transition::Elected { newly: false }
    );
    assert_eq!(role.as_leader().unwrap().epoch_start_offset(), 12);
    assert_eq!(
        role.apply(1, &metadata(&[1, 2], &[2], 2, 5), log(12, 12, 1), 0),
        Transition::Following { resigned: true }
    );
    assert_eq!(role.high_watermark(), 12);
    assert_eq!(role.leader_id(), Some(2));
    assert_eq!(
        role.apply(1, &metadata(&[1, 2], &[2], -1, 6), log(12, 12, 1), 0),
        Transition::Following { resigned: false }
    );
    assert_eq!(role.leader_id(), None);
}

#[test]
fn a_follower_truncates_to_where_the_logs_part() {
    let mut follower = FollowerState::new(5);
    follower.update(&metadata(&[1, 2], &[2], 2, 7));
    let end = |epoch, end_offset| EpochEnd { epoch, end_offset };
    // Same epoch known: the smaller of both ends.
    assert_eq!(
        follower.truncation(end(3, 20), Some(end(3, 25)), 30),
        Truncation::To(20)
    );
    assert_eq!(
        follower.truncation(end(3, 20), Some(end(3, 15)), 30),
        Truncation::To(15)
    );
    // The leader's epoch is unknown here: try one lower.
    assert_eq!(
        follower.truncation(end(3, 20), Some(end(2, 12)), 30),
        Truncation::Probe(12)
    );
    // No epochs here, or none there.
    assert_eq!(
        follower.truncation(end(3, 20), None, 18),
        Truncation::To(18)
    );
    assert_eq!(
        follower.truncation(end(-1, -1), Some(end(3, 15)), 30),
        Truncation::To(5)
    );
}

#[test]
fn a_follower_out_of_range_cuts_or_restarts() {
    let follower = FollowerState::new(5);
    assert_eq!(follower.out_of_range(30, 0, 20), Truncation::To(20));
    assert_eq!(follower.out_of_range(30, 40, 50), Truncation::RestartAt(40));
    assert_eq!(follower.out_of_range(30, 10, 50), Truncation::Nothing);
}

#[test]
fn a_follower_appends_only_what_it_asked_for() {
    let mut follower = FollowerState::new(0);
    follower.update(&metadata(&[1, 2], &[2], 2, 7));
    assert!(follower.may_append(7, 7) && follower.may_append(6, 7));
    assert!(!follower.may_append(8, 7), "from a later epoch");
    assert!(!follower.may_append(6, 6), "asked under a former epoch");
    assert_eq!(
        follower.next_fetch(9, Some(6)),
        FetchPosition {
            offset: 9,
            current_leader_epoch: 7,
            last_fetched_epoch: Some(6)
        }
    );
}

#[test]
fn a_followers_high_watermark_stays_within_its_log() {
    let mut follower = FollowerState::new(0);
    assert_eq!(follower.observe_high_watermark(50, 10, 30), Some(30));
    assert_eq!(follower.observe_high_watermark(50, 10, 30), None);
    assert_eq!(follower.observe_high_watermark(5, 10, 30), Some(10));
}

#[test]
fn the_leader_counts_its_own_log_up_to_what_is_on_disk() {
    let mut alone = leader(
        &[1],
        &[1],
        LocalLog {
            durable_offset: Some(4),
            ..log(10, 0, 1)
        },
    );
    assert_eq!(alone.high_watermark(), 4);
    assert_eq!(alone.appended(12, 0), None);
    assert_eq!(alone.synced(Some(11), 0), Some(11));
    // A sync may be told of before the append that it covers.
    assert_eq!(alone.synced(Some(20), 0), Some(12));
    assert_eq!(alone.appended(20, 0), Some(20));
    assert_eq!(alone.appended(21, 0), None);
    assert_eq!(alone.synced(None, 0), Some(21));
}

#[test]
fn a_follower_fetches_on_once_what_it_has_is_on_disk() {
    let follower = FollowerState::new(0);
    assert!(follower.may_fetch(10, None));
    assert!(follower.may_fetch(10, Some(10)));
    assert!(!follower.may_fetch(10, Some(9)));
}
