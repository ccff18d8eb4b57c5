//! The requests to the share coordinator: Initialize-, Read-, Write-, DeleteShareGroupState and
//! ReadShareGroupStateSummary. They come from other brokers.

use std::sync::Arc;

use klamm_protocol::messages::{
    DeleteShareGroupStateRequest, DeleteShareGroupStateResponse, InitializeShareGroupStateRequest,
    InitializeShareGroupStateResponse, ReadShareGroupStateRequest, ReadShareGroupStateResponse,
    ReadShareGroupStateSummaryRequest, ReadShareGroupStateSummaryResponse,
    WriteShareGroupStateRequest, WriteShareGroupStateResponse,
};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for InitializeShareGroupStateRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        _: RequestContext,
    ) -> InitializeShareGroupStateResponse {
        broker.share_states.initialize(self).await
    }
}

impl Api for ReadShareGroupStateRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> ReadShareGroupStateResponse {
        broker.share_states.read(self).await
    }
}

impl Api for WriteShareGroupStateRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> WriteShareGroupStateResponse {
        broker.share_states.write(self).await
    }
}

impl Api for DeleteShareGroupStateRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> DeleteShareGroupStateResponse {
        broker.share_states.delete(self).await
    }
}

impl Api for ReadShareGroupStateSummaryRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        _: RequestContext,
    ) -> ReadShareGroupStateSummaryResponse {
        broker.share_states.summary(self).await
    }
}
