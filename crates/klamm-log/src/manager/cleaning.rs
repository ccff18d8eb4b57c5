//! Which log is compacted next, what became of it, and the `cleaner-offset-checkpoint`.
//!
//! Any number of threads call [`LogManager::clean_next`], each with a cleaner of its own; a log is
//! compacted by one at a time. Truncations, deletions and directory failures need not wait for a
//! clean: it finds out before it changes anything, and gives up. A log that cannot be compacted is
//! left alone for a while and tried again; the others do not suffer from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use klamm_records::{TopicPartition, Uuid};

use crate::checkpoints::PartitionOffsets;
use crate::cleaner::{CleanError, CleanReport, Cleanable, Cleaner, Pace};
use crate::error::LogError;
use crate::log::Log;
use crate::manager::directory::Checkpoint;
use crate::manager::{LogManager, Placed};
use crate::storage::lock;

/// Time after which a log that could not be compacted is tried again, and the most that it grows
/// to with every further failure.
const RETRY_MS: [i64; 2] = [5 * 60_000, 6 * 3_600_000];

/// What the threads share.
#[derive(Debug, Default)]
pub(super) struct Cleaning {
    in_progress: BTreeSet<TopicPartition>,
    uncleanable: BTreeMap<TopicPartition, Uncleanable>,
    status: CleaningStatus,
}

/// A log that could not be compacted.
#[derive(Clone, Copy, Debug)]
struct Uncleanable {
    failures: u32,
    retry_ms: i64,
}

/// How compaction is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CleaningStatus {
    /// When a log was last looked for, in milliseconds since the epoch; 0 if never.
    pub last_round_ms: i64,
    /// The largest dirty share of a log then, from 0 to 1.
    pub dirtiest_ratio: f64,
    /// By how much `max.compaction.lag.ms` was exceeded at most then, in milliseconds.
    pub overdue_ms: i64,
    /// Logs that could not be compacted and wait for another try.
    pub uncleanable_partitions: usize,
    /// What the last clean did.
    pub last_clean: CleanReport,
    /// How long it took, in milliseconds.
    pub last_clean_ms: i64,
}

/// What one call of [`LogManager::clean_next`] did.
#[derive(Debug, Default)]
pub struct CleanRound {
    /// The log that was chosen and what became of it; none if no log was due.
    pub cleaned: Option<(TopicPartition, Result<CleanReport, CleanError>)>,
    /// Directories that went offline.
    pub failed_directories: Vec<Uuid>,
}

/// A log that is due.
struct Chosen {
    partition: TopicPartition,
    placed: Placed,
    target: Cleanable,
}

impl LogManager {
    /// Removes segments of compacted logs that retention says to, and compacts the log that needs it
    /// most, if one does. Blocks on the file system for as long as that takes.
    pub fn clean_next(&self, cleaner: &mut Cleaner, pace: &dyn Pace) -> CleanRound {
        let online: Vec<bool> = self.directories.iter().map(|d| d.is_online()).collect();
        let now_ms = self.env.clock.wall_ms();
        let mut round = CleanRound::default();
        // First, as what retention takes need not be compacted: together with younger segments in
        // one it would stay for as long as they do.
        self.retain_compacted();
        if let Some(chosen) = self.choose(now_ms) {
            let result = self.clean(&chosen, cleaner, pace, now_ms);
            self.note_result(&chosen, &result, now_ms);
            round.cleaned = Some((chosen.partition, result));
        }
        round.failed_directories = self
            .directories
            .iter()
            .zip(online)
            .filter(|(directory, was_online)| *was_online && !directory.is_online())
            .map(|(directory, _)| directory.id())
            .collect();
        round
    }

    /// How compaction is doing.
    pub fn cleaning_status(&self) -> CleaningStatus {
        let cleaning = lock(&self.cleaning);
        CleaningStatus {
            uncleanable_partitions: cleaning.uncleanable.len(),
            ..cleaning.status
        }
    }

    /// Bytes that wait in logs that could not be compacted.
    pub fn uncleanable_bytes(&self) -> u64 {
        let partitions: Vec<_> = lock(&self.cleaning).uncleanable.keys().cloned().collect();
        let now_ms = self.env.clock.wall_ms();
        partitions
            .iter()
            .filter_map(|partition| self.get(partition)?.cleanable(now_ms).ok())
            .map(|cleanable| cleanable.dirty_bytes)
            .sum()
    }

    /// Picks the dirtiest of the logs that are due and marks it as being compacted.
    fn choose(&self, now_ms: i64) -> Option<Chosen> {
        let candidates = self.compacted();
        let mut cleaning = lock(&self.cleaning);
        cleaning.uncleanable.retain(|partition, _| {
            // Deleted, or no longer compacted.
            candidates.iter().any(|(known, _)| known == partition)
        });
        let mut best: Option<Chosen> = None;
        let (mut dirtiest_ratio, mut overdue_ms) = (0.0_f64, 0);
        for (partition, placed) in candidates {
            let waits = cleaning
                .uncleanable
                .get(&partition)
                .is_some_and(|known| now_ms < known.retry_ms);
            if waits || cleaning.in_progress.contains(&partition) {
                continue;
            }
            let Ok(target) = placed.log.cleanable(now_ms) else {
                cleaning.fail(&partition, now_ms);
                continue;
            };
            let ratio = target.dirty_ratio();
            dirtiest_ratio = dirtiest_ratio.max(ratio);
            overdue_ms = overdue_ms.max(target.overdue_ms);
            let due = target.is_due(placed.log.config().min_cleanable_dirty_ratio);
            let dirtier = best
                .as_ref()
                .is_none_or(|best| ratio > best.target.dirty_ratio());
            if due && dirtier {
                best = Some(Chosen {
                    partition,
                    placed,
                    target,
                });
            }
        }
        cleaning.status.last_round_ms = now_ms;
        cleaning.status.dirtiest_ratio = dirtiest_ratio;
        cleaning.status.overdue_ms = overdue_ms;
        if let Some(chosen) = &best {
            cleaning.in_progress.insert(chosen.partition.clone());
        }
        best
    }

    /// The logs that are to be compacted and can be. One that moves to another directory cannot:
    /// its copy is made of what it holds.
    fn compacted(&self) -> Vec<(TopicPartition, Placed)> {
        let futures = self.futures.read().unwrap_or_else(PoisonError::into_inner);
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.iter()
            .filter(|(partition, placed)| {
                placed.log.config().compact
                    && !placed.log.is_offline()
                    && !futures.contains_key(*partition)
            })
            .map(|(partition, placed)| (partition.clone(), placed.clone()))
            .collect()
    }

    fn clean(
        &self,
        chosen: &Chosen,
        cleaner: &mut Cleaner,
        pace: &dyn Pace,
        now_ms: i64,
    ) -> Result<CleanReport, CleanError> {
        let log = &chosen.placed.log;
        // The entry tells the next start that gaps are no damage, so it comes before the first.
        log.expect_compaction();
        self.checkpoint_cleaned(chosen.placed.directory)?;
        let report = cleaner.clean(log, &chosen.target, now_ms, pace)?;
        self.checkpoint_cleaned(chosen.placed.directory)?;
        Ok(report)
    }

    fn note_result(
        &self,
        chosen: &Chosen,
        result: &Result<CleanReport, CleanError>,
        began_ms: i64,
    ) {
        let ended_ms = self.env.clock.wall_ms();
        let mut cleaning = lock(&self.cleaning);
        cleaning.in_progress.remove(&chosen.partition);
        match result {
            Ok(report) => {
                cleaning.uncleanable.remove(&chosen.partition);
                cleaning.status.last_clean = *report;
                cleaning.status.last_clean_ms = ended_ms.saturating_sub(began_ms).max(0);
            }
            Err(CleanError::Disturbed | CleanError::Stopped) => {}
            Err(CleanError::Log(error)) => {
                cleaning.fail(&chosen.partition, ended_ms);
                drop(cleaning);
                if is_fatal(&chosen.placed.log, error) {
                    self.fail_directory(chosen.placed.directory);
                }
            }
        }
    }

    /// Applies retention to compacted logs as often as they are looked at, as Kafka's cleaner
    /// does: they may have `delete` in their policy, or a start that was raised.
    fn retain_compacted(&self) {
        for (partition, placed) in self.compacted() {
            if self.is_being_cleaned(&partition) {
                continue;
            }
            let now_ms = self.env.clock.wall_ms();
            let high_watermark = placed.log.high_watermark();
            let result = placed.log.apply_retention(now_ms, high_watermark);
            self.fail_on_disk_error(placed.directory, result.map(drop));
        }
    }

    /// Whether a log is being compacted. Retention leaves it alone meanwhile, or the clean would
    /// have been for nothing.
    pub(super) fn is_being_cleaned(&self, partition: &TopicPartition) -> bool {
        lock(&self.cleaning).in_progress.contains(partition)
    }

    /// Writes how far the logs of a directory are compacted, if that changed.
    pub(super) fn checkpoint_cleaned(&self, index: usize) -> Result<(), LogError> {
        self.directories[index].forget_departures(Checkpoint::Cleaned);
        let cleaned: PartitionOffsets = self
            .placed_in(index)
            .into_iter()
            .filter_map(|placed| {
                let offset = placed.log.cleaned_to()?;
                Some((placed.log.topic_partition().clone(), offset))
            })
            .collect();
        self.directories[index].write_cleaned(&*self.env.fs, cleaned)
    }
}

impl Cleaning {
    fn fail(&mut self, partition: &TopicPartition, now_ms: i64) {
        let known = self
            .uncleanable
            .entry(partition.clone())
            .or_insert(Uncleanable {
                failures: 0,
                retry_ms: 0,
            });
        let [first_ms, most_ms] = RETRY_MS;
        let wait_ms = first_ms
            .saturating_mul(1 << known.failures.min(16))
            .min(most_ms);
        known.failures += 1;
        known.retry_ms = now_ms.saturating_add(wait_ms);
    }
}

/// Whether a failure takes the directory out of service. What one log's files hold does not, nor
/// does a full disk: compaction needs room before it gives some back, and nothing is lost without.
fn is_fatal(log: &Arc<Log>, error: &LogError) -> bool {
    log.is_offline() || error.is_disk_failure()
}

#[cfg(test)]
mod tests;
