//! Share partitions at the leaders of data partitions: loading, handing out, acknowledging,
//! expiring, and the writes through the share coordinators, one after the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klamm_coordinator::share_partition::{
    Acknowledgement, AcquireMode, AcquireRequest, AcquiredRange, BatchSpan, ShareLimits,
    SharePartition, StateWrite, StoredState,
};
use klamm_coordinator::share_state::SharePersister as _;
use klamm_protocol::messages::read_share_group_state_request::{
    PartitionData as ReadPartition, ReadStateData,
};
use klamm_protocol::messages::write_share_group_state_request::{
    PartitionData as WritePartition, WriteStateData,
};
use klamm_protocol::messages::{ReadShareGroupStateRequest, WriteShareGroupStateRequest};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::batches;
use tokio::sync::{OnceCell, oneshot};

use super::super::Flaw;
use super::super::broker::Broker;
use super::super::world::{DATA, World};
use super::{GROUP, Persister};

/// What bounds deliveries here: locks end soon, and nobody gives a record up.
const LIMITS: ShareLimits = ShareLimits {
    delivery_count_max: 1_000,
    in_flight_max: 200,
    lock_duration_ms: 2_000,
    may_renew: true,
};

/// The share partitions of a broker.
#[derive(Debug, Default)]
pub(in super::super) struct Cells(Mutex<BTreeMap<i32, Arc<Cell>>>);

/// One partition as the group reads it.
#[derive(Debug)]
struct Cell {
    partition: i32,
    leader_epoch: i32,
    loaded: OnceCell<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// None until it is loaded, and after it was let go of.
    partition: Option<SharePartition>,
    /// Changes to be written, in their order.
    outbox: VecDeque<(StateWrite, oneshot::Sender<ErrorCode>)>,
    is_writing: bool,
}

impl Cell {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cells {
    fn cells(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<Cell>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn present(&self, partition: i32) -> Option<Arc<Cell>> {
        self.cells().get(&partition).cloned()
    }

    /// The first offset of a partition that is not done with.
    pub(super) fn start_offset(&self, partition: i32, leader_epoch: i32) -> Option<i64> {
        let cell = self.present(partition)?;
        let state = cell.state();
        let offset = state.partition.as_ref().map(SharePartition::start_offset);
        offset.filter(|_| cell.leader_epoch == leader_epoch)
    }
}

fn persister_error(code: i16) -> ErrorCode {
    match ErrorCode::from_code(code) {
        Some(
            ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress,
        ) => ErrorCode::CoordinatorNotAvailable,
        Some(ErrorCode::FencedLeaderEpoch | ErrorCode::FencedStateEpoch) => {
            ErrorCode::NotLeaderOrFollower
        }
        Some(known) => known,
        None => ErrorCode::UnknownServerError,
    }
}

impl Broker {
    fn persister(&self, world: &World) -> Persister {
        Persister {
            world: world.clone(),
            broker: self.id,
        }
    }

    fn monotonic_ms(world: &World) -> u64 {
        u64::try_from(world.now_ms()).unwrap_or(0)
    }

    async fn load(&self, world: &World, partition: i32) -> Result<Arc<Cell>, ErrorCode> {
        let term = self
            .own_term((DATA, partition))
            .ok_or(ErrorCode::NotLeaderOrFollower)?;
        let cell = {
            let mut cells = self.cells.cells();
            match cells.get(&partition) {
                Some(cell) if cell.leader_epoch == term.epoch => Arc::clone(cell),
                _ => {
                    let cell = Arc::new(Cell {
                        partition,
                        leader_epoch: term.epoch,
                        loaded: OnceCell::new(),
                        state: Mutex::default(),
                    });
                    cells.insert(partition, Arc::clone(&cell));
                    cell
                }
            }
        };
        let load = || async {
            let partition = self.read_state(world, &cell).await?;
            cell.state().partition = Some(partition);
            Ok::<(), ErrorCode>(())
        };
        cell.loaded.get_or_try_init(load).await?;
        // Meanwhile the partition may have been led elsewhere and come back, in a later term.
        let present = self.cells.present(partition);
        if present.is_none_or(|present| !Arc::ptr_eq(&present, &cell)) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        Ok(cell)
    }

    async fn read_state(&self, world: &World, cell: &Cell) -> Result<SharePartition, ErrorCode> {
        let request = ReadShareGroupStateRequest {
            group_id: GROUP.into(),
            topics: vec![ReadStateData {
                topic_id: world.topics.id(DATA),
                partitions: vec![ReadPartition {
                    partition: cell.partition,
                    leader_epoch: cell.leader_epoch,
                    ..ReadPartition::default()
                }],
                ..ReadStateData::default()
            }],
            ..ReadShareGroupStateRequest::default()
        };
        let response = self.persister(world).read(request).await;
        let mut results = response.results.into_iter().flat_map(|t| t.partitions);
        let result = results.next().ok_or(ErrorCode::CoordinatorNotAvailable)?;
        if result.error_code != 0 {
            return Err(persister_error(result.error_code));
        }
        let mut stored = StoredState {
            state_epoch: result.state_epoch,
            start_offset: result.start_offset,
            batches: result.state_batches,
        };
        if world.flaw == Flaw::SharesForget {
            stored.batches.clear();
        }
        // Groups begin at the beginning.
        let start_offset = stored.start_offset.max(0);
        SharePartition::load(&stored, start_offset).map_err(|_| ErrorCode::UnknownServerError)
    }

    async fn write_state(&self, world: &World, cell: &Cell, write: StateWrite) -> ErrorCode {
        if world.flaw == Flaw::SharesUnwritten {
            return ErrorCode::None;
        }
        let request = WriteShareGroupStateRequest {
            group_id: GROUP.into(),
            topics: vec![WriteStateData {
                topic_id: world.topics.id(DATA),
                partitions: vec![WritePartition {
                    partition: cell.partition,
                    state_epoch: write.state_epoch,
                    leader_epoch: cell.leader_epoch,
                    start_offset: write.start_offset,
                    delivery_complete_count: write.delivery_complete_count,
                    state_batches: write.batches,
                    ..WritePartition::default()
                }],
                ..WriteStateData::default()
            }],
            ..WriteShareGroupStateRequest::default()
        };
        let response = self.persister(world).write(request).await;
        let mut results = response.results.into_iter().flat_map(|t| t.partitions);
        match results.next().map(|result| result.error_code) {
            Some(0) => ErrorCode::None,
            Some(code) => persister_error(code),
            None => ErrorCode::CoordinatorNotAvailable,
        }
    }

    /// Writes what is in the outbox, unless somebody is at it.
    fn write_outbox(&self, world: &World, cell: Arc<Cell>) {
        if std::mem::replace(&mut cell.state().is_writing, true) {
            return;
        }
        let (broker, world) = (self.clone(), world.clone());
        let executor = world.executor.clone();
        executor.spawn_in(self.process, "outbox", async move {
            loop {
                let next = {
                    let mut state = cell.state();
                    let next = state.outbox.pop_front();
                    state.is_writing = next.is_some();
                    next
                };
                let Some((write, outcome)) = next else {
                    return;
                };
                let ticket = write.ticket;
                let code = broker.write_state(&world, &cell, write).await;
                if let Some(partition) = &mut cell.state().partition {
                    partition.written(ticket, code == ErrorCode::None);
                }
                if code == ErrorCode::NotLeaderOrFollower {
                    broker
                        .cells
                        .cells()
                        .retain(|_, found| !Arc::ptr_eq(found, &cell));
                    cell.state().partition = None;
                }
                let _ = outcome.send(code);
            }
        });
    }

    /// ShareFetch: hands out what is available.
    pub(super) async fn share_fetch(
        &self,
        world: &World,
        partition: i32,
        member: &ByteStr,
    ) -> Result<Vec<AcquiredRange>, ErrorCode> {
        let cell = self.load(world, partition).await?;
        let place = (DATA, partition);
        let term = self.own_term(place).ok_or(ErrorCode::NotLeaderOrFollower)?;
        let found = world
            .partition(place)
            .ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let end = *term.watch().borrow();
        let mut state = cell.state();
        let Some(machine) = &mut state.partition else {
            return Err(ErrorCode::NotLeaderOrFollower);
        };
        let fetch_offset = machine.next_fetch_offset();
        if fetch_offset >= end || !machine.can_acquire(&LIMITS) {
            return Ok(Vec::new());
        }
        let log = found.truth();
        let read = found.read(&log, fetch_offset, 2_000);
        let read = read.map_err(|_| ErrorCode::KafkaStorageError)?;
        let headers = batches(&read).flatten().map(|batch| *batch.header());
        let spans: Vec<BatchSpan> = headers
            .filter(|header| header.next_offset() <= end)
            .map(|header| BatchSpan {
                base_offset: header.base_offset,
                last_offset: header.last_offset(),
                is_aborted: false,
            })
            .collect();
        let strict = world.rng.one_in(2);
        let request = AcquireRequest {
            member,
            mode: if strict {
                AcquireMode::RecordLimit
            } else {
                AcquireMode::BatchOptimized
            },
            max_records: 1 + world.rng.range(0, 12) as i32,
            batch_size: 5,
            fetch_offset,
            batches: &spans,
        };
        let acquired = machine.acquire(&request, &LIMITS, Self::monotonic_ms(world));
        drop(state);
        if self.leads(world, place) {
            let checked = world.shares().delivered(partition, &acquired);
            world.check(checked);
        }
        Ok(acquired)
    }

    /// ShareAcknowledge: answers when it is written.
    pub(super) async fn share_acknowledge(
        &self,
        world: &World,
        partition: i32,
        member: &ByteStr,
        acknowledgements: &[Acknowledgement],
    ) -> ErrorCode {
        let Some(cell) = self.cells.present(partition) else {
            return ErrorCode::UnknownTopicOrPartition;
        };
        let outcome = {
            let mut state = cell.state();
            let Some(machine) = &mut state.partition else {
                return ErrorCode::UnknownTopicOrPartition;
            };
            let now_ms = Self::monotonic_ms(world);
            match machine.acknowledge(member, acknowledgements, &LIMITS, now_ms) {
                Err(error) => return error,
                Ok(None) => return ErrorCode::None,
                Ok(Some(write)) => {
                    let (sender, outcome) = oneshot::channel();
                    state.outbox.push_back((write, sender));
                    outcome
                }
            }
        };
        self.write_outbox(world, cell);
        let code = outcome.await.unwrap_or(ErrorCode::UnknownServerError);
        if code == ErrorCode::None {
            world.shares().done(partition, acknowledgements);
        }
        code
    }

    /// A member's session is over: what it has comes back.
    pub(super) async fn share_release(&self, world: &World, partition: i32, member: &str) {
        let Some(cell) = self.cells.present(partition) else {
            return;
        };
        let is_due = {
            let mut state = cell.state();
            let write = state.partition.as_mut();
            let write = write.and_then(|p| p.release(member, &LIMITS));
            write.map(|write| state.outbox.push_back((write, oneshot::channel().0)))
        };
        if is_due.is_some() {
            self.write_outbox(world, cell);
        }
    }
}

/// Takes back what members had for too long. Never returns.
pub(in super::super) async fn expire_locks(world: World, broker: Broker) {
    loop {
        world.sleep_ms(150).await;
        let cells: Vec<Arc<Cell>> = broker.cells.cells().values().cloned().collect();
        for cell in cells {
            let is_due = {
                let mut state = cell.state();
                let now_ms = Broker::monotonic_ms(&world);
                let write = state
                    .partition
                    .as_mut()
                    .and_then(|p| p.expire(&LIMITS, now_ms));
                write.map(|write| state.outbox.push_back((write, oneshot::channel().0)))
            };
            if is_due.is_some() {
                broker.write_outbox(&world, cell);
            }
        }
    }
}
