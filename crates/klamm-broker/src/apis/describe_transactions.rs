use std::sync::Arc;

use klamm_protocol::messages::{DescribeTransactionsRequest, DescribeTransactionsResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for DescribeTransactionsRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> DescribeTransactionsResponse {
        broker.transactions.describe_transactions(self).await
    }
}
