//! ApiVersions (KIP-35, KIP-511, KIP-584): what this listener serves and which features are on.

use std::sync::Arc;

use klamm_controller::managers::features::SUPPORTED;
use klamm_net::Reply;
use klamm_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use klamm_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use klamm_protocol::{ApiKey, ErrorCode};

use super::Table;
use crate::context::RequestContext;
use crate::dispatch::{Api, encode};
use crate::shared::Shared;

/// The first version with the client's software name and version.
const NAMED_CLIENT_VERSION: i16 = 3;
/// The first version whose clients can read a feature that starts at level 0.
const ZERO_LEVEL_VERSION: i16 = 4;

impl Api for ApiVersionsRequest {
    const MAY_BE_OVERTAKEN: bool = true;

    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> ApiVersionsResponse {
        let named = context.api_version >= NAMED_CLIENT_VERSION;
        if named
            && !(is_label(&self.client_software_name) && is_label(&self.client_software_version))
        {
            return ApiVersionsResponse {
                error_code: ErrorCode::InvalidRequest.into(),
                ..ApiVersionsResponse::default()
            };
        }
        let controller = broker.is_controller_listener(&context.connection.listener);
        let table = if controller {
            Table::controller()
        } else {
            Table::broker()
        };
        let image = broker.image();
        let supported = SUPPORTED
            .iter()
            .filter(|feature| context.api_version >= ZERO_LEVEL_VERSION || feature.min > 0);
        ApiVersionsResponse {
            api_keys: api_keys(&table),
            supported_features: supported
                .map(|feature| SupportedFeatureKey {
                    name: feature.name.into(),
                    min_version: feature.min,
                    max_version: feature.max,
                    ..SupportedFeatureKey::default()
                })
                .collect(),
            finalized_features_epoch: image.offset(),
            finalized_features: image
                .features()
                .finalized()
                .into_iter()
                .map(|(name, level)| FinalizedFeatureKey {
                    name: name.into(),
                    min_version_level: level,
                    max_version_level: level,
                    ..FinalizedFeatureKey::default()
                })
                .collect(),
            ..ApiVersionsResponse::default()
        }
    }
}

fn api_keys(table: &Table) -> Vec<ApiVersion> {
    table
        .keys()
        .filter_map(|key| api_version(table, key))
        .collect()
}

fn api_version(table: &Table, key: ApiKey) -> Option<ApiVersion> {
    let versions = key.advertised_versions(table.listener, false)?;
    Some(ApiVersion {
        api_key: key.code(),
        min_version: versions.min,
        max_version: versions.max,
        ..ApiVersion::default()
    })
}

/// The answer to a version we do not know, in version 0, with the one key that tells the client
/// which versions to try (KIP-511).
pub(crate) fn unsupported_version(table: &Table, context: &RequestContext) -> Reply {
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.into(),
        api_keys: api_version(table, ApiKey::ApiVersions)
            .into_iter()
            .collect(),
        ..ApiVersionsResponse::default()
    };
    encode::<ApiVersionsRequest>(context, &response)
}

/// Letters and digits, with `-` and `.` allowed in between (KIP-511).
fn is_label(text: &str) -> bool {
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_client_names_as_kafka_does() {
        for name in ["apache-kafka-java", "4.3.1", "a", "librdkafka"] {
            assert!(is_label(name), "{name}");
        }
        for name in ["", "-a", "a-", ".a", "a b", "ü", "a_b"] {
            assert!(!is_label(name), "{name}");
        }
    }
}
