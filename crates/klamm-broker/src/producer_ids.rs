//! Producer ids: handed out one by one from blocks that the controller gives (KIP-730).

use std::ops::Range;
use std::sync::Arc;

use klamm_coordinator::runtime::BoxFuture;
use klamm_coordinator::transaction::ProducerIdSource;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::AllocateProducerIdsRequest;
use tokio::sync::Mutex;

use crate::shared::Shared;

/// The block at hand. The lock is held while a new block is asked for, so that a burst of new
/// producers asks once.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds(Mutex<Range<i64>>);

impl ProducerIds {
    /// An id that nobody else in the cluster has been given.
    pub(crate) async fn next(&self, broker: &Shared) -> Result<i64, ErrorCode> {
        let mut block = self.0.lock().await;
        if let Some(id) = block.next() {
            return Ok(id);
        }
        let request = AllocateProducerIdsRequest {
            broker_id: broker.node_id,
            broker_epoch: broker.epoch(),
            ..AllocateProducerIdsRequest::default()
        };
        // The client tries again while the controller cannot be had.
        let answer = broker
            .controller
            .allocate_producer_ids(request)
            .await
            .map_err(|_| ErrorCode::CoordinatorLoadInProgress)?;
        *block =
            answer.producer_id_start..answer.producer_id_start + i64::from(answer.producer_id_len);
        block.next().ok_or(ErrorCode::UnknownServerError)
    }
}

/// The same as the transaction coordinator asks for them.
pub(crate) struct IdSource(pub(crate) Arc<Shared>);

impl ProducerIdSource for IdSource {
    fn next(&self) -> BoxFuture<'_, Result<i64, ErrorCode>> {
        Box::pin(self.0.producer_ids.next(&self.0))
    }
}
