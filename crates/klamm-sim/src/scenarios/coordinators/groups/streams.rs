//! A member of a streams group (KIP-1071): a thread of a Kafka Streams application, which works on
//! tasks. Its one request is the heartbeat; what it is told to have it works towards: it gives up
//! what is not in it, and says so; what is new it takes up at once.
//!
//! The application reads `data`, sends it on by key through a repartition topic, and keeps state
//! with a changelog: two parts, of which the second has standby tasks. Tasks are numbered as the
//! partitions that they read. Several members may be threads of one process.

use std::collections::BTreeSet;

use klamm_env::Rng as _;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_topics_request::CreatableTopic;
use klamm_protocol::messages::streams_group_heartbeat_request::{
    CopartitionGroup, Subtopology, TaskIds, TopicInfo, Topology,
};
use klamm_protocol::messages::streams_group_heartbeat_response as response;
use klamm_protocol::messages::{StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse};

use super::super::super::Violation;
use super::super::Flaw;
use super::super::broker::Broker;
use super::super::world::{Answer, DATA, World};
use super::GROUP;
use super::client::{Client, REBALANCE_MS, error};

/// The topic between the parts.
const REPARTITION: &str = "app-counts-repartition";
/// The topic with the state of the second part.
const CHANGELOG: &str = "app-counts-changelog";
/// The parts, and what they read.
const PARTS: [(&str, &str); 2] = [("0", DATA), ("1", REPARTITION)];

/// The epoch of a member that leaves.
const LEAVES: i32 = -1;
/// The status that asks everybody to stop.
const SHUTDOWN_APPLICATION: i8 = 4;

struct Thread {
    client: Client,
    /// The process that it is a thread of.
    process: String,
    /// The version of the topology that it runs.
    topology_epoch: i32,
    /// The active tasks that it was told to have.
    told: BTreeSet<i32>,
    /// The same of standby tasks, which cost nothing to give up.
    standby: BTreeSet<i32>,
    /// When it is done with giving up.
    busy_until_ms: Option<i64>,
    /// Whether to say what it has, as that has changed or the coordinator may not know.
    says_owned: bool,
}

/// Runs until the client leaves.
pub(super) async fn work(mut client: Client) {
    client.standing.member_id = format!("thread-{}", client.id).as_str().into();
    let world = client.world.clone();
    let process = match world.rng.one_in(2) {
        true => format!("process-{}", world.rng.below(3)),
        false => format!("process-of-{}", client.id),
    };
    let mut thread = Thread {
        topology_epoch: i32::from(world.rng.one_in(8)),
        client,
        process,
        told: BTreeSet::new(),
        standby: BTreeSet::new(),
        busy_until_ms: None,
        says_owned: true,
    };
    while !thread.client.leaves() {
        let refused = thread.beat().await;
        let refused = match refused {
            ErrorCode::None if thread.client.standing.epoch > 0 => thread.work().await,
            refused => refused,
        };
        thread.answered(refused).await;
        if !thread.says_owned || thread.client.standing.epoch == 0 {
            world.sleep_ms(400 + world.rng.below(800)).await;
        }
    }
    thread.leave().await;
    world.note(format_args!("thread {} is over", thread.client.id));
    world.groups().over(thread.client.id);
}

/// The application in a version.
fn topology(epoch: i32) -> Topology {
    let topic = |name: &str| TopicInfo {
        name: name.into(),
        ..TopicInfo::default()
    };
    let splits = Subtopology {
        subtopology_id: PARTS[0].0.into(),
        source_topics: vec![DATA.into()],
        repartition_sink_topics: vec![REPARTITION.into()],
        ..Subtopology::default()
    };
    let counts = Subtopology {
        subtopology_id: PARTS[1].0.into(),
        repartition_source_topics: vec![topic(REPARTITION)],
        state_changelog_topics: vec![topic(CHANGELOG)],
        copartition_groups: vec![CopartitionGroup {
            repartition_source_topics: vec![0],
            ..CopartitionGroup::default()
        }],
        ..Subtopology::default()
    };
    Topology {
        epoch,
        subtopologies: vec![splits, counts],
        ..Topology::default()
    }
}

/// Tasks as a heartbeat names them.
fn task_ids(world: &World, numbers: &BTreeSet<i32>) -> Vec<TaskIds> {
    let found = numbers.iter().filter_map(|n| world.topics.partition(*n));
    let found: Vec<_> = found.collect();
    let parts = PARTS.into_iter().map(|(part, topic)| TaskIds {
        subtopology_id: part.into(),
        partitions: found
            .iter()
            .filter(|found| found.name == topic)
            .map(|found| found.partition)
            .collect(),
        ..TaskIds::default()
    });
    parts.filter(|ids| !ids.partitions.is_empty()).collect()
}

/// The numbers of tasks of an answer.
fn numbers(world: &World, ids: &[response::TaskIds]) -> BTreeSet<i32> {
    let topic_of = |part: &str| PARTS.into_iter().find(|(id, _)| *id == part);
    let tasks = ids.iter().flat_map(|ids| {
        let id = topic_of(&ids.subtopology_id).map(|(_, topic)| world.topics.id(topic));
        let tasks = ids.partitions.iter();
        tasks.filter_map(move |task| world.topics.number(id?, *task))
    });
    tasks.collect()
}

/// The brokers make what an application lacks, after a while.
fn make_topics(world: &World, missing: Vec<CreatableTopic>) {
    let makes = world.clone();
    let process = world.executor.new_process();
    world
        .executor
        .spawn_in(process, "internal topics", async move {
            makes.sleep_ms(makes.rng.below(1_500)).await;
            for topic in missing {
                if makes
                    .topics
                    .make(&makes.cluster, &topic.name, topic.num_partitions)
                {
                    makes.note(format_args!("{} is made", topic.name));
                }
            }
        });
}

/// The tasks of which there must be one each.
pub(super) fn all_tasks(world: &World) -> Vec<i32> {
    world.topics.present(|name| name != CHANGELOG)
}

/// The tasks that have state.
pub(super) fn tasks_with_state(world: &World) -> Vec<i32> {
    world.topics.present(|name| name == REPARTITION)
}

impl Thread {
    /// What it makes of an error.
    async fn answered(&mut self, refused: ErrorCode) {
        if refused != ErrorCode::None {
            let world = &self.client.world;
            world.note(format_args!("thread {} got {refused:?}", self.client.id));
        }
        match refused {
            ErrorCode::None | ErrorCode::StaleMemberEpoch => {}
            ErrorCode::FencedMemberEpoch
            | ErrorCode::UnknownMemberId
            | ErrorCode::GroupIdNotFound => self.begin_anew(),
            // The group has another topology: whoever brought out the new version takes it back.
            ErrorCode::InvalidRequest if self.topology_epoch > 0 => {
                self.topology_epoch = 0;
                self.begin_anew();
            }
            refused => {
                self.says_owned = true;
                if !self.client.passing(refused).await {
                    let detail = format!("{} got {refused:?}", self.client.id);
                    self.client.check(Err(Violation::new("errors", detail)));
                }
            }
        }
    }

    /// It has lost all that it had, and joins again; now and then as another process.
    fn begin_anew(&mut self) {
        self.drop_tasks();
        self.busy_until_ms = None;
        self.client.standing.epoch = 0;
        self.says_owned = true;
        let world = &self.client.world;
        if world.rng.one_in(6) {
            self.process = format!("process-of-{}-again-{}", self.client.id, world.now_ms());
        }
    }

    fn drop_tasks(&mut self) {
        self.client.give_up_all();
        self.told.clear();
        self.standby.clear();
        self.note_roles();
    }

    /// What it has, for the property.
    fn note_roles(&self) {
        let (id, process) = (self.client.id, self.process.clone());
        let mut history = self.client.world.groups();
        history.roles.has(id, process, self.standby.clone());
    }

    fn request(&self) -> StreamsGroupHeartbeatRequest {
        let world = &self.client.world;
        let joins = self.client.standing.epoch == 0;
        let hurries = world.flaw == Flaw::AssignBeforeRevoke;
        // What must go counts as gone before it is.
        let active = match hurries {
            true => self.told.clone(),
            false => self.client.owned(),
        };
        let says = joins || self.says_owned || hurries;
        let process = match world.flaw {
            Flaw::ProcessesMixedUp => format!("{}-{}", self.process, self.client.id),
            _ => self.process.clone(),
        };
        StreamsGroupHeartbeatRequest {
            group_id: GROUP.into(),
            member_id: self.client.standing.member_id.clone(),
            member_epoch: self.client.standing.epoch,
            rebalance_timeout_ms: if joins { REBALANCE_MS } else { -1 },
            topology: joins.then(|| topology(self.topology_epoch)),
            active_tasks: says.then(|| task_ids(world, &active)),
            standby_tasks: says.then(|| task_ids(world, &self.standby)),
            warmup_tasks: says.then(Vec::new),
            process_id: joins.then(|| process.as_str().into()),
            client_tags: joins.then(Vec::new),
            ..StreamsGroupHeartbeatRequest::default()
        }
    }

    async fn send(
        &mut self,
        request: StreamsGroupHeartbeatRequest,
    ) -> Option<Answer<StreamsGroupHeartbeatResponse>> {
        let context = self.client.context(0);
        let world = self.client.world.clone();
        let serve = move |broker: Broker| {
            let (request, context, world) = (request.clone(), context.clone(), world.clone());
            async move {
                let groups = &broker.groups;
                let (answer, missing) = groups.streams_group_heartbeat(&context, request).await;
                if !missing.is_empty() {
                    make_topics(&world, missing);
                }
                answer
            }
        };
        self.client.ask("streams heartbeat", true, serve).await
    }

    async fn beat(&mut self) -> ErrorCode {
        if self.client.standing.epoch == 0 {
            self.drop_tasks();
        }
        let request = self.request();
        let sent_ms = self.client.world.now_ms();
        let Some(Answer { answer, genuine }) = self.send(request).await else {
            // Nobody knows what arrived.
            self.says_owned = true;
            return ErrorCode::None;
        };
        let refused = error(answer.error_code);
        if refused != ErrorCode::None {
            return refused;
        }
        self.says_owned = false;
        self.client.standing.epoch = answer.member_epoch;
        let world = self.client.world.clone();
        let told = answer
            .active_tasks
            .as_deref()
            .map(|ids| numbers(&world, ids));
        let mut keeps_copies = true;
        if let Some(told) = &told {
            self.told = told.clone();
            let standby = answer.standby_tasks.as_deref().unwrap_or_default();
            let standby = numbers(&world, standby);
            // Copies are given up and taken up without delay; then the coordinator must hear of it,
            // or it takes the member for one that does not give them up.
            self.says_owned = standby != self.standby;
            keeps_copies = self.standby.is_subset(&standby);
            self.standby = standby;
        }
        let calm = keeps_copies && self.client.owned().is_subset(&self.told);
        self.client.well(sent_ms, genuine, calm, None);
        self.note_roles();
        if let Some(told) = told {
            let (id, epoch) = (self.client.id, self.client.standing.epoch);
            let standby = &self.standby;
            world.note(format_args!(
                "thread {id} is to have {told:?} and {standby:?} in {epoch}"
            ));
            self.reconcile();
        }
        let mut statuses = answer.status.iter().flatten();
        if statuses.any(|status| status.status_code == SHUTDOWN_APPLICATION) {
            world.note(format_args!("thread {} is told to stop", self.client.id));
            self.client.stop();
        }
        ErrorCode::None
    }

    /// It was told what to have.
    fn reconcile(&mut self) {
        let world = self.client.world.clone();
        let now_ms = world.now_ms();
        for task in &self.told {
            let given = world
                .groups()
                .ownership
                .given(self.client.id, *task, now_ms);
            self.client.check(given);
        }
        if self.busy_until_ms.is_none() {
            let gives_up = !self.client.owned().is_subset(&self.told);
            let takes_ms = if gives_up {
                world.rng.range(0, 1_500)
            } else {
                0
            };
            self.busy_until_ms = Some(now_ms + takes_ms);
        }
    }

    /// Gives up and takes up, if it is time; commits now and then.
    async fn work(&mut self) -> ErrorCode {
        let world = self.client.world.clone();
        if self
            .busy_until_ms
            .is_some_and(|until| until <= world.now_ms())
        {
            self.busy_until_ms = None;
            let owned = self.client.owned();
            let told = self.told.clone();
            let gone: BTreeSet<i32> = owned.difference(&told).copied().collect();
            if !gone.is_empty() {
                // A task is closed with a commit.
                let refused = self.client.commit().await;
                if refused != ErrorCode::None && refused != ErrorCode::StaleMemberEpoch {
                    return refused;
                }
            }
            self.client.give_up(&gone);
            self.client.take(&told).await;
            self.says_owned |= owned != told;
        }
        let settled = self.busy_until_ms.is_none() && !self.says_owned;
        self.client.settled(settled);
        let now_ms = world.now_ms();
        let checked = {
            let history = world.groups();
            history.roles.check(&history.ownership, now_ms)
        };
        self.client.check(checked);
        if world.rng.one_in(2) {
            return self.client.commit().await;
        }
        ErrorCode::None
    }

    async fn leave(&mut self) {
        self.drop_tasks();
        if self.client.standing.epoch <= 0 {
            return;
        }
        let world = &self.client.world;
        let request = StreamsGroupHeartbeatRequest {
            group_id: GROUP.into(),
            member_id: self.client.standing.member_id.clone(),
            member_epoch: LEAVES,
            rebalance_timeout_ms: -1,
            shutdown_application: !world.is_calm() && world.rng.one_in(10),
            ..StreamsGroupHeartbeatRequest::default()
        };
        let _ = self.send(request).await;
    }
}
