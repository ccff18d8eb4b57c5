//! Dynamic configs of topics, brokers, groups and client-metrics subscriptions.

use std::collections::{BTreeMap, BTreeSet};

use klamm_metadata::{ConfigResource, ResourceType};
use klamm_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs_response, incremental_alter_configs_request,
    incremental_alter_configs_response,
};
use klamm_protocol::metadata::{
    ClearElrRecord, ConfigRecord, MetadataRecord, PartitionChangeRecord,
};
use klamm_protocol::{ByteStr, ErrorCode, topic_name};

use super::topics::invalid_name_message;
use super::{ApiError, Context, MIN_INSYNC_REPLICAS, Outcome, elections, wire_result};

/// The longest value of a config in bytes.
const VALUE_LEN_MAX: usize = 32_767;

/// What becomes of one config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Gets this value.
    Set(String),
    /// Goes back to the default.
    Delete,
    /// The list gets these values, unless it has them.
    Append(String),
    /// The list loses these values.
    Subtract(String),
}

type Changes = BTreeMap<String, Change>;

/// Changes single configs of resources. Each resource succeeds or fails on its own.
pub fn incremental_alter_configs(
    context: &Context<'_>,
    request: &IncrementalAlterConfigsRequest,
) -> Outcome<IncrementalAlterConfigsResponse> {
    let resources = request.resources.iter().map(|resource| {
        (
            resource_of(resource.resource_type, &resource.resource_name),
            changes_of(resource),
        )
    });
    let resources: Vec<_> = resources.collect();
    let repeated = repeated(resources.iter().map(|(resource, _)| resource));
    let mut records = Vec::new();
    let mut response = IncrementalAlterConfigsResponse::default();
    for ((resource, changes), asked) in resources.iter().zip(&request.resources) {
        let result = if repeated.contains(resource) {
            Err(repeated_error())
        } else {
            changes
                .clone()
                .and_then(|changes| alter(context, resource, &changes, false))
        };
        let result = result.map(|new| records.extend(new));
        let (error_code, error_message) = wire_result(&result);
        response.responses.push(
            incremental_alter_configs_response::AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type: asked.resource_type,
                resource_name: asked.resource_name.clone(),
                ..Default::default()
            },
        );
    }
    if request.validate_only {
        records.clear();
    }
    Outcome {
        records,
        reply: response,
    }
}

/// Replaces all configs of resources: what is not named goes back to its default.
pub fn alter_configs(
    context: &Context<'_>,
    request: &AlterConfigsRequest,
) -> Outcome<AlterConfigsResponse> {
    let resources: Vec<_> = request
        .resources
        .iter()
        .map(|resource| resource_of(resource.resource_type, &resource.resource_name))
        .collect();
    let repeated = repeated(resources.iter());
    let mut records = Vec::new();
    let mut response = AlterConfigsResponse::default();
    for (resource, asked) in resources.iter().zip(&request.resources) {
        let values: Vec<(&ByteStr, Option<&ByteStr>)> = asked
            .configs
            .iter()
            .map(|config| (&config.name, config.value.as_ref()))
            .collect();
        let result = if repeated.contains(resource) {
            Err(repeated_error())
        } else {
            replacements(context, resource, &values)
                .and_then(|changes| alter(context, resource, &changes, false))
        };
        let result = result.map(|new| records.extend(new));
        let (error_code, error_message) = wire_result(&result);
        response
            .responses
            .push(alter_configs_response::AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type: asked.resource_type,
                resource_name: asked.resource_name.clone(),
                ..Default::default()
            });
    }
    if request.validate_only {
        records.clear();
    }
    Outcome {
        records,
        reply: response,
    }
}

/// Records that give a topic in the making its configs.
pub(super) fn alter_new_topic(
    context: &Context<'_>,
    topic: &ConfigResource,
    changes: &Changes,
) -> Result<Vec<MetadataRecord>, ApiError> {
    alter(context, topic, changes, true)
}

fn resource_of(resource_type: i8, name: &str) -> ConfigResource {
    ConfigResource::new(ResourceType::from_id(resource_type), name)
}

fn repeated<'a>(
    resources: impl Iterator<Item = &'a ConfigResource>,
) -> BTreeSet<&'a ConfigResource> {
    let mut seen = BTreeSet::new();
    resources
        .filter(|resource| !seen.insert(*resource))
        .collect()
}

fn repeated_error() -> ApiError {
    ApiError::new(
        ErrorCode::InvalidRequest,
        "Each resource must appear at most once.",
    )
}

fn changes_of(
    resource: &incremental_alter_configs_request::AlterConfigsResource,
) -> Result<Changes, ApiError> {
    let invalid = |message: String| Err(ApiError::new(ErrorCode::InvalidRequest, message));
    let mut changes = Changes::new();
    let mut nulls = Vec::new();
    for config in &resource.configs {
        let value = config.value.as_ref().map(|value| value.to_string());
        let change = match (config.config_operation, value) {
            (1, _) => Change::Delete,
            (0, Some(value)) => Change::Set(value),
            (2, Some(value)) => Change::Append(value),
            (3, Some(value)) => Change::Subtract(value),
            (0 | 2 | 3, None) => {
                nulls.push(&*config.name);
                continue;
            }
            (other, _) => return invalid(format!("Unknown operation type {other}")),
        };
        if changes.insert(config.name.to_string(), change).is_some() {
            return invalid("Error due to duplicate config keys".to_owned());
        }
    }
    if !nulls.is_empty() {
        return invalid(format!(
            "Null value not supported for : {}",
            nulls.join(",")
        ));
    }
    Ok(changes)
}

fn replacements(
    context: &Context<'_>,
    resource: &ConfigResource,
    values: &[(&ByteStr, Option<&ByteStr>)],
) -> Result<Changes, ApiError> {
    let invalid = |message: String| Err(ApiError::new(ErrorCode::InvalidRequest, message));
    // What is there now and is not named goes.
    let present = context.image.config(resource).keys();
    let mut changes: Changes = present.map(|name| (name.clone(), Change::Delete)).collect();
    let mut named = BTreeSet::new();
    let mut nulls = Vec::new();
    for (name, value) in values {
        if !named.insert(&**name) {
            return invalid("Error due to duplicate config keys".to_owned());
        }
        match value {
            Some(value) => {
                changes.insert(name.to_string(), Change::Set(value.to_string()));
            }
            None => nulls.push(&***name),
        }
    }
    if !nulls.is_empty() {
        return invalid(format!(
            "Null value not supported for : {}",
            nulls.join(",")
        ));
    }
    Ok(changes)
}

/// Records that make `changes` to the configs of a resource, once all of them are found right.
fn alter(
    context: &Context<'_>,
    resource: &ConfigResource,
    changes: &Changes,
    new_topic: bool,
) -> Result<Vec<MetadataRecord>, ApiError> {
    check_resource(context, resource, new_topic)?;
    let current = context.image.config(resource);
    let mut wanted = current.clone();
    let mut altered = Vec::new();
    for (name, change) in changes {
        let value = value_after(context, resource, name, current.get(name), change)?;
        check_value(context, resource, name, value.as_deref())?;
        match &value {
            Some(value) => wanted.insert(name.clone(), value.clone()),
            None => wanted.remove(name),
        };
        // A broker's config is written even if it stays, so that the broker reads files anew.
        if current.get(name) != value.as_ref() || resource.resource_type == ResourceType::Broker {
            altered.push((name, value));
        }
    }
    context.schema.validate(resource, &wanted, current)?;
    let mut records: Vec<MetadataRecord> = Vec::new();
    let mut clear_elr = false;
    for (name, value) in altered {
        clear_elr |= name == MIN_INSYNC_REPLICAS;
        records.push(config_record(resource, name, value).into());
    }
    if clear_elr && context.image.elr_enabled() {
        // Who is eligible was judged by the old value.
        let topic_name = match resource.resource_type {
            ResourceType::Topic => Some(ByteStr::from(&resource.name)),
            ResourceType::Broker if resource.name.is_empty() => Some(ByteStr::EMPTY),
            _ => None,
        };
        if let Some(topic_name) = topic_name {
            let min_isr = wanted.get(MIN_INSYNC_REPLICAS);
            let min_isr = min_isr.and_then(|value| value.parse().ok());
            let kept = still_eligible(context, &topic_name, min_isr);
            let clear = ClearElrRecord {
                topic_name,
                ..ClearElrRecord::default()
            };
            records.push(clear.into());
            records.extend(kept);
        }
    }
    Ok(records)
}

/// Restores the eligible replicas of partitions whose in-sync replicas are fewer than the new
/// `min.insync.replicas` (`None` if that is not known), for after they were cleared. They are what is
/// known of who holds the records, and stay right: such a partition acknowledged nothing before, and
/// acknowledges nothing now; without anybody in sync it has no leader at all, and the next one judges
/// them by the new value. Kafka forgets them: whoever is in sync then may die and come back without its
/// records, and is elected all the same, as the last known leader.
fn still_eligible(
    context: &Context<'_>,
    topic: &str,
    min_isr: Option<usize>,
) -> Vec<MetadataRecord> {
    let min_isr_of = |name: &str| {
        let own = context.image.config(&ConfigResource::topic(name));
        let own = own.get(MIN_INSYNC_REPLICAS).filter(|_| topic.is_empty());
        own.and_then(|value| value.parse().ok()).or(min_isr)
    };
    elections::partitions(context)
        .filter(|(of, _, partition)| {
            let (isr, replicas) = (partition.isr.len(), partition.replicas.len());
            let too_few = || min_isr_of(of.name()).is_some_and(|min| isr < min.min(replicas));
            (topic.is_empty() || **of.name() == *topic) && (isr == 0 || too_few())
        })
        .map(|(topic, partition_id, partition)| {
            PartitionChangeRecord {
                topic_id: topic.id(),
                partition_id,
                eligible_leader_replicas: Some(partition.elr.clone()),
                last_known_elr: Some(partition.last_known_elr.clone()),
                ..PartitionChangeRecord::default()
            }
            .into()
        })
        .collect()
}

pub(super) fn config_record(
    resource: &ConfigResource,
    name: &str,
    value: Option<String>,
) -> ConfigRecord {
    ConfigRecord {
        resource_type: resource.resource_type.id(),
        resource_name: ByteStr::from(&resource.name),
        name: ByteStr::from(name),
        value: value.map(ByteStr::from),
        ..ConfigRecord::default()
    }
}

fn value_after(
    context: &Context<'_>,
    resource: &ConfigResource,
    name: &str,
    current: Option<&String>,
    change: &Change,
) -> Result<Option<String>, ApiError> {
    let (operation, items) = match change {
        Change::Set(value) => return Ok(Some(value.clone())),
        Change::Delete => return Ok(None),
        Change::Append(items) => ("APPEND", items),
        Change::Subtract(items) => ("SUBTRACT", items),
    };
    if !context.schema.is_list(resource.resource_type, name) {
        let message = format!("Can't {operation} to key {name} because its type is not LIST.");
        return Err(ApiError::new(ErrorCode::InvalidConfig, message));
    }
    let default = || context.schema.default_value(resource.resource_type, name);
    let list = current.cloned().or_else(default).unwrap_or_default();
    let mut list: Vec<&str> = list.split(',').filter(|item| !item.is_empty()).collect();
    for item in items.split(',') {
        let at = list.iter().position(|present| *present == item);
        match (change, at) {
            (Change::Append(_), None) => list.push(item),
            (Change::Subtract(_), Some(at)) => drop(list.remove(at)),
            _ => {}
        }
    }
    Ok(Some(list.join(",")))
}

fn check_value(
    context: &Context<'_>,
    resource: &ConfigResource,
    name: &str,
    value: Option<&str>,
) -> Result<(), ApiError> {
    let invalid = |message: &str| Err(ApiError::new(ErrorCode::InvalidConfig, message));
    if value.is_some_and(|value| value.len() > VALUE_LEN_MAX) {
        return invalid(
            "The configuration value cannot be added because it exceeds the maximum value size \
             of 32767 bytes.",
        );
    }
    if name == MIN_INSYNC_REPLICAS
        && resource.resource_type == ResourceType::Broker
        && context.image.elr_enabled()
    {
        if !resource.name.is_empty() {
            return invalid(
                "Broker-level min.insync.replicas cannot be altered while ELR is enabled.",
            );
        }
        if value.is_none() {
            return invalid(
                "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.",
            );
        }
    }
    Ok(())
}

fn check_resource(
    context: &Context<'_>,
    resource: &ConfigResource,
    new_topic: bool,
) -> Result<(), ApiError> {
    let invalid = |message: &str| Err(ApiError::new(ErrorCode::InvalidRequest, message));
    let name = resource.name.as_str();
    match resource.resource_type {
        ResourceType::Topic if name.is_empty() => {
            invalid("Default topic resources are not allowed.")
        }
        ResourceType::Topic => {
            if let Err(error) = topic_name::validate(name) {
                let message = invalid_name_message(name, error);
                return Err(ApiError::new(ErrorCode::InvalidTopicException, message));
            }
            if !new_topic && context.image.topic(name).is_none() {
                let message = format!("The topic '{name}' does not exist.");
                return Err(ApiError::new(ErrorCode::UnknownTopicOrPartition, message));
            }
            Ok(())
        }
        ResourceType::Broker if name.is_empty() => Ok(()),
        ResourceType::Broker => match name.parse::<i32>() {
            Err(_) => invalid("Unable to parse broker name as a base 10 number."),
            Ok(..0) => invalid("Invalid negative broker ID."),
            Ok(id) if is_node(context, id) => Ok(()),
            Ok(id) => {
                let message = format!("No node with id {id} found.");
                Err(ApiError::new(ErrorCode::BrokerIdNotRegistered, message))
            }
        },
        ResourceType::Group if name.is_empty() => {
            invalid("Default group resources are not allowed.")
        }
        ResourceType::ClientMetrics if name.is_empty() => {
            invalid("Subscription name can't be empty")
        }
        ResourceType::Group | ResourceType::ClientMetrics => Ok(()),
        ResourceType::BrokerLogger | ResourceType::Unknown => invalid(&format!(
            "Unexpected resource type {}.",
            resource.resource_type.name()
        )),
    }
}

fn is_node(context: &Context<'_>, id: i32) -> bool {
    id == context.node_id
        || context.image.broker(id).is_some()
        || context.image.cluster().controllers().contains_key(&id)
}
