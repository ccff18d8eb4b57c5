//! A broker: the coordinators of `klamm-coordinator` over what it leads, and what it has heard of
//! who leads what.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use klamm_coordinator::runtime::{
    Appended, BatchKind, BoxFuture, LogRange, PartitionReader, PartitionWriter, ReadError, Tasks,
    WriteError,
};
use klamm_coordinator::{
    GroupCoordinator, GroupCoordinatorConfig, ShareCoordinatorConfig, ShareStateCoordinator,
    TransactionCoordinator, TransactionCoordinatorConfig,
};
use klamm_env::{Clock, Env, Rng as _};
use klamm_log::AppendOrigin;
use klamm_protocol::{ErrorCode, topic_name};
use tokio::sync::watch;

use super::Flaw;
use super::markers::{Ids, Markers};
use super::partition::{Partition, Place, Term};
use super::shares::{Cells, NoPruning, Persister};
use super::world::{INTERNAL, World};
use crate::{Executor, Process, SimClock, SimRng};

/// A machine, and the broker on it if it runs.
pub(super) struct Node {
    pub(super) id: i32,
    pub(super) clock: SkewedClock,
    running: Mutex<Option<Broker>>,
    pub(super) paused: AtomicBool,
}

/// A clock whose wall time may be wrong.
#[derive(Clone, Debug)]
pub(super) struct SkewedClock {
    clock: SimClock,
    skew_ms: Arc<AtomicI64>,
}

impl SkewedClock {
    pub(super) fn skew(&self, ms: i64) {
        self.skew_ms.store(ms, Ordering::SeqCst);
    }
}

impl Clock for SkewedClock {
    fn wall_ms(&self) -> i64 {
        self.clock.wall_ms() + self.skew_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

/// Tasks of one process on the executor.
struct ProcessTasks {
    executor: Executor,
    process: Process,
}

impl Tasks for ProcessTasks {
    // It is what the scenarios look for.
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

/// The terms that a broker has heard of.
type Known = Arc<Mutex<BTreeMap<Place, Arc<Term>>>>;

/// A broker that runs. Clones share it.
#[derive(Clone)]
pub(super) struct Broker(Arc<Inner>);

pub(super) struct Inner {
    pub(super) id: i32,
    pub(super) process: Process,
    pub(super) clock: SkewedClock,
    pub(super) groups: Arc<GroupCoordinator>,
    pub(super) transactions: Arc<TransactionCoordinator>,
    pub(super) share_states: Arc<ShareStateCoordinator>,
    pub(super) cells: Cells,
    known: Known,
}

impl std::ops::Deref for Broker {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Node {
    pub(super) fn new(id: i32, clock: &SimClock) -> Node {
        Node {
            id,
            clock: SkewedClock {
                clock: clock.clone(),
                skew_ms: Arc::default(),
            },
            running: Mutex::default(),
            paused: AtomicBool::new(false),
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Broker>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn broker(&self) -> Option<Broker> {
        self.running().clone()
    }

    pub(super) fn forget(&self) {
        let gone = self.running().take();
        drop(gone);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Ends the process, wherever it is.
    pub(super) fn kill(&self, world: &World) {
        if let Some(broker) = self.broker() {
            world.note(format_args!("{} is killed", self.id));
            world.net.hang_up(self.id);
            self.paused.store(false, Ordering::SeqCst);
            world.executor.end(broker.process);
            self.forget();
        }
    }

    pub(super) fn start(&self, world: &World) {
        if self.broker().is_some() {
            return;
        }
        world.note(format_args!("{} starts", self.id));
        let broker = Broker::new(self.id, self.clock.clone(), world);
        *self.running() = Some(broker.clone());
        world.net.listen(self.id, broker.process);
        let spawn = |name: &str, task: BoxFuture<'static, ()>| {
            world.executor.spawn_in(broker.process, name, task);
        };
        let markers = Arc::new(Markers {
            world: world.clone(),
            broker: self.id,
        });
        let ids = Arc::new(Ids(world.clone()));
        spawn(
            "transactions",
            Box::pin(broker.transactions.clone().run(markers, ids)),
        );
        spawn(
            "share states",
            Box::pin(broker.share_states.clone().run(Arc::new(NoPruning))),
        );
        spawn(
            "locks",
            Box::pin(super::shares::expire_locks(world.clone(), broker.clone())),
        );
        spawn("metadata", Box::pin(follow(world.clone(), broker.clone())));
    }
}

/// Hears of elections, sooner or later.
async fn follow(world: World, broker: Broker) {
    loop {
        broker.hear(&world);
        let most_ms = if !world.is_calm() && world.rng.one_in(20) {
            2_000
        } else {
            40
        };
        world.sleep_ms(2 + world.rng.below(most_ms)).await;
    }
}

impl Broker {
    fn new(id: i32, clock: SkewedClock, world: &World) -> Broker {
        let process = world.executor.new_process();
        let known = Known::default();
        let env = Env {
            clock: Arc::new(clock.clone()),
            rng: Arc::new(world.rng.fork("broker")),
            fs: Arc::new(crate::SimFs::new(
                world.rng.fork("nothing"),
                world.clock.clone(),
                crate::Trace::new(),
            )),
        };
        let tasks: Arc<dyn Tasks> = Arc::new(ProcessTasks {
            executor: world.executor.clone(),
            process,
        });
        let log = |topic| {
            Arc::new(CoordinatorLog {
                id,
                topic,
                partitions: world.partitions.clone(),
                known: Arc::clone(&known),
                flaw: world.flaw,
                rng: world.rng.fork("log"),
            })
        };
        let (writer, reader) = {
            let log = log(topic_name::CONSUMER_OFFSETS);
            (log.clone(), log)
        };
        let mut config = GroupCoordinatorConfig {
            initial_rebalance_delay_ms: 500,
            offsets_topic_partitions: INTERNAL,
            ..GroupCoordinatorConfig::default()
        };
        if let Some(kept_ms) = world.plan.retention_ms {
            config.offsets_retention_check_interval_ms = 3_000;
            config.offsets_retention_ms = match world.flaw {
                Flaw::ExpiresEarly => kept_ms / 10,
                _ => kept_ms,
            };
        }
        let groups = GroupCoordinator::new(config, writer, reader, world.cluster.clone(), &env)
            .with_tasks(tasks.clone());
        groups.set_share_persister(Arc::new(Persister {
            world: world.clone(),
            broker: id,
        }));
        let log_of_ids = log(topic_name::TRANSACTION_STATE);
        let config = TransactionCoordinatorConfig {
            topic_partitions: INTERNAL,
            abort_interval_ms: 1_000,
            write_timeout_ms: 5_000,
            ..TransactionCoordinatorConfig::default()
        };
        let transactions =
            TransactionCoordinator::new(config, log_of_ids.clone(), log_of_ids, &env)
                .with_tasks(tasks.clone());
        transactions.set_transaction_version(2);
        let log_of_shares = log(topic_name::SHARE_GROUP_STATE);
        let config = ShareCoordinatorConfig {
            topic_partitions: INTERNAL,
            ..ShareCoordinatorConfig::default()
        };
        let cluster = world.cluster.clone();
        let share_states =
            ShareStateCoordinator::new(config, log_of_shares.clone(), log_of_shares, cluster, &env)
                .with_tasks(tasks);
        Broker(Arc::new(Inner {
            id,
            process,
            clock,
            groups: Arc::new(groups),
            transactions: Arc::new(transactions),
            share_states: Arc::new(share_states),
            cells: Cells::default(),
            known,
        }))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Place, Arc<Term>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The term of a partition as far as this broker has heard.
    pub(super) fn term(&self, place: Place) -> Option<Arc<Term>> {
        self.known().get(&place).cloned()
    }

    /// The term of a partition that this broker believes to lead.
    pub(super) fn own_term(&self, place: Place) -> Option<Arc<Term>> {
        self.term(place).filter(|term| term.leader == self.id)
    }

    /// Whether it does lead it.
    pub(super) fn leads(&self, world: &World, place: Place) -> bool {
        let own = self.own_term(place);
        own.is_some_and(|term| !term.is_over() && world.partition(place).is_some())
    }

    /// Hears of the elections that were.
    pub(super) fn hear(&self, world: &World) {
        for (place, partition) in &world.partitions {
            let term = partition.term();
            let news = self.known().insert(*place, Arc::clone(&term));
            if news.is_some_and(|known| known.epoch == term.epoch) {
                continue;
            }
            let (topic, number) = *place;
            let (leads, epoch) = (term.leader == self.id, term.epoch);
            match topic {
                topic_name::CONSUMER_OFFSETS if leads => self.groups.on_elected(number, epoch),
                topic_name::CONSUMER_OFFSETS => self.groups.on_resigned(number, Some(epoch)),
                topic_name::TRANSACTION_STATE if leads => {
                    self.transactions.on_elected(number, epoch);
                }
                topic_name::TRANSACTION_STATE => {
                    self.transactions.on_resigned(number, Some(epoch));
                }
                topic_name::SHARE_GROUP_STATE if leads => {
                    self.share_states.on_elected(number, epoch);
                }
                topic_name::SHARE_GROUP_STATE => {
                    self.share_states.on_resigned(number, Some(epoch));
                }
                _ => {}
            }
        }
    }
}

/// An internal topic as coordinators see it.
struct CoordinatorLog {
    id: i32,
    topic: &'static str,
    partitions: BTreeMap<Place, Arc<Partition>>,
    known: Known,
    flaw: Flaw,
    rng: SimRng,
}

impl CoordinatorLog {
    fn find(&self, number: i32) -> Option<(&Arc<Partition>, Arc<Term>)> {
        let place = (self.topic, number);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let term = known.get(&place).cloned();
        let term = term.filter(|term| term.leader == self.id)?;
        Some((self.partitions.get(&place)?, term))
    }
}

fn origin(kind: BatchKind) -> AppendOrigin {
    match kind {
        BatchKind::Plain | BatchKind::Transactional { guard: None } => AppendOrigin::Coordinator,
        BatchKind::Transactional { guard: Some(guard) } => {
            AppendOrigin::VerifiedCoordinator { guard }
        }
        BatchKind::Marker {
            transaction_version,
        } => AppendOrigin::TxnMarkers {
            transaction_version,
        },
    }
}

fn write_error(code: ErrorCode) -> WriteError {
    match code {
        ErrorCode::NotEnoughReplicas => WriteError::NotEnoughReplicas,
        ErrorCode::InvalidProducerEpoch => WriteError::InvalidProducerEpoch,
        ErrorCode::InvalidTxnState => WriteError::InvalidTxnState,
        ErrorCode::TransactionCoordinatorFenced => WriteError::TransactionCoordinatorFenced,
        ErrorCode::KafkaStorageError => WriteError::Storage,
        _ => WriteError::Refused,
    }
}

impl PartitionWriter for CoordinatorLog {
    fn append(
        &self,
        partition: i32,
        leader_epoch: i32,
        batch: Bytes,
        kind: BatchKind,
    ) -> BoxFuture<'_, Result<Appended, WriteError>> {
        Box::pin(async move {
            let (found, term) = self.find(partition).ok_or(WriteError::NotLeader)?;
            if term.epoch != leader_epoch {
                return Err(WriteError::NotLeader);
            }
            let appended = found.append(&term, batch, origin(kind)).await;
            appended.map_err(write_error)
        })
    }

    fn high_watermark(&self, partition: i32) -> Result<watch::Receiver<i64>, WriteError> {
        let (_, term) = self.find(partition).ok_or(WriteError::NotLeader)?;
        Ok(term.watch())
    }

    fn max_batch_bytes(&self, _: i32) -> usize {
        1_048_588
    }
}

impl PartitionReader for CoordinatorLog {
    fn range(&self, partition: i32) -> Result<LogRange, ReadError> {
        let (found, term) = self.find(partition).ok_or(ReadError::NotLeader)?;
        let log = found.log(&term).ok_or(ReadError::NotLeader)?;
        Ok(LogRange {
            start_offset: log.log_start_offset(),
            end_offset: log.log_end_offset(),
        })
    }

    fn read(
        &self,
        partition: i32,
        offset: i64,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Bytes, ReadError>> {
        Box::pin(async move {
            let (found, term) = self.find(partition).ok_or(ReadError::NotLeader)?;
            let log = found.log(&term).ok_or(ReadError::NotLeader)?;
            // Now and then in small pieces, so that other things happen in between.
            let bytes_max = if self.rng.one_in(2) { 400 } else { bytes_max };
            let read = found.read(&log, offset, bytes_max);
            let read = read.map_err(|_| ReadError::Storage)?;
            if self.flaw == Flaw::LoadForgets && offset > 0 && self.rng.one_in(3) {
                return Ok(Bytes::new());
            }
            Ok(read)
        })
    }
}
