//! Fetch and FetchSnapshot on controller listeners: the metadata log, for brokers that follow it.

use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{
    FetchRequest, FetchResponse, FetchSnapshotRequest, FetchSnapshotResponse,
};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for FetchRequest {
    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> FetchResponse {
        match broker.controller.local() {
            Some(controller) => controller.fetch_metadata(&self, context.api_version).await,
            None => FetchResponse {
                error_code: ErrorCode::NotController.into(),
                ..FetchResponse::default()
            },
        }
    }
}

impl Api for FetchSnapshotRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> FetchSnapshotResponse {
        match broker.controller.local() {
            Some(controller) => controller.fetch_snapshot(&self).await,
            None => FetchSnapshotResponse {
                error_code: ErrorCode::NotController.into(),
                ..FetchSnapshotResponse::default()
            },
        }
    }
}
