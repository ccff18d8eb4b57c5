//! What the managers need to know of configs, and that knowledge out of `klamm-config`.

use std::collections::BTreeMap;

use klamm_config::def::{self, ValueType};
use klamm_config::{
    BrokerConfig, ConfigError, ErrorKind, describe_topic, validate_client_metrics_configs,
    validate_dynamic_broker_configs, validate_group_configs, validate_topic_configs,
};
use klamm_metadata::{ConfigResource, ResourceType};
use klamm_protocol::ErrorCode;

use crate::managers::ApiError;

/// A config in force, as a `CreateTopics` response tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveConfig {
    /// Name.
    pub name: String,
    /// Value; `None` if there is none or it is secret.
    pub value: Option<String>,
    /// Whether it cannot be changed.
    pub read_only: bool,
    /// Kafka's number of the place it was set.
    pub source: i8,
    /// Whether its value is secret.
    pub sensitive: bool,
}

/// Knows all configs: types, defaults, which values are fine.
pub trait ConfigSchema: Send + Sync {
    /// Checks all configs that a resource would have. `current` holds those it has now.
    fn validate(
        &self,
        resource: &ConfigResource,
        wanted: &BTreeMap<String, String>,
        current: &BTreeMap<String, String>,
    ) -> Result<(), ApiError>;

    /// Whether a config is a list, so that values can be appended to it and subtracted from it.
    fn is_list(&self, resource_type: ResourceType, name: &str) -> bool;

    /// The value of a config that is set nowhere dynamically.
    fn default_value(&self, resource_type: ResourceType, name: &str) -> Option<String>;

    /// The configs in force of a topic with these overrides, sorted by name.
    fn effective_topic_configs(
        &self,
        cluster: &BTreeMap<String, String>,
        node: &BTreeMap<String, String>,
        overrides: &BTreeMap<String, String>,
    ) -> Vec<EffectiveConfig>;
}

/// Kafka's configs, with the static config of this node as defaults.
#[derive(Clone, Debug)]
pub struct KafkaConfigs {
    broker: BrokerConfig,
    /// Values of topics without configs of their own: elections ask for them once a partition.
    topic_defaults: BTreeMap<String, String>,
}

impl KafkaConfigs {
    /// The schema for a node with this static config.
    pub fn new(broker: BrokerConfig) -> Self {
        let entries = describe_topic(&BTreeMap::new(), &broker, None).unwrap_or_default();
        let values = entries
            .into_iter()
            .filter_map(|entry| Some((entry.name, entry.value?)));
        KafkaConfigs {
            topic_defaults: values.collect(),
            broker,
        }
    }
}

impl KafkaConfigs {
    /// What depends on the static configuration, which is known of this node only.
    fn validate_own(
        &self,
        resource: &ConfigResource,
        wanted: &BTreeMap<String, String>,
    ) -> Result<(), ConfigError> {
        let own = resource.name.parse() == Ok(self.broker.node_id());
        if own && wanted.contains_key("cordoned.log.dirs") {
            self.broker.with_dynamic(&BTreeMap::new(), wanted)?;
        }
        Ok(())
    }
}

impl ConfigSchema for KafkaConfigs {
    fn validate(
        &self,
        resource: &ConfigResource,
        wanted: &BTreeMap<String, String>,
        current: &BTreeMap<String, String>,
    ) -> Result<(), ApiError> {
        let result = match resource.resource_type {
            ResourceType::Topic => validate_topic_configs(current, wanted, &self.broker),
            ResourceType::Group => validate_group_configs(wanted, &self.broker),
            ResourceType::ClientMetrics => validate_client_metrics_configs(wanted),
            ResourceType::Broker => {
                // Kafka answers all errors of broker configs as invalid requests.
                let refusal = |message| ApiError::new(ErrorCode::InvalidRequest, message);
                validate_dynamic_broker_configs(wanted, !resource.name.is_empty())
                    .map_err(|error| refusal(error.to_string()))?;
                return self
                    .validate_own(resource, wanted)
                    .map_err(|error| refusal(format!("requirement failed: {error}")));
            }
            ResourceType::BrokerLogger | ResourceType::Unknown => Ok(()),
        };
        result.map_err(|error| api_error(&error))
    }

    fn is_list(&self, resource_type: ResourceType, name: &str) -> bool {
        let def = match resource_type {
            ResourceType::Topic => def::topic_config(name),
            ResourceType::Group => def::group_config(name),
            ResourceType::Broker => def::broker_config(name),
            ResourceType::ClientMetrics => {
                def::find(klamm_config::table::CLIENT_METRICS_CONFIGS, name)
            }
            ResourceType::BrokerLogger | ResourceType::Unknown => None,
        };
        def.is_some_and(|def| def.kind == ValueType::List)
    }

    fn default_value(&self, resource_type: ResourceType, name: &str) -> Option<String> {
        match resource_type {
            ResourceType::Topic => self.topic_defaults.get(name).cloned(),
            ResourceType::Broker => {
                def::broker_config(name)?;
                self.broker.value(name).to_text()
            }
            _ => None,
        }
    }

    fn effective_topic_configs(
        &self,
        cluster: &BTreeMap<String, String>,
        node: &BTreeMap<String, String>,
        overrides: &BTreeMap<String, String>,
    ) -> Vec<EffectiveConfig> {
        // Dynamic values were checked when they were set; should one no longer pass, the static
        // values are the better answer than none.
        let broker = self
            .broker
            .with_dynamic(cluster, node)
            .unwrap_or_else(|_| self.broker.clone());
        let entries = describe_topic(overrides, &broker, None).unwrap_or_default();
        let mut entries: Vec<_> = entries
            .into_iter()
            .map(|entry| EffectiveConfig {
                name: entry.name,
                value: entry.value,
                read_only: entry.read_only,
                source: entry.source.wire_id(),
                sensitive: entry.sensitive,
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    }
}

fn api_error(error: &ConfigError) -> ApiError {
    let code = match error.kind() {
        ErrorKind::InvalidConfig => ErrorCode::InvalidConfig,
        ErrorKind::InvalidRequest => ErrorCode::InvalidRequest,
    };
    ApiError::new(code, error.to_string())
}
