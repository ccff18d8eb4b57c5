//! UnregisterBroker: decided by the controller.

use klamm_controller::{ApiError, Controller};
use klamm_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use crate::context::RequestContext;
use crate::controller::ControllerApi;

impl ControllerApi for UnregisterBrokerRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<UnregisterBrokerResponse, ApiError> {
        controller.unregister_broker(self).await
    }

    fn refused(&self, error: &ApiError) -> UnregisterBrokerResponse {
        UnregisterBrokerResponse {
            error_code: error.code.into(),
            error_message: error.wire_message(),
            ..UnregisterBrokerResponse::default()
        }
    }
}
