//! The task that drives one shard.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_records::batch::BuildError;
use klamm_records::{BatchBuilder, BatchOptions, HEADER_LEN};
use tokio::sync::{mpsc, oneshot, watch};

use super::loader::Loaded;
use super::runner::Shared;
use super::shard::{
    CoordinatorRecord, Effects, EncodedRecord, Now, RecordOrigin, ReplyToken, Shard, WriteOutcome,
};

/// The most that the fields of a record beside key and value take in a batch.
const RECORD_OVERHEAD_BYTES: usize = 32;
/// How many requests go into one round at most: a limit on how long the first of them waits.
const REQUESTS_PER_ROUND: usize = 1_024;

/// A request on its way to a driver.
pub(super) struct Submission<S: Shard> {
    pub request: S::Request,
    pub answer: oneshot::Sender<Result<S::Response, ErrorCode>>,
}

/// What is due when the fate of some records is known.
struct End<S: Shard> {
    deferred: Option<(ReplyToken, S::Response)>,
    completion: Option<S::Completion>,
    deadline_ms: u64,
}

/// Records that go into the next batch, and what they already changed.
struct Batch<S: Shard> {
    records: Vec<EncodedRecord>,
    bytes: usize,
    undos: Vec<S::Undo>,
    ends: VecDeque<End<S>>,
}

impl<S: Shard> Default for Batch<S> {
    fn default() -> Self {
        Batch {
            records: Vec::new(),
            bytes: HEADER_LEN,
            undos: Vec::new(),
            ends: VecDeque::new(),
        }
    }
}

/// A batch in the log that waits for the high watermark.
struct Parked<S: Shard> {
    /// The batch is committed when the high watermark is here.
    commit_at: i64,
    undos: Vec<S::Undo>,
    ends: VecDeque<End<S>>,
}

/// Drives one shard. See the module's picture.
pub(super) struct Driver<S: Shard> {
    shard: S,
    partition: i32,
    epoch: Arc<AtomicI32>,
    shared: Arc<Shared<S>>,
    next_offset: i64,
    next_token: u64,
    waiting: HashMap<ReplyToken, oneshot::Sender<Result<S::Response, ErrorCode>>>,
    inbox: VecDeque<Submission<S>>,
    batch: Batch<S>,
    parked: VecDeque<Parked<S>>,
    /// Ends whose fate is known, to be run one at a time.
    settled: VecDeque<(End<S>, WriteOutcome)>,
    /// What was asked for outside of the usual order.
    follow_ups: VecDeque<Effects<S>>,
}

impl<S: Shard> Driver<S> {
    pub(super) fn new(
        mut shard: S,
        partition: i32,
        epoch: Arc<AtomicI32>,
        shared: Arc<Shared<S>>,
        loaded: Loaded<S::Undo>,
    ) -> Self {
        let follow_ups = shard.loaded(shared.now()).into();
        let mut parked = VecDeque::new();
        if !loaded.uncommitted.is_empty() {
            parked.push_back(Parked {
                commit_at: loaded.next_offset,
                undos: loaded.uncommitted,
                ends: VecDeque::new(),
            });
        }
        Driver {
            shard,
            partition,
            epoch,
            shared,
            next_offset: loaded.next_offset,
            next_token: 0,
            waiting: HashMap::new(),
            inbox: VecDeque::new(),
            batch: Batch::default(),
            parked,
            settled: VecDeque::new(),
            follow_ups,
        }
    }

    /// Runs until `stop` resolves or nobody can submit any more. Whoever still waits is then told
    /// that this is not the coordinator.
    pub(super) async fn run(
        mut self,
        mut submissions: mpsc::Receiver<Submission<S>>,
        mut stop: oneshot::Receiver<()>,
        mut high_watermark: watch::Receiver<i64>,
    ) {
        let mut high_watermark_lives = true;
        loop {
            self.release(*high_watermark.borrow_and_update());
            self.time_out();
            self.settle().await;
            let wake = self.next_deadline_ms().map(|deadline_ms| {
                let now_ms = self.shared.now().monotonic_ms;
                Duration::from_millis(deadline_ms.saturating_sub(now_ms))
            });
            tokio::select! {
                biased;
                _ = &mut stop => break,
                changed = high_watermark.changed(), if high_watermark_lives => {
                    high_watermark_lives = changed.is_ok();
                }
                submission = submissions.recv() => match submission {
                    Some(submission) => {
                        self.inbox.push_back(submission);
                        while self.inbox.len() < REQUESTS_PER_ROUND
                            && let Ok(submission) = submissions.try_recv()
                        {
                            self.inbox.push_back(submission);
                        }
                    }
                    None => break,
                },
                () = tokio::time::sleep(wake.unwrap_or_default()), if wake.is_some() => {}
            }
        }
        self.refuse_everyone();
    }

    fn refuse_everyone(&mut self) {
        for (_, answer) in self.waiting.drain() {
            let _ = answer.send(Err(ErrorCode::NotCoordinator));
        }
        for submission in self.inbox.drain(..) {
            let _ = submission.answer.send(Err(ErrorCode::NotCoordinator));
        }
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        let end = self
            .parked
            .iter()
            .find_map(|parked| parked.ends.front())
            .map(|end| end.deadline_ms);
        match (self.shard.next_deadline_ms(), end) {
            (Some(timer), Some(end)) => Some(timer.min(end)),
            (timer, end) => timer.or(end),
        }
    }

    /// Confirms what the high watermark passed.
    fn release(&mut self, high_watermark: i64) {
        while self
            .parked
            .front()
            .is_some_and(|parked| parked.commit_at <= high_watermark)
        {
            let Some(parked) = self.parked.pop_front() else {
                return;
            };
            for undo in parked.undos {
                self.shard.commit(undo);
            }
            let ends = parked.ends.into_iter();
            self.settled
                .extend(ends.map(|end| (end, WriteOutcome::Committed)));
        }
    }

    /// Gives up on ends that waited too long. Their records stay: they may yet be committed.
    fn time_out(&mut self) {
        let now_ms = self.shared.now().monotonic_ms;
        for parked in &mut self.parked {
            while parked
                .ends
                .front()
                .is_some_and(|end| end.deadline_ms <= now_ms)
            {
                if let Some(end) = parked.ends.pop_front() {
                    self.shared.metrics.writes_timed_out.increment();
                    self.settled.push_back((end, WriteOutcome::TimedOut));
                }
            }
        }
    }

    /// Runs everything there is to run, one thing after the other, and appends what comes of it.
    async fn settle(&mut self) {
        loop {
            let now = self.shared.now();
            if let Some(effects) = self.follow_ups.pop_front() {
                self.absorb(effects).await;
            } else if let Some((end, outcome)) = self.settled.pop_front() {
                let effects = self.finish(end, outcome, now);
                self.absorb(effects).await;
            } else if let Some(effects) = self.shard.tick(now) {
                self.absorb(effects).await;
            } else if let Some(submission) = self.inbox.pop_front() {
                let token = ReplyToken(self.next_token);
                self.next_token += 1;
                self.waiting.insert(token, submission.answer);
                let effects = self.shard.handle(submission.request, token, now);
                self.absorb(effects).await;
            } else if self.batch.records.is_empty() {
                return;
            } else {
                // A failure settles the ends of the batch, which the next round runs.
                let _ = self.flush().await;
            }
        }
    }

    fn finish(&mut self, end: End<S>, outcome: WriteOutcome, now: Now) -> Effects<S> {
        if let Some((token, response)) = end.deferred {
            let answer = match outcome.error() {
                None => Ok(response),
                Some(error) => Err(error),
            };
            self.answer(token, answer);
        }
        match end.completion {
            Some(completion) => self.shard.complete(completion, outcome, now),
            None => Effects::default(),
        }
    }

    fn answer(&mut self, token: ReplyToken, answer: Result<S::Response, ErrorCode>) {
        if let Some(waiting) = self.waiting.remove(&token) {
            // A client that is gone needs no answer.
            let _ = waiting.send(answer);
        }
    }

    /// Does what the shard asks for.
    async fn absorb(&mut self, effects: Effects<S>) {
        for (token, response) in effects.replies {
            self.answer(token, Ok(response));
        }
        let timeout_ms = self.shared.options.write_timeout_ms;
        let end = End {
            deferred: effects.deferred,
            completion: effects.completion,
            deadline_ms: self.shared.now().monotonic_ms.saturating_add(timeout_ms),
        };
        if effects.records.is_empty() {
            self.await_what_is_written(end);
            return;
        }
        let written = self
            .write(effects.records, effects.replay, effects.atomic)
            .await;
        match written {
            Ok(()) => self.batch.ends.push_back(end),
            Err(error) => self.settled.push_back((end, WriteOutcome::Failed(error))),
        }
    }

    /// An end without records of its own waits for those before it.
    fn await_what_is_written(&mut self, end: End<S>) {
        if end.deferred.is_none() && end.completion.is_none() {
            return;
        }
        if !self.batch.records.is_empty() {
            self.batch.ends.push_back(end);
        } else if let Some(last) = self.parked.back_mut() {
            last.ends.push_back(end);
        } else {
            self.settled.push_back((end, WriteOutcome::Committed));
        }
    }

    /// Puts records into the batch, appending it first if they do not fit beside what it holds.
    async fn write(
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
                    producer_id: -1,
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
    async fn flush(&mut self) -> Result<(), ErrorCode> {
        let batch = mem::take(&mut self.batch);
        let appended = match self.build(&batch.records) {
            Ok(bytes) => {
                let epoch = self.epoch.load(Ordering::Acquire);
                let append = self.shared.writer.append(self.partition, epoch, bytes);
                append.await.map_err(|error| error.code())
            }
            Err(error) => {
                tracing::error!(partition = self.partition, %error, "a batch was not built");
                Err(ErrorCode::UnknownServerError)
            }
        };
        match appended {
            Ok(appended) => {
                if appended.base_offset != self.next_offset {
                    tracing::warn!(
                        partition = self.partition,
                        expected = self.next_offset,
                        actual = appended.base_offset,
                        "somebody else appended to the coordinator's partition"
                    );
                }
                self.next_offset = appended.last_offset + 1;
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

    fn build(&self, records: &[EncodedRecord]) -> Result<Bytes, BuildError> {
        let bytes = records.iter().map(size_of_record).sum();
        let options = BatchOptions {
            codec: self.shared.options.codec,
            ..BatchOptions::default()
        };
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
