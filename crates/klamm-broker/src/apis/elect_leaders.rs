//! ElectLeaders: decided by the controller.

use klamm_controller::{ApiError, Controller};
use klamm_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};

use crate::context::RequestContext;
use crate::controller::ControllerApi;

impl ControllerApi for ElectLeadersRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<ElectLeadersResponse, ApiError> {
        controller.elect_leaders(self).await
    }

    fn timeout_ms(&self) -> Option<i32> {
        Some(self.timeout_ms)
    }

    fn refused(&self, error: &ApiError) -> ElectLeadersResponse {
        ElectLeadersResponse {
            error_code: error.code.into(),
            ..ElectLeadersResponse::default()
        }
    }
}
