//! Registration of controllers.

use klamm_metadata::ControllerImage;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{
    ControllerRegistrationRequest, ControllerRegistrationResponse, controller_registration_request,
};
use klamm_protocol::metadata::{RegisterControllerRecord, register_controller_record};

use super::{ApiError, Context, Outcome};

/// Registers a controller: where it listens and which features it supports. What is known already is
/// not noted again: the active controller tells of itself as soon as it decides, and so does the node
/// that it is part of.
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
    let known = context.image.cluster().controllers();
    let known = known.get(&request.controller_id);
    let is_news = known.is_none_or(|known| !is_as_registered(known, request));
    Ok(Outcome {
        records: is_news.then(|| record.into()).into_iter().collect(),
        reply,
    })
}

fn is_as_registered(known: &ControllerImage, request: &ControllerRegistrationRequest) -> bool {
    let listeners = || request.listeners.iter();
    let listens = known.endpoints.len() == request.listeners.len()
        && known
            .endpoints
            .iter()
            .zip(listeners())
            .all(|(known, told)| {
                (
                    &*known.name,
                    &*known.host,
                    known.port,
                    known.security_protocol,
                ) == (&*told.name, &*told.host, told.port, told.security_protocol)
            });
    let supports = known.features.len() == request.features.len()
        && request.features.iter().all(|told| {
            let range = (told.min_supported_version, told.max_supported_version);
            known.features.get(&*told.name) == Some(&range)
        });
    known.incarnation_id == request.incarnation_id && listens && supports
}
