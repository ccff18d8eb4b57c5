//! Moving partitions to other replicas.

use klamm_metadata::MetadataImage;
use klamm_metadata::{PartitionImage, TopicImage};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use klamm_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use klamm_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use klamm_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};
use klamm_protocol::metadata::{MetadataRecord, PartitionChangeRecord};

use super::partition_change::{Election, PartitionChange};
use super::topics::check_assignment;
use super::{ApiError, Context, Outcome, wire_result};

/// Starts, changes and cancels reassignments. Each partition succeeds or fails on its own.
pub fn alter_partition_reassignments(
    context: &Context<'_>,
    request: &AlterPartitionReassignmentsRequest,
) -> Outcome<AlterPartitionReassignmentsResponse> {
    let mut records: Vec<MetadataRecord> = Vec::new();
    let mut response = AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        ..AlterPartitionReassignmentsResponse::default()
    };
    for topic in &request.topics {
        let partitions = topic.partitions.iter().map(|target| {
            let change = alter(
                context,
                &topic.name,
                target,
                request.allow_replication_factor_change,
            );
            let result = change.map(|change| records.extend(change.map(MetadataRecord::from)));
            let (error_code, error_message) = wire_result(&result);
            ReassignablePartitionResponse {
                partition_index: target.partition_index,
                error_code,
                error_message,
                ..ReassignablePartitionResponse::default()
            }
        });
        let partitions = partitions.collect();
        let name = topic.name.clone();
        response.responses.push(ReassignableTopicResponse {
            name,
            partitions,
            ..Default::default()
        });
    }
    Outcome {
        records,
        reply: response,
    }
}

fn alter(
    context: &Context<'_>,
    name: &str,
    target: &ReassignablePartition,
    allow_replication_factor_change: bool,
) -> Result<Option<PartitionChangeRecord>, ApiError> {
    let unknown = |message| ApiError::new(ErrorCode::UnknownTopicOrPartition, message);
    let topic = context
        .image
        .topic(name)
        .ok_or_else(|| unknown(format!("Unable to find a topic named {name}.")))?;
    let index = target.partition_index;
    let partition = topic
        .partition(index)
        .ok_or_else(|| unknown(format!("Unable to find partition {name}:{index}.")))?;
    match &target.replicas {
        Some(replicas) => {
            check_assignment(context, replicas, None)?;
            if !allow_replication_factor_change {
                check_factor(partition, replicas.len())?;
            }
            Ok(reassign(context, topic, index, partition, replicas))
        }
        None => cancel(context, topic, index, partition),
    }
}

fn check_factor(partition: &PartitionImage, target: usize) -> Result<(), ApiError> {
    let removing = |replica: &&i32| !partition.removing_replicas.contains(replica);
    let current = partition.replicas.iter().filter(removing).count();
    if current != target {
        let message = format!("The replication factor is changed from {current} to {target}");
        return Err(ApiError::new(ErrorCode::InvalidReplicationFactor, message));
    }
    Ok(())
}

/// The way to `target` replicas: first all of them along with the old ones, then, once the new
/// ones are in sync, without the old ones. A reassignment under way is taken over: what it was
/// adding and is no longer wanted is removed.
fn reassign(
    context: &Context<'_>,
    topic: &TopicImage,
    index: i32,
    partition: &PartitionImage,
    target: &[i32],
) -> Option<PartitionChangeRecord> {
    let current = &partition.replicas;
    let mut removing: Vec<i32> = current
        .iter()
        .copied()
        .filter(|r| !target.contains(r))
        .collect();
    removing.sort_unstable();
    let mut adding: Vec<i32> = target
        .iter()
        .copied()
        .filter(|r| !current.contains(r))
        .collect();
    adding.sort_unstable();
    let replicas: Vec<i32> = target.iter().chain(&removing).copied().collect();

    let may_lead = |broker| context.is_active(broker);
    let mut change = PartitionChange::new(
        context,
        topic.name(),
        topic.id(),
        index,
        partition,
        &may_lead,
    )
    .replicas(replicas);
    if !removing.is_empty() {
        change = change.removing(removing);
    }
    if !adding.is_empty() {
        change = change.adding(adding);
    }
    change.build()
}

fn cancel(
    context: &Context<'_>,
    topic: &TopicImage,
    index: i32,
    partition: &PartitionImage,
) -> Result<Option<PartitionChangeRecord>, ApiError> {
    if !partition.is_reassigning() {
        return Err(ErrorCode::NoReassignmentInProgress.into());
    }
    let invalid = |message| ApiError::new(ErrorCode::InvalidReplicaAssignment, message);
    let kept = |list: &[i32]| -> Vec<i32> {
        list.iter()
            .copied()
            .filter(|r| !partition.adding_replicas.contains(r))
            .collect()
    };
    let (replicas, mut isr) = (kept(&partition.replicas), kept(&partition.isr));
    let Some(&first) = replicas.first() else {
        let message = "Invalid replica assignment: addingReplicas contains all replicas.";
        return Err(invalid(message.to_owned()));
    };
    let unclean_enabled = context.unclean_election_enabled(topic.name());
    if isr.is_empty() {
        if !unclean_enabled {
            return Err(invalid(format!(
                "Unable to revert partition assignment for {}:{index} because it would require \
                 an unclean leader election.",
                topic.name()
            )));
        }
        isr.push(first);
    }
    let may_lead = |broker| context.is_active(broker);
    let election = if unclean_enabled {
        Election::Unclean
    } else {
        Election::Online
    };
    let change = PartitionChange::new(
        context,
        topic.name(),
        topic.id(),
        index,
        partition,
        &may_lead,
    )
    .election(election)
    .isr(isr)
    .replicas(replicas)
    .removing(Vec::new())
    .adding(Vec::new());
    Ok(change.build())
}

/// Reassignments under way, of the partitions that the request names or of all.
pub fn list_partition_reassignments(
    image: &MetadataImage,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let mut response = ListPartitionReassignmentsResponse::default();
    let mut list = |topic: &TopicImage, indexes: &mut dyn Iterator<Item = i32>| {
        let ongoing = |index: i32| {
            let partition = topic
                .partition(index)
                .filter(|partition| partition.is_reassigning())?;
            Some(OngoingPartitionReassignment {
                partition_index: index,
                replicas: partition.replicas.clone(),
                adding_replicas: partition.adding_replicas.clone(),
                removing_replicas: partition.removing_replicas.clone(),
                ..OngoingPartitionReassignment::default()
            })
        };
        let partitions: Vec<_> = indexes.filter_map(ongoing).collect();
        if !partitions.is_empty() {
            let name = (&**topic.name()).into();
            response.topics.push(OngoingTopicReassignment {
                name,
                partitions,
                ..Default::default()
            });
        }
    };
    match &request.topics {
        Some(topics) => {
            for asked in topics {
                if let Some(topic) = image.topic(&asked.name) {
                    list(topic, &mut asked.partition_indexes.iter().copied());
                }
            }
        }
        None => {
            for topic in image.topics().iter() {
                list(topic, &mut topic.partitions().map(|(index, _)| index));
            }
        }
    }
    response
}
