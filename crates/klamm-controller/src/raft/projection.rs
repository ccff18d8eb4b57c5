//! `__cluster_metadata-0` as Kafka writes it: a copy of what was committed, for Kafka's tools, for
//! brokers that fetch it, and for a Kafka that takes the directory over.
//!
//! It is made from committed entries only and can be made again from them, so it need not be
//! durable: what a crash takes is appended anew when the entries are applied again.

use std::io;
use std::path::Path;
use std::sync::Arc;

use klamm_env::{Env, FileExt};
use klamm_log::{Log, LogConfig, LogOpen};
use klamm_records::{BatchHeader, Uuid};

/// Name of the log's directory below the metadata directory.
pub(crate) const DIR_NAME: &str = "__cluster_metadata-0";
/// Kafka's default for `metadata.log.segment.bytes`.
const SEGMENT_BYTES: u32 = 1 << 30;

/// The log, written in Kafka's format.
#[derive(Clone)]
pub(super) struct Projection {
    log: Arc<Log>,
    env: Env,
}

impl Projection {
    pub(super) fn open(dir: &Path, env: &Env) -> io::Result<Self> {
        let config = LogConfig {
            segment_bytes: SEGMENT_BYTES,
            segment_ms: i64::MAX,
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

    /// Gives up what a durable snapshot contains, segment by segment.
    pub(super) fn release_before(&self, offset: i64) -> io::Result<()> {
        let log = &self.log;
        log.set_high_watermark(log.log_end_offset());
        let bases = log.segment_base_offsets();
        // Only whole segments go, so that Kafka finds the start of the log at one.
        let start = bases
            .into_iter()
            .filter(|base| *base <= offset)
            .max()
            .unwrap_or(0);
        if start > log.log_start_offset() {
            log.delete_records_before(start).map_err(io::Error::other)?;
            log.apply_retention(self.env.clock.wall_ms(), log.log_end_offset())
                .map_err(io::Error::other)?;
        }
        log.flush(i64::MAX).map_err(io::Error::other)?;
        log.tick(self.env.clock.wall_ms()).map_err(io::Error::other)
    }

    pub(super) fn close(&self) -> io::Result<()> {
        self.log.close().map_err(io::Error::other)
    }
}
