use std::sync::Arc;

use klamm_protocol::messages::{ListTransactionsRequest, ListTransactionsResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for ListTransactionsRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> ListTransactionsResponse {
        broker.transactions.list_transactions(self).await
    }
}
