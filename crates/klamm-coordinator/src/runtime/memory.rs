//! Partitions in memory: for tests, and for trying things out.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use klamm_records::batch::{set_base_offset, set_partition_leader_epoch};
use klamm_records::{BatchHeader, batches};
use tokio::sync::watch;

use super::storage::{
    Appended, BatchKind, BoxFuture, LogRange, PartitionReader, PartitionWriter, ReadError,
    WriteError,
};

/// A handful of logs in memory. Each partition comes into being when it is first touched.
///
/// What is appended is committed at once, unless [`MemoryPartitions::hold_commits`] says
/// otherwise; appends can be made to fail.
#[derive(Debug)]
pub struct MemoryPartitions {
    partitions: Mutex<BTreeMap<i32, Log>>,
    max_batch_bytes: usize,
}

#[derive(Debug)]
struct Log {
    batches: Vec<(i64, Bytes)>,
    start_offset: i64,
    end_offset: i64,
    leader_epoch: i32,
    holds_commits: bool,
    failure: Option<WriteError>,
    high_watermark: watch::Sender<i64>,
}

impl Default for Log {
    fn default() -> Self {
        Log {
            batches: Vec::new(),
            start_offset: 0,
            end_offset: 0,
            leader_epoch: 0,
            holds_commits: false,
            failure: None,
            high_watermark: watch::Sender::new(0),
        }
    }
}

impl Log {
    fn append(&mut self, leader_epoch: i32, batch: &[u8]) -> Result<Appended, WriteError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if leader_epoch < self.leader_epoch {
            return Err(WriteError::NotLeader);
        }
        let header = BatchHeader::parse(batch).map_err(|_| WriteError::Refused)?;
        let mut batch = BytesMut::from(batch);
        set_base_offset(&mut batch, self.end_offset);
        set_partition_leader_epoch(&mut batch, leader_epoch);
        let base_offset = self.end_offset;
        let last_offset = base_offset + i64::from(header.last_offset_delta);
        self.batches.push((last_offset, batch.freeze()));
        self.end_offset = last_offset + 1;
        self.leader_epoch = leader_epoch;
        if !self.holds_commits {
            self.high_watermark.send_replace(self.end_offset);
        }
        Ok(Appended {
            base_offset,
            last_offset,
        })
    }
}

impl Default for MemoryPartitions {
    fn default() -> Self {
        MemoryPartitions::new(1_048_588)
    }
}

impl MemoryPartitions {
    /// Empty partitions that take batches of up to `max_batch_bytes`.
    pub fn new(max_batch_bytes: usize) -> Self {
        MemoryPartitions {
            partitions: Mutex::new(BTreeMap::new()),
            max_batch_bytes,
        }
    }

    /// Stops or resumes committing what is appended. Resuming commits everything.
    pub fn hold_commits(&self, partition: i32, hold: bool) {
        self.with(partition, |log| {
            log.holds_commits = hold;
            if !hold {
                log.high_watermark.send_replace(log.end_offset);
            }
        });
    }

    /// Commits what is below `offset`.
    pub fn commit_to(&self, partition: i32, offset: i64) {
        self.with(partition, |log| {
            log.high_watermark.send_replace(offset.min(log.end_offset));
        });
    }

    /// Makes appends fail from now on, or work again.
    pub fn fail_appends(&self, partition: i32, failure: Option<WriteError>) {
        self.with(partition, |log| log.failure = failure);
    }

    /// Moves the leadership on: appends at an older epoch are refused.
    pub fn set_leader_epoch(&self, partition: i32, leader_epoch: i32) {
        self.with(partition, |log| log.leader_epoch = leader_epoch);
    }

    /// Appends a batch as somebody else than a coordinator, say the transaction coordinator.
    pub fn append_now(&self, partition: i32, batch: &[u8]) -> Result<Appended, WriteError> {
        self.with(partition, |log| log.append(log.leader_epoch, batch))
    }

    /// Everything in a partition, batch after batch.
    pub fn contents(&self, partition: i32) -> Bytes {
        self.with(partition, |log| {
            let mut all = BytesMut::new();
            for (_, batch) in &log.batches {
                all.extend_from_slice(batch);
            }
            all.freeze()
        })
    }

    /// How many batches a partition holds.
    pub fn batch_count(&self, partition: i32) -> usize {
        batches(&self.contents(partition)).count()
    }

    fn with<T>(&self, partition: i32, act: impl FnOnce(&mut Log) -> T) -> T {
        act(self.lock().entry(partition).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Log>> {
        self.partitions
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl PartitionWriter for MemoryPartitions {
    fn append(
        &self,
        partition: i32,
        leader_epoch: i32,
        batch: Bytes,
        _kind: BatchKind,
    ) -> BoxFuture<'_, Result<Appended, WriteError>> {
        Box::pin(async move {
            if batch.len() > self.max_batch_bytes {
                return Err(WriteError::TooLarge);
            }
            self.with(partition, |log| log.append(leader_epoch, &batch))
        })
    }

    fn high_watermark(&self, partition: i32) -> Result<watch::Receiver<i64>, WriteError> {
        Ok(self.with(partition, |log| log.high_watermark.subscribe()))
    }

    fn max_batch_bytes(&self, _partition: i32) -> usize {
        self.max_batch_bytes
    }
}

impl PartitionReader for MemoryPartitions {
    fn range(&self, partition: i32) -> Result<LogRange, ReadError> {
        Ok(self.with(partition, |log| LogRange {
            start_offset: log.start_offset,
            end_offset: log.end_offset,
        }))
    }

    fn read(
        &self,
        partition: i32,
        offset: i64,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Bytes, ReadError>> {
        let read = self.with(partition, |log| {
            let mut out = BytesMut::new();
            let rest = log
                .batches
                .iter()
                .filter(|(last_offset, _)| *last_offset >= offset);
            for (_, batch) in rest {
                if !out.is_empty() && out.len() + batch.len() > bytes_max {
                    break;
                }
                out.extend_from_slice(batch);
            }
            out.freeze()
        });
        Box::pin(async move { Ok(read) })
    }
}
