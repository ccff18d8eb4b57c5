//! The metadata as a node has it that is no controller: replayed from what controllers committed.
//!
//! It is kept on disk as Kafka's brokers keep it, batches and snapshots in `__cluster_metadata-0`, so
//! that a broker that starts goes on from where it was. Nothing depends on that copy: what a crash
//! takes from its end is fetched again, and one that cannot be read is given up.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use klamm_env::{Env, File, FileExt, OpenMode};
use klamm_metadata::{MetadataDelta, MetadataImage, Provenance, TransactionFilter};
use klamm_protocol::control_records::VotersRecord;
use klamm_records::batches;
use tokio::sync::Mutex;

use super::batches::Replayer;
use super::bootstrap;
use super::checkpoint::{self, CheckpointId};
use super::projection::{self, MetadataLogOptions, Projection};
use super::state_machine::{MetadataPublisher, Published};
use super::{import, membership_of};
use crate::runtime::spawn_blocking;

/// Name of a snapshot that is being fetched.
const INCOMING: &str = "incoming.checkpoint.part";

/// The metadata of a node that follows the controllers. It only ever goes ahead. Clones refer to
/// the same.
#[derive(Clone)]
pub struct MetadataReplica(Arc<Inner>);

struct Inner {
    published: Published,
    /// Held over each change.
    state: Mutex<State>,
    disk: Disk,
    /// Bytes of the log since the last snapshot.
    log_bytes: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Records of a metadata transaction that has not ended yet.
    filter: TransactionFilter,
    /// The voters, where the log keeps them.
    voters: Option<VotersRecord>,
}

/// Where the copy on disk is.
struct Disk {
    env: Env,
    dir: PathBuf,
    projection: Projection,
}

/// A snapshot that is being fetched, piece by piece.
#[derive(Debug)]
pub struct IncomingSnapshot {
    file: Arc<dyn File>,
    position: u64,
    end_offset: i64,
    epoch: i32,
}

impl IncomingSnapshot {
    /// How much of it is there.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all_at(piece, self.position)?;
        self.position += piece.len() as u64;
        Ok(())
    }
}

impl std::fmt::Debug for MetadataReplica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetadataReplica")
            .field("offset", &self.image().offset())
            .finish()
    }
}

impl MetadataReplica {
    /// Opens the copy below `metadata_dir`, and begins with what is in it.
    ///
    /// # Errors
    /// If files cannot be read or written.
    pub async fn open(
        env: &Env,
        metadata_dir: &Path,
        options: MetadataLogOptions,
    ) -> io::Result<Self> {
        let dir = metadata_dir.join(projection::DIR_NAME);
        env.fs.create_dir_all(&dir)?;
        let mut projection = Projection::open(&dir, env, options)?;
        let found = match import::read(env, &dir, &projection) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(%error, "the copy of the metadata is given up and fetched anew");
                projection.close()?;
                remove_copy(env, &dir)?;
                projection = Projection::open(&dir, env, options)?;
                None
            }
            found => found?,
        };
        let inner = Inner {
            published: Published::default(),
            state: Mutex::default(),
            disk: Disk {
                env: env.clone(),
                dir,
                projection,
            },
            log_bytes: AtomicU64::new(0),
        };
        if let Some(found) = found {
            let mut state = inner.state.lock().await;
            state.filter = found.filter;
            state.voters = found.voters;
            drop(state);
            let delta = MetadataDelta::from_nothing(&found.image);
            inner.published.publish(delta, found.image).await;
        }
        Ok(MetadataReplica(Arc::new(inner)))
    }

    /// The metadata of now. Costs an atomic load.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.0.published.image()
    }

    /// Offset of the last record that all publishers were told of; -1 if there is none.
    pub fn published_offset(&self) -> i64 {
        self.0.published.told_offset()
    }

    /// Tells `publisher` all that the image holds now, and from then on each change in order.
    pub async fn subscribe(&self, publisher: Arc<dyn MetadataPublisher>) {
        self.0.published.subscribe(publisher).await;
    }

    /// Bytes that were added to the log since the last snapshot.
    pub fn log_bytes(&self) -> u64 {
        self.0.log_bytes.load(Ordering::Relaxed)
    }

    /// Replays batches of the metadata log as a controller sent them. What is known already is
    /// passed over, and a batch that is cut at the end is left for the next time.
    ///
    /// # Errors
    /// Batches that are damaged or do not follow on what is there. Nothing has changed then.
    pub async fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.state.lock().await;
        let base = self.image();
        let mut at = base.provenance();
        let known = at.offset;
        let mut delta = MetadataDelta::new(base);
        let mut replayer = Replayer::resume(&mut delta, state.filter.clone());
        let mut taken = Vec::new();
        for batch in batches(bytes) {
            let Ok(batch) = batch else { break };
            let (first, next) = (batch.header().base_offset, batch.header().next_offset());
            if next <= at.offset + 1 {
                continue;
            }
            if first != at.offset + 1 {
                let message = format!("metadata goes on at {first} instead of {}", at.offset + 1);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            replayer.batch(&batch)?;
            taken.extend_from_slice(batch.bytes());
            at = Provenance {
                offset: next - 1,
                epoch: replayer.epoch,
                timestamp_ms: replayer.timestamp_ms,
            };
        }
        let voters = replayer.voters.take();
        let filter = replayer.into_filter();
        if at.offset > known {
            self.0
                .log_bytes
                .fetch_add(taken.len() as u64, Ordering::Relaxed);
            let projection = self.0.disk.projection.clone();
            let written = spawn_blocking(move || projection.append_all(&taken));
            written.await.map_err(io::Error::other)??;
            state.filter = filter;
            state.voters = voters.or(state.voters.take());
            let image = delta.finish(at);
            self.0.published.publish(delta, image).await;
        }
        Ok(())
    }

    /// Begins to fetch a snapshot.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn incoming(&self, end_offset: i64, epoch: i32) -> io::Result<IncomingSnapshot> {
        let disk = &self.0.disk;
        let file = disk
            .env
            .fs
            .open(&disk.dir.join(INCOMING), OpenMode::Truncate)?;
        Ok(IncomingSnapshot {
            file,
            position: 0,
            end_offset,
            epoch,
        })
    }

    /// Goes ahead to a snapshot, unless the metadata is as far already.
    ///
    /// # Errors
    /// A snapshot that is damaged or not whole. Nothing has changed then.
    pub async fn load(&self, incoming: IncomingSnapshot) -> io::Result<()> {
        let mut state = self.0.state.lock().await;
        let before = self.image();
        let id = CheckpointId {
            end_offset: incoming.end_offset,
            epoch: incoming.epoch,
        };
        if id.end_offset <= before.offset() + 1 {
            return Ok(());
        }
        let (env, dir, projection) = {
            let disk = &self.0.disk;
            (disk.env.clone(), disk.dir.clone(), disk.projection.clone())
        };
        let load = move || {
            let partial = dir.join(INCOMING);
            let (image, voters) = checkpoint::read_with_voters(&*env.fs, &partial, id)?;
            incoming.file.sync_all()?;
            env.fs.rename(&partial, &checkpoint::path(&dir, id))?;
            env.fs.sync_dir(&dir)?;
            projection.start_at(id.end_offset)?;
            projection.release()?;
            Ok::<_, io::Error>((image, voters))
        };
        let loaded = spawn_blocking(load).await.map_err(io::Error::other)?;
        let (image, voters) = loaded?;
        state.filter = TransactionFilter::default();
        state.voters = voters;
        self.0.log_bytes.store(0, Ordering::Relaxed);
        let delta = if before.offset() < 0 {
            MetadataDelta::from_nothing(&image)
        } else {
            MetadataDelta::between(&before, &image)
        };
        self.0.published.publish(delta, image).await;
        Ok(())
    }

    /// Writes a snapshot of the metadata of now, and gives up what need not be kept beside it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn take_snapshot(&self) -> io::Result<()> {
        let state = self.0.state.lock().await;
        if state.filter.is_open() {
            // A transaction is open: what it brought so far is not in the image.
            return Ok(());
        }
        let image = self.image();
        let members = membership_of(state.voters.as_ref().map(bootstrap::initial_voters))?;
        self.0.log_bytes.store(0, Ordering::Relaxed);
        drop(state);
        let (env, dir, projection) = {
            let disk = &self.0.disk;
            (disk.env.clone(), disk.dir.clone(), disk.projection.clone())
        };
        let write = move || {
            let id = CheckpointId {
                end_offset: image.offset() + 1,
                epoch: image.epoch().max(0),
            };
            checkpoint::write(&*env.fs, &dir, id, &image, &members)?;
            projection.release()
        };
        spawn_blocking(write).await.map_err(io::Error::other)?
    }

    /// Closes the copy in order.
    ///
    /// # Errors
    /// If it cannot be made durable.
    pub fn close(&self) -> io::Result<()> {
        self.0.disk.projection.close()
    }
}

/// Removes what a copy consists of.
fn remove_copy(env: &Env, dir: &Path) -> io::Result<()> {
    for entry in env.fs.read_dir(dir)? {
        if !entry.is_dir {
            env.fs.remove_file(&dir.join(entry.name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test damages files")]
mod tests {
    use klamm_metadata::MetadataVersion;
    use klamm_protocol::metadata::{MetadataRecord, TopicRecord};
    use klamm_records::Uuid;

    use super::super::batches::{self, Stamp};
    use super::super::types::RecordGroup;
    use super::*;

    fn batch(base_offset: i64, names: &[&str]) -> Vec<u8> {
        let stamp = Stamp {
            base_offset,
            epoch: 3,
            timestamp_ms: 5,
        };
        let topic = |name: &&str| {
            MetadataRecord::from(TopicRecord {
                name: (*name).to_owned().into(),
                topic_id: Uuid::from_bytes([name.as_bytes()[0]; 16]),
                ..TopicRecord::default()
            })
        };
        let group = RecordGroup {
            leader: None,
            records: names.iter().map(topic).collect(),
            version: MetadataVersion::LATEST,
            timestamp_ms: 5,
        };
        batches::records(stamp, &group).unwrap().to_vec()
    }

    async fn open(dir: &Path) -> MetadataReplica {
        let options = MetadataLogOptions::default();
        MetadataReplica::open(&Env::os(), dir, options)
            .await
            .unwrap()
    }

    async fn load(replica: &MetadataReplica, end: i64, content: &[u8]) -> io::Result<()> {
        let mut incoming = replica.incoming(end, 3)?;
        // In two pieces.
        let (head, tail) = content.split_at(content.len() / 2);
        incoming.push(head)?;
        assert_eq!(incoming.position(), head.len() as u64);
        incoming.push(tail)?;
        replica.load(incoming).await
    }

    #[tokio::test]
    async fn goes_ahead_batch_by_batch_and_never_back() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(dir.path()).await;
        let (first, second) = (batch(0, &["a", "b"]), batch(2, &["c"]));
        let both = [&first[..], &second].concat();
        // The second is cut.
        replica.append(&both[..both.len() - 1]).await.unwrap();
        assert_eq!(replica.image().offset(), 1);
        assert!(replica.image().topic("b").is_some());
        replica.append(&both).await.unwrap();
        assert_eq!((replica.image().offset(), replica.image().epoch()), (2, 3));
        replica.append(&first).await.unwrap();
        assert_eq!(replica.image().offset(), 2);
        // Nor does an old snapshot, whatever is in it.
        load(&replica, 3, b"").await.unwrap();
        assert_eq!(replica.image().offset(), 2);
    }

    #[tokio::test]
    async fn what_was_known_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(dir.path()).await;
        replica.append(&batch(0, &["a", "b"])).await.unwrap();
        replica.append(&batch(2, &["c"])).await.unwrap();
        // As a kill leaves it.
        drop(replica);
        let replica = open(dir.path()).await;
        assert_eq!((replica.image().offset(), replica.image().epoch()), (2, 3));
        assert!(replica.image().topic("c").is_some());
        replica.take_snapshot().await.unwrap();
        replica.append(&batch(3, &["d"])).await.unwrap();
        replica.close().unwrap();
        let again = open(dir.path()).await;
        assert_eq!(again.image().offset(), 3);
        assert!(again.image().topic("a").is_some() && again.image().topic("d").is_some());
        // It is also what another one loads.
        let log_dir = dir.path().join(projection::DIR_NAME);
        let id = checkpoint::list(&*Env::os().fs, &log_dir)
            .unwrap()
            .pop()
            .unwrap();
        assert_eq!((id.end_offset, id.epoch), (3, 3));
        let content = std::fs::read(checkpoint::path(&log_dir, id)).unwrap();
        let other_dir = tempfile::tempdir().unwrap();
        let other = open(other_dir.path()).await;
        load(&other, 3, &content).await.unwrap();
        other.append(&batch(3, &["d"])).await.unwrap();
        assert!(other.image().topic("a").is_some());
        drop(other);
        let other = open(other_dir.path()).await;
        assert_eq!(other.image().offset(), 3);
        assert!(other.image().topic("a").is_some() && other.image().topic("d").is_some());
    }

    #[tokio::test]
    async fn a_copy_that_cannot_be_read_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(dir.path()).await;
        replica.append(&batch(0, &["a"])).await.unwrap();
        replica.take_snapshot().await.unwrap();
        replica.close().unwrap();
        let log_dir = dir.path().join(projection::DIR_NAME);
        let id = checkpoint::list(&*Env::os().fs, &log_dir)
            .unwrap()
            .pop()
            .unwrap();
        std::fs::write(checkpoint::path(&log_dir, id), b"").unwrap();
        let again = open(dir.path()).await;
        assert_eq!(again.image().offset(), -1);
        again.append(&batch(0, &["a"])).await.unwrap();
        assert_eq!(again.image().offset(), 0);
    }

    #[tokio::test]
    async fn refuses_gaps_damage_and_half_snapshots() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(dir.path()).await;
        replica.append(&batch(1, &["a"])).await.unwrap_err();
        let mut damaged = batch(0, &["a"]);
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        replica.append(&damaged).await.unwrap_err();
        load(&replica, 9, &batch(0, &["a"])).await.unwrap_err();
        load(&replica, 9, b"nonsense").await.unwrap_err();
        assert_eq!(replica.image().offset(), -1);
    }
}
