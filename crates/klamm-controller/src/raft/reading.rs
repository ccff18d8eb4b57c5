//! The metadata log as brokers read it: what is committed, and the snapshot of what is not kept.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use klamm_env::{FileExt, OpenMode};

use super::checkpoint::{self, CheckpointId};
use super::{RaftNode, projection};
use crate::runtime::spawn_blocking;

/// What there is from an offset on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogRead {
    /// First offset that the log still has.
    pub(crate) start_offset: i64,
    /// The offset behind the last committed record.
    pub(crate) end_offset: i64,
    pub(crate) found: Found,
}

/// What was found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Batches; the last one may be cut. None where the reader has all there is.
    Records(Bytes),
    /// The log begins later: a snapshot by end offset and epoch.
    Snapshot(i64, i32),
    /// What the reader has is not what was committed: the largest epoch up to its own, and where
    /// that ends.
    Diverging(i32, i64),
}

impl RaftNode {
    /// Reads committed batches from `offset` on. `last_epoch` is the epoch of the record before it
    /// as the reader has it; -1 if it has none.
    pub(crate) async fn read_log(
        &self,
        offset: i64,
        last_epoch: i32,
        bytes_max: usize,
    ) -> io::Result<LogRead> {
        let projection = self.projection.clone();
        let snapshot = self
            .snapshots
            .current()
            .map(|snapshot| snapshot.snapshot.id);
        let read = move || {
            let log = projection.log();
            let (start_offset, end_offset) = (log.log_start_offset(), log.log_end_offset());
            let found = match snapshot {
                Some(id) if offset < start_offset => Found::Snapshot(id.end_offset, id.epoch),
                _ if offset >= end_offset => Found::Records(Bytes::new()),
                _ => match diverging(&projection, offset, last_epoch) {
                    Some((epoch, end)) => Found::Diverging(epoch, end),
                    None => Found::Records(projection.read(offset, bytes_max)?.into()),
                },
            };
            Ok(LogRead {
                start_offset,
                end_offset,
                found,
            })
        };
        spawn_blocking(read).await.map_err(io::Error::other)?
    }

    /// Returns once there is a committed record at `offset`.
    pub(crate) async fn wait_for_record(&self, offset: i64) {
        let mut end = self.published.end();
        // It ends with the node only.
        let _ = end.wait_for(|end| *end > offset).await;
    }

    /// A piece of a snapshot and the size of the whole; `None` if there is no such snapshot (any
    /// more).
    pub(crate) async fn read_snapshot(
        &self,
        end_offset: i64,
        epoch: i32,
        position: u64,
        bytes_max: usize,
    ) -> io::Result<Option<(Bytes, u64)>> {
        let (fs, dir) = (
            Arc::clone(&self.env.fs),
            self.snapshots.log_dir().to_owned(),
        );
        let read = move || {
            let path = checkpoint::path(&dir, CheckpointId { end_offset, epoch });
            let file = match fs.open(&path, OpenMode::Read) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let size = file.len()?;
            let left = size.saturating_sub(position);
            let mut bytes = vec![0; bytes_max.min(usize::try_from(left).unwrap_or(bytes_max))];
            file.read_exact_at(&mut bytes, position)?;
            Ok(Some((bytes.into(), size)))
        };
        spawn_blocking(read).await.map_err(io::Error::other)?
    }
}

/// Where a reader's log parts from this one, if it does before `offset`.
fn diverging(
    projection: &projection::Projection,
    offset: i64,
    last_epoch: i32,
) -> Option<(i32, i64)> {
    if offset <= projection.log().log_start_offset() || last_epoch < 0 {
        return None;
    }
    let log = projection.log();
    let Some(known) = log.epoch_end_offset(last_epoch) else {
        // No epoch here is as late as the reader's.
        return log
            .latest_epoch()
            .map(|epoch| (epoch, log.log_end_offset()));
    };
    let same = known.epoch == last_epoch && known.end_offset >= offset;
    (!same).then_some((known.epoch, known.end_offset))
}
