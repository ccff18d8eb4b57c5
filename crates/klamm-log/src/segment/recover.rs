use std::sync::atomic::Ordering;

use crate::epoch_cache::EpochCache;
use crate::error::{BatchFault, IoContext, LogError};
use crate::index::offset::fits;
use crate::index::txn::AbortedTxn;
use crate::producer_state::{ProducerStates, marker};
use crate::segment::Segment;
use crate::segment::rebuild::IndexBuilder;
use crate::segment::scan::{Verified, WHOLE};
use crate::storage::lock;

/// What recovery builds up beside the segment's own indexes.
pub(crate) struct RecoveryState<'a> {
    pub(crate) producers: &'a mut ProducerStates,
    pub(crate) epochs: &'a mut EpochCache,
}

/// What recovery of a segment found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRecovery {
    /// Bytes that were verified and kept.
    pub(crate) valid_bytes: u64,
    /// Bytes behind them that were cut off.
    pub(crate) truncated_bytes: u64,
    /// The offset after the last batch kept.
    pub(crate) next_offset: i64,
    /// Why the rest was cut off.
    pub(crate) fault: Option<BatchFault>,
}

impl Segment {
    /// Verifies every batch, cuts the file before the first damaged one, and builds the indexes
    /// anew. The segment must not be in use.
    pub(crate) fn recover(&self, with: RecoveryState<'_>) -> Result<SegmentRecovery, LogError> {
        // What is found may be in the page cache alone.
        self.note_change();
        let mut indexes = IndexBuilder::new(self)?;
        self.txn_index().reset()?;
        let mut next_offset = self.base_offset;
        let mut valid_bytes = 0;
        let mut scan = self.scan(0, self.size(), WHOLE)?;
        let fault = loop {
            let (span, bytes) = match scan.next_verified()? {
                Verified::Batch(span, bytes) => (span, bytes),
                Verified::Damaged(fault) => break Some(fault),
                Verified::End => break None,
            };
            let meta = span.meta;
            if meta.last_offset < next_offset || !fits(self.base_offset, meta.last_offset) {
                break Some(BatchFault::Offset(meta.last_offset));
            }
            indexes.note(&span);
            if meta.leader_epoch >= 0
                && with
                    .epochs
                    .latest()
                    .is_none_or(|latest| meta.leader_epoch > latest)
            {
                with.epochs.insert(meta.leader_epoch, meta.base_offset);
            }
            let marker = meta.is_control().then(|| marker::read(bytes)).flatten();
            if let Some((txn, last_stable_offset)) = with.producers.replay(&meta, marker)
                && txn.aborted
            {
                self.txn_index().append(&AbortedTxn {
                    producer_id: txn.producer_id,
                    first_offset: txn.first_offset,
                    last_offset: txn.last_offset,
                    last_stable_offset,
                })?;
            }
            next_offset = meta.next_offset();
            valid_bytes = span.end();
        };
        let truncated_bytes = self.size() - valid_bytes;
        if truncated_bytes > 0 {
            let file = self.file()?;
            file.set_len(valid_bytes).at("truncate", &self.path())?;
            // What was cut off must not come back behind batches that are written in its place.
            file.sync_data().at("sync", &self.path())?;
        }
        self.size.store(valid_bytes, Ordering::Release);
        let mut state = lock(&self.state);
        indexes.finish(&mut state)?;
        state.recent.clear();
        Ok(SegmentRecovery {
            valid_bytes,
            truncated_bytes,
            next_offset,
            fault,
        })
    }
}
