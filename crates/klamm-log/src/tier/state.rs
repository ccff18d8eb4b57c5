//! What is known of one log's segments in the remote tier. Pure: told of events, asked for facts.

use std::collections::BTreeMap;

use klamm_records::Uuid;

use crate::tier::{RemoteSegment, RemoteSegmentState};

/// A segment cannot go from one state of its life to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("remote segment {id} cannot go from {from:?} to {to:?}")]
pub struct InvalidTransition {
    /// The segment.
    pub id: Uuid,
    /// Its state; none if it is not known.
    pub from: Option<RemoteSegmentState>,
    /// What it was to become.
    pub to: RemoteSegmentState,
}

/// The remote segments of one log, by start offset (KIP-405's metadata cache).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierState {
    segments: BTreeMap<(i64, [u8; 16]), RemoteSegment>,
}

impl TierState {
    /// Takes over what a metadata store lists.
    pub fn load(segments: impl IntoIterator<Item = RemoteSegment>) -> TierState {
        let known = segments
            .into_iter()
            .filter(|segment| segment.state != RemoteSegmentState::DeleteFinished)
            .map(|segment| ((segment.start_offset, *segment.id.as_bytes()), segment));
        TierState {
            segments: known.collect(),
        }
    }

    /// Takes over a segment's new state. A segment begins as
    /// [`CopyStarted`](RemoteSegmentState::CopyStarted), and is forgotten when its deletion is
    /// finished.
    ///
    /// # Errors
    /// [`InvalidTransition`]; nothing has changed.
    pub fn apply(&mut self, segment: &RemoteSegment) -> Result<(), InvalidTransition> {
        use RemoteSegmentState::{CopyFinished, CopyStarted, DeleteFinished, DeleteStarted};
        let key = (segment.start_offset, *segment.id.as_bytes());
        let from = self.segments.get(&key).map(|known| known.state);
        match (from, segment.state) {
            (None, CopyStarted)
            | (Some(CopyStarted), CopyFinished | DeleteStarted)
            | (Some(CopyFinished | DeleteStarted), DeleteStarted) => {
                self.segments.insert(key, segment.clone());
            }
            (Some(DeleteStarted), DeleteFinished) => {
                self.segments.remove(&key);
            }
            (from, to) => {
                return Err(InvalidTransition {
                    id: segment.id,
                    from,
                    to,
                });
            }
        }
        Ok(())
    }

    /// All segments, by start offset.
    pub fn segments(&self) -> impl Iterator<Item = &RemoteSegment> {
        self.segments.values()
    }

    /// Segments that can be read, by start offset.
    pub fn readable(&self) -> impl DoubleEndedIterator<Item = &RemoteSegment> {
        let finished = |segment: &&RemoteSegment| segment.state == RemoteSegmentState::CopyFinished;
        self.segments.values().filter(finished)
    }

    /// The segment that has `offset` with records of `epoch` there.
    pub fn segment_for(&self, offset: i64, epoch: i32) -> Option<&RemoteSegment> {
        self.readable()
            .rev()
            .find(|segment| segment.contains(offset) && segment.epoch_at(offset) == Some(epoch))
    }

    /// The largest offset that can be read of a log with this history (leader epochs with their
    /// starts, ascending) and this end; none if none can.
    pub fn highest_offset(&self, history: &[(i32, i64)], log_end: i64) -> Option<i64> {
        self.readable()
            .filter_map(|segment| segment.common_end(history, log_end))
            .max()
    }

    /// Segments whose copy or deletion was begun and did not come to its end.
    pub fn unfinished(&self) -> Vec<RemoteSegment> {
        let whole = RemoteSegmentState::CopyFinished;
        let segments = self.segments.values();
        segments.filter(|s| s.state != whole).cloned().collect()
    }
}

impl RemoteSegment {
    /// Whether it covers an offset.
    pub fn contains(&self, offset: i64) -> bool {
        (self.start_offset..=self.end_offset).contains(&offset)
    }

    /// The epoch of its records at an offset.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        epoch_at(&self.epochs, offset)
    }

    /// The last offset up to which its records are those of a log with this history and end.
    pub(super) fn common_end(&self, history: &[(i32, i64)], log_end: i64) -> Option<i64> {
        let mut common = None;
        for (index, &(epoch, start)) in self.epochs.iter().enumerate() {
            let own_end = self
                .epochs
                .get(index + 1)
                .map_or(self.end_offset, |&(_, next)| next - 1);
            if epoch_at(history, start) != Some(epoch) || start >= log_end {
                break;
            }
            let next = history.iter().find(|&&(later, _)| later > epoch);
            let end = next.map_or(log_end, |&(_, next)| next) - 1;
            common = Some(own_end.min(end));
            if end < own_end {
                break;
            }
        }
        common
    }
}

/// The epoch at an offset of a history.
pub(super) fn epoch_at(history: &[(i32, i64)], offset: i64) -> Option<i32> {
    let after = history.partition_point(|&(_, start)| start <= offset);
    after.checked_sub(1).map(|index| history[index].0)
}
