//! Finding offsets and aborted transactions in remote segments.

use crate::batch::{BatchMeta, i32_at, i64_at};
use crate::index::txn::{self, AbortedTxn};
use crate::log::{OffsetAndTimestamp, first_record_in};
use crate::tier::remote_log::{FETCH_BYTES_MIN, RemoteLog, position_in, whole_batch};
use crate::tier::state::epoch_at;
use crate::tier::{IndexKind, RemoteSegment, RemoteStorage, TierError};

/// Bytes of an entry of a time index.
const TIME_ENTRY_LEN: usize = 12;

/// The batches of a remote segment from a position on, fetched a piece at a time.
struct Batches<'a> {
    storage: &'a dyn RemoteStorage,
    segment: &'a RemoteSegment,
    /// Where in the segment the bytes at hand begin.
    position: u64,
    bytes: Vec<u8>,
    /// Where in the bytes the next batch begins.
    at: usize,
    want: u64,
}

impl<'a> Batches<'a> {
    fn new(storage: &'a dyn RemoteStorage, segment: &'a RemoteSegment, position: u64) -> Self {
        Batches {
            storage,
            segment,
            position,
            bytes: Vec::new(),
            at: 0,
            want: FETCH_BYTES_MIN,
        }
    }

    /// The next batch, its checksum verified; none at the end.
    fn next(&mut self) -> Result<Option<(BatchMeta, &[u8])>, TierError> {
        loop {
            let position = self.position + self.at as u64;
            if let Some(meta) = whole_batch(&self.bytes[self.at..], self.segment, position)? {
                let from = self.at;
                self.at += meta.size;
                return Ok(Some((meta, &self.bytes[from..self.at])));
            }
            if self.at == 0 && !self.bytes.is_empty() {
                // One that is larger than what was fetched.
                self.want = self.want.saturating_mul(2);
            }
            let had = self.bytes.len() - self.at;
            let to = position + self.want;
            self.bytes = self.storage.fetch_segment(self.segment, position, to)?;
            (self.position, self.at) = (position, 0);
            if self.bytes.len() <= had {
                return Ok(None);
            }
        }
    }
}

impl RemoteLog {
    /// The first record at or after a timestamp (milliseconds) and the log's start, in the tier or
    /// on the local disk (`findOffsetByTimestamp`).
    ///
    /// # Errors
    /// The tier's, or the local log's.
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
    ) -> Result<Option<OffsetAndTimestamp>, TierError> {
        let local_start = self.log.local_log_start_offset();
        let start = self.log.log_start_offset();
        for (segment, from, to) in self.path(start, local_start) {
            if segment.max_timestamp_ms < timestamp {
                continue;
            }
            let found = self.find_within(&segment, timestamp, (from, to))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(self.log.offset_for_timestamp(timestamp)?)
    }

    /// The remote segments by which `from..to` is read, in order, each with the offsets that it is
    /// read for. Ends where the tier has none of this log's history.
    pub(super) fn path(&self, from: i64, to: i64) -> Vec<(RemoteSegment, i64, i64)> {
        let (history, end) = (self.log.epochs(), self.log.log_end_offset());
        let state = self.state();
        let mut path = Vec::new();
        let mut next = from;
        while next < to
            && let Some(epoch) = epoch_at(&history, next)
            && let Some(segment) = state.segment_for(next, epoch)
            && let Some(last) = segment.common_end(&history, end)
            && last >= next
        {
            let until = to.min(last + 1);
            path.push((segment.clone(), next, until));
            next = until;
        }
        path
    }

    /// The first record of a segment at or after a timestamp and within offsets.
    fn find_within(
        &self,
        segment: &RemoteSegment,
        timestamp: i64,
        (from, to): (i64, i64),
    ) -> Result<Option<OffsetAndTimestamp>, TierError> {
        let times = self.storage.fetch_index(segment, IndexKind::Timestamp)?;
        let offsets = self.storage.fetch_index(segment, IndexKind::Offset)?;
        let relative = offset_at_or_before(&times, timestamp);
        let first = (segment.start_offset + relative).max(from);
        let position = position_in(&offsets, first - segment.start_offset);
        let mut batches = Batches::new(&*self.storage, segment, position);
        while let Some((meta, bytes)) = batches.next()? {
            if meta.base_offset >= to {
                break;
            }
            if meta.last_offset < from || meta.max_timestamp < timestamp {
                continue;
            }
            let wanted = |offset, time| time >= timestamp && (from..to).contains(&offset);
            let found = first_record_in(bytes, &meta, wanted);
            let found = found.map_err(|_| TierError::Damaged {
                id: segment.id,
                position: 0,
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Aborted transactions with records in `from..to`, in the order of their markers, wherever
    /// these lie: as [`Log::aborted_transactions`](crate::Log::aborted_transactions).
    ///
    /// # Errors
    /// The tier's, or the local log's.
    pub fn aborted_transactions(&self, from: i64, to: i64) -> Result<Vec<AbortedTxn>, TierError> {
        let local_start = self.log.local_log_start_offset();
        let mut found = Vec::new();
        // A marker may come long after what it ends.
        for (segment, first, end) in self.path(from, local_start) {
            let index = self.storage.fetch_index(&segment, IndexKind::Transaction)?;
            let entries = txn::parse(&index, segment.start_offset);
            let entries = entries.map_err(|_| TierError::Damaged {
                id: segment.id,
                position: 0,
            })?;
            for txn in entries {
                let within = (first..end).contains(&txn.last_offset);
                if within && txn.first_offset < to {
                    found.push(txn);
                }
                if within && txn.last_stable_offset >= to {
                    return Ok(found);
                }
            }
        }
        found.extend(self.log.aborted_transactions(from.max(local_start), to)?);
        Ok(found)
    }

    /// Takes over what other brokers have noted meanwhile, such as the last leader.
    ///
    /// # Errors
    /// The tier's.
    pub fn refresh(&self) -> Result<(), TierError> {
        let _one_at_a_time = crate::storage::lock(&self.working);
        self.reload()
    }

    /// Begins anew behind what is in the tier, as a follower does whose leader no longer has on its
    /// disk what comes next: with the leader epochs and producers that the tier noted there.
    /// `local_start` is where the leader's local log begins, `epoch` the leader epoch there, `start`
    /// where its log begins. Returns where the log ends now; none if the tier has nothing that
    /// leads there, and nothing was done (KIP-405, `REMOTE_LOG` auxiliary state).
    ///
    /// # Errors
    /// The tier's, or the local log's.
    pub fn rebuild(
        &self,
        local_start: i64,
        epoch: i32,
        start: i64,
    ) -> Result<Option<i64>, TierError> {
        let _one_at_a_time = crate::storage::lock(&self.working);
        self.reload()?;
        let before = local_start - 1;
        let state = self.state();
        let segments = state.readable().filter(|segment| segment.contains(before));
        // Of those that other leaders have left, the last leader's counts.
        let of = segments.filter_map(|segment| Some((segment.epoch_at(before)?, segment)));
        let newest = of.filter(|&(of, _)| of <= epoch).max_by_key(|&(of, _)| of);
        let Some((_, segment)) = newest else {
            return Ok(None);
        };
        let history = self.storage.fetch_index(segment, IndexKind::LeaderEpoch)?;
        let history = parse_epochs(&history).ok_or(TierError::Damaged {
            id: segment.id,
            position: 0,
        })?;
        let producers = match self
            .storage
            .fetch_index(segment, IndexKind::ProducerSnapshot)
        {
            Err(TierError::NotFound(_)) => None,
            found => Some(found?),
        };
        let next = segment.end_offset + 1;
        self.log
            .start_behind_tier(next, start, &history, producers.as_deref())?;
        self.tell_log();
        Ok(Some(next))
    }
}

/// The relative offset of the last entry of a time index at or before a timestamp.
fn offset_at_or_before(index: &[u8], timestamp: i64) -> i64 {
    let mut relative = 0;
    for entry in index.chunks_exact(TIME_ENTRY_LEN) {
        if i64_at(entry, 0) > timestamp {
            break;
        }
        relative = i64::from(i32_at(entry, 8));
    }
    relative
}

/// Leader epochs in the form of `leader-epoch-checkpoint`.
fn parse_epochs(content: &[u8]) -> Option<Vec<(i32, i64)>> {
    let text = std::str::from_utf8(content).ok()?;
    let mut lines = text.lines();
    if lines.next()? != "0" {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    let pair = |line: &str| {
        let (epoch, start) = line.split_once(' ')?;
        Some((epoch.parse().ok()?, start.parse().ok()?))
    };
    let epochs: Vec<(i32, i64)> = lines.map(pair).collect::<Option<_>>()?;
    (epochs.len() == count).then_some(epochs)
}
