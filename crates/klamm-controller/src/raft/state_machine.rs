//! What committed entries do: the image, its listeners, and the log as Kafka writes it.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex as StdMutex};

use arc_swap::ArcSwap;
use futures_util::{Stream, StreamExt};
use klamm_metadata::{MetadataDelta, MetadataImage, Provenance};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::{Mutex, watch};

use super::addresses::Addresses;
use super::batches::{self, KRAFT_VERSION_LEVEL, Stamp, VOTER_RECORDS};
use super::flusher::lock;
use super::projection::Projection;
use super::snapshots::{RaftSnapshot, SnapshotBuilder, SnapshotFile, SnapshotStore};
use super::types::{
    Applied, Entry, LogId, Membership, RecordGroup, SnapshotMeta, StoredMembership, TypeConfig,
    epoch_of,
};
use super::voters::{are_kept_in_log, voters_of};

/// A change of the metadata: what changed, and the image after it.
#[derive(Clone, Debug)]
pub struct MetadataUpdate {
    /// The changes, with the image before them.
    pub delta: Arc<MetadataDelta>,
    /// The image after them.
    pub image: Arc<MetadataImage>,
}

/// Gets all changes of the metadata in order, each before the request that caused it is answered.
pub trait MetadataPublisher: Send + Sync {
    /// Takes a change. The next one comes when the future is done; so does the answer to whoever
    /// caused it. So this should not take long, and must not wait for a request to the controller.
    fn publish<'a>(
        &'a self,
        update: &'a MetadataUpdate,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

/// Entries of which it is remembered where they end in the metadata log.
const POSITIONS_MAX: usize = 4096;

/// The image in force, and who is told of changes.
#[derive(Default)]
pub(crate) struct Published {
    image: ArcSwap<MetadataImage>,
    /// The newest entries by index, with the offset behind the last record of each.
    positions: StdMutex<VecDeque<(u64, i64)>>,
    /// The offset behind the last record, for those who wait for more.
    end: watch::Sender<i64>,
    /// Held while a change is handed round, so that a new listener misses none and sees none twice.
    publishers: Mutex<Vec<Arc<dyn MetadataPublisher>>>,
}

impl Published {
    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        self.image.load_full()
    }

    fn note_position(&self, index: u64, end_offset: i64) {
        let mut positions = lock(&self.positions);
        if positions.len() == POSITIONS_MAX {
            positions.pop_front();
        }
        positions.push_back((index, end_offset));
    }

    /// The offset behind what a member has of the metadata log that has the entries up to `index`;
    /// -1 if that is so long ago that it is not remembered.
    pub(crate) fn end_offset_at(&self, index: u64) -> i64 {
        let positions = lock(&self.positions);
        let behind = positions.partition_point(|(entry, _)| *entry <= index);
        behind
            .checked_sub(1)
            .and_then(|last| positions.get(last))
            .map_or(-1, |(_, end_offset)| *end_offset)
    }

    /// Tells a listener of all there is, and from then on of changes.
    pub(crate) async fn subscribe(&self, publisher: Arc<dyn MetadataPublisher>) {
        let mut publishers = self.publishers.lock().await;
        let image = self.image();
        let delta = Arc::new(MetadataDelta::from_nothing(&image));
        publisher.publish(&MetadataUpdate { delta, image }).await;
        publishers.push(publisher);
    }

    /// The offset of the last record that all listeners were told of; -1 if there is none.
    pub(crate) fn told_offset(&self) -> i64 {
        *self.end.borrow() - 1
    }

    /// Follows the offset behind the last record.
    pub(crate) fn end(&self) -> watch::Receiver<i64> {
        self.end.subscribe()
    }

    pub(super) async fn publish(&self, delta: MetadataDelta, image: Arc<MetadataImage>) {
        let publishers = self.publishers.lock().await;
        self.image.store(Arc::clone(&image));
        let update = MetadataUpdate {
            delta: Arc::new(delta),
            image,
        };
        for publisher in &*publishers {
            publisher.publish(&update).await;
        }
        self.end.send_replace(update.image.offset() + 1);
    }
}

/// Applies entries.
pub(super) struct StateMachine {
    node_id: i32,
    published: Arc<Published>,
    projection: Projection,
    snapshots: SnapshotStore,
    image: Arc<MetadataImage>,
    applied: Option<LogId>,
    membership: StoredMembership,
    addresses: Addresses,
}

impl StateMachine {
    pub(super) fn new(
        node_id: i32,
        published: Arc<Published>,
        projection: Projection,
        snapshots: SnapshotStore,
        addresses: Addresses,
    ) -> Self {
        StateMachine {
            node_id,
            published,
            projection,
            snapshots,
            image: Arc::default(),
            applied: None,
            membership: StoredMembership::default(),
            addresses,
        }
    }

    fn set_membership(&mut self, membership: StoredMembership) {
        self.addresses.set(membership.membership());
        self.membership = membership;
    }

    /// Replays one entry on `delta` and writes its projection. The delta stands at `at`.
    fn apply_entry(
        &mut self,
        entry: &Entry,
        delta: &mut MetadataDelta,
        at: &mut Provenance,
    ) -> io::Result<Applied> {
        let id = entry.log_id();
        let mut stamp = Stamp {
            base_offset: at.offset + 1,
            // Kafka's epochs begin at 1; what comes before the first election is the voters.
            epoch: epoch_of(*id.leader_id).max(1),
            // Before the first group nobody has told the time. -1 says so in Kafka's format, where 0
            // would be a time long ago, at which no record of today belongs into the same segment.
            timestamp_ms: at.timestamp_ms,
        };
        let mut applied = Applied { offset: -1 };
        let mut advance = |count: i64, stamp: Stamp| {
            let (epoch, timestamp_ms) = (stamp.epoch, stamp.timestamp_ms);
            *at = Provenance {
                offset: at.offset + count,
                epoch,
                timestamp_ms,
            };
            applied.offset = at.offset;
        };
        match &entry.payload {
            EntryPayload::Normal(RecordGroup {
                leader: Some(leader),
                timestamp_ms,
                ..
            }) => {
                stamp.timestamp_ms = *timestamp_ms;
                let members = self.membership.membership();
                let batch = batches::leader_change(stamp, *leader, members)?;
                self.projection.append(&batch)?;
                advance(1, stamp);
            }
            EntryPayload::Normal(group) if group.records.is_empty() => {}
            EntryPayload::Normal(group) => {
                stamp.timestamp_ms = group.timestamp_ms;
                for record in &*group.records {
                    delta.replay(record).map_err(io::Error::other)?;
                }
                self.projection.append(&batches::records(stamp, group)?)?;
                advance(
                    i64::try_from(group.records.len()).map_err(io::Error::other)?,
                    stamp,
                );
            }
            EntryPayload::Blank => {
                // In a quorum of one it is that one who leads. In a larger one the leader makes
                // itself known in a group of its own.
                let members = self.membership.membership();
                let mut voters = voters_of(members).into_keys();
                if let (Some(leader), None) = (voters.next(), voters.next()) {
                    let batch = batches::leader_change(stamp, leader.0, members)?;
                    self.projection.append(&batch)?;
                    advance(1, stamp);
                }
            }
            EntryPayload::Membership(members) => {
                let told = self.voters_change(members);
                self.set_membership(StoredMembership::new(Some(id), members.clone()));
                if told {
                    delta.set_kraft_version(KRAFT_VERSION_LEVEL);
                    self.projection.append(&batches::voters(stamp, members)?)?;
                    advance(VOTER_RECORDS, stamp);
                }
            }
        }
        self.applied = Some(id);
        self.published.note_position(id.index, at.offset + 1);
        Ok(applied)
    }
}

impl StateMachine {
    /// Whether the log is to tell of the voters: they are kept there, and are others than before.
    /// Learners come and go without a word.
    fn voters_change(&self, members: &Membership) -> bool {
        let voters = voters_of(members);
        are_kept_in_log(&voters) && voters != voters_of(self.membership.membership())
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut delta = MetadataDelta::new(Arc::clone(&self.image));
        let mut at = self.image.provenance();
        let mut responses = Vec::new();
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let applied = self.apply_entry(&entry, &mut delta, &mut at)?;
            responses.extend(responder.map(|responder| (responder, applied)));
        }
        self.image = delta.finish(at);
        self.published.publish(delta, Arc::clone(&self.image)).await;
        for (responder, applied) in responses {
            responder.send(applied);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            store: self.snapshots.clone(),
            projection: self.projection.clone(),
            image: Arc::clone(&self.image),
            last: self.applied,
            membership: self.membership.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> io::Result<()> {
        tracing::debug!(node_id = self.node_id, path = %snapshot.path.display(), "metadata snapshot");
        let image = self.snapshots.take(&snapshot, meta)?;
        self.projection.start_at(snapshot.id.end_offset)?;
        self.applied = meta.last_log_id;
        if let Some(last) = meta.last_log_id {
            self.published.note_position(last.index, image.offset() + 1);
        }
        self.set_membership(meta.last_membership.clone());
        self.image = Arc::clone(&image);
        let delta = if self.published.image().offset() < 0 {
            MetadataDelta::from_nothing(&image)
        } else {
            MetadataDelta::between(&self.published.image(), &image)
        };
        self.published.publish(delta, image).await;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        Ok(self.snapshots.current())
    }
}
