//! The loop that follows one leader.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
};
use klamm_records::{TopicPartition, Uuid};
use tokio::sync::mpsc;

use super::error_of;
use super::plan::{Answered, FetchLimits, FetchPlan, Round};
use crate::manager::{EARLIEST_TIMESTAMP, FollowError, Followed, LATEST_TIMESTAMP, ReplicaManager};
use crate::time::within;

/// Why a leader could not be asked. The channel connects anew by itself with the next request.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// There is no connection, or it broke.
    #[error("the leader cannot be reached: {0}")]
    Io(#[from] std::io::Error),
    /// The leader did not answer in time, or what it said cannot be understood.
    #[error("the leader's answer is of no use: {0}")]
    Answer(String),
}

/// How long a fetch is let go on that the leader may be holding while there are new commands: as
/// long as more of them may come at once.
const COMMANDS_LINGER: Duration = Duration::from_millis(10);
/// How long to wait at most before looking again at what is on disk.
const SYNC_WAIT_MAX: Duration = Duration::from_millis(100);
/// How long to wait for this broker to be registered.
const REGISTRATION_POLL_MS: i64 = 20;

/// The way to one leader. One request is under way at a time; one whose future is dropped is given
/// up, and its answer never seen.
pub trait LeaderChannel: Send {
    /// Asks for records.
    fn fetch(
        &mut self,
        request: FetchRequest,
    ) -> impl Future<Output = Result<FetchResponse, ChannelError>> + Send;

    /// Asks for offsets.
    fn list_offsets(
        &mut self,
        request: ListOffsetsRequest,
    ) -> impl Future<Output = Result<ListOffsetsResponse, ChannelError>> + Send;
}

/// What a fetcher is told while it runs.
#[derive(Clone, Debug)]
pub enum FetcherCommand {
    /// Follow this partition at the leader, from now on or anew in a later epoch.
    Follow(TopicPartition, Uuid),
    /// Follow it no longer.
    Unfollow(Uuid, i32),
}

/// What a round came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundEnd {
    /// Go on at once.
    GoOn,
    /// Nothing is to be asked for before the log of a follower was synced.
    AwaitSync,
    /// Nothing can be asked for before this many ms are over.
    Pause(i64),
    /// Nothing is followed.
    Idle,
}

/// Follows one leader on behalf of a broker's replicas.
#[derive(Debug)]
pub struct Fetcher<C> {
    replicas: ReplicaManager,
    leader: i32,
    broker_epoch: Arc<AtomicI64>,
    channel: C,
    plan: FetchPlan,
}

/// Commands that wait for the end of a round.
#[derive(Debug)]
struct Inbox {
    commands: mpsc::UnboundedReceiver<FetcherCommand>,
    waiting: Vec<FetcherCommand>,
    /// Nobody can give commands any more.
    closed: bool,
}

impl Inbox {
    /// Takes what is there already.
    fn drain(&mut self) {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.waiting.push(command),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    /// Waits for a command, or that there can be none.
    async fn wait(&mut self) {
        match self.commands.recv().await {
            Some(command) => self.waiting.push(command),
            None => self.closed = true,
        }
    }
}

impl<C: LeaderChannel> Fetcher<C> {
    /// A fetcher of broker `leader`'s partitions. `broker_epoch` is that of this broker, -1 until
    /// it is registered: nothing is fetched before.
    pub fn new(
        replicas: ReplicaManager,
        leader: i32,
        broker_epoch: Arc<AtomicI64>,
        channel: C,
        limits: FetchLimits,
    ) -> Self {
        let plan = FetchPlan::new(replicas.node_id(), limits);
        Fetcher {
            replicas,
            leader,
            broker_epoch,
            channel,
            plan,
        }
    }

    /// Takes on or gives up a partition.
    pub fn command(&mut self, command: FetcherCommand) {
        match command {
            FetcherCommand::Follow(partition, topic_id) => self.plan.follow(partition, topic_id),
            FetcherCommand::Unfollow(topic_id, partition) => {
                self.plan.unfollow(topic_id, partition);
            }
        }
    }

    /// Runs until nobody can give commands any more.
    pub async fn run(mut self, commands: mpsc::UnboundedReceiver<FetcherCommand>) {
        let mut inbox = Inbox {
            commands,
            waiting: Vec::new(),
            closed: false,
        };
        loop {
            inbox.drain();
            for command in inbox.waiting.drain(..) {
                self.command(command);
            }
            if inbox.closed {
                return;
            }
            match self.round_unless(&mut inbox).await {
                RoundEnd::GoOn | RoundEnd::AwaitSync => {}
                RoundEnd::Idle => inbox.wait().await,
                RoundEnd::Pause(ms) => {
                    let pause = Duration::from_millis(ms.max(1).unsigned_abs());
                    within(pause, inbox.wait()).await;
                }
            }
        }
    }

    /// A round that is given up when commands come while the leader holds the fetch: it would not
    /// answer for those partitions.
    async fn round_unless(&mut self, inbox: &mut Inbox) -> RoundEnd {
        let replicas = self.replicas.clone();
        // From before the look at what is on disk.
        let mut synced = pin!(replicas.follower_synced());
        synced.as_mut().enable();
        let request = match self.next() {
            Ok(request) => request,
            Err(RoundEnd::AwaitSync) => {
                within(SYNC_WAIT_MAX, synced).await;
                return RoundEnd::AwaitSync;
            }
            Err(end) => return end,
        };
        let response = {
            let mut fetch = pin!(self.channel.fetch(request));
            tokio::select! {
                biased;
                response = &mut fetch => Some(response),
                () = inbox.wait() => within(COMMANDS_LINGER, fetch).await,
            }
        };
        match response {
            Some(response) => self.end(response).await,
            None => {
                self.plan.lost();
                RoundEnd::GoOn
            }
        }
    }

    /// Asks once, and does what the answer says.
    pub async fn round(&mut self) -> RoundEnd {
        match self.next() {
            Ok(request) => {
                let response = self.channel.fetch(request).await;
                self.end(response).await
            }
            Err(end) => end,
        }
    }

    /// What to ask for, or why nothing.
    fn next(&mut self) -> Result<FetchRequest, RoundEnd> {
        let broker_epoch = self.broker_epoch.load(Ordering::Acquire);
        if broker_epoch < 0 && !self.plan.is_empty() {
            return Err(RoundEnd::Pause(REGISTRATION_POLL_MS));
        }
        let now_ms = self.replicas.now_ms();
        let (replicas, leader) = (&self.replicas, self.leader);
        let wish_of = |partition: &TopicPartition| replicas.follower_wish(partition, leader);
        match self.plan.next(now_ms, broker_epoch, &wish_of) {
            Round::Fetch(request) => Ok(request),
            Round::AwaitSync => Err(RoundEnd::AwaitSync),
            Round::PauseUntil(resume_ms) => Err(RoundEnd::Pause(resume_ms - now_ms)),
            Round::Idle => Err(RoundEnd::Idle),
        }
    }

    async fn end(&mut self, response: Result<FetchResponse, ChannelError>) -> RoundEnd {
        let leader = self.leader;
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(leader, %error, "a fetch was lost");
                self.plan.lost();
                return RoundEnd::Pause(self.plan.backoff_ms());
            }
        };
        match self.plan.answered(response) {
            Ok(answers) => {
                for answer in answers {
                    self.follow(&answer).await;
                }
                RoundEnd::GoOn
            }
            Err(ErrorCode::FetchSessionIdNotFound | ErrorCode::InvalidFetchSessionEpoch) => {
                RoundEnd::GoOn
            }
            Err(error) => {
                tracing::debug!(leader, ?error, "a fetch was refused");
                RoundEnd::Pause(self.plan.backoff_ms())
            }
        }
    }

    async fn follow(&mut self, answer: &Answered) {
        let Answered {
            partition,
            fetch_epoch,
            data,
        } = answer;
        let followed = match self.replicas.follow(partition, *fetch_epoch, data) {
            Ok(Followed::OutOfRange) => self.find_range(partition, *fetch_epoch).await,
            Ok(Followed::Appended(_) | Followed::Truncated) => Ok(()),
            Err(error) => Err(error),
        };
        match followed {
            // The command that belongs to the new epoch is on its way, or the next wish has it.
            Ok(()) | Err(FollowError::Moved) => {}
            Err(error) => {
                tracing::debug!(%partition, leader = self.leader, %error, "pausing");
                self.plan.pause(partition, self.replicas.now_ms());
            }
        }
    }

    /// Asks where the leader's log starts and ends, and goes there.
    async fn find_range(
        &mut self,
        partition: &TopicPartition,
        fetch_epoch: i32,
    ) -> Result<(), FollowError> {
        let end = self
            .ask_offset(partition, fetch_epoch, LATEST_TIMESTAMP)
            .await?;
        let start = self
            .ask_offset(partition, fetch_epoch, EARLIEST_TIMESTAMP)
            .await?;
        self.replicas
            .follow_out_of_range(partition, fetch_epoch, start, end)
    }

    async fn ask_offset(
        &mut self,
        partition: &TopicPartition,
        epoch: i32,
        timestamp: i64,
    ) -> Result<i64, FollowError> {
        let request = ListOffsetsRequest {
            replica_id: self.replicas.node_id(),
            topics: vec![ListOffsetsTopic {
                name: (&*partition.topic).into(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: partition.partition,
                    current_leader_epoch: epoch,
                    timestamp,
                    ..ListOffsetsPartition::default()
                }],
                ..ListOffsetsTopic::default()
            }],
            ..ListOffsetsRequest::default()
        };
        let response = self.channel.list_offsets(request).await;
        let response = response.map_err(|error| {
            tracing::debug!(%partition, %error, "offsets cannot be asked for");
            FollowError::Leader(ErrorCode::NetworkException)
        })?;
        let answer = response
            .topics
            .first()
            .and_then(|topic| topic.partitions.first())
            .ok_or(FollowError::Leader(ErrorCode::UnknownServerError))?;
        match error_of(answer.error_code) {
            ErrorCode::None => Ok(answer.offset),
            error => Err(FollowError::Leader(error)),
        }
    }
}
