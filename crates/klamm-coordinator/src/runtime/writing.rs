//! How a driver writes: records into batches, batches into the log.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_records::batch::BuildError;
use klamm_records::control::EndTransactionMarker;
use klamm_records::{BatchBuilder, BatchOptions, HEADER_LEN};

use super::driver::{Driver, End, EndAnswer, Parked, TransactionEnd};
use super::shard::{
    CoordinatorRecord, EncodedRecord, RecordOrigin, Shard, TransactionalProducer, WriteOutcome,
};
use super::storage::BatchKind;

/// The most that the fields of a record beside key and value take in a batch.
const RECORD_OVERHEAD_BYTES: usize = 32;
/// Records that go into the next batch, and what they already changed.
pub(super) struct Batch<S: Shard> {
    pub(super) records: Vec<EncodedRecord>,
    pub(super) bytes: usize,
    pub(super) undos: Vec<S::Undo>,
    pub(super) ends: VecDeque<End<S>>,
    pub(super) transaction: Option<TransactionalProducer>,
}

impl<S: Shard> Default for Batch<S> {
    fn default() -> Self {
        Batch {
            records: Vec::new(),
            bytes: HEADER_LEN,
            undos: Vec::new(),
            ends: VecDeque::new(),
            transaction: None,
        }
    }
}

impl<S: Shard> Driver<S> {
    /// Appends a marker behind everything before it, and only then applies it: there is nothing
    /// to take back if the append fails.
    pub(super) async fn end_transaction(&mut self, end: TransactionEnd, answer: EndAnswer) {
        if !self.batch.records.is_empty() {
            let _ = self.flush().await;
        }
        let marker = EndTransactionMarker {
            committed: end.committed,
            coordinator_epoch: end.coordinator_epoch,
        };
        let timestamp_ms = self.shared.now().wall_ms;
        let appended = match marker.to_batch(end.producer_id, end.producer_epoch, timestamp_ms) {
            Ok(batch) => {
                let kind = BatchKind::Marker {
                    transaction_version: end.transaction_version,
                };
                self.append(batch, kind).await
            }
            Err(error) => Err(self.unbuilt(&error)),
        };
        if let Err(error) = appended {
            let _ = answer.send(Err(error));
            return;
        }
        let undos = self.shard.replay_marker(end.producer_id, end.committed);
        let end = End {
            deferred: None,
            completion: None,
            marker: Some(answer),
            deadline_ms: self.write_deadline_ms(),
        };
        self.parked.push_back(Parked {
            commit_at: self.next_offset,
            undos,
            ends: VecDeque::from([end]),
        });
    }

    /// Puts records into the batch, appending it first if they do not fit beside what it holds.
    pub(super) async fn write(
        &mut self,
        records: Vec<S::Record>,
        replay: bool,
        atomic: bool,
    ) -> Result<(), ErrorCode> {
        let bytes_max = self.shared.writer.max_batch_bytes(self.partition);
        let mut encoded = Vec::with_capacity(records.len());
        for record in &records {
            let record = record.encode().map_err(|error| {
                tracing::error!(partition = self.partition, %error, "a record was not written");
                ErrorCode::UnknownServerError
            })?;
            if HEADER_LEN + size_of_record(&record) > bytes_max {
                return Err(ErrorCode::RecordListTooLarge);
            }
            encoded.push(record);
        }
        if atomic {
            let bytes: usize = encoded.iter().map(size_of_record).sum();
            if HEADER_LEN + bytes > bytes_max {
                return Err(ErrorCode::RecordListTooLarge);
            }
            self.make_room(bytes, bytes_max).await?;
        }
        for (record, encoded) in records.iter().zip(encoded) {
            let bytes = size_of_record(&encoded);
            if !atomic {
                self.make_room(bytes, bytes_max).await?;
            }
            if replay {
                let index = i64::try_from(self.batch.records.len()).unwrap_or(i64::MAX);
                let origin = RecordOrigin {
                    offset: self.next_offset.saturating_add(index),
                    producer_id: self
                        .batch
                        .transaction
                        .map_or(-1, |transaction| transaction.producer_id),
                };
                let undo = self.shard.replay(origin, record, self.shared.now());
                self.batch.undos.push(undo);
            }
            self.batch.bytes += bytes;
            self.batch.records.push(encoded);
        }
        Ok(())
    }

    async fn make_room(&mut self, bytes: usize, bytes_max: usize) -> Result<(), ErrorCode> {
        if self.batch.records.is_empty() || self.batch.bytes + bytes <= bytes_max {
            return Ok(());
        }
        self.flush().await
    }

    /// Appends the batch. If that fails, all that it changed is taken back and its ends are
    /// settled with the error.
    pub(super) async fn flush(&mut self) -> Result<(), ErrorCode> {
        let batch = mem::take(&mut self.batch);
        let kind = match batch.transaction {
            None => BatchKind::Plain,
            Some(TransactionalProducer { guard, .. }) => BatchKind::Transactional { guard },
        };
        let appended = match self.build(&batch.records, batch.transaction) {
            Ok(bytes) => self.append(bytes, kind).await,
            Err(error) => Err(self.unbuilt(&error)),
        };
        match appended {
            Ok(()) => {
                self.shared.metrics.batches_appended.increment();
                let count = batch.records.len() as u64;
                self.shared.metrics.records_appended.add(count);
                self.parked.push_back(Parked {
                    commit_at: self.next_offset,
                    undos: batch.undos,
                    ends: batch.ends,
                });
                Ok(())
            }
            Err(error) => {
                self.shared.metrics.appends_failed.increment();
                tracing::info!(partition = self.partition, %error, "a batch was not appended");
                for undo in batch.undos.into_iter().rev() {
                    self.shard.undo(undo);
                }
                let ends = batch.ends.into_iter();
                self.settled
                    .extend(ends.map(|end| (end, WriteOutcome::Failed(error))));
                Err(error)
            }
        }
    }

    /// Appends a batch at the end that is expected.
    async fn append(&mut self, bytes: Bytes, kind: BatchKind) -> Result<(), ErrorCode> {
        let epoch = self.epoch.load(Ordering::Acquire);
        let append = self
            .shared
            .writer
            .append(self.partition, epoch, bytes, kind);
        let appended = append.await.map_err(|error| error.code())?;
        if appended.base_offset != self.next_offset {
            tracing::warn!(
                partition = self.partition,
                expected = self.next_offset,
                actual = appended.base_offset,
                "somebody else appended to the coordinator's partition"
            );
        }
        self.next_offset = appended.last_offset + 1;
        Ok(())
    }

    fn unbuilt(&self, error: &BuildError) -> ErrorCode {
        tracing::error!(partition = self.partition, %error, "a batch was not built");
        ErrorCode::UnknownServerError
    }

    fn build(
        &self,
        records: &[EncodedRecord],
        transaction: Option<TransactionalProducer>,
    ) -> Result<Bytes, BuildError> {
        let bytes = records.iter().map(size_of_record).sum();
        let mut options = BatchOptions {
            codec: self.shared.options.codec,
            ..BatchOptions::default()
        };
        if let Some(producer) = transaction {
            options.producer_id = producer.producer_id;
            options.producer_epoch = producer.producer_epoch;
            options.base_sequence = 0;
            options.transactional = true;
        }
        let mut builder = BatchBuilder::with_capacity(options, bytes);
        let timestamp_ms = self.shared.now().wall_ms;
        for record in records {
            let value = record.value.as_deref();
            builder.append(timestamp_ms, Some(&record.key), value, [])?;
        }
        builder.build()
    }
}

fn size_of_record(record: &EncodedRecord) -> usize {
    let value = record.value.as_ref().map_or(0, Bytes::len);
    record.key.len() + value + RECORD_OVERHEAD_BYTES
}
