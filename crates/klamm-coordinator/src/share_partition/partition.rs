//! The machine: what it knows, how it comes to be, and how its window moves.

use std::collections::BTreeSet;

use klamm_protocol::messages::read_share_group_state_response::StateBatch as ReadBatch;
use klamm_protocol::messages::write_share_group_state_request::StateBatch;

use super::window::{Delivery, RecordState, Run, Window};

/// What bounds the delivery of records: the settings of the group, over those of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareLimits {
    /// `share.delivery.count.limit`: how often a record is handed out before it is archived.
    pub delivery_count_max: i16,
    /// `share.partition.max.record.locks`: how many offsets the window may span.
    pub in_flight_max: i32,
    /// `share.record.lock.duration.ms`: how long a member may keep a record.
    pub lock_duration_ms: i32,
    /// `share.renew.acknowledge.enable`: whether members may ask for more time.
    pub may_renew: bool,
}

impl Default for ShareLimits {
    fn default() -> Self {
        ShareLimits {
            delivery_count_max: 5,
            in_flight_max: 2_000,
            lock_duration_ms: 30_000,
            may_renew: true,
        }
    }
}

/// What the share coordinator knows of the partition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredState {
    /// Grows each time an administrator sets the offsets.
    pub state_epoch: i32,
    /// The first offset that is not done with.
    pub start_offset: i64,
    /// What became of records from there on.
    pub batches: Vec<ReadBatch>,
}

/// Why a stored state cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A batch lies below the start, ends before it begins or overlaps the one before.
    #[error("the batch of state at offset {0} is out of place")]
    Misplaced(i64),
    /// A state that is not known.
    #[error("the delivery state {0} is not known")]
    UnknownState(i8),
}

/// What is to be written through the share coordinator.
#[derive(Clone, Debug, PartialEq)]
pub struct StateWrite {
    /// To be named when the outcome is reported with [`SharePartition::written`].
    pub ticket: u64,
    /// See [`StoredState::state_epoch`].
    pub state_epoch: i32,
    /// The first offset that was not done with before this write.
    pub start_offset: i64,
    /// How many records from there on are done with.
    pub delivery_complete_count: i32,
    /// What changes.
    pub batches: Vec<StateBatch>,
}

/// One partition as one share group reads it.
///
/// Invariants: the window, if it is not empty, begins at `start_offset` and ends at `end_offset`;
/// its first record is not done with unless that is still being written.
#[derive(Clone, Debug, PartialEq)]
pub struct SharePartition {
    pub(super) state_epoch: i32,
    pub(super) start_offset: i64,
    /// Last offset of the window.
    pub(super) end_offset: i64,
    pub(super) window: Window,
    next_ticket: u64,
}

impl SharePartition {
    /// The partition as the coordinator knows it; `start_offset` is where to begin if it knows
    /// none.
    ///
    /// Offsets between its batches were handed out before a restart at most: they are available.
    pub fn load(stored: &StoredState, start_offset: i64) -> Result<Self, LoadError> {
        let start_offset = match stored.start_offset {
            -1 => start_offset,
            stored => stored,
        };
        let mut partition = SharePartition {
            state_epoch: stored.state_epoch,
            start_offset,
            end_offset: start_offset - 1,
            window: Window::default(),
            next_ticket: 0,
        };
        for batch in &stored.batches {
            let next = partition.end_offset + 1;
            if batch.first_offset < next || batch.last_offset < batch.first_offset {
                return Err(LoadError::Misplaced(batch.first_offset));
            }
            let state = RecordState::from_id(batch.delivery_state)
                .ok_or(LoadError::UnknownState(batch.delivery_state))?;
            // Nobody has records any more that were out before.
            let state = match state {
                RecordState::Acquired => RecordState::Available,
                state => state,
            };
            if batch.first_offset > next {
                let gap = Delivery::new(RecordState::Available, 0);
                partition.extend(batch.first_offset - 1, gap);
            }
            partition.extend(
                batch.last_offset,
                Delivery::new(state, batch.delivery_count),
            );
        }
        partition.advance();
        Ok(partition)
    }

    /// The first offset that is not done with.
    pub fn start_offset(&self) -> i64 {
        self.start_offset
    }

    /// The offset behind the last one that was ever handed out.
    pub fn window_end(&self) -> i64 {
        self.end_offset + 1
    }

    /// See [`StoredState::state_epoch`].
    pub fn state_epoch(&self) -> i32 {
        self.state_epoch
    }

    /// How many offsets the window spans.
    pub fn in_flight(&self) -> i64 {
        self.end_offset + 1 - self.start_offset
    }

    /// How many ranges of the window were handed out as one.
    pub fn in_flight_batches(&self) -> usize {
        let origins = self.window.iter().map(|(_, run)| run.origin);
        origins.collect::<BTreeSet<_>>().len()
    }

    /// How many records members have had for too long by now.
    pub fn overdue(&self, now_ms: u64) -> u64 {
        let runs = self.window.iter().filter(|(_, run)| run.is_overdue(now_ms));
        let records: i64 = runs.map(|(first, run)| run.last - first + 1).sum();
        u64::try_from(records).unwrap_or(0)
    }

    /// Where to read next: the first available record, else the first that was never handed out.
    pub fn next_fetch_offset(&self) -> i64 {
        let available = self.window.iter().find(|(_, run)| run.is_available());
        available.map_or(self.end_offset + 1, |(first, _)| first)
    }

    /// Whether there is room to hand anything out.
    pub fn can_acquire(&self, limits: &ShareLimits) -> bool {
        self.next_fetch_offset() <= self.end_offset
            || self.in_flight() < i64::from(limits.in_flight_max)
    }

    /// How many records of the window are done with.
    pub fn delivery_complete_count(&self) -> i32 {
        let done = self
            .window
            .iter()
            .filter(|(_, run)| run.now.state.is_terminal());
        let done: i64 = done.map(|(first, run)| run.last - first + 1).sum();
        i32::try_from(done).unwrap_or(i32::MAX)
    }

    /// Whether a member has records, or a change is being written.
    pub fn has_unsettled(&self) -> bool {
        self.window
            .iter()
            .any(|(_, run)| run.transition.is_some() || run.now.lock.is_some())
    }

    /// State and delivery count of a record of the window.
    pub fn record(&self, offset: i64) -> Option<(RecordState, i16)> {
        let (_, run) = self.window.at(offset)?;
        Some((run.now.state, run.now.count))
    }

    /// The next moment at which [`SharePartition::expire`] has work, in monotonic milliseconds.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let locked = self
            .window
            .iter()
            .filter(|(_, run)| run.transition.is_none());
        let locks = locked.filter_map(|(_, run)| run.now.lock.as_ref());
        locks.map(|lock| lock.deadline_ms).min()
    }

    /// The log starts at a later offset now: what was before is no more.
    pub fn log_start_moved(&mut self, log_start_offset: i64) {
        if log_start_offset <= self.start_offset {
            return;
        }
        self.start_offset = log_start_offset;
        self.end_offset = self.end_offset.max(log_start_offset - 1);
        self.window.forget_below(log_start_offset);
        self.advance();
    }

    /// The outcome of a write is known. What could not be written is as it was before; a lock that
    /// ran out meanwhile is for [`SharePartition::expire`].
    pub fn written(&mut self, ticket: u64, ok: bool) {
        let mine: Vec<(i64, i64)> = self
            .window
            .iter()
            .filter(|(_, run)| run.transition.as_ref().is_some_and(|t| t.ticket == ticket))
            .map(|(first, run)| (first, run.last))
            .collect();
        for (first, last) in mine {
            self.window.set(first, last, |run| {
                if let Some(transition) = run.transition.take()
                    && !ok
                {
                    run.now = transition.before;
                }
            });
        }
        self.advance();
    }

    /// Makes the window longer, up to and with `last`.
    pub(super) fn extend(&mut self, last: i64, delivery: Delivery) {
        let first = self.end_offset + 1;
        let run = Run {
            last,
            origin: (first, last),
            now: delivery,
            transition: None,
        };
        self.window.push(first, run);
        self.end_offset = last;
    }

    /// Moves the start over what is done with.
    pub(super) fn advance(&mut self) {
        while let Some((_, run)) = self.window.first() {
            if !run.now.state.is_terminal() || run.transition.is_some() {
                return;
            }
            self.start_offset = run.last + 1;
            self.window.forget_below(self.start_offset);
        }
    }

    pub(super) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// The write of some records' states as they are now.
    pub(super) fn write_of(&self, ticket: u64, changed: &[(i64, i64)]) -> StateWrite {
        let mut batches = Vec::with_capacity(changed.len());
        for (first, last) in changed {
            for (first, run) in self.window.within(*first, *last) {
                batches.push(StateBatch {
                    first_offset: first,
                    last_offset: run.last,
                    delivery_state: run.now.state.id(),
                    delivery_count: run.now.count,
                    ..StateBatch::default()
                });
            }
        }
        StateWrite {
            ticket,
            state_epoch: self.state_epoch,
            start_offset: self.start_offset,
            delivery_complete_count: self.delivery_complete_count(),
            batches,
        }
    }
}
