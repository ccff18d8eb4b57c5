//! Groups of the newer protocols in a data directory that Kafka wrote, and writes that fail while
//! groups are made and deleted.

use bytes::Bytes;
use klamm_protocol::group_records::{
    StreamsGroupMemberMetadataKey, StreamsGroupMemberMetadataValue, StreamsGroupMetadataKey,
    StreamsGroupMetadataValue,
};
use klamm_protocol::messages::ListGroupsRequest;
use klamm_protocol::{ByteStr, ErrorCode};

use crate::group::classic::ClassicState;
use crate::group::streams::StreamsRecord;
use crate::group::testing::{Bench, Commit, GROUP, Join, Writes, code};
use crate::group::{GroupRecord, GroupRequest, GroupResponse};
use crate::runtime::{CoordinatorRecord, RecordOrigin, ReplyToken, Shard, WriteOutcome};

const SHARE_METADATA: u8 = 11;

/// A record of a streams group, or of one of its members.
fn record(member: Option<&str>, present: bool) -> GroupRecord {
    let group_id = ByteStr::from(GROUP);
    let record = match member {
        None => {
            let value = present.then(StreamsGroupMetadataValue::default);
            StreamsRecord::Group(StreamsGroupMetadataKey { group_id }, value)
        }
        Some(member_id) => {
            let member_id = member_id.into();
            let key = StreamsGroupMemberMetadataKey {
                group_id,
                member_id,
            };
            let value = present.then(StreamsGroupMemberMetadataValue::default);
            StreamsRecord::Member(key, value)
        }
    };
    record.into()
}

fn load(records: &[GroupRecord]) -> Bench {
    let mut bench = Bench::new();
    for record in records {
        let origin = RecordOrigin {
            offset: 0,
            producer_id: -1,
        };
        bench.shard.replay_committed(origin, record, bench.now);
        bench.log.push(record.clone());
    }
    bench
}

fn with_member() -> Bench {
    load(&[record(None, true), record(Some("m"), true)])
}

fn listed(bench: &mut Bench) -> Vec<(String, String, String)> {
    let request = GroupRequest::ListGroups(ListGroupsRequest::default().into());
    let Ok(GroupResponse::ListGroups(groups)) = bench.ask(request) else {
        panic!("no ListGroups answer");
    };
    let fields = |field: &ByteStr| field.to_string();
    groups
        .iter()
        .map(|g| {
            (
                fields(&g.group_type),
                fields(&g.group_state),
                fields(&g.protocol_type),
            )
        })
        .collect()
}

fn delete(bench: &mut Bench) -> ErrorCode {
    match bench.ask(GroupRequest::DeleteGroups(vec![GROUP.into()])) {
        Ok(GroupResponse::DeleteGroups(results)) => code(results[0].error_code),
        Err(error) => error,
        other => panic!("no DeleteGroups answer but {other:?}"),
    }
}

#[test]
fn a_group_with_members_takes_no_classic_ones() {
    let mut bench = with_member();
    let token = bench.join(Join::new());
    let refused = bench.join_answer(token);
    assert_eq!(
        code(refused.error_code),
        ErrorCode::InconsistentGroupProtocol
    );
    assert_eq!(bench.heartbeat("m", 1), ErrorCode::UnknownMemberId);
    assert_eq!(bench.leave(&[("m", None)]), [ErrorCode::UnknownMemberId]);
    assert_eq!(
        bench.commit_error(Commit::simple(5)),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(delete(&mut bench), ErrorCode::NonEmptyGroup);
    assert_eq!(bench.log.len(), 2);
    let seen = ("streams".into(), "NotReady".into(), "streams".into());
    assert_eq!(listed(&mut bench), [seen]);
}

#[test]
fn a_group_of_another_protocol_is_no_classic_group_to_describe() {
    let mut bench = with_member();
    for (version, error) in [(5, ErrorCode::None), (6, ErrorCode::GroupIdNotFound)] {
        let request = GroupRequest::DescribeGroups(vec![GROUP.into()], version);
        let Ok(GroupResponse::DescribeGroups(groups)) = bench.ask(request) else {
            panic!("no DescribeGroups answer");
        };
        assert_eq!(groups[0].group_state, "Dead");
        assert_eq!(code(groups[0].error_code), error);
        let message = groups[0].error_message.as_deref();
        let expected = (version == 6).then_some("Group g is not a classic group.");
        assert_eq!(message, expected);
    }
}

#[test]
fn its_offsets_are_kept_and_an_empty_one_takes_commits() {
    let mut bench = load(&[record(None, true)]);
    assert_eq!(bench.commit_error(Commit::simple(5)), ErrorCode::None);
    assert_eq!(bench.fetch(false), Some(Ok(5)));
    assert_eq!(listed(&mut bench)[0].0, "streams");
}

#[test]
fn an_empty_one_is_deleted_with_every_record_it_has() {
    let mut bench = with_member();
    bench.log.clear();
    let tombstone = record(Some("m"), false);
    let origin = RecordOrigin {
        offset: 2,
        producer_id: -1,
    };
    bench.shard.replay_committed(origin, &tombstone, bench.now);
    assert_eq!(delete(&mut bench), ErrorCode::None);
    assert_eq!(bench.shard.group_ids().count(), 0);
    let key = || klamm_protocol::group_records::StreamsGroupTargetAssignmentMetadataKey {
        group_id: GROUP.into(),
    };
    let topology = klamm_protocol::group_records::StreamsGroupTopologyKey {
        group_id: GROUP.into(),
    };
    let gone = [
        StreamsRecord::Assignment(key(), None).into(),
        record(None, false),
        StreamsRecord::Topology(topology, None).into(),
    ];
    assert_eq!(bench.log, gone);
}

#[test]
fn a_deletion_that_is_not_written_keeps_it() {
    let mut bench = load(&[record(None, true)]);
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    assert_eq!(delete(&mut bench), ErrorCode::NotEnoughReplicas);
    assert_eq!(listed(&mut bench).len(), 1);
    bench.writes = Writes::Commit;
    assert_eq!(delete(&mut bench), ErrorCode::None);
}

#[test]
fn a_classic_member_takes_the_name_of_an_empty_one_over() {
    let mut bench = load(&[record(None, true)]);
    let token = bench.join(Join::new().id("zz"));
    assert_eq!(
        code(bench.join_answer(token).error_code),
        ErrorCode::UnknownMemberId
    );
    let id = bench.stable();
    assert!(bench.group().member(&id).is_some());
    assert!(bench.log.contains(&record(None, false)));
    let reloaded = bench.reload();
    assert_eq!(reloaded.state(), ClassicState::Stable);
}

#[test]
fn a_takeover_that_is_not_written_did_not_happen() {
    let mut bench = load(&[record(None, true)]);
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    let token = bench.join(Join::old());
    let answer = bench.join_answer(token);
    assert_eq!(code(answer.error_code), ErrorCode::CoordinatorNotAvailable);
    assert_eq!(listed(&mut bench)[0].0, "streams");
}

#[test]
fn the_name_of_a_share_group_stays_its_own() {
    let mut key = vec![0, SHARE_METADATA];
    key.extend((GROUP.len() as i16).to_be_bytes());
    key.extend(GROUP.as_bytes());
    // Epoch 1, no topics.
    let value = Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let record = GroupRecord::decode(Some(key.into()), Some(value)).unwrap();
    let mut bench = load(&[record]);
    let token = bench.join(Join::new());
    let refused = bench.join_answer(token);
    assert_eq!(
        code(refused.error_code),
        ErrorCode::InconsistentGroupProtocol
    );
    assert_eq!(listed(&mut bench)[0].0, "share");
}

#[test]
fn an_old_tombstone_does_not_touch_the_classic_group_of_that_name() {
    let mut bench = Bench::new();
    bench.stable();
    let origin = RecordOrigin {
        offset: 9,
        producer_id: -1,
    };
    let tombstone = record(None, false);
    bench.shard.replay_committed(origin, &tombstone, bench.now);
    assert_eq!(bench.state(), ClassicState::Stable);
}

/// Requests that share a batch which fails, step by step as the runtime would run them.
#[test]
fn a_member_that_joins_between_a_commit_and_its_failure_is_not_forgotten() {
    let mut bench = Bench::new();
    let now = bench.now;
    let token = ReplyToken(1_000);
    let effects = bench.shard.handle(Commit::simple(5).request(), token, now);
    let origin = RecordOrigin {
        offset: 0,
        producer_id: -1,
    };
    let undo = bench.shard.replay(origin, &effects.records[0], now);
    let joined = bench.join(Join::old());
    bench.shard.undo(undo);
    assert_eq!(bench.fetch(false), Some(Ok(-1)));
    bench.advance_ms(3_000);
    assert_eq!(bench.join_answer(joined).generation_id, 1);
}

#[test]
fn a_group_made_anew_between_its_deletion_and_the_failure_answers_everyone() {
    let mut bench = Bench::new();
    bench.commit(Commit::simple(5));
    let now = bench.now;
    let delete = GroupRequest::DeleteGroups(vec![GROUP.into()]);
    let deletion = bench.shard.handle(delete, ReplyToken(1_000), now);
    let origin = RecordOrigin {
        offset: 1,
        producer_id: -1,
    };
    let mut undos = Vec::new();
    for record in &deletion.records {
        undos.push(bench.shard.replay(origin, record, now));
    }
    let joining = ReplyToken(1_001);
    let creation = bench.shard.handle(Join::old().request(), joining, now);
    assert!(!creation.replay);
    for undo in undos.into_iter().rev() {
        bench.shard.undo(undo);
    }
    let failed = WriteOutcome::Failed(ErrorCode::NotEnoughReplicas);
    let effects = bench
        .shard
        .complete(creation.completion.unwrap(), failed, now);
    assert!(effects.replies.iter().all(|(token, _)| *token == joining));
    assert!(!effects.replies.is_empty());
    assert_eq!(bench.state(), ClassicState::Empty);
    assert_eq!(bench.fetch(false), Some(Ok(5)));
}
