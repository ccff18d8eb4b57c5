//! ShareFetch: takes acknowledgements along, then hands out records (KIP-932).

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_coordinator::share_partition::AcquireMode;
use klamm_coordinator::share_partition::sessions::{
    FINAL_EPOCH, SessionFetch, SessionPartition, SessionStep,
};
use klamm_protocol::messages::share_fetch_response::{
    AcquiredRecords, LeaderIdAndEpoch, NodeEndpoint, PartitionData, ShareFetchableTopicResponse,
};
use klamm_protocol::messages::{ShareFetchRequest, ShareFetchResponse};
use klamm_protocol::{ByteStr, ErrorCode, Records};

use super::share_acknowledge::{RENEW_VERSION, Wire, end_session, session_key, take};
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;
use crate::shares::{Fetched, PartitionKey, ShareFetch};

impl Api for ShareFetchRequest {
    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> ShareFetchResponse {
        match fetch(&self, &broker, &context).await {
            Ok(response) => response,
            Err(error) => ShareFetchResponse {
                error_code: error.into(),
                ..ShareFetchResponse::default()
            },
        }
    }
}

async fn fetch(
    request: &ShareFetchRequest,
    broker: &Arc<Shared>,
    context: &RequestContext,
) -> Result<ShareFetchResponse, ErrorCode> {
    let key = session_key(
        broker,
        request.group_id.as_ref(),
        request.member_id.as_ref(),
    )?;
    let renews = context.api_version >= RENEW_VERSION && request.is_renew_ack;
    let asks_for_nothing = request.max_bytes == 0
        && request.min_bytes == 0
        && request.max_records == 0
        && request.max_wait_ms == 0;
    if renews && !asks_for_nothing {
        return Err(ErrorCode::InvalidRequest);
    }
    let mode = AcquireMode::from_id(request.share_acquire_mode).ok_or(ErrorCode::InvalidRequest)?;
    let (named, forgotten, wire) = contents(request);
    let step = broker.shares.sessions().fetch(
        &key,
        &SessionFetch {
            epoch: request.share_session_epoch,
            partitions: &named,
            forgotten: &forgotten,
            acknowledges: !wire.is_empty(),
            connection: context.connection.id,
        },
    )?;
    let acknowledged = take(broker, &key, wire, renews).await;
    let mut answers = Answers::default();
    for (partition, error) in acknowledged {
        answers.of(partition).acknowledge_error_code = error.into();
    }
    match step {
        SessionStep::Final => end_session(broker, &key).await,
        SessionStep::Fetch { .. } if renews => {}
        SessionStep::Fetch { partitions, is_new } => {
            let shares = ShareFetch {
                group: key.0.clone(),
                member: key.1.clone(),
                mode,
                // Who waits for the outcome of acknowledgements need not wait for records too.
                max_wait_ms: if answers.is_empty() {
                    request.max_wait_ms
                } else {
                    0
                },
                min_bytes: request.min_bytes,
                max_bytes: request.max_bytes.min(broker.settings.fetch_bytes_max),
                max_records: request.max_records,
                batch_size: request.batch_size,
            };
            let wanted = with_names(broker, &key.0, &partitions);
            let fetched = shares.run(broker, &wanted).await;
            for (partition, fetched) in partitions.into_iter().zip(fetched) {
                answers.add(partition, fetched, is_new);
            }
        }
    }
    let is_final = request.share_session_epoch == FINAL_EPOCH;
    let limits = broker.group_cluster.share_config(&key.0).limits;
    let mut response = answers.into_response(broker, context);
    response.acquisition_lock_timeout_ms = if is_final { 0 } else { limits.lock_duration_ms };
    Ok(response)
}

type Contents = (
    Vec<SessionPartition>,
    Vec<SessionPartition>,
    BTreeMap<SessionPartition, Vec<Wire>>,
);

/// Partitions that a request names, those it wants no more, and what it acknowledges.
fn contents(request: &ShareFetchRequest) -> Contents {
    let mut named = Vec::new();
    let mut wire: BTreeMap<SessionPartition, Vec<Wire>> = BTreeMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let at = (topic.topic_id, partition.partition_index);
            named.push(at);
            for batch in &partition.acknowledgement_batches {
                let types = batch.acknowledge_types.clone();
                let batch = (batch.first_offset, batch.last_offset, types);
                wire.entry(at).or_default().push(batch);
            }
        }
    }
    let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(move |partition| (topic.topic_id, *partition))
    });
    (named, forgotten.collect(), wire)
}

fn with_names(
    broker: &Shared,
    group: &ByteStr,
    partitions: &[SessionPartition],
) -> Vec<(PartitionKey, Option<Arc<str>>)> {
    let image = broker.image();
    let named = partitions.iter().map(|(topic_id, partition)| {
        let topic = image.topic_by_id(*topic_id);
        let key = (group.clone(), *topic_id, *partition);
        (key, topic.map(|topic| topic.name().clone()))
    });
    named.collect()
}

/// Answers by partition.
#[derive(Default)]
struct Answers(BTreeMap<SessionPartition, PartitionData>);

impl Answers {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of(&mut self, partition: SessionPartition) -> &mut PartitionData {
        self.0.entry(partition).or_insert_with(|| PartitionData {
            partition_index: partition.1,
            records: Some(Records::Bytes(bytes::Bytes::new())),
            ..PartitionData::default()
        })
    }

    /// A partition without news is left out, unless the session is new.
    fn add(&mut self, partition: SessionPartition, fetched: Fetched, is_new: bool) {
        if fetched.error.is_none() && fetched.acquired.is_empty() && !is_new {
            return;
        }
        let data = self.of(partition);
        data.error_code = fetched.error.unwrap_or(ErrorCode::None).into();
        data.records = Some(Records::Bytes(fetched.records));
        let acquired = fetched.acquired.iter().map(|range| AcquiredRecords {
            first_offset: range.first_offset,
            last_offset: range.last_offset,
            delivery_count: range.delivery_count,
            ..AcquiredRecords::default()
        });
        data.acquired_records = acquired.collect();
    }

    fn into_response(self, broker: &Shared, context: &RequestContext) -> ShareFetchResponse {
        let image = broker.image();
        let mut responses: Vec<ShareFetchableTopicResponse> = Vec::new();
        let mut nodes: Vec<NodeEndpoint> = Vec::new();
        for ((topic_id, index), mut data) in self.0 {
            if is_not_leader(data.error_code) || is_not_leader(data.acknowledge_error_code) {
                let topic = image.topic_by_id(topic_id);
                let leader = topic.and_then(|topic| topic.partition(index));
                if let Some(leader) = leader {
                    data.current_leader = LeaderIdAndEpoch {
                        leader_id: leader.leader,
                        leader_epoch: leader.leader_epoch,
                        ..LeaderIdAndEpoch::default()
                    };
                    let listener = &context.connection.listener;
                    let endpoint = broker.endpoint_of(&image, leader.leader, listener);
                    let is_new = nodes.iter().all(|node| node.node_id != leader.leader);
                    nodes.extend(endpoint.filter(|_| is_new).map(|(endpoint, rack)| {
                        NodeEndpoint {
                            node_id: leader.leader,
                            host: endpoint.host.as_str().into(),
                            port: endpoint.port.into(),
                            rack: rack.map(ByteStr::from),
                            ..NodeEndpoint::default()
                        }
                    }));
                }
            }
            match responses.last_mut() {
                Some(topic) if topic.topic_id == topic_id => topic.partitions.push(data),
                _ => responses.push(ShareFetchableTopicResponse {
                    topic_id,
                    partitions: vec![data],
                    ..ShareFetchableTopicResponse::default()
                }),
            }
        }
        ShareFetchResponse {
            responses,
            node_endpoints: nodes,
            ..ShareFetchResponse::default()
        }
    }
}

fn is_not_leader(code: i16) -> bool {
    code == i16::from(ErrorCode::NotLeaderOrFollower)
        || code == i16::from(ErrorCode::FencedLeaderEpoch)
}
