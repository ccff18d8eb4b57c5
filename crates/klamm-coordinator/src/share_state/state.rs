//! One key's state and what changes it.

use klamm_protocol::share_records::share_snapshot_value::StateBatch as SnapshotBatch;
use klamm_protocol::share_records::share_update_value::StateBatch as UpdateBatch;
use klamm_protocol::share_records::{ShareSnapshotValue, ShareUpdateValue};

use super::NOT_GIVEN;
use super::combine::{StateBatch, combine};

/// What a share group is done with in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareState {
    /// Counts snapshots.
    pub snapshot_epoch: i32,
    /// Grows each time the state is initialised anew.
    pub state_epoch: i32,
    /// Epoch of the data partition's leader that wrote last.
    pub leader_epoch: i32,
    /// The first record that is not done with, -1 if nothing was read yet.
    pub start_offset: i64,
    /// How many records from there on are done with, -1 if that is not known.
    pub delivery_complete_count: i32,
    /// When a snapshot was last made of a write, in milliseconds since the epoch.
    pub created_ms: i64,
    /// When a snapshot was last made.
    pub written_ms: i64,
    /// What became of records.
    pub batches: Vec<StateBatch>,
    /// Updates since the snapshot.
    pub updates: i32,
    /// Offset of the snapshot in the log.
    pub snapshot_offset: i64,
}

impl ShareState {
    /// A state of which nothing is known but where to begin, -1 if not even that.
    pub(super) fn made(
        snapshot_epoch: i32,
        state_epoch: i32,
        start_offset: i64,
        now_ms: i64,
    ) -> Self {
        ShareState {
            snapshot_epoch,
            state_epoch,
            leader_epoch: 0,
            start_offset,
            delivery_complete_count: if start_offset == i64::from(NOT_GIVEN) {
                NOT_GIVEN
            } else {
                0
            },
            created_ms: now_ms,
            written_ms: now_ms,
            batches: Vec::new(),
            updates: 0,
            snapshot_offset: 0,
        }
    }

    /// The state as a snapshot has it.
    pub(super) fn of_snapshot(value: &ShareSnapshotValue, offset: i64) -> Self {
        ShareState {
            snapshot_epoch: value.snapshot_epoch,
            state_epoch: value.state_epoch,
            leader_epoch: value.leader_epoch,
            start_offset: value.start_offset,
            delivery_complete_count: value.delivery_complete_count,
            created_ms: value.create_timestamp,
            written_ms: value.write_timestamp,
            batches: value
                .state_batches
                .iter()
                .map(|batch| StateBatch {
                    first_offset: batch.first_offset,
                    last_offset: batch.last_offset,
                    delivery_state: batch.delivery_state,
                    delivery_count: batch.delivery_count,
                })
                .collect(),
            updates: 0,
            snapshot_offset: offset,
        }
    }

    /// The snapshot of the state.
    pub(super) fn to_snapshot(&self) -> ShareSnapshotValue {
        ShareSnapshotValue {
            snapshot_epoch: self.snapshot_epoch,
            state_epoch: self.state_epoch,
            leader_epoch: self.leader_epoch,
            start_offset: self.start_offset,
            delivery_complete_count: self.delivery_complete_count,
            create_timestamp: self.created_ms,
            write_timestamp: self.written_ms,
            state_batches: self
                .batches
                .iter()
                .map(|batch| SnapshotBatch {
                    first_offset: batch.first_offset,
                    last_offset: batch.last_offset,
                    delivery_state: batch.delivery_state,
                    delivery_count: batch.delivery_count,
                    ..SnapshotBatch::default()
                })
                .collect(),
            ..ShareSnapshotValue::default()
        }
    }

    /// The state after an update.
    pub(super) fn updated(&self, value: &ShareUpdateValue) -> Self {
        let start_offset = given_or(value.start_offset, self.start_offset);
        let newer: Vec<StateBatch> = value
            .state_batches
            .iter()
            .map(|batch| StateBatch {
                first_offset: batch.first_offset,
                last_offset: batch.last_offset,
                delivery_state: batch.delivery_state,
                delivery_count: batch.delivery_count,
            })
            .collect();
        ShareState {
            leader_epoch: if value.leader_epoch == NOT_GIVEN {
                self.leader_epoch
            } else {
                value.leader_epoch
            },
            start_offset,
            delivery_complete_count: value.delivery_complete_count,
            batches: combine(&self.batches, &newer, start_offset),
            updates: self.updates + 1,
            ..self.clone()
        }
    }
}

/// An update's value, made of what is written.
pub(super) fn update_value(
    snapshot_epoch: i32,
    leader_epoch: i32,
    start_offset: i64,
    delivery_complete_count: i32,
    batches: &[StateBatch],
) -> ShareUpdateValue {
    ShareUpdateValue {
        snapshot_epoch,
        leader_epoch,
        start_offset,
        delivery_complete_count,
        state_batches: combine(batches, &[], start_offset)
            .into_iter()
            .map(|batch| UpdateBatch {
                first_offset: batch.first_offset,
                last_offset: batch.last_offset,
                delivery_state: batch.delivery_state,
                delivery_count: batch.delivery_count,
                ..UpdateBatch::default()
            })
            .collect(),
        ..ShareUpdateValue::default()
    }
}

/// A start offset, if one is given.
pub(super) fn given_or(start_offset: i64, otherwise: i64) -> i64 {
    if start_offset == i64::from(NOT_GIVEN) {
        otherwise
    } else {
        start_offset
    }
}
