//! Which partitions have a coordinator here, and the way to it.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use klamm_env::Clock;
use klamm_protocol::ErrorCode;
use klamm_records::Codec;
use tokio::sync::{mpsc, oneshot};

use super::driver::{Driver, Submission, TransactionEnd};
use super::loader::{self, LoadError, Loaded, Source};
use super::shard::{Now, Shard};
use super::storage::{PartitionReader, PartitionWriter, ReadError};
use super::tasks::{Tasks, TokioTasks};
use crate::metrics::RuntimeMetrics;

/// How many requests may wait in front of one driver. Beyond that, whoever submits waits.
const QUEUE_LEN: usize = 1_024;

/// Settings of a runtime.
#[derive(Clone, Copy, Debug)]
pub struct RuntimeOptions {
    /// How long an answer waits for its records to be committed, in milliseconds.
    pub write_timeout_ms: u64,
    /// How much of the log is read at once while loading, in bytes.
    pub load_buffer_bytes: usize,
    /// Compression of the batches.
    pub codec: Codec,
}

/// What all drivers of a runtime share.
pub(super) struct Shared<S: Shard> {
    pub writer: Arc<dyn PartitionWriter>,
    pub reader: Arc<dyn PartitionReader>,
    pub clock: Arc<dyn Clock>,
    pub options: RuntimeOptions,
    pub metrics: Arc<RuntimeMetrics>,
    make_shard: Box<dyn Fn(i32) -> S + Send + Sync>,
    perform: PerformAction<S>,
}

/// Takes an action of the shard of a partition, with the epoch in which it is led. Must not block.
type PerformAction<S> = Box<dyn Fn(i32, i32, <S as Shard>::Action) + Send + Sync>;

impl<S: Shard> Shared<S> {
    pub(super) fn perform(&self, partition: i32, leader_epoch: i32, action: S::Action) {
        (self.perform)(partition, leader_epoch, action);
    }

    pub(super) fn now(&self) -> Now {
        Now {
            wall_ms: self.clock.wall_ms(),
            monotonic_ms: u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

const LOADING: u8 = 0;
const ACTIVE: u8 = 1;
const FAILED: u8 = 2;
/// It panicked, and rests before it is loaded again.
const RESTING: u8 = 3;

/// How long a shard rests after a panic: what caused it may still be there.
const REST: Duration = Duration::from_millis(500);

/// A partition that this broker leads.
struct Led<S: Shard> {
    /// The leader epoch in which what is loaded was begun to be.
    since: i32,
    epoch: Arc<AtomicI32>,
    status: Arc<AtomicU8>,
    submissions: mpsc::Sender<Submission<S>>,
    /// Dropped to stop the driver.
    _stop: oneshot::Sender<()>,
}

/// The coordinators of one kind on this broker: one shard per partition that it leads.
///
/// Must be used inside a tokio runtime with time enabled, on which it spawns its tasks, unless it
/// was given others with [`Runtime::with_tasks`].
pub struct Runtime<S: Shard> {
    shared: Arc<Shared<S>>,
    tasks: Arc<dyn Tasks>,
    led: Mutex<BTreeMap<i32, Led<S>>>,
}

impl<S: Shard> std::fmt::Debug for Runtime<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Runtime")
            .field("partitions", &self.partitions())
            .finish_non_exhaustive()
    }
}

impl<S: Shard> Runtime<S> {
    /// A runtime without partitions. `make_shard` gives an empty shard for one. `perform` is
    /// handed what shards want others to do: partition, leader epoch, action. It must not block.
    pub fn new(
        writer: Arc<dyn PartitionWriter>,
        reader: Arc<dyn PartitionReader>,
        clock: Arc<dyn Clock>,
        options: RuntimeOptions,
        make_shard: impl Fn(i32) -> S + Send + Sync + 'static,
        perform: impl Fn(i32, i32, S::Action) + Send + Sync + 'static,
    ) -> Self {
        Runtime {
            shared: Arc::new(Shared {
                writer,
                reader,
                clock,
                options,
                metrics: Arc::new(RuntimeMetrics::default()),
                make_shard: Box::new(make_shard),
                perform: Box::new(perform),
            }),
            tasks: Arc::new(TokioTasks),
            led: Mutex::new(BTreeMap::new()),
        }
    }

    /// The same, with its tasks on these. To be called before any partition is led.
    #[must_use]
    pub fn with_tasks(mut self, tasks: Arc<dyn Tasks>) -> Self {
        self.tasks = tasks;
        self
    }

    /// Where its tasks run.
    pub fn tasks(&self) -> &Arc<dyn Tasks> {
        &self.tasks
    }

    /// What the runtime counts.
    pub fn metrics(&self) -> &Arc<RuntimeMetrics> {
        &self.shared.metrics
    }

    /// The partitions that are led here, loading or loaded.
    pub fn partitions(&self) -> Vec<i32> {
        self.lock().keys().copied().collect()
    }

    /// This broker leads `partition` as of `leader_epoch`: loads it in the background. A newer
    /// epoch of a partition that is led already goes on with what is loaded; an older one is
    /// ignored.
    pub fn elected(&self, partition: i32, leader_epoch: i32) {
        let mut led = self.lock();
        if let Some(present) = led.get(&partition) {
            let newer = present.epoch.load(Ordering::Acquire) < leader_epoch;
            if newer {
                present.epoch.store(leader_epoch, Ordering::Release);
            }
            if !newer || present.status.load(Ordering::Acquire) != FAILED {
                return;
            }
        }
        let (submissions, queue) = mpsc::channel(QUEUE_LEN);
        let (stop, stopped) = oneshot::channel();
        let epoch = Arc::new(AtomicI32::new(leader_epoch));
        let status = Arc::new(AtomicU8::new(LOADING));
        let task = Partition {
            shared: self.shared.clone(),
            tasks: self.tasks.clone(),
            partition,
            epoch: epoch.clone(),
            status: status.clone(),
            queue,
            stop: stopped,
        };
        self.tasks.spawn(Box::pin(task.run()));
        led.insert(
            partition,
            Led {
                since: leader_epoch,
                epoch,
                status,
                submissions,
                _stop: stop,
            },
        );
    }

    /// This broker does not lead `partition` any more, as of `leader_epoch` if that is known.
    /// Whoever waits for an answer is told so. Ignored if the partition was won again since.
    pub fn resigned(&self, partition: i32, leader_epoch: Option<i32>) {
        let mut led = self.lock();
        let outdated = match (led.get(&partition), leader_epoch) {
            (Some(present), Some(epoch)) => present.epoch.load(Ordering::Acquire) > epoch,
            _ => false,
        };
        if !outdated {
            led.remove(&partition);
        }
    }

    /// Resigns everything.
    pub fn shut_down(&self) {
        self.lock().clear();
    }

    /// Hands a request to the shard of `partition` and waits for its answer.
    ///
    /// Errors: `NotCoordinator` if the partition is not led here or was lost meanwhile,
    /// `CoordinatorLoadInProgress` while it loads, `CoordinatorNotAvailable` after a panic and
    /// `UnknownServerError` for the request that caused it, and what became of the records otherwise
    /// (`RequestTimedOut` if they were not committed in time).
    pub async fn submit(
        &self,
        partition: i32,
        request: S::Request,
    ) -> Result<S::Response, ErrorCode> {
        self.submit_since(partition, i32::MAX, request).await
    }

    /// The same, but only to the shard that asked for something in `leader_epoch`, of which this
    /// tells. One that was loaded later has asked for it again, and takes no answer for another's:
    /// what is on the way for itself would come when it believes that all is done. One that is loaded
    /// again after a panic counts as the same.
    ///
    /// Errors: those of [`Runtime::submit`], and `NotCoordinator` if that shard is gone.
    pub async fn submit_since(
        &self,
        partition: i32,
        leader_epoch: i32,
        request: S::Request,
    ) -> Result<S::Response, ErrorCode> {
        let (answer, answered) = oneshot::channel();
        let submission = Submission::Request { request, answer };
        self.enqueue(partition, leader_epoch, submission).await?;
        answered
            .await
            .unwrap_or_else(|_| Err(self.unanswered(partition)))
    }

    /// Why there is no answer: the partition was lost, or its shard panicked.
    fn unanswered(&self, partition: i32) -> ErrorCode {
        if self.lock().contains_key(&partition) {
            ErrorCode::CoordinatorNotAvailable
        } else {
            ErrorCode::NotCoordinator
        }
    }

    /// Writes the marker that ends a transaction into `partition` and has its shard apply it.
    /// Done when the marker is committed. Errors as those of [`Runtime::submit`].
    pub async fn end_transaction(
        &self,
        partition: i32,
        end: TransactionEnd,
    ) -> Result<(), ErrorCode> {
        let (answer, answered) = oneshot::channel();
        let submission = Submission::EndTransaction { end, answer };
        self.enqueue(partition, i32::MAX, submission).await?;
        answered
            .await
            .unwrap_or_else(|_| Err(self.unanswered(partition)))
    }

    async fn enqueue(
        &self,
        partition: i32,
        leader_epoch: i32,
        submission: Submission<S>,
    ) -> Result<(), ErrorCode> {
        let submissions = {
            let led = self.lock();
            let present = led.get(&partition);
            let present = present.filter(|present| present.since <= leader_epoch);
            let present = present.ok_or(ErrorCode::NotCoordinator)?;
            match present.status.load(Ordering::Acquire) {
                LOADING => return Err(ErrorCode::CoordinatorLoadInProgress),
                ACTIVE => present.submissions.clone(),
                RESTING => return Err(ErrorCode::CoordinatorNotAvailable),
                _ => return Err(ErrorCode::NotCoordinator),
            }
        };
        // The sender is dropped here: the queue must not be kept open by those who wait for what
        // came out of it.
        let sent = submissions.send(submission).await;
        sent.map_err(|_| ErrorCode::NotCoordinator)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Led<S>>> {
        self.led
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What the task of one partition works with.
struct Partition<S: Shard> {
    shared: Arc<Shared<S>>,
    tasks: Arc<dyn Tasks>,
    partition: i32,
    epoch: Arc<AtomicI32>,
    status: Arc<AtomicU8>,
    queue: mpsc::Receiver<Submission<S>>,
    stop: oneshot::Receiver<()>,
}

impl<S: Shard> Partition<S> {
    /// Drives the partition's shard until it is told to stop. One that panics is a bug: what it
    /// remembers may be half changed, so it is given up, and another one is loaded from the log.
    async fn run(mut self) {
        loop {
            let Err(panic) = caught(self.drive()).await else {
                return;
            };
            if !self.tasks.survive_panics() {
                resume_unwind(panic);
            }
            self.status.store(RESTING, Ordering::Release);
            self.shared.metrics.panics.increment();
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let (partition, panic) = (self.partition, text.unwrap_or("?"));
            tracing::error!(
                partition,
                panic,
                "a coordinator panicked; it is loaded again"
            );
            // Those in front of the door are told to come back.
            while self.queue.try_recv().is_ok() {}
            let rest = self.tasks.sleep(REST);
            tokio::select! {
                biased;
                _ = &mut self.stop => return,
                () = rest => self.status.store(LOADING, Ordering::Release),
            }
        }
    }

    /// Loads the shard and drives it to its end.
    async fn drive(&mut self) {
        let (shared, partition) = (&self.shared, self.partition);
        let mut shard = (shared.make_shard)(partition);
        let started_ms = shared.now().monotonic_ms;
        let loaded = tokio::select! {
            biased;
            _ = &mut self.stop => return,
            loaded = load(shared, partition, &mut shard) => loaded,
        };
        let (loaded, high_watermark) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                shared.metrics.loads_failed.increment();
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    partition,
                    error,
                    "the coordinator's partition was not loaded"
                );
                self.status.store(FAILED, Ordering::Release);
                return;
            }
        };
        shared.metrics.partitions_loaded.increment();
        shared.metrics.records_loaded.add(loaded.records);
        let took_ms = shared.now().monotonic_ms.saturating_sub(started_ms);
        tracing::debug!(
            partition,
            records = loaded.records,
            took_ms,
            "coordinator loaded"
        );
        let epoch = self.epoch.clone();
        let driver = Driver::new(shard, partition, epoch, shared.clone(), loaded);
        self.status.store(ACTIVE, Ordering::Release);
        let (queue, stop) = (&mut self.queue, &mut self.stop);
        driver.run(&*self.tasks, queue, stop, high_watermark).await;
    }
}

/// Runs a future to its end, or to its panic. What it shares with others is behind locks that are
/// taken again after one.
async fn caught(run: impl Future<Output = ()>) -> Result<(), Box<dyn Any + Send>> {
    let mut run = pin!(run);
    std::future::poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    )
    .await
}

type LoadedPartition<S> = (
    Loaded<<S as Shard>::Undo>,
    tokio::sync::watch::Receiver<i64>,
);

async fn load<S: Shard>(
    shared: &Shared<S>,
    partition: i32,
    shard: &mut S,
) -> Result<LoadedPartition<S>, LoadError> {
    let high_watermark = shared
        .writer
        .high_watermark(partition)
        .map_err(|_| ReadError::UnknownPartition)?;
    let source = Source {
        reader: &*shared.reader,
        partition,
        high_watermark: *high_watermark.borrow(),
        buffer_bytes: shared.options.load_buffer_bytes,
        now: shared.now(),
    };
    let loaded = loader::load(shard, &source).await?;
    Ok((loaded, high_watermark))
}
