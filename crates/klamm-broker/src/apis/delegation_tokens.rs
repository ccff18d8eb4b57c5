//! The four delegation token requests. Kafka grants tokens only to connections that have proven who
//! they are, which a PLAINTEXT connection has not (KIP-48).

use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{
    CreateDelegationTokenRequest, CreateDelegationTokenResponse, DescribeDelegationTokenRequest,
    DescribeDelegationTokenResponse, ExpireDelegationTokenRequest, ExpireDelegationTokenResponse,
    RenewDelegationTokenRequest, RenewDelegationTokenResponse,
};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

const REFUSED: ErrorCode = ErrorCode::DelegationTokenRequestNotAllowed;

impl Api for CreateDelegationTokenRequest {
    async fn handle(self, _: Arc<Shared>, _: RequestContext) -> CreateDelegationTokenResponse {
        CreateDelegationTokenResponse {
            error_code: REFUSED.into(),
            principal_type: "User".into(),
            principal_name: "ANONYMOUS".into(),
            token_requester_principal_type: "User".into(),
            token_requester_principal_name: "ANONYMOUS".into(),
            issue_timestamp_ms: -1,
            expiry_timestamp_ms: -1,
            max_timestamp_ms: -1,
            ..CreateDelegationTokenResponse::default()
        }
    }
}

impl Api for RenewDelegationTokenRequest {
    async fn handle(self, _: Arc<Shared>, _: RequestContext) -> RenewDelegationTokenResponse {
        RenewDelegationTokenResponse {
            error_code: REFUSED.into(),
            expiry_timestamp_ms: -1,
            ..RenewDelegationTokenResponse::default()
        }
    }
}

impl Api for ExpireDelegationTokenRequest {
    async fn handle(self, _: Arc<Shared>, _: RequestContext) -> ExpireDelegationTokenResponse {
        ExpireDelegationTokenResponse {
            error_code: REFUSED.into(),
            expiry_timestamp_ms: -1,
            ..ExpireDelegationTokenResponse::default()
        }
    }
}

impl Api for DescribeDelegationTokenRequest {
    async fn handle(self, _: Arc<Shared>, _: RequestContext) -> DescribeDelegationTokenResponse {
        DescribeDelegationTokenResponse {
            error_code: REFUSED.into(),
            ..DescribeDelegationTokenResponse::default()
        }
    }
}
