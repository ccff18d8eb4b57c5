//! The way to share coordinators, on this broker and on others.

use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use klamm_coordinator::group::partition_for;
use klamm_coordinator::runtime::BoxFuture;
use klamm_coordinator::share_state::{LogPruner, SharePersister, ShareStateKey};
use klamm_protocol::messages::{
    DeleteShareGroupStateRequest, DeleteShareGroupStateResponse, InitializeShareGroupStateRequest,
    InitializeShareGroupStateResponse, ReadShareGroupStateRequest, ReadShareGroupStateResponse,
    ReadShareGroupStateSummaryRequest, ReadShareGroupStateSummaryResponse,
    WriteShareGroupStateRequest, WriteShareGroupStateResponse,
};
use klamm_protocol::{ErrorCode, Request, topic_name};
use klamm_replication::ReplicaManager;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::partitions::expire_locks;
use crate::auto_create;
use crate::shared::Shared;
use crate::start;

/// How often a coordinator that is not there yet is asked.
const TRIES: usize = 40;
/// How long to wait between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// How long DeleteRecords on the states' topic may take.
const PRUNE_TIMEOUT_MS: i32 = 30_000;

/// Asks share coordinators, and again while they load or move. Makes their topic if that is not
/// there.
#[derive(Default)]
pub(crate) struct Persister(OnceLock<Weak<Shared>>);

impl Debug for Persister {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Persister").finish_non_exhaustive()
    }
}

/// Whether an answer says that the coordinator may be had in a moment.
fn is_passing(code: i16) -> bool {
    matches!(
        ErrorCode::from_code(code),
        Some(
            ErrorCode::CoordinatorLoadInProgress
                | ErrorCode::CoordinatorNotAvailable
                | ErrorCode::NotCoordinator
        )
    )
}

/// One of the requests: each partition's coordinator is asked for itself, and again while it says
/// that it may be had in a moment.
macro_rules! ask {
    ($method:ident, $request:ident, $response:ident, $results:ident::{$topic:ident, $partition:ident}) => {
        fn $method(&self, request: $request) -> BoxFuture<'_, $response> {
            Box::pin(async move {
                use klamm_protocol::messages::$results::{$partition, $topic};
                let Some(broker) = self.broker().await else {
                    return $response::default();
                };
                let mut results = Vec::with_capacity(request.topics.len());
                for topic in &request.topics {
                    let mut partitions = Vec::with_capacity(topic.partitions.len());
                    for asked in &topic.partitions {
                        let mut question = topic.clone();
                        question.partitions = vec![asked.clone()];
                        let question = $request {
                            group_id: request.group_id.clone(),
                            topics: vec![question],
                            ..$request::default()
                        };
                        let key = ShareStateKey {
                            group_id: request.group_id.clone(),
                            topic_id: topic.topic_id,
                            partition: asked.partition,
                        };
                        let mut tries = TRIES;
                        let result = loop {
                            let node = coordinator(&broker, &key);
                            let answer = if node == Some(broker.node_id) {
                                Some(broker.share_states.$method(question.clone()).await)
                            } else {
                                remote(&broker, node, &question).await
                            };
                            let results = answer.into_iter().flat_map(|answer| answer.results);
                            let result = results.flat_map(|topic| topic.partitions).next();
                            let result = result.unwrap_or_else(|| $partition {
                                partition: asked.partition,
                                error_code: ErrorCode::CoordinatorNotAvailable.into(),
                                ..$partition::default()
                            });
                            tries -= 1;
                            if tries == 0 || !is_passing(result.error_code) {
                                break result;
                            }
                            sleep(PAUSE).await;
                        };
                        partitions.push(result);
                    }
                    results.push($topic {
                        topic_id: topic.topic_id,
                        partitions,
                        ..$topic::default()
                    });
                }
                $response {
                    results,
                    ..$response::default()
                }
            })
        }
    };
}

/// The broker that leads the partition of `__share_group_state` which keeps a key.
fn coordinator(broker: &Shared, key: &ShareStateKey) -> Option<i32> {
    let image = broker.image();
    let topic = image.topic(topic_name::SHARE_GROUP_STATE)?;
    let count = i32::try_from(topic.partition_count()).unwrap_or(i32::MAX);
    let partition = topic.partition(partition_for(&key.coordinator_key(), count))?;
    Some(partition.leader)
}

/// Asks a share coordinator on another broker.
async fn remote<R: Request>(
    broker: &Shared,
    node: Option<i32>,
    question: &R,
) -> Option<R::Response> {
    let node = node.filter(|node| *node >= 0)?;
    match broker.share_line.ask(node, question).await {
        Ok(answer) => Some(answer),
        Err(error) => {
            debug!(node, %error, "a share coordinator did not answer");
            None
        }
    }
}

impl Persister {
    /// Tells of the broker. Only the first call counts.
    pub(crate) fn attach(&self, broker: &Arc<Shared>) {
        let _ = self.0.set(Arc::downgrade(broker));
    }

    async fn broker(&self) -> Option<Arc<Shared>> {
        let broker = self.0.get()?.upgrade()?;
        if broker
            .image()
            .topic(topic_name::SHARE_GROUP_STATE)
            .is_none()
        {
            auto_create::create_missing(&broker, &[topic_name::SHARE_GROUP_STATE]).await;
        }
        Some(broker)
    }
}

impl SharePersister for Persister {
    ask!(
        initialize,
        InitializeShareGroupStateRequest,
        InitializeShareGroupStateResponse,
        initialize_share_group_state_response::{InitializeStateResult, PartitionResult}
    );
    ask!(
        read,
        ReadShareGroupStateRequest,
        ReadShareGroupStateResponse,
        read_share_group_state_response::{ReadStateResult, PartitionResult}
    );
    ask!(
        write,
        WriteShareGroupStateRequest,
        WriteShareGroupStateResponse,
        write_share_group_state_response::{WriteStateResult, PartitionResult}
    );
    ask!(
        delete,
        DeleteShareGroupStateRequest,
        DeleteShareGroupStateResponse,
        delete_share_group_state_response::{DeleteStateResult, PartitionResult}
    );
    ask!(
        summary,
        ReadShareGroupStateSummaryRequest,
        ReadShareGroupStateSummaryResponse,
        read_share_group_state_summary_response::{ReadStateSummaryResult, PartitionResult}
    );
}

/// Deletes what is not needed of `__share_group_state`.
struct StateTopicPruner(ReplicaManager);

impl LogPruner for StateTopicPruner {
    fn prune(&self, partition: i32, before_offset: i64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let wish = (topic_name::SHARE_GROUP_STATE, partition, before_offset);
            let deleted = self.0.delete_records(&[wish], PRUNE_TIMEOUT_MS).await;
            for answer in deleted {
                if answer.error != ErrorCode::None {
                    warn!(partition, error = ?answer.error, "share states were not pruned");
                }
            }
        })
    }
}

/// Gives share groups what they need of the broker, and starts what is done in the background.
pub(crate) fn start(broker: &Arc<Shared>, tasks: &mut JoinSet<()>) {
    broker.persister.attach(broker);
    broker.groups.set_share_persister(broker.persister.clone());
    start::keep(broker, tasks, "share states", |broker| {
        let pruner = Arc::new(StateTopicPruner(broker.replicas.clone()));
        broker.share_states.clone().run(pruner)
    });
    start::keep(broker, tasks, "locks of share groups", expire_locks);
}
