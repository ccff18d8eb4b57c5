//! Streams groups as a whole: requests in, answers and records out.

mod crowds;
mod histories;
mod membership;
mod offsets;
mod topologies;

use klamm_protocol::ByteStr;
use klamm_protocol::messages::create_topics_request::CreatableTopic;
use klamm_protocol::messages::streams_group_heartbeat_request::{
    CopartitionGroup, Subtopology, TaskIds, TopicInfo, Topology,
};
use klamm_protocol::messages::{StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse};
use klamm_records::Uuid;

use super::{StreamsGroup, check_streams_request, status};
use crate::group::testing::{Bench, GROUP};
use crate::group::{
    GroupRequest, GroupResponse, ListedTopic, RequestContext, StreamsGroupSettings,
};

/// Tasks as tests write them: part and number.
pub(super) type Ids = Vec<(String, i32)>;

/// A bench without an initial delay, and with the topics of [`word_count`].
pub(super) fn bench() -> Bench {
    let bench = plain();
    set_topic(&bench, "words", 2);
    set_topic(&bench, "counts-repartition", 2);
    set_topic(&bench, "counts-changelog", 2);
    bench
}

/// A bench without an initial delay, in a cluster without topics.
pub(super) fn plain() -> Bench {
    let bench = Bench::new();
    configure(&bench, |settings| settings.initial_rebalance_delay_ms = 0);
    bench
}

pub(super) fn configure(bench: &Bench, change: impl FnOnce(&mut StreamsGroupSettings)) {
    let mut settings = StreamsGroupSettings {
        initial_rebalance_delay_ms: 0,
        assignment_interval_ms: 0,
        ..StreamsGroupSettings::default()
    };
    change(&mut settings);
    bench.cluster.set_streams(settings);
}

pub(super) fn set_topic(bench: &Bench, name: &str, count: usize) {
    bench.cluster.change(|topics| {
        let mut id = [0; 16];
        for (at, byte) in name.bytes().take(16).enumerate() {
            id[at] = byte;
        }
        let topic = ListedTopic {
            id: Uuid::from_bytes(id),
            partitions: vec![Vec::new(); count],
        };
        topics.topics.insert(name.into(), topic);
        topics.version += 1;
    });
}

pub(super) fn remove_topic(bench: &Bench, name: &str) {
    bench.cluster.change(|topics| {
        topics.topics.remove(name);
        topics.version += 1;
    });
}

pub(super) fn topic(name: &str, partitions: i32) -> TopicInfo {
    TopicInfo {
        name: name.into(),
        partitions,
        ..TopicInfo::default()
    }
}

pub(super) fn names(names: &[&str]) -> Vec<ByteStr> {
    names.iter().map(|name| (*name).into()).collect()
}

/// Words are read and sent on by key in one part, counted in the other.
pub(super) fn word_count() -> Topology {
    Topology {
        epoch: 0,
        subtopologies: vec![
            Subtopology {
                subtopology_id: "0".into(),
                source_topics: names(&["words"]),
                repartition_sink_topics: names(&["counts-repartition"]),
                ..Subtopology::default()
            },
            Subtopology {
                subtopology_id: "1".into(),
                repartition_source_topics: vec![topic("counts-repartition", 0)],
                state_changelog_topics: vec![topic("counts-changelog", 0)],
                copartition_groups: vec![CopartitionGroup {
                    repartition_source_topics: vec![0],
                    ..CopartitionGroup::default()
                }],
                ..Subtopology::default()
            },
        ],
        ..Topology::default()
    }
}

/// The first heartbeat of a member; its process is what comes before the dot of its id.
pub(super) fn joining(member: &str) -> StreamsGroupHeartbeatRequest {
    let process = member.split('.').next().unwrap();
    StreamsGroupHeartbeatRequest {
        group_id: GROUP.into(),
        member_id: member.into(),
        member_epoch: 0,
        rebalance_timeout_ms: 60_000,
        topology: Some(word_count()),
        active_tasks: Some(Vec::new()),
        standby_tasks: Some(Vec::new()),
        warmup_tasks: Some(Vec::new()),
        process_id: Some(process.into()),
        client_tags: Some(Vec::new()),
        ..StreamsGroupHeartbeatRequest::default()
    }
}

/// A heartbeat with nothing new to say.
pub(super) fn staying(member: &str, epoch: i32) -> StreamsGroupHeartbeatRequest {
    StreamsGroupHeartbeatRequest {
        group_id: GROUP.into(),
        member_id: member.into(),
        member_epoch: epoch,
        rebalance_timeout_ms: -1,
        ..StreamsGroupHeartbeatRequest::default()
    }
}

/// A heartbeat that tells which tasks its member has.
pub(super) fn owning(
    member: &str,
    epoch: i32,
    active: &[(String, i32)],
    standby: &[(String, i32)],
) -> StreamsGroupHeartbeatRequest {
    StreamsGroupHeartbeatRequest {
        active_tasks: Some(task_ids(active)),
        standby_tasks: Some(task_ids(standby)),
        warmup_tasks: Some(Vec::new()),
        ..staying(member, epoch)
    }
}

fn task_ids(ids: &[(String, i32)]) -> Vec<TaskIds> {
    let mut all: Vec<TaskIds> = Vec::new();
    for (part, task) in ids {
        match all.iter_mut().find(|ids| ids.subtopology_id == *part) {
            Some(ids) => ids.partitions.push(*task),
            None => all.push(TaskIds {
                subtopology_id: part.into(),
                partitions: vec![*task],
                ..TaskIds::default()
            }),
        }
    }
    all
}

pub(super) fn beat(
    bench: &mut Bench,
    request: StreamsGroupHeartbeatRequest,
) -> StreamsGroupHeartbeatResponse {
    beat_and_create(bench, request).0
}

pub(super) fn beat_and_create(
    bench: &mut Bench,
    request: StreamsGroupHeartbeatRequest,
) -> (StreamsGroupHeartbeatResponse, Vec<CreatableTopic>) {
    check_streams_request(&request).unwrap();
    let context = RequestContext {
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        ..RequestContext::default()
    };
    match bench.ask(GroupRequest::StreamsHeartbeat(context, Box::new(request))) {
        Ok(GroupResponse::StreamsHeartbeat(response, missing)) => (*response, missing),
        other => panic!("no StreamsGroupHeartbeat answer: {other:?}"),
    }
}

pub(super) fn active(response: &StreamsGroupHeartbeatResponse) -> Option<Ids> {
    ids(response.active_tasks.as_ref())
}

pub(super) fn standby(response: &StreamsGroupHeartbeatResponse) -> Option<Ids> {
    ids(response.standby_tasks.as_ref())
}

fn ids(
    tasks: Option<&Vec<klamm_protocol::messages::streams_group_heartbeat_response::TaskIds>>,
) -> Option<Ids> {
    let tasks = tasks?.iter();
    Some(
        tasks
            .flat_map(|ids| {
                let part = ids.subtopology_id.to_string();
                ids.partitions.iter().map(move |task| (part.clone(), *task))
            })
            .collect(),
    )
}

pub(super) fn of(ids: &[(&str, i32)]) -> Ids {
    ids.iter()
        .map(|(part, task)| ((*part).into(), *task))
        .collect()
}

pub(super) fn statuses(response: &StreamsGroupHeartbeatResponse) -> Vec<i8> {
    let statuses = response.status.iter().flatten();
    statuses.map(|status| status.status_code).collect()
}

pub(super) fn details(response: &StreamsGroupHeartbeatResponse) -> Vec<String> {
    let statuses = response.status.iter().flatten();
    statuses.map(|s| s.status_detail.to_string()).collect()
}

pub(super) fn group(bench: &Bench) -> &StreamsGroup {
    bench.shard.streams_group(GROUP).unwrap()
}

pub(super) fn state(bench: &Bench) -> &'static str {
    group(bench).state().name()
}

/// What the log keeps of a group is what a restart finds.
pub(super) fn assert_reloads(bench: &Bench) {
    let reloaded = bench.reload();
    let kept = |bench: &Bench| {
        let group = bench.shard.streams_group(GROUP)?;
        let mut group = group.clone();
        group.configured = None;
        group.refresh = None;
        group.shutdown_requested_by = None;
        group.endpoint_epoch = 0;
        Some(group)
    };
    assert_eq!(kept(&reloaded), kept(bench));
}
