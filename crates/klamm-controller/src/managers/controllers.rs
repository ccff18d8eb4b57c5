//! Registration of controllers.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{
    ControllerRegistrationRequest, ControllerRegistrationResponse, controller_registration_request,
};
use klamm_protocol::metadata::{RegisterControllerRecord, register_controller_record};

use super::{ApiError, Context, Outcome};

/// Registers a controller: where it listens and which features it supports.
pub fn register_controller(
    context: &Context<'_>,
    request: &ControllerRegistrationRequest,
) -> Result<Outcome<ControllerRegistrationResponse>, ApiError> {
    if !context
        .image
        .metadata_version()
        .supports_controller_registration()
    {
        let message = "The current MetadataVersion is too old to support controller registrations.";
        return Err(ApiError::new(ErrorCode::UnsupportedVersion, message));
    }
    let endpoint = |listener: &controller_registration_request::Listener| {
        register_controller_record::ControllerEndpoint {
            name: listener.name.detached(),
            host: listener.host.detached(),
            port: listener.port,
            security_protocol: listener.security_protocol,
            ..Default::default()
        }
    };
    let feature = |feature: &controller_registration_request::Feature| {
        register_controller_record::ControllerFeature {
            name: feature.name.detached(),
            min_supported_version: feature.min_supported_version,
            max_supported_version: feature.max_supported_version,
            ..Default::default()
        }
    };
    let record = RegisterControllerRecord {
        controller_id: request.controller_id,
        incarnation_id: request.incarnation_id,
        zk_migration_ready: false,
        end_points: request.listeners.iter().map(endpoint).collect(),
        features: request.features.iter().map(feature).collect(),
        ..RegisterControllerRecord::default()
    };
    let reply = ControllerRegistrationResponse::default();
    Ok(Outcome {
        records: vec![record.into()],
        reply,
    })
}
