//! AddOffsetsToTxn: the offsets of a group become part of a transaction.

use std::sync::Arc;

use klamm_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for AddOffsetsToTxnRequest {
    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> AddOffsetsToTxnResponse {
        let partition = broker.groups.partition_for(&self.group_id);
        let patience_ms = broker.settings.transaction_patience_ms;
        broker
            .transactions
            .add_offsets_to_txn(self, context.api_version, partition, patience_ms)
            .await
    }
}
