//! A log and its remote tier together.

use std::sync::{Arc, Mutex};

use klamm_env::FsExt as _;
use klamm_records::Uuid;

use crate::batch::{BatchMeta, HEADER_LEN, i32_at, verify_checksum};
use crate::error::LogError;
use crate::log::{Log, LogSlice};
use crate::names::FileKind;
use crate::segment::Segment;
use crate::segment::scan::{Verified, WHOLE};
use crate::storage::lock;
use crate::tier::state::epoch_at;
use crate::tier::{
    IndexKind, RemoteMetadata, RemoteSegment, RemoteSegmentState, RemoteStorage, SegmentData,
    TierError, TierState,
};

/// Least bytes that are fetched at a time.
pub(super) const FETCH_BYTES_MIN: u64 = 64 << 10;
/// Bytes of an entry of an offset index.
const ENTRY_LEN: usize = 8;

/// What was read from the tier: whole batches, their checksums verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteRead {
    /// The batches, from the one that holds the offset asked for on.
    pub bytes: Vec<u8>,
    /// First offset of the first batch.
    pub first_offset: i64,
    /// The offset after the last batch.
    pub next_offset: i64,
}

/// A log and its remote tier. All calls but those that only ask for offsets block on the tier.
#[derive(Debug)]
pub struct RemoteLog {
    pub(super) log: Arc<Log>,
    pub(super) storage: Arc<dyn RemoteStorage>,
    metadata: Arc<dyn RemoteMetadata>,
    state: Mutex<TierState>,
    /// Held by whoever uploads or deletes.
    pub(super) working: Mutex<()>,
}

impl RemoteLog {
    /// Binds a log, whose configuration has `remote_storage`, to its tier.
    ///
    /// # Errors
    /// The metadata's.
    pub fn open(
        log: Arc<Log>,
        storage: Arc<dyn RemoteStorage>,
        metadata: Arc<dyn RemoteMetadata>,
    ) -> Result<RemoteLog, TierError> {
        let remote = RemoteLog {
            state: Mutex::new(TierState::load(metadata.list()?)),
            working: Mutex::new(()),
            log,
            storage,
            metadata,
        };
        remote.tell_log();
        remote.find_start()?;
        Ok(remote)
    }

    /// Moves the start of the log up to the first offset that is in the tier, or if none is, on the
    /// local disk: a crash may have taken back a start that remote segments were deleted by. Since
    /// segments are uploaded from the start on, none is missing there but those.
    fn find_start(&self) -> Result<(), TierError> {
        let (history, end) = (self.log.epochs(), self.log.log_end_offset());
        let state = self.state();
        let ours = |segment: &&RemoteSegment| segment.common_end(&history, end).is_some();
        let first = state.readable().find(ours).map(|s| s.start_offset);
        let local = self.log.local_log_start_offset();
        self.raise_start(first.unwrap_or(local))
    }

    fn raise_start(&self, offset: i64) -> Result<(), TierError> {
        let offset = offset.min(self.log.high_watermark());
        if offset > self.log.log_start_offset() {
            self.log.delete_records_before(offset)?;
        }
        Ok(())
    }

    /// What is known of the remote segments.
    pub fn state(&self) -> TierState {
        lock(&self.state).clone()
    }

    /// Tells the log how far it is in the tier.
    pub(super) fn tell_log(&self) {
        let (history, end) = (self.log.epochs(), self.log.log_end_offset());
        let highest = lock(&self.state).highest_offset(&history, end);
        self.log.set_highest_tiered_offset(highest.unwrap_or(-1));
    }

    /// Reads anew what is written down of the remote segments.
    pub(super) fn reload(&self) -> Result<(), TierError> {
        let segments = self.metadata.list()?;
        *lock(&self.state) = TierState::load(segments);
        self.tell_log();
        Ok(())
    }

    /// The log that the tier belongs to.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Notes a segment in a state, first where it lasts and then here.
    fn note(&self, segment: &mut RemoteSegment, to: RemoteSegmentState) -> Result<(), TierError> {
        segment.state = to;
        self.metadata.put(segment)?;
        lock(&self.state).apply(segment)?;
        Ok(())
    }

    /// Uploads the first closed segment that is not in the tier yet, if all of it lies below
    /// `stable_end`: the smaller of high watermark and last stable offset. Returns it.
    ///
    /// # Errors
    /// The tier's, the disk's, or [`LogError::Corrupt`]: damage is not copied. What was begun is
    /// removed by [`tidy`](Self::tidy).
    pub fn upload_next(&self, stable_end: i64) -> Result<Option<RemoteSegment>, TierError> {
        let _one_at_a_time = lock(&self.working);
        self.tell_log();
        let from = self.log.highest_tiered_offset() + 1;
        let Some((segment, end)) = self.log.closed_segment_at(from) else {
            return Ok(None);
        };
        if end > stable_end {
            return Ok(None);
        }
        let data = self.data_of(&segment, end)?;
        let mut remote = RemoteSegment {
            id: self.new_id(),
            start_offset: segment.base_offset,
            end_offset: end - 1,
            max_timestamp_ms: segment.checked_max_timestamp()?.timestamp,
            bytes: segment.size(),
            epochs: epochs_within(&self.log.epochs(), segment.base_offset, end),
            state: RemoteSegmentState::CopyStarted,
        };
        self.note(&mut remote, RemoteSegmentState::CopyStarted)?;
        self.storage.copy_segment(&remote, &data)?;
        self.note(&mut remote, RemoteSegmentState::CopyFinished)?;
        self.tell_log();
        Ok(Some(remote))
    }

    fn new_id(&self) -> Uuid {
        let rng = &self.log.env().rng;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&rng.next_u64().to_be_bytes());
        bytes[8..].copy_from_slice(&rng.next_u64().to_be_bytes());
        Uuid::from_bytes(bytes)
    }

    fn data_of(&self, segment: &Segment, end: i64) -> Result<SegmentData, TierError> {
        let mut scan = segment.scan(0, segment.size(), WHOLE)?;
        loop {
            match scan.next_verified()? {
                Verified::Batch(..) => {}
                Verified::Damaged(fault) => return Err(scan.corrupt(fault).into()),
                Verified::End => break,
            }
        }
        // Makes sure that the indexes are there.
        segment.index_bytes()?;
        let fs = &self.log.env().fs;
        let mut indexes = Vec::new();
        for (kind, file) in [
            (IndexKind::Offset, FileKind::Index),
            (IndexKind::Timestamp, FileKind::TimeIndex),
            (IndexKind::Transaction, FileKind::TxnIndex),
        ] {
            let name = crate::names::file_name(segment.base_offset, file);
            let path = self.log.dir().join(name);
            match fs.read(&path) {
                Ok(bytes) => indexes.push((kind, bytes)),
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(LogError::Io {
                        operation: "read",
                        path,
                        source: error,
                    }
                    .into());
                }
                Err(_) if kind == IndexKind::Transaction => indexes.push((kind, Vec::new())),
                Err(_) => {}
            }
        }
        // Verified: followers that begin behind this segment could not go on with a damaged one.
        let producers = self.log.producers_at(end)?;
        indexes.push((IndexKind::ProducerSnapshot, producers));
        let mut history = self.log.epochs();
        history.retain(|&(_, start)| start < end);
        indexes.push((IndexKind::LeaderEpoch, epoch_text(&history)));
        Ok(SegmentData {
            log: LogSlice {
                file: segment.file()?,
                position: 0,
                len: usize::try_from(segment.size()).unwrap_or(usize::MAX),
            },
            indexes,
        })
    }

    /// Reads batches from the one that holds `offset` on, about `max_bytes` and at least one; none
    /// if the tier has no such offset of this log's history.
    ///
    /// # Errors
    /// The tier's, or [`TierError::Damaged`].
    pub fn read(&self, offset: i64, max_bytes: usize) -> Result<Option<RemoteRead>, TierError> {
        let history = self.log.epochs();
        let Some(epoch) = epoch_at(&history, offset) else {
            return Ok(None);
        };
        let segment = lock(&self.state).segment_for(offset, epoch).cloned();
        let Some(segment) = segment else {
            return Ok(None);
        };
        let index = self.storage.fetch_index(&segment, IndexKind::Offset)?;
        let mut position = position_in(&index, offset - segment.start_offset);
        let mut want = FETCH_BYTES_MIN.max(max_bytes as u64);
        let mut read: Option<RemoteRead> = None;
        loop {
            let bytes = self
                .storage
                .fetch_segment(&segment, position, position + want)?;
            let mut at = 0;
            while let Some(meta) = whole_batch(&bytes[at..], &segment, position + at as u64)? {
                let batch = &bytes[at..at + meta.size];
                at += meta.size;
                if meta.last_offset < offset {
                    continue;
                }
                let strange = meta.leader_epoch >= 0
                    && epoch_at(&history, meta.base_offset) != Some(meta.leader_epoch);
                let read_so_far = read.as_ref().map_or(0, |read| read.bytes.len());
                let full = read_so_far > 0 && read_so_far + meta.size > max_bytes;
                if strange || full {
                    return Ok(read);
                }
                let read = read.get_or_insert_with(|| RemoteRead {
                    bytes: Vec::new(),
                    first_offset: meta.base_offset,
                    next_offset: meta.base_offset,
                });
                read.bytes.extend_from_slice(batch);
                read.next_offset = meta.next_offset();
            }
            if read.is_some() || (bytes.len() as u64) < want {
                return Ok(read);
            }
            // The batch that is looked for is farther on, or larger than what was fetched.
            if at == 0 {
                want = want.saturating_mul(2);
            }
            position += at as u64;
        }
    }

    /// Applies total retention: moves the start of the log up to where the limits say, and removes
    /// remote segments below it. `stable_end` bounds the start. Returns how many were removed.
    ///
    /// # Errors
    /// The tier's, or the disk's. What is left is removed by a later call.
    pub fn apply_retention(&self, now_ms: i64, stable_end: i64) -> Result<usize, TierError> {
        let _one_at_a_time = lock(&self.working);
        let config = self.log.config();
        let history = self.log.epochs();
        let log_end = self.log.log_end_offset();
        let state = self.state();
        let local_start = self.log.local_log_start_offset();
        let remote: Vec<&RemoteSegment> = state
            .readable()
            .filter(|segment| segment.common_end(&history, log_end) == Some(segment.end_offset))
            .collect();
        let local_bytes = self.log.size_bytes();
        let only_remote = remote.iter().filter(|s| s.start_offset < local_start);
        let total = local_bytes + only_remote.map(|segment| segment.bytes).sum::<u64>();
        let mut excess = i128::from(total) - i128::from(config.retention_bytes);
        let mut start = self.log.log_start_offset();
        for segment in remote {
            if segment.end_offset < start {
                continue;
            }
            let by_size = config.retention_bytes >= 0 && excess >= i128::from(segment.bytes);
            let age_ms = now_ms.saturating_sub(segment.max_timestamp_ms);
            let by_time = config.retention_ms >= 0
                && segment.max_timestamp_ms >= 0
                && age_ms > config.retention_ms;
            if !config.delete || !(by_size || by_time) || segment.end_offset >= stable_end {
                break;
            }
            excess -= i128::from(segment.bytes);
            start = segment.end_offset + 1;
        }
        // First the start: nobody may be told of offsets that are gone.
        self.raise_start(start)?;
        let start = self.log.log_start_offset();
        let mut removed = 0;
        for mut segment in state.readable().cloned().collect::<Vec<_>>() {
            if segment.end_offset < start {
                self.delete(&mut segment)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Removes what copies and deletions that did not come to their end have left. Returns of how
    /// many segments.
    ///
    /// # Errors
    /// The tier's. What is left is removed by a later call.
    pub fn tidy(&self) -> Result<usize, TierError> {
        let _one_at_a_time = lock(&self.working);
        let unfinished = self.state().unfinished();
        let count = unfinished.len();
        for mut segment in unfinished {
            self.delete(&mut segment)?;
        }
        Ok(count)
    }

    fn delete(&self, segment: &mut RemoteSegment) -> Result<(), TierError> {
        self.note(segment, RemoteSegmentState::DeleteStarted)?;
        self.storage.delete_segment(segment)?;
        self.note(segment, RemoteSegmentState::DeleteFinished)
    }
}

/// The epochs of the records in `from..end`, with the first offset of each there.
fn epochs_within(history: &[(i32, i64)], from: i64, end: i64) -> Vec<(i32, i64)> {
    let mut within: Vec<(i32, i64)> = Vec::new();
    for &(epoch, start) in history.iter().filter(|&&(_, start)| start < end) {
        if start <= from {
            within.clear();
        }
        within.push((epoch, start.max(from)));
    }
    within
}

/// A history as `leader-epoch-checkpoint` has it.
fn epoch_text(history: &[(i32, i64)]) -> Vec<u8> {
    let lines: String = history
        .iter()
        .map(|(epoch, start)| format!("{epoch} {start}\n"))
        .collect();
    format!("0\n{}\n{lines}", history.len()).into_bytes()
}

/// The position of the last entry at or below a relative offset.
pub(super) fn position_in(index: &[u8], relative: i64) -> u64 {
    let mut position = 0;
    for entry in index.chunks_exact(ENTRY_LEN) {
        if i64::from(i32_at(entry, 0)) > relative {
            break;
        }
        position = u64::try_from(i32_at(entry, 4)).unwrap_or(0);
    }
    position
}

/// The header of the batch in front, if all of it is there and its checksum holds.
pub(super) fn whole_batch(
    bytes: &[u8],
    segment: &RemoteSegment,
    position: u64,
) -> Result<Option<BatchMeta>, TierError> {
    if bytes.len() < HEADER_LEN {
        return Ok(None);
    }
    let damaged = |_| TierError::Damaged {
        id: segment.id,
        position,
    };
    let meta = BatchMeta::parse(bytes).map_err(damaged)?;
    if meta.size > bytes.len() {
        return Ok(None);
    }
    verify_checksum(&bytes[..meta.size], meta.magic).map_err(damaged)?;
    Ok(Some(meta))
}
