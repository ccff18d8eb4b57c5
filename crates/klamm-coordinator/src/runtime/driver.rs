//! The task that drives one shard.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use klamm_protocol::ErrorCode;
use tokio::sync::{mpsc, oneshot, watch};

use super::loader::Loaded;
use super::runner::Shared;
use super::shard::{Effects, Now, ReplyToken, Shard, WriteOutcome};
use super::tasks::Tasks;
use super::writing::Batch;

/// How many requests go into one round at most: a limit on how long the first of them waits.
const REQUESTS_PER_ROUND: usize = 1_024;

/// The marker that ends a producer's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionEnd {
    /// Id of the producer.
    pub producer_id: i64,
    /// The epoch that the marker carries.
    pub producer_epoch: i16,
    /// Whether the transaction's records count.
    pub committed: bool,
    /// Epoch of the transaction coordinator that decided.
    pub coordinator_epoch: i32,
    /// The `transaction.version` that the transaction ran under.
    pub transaction_version: i16,
}

/// An input on its way to a driver.
pub(super) enum Submission<S: Shard> {
    /// Something for the shard to handle.
    Request {
        request: S::Request,
        answer: oneshot::Sender<Result<S::Response, ErrorCode>>,
    },
    /// A marker to write.
    EndTransaction {
        end: TransactionEnd,
        answer: EndAnswer,
    },
}

pub(super) type EndAnswer = oneshot::Sender<Result<(), ErrorCode>>;

/// What is due when the fate of some records is known.
pub(super) struct End<S: Shard> {
    pub(super) deferred: Option<(ReplyToken, S::Response)>,
    pub(super) completion: Option<S::Completion>,
    /// Who waits for a marker.
    pub(super) marker: Option<EndAnswer>,
    pub(super) deadline_ms: u64,
}

/// A batch in the log that waits for the high watermark.
pub(super) struct Parked<S: Shard> {
    /// The batch is committed when the high watermark is here.
    pub(super) commit_at: i64,
    pub(super) undos: Vec<S::Undo>,
    pub(super) ends: VecDeque<End<S>>,
}

/// Drives one shard. See the module's picture.
pub(super) struct Driver<S: Shard> {
    pub(super) shard: S,
    pub(super) partition: i32,
    pub(super) epoch: Arc<AtomicI32>,
    pub(super) shared: Arc<Shared<S>>,
    pub(super) next_offset: i64,
    pub(super) next_token: u64,
    pub(super) waiting: HashMap<ReplyToken, oneshot::Sender<Result<S::Response, ErrorCode>>>,
    pub(super) inbox: VecDeque<Submission<S>>,
    pub(super) batch: Batch<S>,
    pub(super) parked: VecDeque<Parked<S>>,
    /// Ends whose fate is known, to be run one at a time.
    pub(super) settled: VecDeque<(End<S>, WriteOutcome)>,
    /// What was asked for outside of the usual order.
    pub(super) follow_ups: VecDeque<Effects<S>>,
}

impl<S: Shard> Driver<S> {
    pub(super) fn new(
        mut shard: S,
        partition: i32,
        epoch: Arc<AtomicI32>,
        shared: Arc<Shared<S>>,
        loaded: Loaded<S::Undo>,
    ) -> Self {
        let follow_ups = shard.loaded(shared.now()).into();
        let mut parked = VecDeque::new();
        if !loaded.uncommitted.is_empty() {
            parked.push_back(Parked {
                commit_at: loaded.next_offset,
                undos: loaded.uncommitted,
                ends: VecDeque::new(),
            });
        }
        Driver {
            shard,
            partition,
            epoch,
            shared,
            next_offset: loaded.next_offset,
            next_token: 0,
            waiting: HashMap::new(),
            inbox: VecDeque::new(),
            batch: Batch::default(),
            parked,
            settled: VecDeque::new(),
            follow_ups,
        }
    }

    /// Runs until `stop` resolves or nobody can submit any more. Whoever still waits is then told
    /// that this is not the coordinator.
    pub(super) async fn run(
        mut self,
        tasks: &dyn Tasks,
        submissions: &mut mpsc::Receiver<Submission<S>>,
        stop: &mut oneshot::Receiver<()>,
        mut high_watermark: watch::Receiver<i64>,
    ) {
        let mut high_watermark_lives = true;
        loop {
            self.release(*high_watermark.borrow_and_update());
            self.time_out();
            self.settle().await;
            let wake = self.next_deadline_ms().map(|deadline_ms| {
                let now_ms = self.shared.now().monotonic_ms;
                tasks.sleep(Duration::from_millis(deadline_ms.saturating_sub(now_ms)))
            });
            let nap = async {
                match wake {
                    Some(wake) => wake.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = &mut *stop => break,
                changed = high_watermark.changed(), if high_watermark_lives => {
                    high_watermark_lives = changed.is_ok();
                }
                submission = submissions.recv() => match submission {
                    Some(submission) => {
                        self.inbox.push_back(submission);
                        while self.inbox.len() < REQUESTS_PER_ROUND
                            && let Ok(submission) = submissions.try_recv()
                        {
                            self.inbox.push_back(submission);
                        }
                    }
                    None => break,
                },
                () = nap => {}
            }
        }
        self.refuse_everyone();
    }

    fn refuse_everyone(&mut self) {
        for (_, answer) in self.waiting.drain() {
            let _ = answer.send(Err(ErrorCode::NotCoordinator));
        }
        let parked = self.parked.drain(..).flat_map(|parked| parked.ends);
        let ends = parked.chain(self.batch.ends.drain(..));
        let ends = ends.chain(self.settled.drain(..).map(|(end, _)| end));
        for marker in ends.filter_map(|end| end.marker) {
            let _ = marker.send(Err(ErrorCode::NotCoordinator));
        }
        for submission in self.inbox.drain(..) {
            match submission {
                Submission::Request { answer, .. } => {
                    let _ = answer.send(Err(ErrorCode::NotCoordinator));
                }
                Submission::EndTransaction { answer, .. } => {
                    let _ = answer.send(Err(ErrorCode::NotCoordinator));
                }
            }
        }
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        let end = self
            .parked
            .iter()
            .find_map(|parked| parked.ends.front())
            .map(|end| end.deadline_ms);
        match (self.shard.next_deadline_ms(), end) {
            (Some(timer), Some(end)) => Some(timer.min(end)),
            (timer, end) => timer.or(end),
        }
    }

    /// Confirms what the high watermark passed.
    fn release(&mut self, high_watermark: i64) {
        while self
            .parked
            .front()
            .is_some_and(|parked| parked.commit_at <= high_watermark)
        {
            let Some(parked) = self.parked.pop_front() else {
                return;
            };
            for undo in parked.undos {
                self.shard.commit(undo);
            }
            let ends = parked.ends.into_iter();
            self.settled
                .extend(ends.map(|end| (end, WriteOutcome::Committed)));
        }
    }

    /// Gives up on ends that waited too long. Their records stay: they may yet be committed.
    fn time_out(&mut self) {
        let now_ms = self.shared.now().monotonic_ms;
        for parked in &mut self.parked {
            while parked
                .ends
                .front()
                .is_some_and(|end| end.deadline_ms <= now_ms)
            {
                if let Some(end) = parked.ends.pop_front() {
                    self.shared.metrics.writes_timed_out.increment();
                    self.settled.push_back((end, WriteOutcome::TimedOut));
                }
            }
        }
    }

    /// Runs everything there is to run, one thing after the other, and appends what comes of it.
    async fn settle(&mut self) {
        loop {
            let now = self.shared.now();
            if let Some(effects) = self.follow_ups.pop_front() {
                self.absorb(effects).await;
            } else if let Some((end, outcome)) = self.settled.pop_front() {
                let effects = self.finish(end, outcome, now);
                self.absorb(effects).await;
            } else if let Some(effects) = self.shard.tick(now) {
                self.absorb(effects).await;
            } else if let Some(submission) = self.inbox.pop_front() {
                match submission {
                    Submission::Request { request, answer } => {
                        let token = ReplyToken(self.next_token);
                        self.next_token += 1;
                        self.waiting.insert(token, answer);
                        let effects = self.handle(request, token, now);
                        self.absorb(effects).await;
                    }
                    Submission::EndTransaction { end, answer } => {
                        self.end_transaction(end, answer).await;
                    }
                }
            } else if self.batch.records.is_empty() {
                return;
            } else {
                // A failure settles the ends of the batch, which the next round runs.
                let _ = self.flush().await;
            }
        }
    }

    /// A panic goes on, once who asked for what caused it is told not to ask again. All others are
    /// told by not being answered.
    fn handle(&mut self, request: S::Request, token: ReplyToken, now: Now) -> Effects<S> {
        let shard = &mut self.shard;
        let handled = catch_unwind(AssertUnwindSafe(|| shard.handle(request, token, now)));
        handled.unwrap_or_else(|panic| {
            self.answer(token, Err(ErrorCode::UnknownServerError));
            resume_unwind(panic)
        })
    }

    fn finish(&mut self, end: End<S>, outcome: WriteOutcome, now: Now) -> Effects<S> {
        if let Some((token, response)) = end.deferred {
            let answer = match outcome.error() {
                None => Ok(response),
                Some(error) => Err(error),
            };
            self.answer(token, answer);
        }
        if let Some(marker) = end.marker {
            let _ = marker.send(outcome.error().map_or(Ok(()), Err));
        }
        match end.completion {
            Some(completion) => self.shard.complete(completion, outcome, now),
            None => Effects::default(),
        }
    }

    fn answer(&mut self, token: ReplyToken, answer: Result<S::Response, ErrorCode>) {
        if let Some(waiting) = self.waiting.remove(&token) {
            // A client that is gone needs no answer.
            let _ = waiting.send(answer);
        }
    }

    /// Does what the shard asks for.
    async fn absorb(&mut self, effects: Effects<S>) {
        for (token, response) in effects.replies {
            self.answer(token, Ok(response));
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        for action in effects.actions {
            self.shared.perform(self.partition, epoch, action);
        }
        let end = End {
            deferred: effects.deferred,
            completion: effects.completion,
            marker: None,
            deadline_ms: self.write_deadline_ms(),
        };
        if effects.records.is_empty() {
            self.await_what_is_written(end);
            return;
        }
        let transaction = effects.transaction;
        if transaction.is_some() && !self.batch.records.is_empty() {
            // A failure settles the ends of the batch; this one's records do not depend on it.
            let _ = self.flush().await;
        }
        self.batch.transaction = transaction;
        let written = self
            .write(effects.records, effects.replay, effects.atomic)
            .await;
        match written {
            Ok(()) => {
                self.batch.ends.push_back(end);
                if transaction.is_some() {
                    let _ = self.flush().await;
                }
            }
            Err(error) => {
                self.batch.transaction = None;
                self.settled.push_back((end, WriteOutcome::Failed(error)));
            }
        }
    }

    pub(super) fn write_deadline_ms(&self) -> u64 {
        let timeout_ms = self.shared.options.write_timeout_ms;
        self.shared.now().monotonic_ms.saturating_add(timeout_ms)
    }

    /// An end without records of its own waits for those before it.
    fn await_what_is_written(&mut self, end: End<S>) {
        if end.deferred.is_none() && end.completion.is_none() {
            return;
        }
        if !self.batch.records.is_empty() {
            self.batch.ends.push_back(end);
        } else if let Some(last) = self.parked.back_mut() {
            last.ends.push_back(end);
        } else {
            self.settled.push_back((end, WriteOutcome::Committed));
        }
    }
}
