//! Reading for share groups: what is available is read and handed out; if that is nothing, the
//! request waits for records to arrive or to come back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_coordinator::share_partition::{
    AcquireMode, AcquireRequest, AcquiredRange, BatchSpan, TransactionSpan, aborted_spans,
};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::control::ControlType;
use klamm_records::{Scratch, batches};
use klamm_replication::fetch_session::{FetchPartition, TopicIdPartition};
use klamm_replication::{FetchParams, FetchedPartition};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::cells::{Cell, PartitionKey};
use super::config::ShareConfig;
use crate::shared::Shared;

/// What a ShareFetch asks for.
#[derive(Clone, Debug)]
pub(crate) struct ShareFetch {
    pub(crate) group: ByteStr,
    pub(crate) member: ByteStr,
    pub(crate) mode: AcquireMode,
    pub(crate) max_wait_ms: i32,
    pub(crate) min_bytes: i32,
    pub(crate) max_bytes: i32,
    pub(crate) max_records: i32,
    pub(crate) batch_size: i32,
}

/// What it gets of one partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) error: Option<ErrorCode>,
    pub(crate) records: Bytes,
    pub(crate) acquired: Vec<AcquiredRange>,
}

/// A partition that is being read for one request; others may when this is dropped.
struct Reading<'a> {
    broker: &'a Shared,
    /// Its place in the request.
    at: usize,
    cell: Arc<Cell>,
    fetch_offset: i64,
    /// Monotonic time at which others were kept out.
    since: Duration,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let now = self.broker.env.clock.monotonic();
        let (is_wanted, before) = {
            let mut state = self.cell.state();
            state.is_read = false;
            let before = state.read_until.replace(now);
            (std::mem::take(&mut state.is_wanted), before)
        };
        let held = now.saturating_sub(self.since);
        let idle = before.map(|before| self.since.saturating_sub(before));
        self.cell.stats.was_read(held, idle);
        if is_wanted {
            self.broker.shares.changed.notify_waiters();
        }
    }
}

impl Reading<'_> {
    /// Whether the next look would read elsewhere.
    fn has_moved(&self) -> bool {
        let state = self.cell.state();
        let next = state.partition.as_ref().map(|p| p.next_fetch_offset());
        next.is_some_and(|next| next != self.fetch_offset)
    }
}

/// One partition's read, out of its files.
struct Read {
    records: Vec<u8>,
    spans: Vec<BatchSpan>,
}

impl ShareFetch {
    /// Hands out what is available of the partitions, in their order. `None` stands for a
    /// topic that does not exist.
    pub(crate) async fn run(
        &self,
        broker: &Arc<Shared>,
        partitions: &[(PartitionKey, Option<Arc<str>>)],
    ) -> Vec<Fetched> {
        let wait = Duration::from_millis(u64::try_from(self.max_wait_ms).unwrap_or(0));
        let mut since = broker.env.clock.monotonic();
        let deadline = since + wait;
        let stats = broker.shares.stats_of(&self.group, broker.monotonic_ms());
        let config = broker.group_cluster.share_config(&self.group);
        loop {
            let seen = broker.shares.version();
            let mut answers = vec![Fetched::default(); partitions.len()];
            let (readings, denied) = self.begin(broker, &config, partitions, &mut answers).await;
            let now = broker.env.clock.monotonic();
            let left = deadline.saturating_sub(now);
            let is_last = left.is_zero() || answers.iter().any(|answer| answer.error.is_some());
            if is_last || !readings.is_empty() {
                stats.acquires.add(now.saturating_sub(since));
                since = now;
            }
            let wishes = self.wishes(&readings);
            let reads = self
                .read(broker, &config, &wishes, &readings, &mut answers)
                .await;
            let bytes: usize = reads.iter().flatten().map(|read| read.records.len()).sum();
            let enough = bytes >= usize::try_from(self.min_bytes.max(1)).unwrap_or(1);
            if enough || is_last {
                self.acquire(broker, &config, &readings, reads, &mut answers);
            }
            let is_done = |answer: &Fetched| answer.error.is_some() || !answer.acquired.is_empty();
            if is_last || answers.iter().any(is_done) {
                stats.answered(partitions.len(), readings.len());
                return answers;
            }
            let has_moved = readings.iter().any(Reading::has_moved);
            let params = self.params(&config, left);
            let waits_for_records = !enough && !wishes.is_empty();
            drop(readings);
            let mut changed = std::pin::pin!(broker.shares.changed.notified());
            changed.as_mut().enable();
            // What happened since the look would not be told any more.
            let is_free = |cell: &Arc<Cell>| !cell.state().is_read;
            if has_moved || broker.shares.version() != seen || denied.iter().any(is_free) {
                continue;
            }
            tokio::select! {
                () = changed => {}
                () = sleep(left) => {}
                _ = broker.replicas.fetch(&params, &wishes), if waits_for_records => {}
            }
        }
    }

    /// Finds the partitions that something may be handed out of, and keeps others from reading
    /// them meanwhile. The second part of the result are those that others are reading.
    async fn begin<'a>(
        &self,
        broker: &'a Shared,
        config: &ShareConfig,
        partitions: &[(PartitionKey, Option<Arc<str>>)],
        answers: &mut [Fetched],
    ) -> (Vec<Reading<'a>>, Vec<Arc<Cell>>) {
        let mut readings = Vec::with_capacity(partitions.len());
        let mut denied = Vec::new();
        for (at, (key, topic)) in partitions.iter().enumerate() {
            let Some(topic) = topic else {
                answers[at].error = Some(ErrorCode::UnknownTopicId);
                continue;
            };
            let cell = match broker.shares.load(broker, key, topic).await {
                Ok(cell) => cell,
                Err(error) => {
                    answers[at].error = Some(error);
                    continue;
                }
            };
            let fetch_offset = {
                let mut state = cell.state();
                let next = match &state.partition {
                    Some(partition) if partition.can_acquire(&config.limits) => {
                        partition.next_fetch_offset()
                    }
                    _ => continue,
                };
                if state.is_read {
                    state.is_wanted = true;
                    drop(state);
                    denied.push(cell);
                    continue;
                }
                state.is_read = true;
                next
            };
            readings.push(Reading {
                broker,
                at,
                cell,
                fetch_offset,
                since: broker.env.clock.monotonic(),
            });
        }
        (readings, denied)
    }

    fn wishes(&self, readings: &[Reading<'_>]) -> Vec<(TopicIdPartition, FetchPartition)> {
        let count = i32::try_from(readings.len().max(1)).unwrap_or(i32::MAX);
        let max_bytes = (self.max_bytes / count).max(1);
        let wishes = readings.iter().map(|reading| {
            let (_, topic_id, partition) = &reading.cell.key;
            let partition = TopicIdPartition {
                topic: Some(reading.cell.topic.clone()),
                topic_id: *topic_id,
                partition: *partition,
            };
            let wish = FetchPartition {
                fetch_offset: reading.fetch_offset,
                log_start_offset: -1,
                max_bytes,
                current_leader_epoch: None,
                last_fetched_epoch: None,
                high_watermark: None,
            };
            (partition, wish)
        });
        wishes.collect()
    }

    fn params(&self, config: &ShareConfig, wait: Duration) -> FetchParams {
        FetchParams {
            replica_id: -1,
            replica_epoch: -1,
            max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: self.min_bytes.max(1),
            max_bytes: self.max_bytes,
            isolation: FetchParams::isolation_of(-1, config.read_committed),
            leader_only: true,
        }
    }

    /// Reads what is there, without waiting.
    async fn read(
        &self,
        broker: &Arc<Shared>,
        config: &ShareConfig,
        wishes: &[(TopicIdPartition, FetchPartition)],
        readings: &[Reading<'_>],
        answers: &mut [Fetched],
    ) -> Vec<Option<Read>> {
        if wishes.is_empty() {
            return Vec::new();
        }
        let params = self.params(config, Duration::ZERO);
        let fetched = broker.replicas.fetch(&params, wishes).await;
        let mut reads = Vec::with_capacity(fetched.len());
        for (reading, answer) in readings.iter().zip(fetched) {
            if answer.error == ErrorCode::OffsetOutOfRange {
                // The log lost its beginning: the window follows, and the next look reads on.
                if let Ok(offsets) = broker
                    .replicas
                    .offsets(&reading.cell.topic, reading.cell.key.2)
                    && let Some(partition) = &mut reading.cell.state().partition
                {
                    partition.log_start_moved(offsets.log_start_offset);
                }
                reads.push(None);
                continue;
            }
            if answer.error != ErrorCode::None {
                answers[reading.at].error = Some(answer.error);
                reads.push(None);
                continue;
            }
            // Files are not read on a thread of the runtime.
            let read = spawn_blocking(move || out_of_files(&answer)).await;
            match read {
                Ok(Ok(read)) => reads.push(Some(read)),
                _ => {
                    answers[reading.at].error = Some(ErrorCode::KafkaStorageError);
                    reads.push(None);
                }
            }
        }
        reads
    }

    /// Hands out what was read, within the limits of the request.
    fn acquire(
        &self,
        broker: &Shared,
        config: &ShareConfig,
        readings: &[Reading<'_>],
        reads: Vec<Option<Read>>,
        answers: &mut [Fetched],
    ) {
        let mut left = i64::from(self.max_records);
        for (reading, read) in readings.iter().zip(reads) {
            let Some(read) = read.filter(|read| !read.spans.is_empty() && left > 0) else {
                continue;
            };
            let request = AcquireRequest {
                member: &self.member,
                mode: self.mode,
                max_records: i32::try_from(left).unwrap_or(i32::MAX),
                batch_size: self.batch_size,
                fetch_offset: reading.fetch_offset,
                batches: &read.spans,
            };
            let (acquired, deadline_ms) = {
                let mut state = reading.cell.state();
                let Some(partition) = &mut state.partition else {
                    continue;
                };
                let now_ms = broker.monotonic_ms();
                let acquired = partition.acquire(&request, &config.limits, now_ms);
                (acquired, partition.next_deadline_ms())
            };
            broker.shares.watch_deadline(deadline_ms);
            left -= acquired
                .iter()
                .map(|r| r.last_offset - r.first_offset + 1)
                .sum::<i64>();
            reading.cell.stats.acquired(&acquired);
            let answer = &mut answers[reading.at];
            answer.records = sliced(read.records, &acquired);
            answer.acquired = acquired;
        }
    }
}

fn out_of_files(answer: &FetchedPartition) -> std::io::Result<Read> {
    let mut records = answer.records.read()?;
    let mut spans = Vec::new();
    let mut walk = batches(&records);
    for batch in walk.by_ref() {
        // A batch of an older format, or one that cannot be read: what is before it is good.
        let Ok(batch) = batch else {
            break;
        };
        let header = batch.header();
        let is_control = header.attributes.is_control();
        let aborts = is_control
            && batch
                .records(&mut Scratch::default())
                .ok()
                .and_then(|mut records| records.next()?.ok())
                .and_then(|record| ControlType::from_key(record.key?).ok())
                == Some(ControlType::Abort);
        spans.push(TransactionSpan {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            producer_id: header.producer_id,
            is_transactional: header.attributes.is_transactional(),
            aborts,
            is_control,
        });
    }
    let valid = walk.valid_bytes();
    records.truncate(valid);
    let aborted = answer.aborted.iter().flatten();
    let aborted = aborted.map(|txn| (txn.producer_id, txn.first_offset));
    Ok(Read {
        spans: aborted_spans(spans, aborted),
        records,
    })
}

/// The batches from the first that something was handed out of to the last.
fn sliced(records: Vec<u8>, acquired: &[AcquiredRange]) -> Bytes {
    let (Some(first), Some(last)) = (acquired.first(), acquired.last()) else {
        return Bytes::new();
    };
    let (mut start, mut end, mut at) = (None, 0, 0);
    for batch in batches(&records).map_while(Result::ok) {
        let header = batch.header();
        let size = batch.bytes().len();
        if header.last_offset() >= first.first_offset && header.base_offset <= last.last_offset {
            start.get_or_insert(at);
            end = at + size;
        }
        at += size;
    }
    let start = start.unwrap_or(end);
    Bytes::from(records).slice(start..end)
}
