//! Reads a partition into a shard.

use bytes::Bytes;
use klamm_records::control::{ControlError, ControlType, EndTransactionMarker};
use klamm_records::{BatchError, BatchView, Scratch, batches};

use super::shard::{CoordinatorRecord, Now, RecordError, RecordOrigin, Shard};
use super::storage::{PartitionReader, ReadError};

/// Why a partition could not be loaded. Its groups have no coordinator until the next election.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The log could not be read.
    #[error("the partition could not be read")]
    Read(#[from] ReadError),
    /// A batch is damaged.
    #[error("a batch of the partition is damaged")]
    Batch(#[from] BatchError),
    /// A record does not follow its schema.
    #[error("the record at offset {offset} cannot be understood")]
    Record {
        /// Offset of the record.
        offset: i64,
        /// What is wrong with it.
        source: RecordError,
    },
    /// A transaction marker is damaged.
    #[error("a transaction marker is damaged")]
    Marker(#[from] ControlError),
}

/// What loading left.
pub(super) struct Loaded<U> {
    /// Offset that the next record will get.
    pub next_offset: i64,
    /// Records at or above the high watermark, to confirm when it passes them.
    pub uncommitted: Vec<U>,
    /// How many records were read.
    pub records: u64,
}

/// What a load needs beside the shard.
pub(super) struct Source<'a> {
    pub reader: &'a dyn PartitionReader,
    pub partition: i32,
    pub high_watermark: i64,
    pub buffer_bytes: usize,
    pub now: Now,
}

/// Replays the whole partition, up to the end that it has now.
pub(super) async fn load<S: Shard>(
    shard: &mut S,
    source: &Source<'_>,
) -> Result<Loaded<S::Undo>, LoadError> {
    let range = source.reader.range(source.partition)?;
    let mut loaded = Loaded {
        next_offset: range.start_offset,
        uncommitted: Vec::new(),
        records: 0,
    };
    let mut scratch = Scratch::new();
    while loaded.next_offset < range.end_offset {
        let offset = loaded.next_offset;
        let chunk = source
            .reader
            .read(source.partition, offset, source.buffer_bytes)
            .await?;
        for batch in batches(&chunk) {
            let batch = batch?;
            replay_batch(shard, source, &chunk, &batch, &mut scratch, &mut loaded)?;
            loaded.next_offset = batch.header().next_offset();
        }
        if loaded.next_offset <= offset {
            // Compaction or a lost tail left nothing up to the end: what there is has been read.
            let (partition, end_offset) = (source.partition, range.end_offset);
            tracing::warn!(partition, offset, end_offset, "the log ends early");
            loaded.next_offset = range.end_offset;
        }
        // A large partition must not keep the other tasks of this thread from running.
        tokio::task::yield_now().await;
    }
    Ok(loaded)
}

fn replay_batch<S: Shard>(
    shard: &mut S,
    source: &Source<'_>,
    chunk: &Bytes,
    batch: &BatchView<'_>,
    scratch: &mut Scratch,
    loaded: &mut Loaded<S::Undo>,
) -> Result<(), LoadError> {
    let header = batch.header();
    let is_transactional = header.attributes.is_transactional();
    let producer_id = if is_transactional {
        header.producer_id
    } else {
        -1
    };
    let is_compressed = header.attributes.is_compressed();
    for record in batch.records(scratch)? {
        let record = record?;
        loaded.records += 1;
        if header.attributes.is_control() {
            let key = record.key.unwrap_or_default();
            if matches!(
                ControlType::from_key(key)?,
                ControlType::Abort | ControlType::Commit
            ) {
                let marker = EndTransactionMarker::from_record(&record)?;
                let undos = shard.replay_marker(header.producer_id, marker.committed);
                if record.offset < source.high_watermark {
                    undos.into_iter().for_each(|undo| shard.commit(undo));
                } else {
                    loaded.uncommitted.extend(undos);
                }
            }
            continue;
        }
        // A compressed batch lies in the scratch buffer, which the next one overwrites.
        let own = |bytes: &[u8]| {
            if is_compressed {
                Bytes::copy_from_slice(bytes)
            } else {
                chunk.slice_ref(bytes)
            }
        };
        let offset = record.offset;
        let decoded = S::Record::decode(record.key.map(own), record.value.map(own))
            .map_err(|source| LoadError::Record { offset, source })?;
        let origin = RecordOrigin {
            offset,
            producer_id,
        };
        if offset < source.high_watermark {
            shard.replay_committed(origin, &decoded, source.now);
        } else {
            let undo = shard.replay(origin, &decoded, source.now);
            loaded.uncommitted.push(undo);
        }
    }
    Ok(())
}
