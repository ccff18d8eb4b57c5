//! The metadata as a node has it that is no controller: replayed from what controllers committed.

use std::io;
use std::sync::Arc;

use klamm_metadata::{MetadataDelta, MetadataImage, Provenance, TransactionFilter};
use klamm_records::batches;
use tokio::sync::Mutex;

use super::batches::Replayer;
use super::checkpoint::{self, CheckpointId};
use super::state_machine::{MetadataPublisher, Published};

/// The metadata of a node that follows the controllers. It only ever goes ahead. Clones refer to
/// the same.
#[derive(Clone, Default)]
pub struct MetadataReplica(Arc<Inner>);

#[derive(Default)]
struct Inner {
    published: Published,
    /// Records of a metadata transaction that has not ended yet. Held over each change.
    filter: Mutex<TransactionFilter>,
}

impl std::fmt::Debug for MetadataReplica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetadataReplica")
            .field("offset", &self.image().offset())
            .finish()
    }
}

impl MetadataReplica {
    /// The metadata of now. Costs an atomic load.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.0.published.image()
    }

    /// Tells `publisher` all that the image holds now, and from then on each change in order.
    pub async fn subscribe(&self, publisher: Arc<dyn MetadataPublisher>) {
        self.0.published.subscribe(publisher).await;
    }

    /// Replays batches of the metadata log as a controller sent them. What is known already is
    /// passed over, and a batch that is cut at the end is left for the next time.
    ///
    /// # Errors
    /// Batches that are damaged or do not follow on what is there. Nothing has changed then.
    pub async fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut filter = self.0.filter.lock().await;
        let base = self.image();
        let mut at = base.provenance();
        let known = at.offset;
        let mut delta = MetadataDelta::new(base);
        let mut replayer = Replayer::resume(&mut delta, filter.clone());
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
            at = Provenance {
                offset: next - 1,
                epoch: replayer.epoch,
                timestamp_ms: replayer.timestamp_ms,
            };
        }
        *filter = replayer.into_filter();
        if at.offset > known {
            let image = delta.finish(at);
            self.0.published.publish(delta, image).await;
        }
        Ok(())
    }

    /// Goes ahead to a snapshot, unless the metadata is as far already.
    ///
    /// # Errors
    /// A snapshot that is damaged or not whole. Nothing has changed then.
    pub async fn load(&self, end_offset: i64, epoch: i32, content: &[u8]) -> io::Result<()> {
        let mut filter = self.0.filter.lock().await;
        let before = self.image();
        if end_offset <= before.offset() + 1 {
            return Ok(());
        }
        let image = checkpoint::parse(content, CheckpointId { end_offset, epoch })?;
        *filter = TransactionFilter::default();
        let delta = if before.offset() < 0 {
            MetadataDelta::from_nothing(&image)
        } else {
            MetadataDelta::between(&before, &image)
        };
        self.0.published.publish(delta, image).await;
        Ok(())
    }
}

#[cfg(test)]
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

    #[tokio::test]
    async fn goes_ahead_batch_by_batch_and_never_back() {
        let replica = MetadataReplica::default();
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
        replica.load(3, 3, b"").await.unwrap();
        assert_eq!(replica.image().offset(), 2);
    }

    #[tokio::test]
    async fn refuses_gaps_damage_and_half_snapshots() {
        let replica = MetadataReplica::default();
        replica.append(&batch(1, &["a"])).await.unwrap_err();
        let mut damaged = batch(0, &["a"]);
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        replica.append(&damaged).await.unwrap_err();
        replica.load(9, 3, &batch(0, &["a"])).await.unwrap_err();
        replica.load(9, 3, b"nonsense").await.unwrap_err();
        assert_eq!(replica.image().offset(), -1);
    }
}
