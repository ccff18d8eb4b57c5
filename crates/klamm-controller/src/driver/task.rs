//! The task that decides.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use klamm_env::Env;
use klamm_metadata::{MetadataDelta, MetadataImage};
use klamm_protocol::ErrorCode;
use klamm_protocol::metadata::MetadataRecord;
use klamm_records::Uuid;
use tokio::sync::mpsc;

use super::config::{ControllerConfig, ControllerError};
use crate::managers::{ApiError, Context, Sessions, brokers, controllers, elections, features};
use crate::raft::{Leadership, RaftNode, RecordGroup, WriteError};
use crate::runtime;

/// Requests decided on in one round.
const ROUND_MAX: usize = 1024;
/// Records of one round; more wait for the next, so that no write grows without bound.
const ROUND_RECORDS_MAX: usize = 20_000;
/// Elections in one go, as in Kafka.
const ELECTIONS_MAX: usize = 1_000;

/// How often a controller that does not decide looks whether a snapshot is due.
const IDLE_CHECK: Duration = Duration::from_secs(5);

/// What a request is decided on.
pub(super) struct Decider<'a> {
    pub(super) context: Context<'a>,
    pub(super) sessions: &'a mut Sessions,
    pub(super) now: Duration,
}

/// What a request led to.
pub(super) struct Step {
    pub(super) records: Vec<MetadataRecord>,
    /// Told whether the records were committed.
    pub(super) finish: Finish,
}

type Finish = Box<dyn FnOnce(Result<(), ApiError>) + Send>;
/// Decides, or takes the error that is to be answered instead.
type Decide = Box<dyn FnOnce(Result<&mut Decider<'_>, ApiError>) -> Step + Send>;

/// What the queue holds.
pub(super) enum Operation {
    /// A request to decide on.
    Decide(Decide),
    /// The end.
    Stop,
}

/// Why the task ended.
pub(super) enum End {
    /// It was told to.
    Stopped,
    /// The quorum cannot go on on this node: its disk failed, most likely.
    QuorumStopped,
}

/// Everything the task owns.
pub(super) struct Task {
    config: ControllerConfig,
    env: Env,
    cluster_id: String,
    raft: Arc<RaftNode>,
    requests: mpsc::Receiver<Operation>,
    sessions: Sessions,
    next_balance: Option<Duration>,
    next_unclean_election: Duration,
    last_snapshot: Duration,
    leadership: Leadership,
    /// The term in which this node decides, once it has begun to.
    active_term: Option<u64>,
    /// This run of the process.
    incarnation_id: Uuid,
    /// Whether the quorum knows where this controller listens and what it supports.
    registered: bool,
    /// Rounds that were gone through.
    rounds: u64,
}

/// What one round decided so far.
struct Round {
    delta: MetadataDelta,
    next_offset: i64,
    groups: Vec<RecordGroup>,
    records: usize,
    /// Replies held back, each with the number of groups that have to be committed first.
    finishes: Vec<(usize, Finish)>,
    timestamp_ms: i64,
}

impl Round {
    fn new(image: Arc<MetadataImage>, timestamp_ms: i64) -> Self {
        Round {
            next_offset: image.offset() + 1,
            delta: MetadataDelta::new(image),
            groups: Vec::new(),
            records: 0,
            finishes: Vec::new(),
            timestamp_ms,
        }
    }

    /// Adds records to what will be committed, unless they do not fit the image: then nothing of
    /// them stays.
    fn add(&mut self, records: Vec<MetadataRecord>) -> Result<(), ApiError> {
        if records.is_empty() {
            return Ok(());
        }
        let before = self.delta.clone();
        if let Err(error) = records
            .iter()
            .try_for_each(|record| self.delta.replay(record))
        {
            tracing::error!(%error, "a decision does not fit the metadata it was made on");
            self.delta = before;
            return Err(ApiError::new(
                ErrorCode::UnknownServerError,
                error.to_string(),
            ));
        }
        self.records += records.len();
        self.next_offset += i64::try_from(records.len()).unwrap_or(0);
        self.groups.push(RecordGroup {
            leader: None,
            version: self.delta.image().metadata_version(),
            records: records.into(),
            timestamp_ms: self.timestamp_ms,
        });
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.finishes.len() >= ROUND_MAX || self.records >= ROUND_RECORDS_MAX
    }
}

impl Task {
    pub(super) fn new(
        config: ControllerConfig,
        env: Env,
        cluster_id: String,
        raft: Arc<RaftNode>,
        requests: mpsc::Receiver<Operation>,
        incarnation_id: Uuid,
    ) -> Self {
        let now = env.clock.monotonic();
        Task {
            sessions: Sessions::new(config.session_timeout),
            next_balance: config
                .leader_balance_interval
                .map(|interval| now + interval),
            next_unclean_election: now + config.unclean_election_interval,
            last_snapshot: now,
            leadership: raft.leadership(),
            active_term: None,
            incarnation_id,
            registered: false,
            rounds: 0,
            config,
            env,
            cluster_id,
            raft,
            requests,
        }
    }

    /// What comes first when a controller begins to decide: its name as the leader's where there
    /// are others, the sessions of brokers, and the records without which there is nothing to
    /// decide on.
    ///
    /// In a larger quorum the first write also brings the image up to all that was committed
    /// before this node led.
    pub(super) async fn activate(&mut self) -> Result<(), ControllerError> {
        let Some(term) = self.leadership.term() else {
            return Err(ControllerError::Bootstrap);
        };
        if !self.raft.is_alone() {
            let now_ms = self.env.clock.wall_ms();
            let mut known = RecordGroup::of_leader(self.config.node_id, now_ms);
            if self.raft.is_only_voter() {
                // Then it is clear who leads.
                known.leader = None;
            }
            self.write_first(vec![known]).await?;
        }
        let image = self.raft.image();
        self.sessions.activate(&image, self.env.clock.monotonic());
        let mut round = Round::new(image, self.env.clock.wall_ms());
        let levels = self.config.features.clone();
        let records = self.with_decider(&round.delta, round.next_offset, |decider| {
            features::activation(&decider.context, &levels)
        });
        round.add(records).map_err(|_| ControllerError::Bootstrap)?;
        if !round.groups.is_empty() {
            self.write_first(round.groups).await?;
        }
        self.active_term = Some(term);
        self.registered = false;
        Ok(())
    }

    async fn write_first(&self, groups: Vec<RecordGroup>) -> Result<(), ControllerError> {
        let results = self.raft.write(groups).await;
        if results.iter().all(Result::is_ok) {
            Ok(())
        } else {
            Err(ControllerError::Bootstrap)
        }
    }

    /// How many rounds it has gone through.
    pub(super) fn rounds(&self) -> u64 {
        self.rounds
    }

    /// The quorum that it decides for.
    pub(super) fn raft(&self) -> &RaftNode {
        &self.raft
    }

    /// Forgets all that is not in the log: what this node decides on next begins with
    /// [`Task::activate`].
    pub(super) fn step_down(&mut self) {
        self.active_term = None;
    }

    /// Begins or ceases to decide, as the quorum has it.
    async fn follow_leadership(&mut self) {
        let term = self.leadership.term();
        if term == self.active_term {
            return;
        }
        self.active_term = None;
        if let Some(term) = term {
            match self.activate().await {
                Ok(()) => tracing::info!(term, "this controller decides from now on"),
                // Another leads already, or will: that is told as well.
                Err(error) => tracing::info!(term, %error, "elected, and not for long"),
            }
        } else {
            tracing::info!("this controller no longer decides");
        }
    }

    /// Decides until it is told to stop, or the quorum has stopped on this node.
    pub(super) async fn run(&mut self) -> End {
        self.follow_leadership().await;
        loop {
            let sleep = runtime::sleep(self.until_next_deadline());
            let operation = tokio::select! {
                biased;
                alive = self.leadership.changed() => {
                    if !alive {
                        return End::QuorumStopped;
                    }
                    self.follow_leadership().await;
                    continue;
                }
                operation = self.requests.recv() => match operation {
                    Some(Operation::Decide(decide)) => Some(decide),
                    Some(Operation::Stop) | None => return End::Stopped,
                },
                () = sleep => None,
            };
            if self.active_term.is_none() || self.leadership.term() != self.active_term {
                self.follow_leadership().await;
            }
            if self.active_term.is_none() {
                if let Some(decide) = operation {
                    Task::refuse(decide);
                }
                self.snapshot_if_due().await;
                continue;
            }
            let mut round = Round::new(self.raft.image(), self.env.clock.wall_ms());
            self.register(&mut round);
            self.run_timers(&mut round);
            let mut stop = false;
            let mut next = operation;
            while let Some(decide) = next.take() {
                self.decide(&mut round, decide);
                if !round.is_full() {
                    match self.requests.try_recv() {
                        Ok(Operation::Decide(decide)) => next = Some(decide),
                        Ok(Operation::Stop) => stop = true,
                        Err(_) => {}
                    }
                }
            }
            self.commit(round).await;
            self.rounds += 1;
            if !self.raft.is_alone() {
                // Notes which of the others are caught up, which is asked for later.
                self.raft.status();
                self.raft.forget_silent_learners().await;
            }
            self.snapshot_if_due().await;
            if stop {
                return End::Stopped;
            }
        }
    }

    /// Tells where this controller listens and what it supports. Nobody waits for that, so it goes
    /// along with the first round.
    fn register(&mut self, round: &mut Round) {
        if std::mem::replace(&mut self.registered, true) {
            return;
        }
        let request = self.config.registration(self.incarnation_id);
        let outcome = self.with_decider(&round.delta, round.next_offset, |decider| {
            controllers::register_controller(&decider.context, &request)
        });
        // An error was logged.
        let _ = round.add(outcome.map(|outcome| outcome.records).unwrap_or_default());
    }

    /// Answers that another controller has to be asked.
    fn refuse(decide: Decide) {
        let step = decide(Err(ErrorCode::NotController.into()));
        (step.finish)(Ok(()));
    }

    /// A panic goes on, once those who asked before in this round know that nothing came of it. Who
    /// asked for what panicked is told by not being answered.
    fn decide(&mut self, round: &mut Round, decide: Decide) {
        let (delta, next_offset) = (&round.delta, round.next_offset);
        let decided = catch_unwind(AssertUnwindSafe(|| {
            self.with_decider(delta, next_offset, |decider| decide(Ok(decider)))
        }));
        let Step { records, finish } = match decided {
            Ok(step) => step,
            Err(panic) => {
                for (_, finish) in round.finishes.drain(..) {
                    finish(Err(ErrorCode::NotController.into()));
                }
                resume_unwind(panic);
            }
        };
        match round.add(records) {
            Ok(()) => round.finishes.push((round.groups.len(), finish)),
            Err(error) => finish(Err(error)),
        }
    }

    fn with_decider<T>(
        &mut self,
        delta: &MetadataDelta,
        next_offset: i64,
        decide: impl FnOnce(&mut Decider<'_>) -> T,
    ) -> T {
        let context = Context {
            image: delta.image(),
            node_id: self.config.node_id,
            cluster_id: &self.cluster_id,
            settings: &self.config.settings,
            schema: &*self.config.schema,
            rng: &*self.env.rng,
            next_offset,
        };
        let now = self.env.clock.monotonic();
        decide(&mut Decider {
            context,
            sessions: &mut self.sessions,
            now,
        })
    }

    /// Commits what a round decided, then lets its replies go.
    async fn commit(&self, round: Round) {
        let Round {
            groups, finishes, ..
        } = round;
        let results = if groups.is_empty() {
            Vec::new()
        } else {
            self.raft.write(groups).await
        };
        let committed = results.iter().take_while(|result| result.is_ok()).count();
        let error = results
            .get(committed)
            .and_then(|result| result.as_ref().err())
            .map(api_error);
        for (needed, finish) in finishes {
            let failed = error.clone().filter(|_| needed > committed);
            finish(failed.map_or(Ok(()), Err));
        }
    }

    /// Does what is due: silent brokers are fenced, leadership goes back to preferred replicas,
    /// partitions without leader get one if they may.
    fn run_timers(&mut self, round: &mut Round) {
        while let Some((broker, records)) =
            self.with_decider(&round.delta, round.next_offset, |decider| {
                brokers::fence_expired(&decider.context, decider.sessions, decider.now)
            })
        {
            tracing::info!(broker, "fencing a broker whose session has timed out");
            if round.add(records).is_err() {
                return;
            }
        }
        let now = self.env.clock.monotonic();
        if let Some(interval) = self.config.leader_balance_interval
            && self.next_balance.is_some_and(|due| due <= now)
        {
            self.next_balance = Some(now + interval);
            self.elect(round, elections::balance_leaders);
        }
        if self.next_unclean_election <= now {
            self.next_unclean_election = now + self.config.unclean_election_interval;
            self.elect(round, elections::elect_leaderless);
        }
    }

    fn elect(&mut self, round: &mut Round, elect: fn(&Context<'_>, usize) -> Vec<MetadataRecord>) {
        let records = self.with_decider(&round.delta, round.next_offset, |decider| {
            elect(&decider.context, ELECTIONS_MAX)
        });
        if !records.is_empty() {
            tracing::info!(partitions = records.len(), "changing leaders");
        }
        // An error was logged; the elections come up again in time.
        let _ = round.add(records);
    }

    fn until_next_deadline(&self) -> Duration {
        if self.active_term.is_none() {
            return IDLE_CHECK;
        }
        if !self.registered {
            return Duration::ZERO;
        }
        let deadlines = [self.sessions.next_deadline(), self.next_balance];
        let next = deadlines
            .into_iter()
            .flatten()
            .fold(self.next_unclean_election, Duration::min);
        // A millisecond more, as a session is over only once its time has passed.
        next.saturating_sub(self.env.clock.monotonic()) + Duration::from_millis(1)
    }

    async fn snapshot_if_due(&mut self) {
        let now = self.env.clock.monotonic();
        let bytes = self.raft.log_bytes();
        let too_long = bytes >= self.config.snapshot_log_bytes;
        let too_old = self.config.snapshot_interval.is_some_and(|interval| {
            bytes > 0 && now.saturating_sub(self.last_snapshot) >= interval
        });
        if (too_long || too_old) && self.raft.take_snapshot().await.is_ok() {
            self.last_snapshot = now;
            self.raft.forget_log_bytes();
        }
    }
}

fn api_error(error: &WriteError) -> ApiError {
    match error {
        WriteError::NotLeader => ErrorCode::NotController.into(),
        WriteError::Stopped => ApiError::new(ErrorCode::NotController, error.to_string()),
    }
}
