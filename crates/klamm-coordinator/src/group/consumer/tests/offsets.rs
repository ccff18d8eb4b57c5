//! Offsets of consumer groups: who may commit and fetch them.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::OffsetCommitRequest;
use klamm_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use klamm_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use klamm_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::{Beat, given, topic_id};
use crate::group::testing::{Bench, GROUP, code};
use crate::group::{GroupRequest, GroupResponse, RequestContext};

fn commit(bench: &mut Bench, version: i16, member: &str, epoch: i32, partition: i32) -> ErrorCode {
    let request = OffsetCommitRequest {
        group_id: GROUP.into(),
        member_id: member.into(),
        generation_id_or_member_epoch: epoch,
        topics: vec![OffsetCommitRequestTopic {
            name: "t".into(),
            topic_id: topic_id("t"),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: partition,
                committed_offset: 7,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    let context = RequestContext {
        api_version: version,
        ..RequestContext::default()
    };
    match bench.ask(GroupRequest::OffsetCommit(context, Box::new(request))) {
        Ok(GroupResponse::OffsetCommit(response)) => {
            code(response.topics[0].partitions[0].error_code)
        }
        Err(error) => error,
        other => panic!("{other:?}"),
    }
}

fn fetch(bench: &mut Bench, member: Option<&str>, epoch: i32) -> Result<i64, ErrorCode> {
    let request = OffsetFetchRequestGroup {
        group_id: GROUP.into(),
        member_id: member.map(Into::into),
        member_epoch: epoch,
        topics: Some(vec![OffsetFetchRequestTopics {
            name: "t".into(),
            partition_indexes: vec![0],
            ..OffsetFetchRequestTopics::default()
        }]),
        ..OffsetFetchRequestGroup::default()
    };
    match bench.ask(GroupRequest::OffsetFetch(Box::new(request), false)) {
        Ok(GroupResponse::OffsetFetch(group)) => Ok(group.topics[0].partitions[0].committed_offset),
        Err(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

fn delete(bench: &mut Bench) -> ErrorCode {
    let request = OffsetDeleteRequest {
        group_id: GROUP.into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: "t".into(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    match bench.ask(GroupRequest::OffsetDelete(Box::new(request))) {
        Ok(GroupResponse::OffsetDelete(response)) => {
            let OffsetDeleteResponse { topics, .. } = *response;
            code(topics[0].partitions[0].error_code)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn members_commit_and_fetch_in_their_epoch() {
    let mut bench = Bench::new();
    bench.make_topic("t", 2);
    bench.beat(&Beat::join("a", &["t"]));
    for (version, member, epoch, error) in [
        (9, "a", 2, ErrorCode::None),
        (9, "a", 3, ErrorCode::StaleMemberEpoch),
        (9, "b", 2, ErrorCode::UnknownMemberId),
        (9, "", -1, ErrorCode::UnknownMemberId),
        (8, "a", 2, ErrorCode::UnsupportedVersion),
    ] {
        let found = commit(&mut bench, version, member, epoch, 0);
        assert_eq!(found, error, "version {version}, {member} in {epoch}");
    }
    assert_eq!(fetch(&mut bench, Some("a"), 2), Ok(7));
    assert_eq!(fetch(&mut bench, None, -1), Ok(7));
    assert_eq!(
        fetch(&mut bench, Some("a"), 1),
        Err(ErrorCode::StaleMemberEpoch)
    );
    assert_eq!(
        fetch(&mut bench, Some("b"), 2),
        Err(ErrorCode::UnknownMemberId)
    );
    assert_eq!(delete(&mut bench), ErrorCode::GroupSubscribedToTopic);
    // From outside, once nobody is in.
    bench.beat(&Beat::leave("a"));
    assert_eq!(commit(&mut bench, 9, "", -1, 0), ErrorCode::None);
    assert_eq!(delete(&mut bench), ErrorCode::None);
    assert_eq!(fetch(&mut bench, None, -1), Ok(-1));
}

#[test]
fn an_old_epoch_will_do_for_partitions_that_stayed() {
    let mut bench = Bench::new();
    bench.make_topic("t", 2);
    bench.beat(&Beat::join("a", &["t"]));
    bench.advance_ms(1_000);
    bench.beat(&Beat::join("b", &["t"]));
    let told = bench.beat(&Beat::stay("a", 2));
    let kept = given(&told, &["t"]).unwrap();
    let kept_one = *kept["t"].first().unwrap();
    // What it must give up it may still commit.
    for partition in [0, 1] {
        assert_eq!(commit(&mut bench, 9, "a", 2, partition), ErrorCode::None);
    }
    bench.beat(&Beat::stay("a", 2).owning(&kept));
    let epoch_before = 2;
    let error = commit(&mut bench, 9, "a", epoch_before, kept_one);
    assert_eq!(error, ErrorCode::None);
    let error = commit(&mut bench, 9, "a", epoch_before, 1 - kept_one);
    assert_eq!(error, ErrorCode::StaleMemberEpoch);
    // The other one got its partition in epoch 3 only.
    bench.beat(&Beat::stay("b", 3));
    let error = commit(&mut bench, 9, "b", 2, 1 - kept_one);
    assert_eq!(error, ErrorCode::StaleMemberEpoch);
}
