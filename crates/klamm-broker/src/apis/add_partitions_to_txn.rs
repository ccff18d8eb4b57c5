//! AddPartitionsToTxn: from clients one transaction's partitions, from brokers several, and
//! questions whether partitions were added.

use std::sync::Arc;

use klamm_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::{Shared, Topics};

impl Api for AddPartitionsToTxnRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        context: RequestContext,
    ) -> AddPartitionsToTxnResponse {
        let topics = Topics(broker.image());
        let patience_ms = broker.settings.transaction_patience_ms;
        broker
            .transactions
            .add_partitions_to_txn(self, context.api_version, patience_ms, &topics)
            .await
    }
}
