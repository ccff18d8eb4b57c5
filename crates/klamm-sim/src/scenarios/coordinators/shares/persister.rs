//! The way from brokers to share coordinators, here or on others.

use klamm_coordinator::runtime::BoxFuture;
use klamm_coordinator::share_state::{LogPruner, SharePersister, ShareStateKey};
use klamm_env::Rng as _;
use klamm_protocol::messages::{
    DeleteShareGroupStateRequest, DeleteShareGroupStateResponse, InitializeShareGroupStateRequest,
    InitializeShareGroupStateResponse, ReadShareGroupStateRequest, ReadShareGroupStateResponse,
    ReadShareGroupStateSummaryRequest, ReadShareGroupStateSummaryResponse,
    WriteShareGroupStateRequest, WriteShareGroupStateResponse,
};
use klamm_protocol::{ByteStr, ErrorCode, topic_name};
use klamm_records::Uuid;

use super::super::broker::{Broker, Node};
use super::super::partition::Place;
use super::super::world::World;

/// How often a coordinator that is not there yet is asked.
const TRIES: usize = 40;

/// Logs of share states are not cut.
pub(in super::super) struct NoPruning;

impl LogPruner for NoPruning {
    fn prune(&self, _: i32, _: i64) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// The share coordinators, as one broker sees them.
pub(in super::super) struct Persister {
    pub(in super::super) world: World,
    pub(in super::super) broker: i32,
}

fn place(group_id: &ByteStr, topic_id: Uuid, partition: i32) -> Place {
    let key = ShareStateKey {
        group_id: group_id.clone(),
        topic_id,
        partition,
    };
    World::place_of(topic_name::SHARE_GROUP_STATE, &key.coordinator_key())
}

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
                let mut results = Vec::new();
                for topic in &request.topics {
                    let mut partitions = Vec::new();
                    for asked in &topic.partitions {
                        let mut question = topic.clone();
                        question.partitions = vec![asked.clone()];
                        let question = $request {
                            group_id: request.group_id.clone(),
                            topics: vec![question],
                            ..$request::default()
                        };
                        let place = place(&request.group_id, topic.topic_id, asked.partition);
                        let mut tries = TRIES;
                        let result = loop {
                            let question = question.clone();
                            let serve = move |broker: Broker| {
                                let question = question.clone();
                                async move { broker.share_states.$method(question).await }
                            };
                            let answer = self.call(place, stringify!($method), serve).await;
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
                            self.world.sleep_ms(20 + self.world.rng.below(60)).await;
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

impl Persister {
    async fn call<T, F>(
        &self,
        place: Place,
        what: &'static str,
        serve: impl Fn(Broker) -> F + Send + Sync + 'static,
    ) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let own = self.world.nodes.get(&self.broker).and_then(Node::broker)?;
        let leader = own.term(place)?.leader;
        if leader == self.broker {
            return Some(serve(own).await);
        }
        // Writes overtake each other nowhere: brokers keep one connection for them.
        let call = self
            .world
            .call((self.broker, leader), what, (place, true), serve);
        call.await.map(|answer| answer.answer)
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
