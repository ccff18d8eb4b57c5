//! Making topics.

use std::collections::{BTreeMap, BTreeSet};

use klamm_metadata::{ConfigResource, LeaderRecoveryState, PartitionImage};
use klamm_protocol::messages::create_topics_request::CreatableTopic;
use klamm_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use klamm_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use klamm_protocol::metadata::{MetadataRecord, TopicRecord};
use klamm_protocol::topic_name::{self, TopicNameError};
use klamm_protocol::{ByteStr, ErrorCode};

use super::configs::{self, Change};
use super::{
    ApiError, Context, Outcome, PARTITIONS_PER_REQUEST_MAX, RECORDS_PER_REQUEST_MAX, placement,
};

/// Makes topics. `describable` says of which ones the asker may see the configs; the response
/// tells only theirs.
///
/// Each topic succeeds or fails on its own; those that succeed are made together.
pub fn create_topics(
    context: &Context<'_>,
    request: &CreateTopicsRequest,
    describable: &dyn Fn(&str) -> bool,
) -> Outcome<CreateTopicsResponse> {
    let excess = check_total_partitions(context, request).err();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *counts.entry(&topic.name).or_default() += 1;
    }
    let mut records = Vec::new();
    let mut response = CreateTopicsResponse::default();
    let mut answered = BTreeSet::new();
    // Names that come up twice are refused once, and names this request makes count as existing.
    for topic in request
        .topics
        .iter()
        .filter(|topic| answered.insert(&*topic.name))
    {
        let result = match &excess {
            Some(error) => Err(error.clone()),
            None if counts[&*topic.name] > 1 => Err(ApiError::new(
                ErrorCode::InvalidRequest,
                "Duplicate topic name.",
            )),
            None => create_topic(context, topic, describable(&topic.name)),
        };
        let result = result.and_then(|(new, result)| {
            if records.len() + new.len() > RECORDS_PER_REQUEST_MAX {
                return Err(excessive());
            }
            records.extend(new);
            Ok(result)
        });
        response
            .topics
            .push(result.unwrap_or_else(|error| CreatableTopicResult {
                name: topic.name.clone(),
                error_code: error.code.code(),
                error_message: error.wire_message(),
                ..CreatableTopicResult::default()
            }));
    }
    if request.validate_only {
        records.clear();
    }
    Outcome {
        records,
        reply: response,
    }
}

fn excessive() -> ApiError {
    let message = "Excessively large number of partitions per request.";
    ApiError::new(ErrorCode::PolicyViolation, message)
}

fn check_total_partitions(
    context: &Context<'_>,
    request: &CreateTopicsRequest,
) -> Result<(), ApiError> {
    let partitions_of = |topic: &CreatableTopic| match topic.num_partitions {
        _ if !topic.assignments.is_empty() => topic.assignments.len(),
        -1 => usize::try_from(context.settings.default_partitions).unwrap_or(0),
        count => usize::try_from(count).unwrap_or(0),
    };
    let total = request
        .topics
        .iter()
        .map(partitions_of)
        .fold(0, usize::saturating_add);
    if total > PARTITIONS_PER_REQUEST_MAX {
        return Err(excessive());
    }
    Ok(())
}

fn create_topic(
    context: &Context<'_>,
    topic: &CreatableTopic,
    describable: bool,
) -> Result<(Vec<MetadataRecord>, CreatableTopicResult), ApiError> {
    check_name(context, &topic.name)?;
    let overrides = overrides_of(topic)?;
    let resource = ConfigResource::topic(&topic.name);
    let changes = overrides
        .iter()
        .map(|(name, value)| (name.clone(), Change::Set(value.clone())));
    let config_records = configs::alter_new_topic(context, &resource, &changes.collect())?;

    let partitions = if topic.assignments.is_empty() {
        place(context, topic)?
    } else {
        assign(context, topic)?
    };
    let topic_id = context.new_uuid();
    let mut result = CreatableTopicResult {
        name: topic.name.clone(),
        topic_id,
        topic_config_error_code: ErrorCode::TopicAuthorizationFailed.code(),
        ..CreatableTopicResult::default()
    };
    if describable {
        describe(context, &mut result, &overrides, &partitions);
    }
    let version = context.image.metadata_version();
    let mut records: Vec<MetadataRecord> = vec![
        TopicRecord {
            name: topic.name.detached(),
            topic_id,
            ..Default::default()
        }
        .into(),
    ];
    records.extend(config_records);
    records.extend(
        partitions
            .iter()
            .map(|(&index, p)| p.to_record(topic_id, index, version).into()),
    );
    Ok((records, result))
}

fn check_name(context: &Context<'_>, name: &str) -> Result<(), ApiError> {
    if name == topic_name::CLUSTER_METADATA {
        let message = format!("Creation of internal topic {name} is prohibited.");
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    if let Err(error) = topic_name::validate(name) {
        let message = invalid_name_message(name, error);
        return Err(ApiError::new(ErrorCode::InvalidTopicException, message));
    }
    if context.image.topic(name).is_some() {
        let message = format!("Topic '{name}' already exists.");
        return Err(ApiError::new(ErrorCode::TopicAlreadyExists, message));
    }
    if let Some(other) = context.image.topics().colliding_with(name).first() {
        let message = format!("Topic '{name}' collides with existing topic: {other}");
        return Err(ApiError::new(ErrorCode::InvalidTopicException, message));
    }
    Ok(())
}

/// Kafka's text for a name that cannot be a topic's.
pub fn invalid_name_message(name: &str, error: TopicNameError) -> String {
    let prefix = "Topic name is invalid:";
    match error {
        TopicNameError::Empty => format!("{prefix} the empty string is not allowed"),
        TopicNameError::Dots => format!("{prefix} '{name}' is not allowed"),
        TopicNameError::TooLong(_) => format!(
            "{prefix} the length of '{name}' is longer than the max allowed length {}",
            topic_name::LEN_MAX
        ),
        TopicNameError::BadCharacter => format!(
            "{prefix} '{name}' contains one or more characters other than ASCII alphanumerics, \
             '.', '_' and '-'"
        ),
    }
}

fn overrides_of(topic: &CreatableTopic) -> Result<BTreeMap<String, String>, ApiError> {
    let nulls: Vec<&str> = topic
        .configs
        .iter()
        .filter(|c| c.value.is_none())
        .map(|c| &*c.name)
        .collect();
    if !nulls.is_empty() {
        let message = format!(
            "Null value not supported for topic configs: {}",
            nulls.join(",")
        );
        return Err(ApiError::new(ErrorCode::InvalidConfig, message));
    }
    let pair = |config: &klamm_protocol::messages::create_topics_request::CreatableTopicConfig| {
        Some((config.name.to_string(), config.value.as_ref()?.to_string()))
    };
    Ok(topic.configs.iter().filter_map(pair).collect())
}

/// Partitions with replicas that the controller chooses.
fn place(
    context: &Context<'_>,
    topic: &CreatableTopic,
) -> Result<BTreeMap<i32, PartitionImage>, ApiError> {
    if topic.replication_factor < -1 || topic.replication_factor == 0 {
        return Err(ApiError::new(
            ErrorCode::InvalidReplicationFactor,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        ));
    }
    if topic.num_partitions < -1 || topic.num_partitions == 0 {
        return Err(ApiError::new(
            ErrorCode::InvalidPartitions,
            "Number of partitions was set to an invalid non-positive value.",
        ));
    }
    let partitions = match topic.num_partitions {
        -1 => context.settings.default_partitions,
        count => count,
    };
    let replicas = match topic.replication_factor {
        -1 => context.settings.default_replication_factor,
        factor => factor,
    };
    let placed = place_partitions(context, 0, partitions, replicas)?;
    Ok(placed.into_iter().collect())
}

/// `count` new partitions from index `first` on, with replicas that the controller chooses.
pub(super) fn place_partitions(
    context: &Context<'_>,
    first: i32,
    count: i32,
    replicas: i16,
) -> Result<Vec<(i32, PartitionImage)>, ApiError> {
    let refuse = |reason: &str| {
        let message = format!("Unable to replicate the partition {replicas} time(s): {reason}");
        ApiError::new(ErrorCode::InvalidReplicationFactor, message)
    };
    let brokers = placement::usable_brokers(context.image);
    let count = usize::try_from(count).unwrap_or(0);
    let placed = placement::place(&brokers, count, replicas, context.rng)
        .map_err(|error| refuse(&error.to_string()))?;
    (first..)
        .zip(placed)
        .map(|(index, replicas)| {
            let partition = new_partition(context, replicas).ok_or_else(|| {
                refuse("All brokers are currently fenced or in controlled shutdown.")
            })?;
            Ok((index, partition))
        })
        .collect()
}

/// Partitions with the replicas that the request names.
fn assign(
    context: &Context<'_>,
    topic: &CreatableTopic,
) -> Result<BTreeMap<i32, PartitionImage>, ApiError> {
    let misplaced = |what: &str| {
        let message =
            format!("A manual partition assignment was specified, but {what} was not set to -1.");
        Err(ApiError::new(ErrorCode::InvalidRequest, message))
    };
    if topic.replication_factor != -1 {
        return misplaced("replication factor");
    }
    if topic.num_partitions != -1 {
        return misplaced("numPartitions");
    }
    let mut partitions = BTreeMap::new();
    let mut replication_factor = None;
    for assignment in &topic.assignments {
        let index = assignment.partition_index;
        if partitions.contains_key(&index) {
            return Err(ApiError::new(
                ErrorCode::InvalidReplicaAssignment,
                format!("Found multiple manual partition assignments for partition {index}"),
            ));
        }
        check_assignment(context, &assignment.broker_ids, replication_factor)?;
        replication_factor = Some(assignment.broker_ids.len());
        partitions.insert(
            index,
            assigned_partition(context, index, &assignment.broker_ids)?,
        );
    }
    if !partitions.keys().copied().eq((0..).take(partitions.len())) {
        return Err(ApiError::new(
            ErrorCode::InvalidReplicaAssignment,
            "partitions should be a consecutive 0-based integer sequence",
        ));
    }
    Ok(partitions)
}

/// A new partition with given replicas.
pub(super) fn assigned_partition(
    context: &Context<'_>,
    index: i32,
    replicas: &[i32],
) -> Result<PartitionImage, ApiError> {
    new_partition(context, replicas.to_vec()).ok_or_else(|| {
        ApiError::new(
            ErrorCode::InvalidReplicaAssignment,
            format!(
                "All brokers specified in the manual partition assignment for partition {index} \
                 are fenced or in controlled shutdown."
            ),
        )
    })
}

/// Checks replicas that a request names for a partition.
pub(super) fn check_assignment(
    context: &Context<'_>,
    replicas: &[i32],
    replication_factor: Option<usize>,
) -> Result<(), ApiError> {
    let refuse = |what: String| {
        let message = format!("The manual partition assignment includes {what}");
        Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message))
    };
    if replicas.is_empty() {
        return refuse("an empty replica list.".to_owned());
    }
    let mut sorted = replicas.to_vec();
    sorted.sort_unstable();
    let mut previous = None;
    for broker in sorted {
        if context.image.broker(broker).is_none() {
            return refuse(format!(
                "broker {broker}, but no such broker is registered."
            ));
        }
        if previous == Some(broker) {
            return refuse(format!("the broker {broker} more than once."));
        }
        previous = Some(broker);
    }
    match replication_factor {
        Some(factor) if factor != replicas.len() => refuse(format!(
            "a partition with {} replica(s), but this is not consistent with previous \
             partitions, which have {factor} replica(s).",
            replicas.len()
        )),
        _ => Ok(()),
    }
}

/// A new partition; `None` if none of its replicas could lead.
fn new_partition(context: &Context<'_>, replicas: Vec<i32>) -> Option<PartitionImage> {
    let isr: Vec<i32> = replicas
        .iter()
        .copied()
        .filter(|&r| context.is_active(r))
        .collect();
    Some(PartitionImage {
        directories: replicas
            .iter()
            .map(|&replica| context.default_dir(replica))
            .collect(),
        leader: *isr.first()?,
        isr,
        replicas,
        leader_recovery_state: LeaderRecoveryState::Recovered,
        ..PartitionImage::default()
    })
}

fn describe(
    context: &Context<'_>,
    result: &mut CreatableTopicResult,
    overrides: &BTreeMap<String, String>,
    partitions: &BTreeMap<i32, PartitionImage>,
) {
    let image = context.image;
    let effective = context.schema.effective_topic_configs(
        image.config(&ConfigResource::cluster()),
        image.config(&ConfigResource::broker(context.node_id)),
        overrides,
    );
    let configs = effective.into_iter().map(|config| CreatableTopicConfigs {
        name: config.name.into(),
        value: config.value.map(ByteStr::from),
        read_only: config.read_only,
        config_source: config.source,
        is_sensitive: config.sensitive,
        ..CreatableTopicConfigs::default()
    });
    result.configs = Some(configs.collect());
    result.topic_config_error_code = ErrorCode::None.code();
    result.num_partitions = i32::try_from(partitions.len()).unwrap_or(i32::MAX);
    let replicas = partitions
        .values()
        .next()
        .map_or(0, |partition| partition.replicas.len());
    result.replication_factor = i16::try_from(replicas).unwrap_or(i16::MAX);
}
