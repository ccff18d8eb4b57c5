//! EndTxn: commits or aborts a transaction.

use std::sync::Arc;

use klamm_protocol::messages::{EndTxnRequest, EndTxnResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::producer_ids::IdSource;
use crate::shared::Shared;

impl Api for EndTxnRequest {
    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> EndTxnResponse {
        let ids = IdSource(broker.clone());
        let version = context.api_version;
        broker.transactions.end_txn(self, version, &ids).await
    }
}
