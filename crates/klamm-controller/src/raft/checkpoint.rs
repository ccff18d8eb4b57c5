//! Snapshots of the metadata log in Kafka's format: `.checkpoint` files beside the log, named by
//! the offset after their last record and that record's epoch.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_env::{File, FileExt, Fs, FsExt, OpenMode};
use klamm_metadata::{MetadataDelta, MetadataImage, Provenance};
use klamm_protocol::control_records::VotersRecord;
use klamm_protocol::metadata::MetadataRecord;
use klamm_records::{BatchHeader, BatchView, HEADER_LEN};

use super::batches::{self, Replayer, Stamp};
use super::types::{Membership, RecordGroup};

const SUFFIX: &str = ".checkpoint";
/// Records in one batch of a snapshot.
const BATCH_RECORDS: usize = 1000;
/// The largest batch taken from a file; Kafka's are 8 MiB at most.
const BATCH_LEN_MAX: usize = 256 << 20;

/// Which records a snapshot contains: all below `end_offset`, the last of them of `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CheckpointId {
    pub(super) end_offset: i64,
    pub(super) epoch: i32,
}

impl CheckpointId {
    pub(super) fn file_name(self) -> String {
        format!("{:020}-{:010}{SUFFIX}", self.end_offset, self.epoch)
    }

    fn parse(name: &str) -> Option<Self> {
        let (offset, epoch) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        (offset.len() == 20 && epoch.len() == 10).then_some(())?;
        Some(CheckpointId {
            end_offset: offset.parse().ok()?,
            epoch: epoch.parse().ok()?,
        })
    }
}

/// Snapshots in a directory, the oldest first.
pub(super) fn list(fs: &dyn Fs, dir: &Path) -> io::Result<Vec<CheckpointId>> {
    let entries = fs.read_dir(dir)?;
    let mut found: Vec<_> = entries
        .iter()
        .filter(|entry| !entry.is_dir)
        .filter_map(|entry| CheckpointId::parse(&entry.name))
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// Writes a snapshot of `image`, durably, and then gives it its name.
pub(super) fn write(
    fs: &dyn Fs,
    dir: &Path,
    id: CheckpointId,
    image: &MetadataImage,
    members: &Membership,
) -> io::Result<()> {
    write_as(fs, &path(dir, id), id, image, members)?;
    fs.sync_dir(dir)
}

/// Writes one under any name; that name is not durable yet.
pub(super) fn write_as(
    fs: &dyn Fs,
    path: &Path,
    id: CheckpointId,
    image: &MetadataImage,
    members: &Membership,
) -> io::Result<()> {
    let partial = path.with_extension("checkpoint.part");
    let file = fs.open(&partial, OpenMode::Truncate)?;
    let mut writer = Writer {
        file,
        position: 0,
        stamp: Stamp {
            base_offset: 0,
            epoch: id.epoch,
            timestamp_ms: stamp_of(image.provenance()),
        },
        image,
        pending: Vec::new(),
        result: Ok(()),
    };
    // Voters that Kafka reads from its config file do not belong into the log.
    let keeps_voters = image.features().level(klamm_metadata::KRAFT_VERSION) > 0;
    let header = batches::snapshot_header(writer.stamp, keeps_voters.then_some(members))?;
    writer.put(&header)?;
    image.write_records(&mut |record| writer.record(record));
    writer.flush();
    writer.result?;
    writer.result = Ok(());
    let footer = batches::snapshot_footer(writer.stamp)?;
    writer.put(&footer)?;
    writer.file.sync_all()?;
    fs.rename(&partial, path)
}

struct Writer<'a> {
    file: Arc<dyn File>,
    position: u64,
    stamp: Stamp,
    image: &'a MetadataImage,
    pending: Vec<MetadataRecord>,
    result: io::Result<()>,
}

impl Writer<'_> {
    fn record(&mut self, record: MetadataRecord) {
        self.pending.push(record);
        if self.pending.len() >= BATCH_RECORDS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.pending.is_empty() || self.result.is_err() {
            return;
        }
        let group = RecordGroup {
            leader: None,
            records: std::mem::take(&mut self.pending).into(),
            version: self.image.metadata_version(),
            timestamp_ms: self.stamp.timestamp_ms,
        };
        self.result = batches::records(self.stamp, &group).and_then(|batch| self.put(&batch));
    }

    fn put(&mut self, batch: &[u8]) -> io::Result<()> {
        let header = BatchHeader::parse(batch).map_err(io::Error::other)?;
        self.file.write_all_at(batch, self.position)?;
        self.position += batch.len() as u64;
        self.stamp.base_offset = header.next_offset();
        Ok(())
    }
}

type Visit<'a> = dyn FnMut(&BatchView<'_>) -> io::Result<()> + 'a;

/// Reads a snapshot.
pub(super) fn read(fs: &dyn Fs, path: &Path, id: CheckpointId) -> io::Result<Arc<MetadataImage>> {
    read_with_voters(fs, path, id).map(|(image, _)| image)
}

/// Reads a snapshot, and the voters in it.
pub(super) fn read_with_voters(
    fs: &dyn Fs,
    path: &Path,
    id: CheckpointId,
) -> io::Result<(Arc<MetadataImage>, Option<VotersRecord>)> {
    let file = fs.open(path, OpenMode::Read)?;
    replay(id, |visit| for_each_batch(&*file, visit))
}

/// What a snapshot says of when its last record was written: what the log says, -1 for unknown
/// included. Before the log begins that is 0, as in Kafka's.
fn stamp_of(at: Provenance) -> i64 {
    match at.offset {
        ..0 => at.timestamp_ms.max(0),
        _ => at.timestamp_ms,
    }
}

fn replay(
    id: CheckpointId,
    each: impl FnOnce(&mut Visit<'_>) -> io::Result<()>,
) -> io::Result<(Arc<MetadataImage>, Option<VotersRecord>)> {
    let mut delta = MetadataDelta::new(Arc::default());
    let mut replayer = Replayer::new(&mut delta);
    each(&mut |batch| replayer.batch(batch))?;
    if !replayer.footer_seen {
        let message = format!("the metadata snapshot {} has no end", id.file_name());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let (timestamp_ms, voters) = (replayer.timestamp_ms, replayer.voters.take());
    let image = delta.finish(Provenance {
        offset: id.end_offset - 1,
        epoch: id.epoch,
        timestamp_ms,
    });
    Ok((image, voters))
}

fn for_each_batch(file: &dyn File, visit: &mut Visit<'_>) -> io::Result<()> {
    let (len, mut position) = (file.len()?, 0);
    let mut bytes = Vec::new();
    while position < len {
        bytes.resize(HEADER_LEN, 0);
        file.read_exact_at(&mut bytes, position)?;
        let size = batch_size(&bytes, len - position)?;
        bytes.resize(size, 0);
        file.read_exact_at(&mut bytes, position)?;
        let batch = BatchView::parse(&bytes).map_err(io::Error::other)?;
        visit(&batch)?;
        position += size as u64;
    }
    Ok(())
}

/// The size of the batch that begins with `header`, of which `left` bytes may be there.
fn batch_size(header: &[u8], left: u64) -> io::Result<usize> {
    let header = BatchHeader::parse(header).map_err(io::Error::other)?;
    let size = header.size();
    if !(HEADER_LEN..=BATCH_LEN_MAX).contains(&size) || size as u64 > left {
        let message = format!("a metadata snapshot has a batch of {size} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(size)
}

/// Removes what interrupted writes left.
pub(super) fn remove_partial(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    for entry in fs.read_dir(dir)?.into_iter().filter(|entry| !entry.is_dir) {
        if entry.name.ends_with(".checkpoint.part") {
            fs.remove_file(&dir.join(entry.name))?;
        }
    }
    Ok(())
}

/// The time of the last record in a snapshot, as its header tells.
pub(super) fn last_timestamp(fs: &dyn Fs, dir: &Path, id: CheckpointId) -> io::Result<i64> {
    let file = fs.open(&path(dir, id), OpenMode::Read)?;
    let mut header = vec![0; HEADER_LEN];
    file.read_exact_at(&mut header, 0)?;
    let mut first = vec![0; batch_size(&header, file.len()?)?];
    file.read_exact_at(&mut first, 0)?;
    let mut delta = MetadataDelta::new(Arc::default());
    let mut replayer = Replayer::new(&mut delta);
    replayer.batch(&BatchView::parse(&first).map_err(io::Error::other)?)?;
    Ok(replayer.timestamp_ms)
}

/// Path of a snapshot.
pub(super) fn path(dir: &Path, id: CheckpointId) -> PathBuf {
    dir.join(id.file_name())
}

/// Whether a snapshot is there.
pub(super) fn exists(fs: &dyn Fs, dir: &Path, id: CheckpointId) -> io::Result<bool> {
    fs.exists(&path(dir, id))
}
