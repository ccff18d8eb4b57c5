//! AlterClientQuotas (KIP-546): kept by the controller.

use klamm_controller::{ApiError, Controller};
use klamm_protocol::messages::alter_client_quotas_response::{EntityData, EntryData};
use klamm_protocol::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse};

use crate::context::RequestContext;
use crate::controller::ControllerApi;

impl ControllerApi for AlterClientQuotasRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<AlterClientQuotasResponse, ApiError> {
        controller.alter_client_quotas(self).await
    }

    fn refused(&self, error: &ApiError) -> AlterClientQuotasResponse {
        let refused = self.entries.iter().map(|asked| EntryData {
            entity: asked
                .entity
                .iter()
                .map(|part| EntityData {
                    entity_type: part.entity_type.clone(),
                    entity_name: part.entity_name.clone(),
                    ..EntityData::default()
                })
                .collect(),
            error_code: error.code.into(),
            error_message: error.wire_message(),
            ..EntryData::default()
        });
        AlterClientQuotasResponse {
            entries: refused.collect(),
            ..AlterClientQuotasResponse::default()
        }
    }
}
