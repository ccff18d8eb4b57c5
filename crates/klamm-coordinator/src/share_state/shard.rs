//! The share coordinator's state over one partition of `__share_group_state`.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::ErrorCode;

use super::NOT_GIVEN;
use super::combine::{StateBatch, combine};
use super::config::ShareCoordinatorConfig;
use super::record::{ShareStateKey, ShareStateRecord};
use super::state::{ShareState, given_or, update_value};
use crate::group::Cluster;
use crate::runtime::{Effects, Now, RecordOrigin, ReplyToken, Shard, Timers, WriteOutcome};

/// What a share state shard wants done.
pub type ShareStateEffects = Effects<ShareStateShard>;

/// A change of one key's state by the leader of its data partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Epoch of the state that the leader knows, or -1.
    pub state_epoch: i32,
    /// Epoch in which it leads, or -1.
    pub leader_epoch: i32,
    /// The first record that is not done with, or -1 for no change.
    pub start_offset: i64,
    /// How many records from there on are done with, or -1.
    pub delivery_complete_count: i32,
    /// What became of records.
    pub batches: Vec<StateBatch>,
}

/// What a share state shard is asked, of one key each.
#[derive(Clone, Debug)]
pub enum ShareStateRequest {
    /// Key 83.
    Initialize {
        /// Whose.
        key: ShareStateKey,
        /// The new epoch of the state, or -1.
        state_epoch: i32,
        /// Where to begin, or -1.
        start_offset: i64,
    },
    /// Key 84, by the leader of this epoch.
    Read(ShareStateKey, i32),
    /// Key 85.
    Write(ShareStateKey, StateChange),
    /// Key 86.
    Delete(ShareStateKey),
    /// Key 87.
    Summary(ShareStateKey),
    /// Topics were deleted from the cluster.
    TopicsDeleted(Arc<[klamm_records::Uuid]>),
}

/// What a share state shard answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShareStateResponse {
    /// To a read or a summary: the state; none if there is none.
    State(Option<Arc<ShareState>>),
    /// Done, nothing to say.
    Done,
    /// The request is refused.
    Refused(ErrorCode, &'static str),
}

/// A timer of the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShareStateTimer {
    /// The next look at what may be deleted from the log.
    Prune,
    /// The next look at states that rest.
    SnapshotCold,
}

/// What a share state shard wants others to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareStateAction {
    /// To delete records of its partition below this offset.
    Prune {
        /// The first offset that is needed.
        before_offset: i64,
    },
}

/// Takes a replayed record back: a key's state as it was.
#[derive(Clone, Debug)]
pub struct ShareStateUndo(Option<(ShareStateKey, Option<Arc<ShareState>>)>);

/// All states of one partition of `__share_group_state`.
#[derive(Debug)]
pub struct ShareStateShard {
    config: Arc<ShareCoordinatorConfig>,
    cluster: Arc<dyn Cluster>,
    states: BTreeMap<ShareStateKey, Arc<ShareState>>,
    timers: Timers<ShareStateTimer>,
    /// Records that are not committed yet; nothing is deleted meanwhile.
    in_flight: usize,
    /// Where the log's next record goes.
    end_offset: i64,
    pruned_before: i64,
}

impl ShareStateShard {
    /// A shard without states.
    pub fn new(config: Arc<ShareCoordinatorConfig>, cluster: Arc<dyn Cluster>) -> Self {
        ShareStateShard {
            config,
            cluster,
            states: BTreeMap::new(),
            timers: Timers::default(),
            in_flight: 0,
            end_offset: 0,
            pruned_before: 0,
        }
    }

    /// A key's state, with what is not committed yet.
    pub fn state(&self, key: &ShareStateKey) -> Option<&Arc<ShareState>> {
        self.states.get(key)
    }

    fn check_topic(&self, key: &ShareStateKey) -> Result<(), ShareStateResponse> {
        if key.topic_id.is_zero() {
            return Err(refused(
                ErrorCode::InvalidRequest,
                "The topic id cannot be null.",
            ));
        }
        if key.partition < 0 {
            let message = "The partition id cannot be a negative number.";
            return Err(refused(ErrorCode::InvalidRequest, message));
        }
        let topics = self.cluster.topics();
        let count = topics
            .topic_name(key.topic_id)
            .and_then(|name| topics.partition_count(&name))
            .unwrap_or(0);
        if key.partition >= count {
            let error = ErrorCode::UnknownTopicOrPartition;
            return Err(refused(
                error,
                "This server does not host this topic-partition.",
            ));
        }
        Ok(())
    }

    fn initialize(
        &self,
        key: ShareStateKey,
        state_epoch: i32,
        start_offset: i64,
        now: Now,
    ) -> Result<(Vec<ShareStateRecord>, ShareStateResponse), ShareStateResponse> {
        let present = self.states.get(&key);
        if let Some(present) = present
            && state_epoch != NOT_GIVEN
            && present.state_epoch > state_epoch
        {
            return Err(fenced_state());
        }
        self.check_topic(&key)?;
        // A group asks again for state of which it does not know whether it was made, and what it
        // asked first may come last: what was written since must stay. Who sets offsets names them.
        // Kafka makes it anew, and hands out again what was done.
        if present.is_some() && start_offset == i64::from(NOT_GIVEN) {
            return Ok((Vec::new(), ShareStateResponse::Done));
        }
        let snapshot_epoch = present.map_or(0, |present| present.snapshot_epoch + 1);
        let state = ShareState::made(snapshot_epoch, state_epoch, start_offset, now.wall_ms);
        let record = ShareStateRecord::Snapshot(key, Some(Box::new(state.to_snapshot())));
        Ok((vec![record], ShareStateResponse::Done))
    }

    fn write(
        &self,
        key: ShareStateKey,
        change: &StateChange,
        now: Now,
    ) -> Result<(Vec<ShareStateRecord>, ShareStateResponse), ShareStateResponse> {
        let Some(state) = self.states.get(&key) else {
            let message = "Write operation on uninitialized share partition not allowed.";
            return Err(refused(ErrorCode::InvalidRequest, message));
        };
        check_leader(state, change.leader_epoch)?;
        if change.state_epoch != NOT_GIVEN && state.state_epoch > change.state_epoch {
            return Err(fenced_state());
        }
        self.check_topic(&key)?;
        let record = self.record_of(key, state, change, false, now);
        Ok((vec![record], ShareStateResponse::Done))
    }

    /// An update, or a snapshot if there were enough of them.
    fn record_of(
        &self,
        key: ShareStateKey,
        state: &ShareState,
        change: &StateChange,
        updates_leader: bool,
        now: Now,
    ) -> ShareStateRecord {
        // Only a read makes a leader known.
        let leader_epoch = if updates_leader {
            change.leader_epoch
        } else {
            state.leader_epoch
        };
        if state.updates < self.config.updates_per_snapshot {
            let start_offset = given_or(change.start_offset, state.start_offset);
            let mut value = update_value(
                state.snapshot_epoch,
                leader_epoch,
                start_offset,
                change.delivery_complete_count,
                &change.batches,
            );
            value.start_offset = change.start_offset;
            return ShareStateRecord::Update(key, Some(Box::new(value)));
        }
        let start_offset = given_or(change.start_offset, state.start_offset);
        let snapshot = ShareState {
            snapshot_epoch: state.snapshot_epoch + 1,
            leader_epoch,
            start_offset,
            delivery_complete_count: change.delivery_complete_count,
            batches: combine(&state.batches, &change.batches, start_offset),
            created_ms: now.wall_ms,
            written_ms: now.wall_ms,
            ..state.clone()
        };
        ShareStateRecord::Snapshot(key, Some(Box::new(snapshot.to_snapshot())))
    }

    /// A read by a new leader is written down, so that the one before it is refused from then on.
    fn read(
        &self,
        key: ShareStateKey,
        leader_epoch: i32,
        now: Now,
    ) -> Result<(Vec<ShareStateRecord>, ShareStateResponse), ShareStateResponse> {
        let Some(state) = self.states.get(&key) else {
            let message = "Read operation on uninitialized share partition not allowed.";
            return Err(refused(ErrorCode::InvalidRequest, message));
        };
        check_leader(state, leader_epoch)?;
        self.check_topic(&key)?;
        let response = ShareStateResponse::State(Some(state.clone()));
        if leader_epoch == NOT_GIVEN || leader_epoch == state.leader_epoch {
            return Ok((Vec::new(), response));
        }
        let change = StateChange {
            state_epoch: state.state_epoch,
            leader_epoch,
            start_offset: state.start_offset,
            delivery_complete_count: state.delivery_complete_count,
            batches: Vec::new(),
        };
        let record = self.record_of(key, state, &change, true, now);
        Ok((vec![record], response))
    }

    fn delete(
        &self,
        key: ShareStateKey,
    ) -> Result<(Vec<ShareStateRecord>, ShareStateResponse), ShareStateResponse> {
        self.check_topic(&key)?;
        let present = self.states.contains_key(&key);
        let tombstone = present.then_some(ShareStateRecord::Snapshot(key, None));
        Ok((tombstone.into_iter().collect(), ShareStateResponse::Done))
    }

    fn summary(
        &self,
        key: &ShareStateKey,
    ) -> Result<(Vec<ShareStateRecord>, ShareStateResponse), ShareStateResponse> {
        self.check_topic(key)?;
        let state = self.states.get(key).cloned();
        Ok((Vec::new(), ShareStateResponse::State(state)))
    }

    /// The first offset that is needed to load the states again.
    fn needed_from(&self) -> i64 {
        let snapshots = self.states.values().map(|state| state.snapshot_offset);
        snapshots.min().unwrap_or(self.end_offset)
    }

    fn prune(&mut self, now: Now) -> ShareStateEffects {
        let mut out = ShareStateEffects::default();
        let deadline_ms = now.after_ms(self.config.prune_interval_ms);
        self.timers.schedule(ShareStateTimer::Prune, deadline_ms);
        let before_offset = self.needed_from();
        if self.in_flight == 0 && before_offset > self.pruned_before {
            self.pruned_before = before_offset;
            out.actions.push(ShareStateAction::Prune { before_offset });
        }
        out
    }

    /// Snapshots of states that nobody writes any more, which would keep the log from being pruned.
    fn snapshot_cold(&mut self, now: Now) -> ShareStateEffects {
        let mut out = ShareStateEffects::default();
        let interval_ms = self.config.cold_snapshot_interval_ms;
        let deadline_ms = now.after_ms(interval_ms);
        self.timers
            .schedule(ShareStateTimer::SnapshotCold, deadline_ms);
        let is_cold = |state: &ShareState| state.created_ms != state.written_ms;
        if self.states.values().all(|state| is_cold(state)) {
            return out;
        }
        for (key, state) in &self.states {
            if now.wall_ms - state.written_ms < interval_ms {
                continue;
            }
            let snapshot = ShareState {
                snapshot_epoch: state.snapshot_epoch + 1,
                written_ms: now.wall_ms,
                ..(**state).clone()
            };
            let value = Some(Box::new(snapshot.to_snapshot()));
            out.records
                .push(ShareStateRecord::Snapshot(key.clone(), value));
        }
        out.atomic = false;
        out
    }

    fn topics_deleted(&self, topics: &[klamm_records::Uuid]) -> Vec<ShareStateRecord> {
        let gone = self
            .states
            .keys()
            .filter(|key| topics.contains(&key.topic_id));
        gone.map(|key| ShareStateRecord::Snapshot(key.clone(), None))
            .collect()
    }

    fn set(&mut self, key: &ShareStateKey, state: Option<ShareState>) -> Option<Arc<ShareState>> {
        match state {
            Some(state) => self.states.insert(key.clone(), Arc::new(state)),
            None => self.states.remove(key),
        }
    }

    /// The state that a record leaves behind, and whose it is.
    fn after(
        &self,
        offset: i64,
        record: &ShareStateRecord,
    ) -> Option<(ShareStateKey, Option<ShareState>)> {
        match record {
            ShareStateRecord::Snapshot(key, value) => {
                let state = value
                    .as_ref()
                    .map(|value| ShareState::of_snapshot(value, offset));
                Some((key.detached(), state))
            }
            ShareStateRecord::Update(key, Some(value)) => {
                let present = self.states.get(key);
                if present.is_none() {
                    tracing::warn!(group = %key.group_id, "an update without a snapshot");
                }
                Some((key.detached(), Some(present?.updated(value))))
            }
            ShareStateRecord::Update(_, None) | ShareStateRecord::Unknown => None,
        }
    }
}

fn refused(error: ErrorCode, message: &'static str) -> ShareStateResponse {
    ShareStateResponse::Refused(error, message)
}

fn fenced_state() -> ShareStateResponse {
    let message = "The share coordinator rejected the request because the share-group state epoch \
                   did not match.";
    refused(ErrorCode::FencedStateEpoch, message)
}

fn check_leader(state: &ShareState, leader_epoch: i32) -> Result<(), ShareStateResponse> {
    if leader_epoch != NOT_GIVEN && state.leader_epoch > leader_epoch {
        let message = "The leader epoch in the request is older than the epoch on the broker.";
        return Err(refused(ErrorCode::FencedLeaderEpoch, message));
    }
    Ok(())
}

impl Shard for ShareStateShard {
    type Request = ShareStateRequest;
    type Response = ShareStateResponse;
    type Record = ShareStateRecord;
    type Undo = ShareStateUndo;
    type Completion = ();
    type Action = ShareStateAction;

    fn handle(
        &mut self,
        request: ShareStateRequest,
        token: ReplyToken,
        now: Now,
    ) -> ShareStateEffects {
        let handled = match request {
            ShareStateRequest::Initialize {
                key,
                state_epoch,
                start_offset,
            } => self.initialize(key.detached(), state_epoch, start_offset, now),
            ShareStateRequest::Read(key, leader_epoch) => {
                self.read(key.detached(), leader_epoch, now)
            }
            ShareStateRequest::Write(key, change) => self.write(key.detached(), &change, now),
            ShareStateRequest::Delete(key) => self.delete(key.detached()),
            ShareStateRequest::Summary(key) => self.summary(&key),
            ShareStateRequest::TopicsDeleted(topics) => {
                Ok((self.topics_deleted(&topics), ShareStateResponse::Done))
            }
        };
        let (records, response) = handled.unwrap_or_else(|refused| (Vec::new(), refused));
        ShareStateEffects {
            records,
            atomic: false,
            deferred: Some((token, response)),
            ..ShareStateEffects::default()
        }
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        self.timers.next_deadline_ms()
    }

    fn tick(&mut self, now: Now) -> Option<ShareStateEffects> {
        Some(match self.timers.pop_due(now.monotonic_ms)? {
            ShareStateTimer::Prune => self.prune(now),
            ShareStateTimer::SnapshotCold => self.snapshot_cold(now),
        })
    }

    fn loaded(&mut self, now: Now) -> Vec<ShareStateEffects> {
        let prune = now.after_ms(self.config.prune_interval_ms);
        self.timers.schedule(ShareStateTimer::Prune, prune);
        let cold = now.after_ms(self.config.cold_snapshot_interval_ms);
        self.timers.schedule(ShareStateTimer::SnapshotCold, cold);
        Vec::new()
    }

    fn replay(
        &mut self,
        origin: RecordOrigin,
        record: &ShareStateRecord,
        _: Now,
    ) -> ShareStateUndo {
        self.in_flight += 1;
        self.end_offset = origin.offset + 1;
        ShareStateUndo(self.after(origin.offset, record).map(|(key, state)| {
            let previous = self.set(&key, state);
            (key, previous)
        }))
    }

    fn replay_committed(&mut self, origin: RecordOrigin, record: &ShareStateRecord, _: Now) {
        self.end_offset = origin.offset + 1;
        if let Some((key, state)) = self.after(origin.offset, record) {
            self.set(&key, state);
        }
    }

    fn replay_marker(&mut self, _: i64, _: bool) -> Vec<ShareStateUndo> {
        Vec::new()
    }

    fn undo(&mut self, undo: ShareStateUndo) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let ShareStateUndo(Some((key, previous))) = undo {
            match previous {
                Some(previous) => self.states.insert(key, previous),
                None => self.states.remove(&key),
            };
        }
    }

    fn commit(&mut self, _: ShareStateUndo) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    fn complete(&mut self, (): (), _: WriteOutcome, _: Now) -> ShareStateEffects {
        ShareStateEffects::default()
    }
}
