//! Which share partitions are here: one cell for each, of the newest term in which this broker leads
//! the partition. What comes for another one, late, is not taken in.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_coordinator::share_partition::{SharePartition, StateWrite};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;
use tokio::sync::{OnceCell, oneshot};

use super::stats::CellStats;

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
    /// Monotonic time at which the last one was done.
    pub(crate) read_until: Option<Duration>,
    /// Changes to be written, in the order in which they were made: an older one that overtakes a
    /// newer one would undo it.
    pub(super) outbox: VecDeque<(StateWrite, oneshot::Sender<ErrorCode>)>,
    pub(super) is_writing: bool,
}

impl CellState {
    /// Puts a change into the outbox. Called under the lock under which it was made.
    pub(super) fn put(&mut self, write: StateWrite) -> oneshot::Receiver<ErrorCode> {
        let (sender, outcome) = oneshot::channel();
        self.outbox.push_back((write, sender));
        outcome
    }

    /// Whether it must stay though nobody fetches any more.
    fn is_busy(&self) -> bool {
        let partition = self.partition.as_ref();
        self.is_read || self.is_writing || partition.is_some_and(|p| p.has_unsettled())
    }
}

impl Cell {
    pub(crate) fn state(&self) -> MutexGuard<'_, CellState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cells of a broker.
#[derive(Debug, Default)]
pub(super) struct Cells(Mutex<BTreeMap<PartitionKey, Arc<Cell>>>);

impl Cells {
    fn cells(&self) -> MutexGuard<'_, BTreeMap<PartitionKey, Arc<Cell>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn all(&self) -> Vec<Arc<Cell>> {
        self.cells().values().cloned().collect()
    }

    pub(super) fn present(&self, key: &PartitionKey) -> Option<Arc<Cell>> {
        self.cells().get(key).cloned()
    }

    /// The cell of a partition that is led here in `leader_epoch`, as it is or new. One of an
    /// earlier term gives way: others have led since.
    ///
    /// # Errors
    /// `NOT_LEADER_OR_FOLLOWER` if there is one of a later term.
    pub(super) fn enter(
        &self,
        key: &PartitionKey,
        topic: &Arc<str>,
        leader_epoch: i32,
    ) -> Result<Arc<Cell>, ErrorCode> {
        let mut cells = self.cells();
        if let Some(cell) = cells.get(key)
            && cell.leader_epoch >= leader_epoch
        {
            return match cell.leader_epoch == leader_epoch {
                true => Ok(cell.clone()),
                false => Err(ErrorCode::NotLeaderOrFollower),
            };
        }
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
            former.state().partition = None;
        }
        Ok(cell)
    }

    /// Loads a cell with what `read` comes to, unless it is loaded: once for all who ask meanwhile,
    /// and again after a failure.
    ///
    /// # Errors
    /// Those of `read`; `NOT_LEADER_OR_FOLLOWER` if the cell is not the present one any more.
    pub(super) async fn load(
        &self,
        cell: &Arc<Cell>,
        read: impl Future<Output = Result<SharePartition, ErrorCode>>,
    ) -> Result<(), ErrorCode> {
        let load = || async move {
            let partition = read.await?;
            cell.state().partition = Some(partition);
            Ok::<(), ErrorCode>(())
        };
        cell.loaded.get_or_try_init(load).await?;
        if !self.is_present(cell) {
            // The partition was led elsewhere while its state was on its way, or nobody fetched any
            // more: what came may be older than what members have been given since.
            cell.state().partition = None;
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        Ok(())
    }

    fn is_present(&self, cell: &Arc<Cell>) -> bool {
        let present = self.present(&cell.key);
        present.is_some_and(|present| Arc::ptr_eq(&present, cell))
    }

    /// Somebody else leads the partition by now, or the state was set anew: what is known here is
    /// of no use any more. One of a later term stays.
    pub(super) fn drop_fenced(&self, cell: &Arc<Cell>) {
        let mut cells = self.cells();
        let present = cells.get(&cell.key);
        if present.is_some_and(|present| Arc::ptr_eq(present, cell)) {
            cells.remove(&cell.key);
        }
        cell.state().partition = None;
    }

    /// Lets go of a group's cells, but of those that are busy.
    pub(super) fn let_go(&self, group: &ByteStr) {
        self.cells().retain(|key, cell| {
            let mut state = cell.state();
            // Being loaded, for a member that has only come.
            let is_awaited = !cell.loaded.initialized() && Arc::strong_count(cell) > 1;
            let keep = key.0 != *group || is_awaited || state.is_busy();
            if !keep {
                state.partition = None;
            }
            keep
        });
    }
}
