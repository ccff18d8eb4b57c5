//! The way in: one async function per request, messages in and messages out.
//!
//! Nothing here keeps state of groups. Each function checks what can be checked without, finds
//! the partition that the group lives on, and submits; `members`, `offsets` and `admin` hold the
//! requests by what they are about.

mod admin;
mod members;
mod offsets;
mod shares;
mod streams;
mod transactions;

pub use shares::EndOffsets;

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};

use klamm_env::Env;
use klamm_protocol::ErrorCode;
use klamm_records::Codec;

use super::offsets::DeletedTopic;
use super::shard::{GroupRequest, GroupResponse, GroupShard};
use super::{Cluster, GroupCoordinatorConfig, errors, java};
use crate::metrics::{GroupMetrics, RuntimeMetrics};
use crate::runtime::{PartitionReader, PartitionWriter, Runtime, RuntimeOptions, Tasks};
use crate::share_state::SharePersister;

/// The group coordinator of a broker.
///
/// Lives over the partitions of `__consumer_offsets` that the broker leads; tell it of elections
/// with [`GroupCoordinator::on_elected`] and [`GroupCoordinator::on_resigned`]. Every request
/// function may be called at any time and answers with Kafka's error where it cannot serve:
/// `NOT_COORDINATOR`, `COORDINATOR_LOAD_IN_PROGRESS`, `COORDINATOR_NOT_AVAILABLE`.
///
/// Authorisation and throttling are the caller's: answers carry a throttle time of 0 and no
/// authorized operations.
#[derive(Debug)]
pub struct GroupCoordinator {
    config: Arc<GroupCoordinatorConfig>,
    runtime: Runtime<GroupShard>,
    metrics: Arc<GroupMetrics>,
    partition_count: AtomicI32,
    is_active: AtomicBool,
    persister: Persister,
}

/// The way to the share coordinators, once it is known.
#[derive(Default)]
struct Persister(OnceLock<Arc<dyn SharePersister>>);

impl std::fmt::Debug for Persister {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Persister").finish_non_exhaustive()
    }
}

impl GroupCoordinator {
    /// A coordinator without partitions. `cluster` tells of topics and of groups' configurations;
    /// `env` gives the clock, and the randomness of member ids.
    pub fn new(
        config: GroupCoordinatorConfig,
        writer: Arc<dyn PartitionWriter>,
        reader: Arc<dyn PartitionReader>,
        cluster: Arc<dyn Cluster>,
        env: &Env,
    ) -> Self {
        let config = Arc::new(config);
        let metrics = Arc::new(GroupMetrics::default());
        let options = RuntimeOptions {
            write_timeout_ms: config.offsets_commit_timeout_ms,
            load_buffer_bytes: config.offsets_load_buffer_bytes,
            codec: Codec::from(config.offsets_topic_compression),
        };
        let (shard_config, shard_metrics) = (config.clone(), metrics.clone());
        let rng = env.rng.clone();
        let make_shard = move |_| {
            GroupShard::new(shard_config.clone(), rng.clone(), shard_metrics.clone())
                .in_cluster(cluster.clone())
        };
        GroupCoordinator {
            partition_count: AtomicI32::new(config.offsets_topic_partitions),
            runtime: Runtime::new(
                writer,
                reader,
                env.clock.clone(),
                options,
                make_shard,
                |_, _, action| match action {},
            ),
            config,
            metrics,
            is_active: AtomicBool::new(true),
            persister: Persister::default(),
        }
    }

    /// The same, with its tasks on these in place of tokio's runtime. To be called before any
    /// partition is led.
    #[must_use]
    pub fn with_tasks(mut self, tasks: Arc<dyn Tasks>) -> Self {
        self.runtime = self.runtime.with_tasks(tasks);
        self
    }

    /// The partition of `__consumer_offsets` that keeps a group.
    pub fn partition_for(&self, group_id: &str) -> i32 {
        java::partition_for(group_id, self.partition_count.load(Ordering::Acquire))
    }

    /// Sets the number of partitions that `__consumer_offsets` really has.
    pub fn set_partition_count(&self, count: i32) {
        self.partition_count.store(count, Ordering::Release);
    }

    /// This broker leads the partition of `__consumer_offsets` as of `leader_epoch`: loads it in
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

    /// Topics were deleted: deletes what groups committed for them, on every partition led here.
    pub async fn on_topics_deleted(&self, topics: Vec<DeletedTopic>) {
        let topics: Arc<[DeletedTopic]> = topics.into();
        for partition in self.runtime.partitions() {
            let request = GroupRequest::TopicsDeleted(topics.clone());
            if let Err(error) = self.runtime.submit(partition, request).await {
                tracing::warn!(partition, %error, "offsets of deleted topics were not deleted");
            }
        }
    }

    /// Stops coordinating. Whoever waits gets `NOT_COORDINATOR`, whoever comes later
    /// `COORDINATOR_NOT_AVAILABLE`.
    pub fn shut_down(&self) {
        self.is_active.store(false, Ordering::Release);
        self.runtime.shut_down();
    }

    /// What is counted of groups.
    pub fn metrics(&self) -> &Arc<GroupMetrics> {
        &self.metrics
    }

    /// What is counted of the runtime.
    pub fn runtime_metrics(&self) -> &Arc<RuntimeMetrics> {
        self.runtime.metrics()
    }

    /// The partitions that are led here, loading or loaded.
    pub fn led_partitions(&self) -> Vec<i32> {
        self.runtime.partitions()
    }

    fn check_active(&self) -> Result<(), ErrorCode> {
        if self.is_active.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(ErrorCode::CoordinatorNotAvailable)
        }
    }

    /// Refuses a group without a name, which only requests about offsets may use.
    fn check_group(&self, group_id: &str) -> Result<(), ErrorCode> {
        self.check_active()?;
        if group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        Ok(())
    }

    /// Submits to a group's partition. The error is the raw one, of the log.
    async fn submit_raw(
        &self,
        group_id: &str,
        request: GroupRequest,
    ) -> Result<GroupResponse, ErrorCode> {
        let partition = self.partition_for(group_id);
        match self.runtime.submit(partition, request).await {
            Ok(GroupResponse::Refused(error)) | Err(error) => Err(error),
            Ok(response) => Ok(response),
        }
    }

    /// Submits to a group's partition. The error is one that clients know.
    async fn submit(
        &self,
        group_id: &str,
        request: GroupRequest,
    ) -> Result<GroupResponse, ErrorCode> {
        let response = self.submit_raw(group_id, request).await;
        response.map_err(errors::client_error)
    }
}

/// A shard that answers with something else than it was asked for: a fault of this program.
fn mismatch(response: &GroupResponse) -> ErrorCode {
    tracing::error!(
        ?response,
        "the group shard gave an answer to another request"
    );
    ErrorCode::UnknownServerError
}
