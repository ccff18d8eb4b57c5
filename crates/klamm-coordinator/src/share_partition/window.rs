//! The window: runs of offsets that share everything that is known of them.

use std::collections::BTreeMap;

use klamm_protocol::ByteStr;

/// Where a record stands. The numbers are those of the protocol's `DeliveryState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordState {
    /// To be handed out.
    Available,
    /// Out with a member.
    Acquired,
    /// Done.
    Acknowledged,
    /// Given up: rejected, delivered too often, or not there at all.
    Archived,
}

impl RecordState {
    /// The number in records and requests.
    pub fn id(self) -> i8 {
        match self {
            RecordState::Available => 0,
            RecordState::Acquired => 1,
            RecordState::Acknowledged => 2,
            RecordState::Archived => 4,
        }
    }

    /// The state of a number.
    pub fn from_id(id: i8) -> Option<Self> {
        Some(match id {
            0 => RecordState::Available,
            1 => RecordState::Acquired,
            2 => RecordState::Acknowledged,
            // 3 is on the way to being archived, which never lasts here.
            3 | 4 => RecordState::Archived,
            _ => return None,
        })
    }

    /// Whether the record is done with.
    pub fn is_terminal(self) -> bool {
        matches!(self, RecordState::Acknowledged | RecordState::Archived)
    }
}

/// Who has records, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) member: ByteStr,
    /// Monotonic milliseconds.
    pub(super) deadline_ms: u64,
}

/// What can change of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) state: RecordState,
    /// How often it was handed out.
    pub(super) count: i16,
    /// Set exactly while acquired.
    pub(super) lock: Option<Lock>,
}

impl Delivery {
    pub(super) fn new(state: RecordState, count: i16) -> Self {
        Delivery {
            state,
            count,
            lock: None,
        }
    }

    pub(super) fn is_held_by(&self, member: &str) -> bool {
        self.lock
            .as_ref()
            .is_some_and(|lock| lock.member == *member)
    }
}

/// A change that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) ticket: u64,
    /// What to go back to if it cannot be.
    pub(super) before: Delivery,
}

/// Consecutive offsets of which the same is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) last: i64,
    /// First and last offset of what was once handed out as one: what is delivered too often is
    /// handed out in ever smaller parts of that.
    pub(super) origin: (i64, i64),
    pub(super) now: Delivery,
    pub(super) transition: Option<Transition>,
}

impl Run {
    pub(super) fn is_available(&self) -> bool {
        self.now.state == RecordState::Available && self.transition.is_none()
    }

    /// Whether a member has had it for too long.
    pub(super) fn is_overdue(&self, now_ms: u64) -> bool {
        let lock = self.now.lock.as_ref();
        self.transition.is_none() && lock.is_some_and(|lock| lock.deadline_ms <= now_ms)
    }

    fn equals(&self, other: &Run) -> bool {
        self.origin == other.origin && self.now == other.now && self.transition == other.transition
    }
}

/// Runs by their first offset.
///
/// Invariants: the runs cover their range without holes; two neighbours differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    runs: BTreeMap<i64, Run>,
}

impl Window {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, &Run)> {
        self.runs.iter().map(|(first, run)| (*first, run))
    }

    /// The run that an offset belongs to.
    pub(super) fn at(&self, offset: i64) -> Option<(i64, &Run)> {
        let (first, run) = self.runs.range(..=offset).next_back()?;
        (run.last >= offset).then_some((*first, run))
    }

    pub(super) fn first(&self) -> Option<(i64, &Run)> {
        self.runs
            .first_key_value()
            .map(|(first, run)| (*first, run))
    }

    /// Adds a run behind all others.
    pub(super) fn push(&mut self, first: i64, run: Run) {
        debug_assert!(
            self.runs
                .last_key_value()
                .is_none_or(|(_, r)| r.last + 1 == first)
        );
        self.runs.insert(first, run);
        self.join(first);
    }

    /// The parts of runs within a range, each cut to it.
    pub(super) fn within(&self, first: i64, last: i64) -> Vec<(i64, Run)> {
        if last < first {
            return Vec::new();
        }
        let start = self.at(first).map_or(first, |(start, _)| start);
        self.runs
            .range(start..=last)
            .map(|(from, run)| {
                let mut part = run.clone();
                part.last = run.last.min(last);
                ((*from).max(first), part)
            })
            .collect()
    }

    /// Replaces what is known of a range that lies within one run.
    pub(super) fn set(&mut self, first: i64, last: i64, change: impl FnOnce(&mut Run)) {
        self.cut_at(first);
        self.cut_at(last + 1);
        if let Some(run) = self.runs.get_mut(&first) {
            debug_assert_eq!(run.last, last);
            change(run);
        }
        self.join(last + 1);
        self.join(first);
    }

    /// Forgets everything below an offset.
    pub(super) fn forget_below(&mut self, offset: i64) {
        self.cut_at(offset);
        self.runs = self.runs.split_off(&offset);
    }

    /// Makes a run begin at an offset, if it lies within one.
    fn cut_at(&mut self, offset: i64) {
        let Some((first, run)) = self.at(offset) else {
            return;
        };
        if first == offset {
            return;
        }
        let tail = run.clone();
        if let Some(head) = self.runs.get_mut(&first) {
            head.last = offset - 1;
        }
        self.runs.insert(offset, tail);
    }

    /// Makes one of the run that begins at an offset and the one before it, if they are alike.
    fn join(&mut self, offset: i64) {
        let Some(run) = self.runs.get(&offset) else {
            return;
        };
        let Some((first, before)) = self.runs.range(..offset).next_back() else {
            return;
        };
        if before.last + 1 != offset || !before.equals(run) {
            return;
        }
        let (first, last) = (*first, run.last);
        self.runs.remove(&offset);
        if let Some(before) = self.runs.get_mut(&first) {
            before.last = last;
        }
    }
}
