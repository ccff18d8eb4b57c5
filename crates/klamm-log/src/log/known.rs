//! What an orderly shutdown knew of a log, so that the next start need not read its files.
//!
//! It is believed only of a directory that is as it was left: the same time of its last change
//! (names come and go with that), and each file of batches with the same size and time. Whoever
//! had the directory in between, such as Kafka, has changed those. What is not believed costs
//! nothing but the time to look at the files.

use std::collections::BTreeSet;
use std::path::Path;

use klamm_env::Fs;
use klamm_records::Uuid;

use crate::error::{IoContext, LogError};
use crate::index::time::TimestampOffset;
use crate::log::Log;
use crate::names::{FileKind, file_name, parse_file_name};
use crate::segment::Segment;
use crate::storage::lock;

/// Bytes of a producer snapshot that are kept at the most; a longer one is read from its file.
const PRODUCERS_BYTES_MAX: usize = 1 << 10;

/// A log as it was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownLog {
    /// When the directory was last changed.
    pub(crate) modified_ms: i64,
    pub(crate) topic_id: Option<Uuid>,
    /// The offset after the last record.
    pub(crate) end: i64,
    /// Ascending; the last one is active. Never empty.
    pub(crate) segments: Vec<KnownSegment>,
    /// What `leader-epoch-checkpoint` holds.
    pub(crate) epochs: Vec<(i32, i64)>,
    /// Offsets of the producer snapshots.
    pub(crate) snapshots: Vec<i64>,
    /// The snapshot at the end of the log, if it is short; without a snapshot, there are no
    /// producers.
    pub(crate) producers: Option<Vec<u8>>,
}

/// One segment of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownSegment {
    pub(crate) base_offset: i64,
    /// Size and last change of the file of batches.
    pub(crate) size: u64,
    pub(crate) modified_ms: i64,
    pub(crate) has_txn_index: bool,
    /// The largest timestamp, as the time index has it; none if nobody had asked for it.
    pub(crate) max_timestamp: Option<TimestampOffset>,
}

impl KnownLog {
    pub(super) fn has_batches(&self) -> bool {
        self.segments.iter().any(|segment| segment.size > 0)
    }

    /// Whether a directory is as it was left.
    pub(crate) fn is_of(&self, fs: &dyn Fs, dir: &Path) -> bool {
        let modified = |path: &Path| {
            fs.metadata(path)
                .map(|found| (found.len, found.modified_ms))
        };
        modified(dir).is_ok_and(|(_, modified_ms)| modified_ms == self.modified_ms)
            && self.segments.iter().all(|segment| {
                let path = dir.join(file_name(segment.base_offset, FileKind::Log));
                modified(&path).is_ok_and(|found| found == (segment.size, segment.modified_ms))
            })
    }
}

/// What lies in a log's directory, if it is nothing but what belongs to a log at rest.
struct Listing {
    snapshots: BTreeSet<i64>,
    logs: BTreeSet<i64>,
    indexes: BTreeSet<(i64, FileKind)>,
}

impl Listing {
    /// None if there are files that the next start would have to do something about.
    fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<Listing>, LogError> {
        let mut listing = Listing {
            snapshots: BTreeSet::new(),
            logs: BTreeSet::new(),
            indexes: BTreeSet::new(),
        };
        for entry in fs.read_dir(dir).at("list", dir)? {
            match parse_file_name(&entry.name) {
                Some((offset, FileKind::Log, "")) => {
                    listing.logs.insert(offset);
                }
                Some((offset, FileKind::Snapshot, "")) => {
                    listing.snapshots.insert(offset);
                }
                Some((offset, kind, "")) => {
                    listing.indexes.insert((offset, kind));
                }
                Some(_) => return Ok(None),
                None => {}
            }
        }
        Ok(Some(listing))
    }
}

impl Log {
    /// What is to be known of this log at the next start. None if it was not closed in order, or
    /// if something is left to do in its directory.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn known(&self) -> Result<Option<KnownLog>, LogError> {
        let state = lock(&self.state);
        if !self.is_closed() || self.recovery_point() != self.log_end_offset() {
            return Ok(None);
        }
        let (fs, dir) = (&*self.dir.fs, self.dir.path());
        // Before the directory is listed: what changes later shows.
        let modified_ms = fs.metadata(&dir).at("inspect", &dir)?.modified_ms;
        let Some(listing) = Listing::read(fs, &dir)? else {
            return Ok(None);
        };
        let end = self.log_end_offset();
        let mut segments = Vec::new();
        for segment in self.all_segments() {
            let base = segment.base_offset;
            let has = |kind| listing.indexes.contains(&(base, kind));
            if !listing.logs.contains(&base) || !has(FileKind::Index) || !has(FileKind::TimeIndex) {
                return Ok(None);
            }
            segments.push(known_segment(fs, &segment, has(FileKind::TxnIndex))?);
        }
        let names = listing.logs.len() == segments.len();
        if !names || state.producers.map_end() != end {
            return Ok(None);
        }
        let newest = listing.snapshots.last().copied();
        let producers = match newest {
            Some(newest) if newest == end => state.producers.encode(PRODUCERS_BYTES_MAX),
            None if state.producers.is_empty() => state.producers.encode(PRODUCERS_BYTES_MAX),
            _ => None,
        };
        let mut epochs = state.epochs.entries();
        // One without records is not in the file.
        epochs.retain(|&(_, start)| start < end);
        Ok(Some(KnownLog {
            modified_ms,
            topic_id: state.identity.topic_id,
            end,
            segments,
            epochs,
            snapshots: listing.snapshots.into_iter().collect(),
            producers,
        }))
    }
}

fn known_segment(
    fs: &dyn Fs,
    segment: &Segment,
    has_txn_index: bool,
) -> Result<KnownSegment, LogError> {
    let path = segment.path();
    let found = fs.metadata(&path).at("inspect", &path)?;
    Ok(KnownSegment {
        base_offset: segment.base_offset,
        size: segment.size(),
        modified_ms: found.modified_ms,
        has_txn_index,
        max_timestamp: segment.noted_max_timestamp(),
    })
}
