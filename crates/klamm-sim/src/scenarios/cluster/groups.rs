//! Group coordinators on the brokers, over a `__consumer_offsets` that is replicated like any
//! topic; and groups that commit offsets and fetch them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use klamm_coordinator::group::FixedCluster;
use klamm_coordinator::runtime::{
    Appended, BatchKind, BoxFuture, LogRange, PartitionReader, PartitionWriter, ReadError, Tasks,
    WriteError,
};
use klamm_coordinator::{GroupCoordinator, GroupCoordinatorConfig, RequestContext, TopicLookup};
use klamm_env::{Env, Rng as _};
use klamm_log::AppendOrigin;
use klamm_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use klamm_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::{OffsetCommitRequest, OffsetFetchRequest};
use klamm_protocol::topic_name::CONSUMER_OFFSETS;
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::produce::PreparedBatch;
use klamm_records::{TopicPartition, Uuid};
use klamm_replication::{ReplicaChanges, ReplicaManager};
use tokio::sync::watch;

use super::node::Broker;
use super::producer::Known;
use super::world::World;
use crate::{Address, Executor, Process, SimRng};

/// Groups are clients from here on.
const ADDRESSES: Address = 200 - 10;
/// Their number among those who have not finished: behind all producers.
pub(super) const FIRST: i64 = 1 << 40;
/// The version of OffsetCommit and OffsetFetch.
const VERSION: i16 = 9;
/// The topic that offsets are of.
const TOPIC: &str = "orders";

/// The coordinator of a broker.
pub(super) fn coordinator(
    world: &World,
    process: Process,
    replicas: &ReplicaManager,
    env: &Env,
) -> GroupCoordinator {
    let log = Arc::new(CoordinatorLog(replicas.clone()));
    let defaults = GroupCoordinatorConfig::default();
    let long = world.plan.long;
    let config = GroupCoordinatorConfig {
        offsets_topic_partitions: 1,
        offsets_retention_ms: long
            .map_or(defaults.offsets_retention_ms, |it| it.offsets_retention_ms),
        ..defaults
    };
    let cluster = Arc::new(FixedCluster::default());
    let tasks = ProcessTasks {
        executor: world.executor.clone(),
        process,
    };
    GroupCoordinator::new(config, log.clone(), log, cluster, env).with_tasks(Arc::new(tasks))
}

/// Takes up and gives up partitions.
pub(super) fn follow(groups: &GroupCoordinator, changes: &ReplicaChanges) {
    let of_offsets = |partition: &TopicPartition| &*partition.topic == CONSUMER_OFFSETS;
    for elected in changes
        .elected
        .iter()
        .filter(|it| of_offsets(&it.partition))
    {
        groups.on_elected(elected.partition.partition, elected.leader_epoch);
    }
    for (partition, epoch) in changes.resigned.iter().filter(|it| of_offsets(&it.0)) {
        groups.on_resigned(partition.partition, *epoch);
    }
}

/// Tasks of one process on the executor.
struct ProcessTasks {
    executor: Executor,
    process: Process,
}

impl Tasks for ProcessTasks {
    // It is what the scenario looks for.
    fn survive_panics(&self) -> bool {
        false
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.executor.spawn_in(self.process, "coordinator", task);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(self.executor.sleep(duration))
    }
}

/// The topic as coordinators see it.
struct CoordinatorLog(ReplicaManager);

fn write_error(code: ErrorCode) -> WriteError {
    match code {
        ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch => WriteError::NotLeader,
        ErrorCode::UnknownTopicOrPartition => WriteError::UnknownPartition,
        ErrorCode::NotEnoughReplicas => WriteError::NotEnoughReplicas,
        ErrorCode::KafkaStorageError => WriteError::Storage,
        _ => WriteError::Refused,
    }
}

fn read_error(code: ErrorCode) -> ReadError {
    match code {
        ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch => ReadError::NotLeader,
        ErrorCode::UnknownTopicOrPartition => ReadError::UnknownPartition,
        _ => ReadError::Storage,
    }
}

impl PartitionWriter for CoordinatorLog {
    fn append(
        &self,
        partition: i32,
        leader_epoch: i32,
        batch: Bytes,
        _: BatchKind,
    ) -> BoxFuture<'_, Result<Appended, WriteError>> {
        let append = |batch| {
            let origin = AppendOrigin::Coordinator;
            let replicas = &self.0;
            replicas
                .append_as_coordinator(CONSUMER_OFFSETS, partition, batch, leader_epoch, origin)
                .map_err(write_error)
        };
        let batch = PreparedBatch::trusted(batch).map_err(|_| WriteError::Refused);
        let appended = batch.and_then(append).map(|appended| Appended {
            base_offset: appended.base_offset,
            last_offset: appended.end_offset - 1,
        });
        Box::pin(std::future::ready(appended))
    }

    fn high_watermark(&self, partition: i32) -> Result<watch::Receiver<i64>, WriteError> {
        let watched = self.0.watch(CONSUMER_OFFSETS, partition);
        watched.map_err(write_error)
    }

    fn max_batch_bytes(&self, _: i32) -> usize {
        1 << 20
    }
}

impl PartitionReader for CoordinatorLog {
    fn range(&self, partition: i32) -> Result<LogRange, ReadError> {
        let offsets = self.0.offsets(CONSUMER_OFFSETS, partition);
        let offsets = offsets.map_err(read_error)?;
        Ok(LogRange {
            start_offset: offsets.log_start_offset,
            end_offset: offsets.log_end_offset,
        })
    }

    fn read(
        &self,
        partition: i32,
        offset: i64,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Bytes, ReadError>> {
        let loaded = self.0.load(CONSUMER_OFFSETS, partition, offset, bytes_max);
        let read = loaded.map_err(read_error).and_then(|loaded| {
            let records = loaded.records.read().map_err(|_| ReadError::Storage)?;
            Ok(Bytes::from(records))
        });
        Box::pin(std::future::ready(read))
    }
}

/// The topic that offsets are of, as coordinators look it up.
struct Topics;

impl TopicLookup for Topics {
    fn topic_name(&self, _: Uuid) -> Option<ByteStr> {
        Some(TOPIC.into())
    }

    fn topic_id(&self, name: &str) -> Option<Uuid> {
        (name == TOPIC).then(|| Uuid::from_bytes([7; 16]))
    }

    fn has_partition(&self, name: &str, _: i32) -> bool {
        name == TOPIC
    }
}

/// A group that commits an offset after the other, and looks at times what is committed.
pub(super) struct Group {
    world: World,
    rng: SimRng,
    id: i64,
    known: Known,
    offset: i64,
    /// Counts requests.
    count: i64,
    /// The request that waits to be served: none that was given up is served later.
    waiting: Arc<AtomicI64>,
}

impl Group {
    pub(super) fn new(world: &World, id: i64) -> Group {
        Group {
            rng: world.rng.fork("group"),
            world: world.clone(),
            id,
            known: Known::default(),
            offset: 0,
            count: 0,
            waiting: Arc::default(),
        }
    }

    /// Commits until the world calms down; then once more, until it is told so and finds it.
    pub(super) async fn run(mut self) {
        self.world.history().unfinished.insert(FIRST + self.id);
        while self.world.at_work().await {
            self.world.sleep_ms(self.rng.below(400)).await;
            if self.rng.one_in(3) {
                self.fetch().await;
            } else {
                self.commit().await;
            }
        }
        while self.commit().await.is_none() || self.fetch().await.is_none() {
            self.world.sleep_ms(100).await;
        }
        self.world.history().unfinished.remove(&(FIRST + self.id));
    }

    fn name(&self) -> ByteStr {
        format!("group-{}", self.id).as_str().into()
    }

    async fn commit(&mut self) -> Option<()> {
        self.offset += 1 + self.rng.below(10) as i64;
        let request = OffsetCommitRequest {
            group_id: self.name(),
            generation_id_or_member_epoch: -1,
            topics: vec![OffsetCommitRequestTopic {
                name: TOPIC.into(),
                partitions: vec![OffsetCommitRequestPartition {
                    committed_offset: self.offset,
                    ..OffsetCommitRequestPartition::default()
                }],
                ..OffsetCommitRequestTopic::default()
            }],
            ..OffsetCommitRequest::default()
        };
        self.world.history().commits.sent(self.id, self.offset);
        let asked_ms = self.world.now_ms();
        let act = move |broker: Broker| {
            let request = request.clone();
            async move {
                let groups = broker.groups.as_ref()?;
                Some(groups.offset_commit(&context(), request, &Topics).await)
            }
        };
        let (answer, _) = self.ask("commit", act).await?;
        let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        if !partitions.all(|partition| partition.error_code == 0) {
            self.known.forget();
            return None;
        }
        self.world
            .history()
            .commits
            .told(self.id, self.offset, asked_ms);
        Some(())
    }

    /// Whether what was fetched is from the leader of now.
    async fn fetch(&mut self) -> Option<()> {
        let topic = OffsetFetchRequestTopics {
            name: TOPIC.into(),
            partition_indexes: vec![0],
            ..OffsetFetchRequestTopics::default()
        };
        let request = OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup {
                group_id: self.name(),
                topics: Some(vec![topic]),
                member_epoch: -1,
                ..OffsetFetchRequestGroup::default()
            }],
            require_stable: true,
            ..OffsetFetchRequest::default()
        };
        let floor = self.world.history().commits.floor(self.id);
        let act = move |broker: Broker| {
            let request = request.clone();
            async move {
                let groups = broker.groups.as_ref()?;
                Some(groups.offset_fetch(&context(), request, &Topics).await)
            }
        };
        let (mut answer, is_genuine) = self.ask("fetch offsets", act).await?;
        let group = answer.groups.pop().filter(|group| group.error_code == 0);
        let Some(mut group) = group.filter(|_| is_genuine) else {
            self.known.forget();
            return None;
        };
        let found = group.topics.pop()?.partitions.pop()?.committed_offset;
        // One clock tells when it was committed, another one that it is long ago.
        let kept = self.world.plan.long;
        let expired_ms =
            kept.map(|it| self.world.now_ms() - it.offsets_retention_ms + 2 * it.skew_ms);
        let mut history = self.world.history();
        let checked = history.commits.check(self.id, floor, found, expired_ms);
        history.check(checked);
        Some(())
    }

    /// Asks the coordinator; whether it leads in the newest epoch goes along with its answer.
    async fn ask<T, F>(
        &mut self,
        what: &'static str,
        act: impl Fn(Broker) -> F + Send + Sync + 'static,
    ) -> Option<(T, bool)>
    where
        T: Send + 'static,
        F: Future<Output = Option<T>> + Send + 'static,
    {
        let client = ADDRESSES + self.id as Address;
        let place = TopicPartition::new(CONSUMER_OFFSETS, 0);
        let (world, rng) = (&self.world, &self.rng);
        let lead = self.known.find(world, rng, client, &place).await?;
        let (there, act, waiting) = (world.clone(), Arc::new(act), Arc::clone(&self.waiting));
        self.count += 1;
        let number = self.count;
        waiting.store(number, Ordering::SeqCst);
        let serve = move || {
            let (there, act, waiting) = (there.clone(), Arc::clone(&act), Arc::clone(&waiting));
            async move {
                let order = Ordering::SeqCst;
                let is_first = waiting.compare_exchange(number, 0, order, order).is_ok();
                let broker = there.nodes.get(&lead.leader)?.broker();
                let answer = act(broker.filter(|_| is_first)?).await?;
                let image = there.truth();
                let known = image.partition(CONSUMER_OFFSETS, 0)?;
                let broker = there.nodes.get(&lead.leader)?.broker()?;
                let leads_in = broker.replicas.leader_epoch(CONSUMER_OFFSETS, 0);
                let is_genuine =
                    known.leader == lead.leader && leads_in == Some(known.leader_epoch);
                Some((answer, is_genuine))
            }
        };
        let timeout = world.plan.timing.request;
        let way = (client, lead.leader);
        let answer = world.net.call(way, what, timeout, serve).await;
        self.waiting.store(0, Ordering::SeqCst);
        let answer = answer.ok().flatten();
        if answer.is_none() {
            self.known.forget();
        }
        answer
    }
}

fn context() -> RequestContext {
    RequestContext {
        api_version: VERSION,
        client_id: "group".into(),
        client_host: "/127.0.0.1".into(),
    }
}
