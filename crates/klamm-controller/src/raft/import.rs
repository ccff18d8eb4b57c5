//! Taking over a metadata directory that Kafka wrote, or went on writing.

use std::io;
use std::path::Path;
use std::sync::Arc;

use klamm_env::Env;
use klamm_metadata::{MetadataDelta, MetadataImage, Provenance};
use klamm_records::batches;

use super::batches::Replayer;
use super::checkpoint;
use super::projection::Projection;

const READ_BYTES: usize = 1 << 20;

/// All that Kafka's snapshots and log in `dir` say; `None` if there is nothing.
pub(super) fn read(
    env: &Env,
    dir: &Path,
    projection: &Projection,
) -> io::Result<Option<Arc<MetadataImage>>> {
    let mut image: Arc<MetadataImage> = Arc::default();
    if let Some(id) = checkpoint::list(&*env.fs, dir)?.pop() {
        image = checkpoint::read(&*env.fs, &checkpoint::path(dir, id), id)?;
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
    Ok((at.offset >= 0).then(|| delta.finish(at)))
}
