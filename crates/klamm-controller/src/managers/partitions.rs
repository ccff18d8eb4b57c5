//! More partitions for topics, and the directories that replicas live in.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use klamm_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use klamm_protocol::messages::{
    AssignReplicasToDirsRequest, AssignReplicasToDirsResponse, CreatePartitionsRequest,
    CreatePartitionsResponse, assign_replicas_to_dirs_response as assigned,
};
use klamm_protocol::metadata::MetadataRecord;
use klamm_records::Uuid;

use super::elections::{Departure, leader_and_isr_updates};
use super::partition_change::PartitionChange;
use super::topics::{assigned_partition, check_assignment, place_partitions};
use super::{ApiError, Context, Outcome, PARTITIONS_PER_REQUEST_MAX, wire_result};

/// Adds partitions to topics.
pub fn create_partitions(
    context: &Context<'_>,
    request: &CreatePartitionsRequest,
) -> Outcome<CreatePartitionsResponse> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *counts.entry(&topic.name).or_default() += 1;
    }
    let mut records = Vec::new();
    let mut response = CreatePartitionsResponse::default();
    let mut answered = BTreeSet::new();
    for topic in request
        .topics
        .iter()
        .filter(|topic| answered.insert(&*topic.name))
    {
        let result = if counts[&*topic.name] > 1 {
            Err(ApiError::new(
                ErrorCode::InvalidRequest,
                "Duplicate topic name.",
            ))
        } else {
            add_partitions(context, topic, &mut records)
        };
        let (error_code, error_message) = wire_result(&result);
        response.results.push(CreatePartitionsTopicResult {
            name: topic.name.clone(),
            error_code,
            error_message,
            ..CreatePartitionsTopicResult::default()
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

fn add_partitions(
    context: &Context<'_>,
    request: &CreatePartitionsTopic,
    records: &mut Vec<MetadataRecord>,
) -> Result<(), ApiError> {
    let topic = context
        .image
        .topic(&request.name)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let present = i32::try_from(topic.partition_count()).unwrap_or(i32::MAX);
    let invalid = |message| Err(ApiError::new(ErrorCode::InvalidPartitions, message));
    if request.count == present {
        return invalid(format!("Topic already has {present} partition(s)."));
    }
    if request.count < present {
        return invalid(format!(
            "The topic {} currently has {present} partition(s); {} would not be an increase.",
            request.name, request.count
        ));
    }
    let additional = request.count - present;
    if usize::try_from(additional).unwrap_or(usize::MAX)
        > PARTITIONS_PER_REQUEST_MAX - records.len()
    {
        let message = "Excessively large number of partitions per request.";
        return Err(ApiError::new(ErrorCode::PolicyViolation, message));
    }
    let replicas = topic.replication_factor();
    let partitions = match &request.assignments {
        Some(assignments) => {
            if i32::try_from(assignments.len()) != Ok(additional) {
                let message = format!(
                    "Attempted to add {additional} additional partition(s), but only {} \
                     assignment(s) were specified.",
                    assignments.len()
                );
                return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message));
            }
            let assign = |(index, brokers): (i32, &Vec<i32>)| {
                check_assignment(context, brokers, Some(replicas))?;
                Ok((index, assigned_partition(context, index, brokers)?))
            };
            let brokers = assignments.iter().map(|assignment| &assignment.broker_ids);
            (present..)
                .zip(brokers)
                .map(assign)
                .collect::<Result<Vec<_>, ApiError>>()?
        }
        None => {
            let replicas = i16::try_from(replicas).unwrap_or(i16::MAX);
            place_partitions(context, present, additional, replicas)?
        }
    };
    let version = context.image.metadata_version();
    let (id, partitions) = (topic.id(), partitions.into_iter());
    records.extend(partitions.map(|(index, p)| p.to_record(id, index, version).into()));
    Ok(())
}

/// Notes in which directory of a broker each replica lives.
pub fn assign_replicas_to_dirs(
    context: &Context<'_>,
    request: &AssignReplicasToDirsRequest,
) -> Result<Outcome<AssignReplicasToDirsResponse>, ApiError> {
    if !context
        .image
        .metadata_version()
        .supports_directory_assignment()
    {
        let message = "Directory assignment is not supported yet.";
        return Err(ApiError::new(ErrorCode::UnsupportedVersion, message));
    }
    let broker_id = request.broker_id;
    context.check_broker_epoch(broker_id, request.broker_epoch)?;
    let mut assignment = Assignment {
        context,
        broker_id,
        records: Vec::new(),
        offline: Vec::new(),
    };
    let mut response = AssignReplicasToDirsResponse::default();
    for directory in &request.directories {
        let topics = directory.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let index = partition.partition_index;
                let result = assignment.assign(topic.topic_id, index, directory.id);
                assigned::PartitionData {
                    partition_index: index,
                    error_code: result.err().unwrap_or(ErrorCode::None).code(),
                    ..Default::default()
                }
            });
            let partitions = partitions.collect();
            assigned::TopicData {
                topic_id: topic.topic_id,
                partitions,
                ..Default::default()
            }
        });
        let topics = topics.collect();
        let directory = assigned::DirectoryData {
            id: directory.id,
            topics,
            ..Default::default()
        };
        response.directories.push(directory);
    }
    let Assignment {
        mut records,
        offline,
        ..
    } = assignment;
    records.extend(leader_and_isr_updates(
        context,
        Departure::remove(broker_id),
        offline,
    ));
    Ok(Outcome {
        records,
        reply: response,
    })
}

struct Assignment<'a> {
    context: &'a Context<'a>,
    broker_id: i32,
    records: Vec<MetadataRecord>,
    /// Partitions that turned out to live in a directory that is not online.
    offline: Vec<(Uuid, i32)>,
}

impl Assignment<'_> {
    fn assign(&mut self, topic_id: Uuid, index: i32, directory: Uuid) -> Result<(), ErrorCode> {
        let image = self.context.image;
        let topic = image
            .topic_by_id(topic_id)
            .ok_or(ErrorCode::UnknownTopicId)?;
        let partition = topic
            .partition(index)
            .ok_or(ErrorCode::UnknownTopicOrPartition)?;
        if !partition.replicas.contains(&self.broker_id) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let may_lead = |broker| self.context.is_active(broker);
        let change = PartitionChange::new(
            self.context,
            topic.name(),
            topic_id,
            index,
            partition,
            &may_lead,
        )
        .directory(self.broker_id, directory)
        .build();
        self.records.extend(change.map(MetadataRecord::from));
        let online = image
            .broker(self.broker_id)
            .is_some_and(|b| b.has_online_dir(directory));
        if !online {
            self.offline.push((topic_id, index));
        }
        Ok(())
    }
}
