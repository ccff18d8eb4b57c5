//! The share partitions of this broker: loading, acknowledging, releasing, expiring.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_coordinator::share_partition::sessions::{SessionKey, SessionPartition, ShareSessions};
use klamm_coordinator::share_partition::{Acknowledgement, SharePartition, StateWrite};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;
use tokio::sync::{Notify, OnceCell, oneshot};
use tokio::time::sleep;

use super::states::{read_state, write_state};
use super::stats::{CellStats, GroupStats};
use crate::shared::Shared;

/// How long the expiry of locks sleeps if there are none.
const IDLE: Duration = Duration::from_secs(60);

/// Group, topic and partition.
pub(crate) type PartitionKey = (ByteStr, Uuid, i32);

/// One partition as one group reads it.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) key: PartitionKey,
    pub(crate) topic: Arc<str>,
    /// The epoch in which this broker leads the partition.
    pub(super) leader_epoch: i32,
    pub(crate) stats: CellStats,
    loaded: OnceCell<()>,
    state: Mutex<CellState>,
}

#[derive(Debug, Default)]
pub(crate) struct CellState {
    /// None until it is loaded, and when it was let go of.
    pub(crate) partition: Option<SharePartition>,
    /// Whether a request is reading for it: one at a time, so that none reads what another takes.
    pub(crate) is_read: bool,
    /// Whether another one would have liked to.
    pub(crate) is_wanted: bool,
    /// Changes to be written, in the order in which they were made: an older one that overtakes a
    /// newer one would undo it.
    outbox: VecDeque<(StateWrite, oneshot::Sender<ErrorCode>)>,
    is_writing: bool,
}

impl CellState {
    /// Puts a change into the outbox. Called under the lock under which it was made.
    fn put(&mut self, write: StateWrite) -> oneshot::Receiver<ErrorCode> {
        let (sender, outcome) = oneshot::channel();
        self.outbox.push_back((write, sender));
        outcome
    }
}

impl Cell {
    pub(crate) fn state(&self) -> MutexGuard<'_, CellState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The share partitions and share sessions of this broker.
#[derive(Debug)]
pub(crate) struct SharePartitions {
    cells: Mutex<BTreeMap<PartitionKey, Arc<Cell>>>,
    /// What is counted of groups that have been seen.
    groups: Mutex<BTreeMap<ByteStr, Arc<GroupStats>>>,
    sessions: Mutex<ShareSessions>,
    /// Told when records may have become available.
    pub(crate) changed: Notify,
    /// Grows with each time that is.
    version: AtomicU64,
    /// Told when a lock ends earlier than any before.
    deadlines: Notify,
    /// When the next lock ends, in monotonic milliseconds.
    next_deadline_ms: AtomicU64,
}

impl SharePartitions {
    pub(crate) fn new(sessions_max: usize) -> Self {
        SharePartitions {
            cells: Mutex::default(),
            groups: Mutex::default(),
            sessions: Mutex::new(ShareSessions::new(sessions_max)),
            changed: Notify::new(),
            version: AtomicU64::new(0),
            deadlines: Notify::new(),
            next_deadline_ms: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) fn sessions(&self) -> MutexGuard<'_, ShareSessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another one than before if records may have become available since.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Records may have become available.
    fn tell(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    fn cells(&self) -> MutexGuard<'_, BTreeMap<PartitionKey, Arc<Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partitions that are here.
    pub(crate) fn all(&self) -> Vec<Arc<Cell>> {
        self.cells().values().cloned().collect()
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<ByteStr, Arc<GroupStats>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is counted of each group.
    pub(crate) fn group_stats(&self) -> Vec<(ByteStr, Arc<GroupStats>)> {
        let groups = self.groups();
        groups
            .iter()
            .map(|(group, stats)| (group.clone(), stats.clone()))
            .collect()
    }

    fn stats_of(&self, group: &ByteStr) -> Arc<GroupStats> {
        let mut groups = self.groups();
        if let Some(stats) = groups.get(group) {
            return stats.clone();
        }
        let stats = Arc::<GroupStats>::default();
        groups.insert(group.detached(), stats.clone());
        stats
    }

    fn present(&self, key: &PartitionKey) -> Option<Arc<Cell>> {
        self.cells().get(key).cloned()
    }

    /// The partition, loaded.
    ///
    /// # Errors
    /// What clients are told of partitions that are not led here or whose state cannot be had.
    pub(crate) async fn load(
        &self,
        broker: &Shared,
        key: &PartitionKey,
        topic: &Arc<str>,
    ) -> Result<Arc<Cell>, ErrorCode> {
        let leader_epoch = broker
            .replicas
            .leader_epoch(topic, key.2)
            .ok_or(ErrorCode::NotLeaderOrFollower)?;
        let cell = {
            let mut cells = self.cells();
            match cells.get(key) {
                Some(cell) if cell.leader_epoch == leader_epoch => cell.clone(),
                _ => {
                    let key = (key.0.detached(), key.1, key.2);
                    let cell = Arc::new(Cell {
                        key: key.clone(),
                        topic: topic.clone(),
                        leader_epoch,
                        stats: CellStats::default(),
                        loaded: OnceCell::new(),
                        state: Mutex::default(),
                    });
                    if let Some(former) = cells.insert(key, cell.clone()) {
                        // Of an earlier term of this broker's: others have led since.
                        former.state().partition = None;
                    }
                    cell
                }
            }
        };
        let load = || async {
            let began = broker.env.clock.monotonic();
            let partition = read_state(broker, &cell).await?;
            cell.state().partition = Some(partition);
            let took = broker.env.clock.monotonic().saturating_sub(began);
            self.stats_of(&cell.key.0).loads.add(took);
            Ok::<(), ErrorCode>(())
        };
        cell.loaded.get_or_try_init(load).await?;
        if !self.is_current(&cell) {
            // The partition was led elsewhere while its state was on its way, or nobody fetched any
            // more: what came may be older than what members have been given since.
            cell.state().partition = None;
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        Ok(cell)
    }

    fn is_current(&self, cell: &Arc<Cell>) -> bool {
        let present = self.present(&cell.key);
        present.is_some_and(|present| Arc::ptr_eq(&present, cell))
    }

    /// Somebody else leads the partition by now, or the state was set anew: what is known here is
    /// of no use any more.
    fn drop_fenced(&self, cell: &Arc<Cell>) {
        let mut cells = self.cells();
        if cells
            .get(&cell.key)
            .is_some_and(|present| Arc::ptr_eq(present, cell))
        {
            cells.remove(&cell.key);
        }
        cell.state().partition = None;
    }

    /// A lock was given out: the expiry has to wake in time.
    pub(crate) fn watch_deadline(&self, deadline_ms: Option<u64>) {
        let Some(deadline_ms) = deadline_ms else {
            return;
        };
        if self
            .next_deadline_ms
            .fetch_min(deadline_ms, Ordering::AcqRel)
            > deadline_ms
        {
            self.deadlines.notify_one();
        }
    }

    /// Takes a member's word for records of a partition, and answers when that is written.
    pub(crate) async fn acknowledge(
        &self,
        broker: &Arc<Shared>,
        key: &PartitionKey,
        member: &ByteStr,
        acknowledgements: &[Acknowledgement],
    ) -> ErrorCode {
        let Some(cell) = self.present(key) else {
            return ErrorCode::UnknownTopicOrPartition;
        };
        let limits = broker.group_cluster.share_config(&key.0).limits;
        let now_ms = broker.monotonic_ms();
        let (taken, deadline_ms) = {
            let mut state = cell.state();
            let Some(partition) = &mut state.partition else {
                return ErrorCode::UnknownTopicOrPartition;
            };
            let taken = partition.acknowledge(member, acknowledgements, &limits, now_ms);
            let deadline_ms = partition.next_deadline_ms();
            let taken = taken.map(|write| write.map(|write| state.put(write)));
            (taken, deadline_ms)
        };
        self.watch_deadline(deadline_ms);
        if taken.is_ok() {
            self.stats_of(&key.0).acknowledged(acknowledgements);
        }
        match taken {
            Err(error) => error,
            Ok(None) => ErrorCode::None,
            Ok(Some(outcome)) => {
                write_outbox(broker, cell);
                outcome.await.unwrap_or(ErrorCode::UnknownServerError)
            }
        }
    }

    /// Takes back everything that a member has in these partitions; its session is over.
    pub(crate) async fn release(
        &self,
        broker: &Arc<Shared>,
        session: &SessionKey,
        partitions: &[SessionPartition],
    ) {
        let (group, member) = session;
        for (topic_id, partition) in partitions {
            let key = (group.clone(), *topic_id, *partition);
            let Some(cell) = self.present(&key) else {
                continue;
            };
            let limits = broker.group_cluster.share_config(group).limits;
            let outcome = {
                let mut state = cell.state();
                let partition = state.partition.as_mut();
                let write = partition.and_then(|partition| partition.release(member, &limits));
                write.map(|write| state.put(write))
            };
            if let Some(outcome) = outcome {
                write_outbox(broker, cell);
                // If it failed, the locks end in their time.
                let _ = outcome.await;
            }
        }
        self.forget_idle(group);
    }

    /// Lets go of the partitions of a group that nobody fetches for any more: what it is done with
    /// may be set anew while it is away.
    fn forget_idle(&self, group: &ByteStr) {
        if self.sessions().has_group(group) {
            return;
        }
        self.cells().retain(|key, cell| {
            let mut state = cell.state();
            let busy = state.is_read
                || state.is_writing
                // Being loaded, for a member that has only come.
                || (!cell.loaded.initialized() && Arc::strong_count(cell) > 1)
                || state.partition.as_ref().is_some_and(|p| p.has_unsettled());
            let keep = key.0 != *group || busy;
            if !keep {
                state.partition = None;
            }
            keep
        });
    }

    /// Takes back what members had for too long. Returns when the next lock ends.
    fn expire(&self, broker: &Arc<Shared>) -> Option<u64> {
        let now_ms = broker.monotonic_ms();
        self.next_deadline_ms.store(u64::MAX, Ordering::Release);
        let cells: Vec<Arc<Cell>> = self.cells().values().cloned().collect();
        let mut next: Option<u64> = None;
        let mut any = false;
        for cell in cells {
            let limits = broker.group_cluster.share_config(&cell.key.0).limits;
            let (is_due, deadline_ms) = {
                let mut state = cell.state();
                let Some(partition) = &mut state.partition else {
                    continue;
                };
                let overdue = partition.overdue(now_ms);
                let write = partition.expire(&limits, now_ms);
                cell.stats.lock_timeouts.add(overdue);
                let deadline_ms = partition.next_deadline_ms();
                // Nobody waits for the outcome.
                (write.map(|write| state.put(write)).is_some(), deadline_ms)
            };
            next = [next, deadline_ms].into_iter().flatten().min();
            if is_due {
                any = true;
                write_outbox(broker, cell);
            }
        }
        if any {
            self.tell();
        }
        if let Some(next) = next {
            self.next_deadline_ms.fetch_min(next, Ordering::AcqRel);
        }
        next
    }
}

/// Takes back what members had for too long, again and again. Never returns.
pub(crate) async fn expire_locks(broker: Arc<Shared>) {
    loop {
        let next = broker.shares.expire(&broker);
        let wait = match next {
            None => IDLE,
            Some(next) => Duration::from_millis(next.saturating_sub(broker.monotonic_ms())),
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = broker.shares.deadlines.notified() => {}
        }
    }
}

/// Writes what is in the outbox through the share coordinator, one after the other, and tells the
/// machine. Goes on if nobody waits for it any more: records in transition are nobody's until the
/// outcome is known.
#[expect(
    clippy::disallowed_methods,
    reason = "the driver of the share partitions' writes"
)]
fn write_outbox(broker: &Arc<Shared>, cell: Arc<Cell>) {
    if std::mem::replace(&mut cell.state().is_writing, true) {
        return;
    }
    let broker = broker.clone();
    tokio::spawn(async move {
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
            let code = write_state(&broker, &cell, write).await;
            let ok = code == ErrorCode::None;
            if let Some(partition) = &mut cell.state().partition {
                partition.written(ticket, ok);
            }
            if code == ErrorCode::NotLeaderOrFollower {
                broker.shares.drop_fenced(&cell);
            }
            broker.shares.tell();
            if !ok {
                // Locks that ended meanwhile were waiting for the outcome.
                broker.shares.deadlines.notify_one();
            }
            // Whoever asked may be gone.
            let _ = outcome.send(code);
        }
    });
}

/// A connection is gone: so are the share sessions on it, and what their members have comes back at
/// once.
#[expect(
    clippy::disallowed_methods,
    reason = "the driver; the connection's task ends here"
)]
pub(crate) fn disconnected(broker: &Arc<Shared>, connection: u64) {
    let ended = broker.shares.sessions().disconnected(connection);
    if ended.is_empty() {
        return;
    }
    let broker = broker.clone();
    tokio::spawn(async move {
        for (session, partitions) in ended {
            broker.shares.release(&broker, &session, &partitions).await;
        }
    });
}
