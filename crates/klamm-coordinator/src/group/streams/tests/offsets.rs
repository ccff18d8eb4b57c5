//! Offsets of streams groups, and what tools see of the groups.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use klamm_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use klamm_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use klamm_protocol::messages::streams_group_describe_response::DescribedGroup;
use klamm_protocol::messages::{ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest};

use super::*;
use crate::group::testing::code;

fn commit(
    bench: &mut Bench,
    version: i16,
    member: &str,
    epoch: i32,
    (topic, partition): (&str, i32),
) -> ErrorCode {
    let request = OffsetCommitRequest {
        group_id: GROUP.into(),
        member_id: member.into(),
        generation_id_or_member_epoch: epoch,
        retention_time_ms: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: topic.into(),
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
        other => panic!("no OffsetCommit answer: {other:?}"),
    }
}

fn fetch(bench: &mut Bench, member: Option<&str>, epoch: i32) -> ErrorCode {
    let request = OffsetFetchRequestGroup {
        group_id: GROUP.into(),
        member_id: member.map(ByteStr::from),
        member_epoch: epoch,
        ..OffsetFetchRequestGroup::default()
    };
    match bench.ask(GroupRequest::OffsetFetch(Box::new(request), false)) {
        Ok(_) => ErrorCode::None,
        Err(error) => error,
    }
}

fn delete_offset(bench: &mut Bench, topic: &str) -> ErrorCode {
    let request = OffsetDeleteRequest {
        group_id: GROUP.into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetDeleteRequestPartition::default()],
        }],
    };
    match bench.ask(GroupRequest::OffsetDelete(Box::new(request))) {
        Ok(GroupResponse::OffsetDelete(response)) => {
            code(response.topics[0].partitions[0].error_code)
        }
        Err(error) => error,
        other => panic!("no OffsetDelete answer: {other:?}"),
    }
}

fn delete_group(bench: &mut Bench) -> ErrorCode {
    match bench.ask(GroupRequest::DeleteGroups(vec![GROUP.into()])) {
        Ok(GroupResponse::DeleteGroups(results)) => code(results[0].error_code),
        other => panic!("no DeleteGroups answer: {other:?}"),
    }
}

fn describe(bench: &mut Bench, group: &str) -> DescribedGroup {
    match bench.ask(GroupRequest::DescribeStreamsGroups(vec![group.into()])) {
        Ok(GroupResponse::DescribeStreamsGroups(mut groups)) => groups.remove(0),
        other => panic!("no StreamsGroupDescribe answer: {other:?}"),
    }
}

fn listed(bench: &mut Bench, states: &[&str], types: &[&str]) -> usize {
    let request = ListGroupsRequest {
        states_filter: names(states),
        types_filter: names(types),
        ..ListGroupsRequest::default()
    };
    match bench.ask(GroupRequest::ListGroups(request.into())) {
        Ok(GroupResponse::ListGroups(groups)) => groups.len(),
        other => panic!("no ListGroups answer: {other:?}"),
    }
}

#[test]
fn members_commit_what_their_tasks_read() {
    let mut bench = bench();
    beat(&mut bench, joining("p.1"));
    let words = ("words", 0);
    assert_eq!(commit(&mut bench, 9, "p.1", 2, words), ErrorCode::None);
    assert_eq!(
        commit(&mut bench, 9, "nobody", 2, words),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        commit(&mut bench, 9, "", -1, words),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        commit(&mut bench, 8, "p.1", 2, words),
        ErrorCode::UnsupportedVersion
    );
    assert_eq!(
        commit(&mut bench, 9, "p.1", 3, words),
        ErrorCode::StaleMemberEpoch
    );
    assert_eq!(fetch(&mut bench, Some("p.1"), 2), ErrorCode::None);
    assert_eq!(fetch(&mut bench, None, -1), ErrorCode::None);
    assert_eq!(
        fetch(&mut bench, Some("p.1"), 1),
        ErrorCode::StaleMemberEpoch
    );
    assert_eq!(
        fetch(&mut bench, Some("nobody"), 2),
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn an_older_epoch_commits_for_tasks_that_the_member_had_then() {
    let mut bench = bench();
    let first = beat(&mut bench, joining("p.1"));
    let all = active(&first).unwrap();
    beat(&mut bench, joining("q.1"));
    let told = beat(&mut bench, owning("p.1", 2, &all, &[]));
    let keeps = active(&told).unwrap();
    beat(&mut bench, owning("p.1", 2, &keeps, &[]));
    beat(&mut bench, staying("q.1", 3));
    // The part that reads a topic decides: each has two tasks.
    let topic_of = |part: &str| match part {
        "0" => "words",
        _ => "counts-repartition",
    };
    for (part, task) in &all {
        let place = (topic_of(part), *task);
        let is_kept = keeps.contains(&(part.clone(), *task));
        let expected = if is_kept {
            ErrorCode::None
        } else {
            ErrorCode::StaleMemberEpoch
        };
        assert_eq!(commit(&mut bench, 9, "p.1", 2, place), expected);
        // The other has its tasks since epoch 3 only.
        assert_eq!(
            commit(&mut bench, 9, "q.1", 2, place),
            ErrorCode::StaleMemberEpoch
        );
    }
    assert_eq!(
        commit(&mut bench, 9, "p.1", 2, ("other", 0)),
        ErrorCode::StaleMemberEpoch
    );
}

#[test]
fn offsets_of_topics_that_are_read_stay() {
    let mut bench = bench();
    beat(&mut bench, joining("p.1"));
    commit(&mut bench, 9, "p.1", 2, ("words", 0));
    commit(&mut bench, 9, "p.1", 2, ("other", 0));
    assert_eq!(
        delete_offset(&mut bench, "words"),
        ErrorCode::GroupSubscribedToTopic
    );
    assert_eq!(delete_offset(&mut bench, "other"), ErrorCode::None);
    assert_eq!(delete_group(&mut bench), ErrorCode::NonEmptyGroup);
    beat(&mut bench, staying("p.1", -1));
    // From outside, as tools reset them.
    assert_eq!(commit(&mut bench, 9, "", -1, ("words", 1)), ErrorCode::None);
    assert_eq!(delete_offset(&mut bench, "words"), ErrorCode::None);
    assert_eq!(delete_group(&mut bench), ErrorCode::None);
    assert_eq!(bench.shard.group_ids().count(), 0);
    assert_eq!(bench.reload().shard.group_ids().count(), 0);
}

#[test]
fn an_empty_group_goes_with_its_last_offset() {
    let mut bench = bench();
    beat(&mut bench, joining("p.1"));
    commit(&mut bench, 9, "p.1", 2, ("words", 0));
    let week_ms = 7 * 24 * 60 * 60 * 1_000;
    beat(&mut bench, staying("p.1", -1));
    bench.advance_ms(week_ms - 600_000);
    assert!(bench.shard.streams_group(GROUP).is_some());
    bench.advance_ms(1_200_000);
    assert!(bench.shard.streams_group(GROUP).is_none());
    assert_eq!(bench.reload().shard.group_ids().count(), 0);
}

#[test]
fn descriptions_show_topology_and_members() {
    let mut bench = plain();
    set_topic(&bench, "words", 2);
    assert_eq!(describe(&mut bench, "g").error_code, 69);
    beat(&mut bench, joining("p.1"));
    let waiting = describe(&mut bench, "g");
    assert_eq!(waiting.group_state, "NotReady");
    let parts = waiting.topology.unwrap().subtopologies.unwrap();
    assert_eq!(parts[1].state_changelog_topics[0].partitions, 0);
    assert_eq!(listed(&mut bench, &[], &["Streams"]), 1);
    assert_eq!(listed(&mut bench, &[], &["classic"]), 0);
    // Kafka's own name of the state is another in filters.
    assert_eq!(listed(&mut bench, &["NotReady"], &[]), 0);
    assert_eq!(listed(&mut bench, &["not_ready"], &[]), 1);
    set_topic(&bench, "counts-repartition", 2);
    set_topic(&bench, "counts-changelog", 2);
    beat(&mut bench, staying("p.1", 2));
    let stable = describe(&mut bench, "g");
    assert_eq!((stable.error_code, &*stable.group_state), (0, "Stable"));
    assert_eq!((stable.group_epoch, stable.assignment_epoch), (3, 3));
    let parts = stable.topology.unwrap().subtopologies.unwrap();
    assert_eq!(parts[0].source_topics, ["words"]);
    assert_eq!(parts[0].repartition_sink_topics, ["counts-repartition"]);
    assert_eq!(parts[1].state_changelog_topics[0].partitions, 2);
    assert_eq!(parts[1].repartition_source_topics[0].partitions, 2);
    let member = &stable.members[0];
    assert_eq!((&*member.member_id, member.member_epoch), ("p.1", 3));
    assert_eq!((&*member.client_id, &*member.process_id), ("c", "p"));
    assert_eq!(member.client_host, "/127.0.0.1");
    assert_eq!(member.assignment.active_tasks.len(), 2);
    assert_eq!(member.assignment, member.target_assignment);
    let mut bench = Bench::new();
    bench.stable();
    let classic = describe(&mut bench, GROUP);
    assert_eq!(code(classic.error_code), ErrorCode::GroupIdNotFound);
    assert_eq!(
        classic.error_message.unwrap(),
        "Group g is not a streams group."
    );
}
