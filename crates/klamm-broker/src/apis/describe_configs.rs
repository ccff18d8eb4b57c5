//! DescribeConfigs: what is in force for topics, brokers, groups and client metrics, and why.

use std::sync::Arc;

use klamm_config::{
    ConfigEntry, describe_broker, describe_broker_default, describe_client_metrics, describe_group,
    describe_topic,
};
use klamm_metadata::{ConfigResource, ResourceType};
use klamm_protocol::messages::describe_configs_request::DescribeConfigsResource;
use klamm_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use klamm_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use klamm_protocol::{ByteStr, ErrorCode, topic_name};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for DescribeConfigsRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> DescribeConfigsResponse {
        let results = self.resources.iter().map(|resource| {
            let described = describe(&broker, resource);
            let (configs, error) = match described {
                Ok(entries) => (entries, None),
                Err(refused) => (Vec::new(), Some(refused)),
            };
            DescribeConfigsResult {
                error_code: error.as_ref().map_or(0, |refused| refused.code.into()),
                error_message: error.and_then(|refused| refused.message).map(ByteStr::from),
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                configs: configs
                    .into_iter()
                    .map(|entry| wire(entry, &self))
                    .collect(),
                ..DescribeConfigsResult::default()
            }
        });
        DescribeConfigsResponse {
            results: results.collect(),
            ..DescribeConfigsResponse::default()
        }
    }
}

/// Why a resource is not described.
struct Refused {
    code: ErrorCode,
    message: Option<String>,
}

impl Refused {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Refused {
            code,
            message: Some(message.into()),
        }
    }
}

fn describe(
    broker: &Shared,
    resource: &DescribeConfigsResource,
) -> Result<Vec<ConfigEntry>, Refused> {
    let image = broker.image();
    let config = broker.config();
    let name = &*resource.resource_name;
    let keys: Option<Vec<&str>> = resource
        .configuration_keys
        .as_ref()
        .map(|keys| keys.iter().map(|key| &**key).collect());
    let keys = keys.as_deref();
    let kind = ResourceType::from_id(resource.resource_type);
    let set = image.config(&ConfigResource::new(kind, name));
    let invalid = |error: klamm_config::ConfigError| {
        Refused::new(ErrorCode::InvalidConfig, error.to_string())
    };
    match kind {
        ResourceType::Topic => {
            topic_name::validate(name).map_err(|error| {
                Refused::new(ErrorCode::InvalidTopicException, error.to_string())
            })?;
            if image.topic(name).is_none() {
                // The client's own text for the code says all.
                return Err(Refused {
                    code: ErrorCode::UnknownTopicOrPartition,
                    message: None,
                });
            }
            describe_topic(set, &config, keys).map_err(invalid)
        }
        ResourceType::Broker if name.is_empty() => Ok(describe_broker_default(&config, keys)),
        ResourceType::Broker if name.parse() == Ok(broker.node_id) => {
            Ok(describe_broker(&config, keys))
        }
        ResourceType::Broker => Err(Refused::new(
            ErrorCode::InvalidRequest,
            format!(
                "Unexpected broker id, expected {} or empty string, but received {name}",
                broker.node_id
            ),
        )),
        ResourceType::ClientMetrics if name.is_empty() => Err(Refused::new(
            ErrorCode::InvalidRequest,
            "Client metrics subscription name must not be empty",
        )),
        ResourceType::ClientMetrics => Ok(describe_client_metrics(set, keys)),
        ResourceType::Group if name.is_empty() => Err(Refused::new(
            ErrorCode::InvalidRequest,
            "Group name must not be empty",
        )),
        ResourceType::Group => describe_group(set, &config, keys).map_err(invalid),
        // Log levels are set by --log-level and by target, not by a tree of loggers.
        ResourceType::BrokerLogger | ResourceType::Unknown => Err(Refused::new(
            ErrorCode::InvalidRequest,
            format!("Unsupported resource type: {}", kind.name()),
        )),
    }
}

fn wire(entry: ConfigEntry, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
    let synonyms = if request.include_synonyms {
        &entry.synonyms[..]
    } else {
        &[]
    };
    let synonyms = synonyms.iter().map(|synonym| DescribeConfigsSynonym {
        name: synonym.name.as_str().into(),
        value: synonym.value.as_deref().map(ByteStr::from),
        source: synonym.source.wire_id(),
        ..DescribeConfigsSynonym::default()
    });
    DescribeConfigsResourceResult {
        name: entry.name.as_str().into(),
        read_only: entry.read_only,
        config_source: entry.source.wire_id(),
        is_sensitive: entry.sensitive,
        synonyms: synonyms.collect(),
        config_type: entry.kind_wire_id(),
        documentation: entry
            .documentation
            .filter(|_| request.include_documentation)
            .map(Into::into),
        value: entry.value.map(|value| value.as_str().into()),
        ..DescribeConfigsResourceResult::default()
    }
}
