//! The way in: one async function per request, messages in and messages out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use klamm_env::{Clock, Env};
use klamm_protocol::messages::{
    DeleteShareGroupStateRequest, DeleteShareGroupStateResponse, InitializeShareGroupStateRequest,
    InitializeShareGroupStateResponse, ReadShareGroupStateRequest, ReadShareGroupStateResponse,
    ReadShareGroupStateSummaryRequest, ReadShareGroupStateSummaryResponse,
    WriteShareGroupStateRequest, WriteShareGroupStateResponse, delete_share_group_state_response,
    initialize_share_group_state_response, read_share_group_state_response,
    read_share_group_state_summary_response, write_share_group_state_response,
};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::{Codec, Uuid};
use tokio::sync::{Mutex, mpsc};

use super::config::ShareCoordinatorConfig;
use super::record::ShareStateKey;
use super::shard::{
    ShareStateAction, ShareStateRequest, ShareStateResponse, ShareStateShard, StateChange,
};
use super::{NOT_GIVEN, ShareState, StateBatch};
use crate::group::{Cluster, client_error, partition_for};
use crate::metrics::{RuntimeMetrics, ShareMetrics};
use crate::runtime::{BoxFuture, PartitionReader, PartitionWriter, Runtime, RuntimeOptions, Tasks};

/// Deletes the beginning of partitions of `__share_group_state`.
pub trait LogPruner: Send + Sync + 'static {
    /// Deletes what is below `before_offset`, as DeleteRecords does.
    fn prune(&self, partition: i32, before_offset: i64) -> BoxFuture<'_, ()>;
}

/// The share coordinator of a broker.
///
/// Lives over the partitions of `__share_group_state` that the broker leads; tell it of elections
/// with [`ShareStateCoordinator::on_elected`] and [`ShareStateCoordinator::on_resigned`], and spawn
/// [`ShareStateCoordinator::run`]. Every request function may be called at any time; each partition
/// in a request is answered for by itself, with Kafka's error where it cannot be served.
///
/// Authorisation and throttling are the caller's.
#[derive(Debug)]
pub struct ShareStateCoordinator {
    runtime: Runtime<ShareStateShard>,
    clock: Arc<dyn Clock>,
    metrics: ShareMetrics,
    partition_count: AtomicI32,
    is_active: AtomicBool,
    actions: Mutex<mpsc::UnboundedReceiver<(i32, ShareStateAction)>>,
}

/// What became of one key's request: the state if it was asked for, or the refusal.
type Answer = Result<Option<Arc<ShareState>>, (ErrorCode, Option<ByteStr>)>;

impl ShareStateCoordinator {
    /// A coordinator without partitions. `cluster` tells which topics there are.
    pub fn new(
        config: ShareCoordinatorConfig,
        writer: Arc<dyn PartitionWriter>,
        reader: Arc<dyn PartitionReader>,
        cluster: Arc<dyn Cluster>,
        env: &Env,
    ) -> Self {
        let config = Arc::new(config);
        let options = RuntimeOptions {
            write_timeout_ms: config.write_timeout_ms,
            load_buffer_bytes: config.load_buffer_bytes,
            codec: Codec::from(config.compression),
        };
        let topic_partitions = config.topic_partitions;
        let make_shard = move |_| ShareStateShard::new(config.clone(), cluster.clone());
        let (perform, actions) = mpsc::unbounded_channel();
        let runtime = Runtime::new(
            writer,
            reader,
            env.clock.clone(),
            options,
            make_shard,
            move |partition, _, action| {
                // Without a receiver the coordinator is shutting down: the next one prunes.
                let _ = perform.send((partition, action));
            },
        );
        ShareStateCoordinator {
            runtime,
            clock: env.clock.clone(),
            metrics: ShareMetrics::default(),
            partition_count: AtomicI32::new(topic_partitions),
            is_active: AtomicBool::new(true),
            actions: Mutex::new(actions),
        }
    }

    /// The same, with its tasks on these in place of tokio's runtime. To be called before any
    /// partition is led.
    #[must_use]
    pub fn with_tasks(mut self, tasks: Arc<dyn Tasks>) -> Self {
        self.runtime = self.runtime.with_tasks(tasks);
        self
    }

    /// Does what shards ask for: deletes what is not needed from their logs. To be spawned once;
    /// never returns.
    pub async fn run(self: Arc<Self>, pruner: Arc<dyn LogPruner>) {
        loop {
            let action = self.actions.lock().await.recv().await;
            let Some((partition, ShareStateAction::Prune { before_offset })) = action else {
                return;
            };
            pruner.prune(partition, before_offset).await;
        }
    }

    /// The partition of `__share_group_state` that keeps a key.
    pub fn partition_for(&self, key: &ShareStateKey) -> i32 {
        let count = self.partition_count.load(Ordering::Acquire);
        partition_for(&key.coordinator_key(), count)
    }

    /// Sets the number of partitions that `__share_group_state` really has.
    pub fn set_partition_count(&self, count: i32) {
        self.partition_count.store(count, Ordering::Release);
    }

    /// This broker leads the partition of `__share_group_state` as of `leader_epoch`: loads it in
    /// the background. Must be called inside a tokio runtime.
    pub fn on_elected(&self, partition: i32, leader_epoch: i32) {
        if self.is_active.load(Ordering::Acquire) {
            self.runtime.elected(partition, leader_epoch);
        }
    }

    /// This broker does not lead the partition any more. `leader_epoch` is that of the new
    /// leader, or none if the partition is gone.
    pub fn on_resigned(&self, partition: i32, leader_epoch: Option<i32>) {
        self.runtime.resigned(partition, leader_epoch);
    }

    /// Topics were deleted: deletes their states, on every partition led here.
    pub async fn on_topics_deleted(&self, topics: Vec<Uuid>) {
        let topics: Arc<[Uuid]> = topics.into();
        for partition in self.runtime.partitions() {
            let request = ShareStateRequest::TopicsDeleted(topics.clone());
            if let Err(error) = self.runtime.submit(partition, request).await {
                tracing::warn!(partition, %error, "states of deleted topics were not deleted");
            }
        }
    }

    /// Stops coordinating.
    pub fn shut_down(&self) {
        self.is_active.store(false, Ordering::Release);
        self.runtime.shut_down();
    }

    /// What is counted of share states.
    pub fn metrics(&self) -> &ShareMetrics {
        &self.metrics
    }

    /// What is counted of the runtime.
    pub fn runtime_metrics(&self) -> &Arc<RuntimeMetrics> {
        self.runtime.metrics()
    }

    async fn submit(
        &self,
        key: ShareStateKey,
        make: impl FnOnce(ShareStateKey) -> ShareStateRequest,
    ) -> Answer {
        if !self.is_active.load(Ordering::Acquire) {
            return Err((ErrorCode::CoordinatorNotAvailable, None));
        }
        if key.group_id.is_empty() {
            return Err((ErrorCode::InvalidGroupId, None));
        }
        let partition = self.partition_for(&key);
        match self.runtime.submit(partition, make(key)).await {
            Ok(ShareStateResponse::State(state)) => Ok(state),
            Ok(ShareStateResponse::Done) => Ok(None),
            Ok(ShareStateResponse::Refused(error, message)) => Err((error, Some(message.into()))),
            Err(error) => Err((client_error(error), None)),
        }
    }

    /// InitializeShareGroupState (key 83).
    pub async fn initialize(
        &self,
        request: InitializeShareGroupStateRequest,
    ) -> InitializeShareGroupStateResponse {
        use initialize_share_group_state_response::{InitializeStateResult, PartitionResult};
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let key = key_of(&request.group_id, topic.topic_id, asked.partition);
                let answer = self.submit(key, |key| ShareStateRequest::Initialize {
                    key,
                    state_epoch: asked.state_epoch,
                    start_offset: asked.start_offset,
                });
                let (error_code, error_message) = refusal(&answer.await);
                partitions.push(PartitionResult {
                    partition: asked.partition,
                    error_code,
                    error_message,
                    ..PartitionResult::default()
                });
            }
            results.push(InitializeStateResult {
                topic_id: topic.topic_id,
                partitions,
                ..InitializeStateResult::default()
            });
        }
        InitializeShareGroupStateResponse {
            results,
            ..InitializeShareGroupStateResponse::default()
        }
    }

    /// ReadShareGroupState (key 84).
    pub async fn read(&self, request: ReadShareGroupStateRequest) -> ReadShareGroupStateResponse {
        use read_share_group_state_response::{PartitionResult, ReadStateResult, StateBatch};
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let key = key_of(&request.group_id, topic.topic_id, asked.partition);
                let epoch = asked.leader_epoch;
                let answer = self
                    .submit(key, |key| ShareStateRequest::Read(key, epoch))
                    .await;
                let (error_code, error_message) = refusal(&answer);
                let state = answer.ok().flatten();
                let batches = state.iter().flat_map(|state| &state.batches);
                partitions.push(PartitionResult {
                    partition: asked.partition,
                    error_code,
                    error_message,
                    state_epoch: state.as_ref().map_or(0, |state| state.state_epoch),
                    start_offset: state.as_ref().map_or(0, |state| state.start_offset),
                    state_batches: batches
                        .map(|batch| StateBatch {
                            first_offset: batch.first_offset,
                            last_offset: batch.last_offset,
                            delivery_state: batch.delivery_state,
                            delivery_count: batch.delivery_count,
                            ..StateBatch::default()
                        })
                        .collect(),
                    ..PartitionResult::default()
                });
            }
            results.push(ReadStateResult {
                topic_id: topic.topic_id,
                partitions,
                ..ReadStateResult::default()
            });
        }
        ReadShareGroupStateResponse {
            results,
            ..ReadShareGroupStateResponse::default()
        }
    }

    /// WriteShareGroupState (key 85).
    pub async fn write(
        &self,
        request: WriteShareGroupStateRequest,
    ) -> WriteShareGroupStateResponse {
        use write_share_group_state_response::{PartitionResult, WriteStateResult};
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let key = key_of(&request.group_id, topic.topic_id, asked.partition);
                let change = StateChange {
                    state_epoch: asked.state_epoch,
                    leader_epoch: asked.leader_epoch,
                    start_offset: asked.start_offset,
                    delivery_complete_count: asked.delivery_complete_count,
                    batches: asked
                        .state_batches
                        .iter()
                        .map(|batch| StateBatch {
                            first_offset: batch.first_offset,
                            last_offset: batch.last_offset,
                            delivery_state: batch.delivery_state,
                            delivery_count: batch.delivery_count,
                        })
                        .collect(),
                };
                let began = self.clock.monotonic();
                let answer = self.submit(key, |key| ShareStateRequest::Write(key, change));
                let (error_code, error_message) = refusal(&answer.await);
                self.metrics
                    .written(self.clock.monotonic().saturating_sub(began));
                partitions.push(PartitionResult {
                    partition: asked.partition,
                    error_code,
                    error_message,
                    ..PartitionResult::default()
                });
            }
            results.push(WriteStateResult {
                topic_id: topic.topic_id,
                partitions,
                ..WriteStateResult::default()
            });
        }
        WriteShareGroupStateResponse {
            results,
            ..WriteShareGroupStateResponse::default()
        }
    }

    /// DeleteShareGroupState (key 86).
    pub async fn delete(
        &self,
        request: DeleteShareGroupStateRequest,
    ) -> DeleteShareGroupStateResponse {
        use delete_share_group_state_response::{DeleteStateResult, PartitionResult};
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let key = key_of(&request.group_id, topic.topic_id, asked.partition);
                let answer = self.submit(key, ShareStateRequest::Delete).await;
                let (error_code, error_message) = refusal(&answer);
                partitions.push(PartitionResult {
                    partition: asked.partition,
                    error_code,
                    error_message,
                    ..PartitionResult::default()
                });
            }
            results.push(DeleteStateResult {
                topic_id: topic.topic_id,
                partitions,
                ..DeleteStateResult::default()
            });
        }
        DeleteShareGroupStateResponse {
            results,
            ..DeleteShareGroupStateResponse::default()
        }
    }

    /// ReadShareGroupStateSummary (key 87). A partition without a state is answered with an
    /// offset of -1.
    pub async fn summary(
        &self,
        request: ReadShareGroupStateSummaryRequest,
    ) -> ReadShareGroupStateSummaryResponse {
        use read_share_group_state_summary_response::{PartitionResult, ReadStateSummaryResult};
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let key = key_of(&request.group_id, topic.topic_id, asked.partition);
                let answer = self.submit(key, ShareStateRequest::Summary).await;
                let (error_code, error_message) = refusal(&answer);
                let none = if answer.is_ok() {
                    i64::from(NOT_GIVEN)
                } else {
                    0
                };
                let state = answer.ok().flatten();
                let state = state.as_deref();
                partitions.push(PartitionResult {
                    partition: asked.partition,
                    error_code,
                    error_message,
                    state_epoch: state.map_or(0, |state| state.state_epoch),
                    leader_epoch: state.map_or(0, |state| state.leader_epoch),
                    start_offset: state.map_or(none, |state| state.start_offset),
                    delivery_complete_count: state
                        .map_or(NOT_GIVEN, |state| state.delivery_complete_count),
                    ..PartitionResult::default()
                });
            }
            results.push(ReadStateSummaryResult {
                topic_id: topic.topic_id,
                partitions,
                ..ReadStateSummaryResult::default()
            });
        }
        ReadShareGroupStateSummaryResponse {
            results,
            ..ReadShareGroupStateSummaryResponse::default()
        }
    }
}

fn key_of(group_id: &ByteStr, topic_id: Uuid, partition: i32) -> ShareStateKey {
    ShareStateKey {
        group_id: group_id.clone(),
        topic_id,
        partition,
    }
}

fn refusal(answer: &Answer) -> (i16, Option<ByteStr>) {
    match answer {
        Ok(_) => (ErrorCode::None.into(), None),
        Err((error, message)) => ((*error).into(), message.clone()),
    }
}
