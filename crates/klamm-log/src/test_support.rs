//! Helpers of this crate's unit tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_env::{Env, FileExt, ManualClock, OpenMode, OsFs, SplitMix64};
use klamm_records::{BatchBuilder, BatchOptions, PreparedBatch, Scratch, TopicPartition, batches};

use crate::files::OpenFiles;
use crate::storage::LogDir;
use crate::{AppendInfo, AppendOrigin, Log, LogConfig, LogError, LogOpen, LogRead};

/// A directory that vanishes with the value, with a clock that stands still and fixed randomness.
pub(crate) struct TestDir {
    dir: tempfile::TempDir,
    pub(crate) env: Env,
    pub(crate) clock: Arc<ManualClock>,
}

impl TestDir {
    pub(crate) fn new() -> TestDir {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        TestDir {
            dir: tempfile::tempdir().unwrap(),
            env: Env {
                clock: clock.clone(),
                rng: Arc::new(SplitMix64::new(42)),
                fs: Arc::new(OsFs),
            },
            clock,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn log_dir(&self) -> Arc<LogDir> {
        self.bounded_log_dir(OpenFiles::unbounded())
    }

    pub(crate) fn bounded_log_dir(&self, files: OpenFiles) -> Arc<LogDir> {
        LogDir::new(self.env.fs.clone(), PathBuf::from(self.path()), files)
    }

    pub(crate) fn truncate(&self, path: &Path, len: u64) {
        let file = self.env.fs.open(path, OpenMode::Write).unwrap();
        file.set_len(len).unwrap();
    }
}

/// A batch of records without keys, one for each value.
pub(crate) fn batch(timestamp: i64, values: &[&str]) -> PreparedBatch {
    batch_with(BatchOptions::default(), timestamp, values)
}

/// The same with options.
pub(crate) fn batch_with(options: BatchOptions, timestamp: i64, values: &[&str]) -> PreparedBatch {
    let mut builder = BatchBuilder::new(options);
    for value in values {
        builder
            .append(timestamp, None, Some(value.as_bytes()), [])
            .unwrap();
    }
    PreparedBatch::trusted(builder.build().unwrap()).unwrap()
}

/// Appends one batch as a leader of epoch 0.
pub(crate) fn append(log: &Log, batch: PreparedBatch) -> Result<AppendInfo, LogError> {
    let now_ms = batch.header().max_timestamp;
    log.append_as_leader(&mut [batch], 0, now_ms, AppendOrigin::Client)
}

/// The bytes of a read.
pub(crate) fn bytes_of(read: &LogRead) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in &read.parts {
        let from = bytes.len();
        bytes.resize(from + part.len, 0);
        part.file
            .read_exact_at(&mut bytes[from..], part.position)
            .unwrap();
    }
    bytes
}

/// Offsets and values of all whole batches of a read.
pub(crate) fn records_of(read: &LogRead) -> Vec<(i64, String)> {
    let mut records = Vec::new();
    for batch in batches(&bytes_of(read)) {
        for record in batch.unwrap().records(&mut Scratch::new()).unwrap() {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap();
            records.push((record.offset, value));
        }
    }
    records
}

/// All records of a log.
pub(crate) fn all_records(log: &Log) -> Vec<(i64, String)> {
    let start = log.log_start_offset();
    let read = log.read(start, usize::MAX, i64::MAX, true).unwrap();
    records_of(&read)
        .into_iter()
        .filter(|(offset, _)| *offset >= start)
        .collect()
}

impl TestDir {
    /// How to open a log in this directory, as a manager would after a clean shutdown.
    pub(crate) fn open(&self, config: LogConfig) -> LogOpen {
        LogOpen {
            dir: self.path().join("topic-0"),
            topic_partition: TopicPartition::new("topic", 0),
            topic_id: None,
            config,
            env: self.env.clone(),
            recovery_point: 0,
            log_start_offset: 0,
            high_watermark: 0,
            clean: false,
            standalone: false,
        }
    }

    pub(crate) fn log(&self, config: LogConfig) -> Log {
        Log::open(self.open(config)).unwrap()
    }

    /// The log's directory.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.path().join("topic-0")
    }

    /// Names of the files of the log's directory.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = self.env.fs.read_dir(&self.path().join("topic-0")).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }
}
