//! FindCoordinator: which broker leads the internal partition that a key belongs to.

use std::sync::Arc;

use klamm_protocol::messages::find_coordinator_response::Coordinator;
use klamm_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use klamm_protocol::{ByteStr, ErrorCode, topic_name};
use klamm_records::Uuid;

use crate::auto_create;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

/// `key_type` of consumer groups.
const GROUP: i8 = 0;
/// `key_type` of transactional ids.
const TRANSACTION: i8 = 1;
/// `key_type` of share groups' states: `group:topicId:partition` (KIP-932).
const SHARE: i8 = 2;
/// From here on there is such a thing.
const SHARE_VERSION: i16 = 6;
/// From here on several keys are asked for at once (KIP-699).
const BATCH_VERSION: i16 = 4;

impl Api for FindCoordinatorRequest {
    const MAY_BE_OVERTAKEN: bool = true;

    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> FindCoordinatorResponse {
        if context.api_version >= BATCH_VERSION {
            let mut coordinators = Vec::with_capacity(self.coordinator_keys.len());
            for key in &self.coordinator_keys {
                coordinators.push(find(&broker, &context, self.key_type, key).await);
            }
            return FindCoordinatorResponse {
                coordinators,
                ..FindCoordinatorResponse::default()
            };
        }
        let found = find(&broker, &context, self.key_type, &self.key).await;
        FindCoordinatorResponse {
            error_code: found.error_code,
            error_message: match found.error_code {
                0 => Some(text(ErrorCode::None).into()),
                _ => found.error_message,
            },
            node_id: found.node_id,
            host: found.host,
            port: found.port,
            ..FindCoordinatorResponse::default()
        }
    }
}

async fn find(
    broker: &Arc<Shared>,
    context: &RequestContext,
    kind: i8,
    key: &ByteStr,
) -> Coordinator {
    match leader(broker, context, kind, key).await {
        Ok((node_id, host, port)) => Coordinator {
            key: key.clone(),
            node_id,
            host: host.as_str().into(),
            port,
            ..Coordinator::default()
        },
        Err(error) => Coordinator {
            key: key.clone(),
            node_id: -1,
            port: -1,
            error_code: error.into(),
            error_message: Some(text(error).into()),
            ..Coordinator::default()
        },
    }
}

/// What Kafka says beside a code, to [`BATCH_VERSION`] also beside none.
fn text(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::None => "NONE",
        ErrorCode::CoordinatorNotAvailable => "The coordinator is not available.",
        ErrorCode::InvalidRequest => {
            "This most likely occurs because of a request being malformed by the client library or \
             the message was sent to an incompatible broker. See the broker logs for more details."
        }
        other => other.message(),
    }
}

async fn leader(
    broker: &Arc<Shared>,
    context: &RequestContext,
    kind: i8,
    key: &str,
) -> Result<(i32, String, i32), ErrorCode> {
    let name = match kind {
        GROUP => topic_name::CONSUMER_OFFSETS,
        TRANSACTION => topic_name::TRANSACTION_STATE,
        SHARE if context.api_version >= SHARE_VERSION && is_share_key(key) => {
            topic_name::SHARE_GROUP_STATE
        }
        _ => return Err(ErrorCode::InvalidRequest),
    };
    if broker.image().topic(name).is_none() {
        auto_create::create_missing(broker, &[name]).await;
    }
    let image = broker.image();
    let topic = image
        .topic(name)
        .ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let count = i32::try_from(topic.partition_count()).unwrap_or(i32::MAX);
    let partition = topic
        .partition(klamm_coordinator::group::partition_for(key, count))
        .ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let endpoint = image
        .broker(partition.leader)
        .filter(|node| !node.fenced)
        .and_then(|node| node.endpoint(&context.connection.listener))
        .ok_or(ErrorCode::CoordinatorNotAvailable)?;
    Ok((
        partition.leader,
        endpoint.host.clone(),
        endpoint.port.into(),
    ))
}

/// Whether a key has the form `group:topicId:partition`.
fn is_share_key(key: &str) -> bool {
    let mut parts = key.rsplitn(3, ':');
    let partition = parts.next().and_then(|part| part.parse::<i32>().ok());
    let topic = parts.next().and_then(|part| part.parse::<Uuid>().ok());
    let group = parts.next();
    partition.is_some() && topic.is_some() && group.is_some_and(|group| !group.is_empty())
}
