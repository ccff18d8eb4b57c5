//! Which directory a new log goes to.

use std::path::Path;

use klamm_records::{TopicPartition, Uuid};

use crate::manager::{Directory, LogManager, ManagerError};
use crate::storage::lock;

impl LogManager {
    /// Sets which directories get no new logs (`cordoned.log.dirs`); the logs they hold stay and
    /// are served. Returns whether that is news.
    pub fn set_cordoned(&self, is_cordoned: impl Fn(&Path) -> bool) -> bool {
        let news = self
            .directories
            .iter()
            .map(|directory| directory.set_cordoned(is_cordoned(directory.path())));
        news.fold(false, |any, news| any | news)
    }

    /// Notes the directory that operators want a log in which is not there yet.
    pub fn set_preferred_directory(&self, partition: &TopicPartition, directory: Uuid) {
        if let Some(index) = self.index_of(directory) {
            lock(&self.preferred).insert(partition.clone(), index);
        }
    }

    /// The index of a directory that is online.
    pub(super) fn index_of(&self, directory: Uuid) -> Option<usize> {
        self.directories
            .iter()
            .position(|known| known.id() == directory && known.is_online())
    }

    /// The directory for a new log. One that was asked for is taken even if it is cordoned: the
    /// cluster's metadata says then that the log is there.
    pub(super) fn place(
        &self,
        partition: &TopicPartition,
        asked: Option<Uuid>,
    ) -> Result<usize, ManagerError> {
        let preferred = lock(&self.preferred).get(partition).copied();
        if let Some(index) = preferred.filter(|&index| self.directories[index].is_online()) {
            return Ok(index);
        }
        match asked {
            Some(id) => self.index_of(id).ok_or(ManagerError::NoSuchDirectory(id)),
            None => self.emptiest().ok_or(ManagerError::AllOffline),
        }
    }

    /// The directory with the fewest logs that is not cordoned; the first if all are, since the
    /// controller places no replica on such a broker unless it was told to.
    fn emptiest(&self) -> Option<usize> {
        let online = |&index: &usize| self.directories[index].is_online();
        let open = (0..self.directories.len())
            .filter(online)
            .filter(|&index| !self.directories[index].is_cordoned())
            .min_by_key(|&index| Directory::log_count(&self.directories[index]));
        open.or_else(|| (0..self.directories.len()).find(online))
    }
}

#[cfg(test)]
mod tests;
