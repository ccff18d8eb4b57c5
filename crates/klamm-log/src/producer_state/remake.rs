//! Snapshots that are made anew: a crash tears those that were not synced, and only the newest is
//! looked at when a log is opened.

use std::collections::BTreeSet;
use std::io;

use crate::error::LogError;
use crate::names::FileKind;
use crate::producer_state::{ProducerStates, snapshot};

impl ProducerStates {
    /// The producers by the newest snapshot in `from..=offset` that can be read, which is where
    /// [`map_end`](Self::map_end) then is; without one there are none, at `from`. Files stay as they
    /// are.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn before(&self, offset: i64, from: i64) -> Result<ProducerStates, LogError> {
        // Nobody is forgotten: how long they were silent is for those to judge who take them over.
        let mut found = ProducerStates::new(self.dir.clone(), BTreeSet::new(), i64::MAX);
        found.set_map_end(from);
        let there = self.snapshots.iter().rev();
        for &at in there.filter(|at| (from..=offset).contains(*at)) {
            match snapshot::read(&*self.dir.fs, &self.dir.file(at, FileKind::Snapshot)) {
                Ok(producers) => {
                    found.adopt(producers, 0);
                    found.set_map_end(at);
                    break;
                }
                Err(LogError::MalformedFile { .. }) => {}
                Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The content of a snapshot of this state.
    pub(crate) fn content(&self) -> Vec<u8> {
        snapshot::encode(&self.producers)
    }

    /// Writes the snapshot at the end of `found`. Not synced, as any.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn put_snapshot(&mut self, found: &ProducerStates) -> Result<(), LogError> {
        let path = self.dir.file(found.map_end, FileKind::Snapshot);
        snapshot::write(&*self.dir.fs, &path, &found.producers)?;
        self.snapshots.insert(found.map_end);
        self.dir.note_new_file();
        Ok(())
    }
}
