//! The Raft log over `klamm-log`: an entry is a record batch of one record, its index the offset.
//! Its term is within: as the batch's leader epoch it would cost two syncs each time it changes.
//!
//! One batch per entry, so that the log can be cut behind any entry. The newest entries stay in
//! memory: whoever applies or replicates them needs no disk.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use klamm_env::{Env, FileExt};
use klamm_log::{Log, LogConfig, LogError, LogOpen};

use klamm_records::{BatchBuilder, BatchHeader, BatchOptions, BatchView, Scratch};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};

use super::codec;
use super::flusher::{Flusher, Job, lock};
use super::hard_state::{HardState, HardStateFile};
use super::types::{Entry, LogId, TypeConfig, Vote};

/// Entries kept in memory. Behind them are mostly entries that a snapshot contains.
const CACHED_MAX: usize = 1024;
/// Bytes of the log read at a time.
const READ_BYTES: usize = 1 << 20;
/// Files of purged entries are of no more use to anybody.
const FILE_DELETE_DELAY_MS: i64 = 0;

struct Shared {
    log: Arc<Log>,
    env: Env,
    hard_state: Arc<Mutex<HardStateFile>>,
    flusher: Flusher,
    tail: Mutex<Tail>,
    bytes_appended: AtomicU64,
    /// Whether this node is the only voter: what is durable here is committed then.
    single_voter: bool,
}

#[derive(Default)]
struct Tail {
    /// The newest entries without a gap, by index.
    entries: BTreeMap<u64, Entry>,
    last: Option<LogId>,
    /// What the hard state is once the flusher has saved it.
    state: HardState,
}

/// The log and the vote of one node.
#[derive(Clone)]
pub(super) struct LogStore(Arc<Shared>);

fn io_error(error: LogError) -> io::Error {
    io::Error::other(error)
}

impl LogStore {
    /// Opens the store in `dir`, or makes it.
    pub(super) fn open(dir: &Path, env: &Env, single_voter: bool) -> io::Result<Self> {
        let config = LogConfig {
            segment_bytes: 64 << 20,
            segment_ms: i64::MAX,
            max_message_bytes: i32::MAX as u32,
            delete: false,
            retention_ms: -1,
            file_delete_delay_ms: FILE_DELETE_DELAY_MS,
            ..LogConfig::default()
        };
        let log = Log::open(LogOpen::standalone(dir, config, env.clone())).map_err(io_error)?;
        let log = Arc::new(log);
        let hard_state = HardStateFile::open(&env.fs, dir)?;
        let state = hard_state.state();
        // A purge notes how far it goes before it goes there.
        if let Some(purged) = state.purged {
            let next = offset_of(purged.index + 1)?;
            if next > log.log_end_offset() {
                log.truncate_fully_and_start_at(next, None)
                    .map_err(io_error)?;
            }
        }
        let hard_state = Arc::new(Mutex::new(hard_state));
        let store = LogStore(Arc::new(Shared {
            flusher: Flusher::new(Arc::clone(&log), Arc::clone(&hard_state)),
            log,
            env: env.clone(),
            hard_state,
            tail: Mutex::new(Tail {
                state,
                ..Tail::default()
            }),
            bytes_appended: AtomicU64::new(0),
            single_voter,
        }));
        store.find_last()?;
        Ok(store)
    }

    fn find_last(&self) -> io::Result<()> {
        let purged = lock(&self.0.tail).state.purged;
        let first = purged.map_or(0, |purged| purged.index + 1);
        let end = self.0.log.log_end_offset().unsigned_abs();
        let last = if end > first {
            self.read_disk(end - 1..end)?
                .pop()
                .map(|entry| entry.log_id)
        } else {
            purged
        };
        lock(&self.0.tail).last = last;
        Ok(())
    }

    /// Whether nothing was ever written here.
    pub(super) fn is_pristine(&self) -> bool {
        let tail = lock(&self.0.tail);
        tail.last.is_none() && tail.state == HardState::default()
    }

    /// The last entry, or the last one that was purged.
    pub(super) fn last(&self) -> Option<LogId> {
        lock(&self.0.tail).last
    }

    /// The last entry that was purged.
    pub(super) fn purged(&self) -> Option<LogId> {
        lock(&self.0.tail).state.purged
    }

    /// The vote as it was saved last.
    pub(super) fn vote(&self) -> Option<Vote> {
        lock(&self.0.tail).state.vote
    }

    /// Puts a fresh store behind `last`, as if it had purged all up to there, with a vote.
    pub(super) fn start_behind(&self, last: LogId, vote: Vote) -> io::Result<()> {
        let state = HardState {
            vote: Some(vote),
            purged: Some(last),
        };
        lock(&self.0.hard_state).save(state)?;
        let next = offset_of(last.index + 1)?;
        self.0
            .log
            .truncate_fully_and_start_at(next, None)
            .map_err(io_error)?;
        let mut tail = lock(&self.0.tail);
        *tail = Tail {
            last: Some(last),
            state,
            ..Tail::default()
        };
        Ok(())
    }

    /// Bytes appended since the store was opened, or since they were forgotten.
    pub(super) fn bytes_appended(&self) -> u64 {
        self.0.bytes_appended.load(Ordering::Relaxed)
    }

    pub(super) fn forget_bytes_appended(&self) {
        self.0.bytes_appended.store(0, Ordering::Relaxed);
    }

    /// Closes the log in order.
    pub(super) fn close(&self) -> io::Result<()> {
        self.0.log.close().map_err(io_error)
    }

    async fn save(&self, state: HardState) -> io::Result<()> {
        let (done, saved) = tokio::sync::oneshot::channel();
        lock(&self.0.tail).state = state;
        self.0.flusher.push(Job::Save { state, done });
        saved.await.map_err(io::Error::other)?
    }

    fn read(&self, range: std::ops::Range<u64>) -> io::Result<Vec<Entry>> {
        let cached: Vec<Entry> = {
            let tail = lock(&self.0.tail);
            tail.entries
                .range(range.clone())
                .map(|(_, entry)| entry.clone())
                .collect()
        };
        let cached_from = cached.first().map_or(range.end, |entry| entry.log_id.index);
        let mut entries = self.read_disk(range.start..cached_from)?;
        entries.extend(cached);
        Ok(entries)
    }

    fn read_disk(&self, range: std::ops::Range<u64>) -> io::Result<Vec<Entry>> {
        let log = &self.0.log;
        let end = offset_of(range.end)?.min(log.log_end_offset());
        let mut next = offset_of(range.start)?.max(log.log_start_offset());
        let mut entries = Vec::new();
        let mut scratch = Scratch::default();
        while next < end {
            let read = log.read(next, READ_BYTES, end, true).map_err(io_error)?;
            let mut bytes = Vec::with_capacity(read.len);
            for part in &read.parts {
                let from = bytes.len();
                bytes.resize(from + part.len, 0);
                part.file.read_exact_at(&mut bytes[from..], part.position)?;
            }
            if read.is_empty() {
                // Nothing there; whoever asked looks at what came.
                break;
            }
            let before = next;
            for batch in klamm_records::batches(&bytes) {
                // The last batch may be cut; it is read whole next time.
                let Ok(batch) = batch else { break };
                let header = *batch.header();
                if header.base_offset >= next {
                    entries.push(decode(&batch, &header, &mut scratch)?);
                    next = header.next_offset();
                }
            }
            if next == before {
                let message = format!("entry {next} of the controller's log cannot be read");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
        Ok(entries)
    }
}

fn decode(batch: &BatchView<'_>, header: &BatchHeader, scratch: &mut Scratch) -> io::Result<Entry> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    batch.verify_crc().map_err(invalid)?;
    let mut records = batch.records(scratch).map_err(invalid)?;
    let record = records
        .next()
        .ok_or(io::ErrorKind::InvalidData)?
        .map_err(io::Error::other)?;
    codec::decode_entry(
        header.base_offset.unsigned_abs(),
        record.value.unwrap_or_default(),
    )
}

fn encode(entry: &Entry, timestamp_ms: i64) -> io::Result<bytes::Bytes> {
    let options = BatchOptions {
        base_offset: offset_of(entry.log_id.index)?,
        ..BatchOptions::default()
    };
    let mut builder = BatchBuilder::new(options);
    let value = codec::encode_entry(entry)?;
    builder
        .append(timestamp_ms, None, Some(&value), [])
        .map_err(io::Error::other)?;
    builder.build().map_err(io::Error::other)
}

fn offset_of(index: u64) -> io::Result<i64> {
    i64::try_from(index).map_err(io::Error::other)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let next = lock(&self.0.tail).last.map_or(0, |last| last.index + 1);
        self.read(start..end.min(next).max(start))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.vote())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let tail = lock(&self.0.tail);
        Ok(LogState {
            last_purged_log_id: tail.state.purged,
            last_log_id: tail.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let state = lock(&self.0.tail).state;
        self.save(HardState {
            vote: Some(*vote),
            ..state
        })
        .await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        // The only voter is a quorum by itself. Others ask the leader.
        let tail = lock(&self.0.tail);
        Ok(if self.0.single_voter { tail.last } else { None })
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let shared = &self.0;
        let now_ms = shared.env.clock.wall_ms();
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut bytes = Vec::new();
        for entry in &entries {
            bytes.extend(encode(entry, now_ms)?);
        }
        let info = shared
            .log
            .append_as_follower(&bytes, i32::MAX, now_ms)
            .map_err(io_error)?;
        shared
            .bytes_appended
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let mut tail = lock(&shared.tail);
        for entry in entries {
            tail.last = Some(entry.log_id());
            tail.entries.insert(entry.log_id.index, entry);
        }
        while tail.entries.len() > CACHED_MAX {
            tail.entries.pop_first();
        }
        drop(tail);
        shared.flusher.push(Job::Flush {
            end: info.last_offset + 1,
            done: callback,
        });
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let next = last.map_or(0, |last| last.index + 1);
        if self.last().is_none_or(|newest| newest.index < next) {
            return Ok(());
        }
        self.0.log.truncate_to(offset_of(next)?).map_err(io_error)?;
        let mut tail = lock(&self.0.tail);
        tail.entries.split_off(&next);
        tail.last = last.or(tail.state.purged);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let state = lock(&self.0.tail).state;
        if state.purged >= Some(upto) {
            return Ok(());
        }
        self.save(HardState {
            purged: Some(upto),
            ..state
        })
        .await?;
        let next = offset_of(upto.index + 1)?;
        let (log, now_ms) = (&self.0.log, self.0.env.clock.wall_ms());
        if next > log.log_end_offset() {
            // A snapshot from elsewhere is ahead of all entries here.
            log.truncate_fully_and_start_at(next, None)
                .map_err(io_error)?;
        } else {
            log.set_high_watermark(log.log_end_offset());
            if next == log.log_end_offset() {
                // Nothing is left in the segment at hand: give it up whole.
                log.roll().map_err(io_error)?;
            }
            log.delete_records_before(next).map_err(io_error)?;
            log.apply_retention(now_ms, log.log_end_offset())
                .map_err(io_error)?;
            log.tick(now_ms).map_err(io_error)?;
        }
        let mut tail = lock(&self.0.tail);
        tail.entries = tail.entries.split_off(&(upto.index + 1));
        tail.last = tail.last.max(Some(upto));
        Ok(())
    }
}
