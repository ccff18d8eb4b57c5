//! DescribeAcls, CreateAcls, DeleteAcls: without an authorizer Kafka answers SECURITY_DISABLED.

use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_acls_response::AclCreationResult;
use klamm_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use klamm_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse,
    DescribeAclsRequest, DescribeAclsResponse,
};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

const NO_AUTHORIZER: &str = "No Authorizer is configured.";

impl Api for DescribeAclsRequest {
    async fn handle(self, _: Arc<Shared>, _: RequestContext) -> DescribeAclsResponse {
        DescribeAclsResponse {
            error_code: ErrorCode::SecurityDisabled.into(),
            error_message: Some(NO_AUTHORIZER.into()),
            ..DescribeAclsResponse::default()
        }
    }
}

impl Api for CreateAclsRequest {
    async fn handle(self, _: Arc<Shared>, _: RequestContext) -> CreateAclsResponse {
        let refused = |_| AclCreationResult {
            error_code: ErrorCode::SecurityDisabled.into(),
            error_message: Some(NO_AUTHORIZER.into()),
            ..AclCreationResult::default()
        };
        CreateAclsResponse {
            results: self.creations.iter().map(refused).collect(),
            ..CreateAclsResponse::default()
        }
    }
}

impl Api for DeleteAclsRequest {
    async fn handle(self, _: Arc<Shared>, _: RequestContext) -> DeleteAclsResponse {
        let refused = |_| DeleteAclsFilterResult {
            error_code: ErrorCode::SecurityDisabled.into(),
            error_message: Some(NO_AUTHORIZER.into()),
            ..DeleteAclsFilterResult::default()
        };
        DeleteAclsResponse {
            filter_results: self.filters.iter().map(refused).collect(),
            ..DeleteAclsResponse::default()
        }
    }
}
