//! DescribeClientQuotas (KIP-546): read off the metadata.

use std::sync::Arc;

use klamm_controller::managers::quotas;
use klamm_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for DescribeClientQuotasRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> DescribeClientQuotasResponse {
        quotas::describe_client_quotas(&broker.image(), &self).unwrap_or_else(|refused| {
            DescribeClientQuotasResponse {
                error_code: refused.code.into(),
                error_message: refused.wire_message(),
                ..DescribeClientQuotasResponse::default()
            }
        })
    }
}
