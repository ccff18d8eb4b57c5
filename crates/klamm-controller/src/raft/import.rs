//! Reading a metadata directory in Kafka's form: one that Kafka wrote, to take it over, or the copy of
//! a broker.

use std::io;
use std::path::Path;
use std::sync::Arc;

use klamm_env::Env;
use klamm_metadata::{MetadataDelta, MetadataImage, Provenance, TransactionFilter};
use klamm_protocol::control_records::VotersRecord;
use klamm_records::batches;

use super::batches::Replayer;
use super::checkpoint;
use super::projection::Projection;

const READ_BYTES: usize = 1 << 20;

/// What was found.
pub(super) struct Found {
    pub(super) image: Arc<MetadataImage>,
    /// Records of a metadata transaction that had not ended.
    pub(super) filter: TransactionFilter,
    /// The voters, where the log keeps them.
    pub(super) voters: Option<VotersRecord>,
}

/// All that Kafka's snapshots and log in `dir` say; `None` if there is nothing.
pub(super) fn read(env: &Env, dir: &Path, projection: &Projection) -> io::Result<Option<Found>> {
    let mut image: Arc<MetadataImage> = Arc::default();
    let mut voters = None;
    if let Some(id) = checkpoint::list(&*env.fs, dir)?.pop() {
        let path = checkpoint::path(dir, id);
        (image, voters) = checkpoint::read_with_voters(&*env.fs, &path, id)?;
    }
    let log = projection.log();
    let (mut next, end) = (image.offset() + 1, log.log_end_offset());
    if next < log.log_start_offset() {
        let message = format!(
            "the metadata log starts at offset {}, and there is no snapshot of what was before",
            log.log_start_offset()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut at = image.provenance();
    let mut delta = MetadataDelta::new(image);
    let mut replayer = Replayer::new(&mut delta);
    while next < end {
        let bytes = projection.read(next, READ_BYTES)?;
        let before = next;
        for batch in batches(&bytes) {
            // The last one may be cut.
            let Ok(batch) = batch else { break };
            if batch.header().base_offset < next {
                continue;
            }
            replayer.batch(&batch)?;
            next = batch.header().next_offset();
            at = Provenance {
                offset: next - 1,
                epoch: replayer.epoch,
                timestamp_ms: replayer.timestamp_ms,
            };
        }
        if next == before {
            let message = format!("the metadata log is damaged at offset {next}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
    }
    let voters = replayer.voters.take().or(voters);
    let filter = replayer.into_filter();
    Ok((at.offset >= 0).then(|| Found {
        image: delta.finish(at),
        filter,
        voters,
    }))
}
