//! `__cluster_metadata-0` as Kafka writes it: a copy of what was committed, for Kafka's tools, for
//! brokers that fetch it, and for a Kafka that takes the directory over.
//!
//! It is made from committed entries only and can be made again from them, so it need not be
//! durable: what a crash takes is appended anew when the entries are applied again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_env::{Env, FileExt};
use klamm_log::{Log, LogConfig, LogOpen};
use klamm_records::{BatchHeader, Uuid, batches};

use super::checkpoint::{self, CheckpointId};

/// Name of the log's directory below the metadata directory.
pub(crate) const DIR_NAME: &str = "__cluster_metadata-0";
/// How the log is cut into files, and how long they are kept. The defaults are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataLogOptions {
    /// `metadata.log.segment.bytes`
    pub segment_bytes: u32,
    /// `metadata.log.segment.ms`
    pub segment_ms: i64,
    /// `metadata.max.retention.bytes`: with more in log and snapshots, the oldest snapshot and what of
    /// the log is before the next one go; -1 for no such limit.
    pub retention_bytes: i64,
    /// `metadata.max.retention.ms`: the same for a snapshot that is older; -1 for no such limit.
    pub retention_ms: i64,
}

impl Default for MetadataLogOptions {
    fn default() -> Self {
        MetadataLogOptions {
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            retention_bytes: 100 << 20,
            retention_ms: 604_800_000,
        }
    }
}

/// The log, written in Kafka's format.
#[derive(Clone)]
pub(super) struct Projection {
    log: Arc<Log>,
    env: Env,
    dir: PathBuf,
    options: MetadataLogOptions,
}

impl Projection {
    pub(super) fn open(dir: &Path, env: &Env, options: MetadataLogOptions) -> io::Result<Self> {
        let config = LogConfig {
            segment_bytes: options.segment_bytes,
            segment_ms: options.segment_ms,
            max_message_bytes: i32::MAX as u32,
            delete: false,
            retention_ms: -1,
            ..LogConfig::default()
        };
        let open = LogOpen {
            topic_id: Some(Uuid::METADATA_TOPIC),
            ..LogOpen::standalone(dir, config, env.clone())
        };
        let log = Arc::new(Log::open(open).map_err(io::Error::other)?);
        Ok(Projection {
            log,
            env: env.clone(),
            dir: dir.to_owned(),
            options,
        })
    }

    /// The log itself, to be read.
    pub(super) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Committed batches from that of `offset` on, at least one; the last may be cut.
    pub(super) fn read(&self, offset: i64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let end = self.log.log_end_offset();
        let read = self.log.read(offset, bytes_max, end, true);
        let mut bytes = Vec::new();
        for part in &read.map_err(io::Error::other)?.parts {
            let from = bytes.len();
            bytes.resize(from + part.len, 0);
            part.file.read_exact_at(&mut bytes[from..], part.position)?;
        }
        Ok(bytes)
    }

    /// Appends a batch, unless it is there from before a restart.
    pub(super) fn append(&self, batch: &[u8]) -> io::Result<()> {
        let header = BatchHeader::parse(batch).map_err(io::Error::other)?;
        let end = self.log.log_end_offset();
        if header.next_offset() <= end {
            return Ok(());
        }
        if header.base_offset != end {
            // What lies between is in the snapshot that this node started from.
            self.log
                .truncate_fully_and_start_at(header.base_offset, None)
                .map_err(io::Error::other)?;
        }
        let now_ms = self.env.clock.wall_ms();
        self.log
            .append_as_follower(batch, i32::MAX, now_ms)
            .map_err(io::Error::other)?;
        self.log.set_high_watermark(self.log.log_end_offset());
        Ok(())
    }

    /// Starts anew at the end of a snapshot, unless the log reaches there.
    pub(super) fn start_at(&self, offset: i64) -> io::Result<()> {
        if self.log.log_end_offset() < offset {
            self.log
                .truncate_fully_and_start_at(offset, None)
                .map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Appends batches that follow on each other.
    pub(super) fn append_all(&self, bytes: &[u8]) -> io::Result<()> {
        for batch in batches(bytes) {
            self.append(batch.map_err(io::Error::other)?.bytes())?;
        }
        Ok(())
    }

    /// Gives up the oldest snapshots, and what of the log is before those that are left, as far as
    /// more is kept than should be. The newest snapshot stays in any case. To be called when that is
    /// durable.
    pub(super) fn release(&self) -> io::Result<()> {
        let (log, fs) = (&self.log, &*self.env.fs);
        let now_ms = self.env.clock.wall_ms();
        log.set_high_watermark(log.log_end_offset());
        let mut snapshots = checkpoint::list(fs, &self.dir)?;
        while let [oldest, next, ..] = snapshots[..] {
            if !self.is_too_much(&snapshots)? && !self.is_too_old(oldest, now_ms)? {
                break;
            }
            self.release_before(next.end_offset)?;
            fs.remove_file(&checkpoint::path(&self.dir, oldest))?;
            snapshots.remove(0);
        }
        log.flush(i64::MAX).map_err(io::Error::other)?;
        log.tick(now_ms).map_err(io::Error::other)
    }

    fn is_too_much(&self, snapshots: &[CheckpointId]) -> io::Result<bool> {
        let Ok(limit) = u64::try_from(self.options.retention_bytes) else {
            return Ok(false);
        };
        let mut bytes = self.log.size_bytes();
        for id in snapshots {
            let path = checkpoint::path(&self.dir, *id);
            bytes += self.env.fs.metadata(&path)?.len;
        }
        Ok(bytes > limit)
    }

    fn is_too_old(&self, id: CheckpointId, now_ms: i64) -> io::Result<bool> {
        if self.options.retention_ms < 0 {
            return Ok(false);
        }
        let written_ms = checkpoint::last_timestamp(&*self.env.fs, &self.dir, id)?;
        Ok(now_ms.saturating_sub(written_ms) > self.options.retention_ms)
    }

    /// Gives up what a snapshot contains, segment by segment.
    fn release_before(&self, offset: i64) -> io::Result<()> {
        let log = &self.log;
        let bases = log.segment_base_offsets();
        // Only whole segments go, so that Kafka finds the start of the log at one.
        let start = bases.into_iter().filter(|base| *base <= offset).max();
        if let Some(start) = start.filter(|start| *start > log.log_start_offset()) {
            log.delete_records_before(start).map_err(io::Error::other)?;
            log.apply_retention(self.env.clock.wall_ms(), log.log_end_offset())
                .map_err(io::Error::other)?;
        }
        Ok(())
    }

    pub(super) fn close(&self) -> io::Result<()> {
        self.log.close().map_err(io::Error::other)
    }
}
