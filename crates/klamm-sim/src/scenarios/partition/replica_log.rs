//! A replica's log as far as replication goes: values with the epochs that wrote them, and where
//! each epoch starts, which a leader notes at its election.

use std::collections::BTreeMap;

use klamm_replication::partition::EpochEnd;

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Leader epoch in which it was written.
    pub epoch: i32,
    /// Unique in a run.
    pub value: u64,
}

/// The log; offsets start at 0.
#[derive(Clone, Debug, Default)]
pub struct ReplicaLog {
    /// The records.
    pub entries: Vec<Entry>,
    /// First offset of each epoch.
    epochs: BTreeMap<i32, i64>,
}

impl ReplicaLog {
    /// The offset of the next record.
    pub fn end(&self) -> i64 {
        self.entries.len() as i64
    }

    /// Notes that `epoch` starts here, unless it is known.
    pub fn assign_epoch(&mut self, epoch: i32) {
        let end = self.end();
        self.epochs.entry(epoch).or_insert(end);
    }

    /// Appends a record.
    pub fn append(&mut self, entry: Entry) {
        self.assign_epoch(entry.epoch);
        self.entries.push(entry);
    }

    /// Cuts at `offset`.
    pub fn truncate_to(&mut self, offset: i64) {
        self.entries.truncate(offset.max(0) as usize);
        self.epochs.retain(|_, start| *start < offset);
    }

    /// The newest epoch noted.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.epochs.last_key_value().map(|(epoch, _)| *epoch)
    }

    /// The largest epoch not above `epoch`, and where it ends; -1 and -1 if this log has not got
    /// as far as `epoch`.
    pub fn epoch_end(&self, epoch: i32) -> EpochEnd {
        if self.latest_epoch() == Some(epoch) {
            let end_offset = self.end();
            return EpochEnd { epoch, end_offset };
        }
        match self.epochs.range(epoch + 1..).next() {
            None => EpochEnd {
                epoch: -1,
                end_offset: -1,
            },
            Some((_, &end_offset)) => {
                let floor = self.epochs.range(..=epoch).next_back();
                EpochEnd {
                    epoch: floor.map_or(epoch, |(floor, _)| *floor),
                    end_offset,
                }
            }
        }
    }

    /// Records that this log and another have in common from the start.
    pub fn common_prefix(&self, other: &ReplicaLog) -> i64 {
        let pairs = self.entries.iter().zip(&other.entries);
        pairs.take_while(|(one, other)| one == other).count() as i64
    }
}
