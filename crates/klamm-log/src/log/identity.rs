//! Which topic a log belongs to, and when the file that says so has to be durable.
//!
//! A log without batches can be made again, so to create one waits for no disk: a broker makes
//! thousands at once. Its first batch makes the topic's id durable before itself, and so no batch
//! is ever taken for another topic's of the same name.

use std::sync::Arc;

use klamm_records::Uuid;

use crate::batch::BatchMeta;
use crate::error::LogError;
use crate::log::{Log, State};
use crate::partition_metadata::{self, Found};
use crate::segment::Segment;
use crate::storage::{LogDir, lock};

/// The topic's id, if the log has one.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) topic_id: Option<Uuid>,
    /// A power cut could take the file, or a part of it, or bring back one that was removed.
    unsettled: bool,
    /// A sync of the file failed: what it wrote may be gone, though the next sync succeeds.
    doubtful: bool,
}

impl Identity {
    /// Of a log that is being opened: `found` is what its directory says.
    pub(super) fn new(
        found: Found,
        expected: Option<Uuid>,
        dir: &LogDir,
        segments: &[Arc<Segment>],
    ) -> Result<Identity, LogError> {
        let is_empty = segments.iter().all(|segment| segment.size() == 0);
        let mut identity = match found {
            Found::Sound(topic_id) => Identity {
                topic_id,
                unsettled: topic_id.is_some() && is_empty,
                doubtful: false,
            },
            Found::Removed => Identity {
                topic_id: None,
                unsettled: true,
                doubtful: false,
            },
        };
        if let (None, Some(topic_id)) = (identity.topic_id, expected) {
            identity.set(topic_id, dir, is_empty)?;
        }
        Ok(identity)
    }

    fn set(&mut self, topic_id: Uuid, dir: &LogDir, is_empty: bool) -> Result<(), LogError> {
        if is_empty {
            partition_metadata::note(&*dir.fs, &dir.path(), topic_id)?;
        } else {
            partition_metadata::write(&*dir.fs, &dir.path(), topic_id)?;
            // With the name of this file those of the segments'.
            dir.note_names_durable();
        }
        self.topic_id = Some(topic_id);
        self.unsettled = is_empty;
        Ok(())
    }

    /// Makes the file's content durable before there are batches; the directory has to be synced
    /// yet.
    pub(super) fn settle(&mut self, dir: &LogDir) -> Result<(), LogError> {
        let Some(topic_id) = self.topic_id.filter(|_| self.unsettled) else {
            return Ok(());
        };
        let written = if self.doubtful {
            partition_metadata::write(&*dir.fs, &dir.path(), topic_id)
        } else {
            partition_metadata::settle(&*dir.fs, &dir.path())
        };
        self.doubtful = written.is_err();
        written
    }

    /// Notes that the directory was synced after [`settle`](Self::settle).
    pub(super) fn set_settled(&mut self) {
        self.unsettled = false;
    }
}

impl Log {
    /// The topic's id; none for a log that stands alone.
    pub fn topic_id(&self) -> Option<Uuid> {
        lock(&self.state).identity.topic_id
    }

    /// Gives a log without a topic id one, and writes it to `partition.metadata`.
    ///
    /// # Errors
    /// [`LogError::InconsistentTopicId`] if it has another one, or the disk's.
    pub fn assign_topic_id(&self, topic_id: Uuid) -> Result<(), LogError> {
        let mut state = self.open_state()?;
        match state.identity.topic_id {
            Some(found) if found == topic_id => Ok(()),
            Some(found) => Err(LogError::InconsistentTopicId {
                dir: self.dir(),
                expected: topic_id,
                found,
            }),
            None => {
                let is_empty = self
                    .all_segments()
                    .iter()
                    .all(|segment| segment.size() == 0);
                state.identity.set(topic_id, &self.dir.get(), is_empty)
            }
        }
    }

    /// Makes durable what must not be missing when a crash leaves these batches, which are about to
    /// be written: whose they are, and the leader epochs that begin with them.
    pub(super) fn note_origin(
        &self,
        state: &mut State,
        metas: &[BatchMeta],
    ) -> Result<(), LogError> {
        let unsettled = state.identity.unsettled;
        if unsettled {
            state.identity.settle(&self.dir.get())?;
        }
        let mut synced = false;
        for meta in metas {
            synced |= state.epochs.assign(meta.leader_epoch, meta.base_offset)?;
        }
        if unsettled {
            if !synced {
                self.dir.sync()?;
            }
            state.identity.set_settled();
        }
        Ok(())
    }
}
