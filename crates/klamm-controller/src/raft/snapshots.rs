//! openraft's snapshots: a `.checkpoint` file, and a note of where it stands in the Raft log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use klamm_env::{Env, FsExt};
use klamm_metadata::MetadataImage;
use openraft::{RaftSnapshotBuilder, Snapshot};

use super::checkpoint::{self, CheckpointId};
use super::codec::{self, SnapshotNote};
use super::flusher::lock;
use super::projection::Projection;
use super::types::{LogId, SnapshotMeta, StoredMembership, TypeConfig};
use crate::runtime::spawn_blocking;

/// What names of snapshots begin with that are being received.
pub(super) const INCOMING_PREFIX: &str = "incoming-";
const NOTE_NAME: &str = "snapshot";

/// A snapshot on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotFile {
    /// The `.checkpoint` file.
    pub(crate) path: PathBuf,
    pub(super) id: CheckpointId,
}

impl SnapshotFile {
    /// Where a snapshot from another node is put until it is taken over. `serial` keeps two apart.
    pub(super) fn incoming(raft_dir: &Path, note: &SnapshotNote, serial: u64) -> Self {
        SnapshotFile {
            path: Self::incoming_path(raft_dir, serial),
            id: id_of(note),
        }
    }

    pub(super) fn incoming_path(raft_dir: &Path, serial: u64) -> PathBuf {
        raft_dir.join(format!("{INCOMING_PREFIX}{serial:016x}.tmp"))
    }
}

pub(super) type RaftSnapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotFile>;

/// The newest snapshot of a node.
#[derive(Clone)]
pub(super) struct SnapshotStore {
    env: Env,
    /// Where the metadata log and the snapshots are.
    log_dir: PathBuf,
    /// Where the Raft log and the note are.
    raft_dir: PathBuf,
    current: Arc<Mutex<Option<SnapshotNote>>>,
    /// Held while one is written: one may be taken here while another comes from the leader.
    writing: Arc<Mutex<()>>,
}

impl SnapshotStore {
    pub(super) fn open(env: &Env, log_dir: &Path, raft_dir: &Path) -> io::Result<Self> {
        let path = raft_dir.join(NOTE_NAME);
        let note = match env.fs.read(&path) {
            Ok(bytes) => Some(codec::decode_note(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(SnapshotStore {
            env: env.clone(),
            log_dir: log_dir.to_owned(),
            raft_dir: raft_dir.to_owned(),
            current: Arc::new(Mutex::new(note)),
            writing: Arc::default(),
        })
    }

    /// Fails if the current snapshot is not there any more, or does not reach as far as the entries
    /// that were `purged`: openraft takes both for granted.
    pub(super) fn check(&self, purged: Option<LogId>) -> io::Result<()> {
        let Some(current) = self.current() else {
            return Ok(());
        };
        let (last, id) = (current.meta.last_log_id, current.snapshot.id);
        if last < purged {
            let message = format!(
                "the metadata snapshot {} does not reach the beginning of the Raft log",
                id.file_name()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        if checkpoint::exists(&*self.env.fs, &self.log_dir, id)? {
            return Ok(());
        }
        let message = format!("the metadata snapshot {} is missing", id.file_name());
        Err(io::Error::new(io::ErrorKind::NotFound, message))
    }

    pub(super) fn current(&self) -> Option<RaftSnapshot> {
        lock(&self.current).as_ref().map(|note| self.describe(note))
    }

    /// Where the snapshots are.
    pub(super) fn log_dir(&self) -> &Path {
        &self.log_dir
    }

    /// The image in a snapshot. One that came from elsewhere becomes the current one here.
    pub(super) fn take(
        &self,
        file: &SnapshotFile,
        meta: &SnapshotMeta,
    ) -> io::Result<Arc<MetadataImage>> {
        let image = checkpoint::read(&*self.env.fs, &file.path, file.id)?;
        if file.path != checkpoint::path(&self.log_dir, file.id) {
            self.write(&image, meta.last_log_id, &meta.last_membership)?;
        }
        Ok(image)
    }

    /// Writes a snapshot, and makes it the current one, unless that is as new already: one that was
    /// begun before the leader sent a newer one may be done after it, and the log before the newer one
    /// is gone by then. Returns the current one. Blocks on the disk.
    pub(super) fn write(
        &self,
        image: &MetadataImage,
        last: Option<LogId>,
        membership: &StoredMembership,
    ) -> io::Result<RaftSnapshot> {
        let _writing = lock(&self.writing);
        let newer = self.current().filter(|it| it.meta.last_log_id >= last);
        if let Some(newer) = newer {
            return Ok(newer);
        }
        let fs = &*self.env.fs;
        let id = CheckpointId {
            end_offset: image.offset() + 1,
            epoch: image.epoch().max(0),
        };
        checkpoint::write(fs, &self.log_dir, id, image, membership.membership())?;
        let note = SnapshotNote {
            last,
            membership: membership.clone(),
            end_offset: id.end_offset,
            epoch: id.epoch,
        };
        fs.write_atomically(&self.raft_dir.join(NOTE_NAME), &codec::encode_note(&note)?)?;
        let snapshot = self.describe(&note);
        *lock(&self.current) = Some(note);
        checkpoint::remove_partial(fs, &self.log_dir)?;
        Ok(snapshot)
    }

    fn describe(&self, note: &SnapshotNote) -> RaftSnapshot {
        let id = id_of(note);
        Snapshot {
            meta: SnapshotMeta {
                last_log_id: note.last,
                last_membership: note.membership.clone(),
            },
            snapshot: SnapshotFile {
                path: checkpoint::path(&self.log_dir, id),
                id,
            },
        }
    }
}

fn id_of(note: &SnapshotNote) -> CheckpointId {
    CheckpointId {
        end_offset: note.end_offset,
        epoch: note.epoch,
    }
}

/// Writes one snapshot, from an image that stays as it is while the log goes on.
pub(super) struct SnapshotBuilder {
    pub(super) store: SnapshotStore,
    pub(super) projection: Projection,
    pub(super) image: Arc<MetadataImage>,
    pub(super) last: Option<LogId>,
    pub(super) membership: StoredMembership,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        let (store, projection) = (self.store.clone(), self.projection.clone());
        let (image, membership) = (Arc::clone(&self.image), self.membership.clone());
        let last = self.last;
        let written = spawn_blocking(move || {
            let snapshot = store.write(&image, last, &membership)?;
            projection.release()?;
            Ok(snapshot)
        });
        written.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::log_id;
    use super::*;

    #[test]
    fn a_snapshot_that_is_done_late_does_not_replace_a_newer_one() {
        let dir = tempfile::tempdir().unwrap();
        let raft_dir = dir.path().join("raft");
        let env = Env::os();
        env.fs.create_dir_all(&raft_dir).unwrap();
        let open = || SnapshotStore::open(&env, dir.path(), &raft_dir).unwrap();
        let store = open();
        let write = |index: u64| {
            let last = Some(log_id(5, index));
            let provenance = klamm_metadata::Provenance {
                offset: i64::try_from(index).unwrap(),
                epoch: 5,
                timestamp_ms: 0,
            };
            let mut nothing = klamm_metadata::MetadataDelta::new(Arc::default());
            let image = nothing.finish(provenance);
            let written = store.write(&image, last, &StoredMembership::default());
            written.unwrap().meta.last_log_id
        };
        assert_eq!(write(46), Some(log_id(5, 46)));
        // It was begun before that one came.
        assert_eq!(write(25), Some(log_id(5, 46)));
        for store in [&store, &open()] {
            let current = store.current().unwrap();
            assert_eq!(current.meta.last_log_id, Some(log_id(5, 46)));
            assert_eq!(current.snapshot.id.end_offset, 47);
            store.check(Some(log_id(5, 46))).unwrap();
            store.check(Some(log_id(5, 47))).unwrap_err();
        }
        let files = checkpoint::list(&*env.fs, dir.path()).unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!(write(47), Some(log_id(5, 47)));
    }
}
