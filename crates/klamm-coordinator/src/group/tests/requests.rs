//! The facade over a log in memory: whole requests, in the forms of their versions.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use klamm_env::{Clock, Env, SplitMix64};
use klamm_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use klamm_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use klamm_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::*;
use klamm_protocol::{ByteStr, Encoder, ErrorCode, Message};
use klamm_records::Uuid;

use crate::group::testing::{Join, code};
use crate::group::{
    FixedCluster, GroupCoordinator, GroupCoordinatorConfig, RequestContext, TopicLookup,
};
use crate::runtime::{MemoryPartitions, WriteError};

#[derive(Debug)]
struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn wall_ms(&self) -> i64 {
        1_700_000_000_000 + i64::try_from(self.0.elapsed().as_millis()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Topics with two partitions each.
struct Topics(BTreeMap<&'static str, Uuid>);

impl Topics {
    fn new() -> Topics {
        Topics(
            [
                ("t", Uuid::from_bytes([7; 16])),
                ("u", Uuid::from_bytes([8; 16])),
            ]
            .into(),
        )
    }
}

impl TopicLookup for Topics {
    fn topic_name(&self, id: Uuid) -> Option<ByteStr> {
        let found = self.0.iter().find(|(_, known)| **known == id);
        found.map(|(name, _)| ByteStr::from(*name))
    }

    fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.0.get(name).copied()
    }

    fn has_partition(&self, name: &str, partition: i32) -> bool {
        self.0.contains_key(name) && (0..2).contains(&partition)
    }
}

struct World {
    log: Arc<MemoryPartitions>,
    groups: GroupCoordinator,
}

const COUNT: i32 = 4;

impl World {
    async fn new() -> World {
        let log = Arc::new(MemoryPartitions::default());
        let world = World::over(log);
        for partition in 0..COUNT {
            world.groups.on_elected(partition, 1);
        }
        world.loaded().await;
        world
    }

    fn over(log: Arc<MemoryPartitions>) -> World {
        let env = Env {
            clock: Arc::new(TokioClock(tokio::time::Instant::now())),
            rng: Arc::new(SplitMix64::new(1)),
            ..Env::os()
        };
        let config = GroupCoordinatorConfig {
            offsets_topic_partitions: COUNT,
            ..GroupCoordinatorConfig::default()
        };
        let groups = GroupCoordinator::new(
            config,
            log.clone(),
            log.clone(),
            Arc::new(FixedCluster::default()),
            &env,
        );
        World { log, groups }
    }

    async fn loaded(&self) {
        loop {
            let listed = self.groups.list_groups(ListGroupsRequest::default()).await;
            match code(listed.error_code) {
                ErrorCode::None => return,
                ErrorCode::CoordinatorLoadInProgress => tokio::task::yield_now().await,
                other => panic!("{other:?}"),
            }
        }
    }

    async fn join(&self, join: &Join) -> JoinGroupResponse {
        let response = self
            .groups
            .join_group(&join.context(), join.message())
            .await;
        encodes(&response, join.version);
        response
    }

    async fn stable(&self) -> String {
        let id = self.join(&Join::old()).await.member_id.to_string();
        let request = SyncGroupRequest {
            group_id: "g".into(),
            generation_id: 1,
            member_id: id.as_str().into(),
            ..SyncGroupRequest::default()
        };
        let synced = self.groups.sync_group(&version(4), request).await;
        assert_eq!(code(synced.error_code), ErrorCode::None);
        id
    }

    async fn commit(
        &self,
        version_of: i16,
        group: &str,
        topics: Vec<OffsetCommitRequestTopic>,
    ) -> Vec<ErrorCode> {
        let request = OffsetCommitRequest {
            group_id: group.into(),
            generation_id_or_member_epoch: -1,
            topics,
            ..OffsetCommitRequest::default()
        };
        let context = version(version_of);
        let response = self
            .groups
            .offset_commit(&context, request, &Topics::new())
            .await;
        encodes(&response, version_of);
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        partitions
            .map(|partition| code(partition.error_code))
            .collect()
    }

    async fn fetch(&self, version_of: i16, request: OffsetFetchRequest) -> OffsetFetchResponse {
        let context = version(version_of);
        let response = self
            .groups
            .offset_fetch(&context, request, &Topics::new())
            .await;
        encodes(&response, version_of);
        response
    }
}

fn version(api_version: i16) -> RequestContext {
    RequestContext::new(api_version, Some("c"), [127, 0, 0, 1].into())
}

/// An answer that cannot be written in the version of its request is no answer.
#[track_caller]
fn encodes<M: Message>(message: &M, version: i16) {
    message.encode(&mut Encoder::new(), version).unwrap();
}

fn topic(name: &str, id: Uuid, partitions: &[(i32, i64)]) -> OffsetCommitRequestTopic {
    OffsetCommitRequestTopic {
        name: name.into(),
        topic_id: id,
        partitions: partitions
            .iter()
            .map(|(partition, offset)| OffsetCommitRequestPartition {
                partition_index: *partition,
                committed_offset: *offset,
                ..OffsetCommitRequestPartition::default()
            })
            .collect(),
        ..OffsetCommitRequestTopic::default()
    }
}

fn fetch_by_name(group: &str, names: Option<&[&str]>) -> OffsetFetchRequest {
    OffsetFetchRequest {
        group_id: group.into(),
        topics: names.map(|names| {
            let topic = |name: &&str| OffsetFetchRequestTopic {
                name: (*name).into(),
                partition_indexes: vec![0],
                ..OffsetFetchRequestTopic::default()
            };
            names.iter().map(topic).collect()
        }),
        ..OffsetFetchRequest::default()
    }
}

fn fetch_groups(groups: &[(&str, Option<Uuid>)]) -> OffsetFetchRequest {
    let group = |(group, id): &(&str, Option<Uuid>)| OffsetFetchRequestGroup {
        group_id: (*group).into(),
        topics: id.map(|topic_id| {
            vec![OffsetFetchRequestTopics {
                name: "t".into(),
                topic_id,
                partition_indexes: vec![0],
                ..OffsetFetchRequestTopics::default()
            }]
        }),
        ..OffsetFetchRequestGroup::default()
    };
    OffsetFetchRequest {
        topics: None,
        groups: groups.iter().map(group).collect(),
        ..OffsetFetchRequest::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_forms_in_every_version() {
    for version_of in 0..=9 {
        let world = World::new().await;
        let mut join = Join::new().version(version_of);
        let mut answer = world.join(&join).await;
        if version_of >= 4 {
            assert_eq!(code(answer.error_code), ErrorCode::MemberIdRequired);
            join = join.id(&answer.member_id);
            answer = world.join(&join).await;
        }
        assert_eq!(
            code(answer.error_code),
            ErrorCode::None,
            "version {version_of}"
        );
        assert_eq!(answer.generation_id, 1);
        let refused = world.join(&Join::new().version(version_of).id("zz")).await;
        assert_eq!(code(refused.error_code), ErrorCode::UnknownMemberId);
        assert_eq!(refused.member_id, "zz");
    }
}

#[tokio::test(start_paused = true)]
async fn version_0_has_one_timeout_for_everything() {
    let world = World::new().await;
    let mut join = Join::old().version(0);
    join.rebalance_timeout_ms = -1;
    let id = world.join(&join).await.member_id;
    let request = DescribeGroupsRequest {
        groups: vec!["g".into()],
        ..DescribeGroupsRequest::default()
    };
    let described = world.groups.describe_groups(&version(0), request).await;
    encodes(&described, 0);
    assert_eq!(described.groups[0].members[0].member_id, id);
    // The sync phase ends with the session, not at once.
    tokio::time::sleep(Duration::from_millis(9_000)).await;
    let request = HeartbeatRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: id,
        ..HeartbeatRequest::default()
    };
    let beat = world.groups.heartbeat(request).await;
    assert_eq!(code(beat.error_code), ErrorCode::None);
}

#[tokio::test(start_paused = true)]
async fn refuses_sessions_out_of_bounds_and_groups_without_a_name() {
    let world = World::new().await;
    for session_timeout_ms in [5_999, 1_800_001] {
        let mut join = Join::new().id("m");
        join.session_timeout_ms = session_timeout_ms;
        let refused = world.join(&join).await;
        assert_eq!(code(refused.error_code), ErrorCode::InvalidSessionTimeout);
        assert_eq!(refused.member_id, "m");
    }
    let message = JoinGroupRequest {
        group_id: "".into(),
        ..Join::new().message()
    };
    let refused = world.groups.join_group(&version(9), message).await;
    assert_eq!(code(refused.error_code), ErrorCode::InvalidGroupId);
    let refused = world.groups.heartbeat(HeartbeatRequest::default()).await;
    assert_eq!(code(refused.error_code), ErrorCode::InvalidGroupId);
    let refused = world
        .groups
        .leave_group(&version(3), LeaveGroupRequest::default())
        .await;
    assert_eq!(code(refused.error_code), ErrorCode::InvalidGroupId);
    let request = OffsetDeleteRequest::default();
    let refused = world.groups.offset_delete(request, &Topics::new()).await;
    assert_eq!(code(refused.error_code), ErrorCode::InvalidGroupId);
}

#[tokio::test(start_paused = true)]
async fn a_sync_of_version_5_must_name_the_protocol() {
    let world = World::new().await;
    let id = world.stable().await;
    let request = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: id.as_str().into(),
        ..SyncGroupRequest::default()
    };
    let refused = world.groups.sync_group(&version(5), request.clone()).await;
    assert_eq!(
        code(refused.error_code),
        ErrorCode::InconsistentGroupProtocol
    );
    let named = SyncGroupRequest {
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        ..request
    };
    let synced = world.groups.sync_group(&version(5), named).await;
    assert_eq!(code(synced.error_code), ErrorCode::None);
    encodes(&synced, 5);
}

#[tokio::test(start_paused = true)]
async fn leaving_takes_the_form_of_its_version() {
    let world = World::new().await;
    for version_of in 0..=5 {
        let mut request = LeaveGroupRequest {
            group_id: "g".into(),
            ..LeaveGroupRequest::default()
        };
        if version_of < 3 {
            request.member_id = "m".into();
        } else {
            request.members = vec![Default::default(), Default::default()];
        }
        let left = world
            .groups
            .leave_group(&version(version_of), request)
            .await;
        encodes(&left, version_of);
        if version_of < 3 {
            assert_eq!(code(left.error_code), ErrorCode::UnknownMemberId);
        } else {
            assert_eq!(code(left.error_code), ErrorCode::None);
            assert_eq!(left.members.len(), 2);
            assert_eq!(code(left.members[1].error_code), ErrorCode::UnknownMemberId);
        }
    }
    let id = world.stable().await;
    let request = LeaveGroupRequest {
        group_id: "g".into(),
        member_id: id.as_str().into(),
        ..LeaveGroupRequest::default()
    };
    let left = world.groups.leave_group(&version(1), request).await;
    assert_eq!(code(left.error_code), ErrorCode::None);
}

#[tokio::test(start_paused = true)]
async fn partitions_that_do_not_exist_are_refused_one_by_one() {
    let world = World::new().await;
    let topics = || {
        vec![
            topic("t", Uuid::ZERO, &[(0, 1), (9, 1), (1, 1)]),
            topic("nope", Uuid::ZERO, &[(0, 1)]),
            topic("u", Uuid::ZERO, &[(1, 1)]),
        ]
    };
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let verdicts = world.commit(9, "g", topics()).await;
    let none = ErrorCode::None;
    assert_eq!(verdicts, [none, unknown, none, unknown, none]);
    // A refusal of the whole request spares what was refused before.
    world
        .groups
        .on_resigned(world.groups.partition_for("g"), None);
    let verdicts = world.commit(9, "g", topics()).await;
    let gone = ErrorCode::NotCoordinator;
    assert_eq!(verdicts, [gone, unknown, gone, unknown, gone]);
    let verdicts = world
        .commit(9, "g", vec![topic("nope", Uuid::ZERO, &[(0, 1)])])
        .await;
    assert_eq!(verdicts, [unknown]);
}

#[tokio::test(start_paused = true)]
async fn topics_go_by_their_ids_in_version_10() {
    let world = World::new().await;
    let t = Uuid::from_bytes([7; 16]);
    let stranger = Uuid::from_bytes([9; 16]);
    let topics = vec![topic("", t, &[(0, 4)]), topic("", stranger, &[(0, 4)])];
    let verdicts = world.commit(10, "g", topics).await;
    assert_eq!(verdicts, [ErrorCode::None, ErrorCode::UnknownTopicId]);
    for (id, offset, error) in [
        (t, 4, ErrorCode::None),
        (stranger, -1, ErrorCode::UnknownTopicId),
    ] {
        let fetched = world.fetch(10, fetch_groups(&[("g", Some(id))])).await;
        let topic = &fetched.groups[0].topics[0];
        assert_eq!(topic.topic_id, id);
        let partition = &topic.partitions[0];
        assert_eq!(
            (partition.committed_offset, code(partition.error_code)),
            (offset, error)
        );
    }
    let fetched = world.fetch(10, fetch_groups(&[("g", None)])).await;
    assert_eq!(fetched.groups[0].topics[0].topic_id, t);
}

#[tokio::test(start_paused = true)]
async fn offsets_are_fetched_in_every_version() {
    let world = World::new().await;
    world
        .commit(8, "g", vec![topic("t", Uuid::ZERO, &[(0, 4)])])
        .await;
    for version_of in 1..=7 {
        let fetched = world
            .fetch(version_of, fetch_by_name("g", Some(&["t", "u"])))
            .await;
        let offsets = fetched
            .topics
            .iter()
            .map(|topic| topic.partitions[0].committed_offset);
        assert_eq!(offsets.collect::<Vec<_>>(), [4, -1]);
        if version_of >= 2 {
            let all = world.fetch(version_of, fetch_by_name("g", None)).await;
            assert_eq!(all.topics.len(), 1);
        }
    }
    for version_of in 8..=9 {
        let request = fetch_groups(&[
            ("g", Some(Uuid::ZERO)),
            ("none", Some(Uuid::ZERO)),
            ("g", None),
        ]);
        let fetched = world.fetch(version_of, request).await;
        let groups: Vec<_> = fetched
            .groups
            .iter()
            .map(|group| &*group.group_id)
            .collect();
        assert_eq!(groups, ["g", "none", "g"]);
        let offsets = fetched
            .groups
            .iter()
            .map(|group| group.topics[0].partitions[0].committed_offset);
        assert_eq!(offsets.collect::<Vec<_>>(), [4, -1, 4]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_elsewhere_says_so_where_its_version_can() {
    let world = World::over(Arc::new(MemoryPartitions::default()));
    let error = |response: &OffsetFetchResponse| code(response.error_code);
    let fetched = world.fetch(1, fetch_by_name("g", Some(&["t"]))).await;
    let partition = &fetched.topics[0].partitions[0];
    assert_eq!(code(partition.error_code), ErrorCode::NotCoordinator);
    assert_eq!(partition.committed_offset, -1);
    let fetched = world.fetch(2, fetch_by_name("g", Some(&["t"]))).await;
    assert_eq!(error(&fetched), ErrorCode::NotCoordinator);
    assert!(fetched.topics.is_empty());
    let fetched = world.fetch(9, fetch_groups(&[("g", None)])).await;
    assert_eq!(
        code(fetched.groups[0].error_code),
        ErrorCode::NotCoordinator
    );
}

#[tokio::test(start_paused = true)]
async fn a_stable_fetch_that_waits_too_long_looks_for_another_coordinator() {
    let world = World::new().await;
    world
        .log
        .hold_commits(world.groups.partition_for("g"), true);
    let commit = world.commit(9, "g", vec![topic("t", Uuid::ZERO, &[(0, 4)])]);
    let stable = OffsetFetchRequest {
        require_stable: true,
        ..fetch_groups(&[("g", None)])
    };
    let (verdicts, fetched) = tokio::join!(commit, world.fetch(9, stable));
    assert_eq!(verdicts, [ErrorCode::CoordinatorNotAvailable]);
    assert_eq!(
        code(fetched.groups[0].error_code),
        ErrorCode::NotCoordinator
    );
}

#[tokio::test(start_paused = true)]
async fn offsets_are_deleted_where_they_exist() {
    let world = World::new().await;
    world
        .commit(8, "g", vec![topic("t", Uuid::ZERO, &[(0, 4)])])
        .await;
    let topic = |name: &str, partitions: &[i32]| OffsetDeleteRequestTopic {
        name: name.into(),
        partitions: partitions
            .iter()
            .map(|index| OffsetDeleteRequestPartition {
                partition_index: *index,
            })
            .collect(),
    };
    let request = OffsetDeleteRequest {
        group_id: "g".into(),
        topics: vec![topic("t", &[0, 7]), topic("nope", &[0])],
    };
    let missing = OffsetDeleteRequest {
        group_id: "none".into(),
        ..request.clone()
    };
    let deleted = world.groups.offset_delete(request, &Topics::new()).await;
    let errors = |topic: usize| -> Vec<_> {
        let partitions = deleted.topics[topic].partitions.iter();
        partitions
            .map(|partition| (partition.partition_index, code(partition.error_code)))
            .collect()
    };
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(errors(0), [(0, ErrorCode::None), (7, unknown)]);
    assert_eq!(errors(1), [(0, unknown)]);
    let refused = world.groups.offset_delete(missing, &Topics::new()).await;
    assert_eq!(code(refused.error_code), ErrorCode::GroupIdNotFound);
}

#[tokio::test(start_paused = true)]
async fn groups_of_all_partitions_are_listed_and_filtered() {
    let world = World::new().await;
    world.stable().await;
    for group in ["a", "b", "c", "d"] {
        world
            .commit(8, group, vec![topic("t", Uuid::ZERO, &[(0, 4)])])
            .await;
    }
    let list = async |states: &[&str], types: &[&str]| -> Vec<String> {
        let request = ListGroupsRequest {
            states_filter: states.iter().map(|name| ByteStr::from(*name)).collect(),
            types_filter: types.iter().map(|name| ByteStr::from(*name)).collect(),
            ..ListGroupsRequest::default()
        };
        let listed = world.groups.list_groups(request).await;
        encodes(&listed, 5);
        let mut names: Vec<_> = listed
            .groups
            .iter()
            .map(|group| group.group_id.to_string())
            .collect();
        names.sort();
        names
    };
    assert_eq!(list(&[], &[]).await, ["a", "b", "c", "d", "g"]);
    assert_eq!(list(&["STABLE "], &["Classic"]).await, ["g"]);
    assert_eq!(list(&["empty", "dead"], &[]).await, ["a", "b", "c", "d"]);
    assert!(list(&["bogus"], &[]).await.is_empty());
    assert!(list(&[], &["consumer"]).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn descriptions_and_deletions_come_in_the_order_of_the_request() {
    let world = World::new().await;
    let id = world.stable().await;
    world
        .commit(8, "b", vec![topic("t", Uuid::ZERO, &[(0, 4)])])
        .await;
    let names: Vec<ByteStr> = ["none", "g", "b"].map(ByteStr::from).to_vec();
    for version_of in [5, 6] {
        let request = DescribeGroupsRequest {
            groups: names.clone(),
            ..DescribeGroupsRequest::default()
        };
        let described = world
            .groups
            .describe_groups(&version(version_of), request)
            .await;
        encodes(&described, version_of);
        let states = described.groups.iter().map(|group| &*group.group_state);
        assert_eq!(states.collect::<Vec<_>>(), ["Dead", "Stable", "Empty"]);
        let missing = &described.groups[0];
        let (error, message) = match version_of {
            5 => (ErrorCode::None, None),
            _ => (ErrorCode::GroupIdNotFound, Some("Group none not found.")),
        };
        assert_eq!(code(missing.error_code), error);
        assert_eq!(missing.error_message.as_deref(), message);
        assert_eq!(missing.authorized_operations, i32::MIN);
        let member = &described.groups[1].members[0];
        assert_eq!(*member.member_id, *id);
        assert_eq!(member.client_host, "/127.0.0.1");
        assert!(!member.member_metadata.is_empty());
        assert_eq!(described.groups[1].protocol_data, "range");
    }
    // A name that comes twice is answered once.
    let names = [names.clone(), names].concat();
    let request = DeleteGroupsRequest {
        groups_names: names,
        ..DeleteGroupsRequest::default()
    };
    let deleted = world.groups.delete_groups(request).await;
    let errors = deleted.results.iter().map(|result| code(result.error_code));
    assert_eq!(
        errors.collect::<Vec<_>>(),
        [
            ErrorCode::GroupIdNotFound,
            ErrorCode::NonEmptyGroup,
            ErrorCode::None
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_while_loading_is_believed() {
    let world = World::over(Arc::new(MemoryPartitions::default()));
    let request = HeartbeatRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        ..HeartbeatRequest::default()
    };
    let beat = world.groups.heartbeat(request.clone()).await;
    assert_eq!(code(beat.error_code), ErrorCode::NotCoordinator);
    world.groups.on_elected(world.groups.partition_for("g"), 1);
    let beat = world.groups.heartbeat(request.clone()).await;
    assert_eq!(code(beat.error_code), ErrorCode::None);
    let listed = world.groups.list_groups(ListGroupsRequest::default()).await;
    assert_eq!(
        code(listed.error_code),
        ErrorCode::CoordinatorLoadInProgress
    );
    world.loaded().await;
    let beat = world.groups.heartbeat(request).await;
    assert_eq!(code(beat.error_code), ErrorCode::UnknownMemberId);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_waits_learns_that_the_coordinator_moved() {
    let world = World::new().await;
    let (join, ()) = tokio::join!(async { world.join(&Join::old()).await }, async {
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        world
            .groups
            .on_resigned(world.groups.partition_for("g"), None);
    });
    assert_eq!(code(join.error_code), ErrorCode::NotCoordinator);
}

#[tokio::test(start_paused = true)]
async fn nothing_committed_is_lost_when_the_coordinator_moves() {
    let world = World::new().await;
    world.stable().await;
    world
        .commit(8, "b", vec![topic("t", Uuid::ZERO, &[(0, 4), (1, 5)])])
        .await;
    world.groups.shut_down();
    let verdicts = world
        .commit(8, "b", vec![topic("t", Uuid::ZERO, &[(0, 6)])])
        .await;
    assert_eq!(verdicts, [ErrorCode::CoordinatorNotAvailable]);
    let successor = World::over(world.log.clone());
    for partition in 0..COUNT {
        successor.groups.on_elected(partition, 2);
    }
    successor.loaded().await;
    let fetched = successor.fetch(8, fetch_groups(&[("b", None)])).await;
    let partitions = &fetched.groups[0].topics[0].partitions;
    let offsets: Vec<_> = partitions
        .iter()
        .map(|partition| partition.committed_offset)
        .collect();
    assert_eq!(offsets, [4, 5]);
    let listed = successor
        .groups
        .list_groups(ListGroupsRequest::default())
        .await;
    assert!(
        listed
            .groups
            .iter()
            .any(|group| group.group_id == "g" && group.group_state == "Stable")
    );
}

/// Told and then lost with its leader, the generation would be given out again, with another
/// assignment: two members would own a partition in it.
#[tokio::test(start_paused = true)]
async fn a_generation_that_may_yet_be_lost_is_not_told() {
    let world = World::new().await;
    let partition = world.groups.partition_for("g");
    let id = world.join(&Join::old()).await.member_id;
    world.log.hold_commits(partition, true);
    let request = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: id,
        ..SyncGroupRequest::default()
    };
    let soon = |world: World, request: SyncGroupRequest| async move {
        let context = version(4);
        let sync = world.groups.sync_group(&context, request);
        tokio::time::timeout(Duration::from_secs(1), sync)
            .await
            .ok()
    };
    let log = world.log.clone();
    assert!(soon(world, request.clone()).await.is_none());
    let successor = World::over(log.clone());
    for partition in 0..COUNT {
        successor.groups.on_elected(partition, 2);
    }
    successor.loaded().await;
    let mut sync = pin!(soon(successor, request));
    let a_while = async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        told = &mut sync => panic!("{told:?}"),
        () = a_while => {}
    }
    log.hold_commits(partition, false);
    let synced = sync.await.unwrap();
    assert_eq!(code(synced.error_code), ErrorCode::None);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_is_no_coordinator() {
    let world = World::new().await;
    let partition = world.groups.partition_for("g");
    world.log.fail_appends(partition, Some(WriteError::Storage));
    let joined = world.join(&Join::new()).await;
    // The id was given before the group could not be written.
    assert_eq!(code(joined.error_code), ErrorCode::MemberIdRequired);
    let joined = world.join(&Join::new().id(&joined.member_id)).await;
    assert_eq!(code(joined.error_code), ErrorCode::UnknownMemberId);
    let joined = world.join(&Join::old()).await;
    assert_eq!(code(joined.error_code), ErrorCode::NotCoordinator);
    let verdicts = world
        .commit(8, "g", vec![topic("t", Uuid::ZERO, &[(0, 4)])])
        .await;
    assert_eq!(verdicts, [ErrorCode::NotCoordinator]);
    world
        .log
        .fail_appends(partition, Some(WriteError::TooLarge));
    let verdicts = world
        .commit(8, "g", vec![topic("t", Uuid::ZERO, &[(0, 4)])])
        .await;
    assert_eq!(verdicts, [ErrorCode::UnknownServerError]);
}

#[test]
fn requests_can_be_awaited_on_any_thread() {
    fn is_send<T: Send>(_: T) {}
    fn check(groups: &GroupCoordinator, topics: &Topics) {
        let context = RequestContext::default();
        is_send(groups.join_group(&context, JoinGroupRequest::default()));
        is_send(groups.offset_commit(&context, OffsetCommitRequest::default(), topics));
        is_send(groups.offset_fetch(&context, OffsetFetchRequest::default(), topics));
        is_send(groups.list_groups(ListGroupsRequest::default()));
        is_send(groups.delete_groups(DeleteGroupsRequest::default()));
    }
    let _ = check;
}
