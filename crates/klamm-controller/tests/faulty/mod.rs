//! Kafka's configs with a fault in them.

use std::collections::BTreeMap;

use klamm_controller::{ApiError, ConfigSchema, EffectiveConfig, KafkaConfigs};
use klamm_metadata::{ConfigResource, ResourceType};

/// The value that nobody can look at.
pub(crate) const FATAL_VALUE: &str = "666";

/// Panics when it is asked whether that value is fine.
pub(crate) struct Faulty(pub(crate) KafkaConfigs);

impl ConfigSchema for Faulty {
    fn validate(
        &self,
        resource: &ConfigResource,
        wanted: &BTreeMap<String, String>,
        current: &BTreeMap<String, String>,
    ) -> Result<(), ApiError> {
        assert!(
            wanted.values().all(|value| value != FATAL_VALUE),
            "an injected fault"
        );
        self.0.validate(resource, wanted, current)
    }

    fn is_list(&self, resource_type: ResourceType, name: &str) -> bool {
        self.0.is_list(resource_type, name)
    }

    fn default_value(&self, resource_type: ResourceType, name: &str) -> Option<String> {
        self.0.default_value(resource_type, name)
    }

    fn effective_topic_configs(
        &self,
        cluster: &BTreeMap<String, String>,
        node: &BTreeMap<String, String>,
        overrides: &BTreeMap<String, String>,
    ) -> Vec<EffectiveConfig> {
        self.0.effective_topic_configs(cluster, node, overrides)
    }
}
