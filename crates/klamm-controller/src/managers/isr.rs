//! Which replicas are in sync, as leaders report it.

use klamm_metadata::{LeaderRecoveryState, PartitionImage, TopicImage};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_partition_request::{BrokerState, PartitionData};
use klamm_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, alter_partition_response as altered,
};
use klamm_protocol::metadata::MetadataRecord;

use super::partition_change::{Election, PartitionChange};
use super::{ApiError, Context, Outcome};

/// Changes the in-sync replicas of partitions, as their leader asks. The leader tells the epochs it
/// knows; whoever has been overtaken is refused, so that two leaders never both succeed.
pub fn alter_partition(
    context: &Context<'_>,
    request: &AlterPartitionRequest,
) -> Result<Outcome<AlterPartitionResponse>, ApiError> {
    context.check_broker_epoch(request.broker_id, request.broker_epoch)?;
    let mut records = Vec::new();
    let mut response = AlterPartitionResponse::default();
    for asked in &request.topics {
        let topic = context.image.topic_by_id(asked.topic_id);
        let partitions = asked.partitions.iter().map(|partition| {
            let result = topic.ok_or(ErrorCode::UnknownTopicId).and_then(|topic| {
                alter(context, request.broker_id, topic, partition, &mut records)
            });
            result.unwrap_or_else(|error| altered::PartitionData {
                partition_index: partition.partition_index,
                error_code: error.code(),
                ..Default::default()
            })
        });
        let partitions = partitions.collect();
        let topic_id = asked.topic_id;
        response.topics.push(altered::TopicData {
            topic_id,
            partitions,
            ..Default::default()
        });
    }
    Ok(Outcome {
        records,
        reply: response,
    })
}

fn alter(
    context: &Context<'_>,
    broker: i32,
    topic: &TopicImage,
    asked: &PartitionData,
    records: &mut Vec<MetadataRecord>,
) -> Result<altered::PartitionData, ErrorCode> {
    let index = asked.partition_index;
    let partition = topic
        .partition(index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    // Before version 3 the epochs of the replicas' brokers are not told.
    let isr: Vec<BrokerState> = if asked.new_isr_with_epochs.is_empty() {
        let unknown = |&broker_id: &i32| BrokerState {
            broker_id,
            broker_epoch: -1,
            ..BrokerState::default()
        };
        asked.new_isr.iter().map(unknown).collect()
    } else {
        asked.new_isr_with_epochs.clone()
    };
    let recovery_state = check(context, broker, partition, asked, &isr)?;
    let may_lead = |broker| context.is_active(broker);
    let election = if context.unclean_election_enabled(topic.name()) {
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
    .isr(isr.iter().map(|state| state.broker_id).collect())
    .recovery_state(recovery_state)
    .build();
    let Some(change) = change else {
        return Ok(answer(index, partition));
    };
    // The record was made from this very partition, so it merges; were it not to, a lost update
    // would be reported as unknown rather than as done.
    let partition = partition
        .merge(&change)
        .map_err(|_| ErrorCode::UnknownServerError)?;
    let elected_another = change.leader != -2 && change.leader != broker;
    records.push(change.into());
    if elected_another {
        // A reassignment completed and took the leadership away: the answer is no longer its to use.
        return Err(ErrorCode::NewLeaderElected);
    }
    Ok(answer(index, &partition))
}

fn answer(index: i32, partition: &PartitionImage) -> altered::PartitionData {
    altered::PartitionData {
        partition_index: index,
        leader_id: partition.leader,
        leader_epoch: partition.leader_epoch,
        isr: partition.isr.clone(),
        leader_recovery_state: partition.leader_recovery_state.value(),
        partition_epoch: partition.partition_epoch,
        ..Default::default()
    }
}

fn check(
    context: &Context<'_>,
    broker: i32,
    partition: &PartitionImage,
    asked: &PartitionData,
    isr: &[BrokerState],
) -> Result<LeaderRecoveryState, ErrorCode> {
    // A leader that knows more than the controller talks to one that has been replaced.
    if asked.leader_epoch > partition.leader_epoch
        || asked.partition_epoch > partition.partition_epoch
    {
        return Err(ErrorCode::NotController);
    }
    if asked.leader_epoch < partition.leader_epoch {
        return Err(ErrorCode::FencedLeaderEpoch);
    }
    if broker != partition.leader {
        return Err(ErrorCode::InvalidRequest);
    }
    if asked.partition_epoch < partition.partition_epoch {
        return Err(ErrorCode::InvalidUpdateVersion);
    }
    let mut brokers: Vec<i32> = isr.iter().map(|state| state.broker_id).collect();
    let includes_leader = brokers.contains(&partition.leader);
    brokers.sort_unstable();
    brokers.dedup();
    let only_replicas = brokers
        .iter()
        .all(|broker| partition.replicas.contains(broker));
    if !includes_leader || !only_replicas || brokers.len() != isr.len() {
        return Err(ErrorCode::InvalidRequest);
    }
    let state = LeaderRecoveryState::from_value(asked.leader_recovery_state)
        .ok_or(ErrorCode::InvalidRequest)?;
    if state == LeaderRecoveryState::Recovering
        && (isr.len() > 1 || partition.leader_recovery_state == LeaderRecoveryState::Recovered)
    {
        return Err(ErrorCode::InvalidRequest);
    }
    if !isr.iter().all(|state| is_eligible(context, state)) {
        return Err(ErrorCode::IneligibleReplica);
    }
    Ok(state)
}

/// Whether a replica's broker is alive, and still the process that the leader means (KIP-903).
fn is_eligible(context: &Context<'_>, state: &BrokerState) -> bool {
    context.image.broker(state.broker_id).is_some_and(|broker| {
        broker.is_active() && (state.broker_epoch == -1 || state.broker_epoch == broker.epoch)
    })
}
