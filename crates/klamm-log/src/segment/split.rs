//! Cutting a segment whose offsets are too far apart.
//!
//! Indexes tell offsets relative to the segment's, in 31 bits. Kafka before 1.1 could compact
//! segments together that go beyond, and directories of that time are still around. Recovery and
//! compaction find such a segment, and it becomes several, as in Kafka
//! (`UnifiedLog.splitOverflowedSegment`).

use std::io::IoSlice;
use std::sync::Arc;

use klamm_env::Env;

use crate::batch::BatchMeta;
use crate::config::LogConfig;
use crate::error::{BatchFault, LogError};
use crate::index::offset::fits;
use crate::segment::Segment;
use crate::segment::scan::{Verified, WHOLE};
use crate::storage::LogDir;

impl Segment {
    /// The error for a batch whose offsets the indexes cannot tell, if the segment can be
    /// [split](Self::split) for that.
    pub(crate) fn check_splittable(&self, meta: &BatchMeta) -> Result<(), LogError> {
        if fits(self.base_offset, meta.last_offset) || self.cuts()?.is_none() {
            return Ok(());
        }
        Err(LogError::Corrupt {
            file: self.path(),
            position: 0,
            offset: self.base_offset,
            reason: BatchFault::Unindexable(meta.last_offset),
        })
    }

    /// First offset and position of each part that the segment is to become. None if it can stay,
    /// or is damaged: a base offset is not covered by its batch's checksum, and a single batch that
    /// is far from those before it proves nothing.
    fn cuts(&self) -> Result<Option<Vec<(i64, u64)>>, LogError> {
        let mut parts: Vec<(i64, u64)> = Vec::new();
        let mut next_offset = self.base_offset;
        let mut is_far = false;
        let mut scan = self.scan(0, self.size(), WHOLE)?;
        loop {
            let span = match scan.next_verified()? {
                Verified::Batch(span, _) => span,
                Verified::Damaged(_) => return Ok(None),
                Verified::End => break,
            };
            let meta = span.meta;
            is_far = !fits(next_offset, meta.last_offset);
            next_offset = meta.next_offset();
            if parts
                .last()
                .is_some_and(|&(base, _)| fits(base, meta.last_offset))
            {
                continue;
            }
            let goes_on = parts.is_empty() && fits(self.base_offset, meta.last_offset);
            let base = if goes_on {
                self.base_offset
            } else {
                meta.base_offset
            };
            parts.push((base, span.position));
        }
        let stays = parts.iter().all(|&(base, _)| base == self.base_offset);
        Ok((!stays && !is_far).then_some(parts))
    }

    /// Writes the parts that the segment is to become beside it, durably; none if it need not be
    /// split, or cannot be. `dir` is where segments are compacted to.
    ///
    /// # Errors
    /// The disk's. What was written stays and is removed by the next start.
    pub(crate) fn split(
        &self,
        dir: &Arc<LogDir>,
        config: &LogConfig,
        env: &Env,
    ) -> Result<Option<Vec<Segment>>, LogError> {
        let Some(cuts) = self.cuts()? else {
            return Ok(None);
        };
        let config = LogConfig {
            preallocate: false,
            ..config.clone()
        };
        let aborted = self.txn_index().entries()?;
        let mut parts = Vec::with_capacity(cuts.len());
        for (index, &(base, from)) in cuts.iter().enumerate() {
            let next = cuts.get(index + 1);
            let to = next.map_or(self.size(), |&(_, position)| position);
            let part = Segment::create(dir, base, &config, env)?;
            self.copy_to(&part, from, to)?;
            let end = next.map_or(i64::MAX, |&(next, _)| next);
            let within = |offset| (base..end).contains(&offset);
            for txn in aborted.iter().filter(|txn| within(txn.last_offset)) {
                part.txn_index().append(txn)?;
            }
            if index == 0 && self.txn_index().exists() {
                // It takes the name of the old one.
                part.txn_index().create()?;
            }
            part.finish_cleaned(self.modified_ms()?)?;
            parts.push(part);
        }
        Ok(Some(parts))
    }

    fn copy_to(&self, part: &Segment, from: u64, to: u64) -> Result<(), LogError> {
        let mut scan = self.scan(from, to, WHOLE)?;
        loop {
            match scan.next_verified()? {
                Verified::Batch(span, bytes) => {
                    let mut slices = [IoSlice::new(bytes)];
                    let size = span.meta.size as u64;
                    part.append(&mut slices, &[span.meta], size)
                        .map_err(|failure| failure.error)?;
                }
                Verified::Damaged(fault) => return Err(scan.corrupt(fault)),
                Verified::End => return Ok(()),
            }
        }
    }
}
