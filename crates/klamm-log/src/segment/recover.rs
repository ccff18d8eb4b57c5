use std::sync::atomic::Ordering;

use crate::batch::BatchMeta;
use crate::epoch_cache::EpochCache;
use crate::error::{BatchFault, IoContext, LogError};
use crate::index::offset::fits;
use crate::index::txn::AbortedTxn;
use crate::log::Damage;
use crate::producer_state::{ProducerStates, marker};
use crate::segment::rebuild::IndexBuilder;
use crate::segment::scan::{Verified, WHOLE};
use crate::segment::{BatchSpan, Segment};
use crate::storage::lock;

/// What recovery builds up beside the segment's own indexes.
pub(crate) struct RecoveryState<'a> {
    pub(crate) producers: &'a mut ProducerStates,
    pub(crate) epochs: &'a mut EpochCache,
    /// Whether compaction may have left gaps.
    pub(crate) gaps: bool,
}

/// What recovery of a segment found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRecovery {
    /// Bytes that were verified and kept.
    pub(crate) valid_bytes: u64,
    /// Bytes at the end that were cut off.
    pub(crate) truncated_bytes: u64,
    /// The offset after the last batch kept.
    pub(crate) next_offset: i64,
    /// Why the rest was cut off.
    pub(crate) fault: Option<BatchFault>,
    /// Damage that was left where it is.
    pub(crate) damage: Vec<Damage>,
    /// The last damage goes on to the end of the file, so that nothing may be appended there.
    pub(crate) open_ended: bool,
}

impl Segment {
    /// Verifies every batch and builds the indexes anew. What a crash can have left, at or above
    /// `synced_to`, ends the segment: the file is cut before the first damaged batch. Below it
    /// everything had been on disk, so damage there came later, and what lies behind it is as
    /// good as before: it stays, and so do the damaged bytes. The segment must not be in use.
    ///
    /// # Errors
    /// [`BatchFault::Unindexable`] of a segment that is to be split first, or the disk's.
    pub(crate) fn recover(
        &self,
        mut with: RecoveryState<'_>,
        synced_to: i64,
    ) -> Result<SegmentRecovery, LogError> {
        // What is found may be in the page cache alone.
        self.note_change();
        let mut indexes = IndexBuilder::new(self)?;
        self.txn_index().reset()?;
        let mut found = SegmentRecovery {
            valid_bytes: 0,
            truncated_bytes: 0,
            next_offset: self.base_offset,
            fault: None,
            damage: Vec::new(),
            open_ended: false,
        };
        let mut end = 0;
        let mut scan = self.scan(0, self.size(), WHOLE)?;
        loop {
            let fault = match scan.next_verified()? {
                Verified::End => break,
                Verified::Damaged(fault) => fault,
                Verified::Batch(span, bytes) => {
                    let point = (!with.gaps).then_some(synced_to);
                    match self.check(&span.meta, found.next_offset, point) {
                        Ok(()) => {
                            self.take_over(&span, bytes, &mut indexes, &mut with)?;
                            found.next_offset = span.meta.next_offset();
                            found.valid_bytes += span.meta.size as u64;
                            end = span.end();
                            continue;
                        }
                        Err(fault) => {
                            if span.meta.last_offset >= found.next_offset {
                                self.check_splittable(&span.meta)?;
                            }
                            scan.seek(&span, found.next_offset);
                            fault
                        }
                    }
                }
            };
            if found.next_offset >= synced_to {
                found.fault = Some(fault);
                break;
            }
            let next = scan.resync()?;
            let behind = next.map_or(self.size(), |next| next.position);
            found.damage.push(Damage {
                file: self.path(),
                position: end,
                bytes: behind - end,
                first_offset: found.next_offset,
                next_offset: next.map_or(i64::MAX, |next| next.meta.base_offset),
                fault,
            });
            end = behind;
            match next {
                Some(next) => scan.seek(&next, next.meta.base_offset),
                None => {
                    found.open_ended = true;
                    break;
                }
            }
        }
        found.truncated_bytes = self.size() - end;
        if found.truncated_bytes > 0 {
            let file = self.file()?;
            file.set_len(end).at("truncate", &self.path())?;
            // What was cut off must not come back behind batches that are written in its place.
            file.sync_data().at("sync", &self.path())?;
        }
        self.size.store(end, Ordering::Release);
        let mut state = lock(&self.state);
        indexes.finish(&mut state)?;
        state.recent.clear();
        drop(state);
        self.release_batches();
        Ok(found)
    }

    /// Whether a batch can be the next. `point` is the recovery point of a log without gaps.
    fn check(
        &self,
        meta: &BatchMeta,
        next_offset: i64,
        point: Option<i64>,
    ) -> Result<(), BatchFault> {
        let misplaced = meta.last_offset < next_offset || !fits(self.base_offset, meta.last_offset);
        // The recovery point lies within a batch or at its end. After compaction it may lie in a
        // gap: what was there when it was noted is gone.
        let skips = point
            .is_some_and(|point| next_offset < point && meta.base_offset > point.saturating_add(1));
        if misplaced || skips {
            return Err(BatchFault::Offset(meta.last_offset));
        }
        Ok(())
    }

    /// Notes a good batch wherever recovery notes batches.
    fn take_over(
        &self,
        span: &BatchSpan,
        bytes: &[u8],
        indexes: &mut IndexBuilder,
        with: &mut RecoveryState<'_>,
    ) -> Result<(), LogError> {
        let meta = span.meta;
        indexes.note(span);
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
        Ok(())
    }
}
