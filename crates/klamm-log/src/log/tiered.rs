//! What a log knows of its remote tier: how far it was uploaded. Segments below that may leave the
//! local disk, and the local start is then above the start of the log. The rest is the business of
//! [`RemoteLog`](crate::tier::RemoteLog).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use klamm_env::Env;

use crate::config::LogConfig;
use crate::error::LogError;
use crate::log::Log;
use crate::log::loader::replay;
use crate::segment::Segment;
use crate::storage::lock;

impl Log {
    /// The first offset that is on the local disk and may be read. Above the
    /// [start of the log](Log::log_start_offset) only with a remote tier.
    pub fn local_log_start_offset(&self) -> i64 {
        let first = self.segment_base_offsets().first().copied();
        first.unwrap_or(0).max(self.log_start_offset())
    }

    /// The largest offset that is in the remote tier, -1 if none is known to be.
    pub fn highest_tiered_offset(&self) -> i64 {
        self.highest_tiered.load(Ordering::SeqCst)
    }

    /// Tells the log how far it was uploaded; segments below may leave the local disk from now on.
    pub fn set_highest_tiered_offset(&self, offset: i64) {
        self.highest_tiered.store(offset, Ordering::SeqCst);
    }

    /// The first offset that is not in the remote tier yet; none if nothing is known of what is
    /// there though the log begins there (KIP-1023).
    pub fn earliest_pending_upload_offset(&self) -> Option<i64> {
        let start = self.log_start_offset();
        match self.highest_tiered_offset() {
            ..0 => (self.local_log_start_offset() == start).then_some(start),
            tiered => Some((tiered + 1).max(start)),
        }
    }

    /// Whether the log has a remote tier.
    pub fn is_tiered(&self) -> bool {
        lock(&self.state).config.remote_storage
    }

    /// The closed segment with `offset`, and the offset after its last.
    pub(crate) fn closed_segment_at(&self, offset: i64) -> Option<(Arc<Segment>, i64)> {
        let offset = offset.max(self.local_log_start_offset());
        let segment = self.segment_at(offset)?;
        let next = self.segment_after(segment.base_offset)?;
        Some((segment, next.base_offset))
    }

    /// The content of the snapshot of producers at `offset`, where a segment begins. One that is gone
    /// or damaged is made again: from the newest before it, and the batches behind that.
    pub(crate) fn producers_at(&self, offset: i64) -> Result<Vec<u8>, LogError> {
        let start = self.local_log_start_offset();
        let truncations = self.truncations.load(Ordering::SeqCst);
        let mut producers = lock(&self.state).producers.before(offset, start)?;
        if producers.map_end() == offset {
            return Ok(producers.content());
        }
        let segments = self.all_segments();
        let ends = segments.iter().skip(1).map(|next| next.base_offset);
        for (segment, end) in segments.iter().zip(ends) {
            if end > producers.map_end() && segment.base_offset < offset {
                let from = segment.base_offset.max(producers.map_end());
                replay(&mut producers, segment, from, offset)?;
                producers.set_map_end(end);
            }
        }
        producers.set_map_end(offset);
        let mut state = lock(&self.state);
        let there = self.segment_at(offset).map(|segment| segment.base_offset) == Some(offset);
        if there && self.truncations.load(Ordering::SeqCst) == truncations {
            // For the next that is made. Should there be no room for it, there will be when segments
            // have left for the tier.
            let _ = state.producers.put_snapshot(&producers);
        }
        Ok(producers.content())
    }

    /// Removes everything and goes on at `offset`, behind what is in the remote tier: from `start`
    /// on the log is there, with these leader epochs, and these producers (the content of a
    /// snapshot at `offset`).
    ///
    /// # Errors
    /// [`LogError::MalformedFile`] for a damaged snapshot, before anything is done; or the disk's,
    /// and the log is offline.
    pub(crate) fn start_behind_tier(
        &self,
        offset: i64,
        start: i64,
        epochs: &[(i32, i64)],
        producers: Option<&[u8]>,
    ) -> Result<(), LogError> {
        let mut state = self.open_state()?;
        let snapshot = producers.map(|bytes| state.producers.parse(bytes, offset));
        let snapshot = snapshot.transpose()?;
        // Written with the new beginning, for which they are kept. The tier noted them when the log
        // may have begun earlier.
        state.epochs.replace(epochs);
        state.epochs.truncate_from_start(start.min(offset));
        let result = self
            .start_anew(&mut state, offset, Some(start.min(offset)))
            .and_then(|()| {
                let now_ms = self.env.clock.wall_ms();
                if let Some(snapshot) = snapshot {
                    state.producers.restore(snapshot, offset, now_ms)?;
                    state.sync_snapshot(offset, &*self.dir.fs)?;
                    self.dir.sync()?;
                }
                self.publish_transactions(&state);
                Ok(())
            });
        self.offline_if_failed(result)
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// Whether a segment that ends before `next_base` may leave the local disk for its age or the
    /// size of the log.
    pub(super) fn may_leave(&self, next_base: Option<i64>, config: &LogConfig) -> bool {
        let uploaded = next_base.is_some_and(|next| next <= self.highest_tiered_offset() + 1);
        !config.remote_storage || uploaded
    }

    /// The error for a read of what only the remote tier has, if that can be.
    pub(super) fn refuse_tiered(&self, requested: i64) -> Result<(), LogError> {
        if self.is_tiered() && requested < self.local_log_start_offset() {
            return Err(LogError::OffsetTiered {
                requested,
                local_start: self.local_log_start_offset(),
            });
        }
        Ok(())
    }
}
