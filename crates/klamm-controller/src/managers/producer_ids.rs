//! Blocks of producer ids, handed to brokers.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{AllocateProducerIdsRequest, AllocateProducerIdsResponse};
use klamm_protocol::metadata::ProducerIdsRecord;

use super::{ApiError, Context, Outcome};

/// Producer ids in a block, as in Kafka.
pub const BLOCK_LEN: i32 = 1000;

/// Hands a broker the next block of producer ids. No id is ever handed out twice.
pub fn allocate_producer_ids(
    context: &Context<'_>,
    request: &AllocateProducerIdsRequest,
) -> Result<Outcome<AllocateProducerIdsResponse>, ApiError> {
    context.check_broker_epoch(request.broker_id, request.broker_epoch)?;
    let first = context.image.next_producer_id();
    let Some(next) = first.checked_add(i64::from(BLOCK_LEN)) else {
        let message = "Exhausted all producerIds as the next block's end producerId has exceeded \
                       the int64 type limit";
        return Err(ApiError::new(ErrorCode::UnknownServerError, message));
    };
    let record = ProducerIdsRecord {
        broker_id: request.broker_id,
        broker_epoch: request.broker_epoch,
        next_producer_id: next,
        ..ProducerIdsRecord::default()
    };
    let reply = AllocateProducerIdsResponse {
        producer_id_start: first,
        producer_id_len: BLOCK_LEN,
        ..AllocateProducerIdsResponse::default()
    };
    Ok(Outcome {
        records: vec![record.into()],
        reply,
    })
}
