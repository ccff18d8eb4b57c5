//! Leaders: those that are asked for, and those that brokers leave behind.

use klamm_metadata::{NO_LEADER, PartitionImage, TopicImage};
use klamm_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use klamm_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use klamm_protocol::metadata::MetadataRecord;
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

use super::partition_change::{Election, PartitionChange};
use super::{ApiError, Context, Outcome, wire_result};

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// Elects leaders of the partitions that the request names, or of all.
pub fn elect_leaders(
    context: &Context<'_>,
    request: &ElectLeadersRequest,
) -> Result<Outcome<ElectLeadersResponse>, ApiError> {
    let election = match request.election_type {
        PREFERRED => Election::Preferred,
        UNCLEAN => Election::Unclean,
        other => {
            let message = format!("Unknown election type {other}");
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
    };
    let mut records = Vec::new();
    let mut response = ElectLeadersResponse::default();
    let mut answer = |topic: ByteStr, partitions: &mut dyn Iterator<Item = i32>, all: bool| {
        let mut results = Vec::new();
        for partition_id in partitions {
            let result = elect_leader(context, &topic, partition_id, election);
            // Of all partitions only those are told that had to be looked at.
            let not_needed = result
                .as_ref()
                .is_err_and(|error| error.code == ErrorCode::ElectionNotNeeded);
            if all && not_needed {
                continue;
            }
            let result = result.map(|record| records.push(record));
            let (error_code, error_message) = wire_result(&result);
            results.push(PartitionResult {
                partition_id,
                error_code,
                error_message,
                ..PartitionResult::default()
            });
        }
        response
            .replica_election_results
            .push(ReplicaElectionResult {
                topic,
                partition_result: results,
                ..ReplicaElectionResult::default()
            });
    };
    match &request.topic_partitions {
        Some(topics) => {
            for topic in topics {
                answer(
                    topic.topic.clone(),
                    &mut topic.partitions.iter().copied(),
                    false,
                );
            }
        }
        None => {
            for topic in context.image.topics().iter() {
                let mut partitions = topic.partitions().map(|(index, _)| index);
                answer(ByteStr::from(&**topic.name()), &mut partitions, true);
            }
        }
    }
    Ok(Outcome {
        records,
        reply: response,
    })
}

fn elect_leader(
    context: &Context<'_>,
    name: &str,
    index: i32,
    election: Election,
) -> Result<MetadataRecord, ApiError> {
    let unknown = |message| ApiError::new(ErrorCode::UnknownTopicOrPartition, message);
    let topic = context
        .image
        .topic(name)
        .ok_or_else(|| unknown(format!("No such topic as {name}")))?;
    let partition = topic
        .partition(index)
        .ok_or_else(|| unknown(format!("No such partition as {name}-{index}")))?;
    let (not_needed, impossible) = match election {
        Election::Unclean => (
            partition.has_leader(),
            ErrorCode::EligibleLeadersNotAvailable,
        ),
        _ => (
            partition.has_preferred_leader(),
            ErrorCode::PreferredLeaderNotAvailable,
        ),
    };
    if not_needed {
        return Err(ErrorCode::ElectionNotNeeded.into());
    }
    elect(context, topic, index, partition, election).ok_or_else(|| impossible.into())
}

fn elect(
    context: &Context<'_>,
    topic: &TopicImage,
    index: i32,
    partition: &PartitionImage,
    election: Election,
) -> Option<MetadataRecord> {
    let may_lead = |broker| context.is_active(broker);
    PartitionChange::new(
        context,
        topic.name(),
        topic.id(),
        index,
        partition,
        &may_lead,
    )
    .election(election)
    .build()
    .map(MetadataRecord::from)
}

/// Gives leadership back to preferred replicas, for at most `max` partitions.
pub fn balance_leaders(context: &Context<'_>, max: usize) -> Vec<MetadataRecord> {
    partitions(context)
        .filter(|(_, _, partition)| !partition.has_preferred_leader())
        .filter_map(|(topic, index, partition)| {
            elect(context, topic, index, partition, Election::Preferred)
        })
        .take(max)
        .collect()
}

/// Elects a leader uncleanly where there is none and the topic permits it, for at most `max`
/// partitions.
pub fn elect_leaderless(context: &Context<'_>, max: usize) -> Vec<MetadataRecord> {
    partitions(context)
        .filter(|(_, _, partition)| !partition.has_leader())
        .filter(|(topic, _, _)| context.unclean_election_enabled(topic.name()))
        .filter_map(|(topic, index, partition)| {
            elect(context, topic, index, partition, Election::Unclean)
        })
        .take(max)
        .collect()
}

/// What happens to a broker, as its partitions see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Departure {
    /// Leaves the ISRs and leads no more.
    pub(super) removed: Option<i32>,
    /// May lead from now on, though the image has it fenced still.
    pub(super) added: Option<i32>,
    /// Came back without having shut down: leaves ISRs and eligible replicas.
    pub(super) uncleanly_shut_down: Option<i32>,
}

impl Departure {
    pub(super) fn remove(broker: i32) -> Self {
        Departure {
            removed: Some(broker),
            ..Departure::default()
        }
    }
}

/// What follows for the partitions `affected` when a broker comes or goes.
pub(super) fn leader_and_isr_updates(
    context: &Context<'_>,
    departure: Departure,
    affected: impl IntoIterator<Item = (Uuid, i32)>,
) -> Vec<MetadataRecord> {
    let Departure {
        removed,
        added,
        uncleanly_shut_down,
    } = departure;
    let gone = |broker: i32| removed == Some(broker) || uncleanly_shut_down == Some(broker);
    let may_lead =
        |broker: i32| !gone(broker) && (added == Some(broker) || context.is_active(broker));
    affected
        .into_iter()
        .filter_map(|(topic_id, index)| {
            let topic = context.image.topic_by_id(topic_id)?;
            let partition = topic.partition(index)?;
            let election = if context.unclean_election_enabled(topic.name()) {
                Election::Unclean
            } else {
                Election::Online
            };
            PartitionChange::new(context, topic.name(), topic_id, index, partition, &may_lead)
                .election(election)
                .uncleanly_shut_down(uncleanly_shut_down)
                .isr(
                    partition
                        .isr
                        .iter()
                        .copied()
                        .filter(|&replica| !gone(replica))
                        .collect(),
                )
                .build()
                .map(MetadataRecord::from)
        })
        .collect()
}

/// All partitions, topics by name.
pub(super) fn partitions<'a>(
    context: &Context<'a>,
) -> impl Iterator<Item = (&'a TopicImage, i32, &'a PartitionImage)> + use<'a> {
    context.image.topics().iter().flat_map(|topic| {
        topic
            .partitions()
            .map(move |(index, partition)| (&**topic, index, &**partition))
    })
}

/// Partitions that `pick` picks.
pub(super) fn partitions_where(
    context: &Context<'_>,
    pick: impl Fn(&PartitionImage) -> bool,
) -> Vec<(Uuid, i32)> {
    partitions(context)
        .filter(|(_, _, partition)| pick(partition))
        .map(|(topic, index, _)| (topic.id(), index))
        .collect()
}

/// Whether a broker leads any partition.
pub(super) fn leads_any(context: &Context<'_>, broker: i32) -> bool {
    partitions(context).any(|(_, _, partition)| partition.leader == broker)
}

/// Partitions without leader.
pub(super) fn leaderless(context: &Context<'_>) -> Vec<(Uuid, i32)> {
    partitions_where(context, |partition| partition.leader == NO_LEADER)
}
