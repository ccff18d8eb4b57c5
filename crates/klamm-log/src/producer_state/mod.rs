//! What a log knows of the producers that write to it: sequence numbers of their last batches
//! and their open transactions.
//!
//! - [`entry`]: one producer.
//! - [`origin`]: where appends come from.
//! - [`pending`]: the effect of one append, checked before it is written and committed after.
//! - [`snapshot`]: the `.snapshot` file.
//! - [`remake`]: one that is gone or damaged, made anew.
//! - [`marker`]: the record of a transaction's end.
//! - [`verification`]: transactions that the coordinator is being asked about.
//!
//! [`ProducerStates`] holds all producers of a log. It is rebuilt at open from the newest snapshot
//! and the batches after it, so it must be a function of the log's content alone.

pub(crate) mod entry;
pub(crate) mod marker;
mod origin;
pub(crate) mod pending;
mod remake;
pub(crate) mod snapshot;
pub(crate) mod verification;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use klamm_records::control::EndTransactionMarker;

use crate::batch::BatchMeta;
use crate::error::LogError;
use crate::names::{DELETED_SUFFIX, FileKind};
use crate::storage::LogDir;

pub(crate) use entry::{BatchNote, ProducerEntry};
pub use origin::AppendOrigin;
pub(crate) use pending::{CompletedTxn, PendingUpdate};
pub(crate) use verification::Verifications;

/// A producer as `DescribeProducers` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Sequence number of its last record, -1 if unknown.
    pub last_sequence: i32,
    /// Largest timestamp of its last batch.
    pub last_timestamp: i64,
    /// Epoch of the coordinator that wrote its last marker, -1 if none did.
    pub coordinator_epoch: i32,
    /// Where its open transaction begins, -1 if there is none.
    pub current_txn_start_offset: i64,
    /// Offset of its last record, -1 if unknown.
    pub last_offset: i64,
}

/// All producers of a log.
#[derive(Debug)]
pub(crate) struct ProducerStates {
    dir: Arc<LogDir>,
    producers: BTreeMap<i64, ProducerEntry>,
    /// Transactions that are being verified. Not part of the log: lost with the process.
    pub(crate) verifications: Verifications,
    /// Open transactions: first offset to producer.
    ongoing: BTreeMap<i64, i64>,
    /// Ended transactions whose marker is not replicated yet: first offset to marker offset.
    unreplicated: BTreeMap<i64, i64>,
    /// Offsets of the snapshot files.
    snapshots: BTreeSet<i64>,
    /// The state covers the log below this offset.
    map_end: i64,
    /// The newest snapshot covers the log below this offset.
    snapshot_end: i64,
    expiration_ms: i64,
    removed: bool,
}

impl ProducerStates {
    pub(crate) fn new(
        dir: Arc<LogDir>,
        snapshots: BTreeSet<i64>,
        expiration_ms: i64,
    ) -> ProducerStates {
        ProducerStates {
            dir,
            producers: BTreeMap::new(),
            verifications: Verifications::default(),
            ongoing: BTreeMap::new(),
            unreplicated: BTreeMap::new(),
            snapshots,
            map_end: 0,
            snapshot_end: 0,
            expiration_ms,
            removed: false,
        }
    }

    pub(crate) fn set_expiration_ms(&mut self, ms: i64) {
        self.expiration_ms = ms;
    }

    pub(crate) fn map_end(&self) -> i64 {
        self.map_end
    }

    pub(crate) fn set_map_end(&mut self, offset: i64) {
        self.map_end = offset;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.producers.is_empty() && self.unreplicated.is_empty()
    }

    pub(crate) fn get(&self, producer_id: i64) -> Option<&ProducerEntry> {
        self.producers.get(&producer_id)
    }

    pub(crate) fn active(&self) -> Vec<ActiveProducer> {
        self.producers
            .iter()
            .map(|(&producer_id, entry)| ActiveProducer {
                producer_id,
                producer_epoch: entry.epoch,
                last_sequence: entry.last_sequence(),
                last_timestamp: entry.last_timestamp,
                coordinator_epoch: entry.coordinator_epoch,
                current_txn_start_offset: entry.txn_first_offset.unwrap_or(-1),
                last_offset: entry.last_offset(),
            })
            .collect()
    }

    /// Refuses an epoch older than one that was seen.
    pub(crate) fn check_epoch(
        &self,
        producer_id: i64,
        got: i16,
        offset: i64,
    ) -> Result<(), LogError> {
        match self.get(producer_id) {
            Some(entry) if got < entry.epoch => Err(LogError::InvalidProducerEpoch {
                producer_id,
                offset,
                got,
                current: entry.epoch,
            }),
            _ => Ok(()),
        }
    }

    /// Whether the producer has a transaction open at this epoch.
    pub(crate) fn has_transaction(&self, producer_id: i64, epoch: i16) -> bool {
        self.get(producer_id)
            .is_some_and(|entry| entry.txn_first_offset.is_some() && entry.epoch == epoch)
    }

    /// Whether there are transactions that hold back the last stable offset or may do so.
    pub(crate) fn has_transactions(&self) -> bool {
        !self.ongoing.is_empty() || !self.unreplicated.is_empty()
    }

    /// The first offset that a `read_committed` consumer must not see yet: the start of the first
    /// transaction that is open or whose marker is not below the high watermark.
    pub(crate) fn first_unstable_offset(&mut self, high_watermark: i64) -> Option<i64> {
        self.unreplicated.retain(|_, last| *last >= high_watermark);
        let undecided = self.ongoing.first_key_value().map(|(&first, _)| first);
        let unreplicated = self.unreplicated.first_key_value().map(|(&first, _)| first);
        match (undecided, unreplicated) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Takes over the checked effect of an append that is written now.
    pub(crate) fn commit(&mut self, update: PendingUpdate) {
        let (producer_id, entry, started) = update.into_parts();
        self.producers
            .entry(producer_id)
            .or_insert_with(ProducerEntry::unknown)
            .merge(entry);
        for first_offset in started {
            self.ongoing.insert(first_offset, producer_id);
        }
    }

    /// The last stable offset once `txn` is complete, replication aside. A follower, which is given
    /// many batches at once, knows of transactions by then that begin behind the marker: they do
    /// not count.
    pub(crate) fn last_stable_offset_after(&self, txn: &CompletedTxn) -> i64 {
        let end = txn.last_offset + 1;
        self.ongoing
            .iter()
            .find(|&(_, &producer_id)| producer_id != txn.producer_id)
            .map_or(end, |(&first, _)| first.min(end))
    }

    /// Moves a transaction from the open to the ended ones.
    pub(crate) fn complete(&mut self, txn: &CompletedTxn) {
        self.ongoing.remove(&txn.first_offset);
        self.unreplicated.insert(txn.first_offset, txn.last_offset);
    }

    /// Replays a batch that is in the log already. Returns the transaction it ends, if any, with
    /// the last stable offset after it.
    pub(crate) fn replay(
        &mut self,
        batch: &BatchMeta,
        marker: Option<EndTransactionMarker>,
    ) -> Option<(CompletedTxn, i64)> {
        self.map_end = batch.next_offset();
        if !batch.has_producer_id() {
            return None;
        }
        let mut update = PendingUpdate::new(
            batch.producer_id,
            self.get(batch.producer_id),
            None,
            AppendOrigin::Replication,
        );
        // With this origin nothing but a producer that writes outside of its own transaction is
        // refused, and what is in the log counts.
        let completed = update.add(batch, marker).ok().flatten();
        self.commit(update);
        let txn = completed?;
        let stable = self.last_stable_offset_after(&txn);
        self.complete(&txn);
        Some((txn, stable))
    }

    /// Forgets producers that were idle too long and have no open transaction. Returns when there
    /// may be one to forget again, if nothing is appended until then.
    pub(crate) fn expire(&mut self, now_ms: i64) -> Option<i64> {
        let expiration_ms = self.expiration_ms;
        self.producers
            .retain(|_, entry| !entry.is_expired(now_ms, expiration_ms));
        let idle = self
            .producers
            .values()
            .filter(|entry| entry.txn_first_offset.is_none());
        let next = idle.map(|entry| entry.last_timestamp).min();
        let next = next.map(|ms| ms.saturating_add(expiration_ms));
        let verified = self.verifications.expire(now_ms, expiration_ms);
        next.into_iter().chain(verified).min()
    }

    /// Writes a snapshot at the current end, unless the newest one is there already. Not synced:
    /// whoever flushes does that with [`snapshot_file`](Self::snapshot_file), off the append path.
    /// Returns whether one was written.
    pub(crate) fn take_snapshot(&mut self) -> Result<bool, LogError> {
        let due = self.map_end > self.snapshot_end;
        if due {
            let path = self.dir.file(self.map_end, FileKind::Snapshot);
            snapshot::write(&*self.dir.fs, &path, &self.producers)?;
            self.snapshots.insert(self.map_end);
            self.snapshot_end = self.map_end;
            self.dir.note_new_file();
        }
        Ok(due)
    }

    pub(crate) fn snapshot_offsets(&self) -> Vec<i64> {
        self.snapshots.iter().copied().collect()
    }

    pub(crate) fn latest_snapshot(&self) -> Option<i64> {
        self.snapshots.last().copied()
    }

    /// Removes snapshots that belong to no segment, except the newest one if it is beyond the
    /// last segment's start (a clean shutdown writes it).
    pub(crate) fn remove_stray_snapshots(&mut self, segments: &[i64]) -> Result<(), LogError> {
        let last_segment = segments.last().copied();
        let strays: Vec<i64> = self
            .snapshots
            .iter()
            .copied()
            .filter(|offset| segments.binary_search(offset).is_err())
            .collect();
        let keep = strays
            .last()
            .copied()
            .filter(|&newest| last_segment.is_none_or(|last| newest >= last));
        for offset in strays {
            if Some(offset) != keep {
                self.remove_snapshot(offset)?;
            }
        }
        Ok(())
    }

    /// Removes snapshots that reach beyond `end`.
    pub(crate) fn remove_snapshots_above(&mut self, end: i64) -> Result<(), LogError> {
        for offset in self.snapshot_offsets() {
            if offset > end {
                self.remove_snapshot(offset)?;
            }
        }
        Ok(())
    }

    /// Whether snapshots were removed since this was last asked. If a crash brought one back
    /// beside other batches than it was made of, it would be believed.
    pub(crate) fn take_removed(&mut self) -> bool {
        std::mem::take(&mut self.removed)
    }

    /// Goes back to the newest snapshot within `log_start..=log_end`, or to nothing. The caller
    /// replays the batches from [`map_end`](Self::map_end) on.
    pub(crate) fn truncate_and_reload(
        &mut self,
        log_start: i64,
        log_end: i64,
        now_ms: i64,
    ) -> Result<(), LogError> {
        self.remove_snapshots_outside(log_start, log_end)?;
        if log_end == self.map_end {
            self.on_log_start(log_start);
            return Ok(());
        }
        self.producers.clear();
        self.ongoing.clear();
        self.unreplicated.clear();
        self.load_newest(log_start, now_ms)
    }

    fn remove_snapshots_outside(&mut self, start: i64, end: i64) -> Result<(), LogError> {
        for offset in self.snapshot_offsets() {
            if offset > end || offset <= start {
                self.remove_snapshot(offset)?;
            }
        }
        Ok(())
    }

    /// The content of a snapshot of this state, if it is no longer than `bytes_max`.
    pub(crate) fn encode(&self, bytes_max: usize) -> Option<Vec<u8>> {
        (snapshot::len(&self.producers) <= bytes_max).then(|| snapshot::encode(&self.producers))
    }

    /// Takes over what [`encode`](Self::encode) gave at the end of the log. Returns false, and has
    /// changed nothing, if it is damaged.
    ///
    /// # Errors
    /// The disk's, which removes or writes snapshots.
    pub(crate) fn resume(
        &mut self,
        content: &[u8],
        (start, end): (i64, i64),
        now_ms: i64,
    ) -> Result<bool, LogError> {
        let Ok(producers) = snapshot::decode(content) else {
            return Ok(false);
        };
        self.remove_snapshots_outside(start, end)?;
        self.adopt(producers, now_ms);
        self.map_end = end;
        self.snapshot_end = self.latest_snapshot().unwrap_or(start);
        self.take_snapshot()?;
        Ok(true)
    }

    /// The producers of a snapshot from elsewhere, which is to become the one at `offset`.
    ///
    /// # Errors
    /// [`LogError::MalformedFile`].
    pub(crate) fn parse(
        &self,
        content: &[u8],
        offset: i64,
    ) -> Result<BTreeMap<i64, ProducerEntry>, LogError> {
        snapshot::decode(content).map_err(|problem| LogError::MalformedFile {
            file: self.dir.file(offset, FileKind::Snapshot),
            problem,
        })
    }

    /// Goes on with these producers at the end of a log without batches, and writes a snapshot.
    pub(crate) fn restore(
        &mut self,
        producers: BTreeMap<i64, ProducerEntry>,
        offset: i64,
        now_ms: i64,
    ) -> Result<(), LogError> {
        self.adopt(producers, now_ms);
        self.map_end = offset;
        self.take_snapshot().map(drop)
    }

    /// Takes over the producers of a snapshot, but for those that were idle for too long since.
    fn adopt(&mut self, producers: BTreeMap<i64, ProducerEntry>, now_ms: i64) {
        for (producer_id, entry) in producers {
            if !entry.is_expired(now_ms, self.expiration_ms) {
                if let Some(first) = entry.txn_first_offset {
                    self.ongoing.insert(first, producer_id);
                }
                self.producers.insert(producer_id, entry);
            }
        }
    }

    fn load_newest(&mut self, log_start: i64, now_ms: i64) -> Result<(), LogError> {
        while let Some(offset) = self.latest_snapshot() {
            let path = self.dir.file(offset, FileKind::Snapshot);
            match snapshot::read(&*self.dir.fs, &path) {
                Ok(producers) => {
                    self.adopt(producers, now_ms);
                    self.map_end = offset;
                    self.snapshot_end = offset;
                    return Ok(());
                }
                // A snapshot can be made again from the log, so a damaged one is dropped.
                Err(LogError::MalformedFile { .. }) => self.remove_snapshot(offset)?,
                Err(error) => return Err(error),
            }
        }
        self.map_end = log_start;
        self.snapshot_end = log_start;
        Ok(())
    }

    pub(crate) fn on_log_start(&mut self, log_start: i64) {
        self.unreplicated.retain(|_, last| *last >= log_start);
        self.map_end = self.map_end.max(log_start);
        self.snapshot_end = self.latest_snapshot().unwrap_or(log_start);
    }

    /// Takes over what `other` knows, whose log holds the same up to `end`: a copy may not know of
    /// producers whose batches were gone when it was made. The next snapshot says so.
    pub(crate) fn take_over(&mut self, other: &ProducerStates, end: i64) {
        self.producers.clone_from(&other.producers);
        self.ongoing.clone_from(&other.ongoing);
        self.unreplicated.clone_from(&other.unreplicated);
        self.map_end = end;
        self.snapshot_end = 0;
    }

    /// Forgets everything, files included; the log begins anew at `offset`.
    pub(crate) fn reset(&mut self, offset: i64) -> Result<(), LogError> {
        self.producers.clear();
        self.ongoing.clear();
        self.unreplicated.clear();
        for offset in self.snapshot_offsets() {
            self.remove_snapshot(offset)?;
        }
        self.snapshot_end = 0;
        self.map_end = offset;
        Ok(())
    }

    fn remove_snapshot(&mut self, offset: i64) -> Result<(), LogError> {
        self.dir
            .remove_if_exists(&self.dir.file(offset, FileKind::Snapshot))?;
        self.snapshots.remove(&offset);
        self.removed = true;
        Ok(())
    }

    /// Renames the snapshot of a deleted segment; returns the file to remove later. One that cannot
    /// be renamed stays known, so that it is removed where snapshots are: left behind unknown, it
    /// would be believed by a later start.
    pub(crate) fn mark_snapshot_deleted(&mut self, offset: i64) -> Option<PathBuf> {
        if !self.snapshots.contains(&offset) {
            return None;
        }
        let from = self.dir.file(offset, FileKind::Snapshot);
        let mut to = from.clone().into_os_string();
        to.push(DELETED_SUFFIX);
        let to = PathBuf::from(to);
        self.dir.fs.rename(&from, &to).ok()?;
        self.snapshots.remove(&offset);
        Some(to)
    }

    /// The file of the snapshot at this offset, if there is one.
    pub(crate) fn snapshot_file(&self, offset: i64) -> Option<PathBuf> {
        let there = self.snapshots.contains(&offset);
        there.then(|| self.dir.file(offset, FileKind::Snapshot))
    }
}

#[cfg(test)]
mod tests;
