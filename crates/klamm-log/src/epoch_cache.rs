//! Which leader epoch starts at which offset (KIP-101, KIP-279), kept in
//! `leader-epoch-checkpoint`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use klamm_env::Fs;

use crate::checkpoints;
use crate::error::LogError;
use crate::names::LEADER_EPOCH_CHECKPOINT;

/// The last offset of an epoch, as a leader answers it to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest epoch the log has that is not above the one asked for.
    pub epoch: i32,
    /// The offset after that epoch's last.
    pub end_offset: i64,
}

/// Epochs ascend together with their start offsets; both strictly.
#[derive(Debug)]
pub(crate) struct EpochCache {
    epochs: BTreeMap<i32, i64>,
    /// Whether the file lacks entries or has some that are gone.
    dirty: bool,
    /// Whether the newest entry is of an epoch that has no records, and not in the file.
    unused: bool,
    fs: Arc<dyn Fs>,
    path: PathBuf,
}

impl EpochCache {
    /// Reads the checkpoint of a partition's directory.
    pub(crate) fn open(fs: Arc<dyn Fs>, dir: &std::path::Path) -> Result<EpochCache, LogError> {
        let path = dir.join(LEADER_EPOCH_CHECKPOINT);
        let mut cache = EpochCache {
            epochs: BTreeMap::new(),
            dirty: false,
            unused: false,
            fs,
            path,
        };
        for (epoch, start) in checkpoints::read_epochs(&*cache.fs, &cache.path)? {
            cache.insert(epoch, start);
        }
        cache.dirty = false;
        Ok(cache)
    }

    /// The epochs of which it is known that the checkpoint of a directory holds them.
    pub(crate) fn known(
        fs: Arc<dyn Fs>,
        dir: &std::path::Path,
        epochs: &[(i32, i64)],
    ) -> EpochCache {
        EpochCache {
            epochs: epochs.iter().copied().collect(),
            dirty: false,
            unused: false,
            fs,
            path: dir.join(LEADER_EPOCH_CHECKPOINT),
        }
    }

    pub(crate) fn set_dir(&mut self, dir: &std::path::Path) {
        self.path = dir.join(LEADER_EPOCH_CHECKPOINT);
    }

    /// Goes on in a directory whose file may lack entries.
    pub(crate) fn move_to(&mut self, dir: &std::path::Path) {
        self.set_dir(dir);
        self.dirty = true;
    }

    /// Notes that `epoch` starts at `start`, where a batch is about to be written, and makes it
    /// durable if the file does not say so. Written before the batch: an epoch that is missing
    /// after a crash could hide a divergence from the leader. Returns whether that was needed: the
    /// directory is synced then.
    pub(crate) fn assign(&mut self, epoch: i32, start: i64) -> Result<bool, LogError> {
        if epoch < 0 || start < 0 {
            return Ok(false);
        }
        self.insert(epoch, start);
        let is_news = self.dirty || self.unused;
        if is_news {
            self.write()?;
        }
        Ok(is_news)
    }

    /// Notes that `epoch` starts at `end`, the end of the log. Its first batch makes that durable;
    /// until then a restart would drop the entry anyway, so an election costs no disk access.
    pub(crate) fn assign_at_end(&mut self, epoch: i32, end: i64) {
        if epoch >= 0 && end >= 0 {
            let dirty = self.dirty;
            if self.insert(epoch, end) {
                self.unused = true;
                self.dirty = dirty;
            }
        }
    }

    /// Notes an epoch without writing the file; for recovery, which writes once at its end.
    pub(crate) fn insert(&mut self, epoch: i32, start: i64) -> bool {
        let news = match self.epochs.last_key_value() {
            Some((&latest, &latest_start)) => epoch != latest || start < latest_start,
            None => true,
        };
        if news {
            while let Some((&latest, &latest_start)) = self.epochs.last_key_value() {
                if latest < epoch && latest_start < start {
                    break;
                }
                self.epochs.remove(&latest);
            }
            self.epochs.insert(epoch, start);
            self.dirty = true;
        }
        news
    }

    pub(crate) fn latest(&self) -> Option<i32> {
        self.epochs.last_key_value().map(|(&epoch, _)| epoch)
    }

    pub(crate) fn earliest(&self) -> Option<(i32, i64)> {
        self.epochs
            .first_key_value()
            .map(|(&epoch, &start)| (epoch, start))
    }

    pub(crate) fn entries(&self) -> Vec<(i32, i64)> {
        self.epochs
            .iter()
            .map(|(&epoch, &start)| (epoch, start))
            .collect()
    }

    /// The epoch that `offset` was or would be written in.
    pub(crate) fn epoch_of(&self, offset: i64) -> Option<i32> {
        self.epochs
            .iter()
            .take_while(|&(_, &start)| start <= offset)
            .last()
            .map(|(&epoch, _)| epoch)
    }

    /// Where `epoch` ends. None if the log knows nothing to compare with: no epochs at all, or
    /// one above all that it has.
    pub(crate) fn end_of(&self, epoch: i32, log_end: i64) -> Option<EpochEnd> {
        if epoch < 0 {
            return None;
        }
        if self.latest() == Some(epoch) {
            return Some(EpochEnd {
                epoch,
                end_offset: log_end,
            });
        }
        let (_, &end_offset) = self.epochs.range(epoch + 1..).next()?;
        let found = self.epochs.range(..=epoch).next_back();
        // Below the first epoch: its data is gone, and what is left starts at `end_offset`.
        let epoch = found.map_or(epoch, |(&floor, _)| floor);
        Some(EpochEnd { epoch, end_offset })
    }

    /// Forgets epochs that start at or above `end`. The file is brought up to date by the next
    /// write; stale entries in it are dropped again when the log is opened.
    pub(crate) fn truncate_from_end(&mut self, end: i64) {
        while let Some(entry) = self.epochs.last_entry() {
            if *entry.get() < end {
                break;
            }
            entry.remove();
            self.dirty = true;
        }
    }

    /// Forgets epochs that ended before `start`; the one that `start` lies in begins there now.
    pub(crate) fn truncate_from_start(&mut self, start: i64) {
        if let Some(epoch) = self.epoch_of(start) {
            self.epochs = self.epochs.split_off(&epoch);
            self.dirty |= self.epochs.insert(epoch, start) != Some(start);
        }
    }

    /// Puts other epochs in the place of all there are.
    pub(crate) fn replace(&mut self, epochs: &[(i32, i64)]) {
        self.clear();
        for &(epoch, start) in epochs {
            self.insert(epoch, start);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.dirty |= !self.epochs.is_empty();
        self.epochs.clear();
    }

    /// Brings the file up to date.
    pub(crate) fn write_if_dirty(&mut self) -> Result<(), LogError> {
        if self.dirty {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), LogError> {
        checkpoints::write_epochs(
            &*self.fs,
            &self.path,
            self.epochs.iter().map(|(&epoch, &start)| (epoch, start)),
        )?;
        self.dirty = false;
        self.unused = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TestDir;

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        let dir = TestDir::new();
        let mut cache = EpochCache::open(dir.env.fs.clone(), dir.path()).unwrap();
        for &(epoch, start) in entries {
            cache.insert(epoch, start);
        }
        cache
    }

    #[test]
    fn keeps_only_the_first_offset_of_an_epoch() {
        let mut cache = cache(&[(2, 6), (2, 7)]);
        assert_eq!(cache.entries(), [(2, 6)]);
        // A restart of the same epoch below is a truncation that happened.
        assert!(cache.insert(2, 5));
        assert_eq!(cache.entries(), [(2, 5)]);
    }

    #[test]
    fn a_new_entry_removes_conflicting_ones() {
        let base = [(2, 6), (3, 8), (4, 11)];
        assert_eq!(
            {
                let mut c = cache(&base);
                c.insert(3, 9);
                c.entries()
            },
            [(2, 6), (3, 9)]
        );
        assert_eq!(
            {
                let mut c = cache(&base);
                c.insert(5, 7);
                c.entries()
            },
            [(2, 6), (5, 7)]
        );
        assert_eq!(
            {
                let mut c = cache(&base);
                c.insert(1, 0);
                c.entries()
            },
            [(1, 0)]
        );
    }

    #[test]
    fn tells_the_end_of_epochs() {
        let cache = cache(&[(2, 6), (4, 8), (5, 10)]);
        let end = |epoch| {
            cache
                .end_of(epoch, 15)
                .map(|end| (end.epoch, end.end_offset))
        };
        assert_eq!(end(5), Some((5, 15)));
        assert_eq!(end(4), Some((4, 10)));
        assert_eq!(end(3), Some((2, 8)));
        assert_eq!(end(1), Some((1, 6)));
        assert_eq!(end(6), None);
        assert_eq!(end(-1), None);
    }

    #[test]
    fn truncates_on_both_ends() {
        let mut cache = cache(&[(2, 6), (3, 8), (4, 11)]);
        cache.truncate_from_start(9);
        assert_eq!(cache.entries(), [(3, 9), (4, 11)]);
        cache.truncate_from_start(3);
        assert_eq!(cache.entries(), [(3, 9), (4, 11)]);
        cache.truncate_from_end(11);
        assert_eq!(cache.entries(), [(3, 9)]);
        cache.truncate_from_end(9);
        assert!(cache.entries().is_empty());
    }

    #[test]
    fn tells_the_epoch_of_an_offset() {
        let cache = cache(&[(2, 6), (4, 8)]);
        assert_eq!(cache.epoch_of(5), None);
        assert_eq!(cache.epoch_of(6), Some(2));
        assert_eq!(cache.epoch_of(7), Some(2));
        assert_eq!(cache.epoch_of(100), Some(4));
    }

    #[test]
    fn survives_a_reopen() {
        let dir = TestDir::new();
        let mut cache = EpochCache::open(dir.env.fs.clone(), dir.path()).unwrap();
        cache.assign(0, 0).unwrap();
        cache.assign(3, 17).unwrap();
        let cache = EpochCache::open(dir.env.fs.clone(), dir.path()).unwrap();
        assert_eq!(cache.entries(), [(0, 0), (3, 17)]);
    }

    #[test]
    fn an_epoch_without_records_is_written_with_its_first_batch() {
        let dir = TestDir::new();
        let stored = || {
            let cache = EpochCache::open(dir.env.fs.clone(), dir.path()).unwrap();
            cache.entries()
        };
        let mut cache = EpochCache::open(dir.env.fs.clone(), dir.path()).unwrap();
        cache.assign_at_end(4, 0);
        cache.write_if_dirty().unwrap();
        assert_eq!((cache.latest(), stored()), (Some(4), vec![]));
        cache.assign(4, 0).unwrap();
        assert_eq!(stored(), [(4, 0)]);
    }

    #[test]
    fn a_batch_after_a_truncation_takes_what_was_cut_off_out_of_the_file() {
        let dir = TestDir::new();
        let mut cache = EpochCache::open(dir.env.fs.clone(), dir.path()).unwrap();
        cache.assign(5, 100).unwrap();
        cache.assign(6, 150).unwrap();
        cache.truncate_from_end(120);
        // The same epoch goes on, so this is no news; the file is wrong all the same.
        cache.assign(5, 120).unwrap();
        let cache = EpochCache::open(dir.env.fs.clone(), dir.path()).unwrap();
        assert_eq!(cache.entries(), [(5, 100)]);
    }
}
