//! The rules of committed offsets, one test each. Verdicts were compared with Kafka 4.3.1.

use klamm_protocol::ErrorCode;
use klamm_protocol::group_records::{OffsetCommitKey, OffsetCommitValue};
use klamm_protocol::messages::OffsetDeleteRequest;
use klamm_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use klamm_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use klamm_records::Uuid;

use super::DeletedTopic;
use crate::group::classic::ClassicState;
use crate::group::testing::{Bench, Commit, GROUP, Join, Writes, code};
use crate::group::{GroupCoordinatorConfig, GroupRecord, GroupRequest, GroupResponse};
use crate::runtime::{RecordOrigin, Shard, WriteOutcome};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn topic_id(last: u8) -> Uuid {
    let mut bytes = [0; 16];
    bytes[15] = last;
    bytes[0] = 1;
    Uuid::from_bytes(bytes)
}

fn delete(bench: &mut Bench, topic: &str) -> ErrorCode {
    let request = OffsetDeleteRequest {
        group_id: GROUP.into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetDeleteRequestPartition::default()],
        }],
    };
    match bench.ask(GroupRequest::OffsetDelete(Box::new(request))) {
        Ok(GroupResponse::OffsetDelete(answer)) => code(answer.topics[0].partitions[0].error_code),
        Err(error) => error,
        other => panic!("no OffsetDelete answer but {other:?}"),
    }
}

fn fetch_group(bench: &mut Bench, topics: Option<Uuid>) -> OffsetFetchResponseGroup {
    let request = OffsetFetchRequestGroup {
        group_id: GROUP.into(),
        topics: topics.map(|topic_id| {
            vec![OffsetFetchRequestTopics {
                name: "t".into(),
                topic_id,
                partition_indexes: vec![0],
                ..OffsetFetchRequestTopics::default()
            }]
        }),
        ..OffsetFetchRequestGroup::default()
    };
    match bench.ask(GroupRequest::OffsetFetch(Box::new(request), false)) {
        Ok(GroupResponse::OffsetFetch(answer)) => *answer,
        other => panic!("no OffsetFetch answer but {other:?}"),
    }
}

fn replay_offset(bench: &mut Bench, producer_id: i64, offset: i64, topic_id: Uuid) {
    let record = GroupRecord::OffsetCommit {
        key: OffsetCommitKey {
            group: GROUP.into(),
            topic: "t".into(),
            ..OffsetCommitKey::default()
        },
        value: Some(OffsetCommitValue {
            offset,
            topic_id,
            ..OffsetCommitValue::default()
        }),
    };
    let origin = RecordOrigin {
        offset: i64::try_from(bench.log.len()).unwrap(),
        producer_id,
    };
    bench.shard.replay_committed(origin, &record, bench.now);
    bench.log.push(record);
}

#[test]
fn a_commit_without_generation_makes_a_group_that_only_holds_offsets() {
    let mut bench = Bench::new();
    assert_eq!(bench.fetch(false), Some(Ok(-1)));
    assert_eq!(bench.commit_error(Commit::simple(5)), ErrorCode::None);
    assert_eq!(bench.fetch(false), Some(Ok(5)));
    assert_eq!(bench.state(), ClassicState::Empty);
    assert_eq!(bench.group().protocol_type(), None);
    // The offset's record is all that is written.
    assert_eq!(bench.log.len(), 1);
    assert_eq!(bench.metrics.offset_commits.get(), 1);
    let mut reloaded = bench.reload();
    assert_eq!(reloaded.fetch(false), Some(Ok(5)));
    assert_eq!(reloaded.state(), ClassicState::Empty);
}

#[test]
fn refuses_a_generation_of_a_group_that_is_not() {
    let mut bench = Bench::new();
    let mut commit = Commit::by("m", 1, 5);
    assert_eq!(
        bench.commit_error(commit.clone()),
        ErrorCode::GroupIdNotFound
    );
    commit.version = 8;
    assert_eq!(bench.commit_error(commit), ErrorCode::IllegalGeneration);
}

#[test]
fn only_members_of_this_generation_commit() {
    let mut bench = Bench::new();
    let id = bench.stable();
    assert_eq!(
        bench.commit_error(Commit::simple(5)),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        bench.commit_error(Commit::by("m", 1, 5)),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        bench.commit_error(Commit::by(&id, 0, 5)),
        ErrorCode::IllegalGeneration
    );
    assert_eq!(bench.commit_error(Commit::by(&id, 1, 5)), ErrorCode::None);
    bench.join(Join::old());
    // While members rejoin, they may still say how far they got.
    assert_eq!(bench.commit_error(Commit::by(&id, 1, 6)), ErrorCode::None);
    bench.leave(&[(&id, None)]);
    assert_eq!(
        bench.commit_error(Commit::by(&id, 1, 7)),
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn members_that_wait_for_their_work_are_told_to_rejoin() {
    let mut bench = Bench::new();
    let (id, _) = bench.first_member();
    let error = bench.commit_error(Commit::by(&id, 1, 5));
    assert_eq!(error, ErrorCode::RebalanceInProgress);
}

#[test]
fn a_group_without_members_takes_commits_from_outside_only() {
    let mut bench = Bench::new();
    let id = bench.stable();
    bench.leave(&[(&id, None)]);
    assert_eq!(bench.commit_error(Commit::simple(5)), ErrorCode::None);
    assert_eq!(
        bench.commit_error(Commit::by(&id, 2, 5)),
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn a_commit_keeps_the_session() {
    let mut bench = Bench::new();
    let id = bench.stable();
    for offset in 0..5 {
        bench.advance_ms(9_000);
        assert_eq!(
            bench.commit_error(Commit::by(&id, 1, offset)),
            ErrorCode::None
        );
    }
    assert_eq!(bench.state(), ClassicState::Stable);
}

#[test]
fn refuses_metadata_that_is_too_large_counted_as_java_does() {
    let mut bench = Bench::new();
    let with = |metadata: String| Commit {
        metadata: Some(metadata),
        ..Commit::simple(5)
    };
    assert_eq!(bench.commit_error(with("x".repeat(4_096))), ErrorCode::None);
    // Three bytes each in UTF-8, one unit in Java.
    assert_eq!(
        bench.commit_error(with("\u{20ac}".repeat(4_096))),
        ErrorCode::None
    );
    let written = bench.log.len();
    let too_large = ErrorCode::OffsetMetadataTooLarge;
    assert_eq!(bench.commit_error(with("x".repeat(4_097))), too_large);
    assert_eq!(
        bench.commit_error(with("\u{1f980}".repeat(2_049))),
        too_large
    );
    assert_eq!(bench.log.len(), written);
}

#[test]
fn plain_reads_see_what_is_committed_and_stable_ones_wait() {
    let mut bench = Bench::new();
    bench.commit(Commit::simple(5));
    bench.writes = Writes::Hold;
    let first = bench.commit(Commit::simple(6));
    let second = bench.commit(Commit::simple(7));
    assert_eq!(bench.fetch(false), Some(Ok(5)));
    assert_eq!(bench.fetch(true), None);
    assert_eq!(bench.held(), 3);
    bench.settle(WriteOutcome::Committed);
    assert!(!bench.is_parked(first) && bench.is_parked(second));
    assert_eq!(bench.fetch(false), Some(Ok(6)));
    bench.settle(WriteOutcome::Committed);
    assert_eq!(bench.fetch(false), Some(Ok(7)));
    let all = fetch_group(&mut bench, None);
    assert_eq!(all.topics[0].partitions[0].committed_offset, 7);
}

#[test]
fn a_first_commit_in_flight_is_not_seen_by_plain_reads() {
    let mut bench = Bench::new();
    bench.writes = Writes::Hold;
    bench.commit(Commit::simple(5));
    assert_eq!(bench.fetch(false), Some(Ok(-1)));
    assert!(fetch_group(&mut bench, None).topics.is_empty());
    bench.settle(WriteOutcome::Committed);
    assert_eq!(fetch_group(&mut bench, None).topics.len(), 1);
}

#[test]
fn a_commit_that_is_not_written_leaves_no_trace() {
    let mut bench = Bench::new();
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    let error = bench.commit_error(Commit::simple(5));
    assert_eq!(error, ErrorCode::NotEnoughReplicas);
    assert_eq!(bench.shard.group_ids().count(), 0);
    assert!(bench.shard.offsets().is_empty());
    bench.writes = Writes::Commit;
    bench.commit(Commit::simple(5));
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    bench.commit(Commit::simple(6));
    assert_eq!(bench.fetch(false), Some(Ok(5)));
    assert_eq!(bench.fetch(true), Some(Ok(5)));
}

#[test]
fn an_offset_of_a_former_topic_of_that_name_does_not_count() {
    let mut bench = Bench::new();
    replay_offset(&mut bench, -1, 5, topic_id(1));
    let offset = |bench: &mut Bench, id| {
        fetch_group(bench, Some(id)).topics[0].partitions[0].committed_offset
    };
    assert_eq!(offset(&mut bench, topic_id(1)), 5);
    assert_eq!(offset(&mut bench, Uuid::ZERO), 5);
    assert_eq!(offset(&mut bench, topic_id(2)), -1);
}

fn end_transaction(bench: &mut Bench, producer_id: i64, committed: bool) {
    for undo in bench.shard.replay_marker(producer_id, committed) {
        bench.shard.commit(undo);
    }
}

#[test]
fn offsets_of_open_transactions_count_when_the_marker_comes() {
    let mut bench = Bench::new();
    replay_offset(&mut bench, -1, 5, Uuid::ZERO);
    replay_offset(&mut bench, 9, 6, Uuid::ZERO);
    assert_eq!(bench.fetch(false), Some(Ok(5)));
    assert_eq!(
        bench.fetch(true),
        Some(Err(ErrorCode::UnstableOffsetCommit))
    );
    end_transaction(&mut bench, 9, true);
    assert_eq!(bench.fetch(true), Some(Ok(6)));
    // Aborted, and overtaken by a later plain commit.
    replay_offset(&mut bench, 9, 7, Uuid::ZERO);
    end_transaction(&mut bench, 9, false);
    assert_eq!(bench.fetch(true), Some(Ok(6)));
    replay_offset(&mut bench, 9, 8, Uuid::ZERO);
    replay_offset(&mut bench, -1, 10, Uuid::ZERO);
    end_transaction(&mut bench, 9, true);
    assert_eq!(bench.fetch(true), Some(Ok(10)));
}

#[test]
fn offsets_are_deleted_unless_somebody_subscribes_to_the_topic() {
    let mut bench = Bench::new();
    assert_eq!(delete(&mut bench, "t"), ErrorCode::GroupIdNotFound);
    let id = bench.stable();
    bench.commit(Commit::by(&id, 1, 5));
    let other = Commit {
        topic: "u".into(),
        ..Commit::by(&id, 1, 6)
    };
    bench.commit(other);
    assert_eq!(delete(&mut bench, "t"), ErrorCode::GroupSubscribedToTopic);
    assert_eq!(delete(&mut bench, "u"), ErrorCode::None);
    assert_eq!(bench.shard.offsets().len(), 1);
    assert_eq!(bench.metrics.offset_deletions.get(), 1);
    let written = bench.log.len();
    assert_eq!(delete(&mut bench, "u"), ErrorCode::None);
    assert_eq!(bench.log.len(), written);
    bench.leave(&[(&id, None)]);
    assert_eq!(delete(&mut bench, "t"), ErrorCode::None);
    assert!(bench.shard.offsets().is_empty());
    assert!(bench.reload().shard.offsets().is_empty());
}

#[test]
fn offsets_of_members_that_are_no_consumers_are_not_deleted() {
    let mut bench = Bench::new();
    let mut connect = Join::old();
    connect.protocol_type = "connect".into();
    bench.join(connect);
    bench.advance_ms(3_000);
    assert_eq!(delete(&mut bench, "t"), ErrorCode::NonEmptyGroup);
}

#[test]
fn offsets_go_with_their_topic_but_not_with_a_former_one() {
    let mut bench = Bench::new();
    replay_offset(&mut bench, -1, 5, topic_id(2));
    let gone = |id| {
        let topic = DeletedTopic {
            name: "t".into(),
            id,
        };
        GroupRequest::TopicsDeleted(vec![topic].into())
    };
    bench.ask(gone(topic_id(1))).unwrap();
    assert_eq!(bench.fetch(false), Some(Ok(5)));
    bench.ask(gone(topic_id(2))).unwrap();
    assert_eq!(bench.fetch(false), Some(Ok(-1)));
    replay_offset(&mut bench, -1, 5, Uuid::ZERO);
    bench.ask(gone(topic_id(1))).unwrap();
    assert_eq!(bench.fetch(false), Some(Ok(-1)));
    // What an open transaction holds goes too.
    replay_offset(&mut bench, 9, 5, topic_id(1));
    bench.ask(gone(topic_id(1))).unwrap();
    end_transaction(&mut bench, 9, true);
    assert_eq!(bench.fetch(false), Some(Ok(-1)));
}

fn deleted(bench: &mut Bench) -> ErrorCode {
    match bench.ask(GroupRequest::DeleteGroups(vec![GROUP.into()])) {
        Ok(GroupResponse::DeleteGroups(results)) => code(results[0].error_code),
        other => panic!("no DeleteGroups answer but {other:?}"),
    }
}

#[test]
fn only_empty_groups_are_deleted_and_their_offsets_with_them() {
    let mut bench = Bench::new();
    assert_eq!(deleted(&mut bench), ErrorCode::GroupIdNotFound);
    let id = bench.stable();
    bench.commit(Commit::by(&id, 1, 5));
    assert_eq!(deleted(&mut bench), ErrorCode::NonEmptyGroup);
    bench.leave(&[(&id, None)]);
    assert_eq!(deleted(&mut bench), ErrorCode::None);
    assert_eq!(bench.shard.group_ids().count(), 0);
    assert_eq!(bench.fetch(false), Some(Ok(-1)));
    let reloaded = bench.reload();
    assert_eq!(reloaded.shard.group_ids().count(), 0);
    assert!(reloaded.shard.offsets().is_empty());
    assert_eq!(deleted(&mut bench), ErrorCode::GroupIdNotFound);
}

#[test]
fn a_deletion_that_is_not_written_did_not_happen() {
    let mut bench = Bench::new();
    bench.commit(Commit::simple(5));
    bench.writes = Writes::Fail(ErrorCode::NotLeaderOrFollower);
    let answer = bench.ask(GroupRequest::DeleteGroups(vec![GROUP.into()]));
    assert_eq!(answer.unwrap_err(), ErrorCode::NotLeaderOrFollower);
    assert_eq!(bench.state(), ClassicState::Empty);
    assert_eq!(bench.fetch(true), Some(Ok(5)));
}

#[test]
fn offsets_of_a_group_without_members_expire_by_their_commit() {
    let mut bench = Bench::new();
    bench.commit(Commit::simple(5));
    bench.advance_ms(7 * DAY_MS - 600_000);
    assert_eq!(bench.fetch(false), Some(Ok(5)));
    bench.advance_ms(600_000);
    assert_eq!(bench.fetch(false), Some(Ok(-1)));
    // With its last offset the group goes.
    assert_eq!(bench.shard.group_ids().count(), 0);
    assert_eq!(bench.metrics.offsets_expired.get(), 1);
    assert_eq!(bench.reload().shard.group_ids().count(), 0);
}

#[test]
fn offsets_of_a_group_that_lost_its_members_expire_from_then_on() {
    let mut bench = Bench::new();
    let id = bench.stable();
    bench.commit(Commit::by(&id, 1, 5));
    for _ in 0..(8 * DAY_MS / 9_000) {
        bench.advance_ms(9_000);
        bench.heartbeat(&id, 1);
    }
    assert_eq!(bench.fetch(false), Some(Ok(5)));
    bench.leave(&[(&id, None)]);
    bench.advance_ms(7 * DAY_MS - 600_000);
    assert_eq!(bench.fetch(false), Some(Ok(5)));
    bench.advance_ms(1_200_000);
    assert_eq!(bench.fetch(false), Some(Ok(-1)));
}

#[test]
fn a_stable_group_loses_offsets_of_topics_it_gave_up() {
    let mut bench = Bench::with(GroupCoordinatorConfig {
        offsets_retention_ms: 60_000,
        offsets_retention_check_interval_ms: 10_000,
        ..GroupCoordinatorConfig::default()
    });
    let id = bench.stable();
    bench.commit(Commit::by(&id, 1, 5));
    let given_up = Commit {
        topic: "u".into(),
        ..Commit::by(&id, 1, 6)
    };
    bench.commit(given_up);
    assert_eq!(bench.shard.offsets().len(), 2);
    for _ in 0..8 {
        bench.advance_ms(9_000);
        bench.heartbeat(&id, 1);
    }
    assert_eq!(bench.shard.offsets().len(), 1);
    assert_eq!(bench.fetch(false), Some(Ok(5)));
}

#[test]
fn an_offset_with_its_own_retention_expires_by_that() {
    let mut bench = Bench::with(GroupCoordinatorConfig {
        offsets_retention_check_interval_ms: 1_000,
        ..GroupCoordinatorConfig::default()
    });
    let commit = Commit {
        version: 4,
        retention_ms: 60_000,
        ..Commit::simple(5)
    };
    bench.commit(commit);
    bench.advance_ms(59_999);
    assert_eq!(bench.fetch(false), Some(Ok(5)));
    bench.advance_ms(1);
    assert_eq!(bench.fetch(false), Some(Ok(-1)));
}

#[test]
fn an_open_transaction_keeps_offsets_and_group_from_expiring() {
    let mut bench = Bench::new();
    replay_offset(&mut bench, -1, 5, Uuid::ZERO);
    replay_offset(&mut bench, 9, 6, Uuid::ZERO);
    bench.advance_ms(30 * DAY_MS);
    assert_eq!(bench.fetch(false), Some(Ok(5)));
    assert_eq!(bench.state(), ClassicState::Empty);
    end_transaction(&mut bench, 9, false);
    bench.advance_ms(600_000);
    assert_eq!(bench.shard.group_ids().count(), 0);
}
