//! SaslHandshake and SaslAuthenticate. Every listener that Klamm opens so far is PLAINTEXT, where
//! Kafka refuses both: authentication is not what such a connection is in.

use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for SaslHandshakeRequest {
    async fn handle(self, _: Arc<Shared>, _: RequestContext) -> SaslHandshakeResponse {
        SaslHandshakeResponse {
            error_code: ErrorCode::IllegalSaslState.into(),
            ..SaslHandshakeResponse::default()
        }
    }
}

impl Api for SaslAuthenticateRequest {
    async fn handle(self, _: Arc<Shared>, _: RequestContext) -> SaslAuthenticateResponse {
        SaslAuthenticateResponse {
            error_code: ErrorCode::IllegalSaslState.into(),
            error_message: Some(
                "SaslAuthenticate request received after successful authentication".into(),
            ),
            ..SaslAuthenticateResponse::default()
        }
    }
}
