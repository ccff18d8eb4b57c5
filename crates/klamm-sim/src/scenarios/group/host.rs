//! Runs the shard as the coordinator's runtime does: effects are applied, records appended, and
//! answers held back until the records are committed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use klamm_coordinator::GroupCoordinatorConfig;
use klamm_coordinator::group::{
    GroupCompletion, GroupEffects, GroupRecord, GroupRequest, GroupResponse, GroupShard, GroupUndo,
};
use klamm_coordinator::metrics::GroupMetrics;
use klamm_coordinator::runtime::{
    CoordinatorRecord, EncodedRecord, Now, RecordOrigin, ReplyToken, Shard, WriteOutcome,
};
use klamm_protocol::ErrorCode;

use super::super::Violation;
use crate::{SimRng, Trace};

/// What a request came to.
pub type Answer = Result<GroupResponse, ErrorCode>;

/// What becomes of the next write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Committed at once.
    Commit,
    /// Committed later.
    Hold,
    /// Refused by the log.
    Fail,
}

struct Held {
    undos: Vec<GroupUndo>,
    deferred: Option<(ReplyToken, GroupResponse)>,
    completion: Option<GroupCompletion>,
    /// End of the log with these records.
    end: usize,
}

/// A coordinator of one partition.
pub struct Host {
    shard: GroupShard,
    /// Its log.
    pub log: Vec<EncodedRecord>,
    /// Records that are committed.
    pub committed: usize,
    held: VecDeque<Held>,
    /// Answers not picked up.
    pub answers: BTreeMap<ReplyToken, Answer>,
    /// Requests not answered.
    pub open: BTreeMap<ReplyToken, String>,
    next_token: u64,
    /// Time.
    pub now: Now,
    rng: SimRng,
    trace: Trace,
    /// What becomes of writes.
    pub fate: Fate,
    /// A broken promise that was noticed on the way.
    pub broken: Option<Violation>,
}

fn config() -> Arc<GroupCoordinatorConfig> {
    Arc::new(GroupCoordinatorConfig {
        initial_rebalance_delay_ms: 300,
        ..GroupCoordinatorConfig::default()
    })
}

impl Host {
    pub(super) fn new(rng: SimRng, trace: Trace) -> Host {
        let shard_rng = Arc::new(rng.fork("member ids"));
        let now = Now {
            wall_ms: 1_700_000_000_000,
            monotonic_ms: 0,
        };
        let mut host = Host {
            shard: GroupShard::new(config(), shard_rng, Arc::new(GroupMetrics::default())),
            log: Vec::new(),
            committed: 0,
            held: VecDeque::new(),
            answers: BTreeMap::new(),
            open: BTreeMap::new(),
            next_token: 0,
            now,
            rng,
            trace,
            fate: Fate::Commit,
            broken: None,
        };
        for effects in host.shard.loaded(now) {
            host.absorb(effects);
        }
        host
    }

    /// The shard.
    pub fn shard(&self) -> &GroupShard {
        &self.shard
    }

    pub(super) fn note(&self, line: impl std::fmt::Display) {
        self.trace.note(line);
    }

    pub(super) fn send(&mut self, what: String, request: GroupRequest) -> ReplyToken {
        let token = ReplyToken(self.next_token);
        self.next_token += 1;
        self.trace.note(format_args!("{what} = {}", token.0));
        self.open.insert(token, what);
        let effects = self.shard.handle(request, token, self.now);
        self.absorb(effects);
        token
    }

    /// Lets time pass, running what falls due on the way.
    pub(super) fn advance_ms(&mut self, ms: u64) {
        let end_ms = self.now.monotonic_ms + ms;
        while let Some(deadline_ms) = self.shard.next_deadline_ms().filter(|at| *at <= end_ms) {
            self.set_ms(deadline_ms.max(self.now.monotonic_ms));
            while let Some(effects) = self.shard.tick(self.now) {
                self.absorb(effects);
            }
        }
        self.set_ms(end_ms);
    }

    fn set_ms(&mut self, monotonic_ms: u64) {
        self.now.wall_ms += (monotonic_ms - self.now.monotonic_ms) as i64;
        self.now.monotonic_ms = monotonic_ms;
    }

    /// Commits what is held, in order.
    pub(super) fn commit_held(&mut self) {
        while let Some(held) = self.held.pop_front() {
            self.committed = self.committed.max(held.end);
            for undo in held.undos {
                self.shard.commit(undo);
            }
            self.end(held.deferred, held.completion, WriteOutcome::Committed);
        }
    }

    pub(super) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    fn absorb(&mut self, effects: GroupEffects) {
        for (token, response) in effects.replies {
            self.answer(token, Ok(response));
        }
        if effects.records.is_empty() && effects.deferred.is_none() && effects.completion.is_none()
        {
            return;
        }
        let mut undos = Vec::new();
        if effects.replay {
            for (index, record) in effects.records.iter().enumerate() {
                let origin = RecordOrigin {
                    offset: (self.log.len() + index) as i64,
                    producer_id: -1,
                };
                undos.push(self.shard.replay(origin, record, self.now));
            }
        }
        if self.fate == Fate::Fail && !effects.records.is_empty() {
            self.trace.note("a write fails");
            for undo in undos.into_iter().rev() {
                self.shard.undo(undo);
            }
            let outcome = WriteOutcome::Failed(ErrorCode::NotEnoughReplicas);
            self.end(effects.deferred, effects.completion, outcome);
            return;
        }
        for record in &effects.records {
            match record.encode() {
                Ok(encoded) => self.log.push(encoded),
                Err(error) => self.broken = Some(Violation::new("offsets", error.to_string())),
            }
        }
        let wait = self.fate == Fate::Hold && !effects.records.is_empty() || self.has_held();
        self.held.push_back(Held {
            undos,
            deferred: effects.deferred,
            completion: effects.completion,
            end: self.log.len(),
        });
        if !wait {
            self.commit_held();
        }
    }

    fn end(
        &mut self,
        deferred: Option<(ReplyToken, GroupResponse)>,
        completion: Option<GroupCompletion>,
        outcome: WriteOutcome,
    ) {
        if let Some((token, response)) = deferred {
            self.answer(token, outcome.error().map_or(Ok(response), Err));
        }
        if let Some(completion) = completion {
            let effects = self.shard.complete(completion, outcome, self.now);
            self.absorb(effects);
        }
    }

    fn answer(&mut self, token: ReplyToken, answer: Answer) {
        // The first answer counts, as in the runtime: a failed write may answer a request that
        // its timer has answered already.
        if self.open.remove(&token).is_some() {
            let answer = match answer {
                Ok(GroupResponse::Refused(error)) => Err(error),
                other => other,
            };
            self.answers.insert(token, answer);
        }
    }

    /// The coordinator moves to another broker: what was not committed may be lost, everything in
    /// memory is, and open requests are refused.
    pub(super) fn fail_over(&mut self, forget: usize) {
        let kept = self.committed + self.rng.index(self.log.len() - self.committed + 1);
        self.log.truncate(kept.saturating_sub(forget));
        self.committed = self.log.len();
        self.trace.note(format_args!(
            "the coordinator moves with {} records",
            self.log.len()
        ));
        self.held.clear();
        for (token, _) in std::mem::take(&mut self.open) {
            self.answers.insert(token, Err(ErrorCode::NotCoordinator));
        }
        let rng = Arc::new(self.rng.fork("member ids"));
        self.shard = GroupShard::new(config(), rng, Arc::new(GroupMetrics::default()));
        for (offset, record) in self.log.iter().enumerate() {
            let origin = RecordOrigin {
                offset: offset as i64,
                producer_id: -1,
            };
            match GroupRecord::decode(Some(record.key.clone()), record.value.clone()) {
                Ok(record) => self.shard.replay_committed(origin, &record, self.now),
                Err(error) => self.broken = Some(Violation::new("offsets", error.to_string())),
            }
        }
        for effects in self.shard.loaded(self.now) {
            self.absorb(effects);
        }
    }
}
