//! ShareAcknowledge: what a member says of records that it has (KIP-932).

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_coordinator::share_partition::sessions::{FINAL_EPOCH, SessionKey, SessionPartition};
use klamm_coordinator::share_partition::{AcknowledgeType, Acknowledgement};
use klamm_protocol::messages::share_acknowledge_response::{
    LeaderIdAndEpoch, PartitionData, ShareAcknowledgeTopicResponse,
};
use klamm_protocol::messages::{ShareAcknowledgeRequest, ShareAcknowledgeResponse};
use klamm_protocol::{ByteStr, ErrorCode};

use super::share_groups_are_on;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

/// The longest member id.
const MEMBER_ID_LEN_MAX: usize = 36;
/// From here on locks may be renewed (KIP-1222).
pub(super) const RENEW_VERSION: i16 = 2;

/// Acknowledgements of a request by partition, as they are on the wire: first and last offset,
/// types.
pub(super) type Wire = (i64, i64, Vec<i8>);

impl Api for ShareAcknowledgeRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        context: RequestContext,
    ) -> ShareAcknowledgeResponse {
        match acknowledge(&self, &broker, &context).await {
            Ok(response) => response,
            Err(error) => ShareAcknowledgeResponse {
                error_code: error.into(),
                ..ShareAcknowledgeResponse::default()
            },
        }
    }
}

/// Group and member of a request.
pub(super) fn session_key(
    broker: &Shared,
    group_id: Option<&ByteStr>,
    member_id: Option<&ByteStr>,
) -> Result<SessionKey, ErrorCode> {
    if !share_groups_are_on(broker) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let group_id = group_id.ok_or(ErrorCode::InvalidRequest)?;
    let member_id = member_id
        .filter(|id| !id.is_empty() && id.len() <= MEMBER_ID_LEN_MAX)
        .ok_or(ErrorCode::InvalidRequest)?;
    Ok((group_id.clone(), member_id.clone()))
}

async fn acknowledge(
    request: &ShareAcknowledgeRequest,
    broker: &Arc<Shared>,
    context: &RequestContext,
) -> Result<ShareAcknowledgeResponse, ErrorCode> {
    let key = session_key(
        broker,
        request.group_id.as_ref(),
        request.member_id.as_ref(),
    )?;
    let epoch = request.share_session_epoch;
    broker.shares.sessions().acknowledge(&key, epoch)?;
    let mut wire: BTreeMap<SessionPartition, Vec<Wire>> = BTreeMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let batches = partition.acknowledgement_batches.iter();
            let at = (topic.topic_id, partition.partition_index);
            wire.entry(at).or_default().extend(batches.map(|batch| {
                let types = batch.acknowledge_types.clone();
                (batch.first_offset, batch.last_offset, types)
            }));
        }
    }
    let may_renew = context.api_version >= RENEW_VERSION && request.is_renew_ack;
    let outcomes = take(broker, &key, wire, may_renew).await;
    if epoch == FINAL_EPOCH {
        end_session(broker, &key).await;
    }
    let limits = broker.group_cluster.share_config(&key.0).limits;
    let mut responses: Vec<ShareAcknowledgeTopicResponse> = Vec::new();
    for ((topic_id, partition), error) in outcomes {
        let data = PartitionData {
            partition_index: partition,
            error_code: error.into(),
            current_leader: LeaderIdAndEpoch::default(),
            ..PartitionData::default()
        };
        match responses.last_mut() {
            Some(topic) if topic.topic_id == topic_id => topic.partitions.push(data),
            _ => responses.push(ShareAcknowledgeTopicResponse {
                topic_id,
                partitions: vec![data],
                ..ShareAcknowledgeTopicResponse::default()
            }),
        }
    }
    let mut response = ShareAcknowledgeResponse {
        responses,
        ..ShareAcknowledgeResponse::default()
    };
    if context.api_version >= RENEW_VERSION {
        response.acquisition_lock_timeout_ms = limits.lock_duration_ms;
    }
    Ok(response)
}

/// Ends a session; what its member has comes back.
pub(super) async fn end_session(broker: &Arc<Shared>, key: &SessionKey) {
    let ended = broker.shares.sessions().end(key);
    if let Some(partitions) = ended {
        broker.shares.release(broker, key, &partitions).await;
    }
}

/// Takes acknowledgements, each partition's by themselves. Answers when they are written.
pub(super) async fn take(
    broker: &Arc<Shared>,
    (group, member): &SessionKey,
    wire: BTreeMap<SessionPartition, Vec<Wire>>,
    may_renew: bool,
) -> BTreeMap<SessionPartition, ErrorCode> {
    let image = broker.image();
    let mut outcomes = BTreeMap::new();
    for ((topic_id, partition), batches) in wire {
        let error = if image.topic_by_id(topic_id).is_none() {
            ErrorCode::UnknownTopicId
        } else {
            match checked(batches, may_renew) {
                Err(error) => error,
                Ok(batches) => {
                    let key = (group.clone(), topic_id, partition);
                    let shares = &broker.shares;
                    shares.acknowledge(broker, &key, member, &batches).await
                }
            }
        };
        outcomes.insert((topic_id, partition), error);
    }
    outcomes
}

/// Acknowledgements whose form is right.
fn checked(batches: Vec<Wire>, may_renew: bool) -> Result<Vec<Acknowledgement>, ErrorCode> {
    let mut previous_last = -1;
    let mut checked = Vec::with_capacity(batches.len());
    for (first_offset, last_offset, types) in batches {
        let count = last_offset.checked_sub(first_offset).map(|count| count + 1);
        let types_len = i64::try_from(types.len()).unwrap_or(i64::MAX);
        if first_offset > last_offset
            || first_offset <= previous_last
            || types.is_empty()
            || (types_len > 1 && count != Some(types_len))
        {
            return Err(ErrorCode::InvalidRequest);
        }
        previous_last = last_offset;
        let types = types
            .into_iter()
            .map(|id| match AcknowledgeType::from_id(id) {
                Some(AcknowledgeType::Renew) if !may_renew => Err(ErrorCode::InvalidRequest),
                Some(kind) => Ok(kind),
                None => Err(ErrorCode::InvalidRequest),
            });
        checked.push(Acknowledgement {
            first_offset,
            last_offset,
            types: types.collect::<Result<_, _>>()?,
        });
    }
    Ok(checked)
}
