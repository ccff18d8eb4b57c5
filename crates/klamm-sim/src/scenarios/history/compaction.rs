//! What compaction must keep and what must go (KIP-58, KIP-354, KIP-534).
//!
//! - The last record of each key stays where it is; it may go if it is a tombstone whose batch got
//!   its horizon in an earlier clean, and that is over.
//! - Records with a later one of their key in the part that was dirty go, and so do those tombstones.
//! - A batch keeps its offsets, epoch and place whatever it loses, or goes as a whole if nothing is
//!   left of it; a tombstone's batch gets its horizon.
//! - Nothing at or above the end of the clean is touched.
//!
//! - Records that were deleted go in any case, also if a crash brings the log's former start back.
//!
//! After a clean that failed, or a crash, each batch is as it was or as the clean would have left it.

use std::collections::BTreeMap;

use super::batch::{Batch, Rec};
use super::reference::Reference;

/// A clean, as far as the model must know.
#[derive(Clone, Copy, Debug)]
pub struct Clean {
    /// First offset that had not been compacted.
    pub dirty_from: i64,
    /// Where it ended, or was to end.
    pub end: i64,
    /// Whether it came to its end.
    pub done: bool,
    /// The time by which it judged tombstones.
    pub now_ms: i64,
    /// `delete.retention.ms`; none if nobody knows which it was.
    pub delete_retention_ms: Option<i64>,
}

/// The last offset of each key, in all of the log and in the dirty part.
struct Keys<'a> {
    clean: Clean,
    /// Records below were deleted, and go with the next clean. A crash may take the log's start back
    /// there, and nothing of them is promised then.
    deleted_to: i64,
    last: BTreeMap<&'a [u8], i64>,
    last_dirty: BTreeMap<&'a [u8], i64>,
}

impl<'a> Keys<'a> {
    fn new(batches: &'a [Batch], clean: Clean, deleted_to: i64) -> Keys<'a> {
        let mut keys = Keys {
            clean,
            deleted_to,
            last: BTreeMap::new(),
            last_dirty: BTreeMap::new(),
        };
        let records = batches.iter().flat_map(|batch| &batch.records);
        for record in records.filter(|record| record.offset < clean.end) {
            let Some(key) = record.key.as_deref() else {
                continue;
            };
            keys.last.insert(key, record.offset);
            if record.offset >= clean.dirty_from {
                keys.last_dirty.insert(key, record.offset);
            }
        }
        keys
    }

    fn is_over(&self, batch: &Batch, record: &Rec) -> bool {
        let over = |horizon_ms| self.clean.now_ms >= horizon_ms;
        record.value.is_none() && batch.horizon_ms.is_some_and(over)
    }

    fn must_stay(&self, batch: &Batch, record: &Rec) -> bool {
        let last = record.key.as_deref().and_then(|key| self.last.get(key));
        record.offset >= self.deleted_to
            && last.is_some_and(|&last| last <= record.offset)
            && !self.is_over(batch, record)
    }

    fn must_go(&self, batch: &Batch, record: &Rec) -> bool {
        let last = record
            .key
            .as_deref()
            .and_then(|key| self.last_dirty.get(key));
        last.is_some_and(|&last| last > record.offset) || self.is_over(batch, record)
    }

    /// Holds what is left of a batch against what it was.
    fn check(&self, was: &Batch, is: &Batch) -> Result<(), String> {
        let at = was.base;
        let told = |what: String| Err(format!("the batch {at}..{}: {what}", was.next()));
        if (was.last, was.epoch, was.tag) != (is.last, is.epoch, is.tag) {
            return told(format!("became {is:?}"));
        }
        if let Some(new) = is
            .records
            .iter()
            .find(|record| !was.records.contains(record))
        {
            return told(format!("{new:?} is new"));
        }
        for record in &was.records {
            let stays = is.records.contains(record);
            if !stays && self.must_stay(was, record) {
                return told(format!("{} is gone", record.offset));
            }
            if stays && self.clean.done && self.must_go(was, record) {
                return told(format!("{} is still there", record.offset));
            }
        }
        let tombstone = is.records.iter().any(|record| record.value.is_none());
        if self.clean.done
            && tombstone
            && let Some(retention_ms) = self.clean.delete_retention_ms
        {
            let wanted = was.horizon_ms.unwrap_or(self.clean.now_ms + retention_ms);
            if is.horizon_ms != Some(wanted) {
                return told(format!(
                    "its horizon is {:?} and not {wanted}",
                    is.horizon_ms
                ));
            }
        }
        Ok(())
    }
}

impl Reference {
    /// Takes over what a clean, or one that failed, has left: `found` is all that can be read.
    ///
    /// # Errors
    /// What is wrong.
    pub fn compact(&mut self, found: &[Batch], clean: Clean) -> Result<(), String> {
        self.note_epochs();
        self.cleaned_below = self.cleaned_below.max(clean.end);
        let batches = std::mem::take(&mut self.batches);
        let keys = Keys::new(&batches, clean, self.deleted_to);
        let left: BTreeMap<i64, &Batch> = found.iter().map(|batch| (batch.base, batch)).collect();
        let last_found = found.last().map_or(i64::MIN, |batch| batch.base);
        for batch in &batches {
            // What lies below the start cannot be read, and what lies above the end is not touched.
            if batch.next() <= self.start || batch.base >= clean.end {
                self.batches.push(batch.clone());
                continue;
            }
            match left.get(&batch.base) {
                Some(is) => {
                    keys.check(batch, is)?;
                    self.batches.push((*is).clone());
                }
                None => {
                    let start = self.start;
                    let needed = batch
                        .records
                        .iter()
                        .find(|record| record.offset >= start && keys.must_stay(batch, record));
                    match needed {
                        None => {}
                        // It may be the end of the log that is missing: that is for others to say.
                        Some(_) if !clean.done && batch.base > last_found => {
                            self.batches.push(batch.clone());
                        }
                        Some(record) => return Err(format!("{} is gone", record.offset)),
                    }
                }
            }
        }
        Ok(())
    }
}
