//! The four delegation token requests. Kafka grants tokens only to connections that have proven who
//! they are, which a PLAINTEXT connection has not (KIP-48).

use std::sync::Arc;

use klamm_protocol::messages::{
    CreateDelegationTokenRequest, CreateDelegationTokenResponse, DescribeDelegationTokenRequest,
    DescribeDelegationTokenResponse, ExpireDelegationTokenRequest, ExpireDelegationTokenResponse,
    RenewDelegationTokenRequest, RenewDelegationTokenResponse,
};
use klamm_protocol::{ByteStr, ErrorCode};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

/// From here on the response names who asked.
const REQUESTER_VERSION: i16 = 3;
const REFUSED: ErrorCode = ErrorCode::DelegationTokenRequestNotAllowed;

impl Api for CreateDelegationTokenRequest {
    async fn handle(
        self,
        _: Arc<Shared>,
        context: RequestContext,
    ) -> CreateDelegationTokenResponse {
        let named = context.api_version >= REQUESTER_VERSION;
        let requester = |name: &'static str| ByteStr::from(if named { name } else { "" });
        CreateDelegationTokenResponse {
            error_code: REFUSED.into(),
            principal_type: "User".into(),
            principal_name: "ANONYMOUS".into(),
            token_requester_principal_type: requester("User"),
            token_requester_principal_name: requester("ANONYMOUS"),
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
