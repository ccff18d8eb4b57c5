//! The way in: one async function per request, messages in and messages out.
//!
//! `requests` holds the producers' requests, `views` what tools ask, `produce` what the broker
//! itself asks for a producer that writes. Nothing here keeps state of transactions.

mod produce;
mod requests;
mod views;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI16, AtomicI32, Ordering};
use std::time::Duration;

use klamm_env::Env;
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::{Codec, Compression};
use tokio::sync::{Mutex, mpsc};

use super::{
    MarkerWriter, TransactionAction, TransactionCoordinatorConfig, TransactionMarkers,
    TransactionRequest, TransactionResponse, TransactionShard,
};
use crate::group::{client_error, partition_for};
use crate::metrics::RuntimeMetrics;
use crate::runtime::{BoxFuture, PartitionReader, PartitionWriter, Runtime, RuntimeOptions, Tasks};

/// Where producer ids come from.
pub trait ProducerIdSource: Send + Sync + 'static {
    /// An id that nobody in the cluster has.
    fn next(&self) -> BoxFuture<'_, Result<i64, ErrorCode>>;
}

/// An action of a shard: partition, epoch in which it is led, what to do.
type Action = (i32, i32, TransactionAction);

/// The transaction coordinator of a broker.
///
/// Lives over the partitions of `__transaction_state` that the broker leads; tell it of elections
/// with [`TransactionCoordinator::on_elected`] and [`TransactionCoordinator::on_resigned`], and
/// spawn [`TransactionCoordinator::run`]. Every request function may be called at any time and
/// answers with Kafka's error where it cannot serve.
///
/// Authorisation and throttling are the caller's.
#[derive(Debug)]
pub struct TransactionCoordinator {
    config: Arc<TransactionCoordinatorConfig>,
    runtime: Runtime<TransactionShard>,
    version: Arc<AtomicI16>,
    partition_count: AtomicI32,
    is_active: AtomicBool,
    actions: Mutex<mpsc::UnboundedReceiver<Action>>,
}

impl TransactionCoordinator {
    /// A coordinator without partitions, over the partitions of `__transaction_state`.
    pub fn new(
        config: TransactionCoordinatorConfig,
        writer: Arc<dyn PartitionWriter>,
        reader: Arc<dyn PartitionReader>,
        env: &Env,
    ) -> Self {
        let config = Arc::new(config);
        let version = Arc::new(AtomicI16::new(0));
        let options = RuntimeOptions {
            write_timeout_ms: config.write_timeout_ms,
            load_buffer_bytes: config.load_buffer_bytes,
            codec: Codec::from(Compression::None),
        };
        let (shard_config, shard_version) = (config.clone(), version.clone());
        let make_shard =
            move |_| TransactionShard::new(shard_config.clone(), shard_version.clone());
        let (perform, actions) = mpsc::unbounded_channel();
        let runtime = Runtime::new(
            writer,
            reader,
            env.clock.clone(),
            options,
            make_shard,
            move |partition, leader_epoch, action| {
                // Without a receiver the coordinator is shutting down: whoever loads the
                // partition next does it.
                let _ = perform.send((partition, leader_epoch, action));
            },
        );
        TransactionCoordinator {
            partition_count: AtomicI32::new(config.topic_partitions),
            config,
            runtime,
            version,
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

    /// Does what shards ask for: writes markers, fetches producer ids. To be spawned once; never
    /// returns.
    pub async fn run(
        self: Arc<Self>,
        markers: Arc<dyn MarkerWriter>,
        ids: Arc<dyn ProducerIdSource>,
    ) {
        loop {
            let action = self.actions.lock().await.recv().await;
            let Some((partition, leader_epoch, action)) = action else {
                return;
            };
            let coordinator = self.clone();
            let tasks = self.runtime.tasks();
            match action {
                TransactionAction::WriteMarkers {
                    transactional_id,
                    markers: mut work,
                } => {
                    work.end.coordinator_epoch = leader_epoch;
                    let writer = markers.clone();
                    tasks.spawn(Box::pin(async move {
                        coordinator
                            .write_markers(partition, transactional_id, work, &*writer)
                            .await;
                    }));
                }
                TransactionAction::AllocateProducerId { transactional_id } => {
                    let ids = ids.clone();
                    tasks.spawn(Box::pin(async move {
                        coordinator
                            .abort_timed_out(partition, transactional_id, &*ids)
                            .await;
                    }));
                }
            }
        }
    }

    /// Writes markers again and again until all are written or this is not the coordinator any
    /// more.
    async fn write_markers(
        &self,
        partition: i32,
        transactional_id: ByteStr,
        mut work: TransactionMarkers,
        writer: &dyn MarkerWriter,
    ) {
        loop {
            let outcomes = writer.write(&work).await;
            let request = TransactionRequest::MarkersWritten {
                transactional_id: transactional_id.clone(),
                producer: (work.end.producer_id, work.end.producer_epoch),
                outcomes: work.partitions.iter().cloned().zip(outcomes).collect(),
            };
            // Not to a coordinator that was loaded since: it writes its own, and a transaction that
            // begins after another's count would be ended by them.
            let term = work.end.coordinator_epoch;
            match self.runtime.submit_since(partition, term, request).await {
                Ok(TransactionResponse::Remaining(partitions)) => work.partitions = partitions,
                _ => return,
            }
            let pause = Duration::from_millis(self.config.marker_retry_ms);
            self.runtime.tasks().sleep(pause).await;
        }
    }

    /// Without an id the shard asks again at its next look at open transactions.
    async fn abort_timed_out(
        &self,
        partition: i32,
        transactional_id: ByteStr,
        ids: &dyn ProducerIdSource,
    ) {
        if let Ok(spare) = ids.next().await {
            let request = TransactionRequest::AbortTimedOut {
                transactional_id,
                spare,
            };
            // Failures are mended at the next look as well.
            let _ = self.runtime.submit(partition, request).await;
        }
    }

    /// The partition of `__transaction_state` that keeps an id.
    pub fn partition_for(&self, transactional_id: &str) -> i32 {
        let count = self.partition_count.load(Ordering::Acquire);
        partition_for(transactional_id, count)
    }

    /// Sets the number of partitions that `__transaction_state` really has.
    pub fn set_partition_count(&self, count: i32) {
        self.partition_count.store(count, Ordering::Release);
    }

    /// Sets the level of the feature `transaction.version`.
    pub fn set_transaction_version(&self, level: i16) {
        self.version.store(level, Ordering::Release);
    }

    /// This broker leads the partition of `__transaction_state` as of `leader_epoch`: loads it in
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

    /// Stops coordinating.
    pub fn shut_down(&self) {
        self.is_active.store(false, Ordering::Release);
        self.runtime.shut_down();
    }

    /// What is counted of the runtime.
    pub fn runtime_metrics(&self) -> &Arc<RuntimeMetrics> {
        self.runtime.metrics()
    }

    /// Submits to an id's partition. Refusals come as errors that clients know.
    async fn submit(
        &self,
        transactional_id: &str,
        request: TransactionRequest,
    ) -> Result<TransactionResponse, ErrorCode> {
        let partition = self.partition_for(transactional_id);
        match self.runtime.submit(partition, request).await {
            Ok(TransactionResponse::Refused(error)) => Err(error),
            Ok(response) => Ok(response),
            Err(error) => Err(client_error(error)),
        }
    }

    /// The same for a request that may take a producer id, which is fetched if it does.
    async fn submit_with_id(
        &self,
        transactional_id: &str,
        ids: &dyn ProducerIdSource,
        request: impl Fn(Option<i64>) -> TransactionRequest,
    ) -> Result<TransactionResponse, ErrorCode> {
        match self.submit(transactional_id, request(None)).await? {
            TransactionResponse::NeedsProducerId => {
                let spare = ids.next().await?;
                self.submit(transactional_id, request(Some(spare))).await
            }
            response => Ok(response),
        }
    }
}

/// A shard that answers with something else than it was asked for: a fault of this program.
fn mismatch(response: &TransactionResponse) -> ErrorCode {
    tracing::error!(
        ?response,
        "the transaction shard gave an answer to another request"
    );
    ErrorCode::UnknownServerError
}
