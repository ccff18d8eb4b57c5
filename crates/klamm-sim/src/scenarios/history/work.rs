//! What is done to the log.

use klamm_env::{Clock as _, Rng as _};
use klamm_log::{AppendOrigin, LogConfig, LogError};
use klamm_records::control::EndTransactionMarker;
use klamm_records::{BatchBuilder, BatchOptions, Compression, PreparedBatch, TimestampType};

use super::super::Violation;
use super::batch::{Batch, parse};
use super::driver::{Driver, told};
use super::producers::Verdict;
use super::retention;

/// Ids below write transactions.
const TRANSACTIONAL: i64 = 3;
const PRODUCERS: i64 = 5;
const KEYS: u64 = 6;

/// A batch as its producer made it, at offset 0.
struct Made {
    bytes: bytes::Bytes,
    batch: Batch,
}

impl Driver<'_> {
    /// A random configuration.
    pub(super) fn random_config(&self) -> LogConfig {
        let rng = &self.rng;
        LogConfig {
            segment_bytes: [1 << 13, 1 << 14, 1 << 16][rng.index(3)],
            index_interval_bytes: [1, 512, 4096][rng.index(3)],
            segment_index_bytes: [120, 1 << 12][rng.index(2)],
            segment_ms: if rng.one_in(3) { 4_000 } else { i64::MAX },
            flush_messages: if rng.one_in(4) {
                1 + rng.below(40) as i64
            } else {
                i64::MAX
            },
            flush_ms: if rng.one_in(4) { 2_000 } else { i64::MAX },
            timestamp_type: if rng.one_in(5) {
                TimestampType::LogAppendTime
            } else {
                TimestampType::CreateTime
            },
            preallocate: rng.one_in(8),
            retention_ms: [-1, 6_000, 15_000][rng.index(3)],
            retention_bytes: [-1, -1, 20_000][rng.index(3)],
            file_delete_delay_ms: 1_000,
            producer_id_expiration_ms: [8_000, 86_400_000][rng.index(2)],
            compact: self.compacts,
            delete: !self.compacts || rng.one_in(2),
            delete_retention_ms: [0, 3_000, 86_400_000][rng.index(3)],
            min_cleanable_dirty_ratio: 0.0,
            ..LogConfig::default()
        }
    }

    fn build(&mut self, options: BatchOptions, records: u64) -> Option<Made> {
        let rng = self.rng.clone();
        let codec = if rng.one_in(6) {
            Compression::Lz4
        } else {
            Compression::None
        };
        let options = BatchOptions {
            codec: codec.into(),
            ..options
        };
        let mut builder = BatchBuilder::new(options);
        for _ in 0..records {
            self.next_value += 1;
            let mut value = self.next_value.to_be_bytes().to_vec();
            let padding = rng.index(if rng.one_in(5) { 2000 } else { 150 });
            value.extend(rng.bytes(padding));
            let value = (!rng.one_in(8)).then_some(value);
            let key = rng.below(KEYS).to_be_bytes();
            let back = if rng.one_in(12) { 20_000 } else { 900 };
            let timestamp = self.now_ms() - rng.range(0, back);
            builder
                .append(timestamp, Some(&key), value.as_deref(), [])
                .ok()?;
        }
        made(builder.build().ok()?)
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.run.clock.wall_ms()
    }

    fn append_time(&self) -> Option<i64> {
        let stamps = self.config.timestamp_type == TimestampType::LogAppendTime;
        stamps.then(|| self.now_ms())
    }

    /// An append by the leader, from whoever the seed says.
    pub(super) fn append(&mut self) -> Result<(), Violation> {
        self.reconcile()?;
        match self.rng.index(10) {
            _ if self.compacts => self.append_plain(),
            0..4 => self.append_plain(),
            4..9 => self.append_of_producer(),
            _ => self.append_marker(),
        }
    }

    fn append_plain(&mut self) -> Result<(), Violation> {
        let count = 1 + self.rng.below(3);
        let made: Vec<Made> = (0..count)
            .filter_map(|_| {
                let records = 1 + self.rng.below(5);
                self.build(BatchOptions::default(), records)
            })
            .collect();
        self.lead(made, AppendOrigin::Client, &[Verdict::Append])
    }

    /// The next batch of a producer, or one that it must not write.
    fn append_of_producer(&mut self) -> Result<(), Violation> {
        let rng = self.rng.clone();
        let id = rng.range(0, PRODUCERS);
        let mut records = 1 + rng.below(4);
        let mut transactional = id < TRANSACTIONAL;
        let (mut epoch, mut sequence) = (0, 0);
        if let Some(known) = self.model.producers.known.get(&id) {
            epoch = known.epoch;
            sequence = known.batches.last().map_or(0, |&(_, last, ..)| last + 1);
            match rng.index(14) {
                0 | 1 => {
                    if let Some(&(first, last, ..)) = rng.pick(&known.batches) {
                        sequence = first;
                        records = (last - first + 1) as u64;
                    }
                }
                2 => sequence += rng.range(1, 4) as i32,
                3 => sequence = (sequence - 1).max(0),
                4 => epoch = (epoch - 1).max(0),
                5 => {
                    epoch += 1;
                    sequence = 0;
                }
                6 => epoch += 1,
                7 => transactional = !transactional,
                _ => {}
            }
        }
        let options = BatchOptions {
            producer_id: id,
            producer_epoch: epoch,
            base_sequence: sequence,
            transactional,
            ..BatchOptions::default()
        };
        let Some(made) = self.build(options, records) else {
            return Ok(());
        };
        let verdicts = self.model.producers.verdicts(&made.batch, 0);
        self.lead(vec![made], AppendOrigin::Client, &verdicts)
    }

    /// The end of a transaction, or a marker that comes at the wrong time.
    fn append_marker(&mut self) -> Result<(), Violation> {
        let rng = self.rng.clone();
        let id = rng.range(0, TRANSACTIONAL);
        let transaction_version = [0, 2][rng.index(2)];
        let mut epoch = 0;
        let mut coordinator_epoch = self.coordinator_epoch;
        if let Some(known) = self.model.producers.known.get(&id) {
            let bump = i16::from(transaction_version == 2);
            epoch = (known.epoch + bump - i16::from(rng.one_in(8))).max(0);
            if known.txn.is_none() && !rng.one_in(4) {
                return Ok(());
            }
        }
        match rng.index(8) {
            0 => self.coordinator_epoch += 1,
            1 => coordinator_epoch = (coordinator_epoch - 1).max(0),
            _ => {}
        }
        let marker = EndTransactionMarker {
            committed: rng.one_in(2),
            coordinator_epoch,
        };
        let bytes = marker.to_batch(id, epoch, self.now_ms());
        let Some(made) = bytes.ok().and_then(made) else {
            return Ok(());
        };
        let verdicts = self
            .model
            .producers
            .verdicts(&made.batch, transaction_version);
        let origin = AppendOrigin::TxnMarkers {
            transaction_version,
        };
        self.lead(vec![made], origin, &verdicts)
    }

    /// Appends as the leader, and compares what the log says with the verdict of the model.
    fn lead(
        &mut self,
        made: Vec<Made>,
        origin: AppendOrigin,
        verdicts: &[Verdict],
    ) -> Result<(), Violation> {
        let Some(subject) = &self.subject else {
            return Ok(());
        };
        let mut prepared: Vec<PreparedBatch> = made
            .iter()
            .filter_map(|made| PreparedBatch::trusted(made.bytes.clone()).ok())
            .collect();
        let mut next = self.model.end;
        let append_time = self.append_time();
        let mut placed = Vec::new();
        for made in made {
            placed.push(made.batch.placed(next, self.epoch, append_time));
            next = placed.last().map_or(next, Batch::next);
        }
        let now_ms = self.now_ms();
        let result = subject.append(&mut prepared, self.epoch, now_ms, origin);
        let told = match &result {
            Ok(info) if info.duplicate => format!("duplicate of {}", info.first_offset),
            result => told(result),
        };
        self.note(format_args!(
            "append {}..{next}, {verdicts:?}: {told}",
            self.model.end
        ));
        let right = match &result {
            Ok(info) => {
                let place = (info.first_offset, info.last_offset);
                if info.duplicate {
                    verdicts.contains(&Verdict::Duplicate(place.0, place.1))
                } else {
                    verdicts.contains(&Verdict::Append) && place == (self.model.end, next - 1)
                }
            }
            Err(error) => match verdict_of(error) {
                Some(verdict) => verdicts.contains(&verdict),
                // Too large for a segment; the disk's failures come when they like.
                None => {
                    error.is_storage_failure() || matches!(error, LogError::BatchTooLarge { .. })
                }
            },
        };
        if !right {
            let detail = format!("{verdicts:?} was due, the log says {told}");
            return Err(Violation::new("producers", detail));
        }
        let duplicate = result.as_ref().is_ok_and(|info| info.duplicate);
        if !duplicate {
            self.appended(&placed, &result);
        }
        Ok(())
    }

    /// An append by a follower: what a leader of perhaps several epochs wrote, cut anywhere.
    pub(super) fn follow(&mut self) -> Result<(), Violation> {
        let rng = self.rng.clone();
        let mut bytes = Vec::new();
        let mut placed = Vec::new();
        let mut next = self.model.end;
        let mut epoch = self.epoch;
        for _ in 0..1 + rng.below(4) {
            let records = 1 + rng.below(4);
            let Some(made) = self.build(BatchOptions::default(), records) else {
                return Ok(());
            };
            if rng.one_in(4) {
                epoch += 1;
            }
            let batch = made.batch.placed(next, epoch, None);
            let Ok(mut prepared) = PreparedBatch::trusted(made.bytes) else {
                return Ok(());
            };
            prepared.assign(next, epoch, None);
            bytes.extend_from_slice(&prepared.to_bytes());
            next = batch.next();
            placed.push(batch);
        }
        // Batches of later epochs than the one that was fetched in must be left out.
        let fetched_in = if rng.one_in(4) { self.epoch } else { epoch };
        placed.retain(|batch| batch.epoch <= fetched_in);
        if rng.one_in(3) {
            let cut = rng.index(60).min(bytes.len());
            let len: usize = placed.iter().map(|batch| batch.size).sum();
            if cut > 0 && len == bytes.len() {
                placed.pop();
            }
            bytes.truncate(bytes.len() - cut);
        }
        self.epoch = self.epoch.max(epoch);
        let Some(subject) = &self.subject else {
            return Ok(());
        };
        let result = subject.append_as_follower(&bytes, fetched_in, self.now_ms());
        let end = placed.last().map_or(self.model.end, Batch::next);
        self.note(format_args!(
            "follow {}..{end} in epoch {fetched_in}: {}",
            self.model.end,
            told(&result)
        ));
        match &result {
            Ok(info) if info.last_offset != end - 1 => {
                let detail = format!("the follower ends at {} and not at {end}", info.last_offset);
                return Err(Violation::new("follower", detail));
            }
            Err(error)
                if !error.is_storage_failure()
                    && !matches!(error, LogError::BatchTooLarge { .. }) =>
            {
                return Err(Violation::new("follower", error.to_string()));
            }
            _ => {}
        }
        self.appended(&placed, &result);
        Ok(())
    }

    fn appended<T>(&mut self, placed: &[Batch], result: &Result<T, LogError>) {
        let Some(subject) = &self.subject else { return };
        let log = &subject.log;
        let end = placed.last().map_or(self.model.end, Batch::next);
        // The bytes may be in the log though the call failed: the flush after the write may.
        if result.is_ok() || log.log_end_offset() == end {
            let recovery_point = log.recovery_point();
            self.model.append(placed);
            if result.is_ok() {
                self.model.flushed_to = self.model.flushed_to.max(recovery_point);
            }
        } else {
            // The leader's epoch is noted before its first batch is written.
            if let Some(first) = placed.first()
                && log.latest_epoch() == Some(first.epoch)
                && self
                    .model
                    .epochs()
                    .last()
                    .is_none_or(|last| last.0 < first.epoch)
            {
                self.model.assigned = Some((first.epoch, self.model.end));
            }
            self.model.attempted.push(placed.to_vec());
        }
    }

    /// A new leader.
    pub(super) fn elect(&mut self) {
        self.epoch += 1 + self.rng.below(2) as i32;
        let Some(subject) = &self.subject else { return };
        if self.rng.one_in(2) {
            let result = subject.log.assign_epoch_start(self.epoch);
            if result.is_ok() {
                self.model.assigned = Some((self.epoch, self.model.end));
            }
            self.note(format_args!("epoch {}: {}", self.epoch, told(&result)));
        }
    }

    pub(super) fn truncate(&mut self) {
        let rng = self.rng.clone();
        let Some(subject) = &self.subject else { return };
        if rng.one_in(6) {
            let offset = rng.range(self.model.start, self.model.end + 20);
            let result = subject.log.truncate_fully_and_start_at(offset, None);
            self.note(format_args!("begin anew at {offset}: {}", told(&result)));
            match result {
                Ok(()) => self.model.start_anew(offset),
                Err(error) => self.half_done(self.model.start.min(offset), &error),
            }
            self.epoch += 1;
            return;
        }
        let offset = if rng.one_in(2) {
            // Where a leader says that an epoch ends.
            let epochs = self.model.epochs();
            let starts: Vec<i64> = epochs.iter().map(|&(_, start)| start).collect();
            rng.pick(&starts).copied()
        } else {
            let ends: Vec<i64> = self.model.live().map(Batch::next).collect();
            rng.pick(&ends).copied()
        };
        let Some(offset) = offset.filter(|&offset| offset >= self.model.start) else {
            return;
        };
        let result = subject.truncate_to(offset);
        self.note(format_args!("truncate to {offset}: {}", told(&result)));
        self.epoch += 1;
        match result {
            // An epoch without a record is forgotten all the same.
            Ok(_) if offset >= self.model.end => self.model.assigned = None,
            Ok(_) => {
                self.model.truncate_to(offset);
                self.reloaded = true;
            }
            Err(error) => self.half_done(offset, &error),
        }
    }

    /// An operation that removes batches failed: what lies below `offset` is not in doubt.
    fn half_done(&mut self, offset: i64, error: &LogError) {
        if error.is_storage_failure() {
            self.model.flushed_to = self.model.flushed_to.min(offset);
            self.loose = true;
        }
    }

    pub(super) fn delete(&mut self) {
        let Some(subject) = &self.subject else { return };
        let offset = self.rng.range(self.model.start, self.model.end + 1);
        subject.log.set_high_watermark(self.model.end);
        let result = subject.log.delete_records_before(offset);
        self.note(format_args!("delete {offset}: {}", told(&result)));
        if result.is_ok() {
            self.model.delete_below(offset);
        }
    }

    pub(super) fn retain(&mut self) -> Result<(), Violation> {
        let Some(subject) = &self.subject else {
            return Ok(());
        };
        let now_ms = self.now_ms();
        let before = subject.segments();
        let wanted = retention::remaining(&self.model, &before, &self.config, now_ms);
        let result = subject.apply_retention(now_ms, self.model.end);
        self.note(format_args!("retain: {}", told(&result)));
        match result {
            Ok(_) => {
                let found = subject.segments();
                let all = wanted.is_empty() && found == [self.model.end];
                let judged = retention::is_known(&self.model, &before);
                if judged && found != wanted && !all {
                    let detail = format!("of {before:?} remain {found:?} and not {wanted:?}");
                    return Err(Violation::new("retention", detail));
                }
                let first = found.first().copied().unwrap_or(0);
                self.model.delete_below(first);
            }
            Err(error) => {
                self.model.delete_below(subject.log.log_start_offset());
                self.loose |= error.is_storage_failure();
            }
        }
        Ok(())
    }

    pub(super) fn reconfigure(&mut self) {
        self.config = self.random_config();
        let Some(subject) = &self.subject else { return };
        subject.update_config(self.config.clone());
        self.note("another config");
    }
}

fn verdict_of(error: &LogError) -> Option<Verdict> {
    match error {
        LogError::OutOfOrderSequence { .. } => Some(Verdict::OutOfOrder),
        LogError::InvalidProducerEpoch { .. } => Some(Verdict::Fenced),
        LogError::InvalidTxnState { .. } => Some(Verdict::InvalidTxnState),
        LogError::TransactionCoordinatorFenced { .. } => Some(Verdict::CoordinatorFenced),
        _ => None,
    }
}

fn made(bytes: bytes::Bytes) -> Option<Made> {
    let (batches, _) = parse(&bytes).ok()?;
    let batch = batches.into_iter().next()?;
    Some(Made { bytes, batch })
}
