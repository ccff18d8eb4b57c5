//! AlterClientQuotas (KIP-546): kept by the controller.

use std::sync::Arc;

use klamm_protocol::messages::alter_client_quotas_response::{EntityData, EntryData};
use klamm_protocol::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for AlterClientQuotasRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> AlterClientQuotasResponse {
        let refused = self.clone();
        match broker.controller.alter_client_quotas(self).await {
            Ok(response) => response,
            Err(error) => AlterClientQuotasResponse {
                entries: refused
                    .entries
                    .iter()
                    .map(|asked| EntryData {
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
                    })
                    .collect(),
                ..AlterClientQuotasResponse::default()
            },
        }
    }
}
