//! TxnOffsetCommit: offsets of a group that count once a transaction commits.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};
use klamm_protocol::{ByteStr, ErrorCode, topic_name};
use klamm_replication::{ProducerClaim, TopicRef};

use super::transactional_writes::{Support, ask, is_asked};
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::{Shared, Topics};

/// Records of coordinators have no sequence numbers.
const NO_SEQUENCE: i32 = -1;

impl Api for TxnOffsetCommitRequest {
    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> TxnOffsetCommitResponse {
        let groups = broker.groups.clone();
        let topics = Topics(broker.image());
        groups
            .txn_offset_commit(&context.group(), self, &topics, async |request| {
                verify(&broker, context.api_version, request).await
            })
            .await
    }
}

/// Makes sure that the group's partition of `__consumer_offsets` is part of the transaction.
async fn verify(
    broker: &Shared,
    version: i16,
    request: &TxnOffsetCommitRequest,
) -> Result<Option<u64>, ErrorCode> {
    let support = Support::of_offset_commit(version);
    let partition = broker.groups.partition_for(&request.group_id);
    let claim = ProducerClaim {
        id: request.producer_id,
        epoch: request.producer_epoch,
        sequence: NO_SEQUENCE,
        bumps_epoch: support.adds(),
    };
    let topic = TopicRef::Name(topic_name::CONSUMER_OFFSETS);
    let guard = broker
        .replicas
        .begin_verification(topic, partition, claim)?;
    if guard.is_none() || request.transactional_id.is_empty() || !is_asked(broker, support) {
        return Ok(guard);
    }
    let offsets = ByteStr::from_static(topic_name::CONSUMER_OFFSETS);
    let partition = (offsets, partition);
    let asked = BTreeSet::from([partition.clone()]);
    let producer = (request.producer_id, request.producer_epoch);
    let refused = ask(broker, support, &request.transactional_id, producer, asked).await;
    match refused.get(&partition) {
        Some(error) => Err(*error),
        None => Ok(guard),
    }
}
