//! Envelope (KIP-590): a client's request that another node passes on to the active controller.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use klamm_net::ConnectionInfo;
use klamm_protocol::frame::decode_request_header;
use klamm_protocol::messages::{EnvelopeRequest, EnvelopeResponse};
use klamm_protocol::{Decoder, ErrorCode};
use tracing::warn;

use super::FORWARDED_APIS;
use crate::context::RequestContext;
use crate::controller::client_address;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for EnvelopeRequest {
    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> EnvelopeResponse {
        match open(self, &broker, &context).await {
            Ok(data) => EnvelopeResponse {
                response_data: Some(data),
                ..EnvelopeResponse::default()
            },
            Err(error) => EnvelopeResponse {
                error_code: error.into(),
                ..EnvelopeResponse::default()
            },
        }
    }
}

/// Answers the request inside, as one that came in here.
async fn open(
    envelope: EnvelopeRequest,
    broker: &Arc<Shared>,
    context: &RequestContext,
) -> Result<Bytes, ErrorCode> {
    if !broker.controller.is_active() {
        return Err(ErrorCode::NotController);
    }
    let client = client_address(&envelope)?;
    let mut body = Decoder::new(envelope.request_data);
    let header = decode_request_header(&mut body).map_err(|error| {
        warn!(peer = %context.connection.peer, %error, "an envelope with a malformed header");
        ErrorCode::InvalidRequest
    })?;
    let mut apis = FORWARDED_APIS.iter();
    let forwarded = apis
        .find(|api| api.key.code() == header.api_key)
        .ok_or(ErrorCode::InvalidRequest)?;
    if !forwarded.key.stable_versions().contains(header.api_version) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let inner = RequestContext {
        api_version: header.api_version,
        correlation_id: header.correlation_id,
        client_id: header.client_id.unwrap_or_default(),
        connection: Arc::new(ConnectionInfo {
            peer: SocketAddr::new(client, 0),
            ..(*context.connection).clone()
        }),
        in_process: false,
    };
    (forwarded.answer)(broker, inner, body).await
}
