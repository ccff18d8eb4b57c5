//! The membership of share groups.

use klamm_protocol::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use klamm_protocol::messages::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic;
use klamm_protocol::messages::{
    AlterShareGroupOffsetsRequest, DeleteShareGroupOffsetsRequest, ShareGroupHeartbeatRequest,
    ShareGroupHeartbeatResponse,
};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;
use std::collections::{BTreeMap, BTreeSet};

use super::assignor::{self, Reader};
use super::{OffsetsToInitialize, ShareGroup, check_share_request};
use crate::group::consumer::Partitions;
use crate::group::testing::{Bench, GROUP, Writes, code};
use crate::group::{GroupRequest, GroupResponse};
use crate::group::{ListedTopic, RequestContext};

const TOPIC: Uuid = Uuid::from_bytes([1; 16]);

fn bench() -> Bench {
    let bench = Bench::new();
    set_partitions(&bench, 3);
    bench
}

fn set_partitions(bench: &Bench, count: usize) {
    bench.cluster.change(|topics| {
        let topic = ListedTopic {
            id: TOPIC,
            partitions: vec![Vec::new(); count],
        };
        topics.topics.insert("t".into(), topic);
        topics.version += 1;
    });
}

fn request(member: &str, epoch: i32, topics: Option<&[&str]>) -> ShareGroupHeartbeatRequest {
    ShareGroupHeartbeatRequest {
        group_id: GROUP.into(),
        member_id: member.into(),
        member_epoch: epoch,
        subscribed_topic_names: topics.map(|topics| topics.iter().map(|t| (*t).into()).collect()),
        ..ShareGroupHeartbeatRequest::default()
    }
}

fn beat(
    bench: &mut Bench,
    member: &str,
    epoch: i32,
    topics: Option<&[&str]>,
) -> (ShareGroupHeartbeatResponse, Option<OffsetsToInitialize>) {
    let request = Box::new(request(member, epoch, topics));
    let context = RequestContext::default();
    match bench.ask(GroupRequest::ShareHeartbeat(context, request)) {
        Ok(GroupResponse::ShareHeartbeat(response, wanted)) => (*response, wanted),
        other => panic!("no ShareGroupHeartbeat answer: {other:?}"),
    }
}

/// A heartbeat, and the share coordinator makes what it calls for.
fn settle(
    bench: &mut Bench,
    member: &str,
    epoch: i32,
    topics: Option<&[&str]>,
) -> ShareGroupHeartbeatResponse {
    let (response, wanted) = beat(bench, member, epoch, topics);
    if let Some(wanted) = wanted {
        made(bench, wanted, true);
    }
    response
}

fn made(bench: &mut Bench, wanted: OffsetsToInitialize, ok: bool) {
    let note = GroupRequest::ShareStatesMade(GROUP.into(), Box::new(wanted), ok);
    assert!(matches!(bench.ask(note), Ok(GroupResponse::Done)));
}

fn assigned(response: &ShareGroupHeartbeatResponse) -> Option<Vec<i32>> {
    let assignment = response.assignment.as_ref()?;
    let topics = assignment.topic_partitions.iter();
    Some(topics.flat_map(|topic| topic.partitions.clone()).collect())
}

fn group(bench: &Bench) -> &ShareGroup {
    bench.shard.share_group(GROUP).unwrap()
}

#[test]
fn partitions_are_shared_out_once_they_have_state() {
    let mut bench = bench();
    let (joined, wanted) = beat(&mut bench, "a", 0, Some(&["t"]));
    assert_eq!((joined.error_code, joined.member_epoch), (0, 2));
    assert_eq!(assigned(&joined), Some(vec![]));
    let wanted = wanted.unwrap();
    assert_eq!(wanted.state_epoch, 2);
    let (name, partitions) = &wanted.topics[&TOPIC];
    assert_eq!(name, "t");
    assert_eq!(*partitions, BTreeMap::from([(0, -1), (1, -1), (2, -1)]));
    // Until then nobody asks again.
    let (_, again) = beat(&mut bench, "a", 2, None);
    assert_eq!(again, None);
    made(&mut bench, wanted, true);
    bench.advance_ms(5_000);
    let (stays, _) = beat(&mut bench, "a", 2, None);
    assert_eq!(stays.member_epoch, 3);
    assert_eq!(assigned(&stays), Some(vec![0, 1, 2]));
    let (quiet, _) = beat(&mut bench, "a", 3, None);
    assert_eq!(assigned(&quiet), None);
    let reloaded = bench.reload();
    assert_eq!(group(&reloaded).members().len(), 1);
    assert_eq!(group(&reloaded).epoch(), 3);
    assert_eq!(group(&reloaded).state_name(), "Stable");
}

#[test]
fn state_that_could_not_be_made_is_asked_for_again() {
    let mut bench = bench();
    let (_, wanted) = beat(&mut bench, "a", 0, Some(&["t"]));
    made(&mut bench, wanted.unwrap(), false);
    let (_, again) = beat(&mut bench, "a", 2, None);
    assert!(again.is_some());
    // No word of that one: it is given 30 seconds.
    bench.advance_ms(29_999);
    assert_eq!(beat(&mut bench, "a", 2, None).1, None);
    bench.advance_ms(1);
    assert!(beat(&mut bench, "a", 2, None).1.is_some());
    // Nor is what began at a time that is yet to come waited for.
    assert_eq!(beat(&mut bench, "a", 2, None).1, None);
    bench.turn_back_ms(60_000);
    assert!(beat(&mut bench, "a", 2, None).1.is_some());
}

#[test]
fn new_partitions_get_state_and_are_shared_out() {
    let mut bench = bench();
    settle(&mut bench, "a", 0, Some(&["t"]));
    bench.advance_ms(5_000);
    settle(&mut bench, "a", 2, None);
    set_partitions(&bench, 4);
    bench.advance_ms(5_000);
    let (_, wanted) = beat(&mut bench, "a", 3, None);
    let wanted = wanted.unwrap();
    assert_eq!(wanted.topics[&TOPIC].1, BTreeMap::from([(3, -1)]));
    made(&mut bench, wanted, true);
    bench.advance_ms(5_000);
    let response = settle(&mut bench, "a", 4, None);
    assert_eq!(assigned(&response), Some(vec![0, 1, 2, 3]));
}

#[test]
fn members_share_and_take_over_from_those_who_leave_or_vanish() {
    let mut bench = bench();
    settle(&mut bench, "a", 0, Some(&["t"]));
    bench.advance_ms(5_000);
    settle(&mut bench, "a", 2, None);
    bench.advance_ms(5_000);
    let joined = settle(&mut bench, "b", 0, Some(&["t"]));
    let of_b = assigned(&joined).unwrap();
    let of_a = assigned(&settle(&mut bench, "a", 3, None)).unwrap();
    assert_eq!(of_a.len() + of_b.len(), 3);
    assert!(of_a.iter().all(|partition| !of_b.contains(partition)));
    let left = settle(&mut bench, "b", -1, None);
    assert_eq!((left.error_code, left.member_epoch), (0, -1));
    bench.advance_ms(5_000);
    let epoch = group(&bench).member("a").unwrap().epoch;
    let response = settle(&mut bench, "a", epoch, None);
    assert_eq!(assigned(&response), Some(vec![0, 1, 2]));
    bench.advance_ms(45_000);
    assert!(group(&bench).is_empty());
    assert_eq!(group(&bench).state_name(), "Empty");
    let (gone, _) = beat(&mut bench, "a", epoch, None);
    assert_eq!(code(gone.error_code), ErrorCode::UnknownMemberId);
}

#[test]
fn members_with_wrong_epochs_are_fenced() {
    let mut bench = bench();
    let (unknown, _) = beat(&mut bench, "a", 1, None);
    assert_eq!(code(unknown.error_code), ErrorCode::GroupIdNotFound);
    settle(&mut bench, "a", 0, Some(&["t"]));
    bench.advance_ms(5_000);
    settle(&mut bench, "a", 2, None);
    // The answer that told of epoch 3 may have been lost.
    assert_eq!(beat(&mut bench, "a", 2, None).0.error_code, 0);
    for epoch in [1, 4] {
        let (fenced, _) = beat(&mut bench, "a", epoch, None);
        assert_eq!(code(fenced.error_code), ErrorCode::FencedMemberEpoch);
    }
    let (again, _) = beat(&mut bench, "a", 0, Some(&["t"]));
    assert_eq!(assigned(&again), Some(vec![0, 1, 2]));
}

#[test]
fn a_heartbeat_that_cannot_be_written_did_not_happen() {
    let mut bench = bench();
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    let request = Box::new(request("a", 0, Some(&["t"])));
    let context = RequestContext::default();
    let failed = bench.ask(GroupRequest::ShareHeartbeat(context, request));
    assert!(failed.is_err());
    assert!(bench.shard.share_group(GROUP).is_none());
}

#[test]
fn the_form_of_a_heartbeat_is_checked() {
    let message =
        |request: &ShareGroupHeartbeatRequest| check_share_request(request).unwrap_err().message;
    let good = request("a", 0, Some(&["t"]));
    assert_eq!(check_share_request(&good), Ok(()));
    assert_eq!(
        message(&request("", 0, Some(&["t"]))),
        "MemberId can't be empty."
    );
    let none = "SubscribedTopicNames must be set in first request.";
    assert_eq!(message(&request("a", 0, None)), none);
    assert_eq!(message(&request("a", 0, Some(&[]))), none);
    assert_eq!(message(&request("a", -2, None)), "MemberEpoch is invalid.");
}

fn alter(offset: i64) -> GroupRequest {
    GroupRequest::AlterShareOffsets(Box::new(AlterShareGroupOffsetsRequest {
        group_id: GROUP.into(),
        topics: vec![AlterShareGroupOffsetsRequestTopic {
            topic_name: "t".into(),
            partitions: vec![
                AlterShareGroupOffsetsRequestPartition {
                    partition_index: 1,
                    start_offset: offset,
                    ..AlterShareGroupOffsetsRequestPartition::default()
                },
                AlterShareGroupOffsetsRequestPartition {
                    partition_index: 9,
                    start_offset: offset,
                    ..AlterShareGroupOffsetsRequestPartition::default()
                },
            ],
            ..AlterShareGroupOffsetsRequestTopic::default()
        }],
        ..AlterShareGroupOffsetsRequest::default()
    }))
}

#[test]
fn offsets_are_set_and_deleted_while_the_group_is_empty() {
    let mut bench = bench();
    let Ok(GroupResponse::AlterShareOffsets(responses, wanted)) = bench.ask(alter(7)) else {
        panic!("no AlterShareGroupOffsets answer");
    };
    let codes: Vec<i16> = responses[0]
        .partitions
        .iter()
        .map(|p| p.error_code)
        .collect();
    assert_eq!(codes, [0, ErrorCode::UnknownTopicOrPartition.into()]);
    assert_eq!(wanted.topics[&TOPIC].1, BTreeMap::from([(1, 7)]));
    made(&mut bench, wanted, true);
    let initialized = |bench: &Bench| {
        let states = group(bench).states().unwrap();
        states.initialized.get(&TOPIC).map(|t| t.partitions.clone())
    };
    assert_eq!(initialized(&bench), Some(BTreeSet::from([1])));
    let delete = |name: &str| {
        GroupRequest::DeleteShareOffsets(Box::new(DeleteShareGroupOffsetsRequest {
            group_id: GROUP.into(),
            topics: vec![DeleteShareGroupOffsetsRequestTopic {
                topic_name: name.into(),
                ..DeleteShareGroupOffsetsRequestTopic::default()
            }],
            ..DeleteShareGroupOffsetsRequest::default()
        }))
    };
    let Ok(GroupResponse::DeleteShareOffsets(deleted)) = bench.ask(delete("t")) else {
        panic!("no DeleteShareGroupOffsets answer");
    };
    assert_eq!(deleted.topics[&TOPIC].1, [1]);
    assert_eq!(initialized(&bench), None);
    let done = GroupRequest::ShareOffsetsDeleted(GROUP.into(), vec![TOPIC]);
    assert!(bench.ask(done).is_ok());
    assert!(group(&bench).states().unwrap().deleting.is_empty());
    let Ok(GroupResponse::DeleteShareOffsets(nothing)) = bench.ask(delete("t")) else {
        panic!("no DeleteShareGroupOffsets answer");
    };
    assert_eq!(nothing.refused.len(), 1);

    settle(&mut bench, "a", 0, Some(&["t"]));
    for request in [alter(9), delete("t")] {
        let Ok(GroupResponse::ShareRefused(refusal)) = bench.ask(request) else {
            panic!("the group has a member");
        };
        assert_eq!(refusal.error, ErrorCode::NonEmptyGroup);
    }
}

#[test]
fn a_deleted_group_takes_its_states_along() {
    let mut bench = bench();
    settle(&mut bench, "a", 0, Some(&["t"]));
    let doom = || GroupRequest::BeginDeleteShareGroups(vec![GROUP.into()]);
    let Ok(GroupResponse::DoomedShareGroups(doomed)) = bench.ask(doom()) else {
        panic!("no answer");
    };
    assert!(doomed.is_empty(), "it has a member");
    settle(&mut bench, "a", -1, None);
    let Ok(GroupResponse::DoomedShareGroups(doomed)) = bench.ask(doom()) else {
        panic!("no answer");
    };
    assert_eq!(doomed[0].1.topics[&TOPIC].1, [0, 1, 2]);
    let delete = GroupRequest::DeleteGroups(vec![GROUP.into()]);
    assert!(bench.ask(delete).is_ok());
    assert!(bench.shard.share_group(GROUP).is_none());
    assert!(bench.reload().shard.share_group(GROUP).is_none());
}

fn reader(id: &str, topics: &[u8], assigned: &[(u8, &[i32])]) -> Reader {
    let uuid = |n: &u8| Uuid::from_bytes([*n; 16]);
    Reader {
        id: id.into(),
        topics: topics.iter().map(uuid).collect(),
        assigned: assigned
            .iter()
            .map(|(topic, partitions)| (uuid(topic), partitions.iter().copied().collect()))
            .collect(),
    }
}

fn partitions(topics: &[(u8, i32)]) -> Partitions {
    let topics = topics.iter();
    topics
        .map(|(topic, count)| (Uuid::from_bytes([*topic; 16]), (0..*count).collect()))
        .collect()
}

fn sizes(shares: &BTreeMap<ByteStr, Partitions>) -> Vec<usize> {
    shares
        .values()
        .map(|share| share.values().map(BTreeSet::len).sum())
        .collect()
}

#[test]
fn the_assignor_is_balanced_and_keeps_what_it_can() {
    // More partitions than readers: each partition once.
    let readers = [
        reader("a", &[1], &[(1, &[0, 1, 2, 3])]),
        reader("b", &[1], &[]),
    ];
    let shares = assignor::assign(&readers, &partitions(&[(1, 4)]));
    assert_eq!(sizes(&shares), [2, 2]);
    assert!(shares["a"].values().flatten().all(|p| *p < 2), "kept");
    // More readers than partitions: nobody is without work.
    let readers: Vec<Reader> = ["a", "b", "c", "d", "e"]
        .map(|id| reader(id, &[1], &[]))
        .into();
    let shares = assignor::assign(&readers, &partitions(&[(1, 2)]));
    assert!(sizes(&shares).iter().all(|size| *size >= 1), "{shares:?}");
    // Different subscriptions: each topic among those who read it.
    let readers = [
        reader("a", &[1, 2], &[]),
        reader("b", &[2], &[]),
        reader("c", &[], &[]),
    ];
    let shares = assignor::assign(&readers, &partitions(&[(1, 2), (2, 2)]));
    assert_eq!(sizes(&shares), [3, 1, 0]);
}

#[test]
fn a_group_has_only_so_many_members() {
    let mut bench = Bench::with(crate::group::GroupCoordinatorConfig {
        share_max_size: 1,
        ..crate::group::GroupCoordinatorConfig::default()
    });
    set_partitions(&bench, 1);
    beat(&mut bench, "a", 0, Some(&["t"]));
    let (refused, _) = beat(&mut bench, "b", 0, Some(&["t"]));
    assert_eq!(code(refused.error_code), ErrorCode::GroupMaxSizeReached);
    // One that is a member already may join again.
    let (again, _) = beat(&mut bench, "a", 0, Some(&["t"]));
    assert_eq!(code(again.error_code), ErrorCode::None);
}
