//! The controller as a running thing: one task that decides, and a handle to ask it.
//!
//! ```text
//! requests --> queue --> task: managers decide on image + what this round decided so far
//!                          |    (records, replies held back)
//!                          v
//!                        quorum: committed, applied, projected, told to listeners
//!                          |
//! replies  <---------------+
//! ```
//!
//! The task takes all requests that wait, decides on them one after the other, commits the records
//! of all in one go, and then lets the replies go: under load, many requests share one write to
//! disk. What a round decided is kept in a delta on top of the committed image, so a request sees
//! what those before it in the round did, and a round that cannot be committed leaves nothing
//! behind.

mod config;
mod faults;
mod quorum;
mod requests;
mod serving;
mod task;
mod voters;

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_env::Env;
use klamm_metadata::MetadataImage;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::ControllerRegistrationRequest;
use klamm_records::Uuid;
use tokio::sync::{mpsc, oneshot};

pub use self::config::{ControllerConfig, ControllerError, ControllerListener, DynamicQuorum};
use self::faults::Faults;
pub use self::requests::Describable;
use self::serving::Observer;
use self::task::{Decider, Operation, Step, Task};
use crate::managers::{ApiError, Outcome, features};
use crate::raft::{self, MetadataPublisher, NoTransport, RaftNode, RaftOptions, VoterEndpoint};
use crate::runtime::{self, JoinHandle};

/// Requests that may wait before those who ask have to.
const QUEUE_LEN: usize = 4096;

/// A handle to a running controller; clones refer to the same one.
#[derive(Clone)]
pub struct Controller(Arc<Inner>);

struct Inner {
    node_id: i32,
    cluster_id: String,
    registration: ControllerRegistrationRequest,
    env: Env,
    raft: Arc<RaftNode>,
    /// The brokers that follow the log from here.
    observers: Mutex<BTreeMap<i32, Observer>>,
    queue: mpsc::Sender<Operation>,
    task: Mutex<Option<JoinHandle<()>>>,
    faults: Faults,
    /// Where voters change: ends, with this, what sees to it that this controller gets the log.
    joining: Option<Mutex<Option<oneshot::Sender<()>>>>,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("node_id", &self.0.node_id)
            .field("cluster_id", &self.0.cluster_id)
            .finish_non_exhaustive()
    }
}

impl Controller {
    /// Starts a controller. An empty metadata directory becomes that of a new cluster; one that
    /// Kafka wrote is taken over. When this returns, a controller that is a quorum by itself leads
    /// it, the image holds all that was committed, and a new cluster has its first records. With
    /// other voters that takes as long as they take to come and to elect one; until then, and on
    /// those that do not lead, requests are answered with `NOT_CONTROLLER`.
    ///
    /// # Errors
    /// If there are other voters and no transport, if the directory belongs to another cluster, or if its files cannot be read or written.
    pub async fn start(
        mut config: ControllerConfig,
        env: Env,
    ) -> Result<Controller, ControllerError> {
        env.fs.create_dir_all(&config.metadata_dir)?;
        if let Some(formatted) = raft::formatted_levels(&env, &config.metadata_dir)? {
            begin_with(&mut config, &formatted);
        }
        config.check()?;
        let new_id = || random_uuid(&env).to_string();
        let given = config.cluster_id.as_deref();
        let cluster_id =
            raft::cluster_id(&env, &config.metadata_dir, given, new_id)?.map_err(|found| {
                ControllerError::ClusterId {
                    expected: given.unwrap_or_default().to_owned(),
                    found,
                }
            })?;
        let options = RaftOptions {
            node_id: config.node_id,
            metadata_dir: config.metadata_dir.clone(),
            cluster_id: cluster_id.clone(),
            directory_id: config.directory_id,
            voters: config.voters(),
            transport: config
                .transport
                .clone()
                .unwrap_or_else(|| Arc::new(NoTransport)),
            election_timeout: config.election_timeout,
            election_backoff_max: config
                .election_backoff_max
                .unwrap_or(config.election_timeout),
            request_timeout: config.request_timeout,
            entries_kept: config.entries_kept,
            snapshot_piece_bytes: config.snapshot_piece_bytes,
            log: config.metadata_log,
        };
        let raft = RaftNode::open(options, &env)
            .await
            .map_err(ControllerError::Quorum)?;
        let raft = Arc::new(raft);
        let (queue, requests) = mpsc::channel(QUEUE_LEN);
        let incarnation_id = random_uuid(&env);
        let node_id = config.node_id;
        let registration = config.registration(incarnation_id);
        let joining = config.joining().map(|joining| {
            let (stop, stopped) = oneshot::channel::<()>();
            let raft = Arc::clone(&raft);
            runtime::spawn(async move {
                tokio::select! {
                    biased;
                    () = raft.keep_joined(joining) => {}
                    _ = stopped => {}
                }
            });
            Mutex::new(Some(stop))
        });
        let mut task = Task::new(
            config,
            env.clone(),
            cluster_id.clone(),
            Arc::clone(&raft),
            requests,
            incarnation_id,
        );
        if raft.is_alone() {
            task.activate().await?;
        }
        let faults = Faults::default();
        let handle = runtime::spawn(faults.clone().watch(task));
        Ok(Controller(Arc::new(Inner {
            node_id,
            cluster_id,
            registration,
            env,
            raft,
            observers: Mutex::default(),
            queue,
            task: Mutex::new(Some(handle)),
            faults,
            joining,
        })))
    }

    /// Answers what another controller of the quorum sent through its [`QuorumTransport`].
    ///
    /// [`QuorumTransport`]: crate::QuorumTransport
    pub async fn serve_quorum(&self, request: &[u8]) -> Vec<u8> {
        self.0.raft.serve(request).await
    }

    /// This node's id.
    pub fn node_id(&self) -> i32 {
        self.0.node_id
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> &str {
        &self.0.cluster_id
    }

    /// The metadata as of the last committed record. Costs an atomic load.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.0.raft.image()
    }

    /// Tells `publisher` all that the image holds now, and from then on each change in order. A
    /// change is told before the request that caused it is answered.
    pub async fn subscribe(&self, publisher: Arc<dyn MetadataPublisher>) {
        self.0.raft.published().subscribe(publisher).await;
    }

    /// Offset of the last record that all publishers were told of; -1 if there is none. It follows that
    /// of the image, which is there before they are told.
    pub fn published_offset(&self) -> i64 {
        self.0.raft.published().told_offset()
    }

    /// Whether this controller leads the quorum and therefore decides.
    pub fn is_active(&self) -> bool {
        self.leader() == Some(self.0.node_id)
    }

    /// Node id of the controller that decides, if it is known.
    pub fn leader(&self) -> Option<i32> {
        self.0.raft.leader()
    }

    /// The controller that decides and where it listens, if it is known.
    pub fn leader_endpoints(&self) -> Option<(i32, Vec<VoterEndpoint>)> {
        let mut status = self.0.raft.status();
        let leader = status.leader?;
        let voter = status.voters.remove(&leader);
        let endpoints = voter.map(|voter| voter.endpoints);
        Some((leader, endpoints.unwrap_or_default()))
    }

    /// How often deciding has panicked. After each time this controller has given up the lead and
    /// gone on from what is committed.
    pub fn panics(&self) -> u64 {
        self.0.faults.panics()
    }

    /// Waits until this controller cannot go on, and tells why: its disk failed, or it panicked again
    /// and again. It decides and votes no more then; the process should end.
    pub async fn failed(&self) -> String {
        self.0.faults.fatal().await
    }

    /// What the controller that decides is to know of this one.
    pub fn registration(&self) -> &ControllerRegistrationRequest {
        &self.0.registration
    }

    /// Hands the lead, if this controller has it, to another one, and waits until that one leads,
    /// for at most `limit`. This controller goes on as one of the others.
    pub async fn resign(&self, limit: Duration) {
        self.0.raft.resign(limit).await;
    }

    /// Takes a snapshot of the metadata and gives up the log before it. Done on its own in time;
    /// this is for tools and tests. Returns when it has begun.
    pub async fn take_snapshot(&self) -> Result<(), ApiError> {
        self.0
            .raft
            .take_snapshot()
            .await
            .map_err(|_| ErrorCode::NotController.into())
    }

    /// Decides on what waits, stops, and closes the logs in order. Later requests are refused. What
    /// cannot be committed any more, as this controller has lost the lead or its quorum, is given up.
    pub async fn shutdown(&self) -> Result<(), ControllerError> {
        let task = self
            .0
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(joining) = &self.0.joining {
            drop(
                joining
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take(),
            );
        }
        if let Some(task) = task {
            let stopped = async {
                // A request that ends the loop, behind all that wait.
                let end: Operation = Operation::Stop;
                let _ = self.0.queue.send(end).await;
                let _ = task.await;
            };
            let given_up = async {
                self.0.raft.give_up_what_it_cannot_commit().await;
                pending::<()>().await;
            };
            tokio::select! {
                biased;
                () = stopped => {}
                () = given_up => {}
            }
            self.0.raft.shutdown().await?;
        }
        Ok(())
    }

    fn observers_lock(&self) -> MutexGuard<'_, BTreeMap<i32, Observer>> {
        let observers = &self.0.observers;
        observers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a request that may take `timeout_ms` is to be given up, as the monotonic clock has it.
    fn deadline(&self, timeout_ms: i32) -> Duration {
        let limit = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        self.0.env.clock.monotonic().saturating_add(limit)
    }

    /// [`Controller::decide`], until `end` at most: nothing is decided after that, and who asked is
    /// told so then.
    async fn decide_by<T, F>(&self, end: Duration, decide: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Decider<'_>) -> Result<Outcome<T>, ApiError> + Send + 'static,
    {
        let late = || ApiError::from(ErrorCode::RequestTimedOut);
        let in_time = move |decider: &mut Decider<'_>| {
            if decider.now >= end {
                return Err(late());
            }
            decide(decider)
        };
        let left = end.saturating_sub(self.0.env.clock.monotonic());
        let decided = runtime::timeout(left, self.decide(in_time)).await;
        decided.unwrap_or_else(|_| Err(late()))
    }

    /// Has the task decide, and waits until the outcome is committed.
    async fn decide<T, F>(&self, decide: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Decider<'_>) -> Result<Outcome<T>, ApiError> + Send + 'static,
    {
        let (reply, replied) = oneshot::channel();
        let operation = Operation::Decide(Box::new(move |decider| {
            let (records, outcome) = match decider.and_then(decide) {
                Ok(Outcome { records, reply }) => (records, Ok(reply)),
                Err(error) => (Vec::new(), Err(error)),
            };
            let finish = move |committed: Result<(), ApiError>| {
                // Whoever asked may have gone.
                let _ = reply.send(committed.and(outcome));
            };
            Step {
                records,
                finish: Box::new(finish),
            }
        }));
        let queue = &self.0.queue;
        let stopped = |()| ApiError::from(ErrorCode::NotController);
        queue.send(operation).await.map_err(|_| stopped(()))?;
        replied.await.unwrap_or_else(|_| {
            // Nobody answers: the task has ended, or deciding on this request was too much for it.
            Err(if queue.is_closed() {
                stopped(())
            } else {
                ErrorCode::UnknownServerError.into()
            })
        })
    }
}

/// A directory that was formatted says at which levels of features a new cluster begins. What is
/// configured otherwise stays.
fn begin_with(config: &mut ControllerConfig, formatted: &BTreeMap<String, i16>) {
    for feature in features::SUPPORTED {
        let level = formatted.get(feature.name).copied().unwrap_or(0);
        let levels = &mut config.features;
        levels.entry(feature.name.to_owned()).or_insert(level);
    }
}

fn random_uuid(env: &Env) -> Uuid {
    loop {
        if let Some(id) = Uuid::from_random(env.rng.next_16_bytes()) {
            return id;
        }
    }
}
