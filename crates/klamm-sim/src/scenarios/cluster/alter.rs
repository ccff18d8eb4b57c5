//! From the leaders' proposals to the controller's AlterPartition and back.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use klamm_env::Rng as _;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use klamm_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, alter_partition_response,
};
use klamm_records::{TopicPartition, Uuid};
use klamm_replication::ProposalSink;
use klamm_replication::partition::{IsrProposal, PartitionMetadata};
use tokio::sync::Notify;

use super::Flaw;
use super::asking;
use super::node::Broker;
use super::world::World;

type Proposed = BTreeMap<TopicPartition, (Uuid, IsrProposal)>;

/// Proposals that have yet to be sent, the newest of each partition.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    waiting: Mutex<Proposed>,
    some: Notify,
}

impl ProposalSink for Proposals {
    fn propose(&self, partition: &TopicPartition, topic_id: Uuid, proposal: IsrProposal) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(partition.clone(), (topic_id, proposal));
        drop(waiting);
        self.some.notify_one();
    }
}

impl Proposals {
    fn take(&self) -> Proposed {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was not answered is asked again, unless there is something newer.
    fn put_back(&self, proposed: Proposed) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, proposal) in proposed {
            waiting.entry(partition).or_insert(proposal);
        }
        drop(waiting);
        self.some.notify_one();
    }
}

/// Takes proposals to the controller, until the broker dies.
pub(super) async fn proposals(world: World, broker: Broker) {
    loop {
        broker.proposals.some.notified().await;
        world.sleep_ms(broker.rng.below(5)).await;
        let mut proposed = broker.proposals.take();
        if world.flaw == Flaw::ShrinkAlone {
            proposed.retain(|partition, (_, proposal)| !shrink(&broker, partition, proposal));
        }
        if proposed.is_empty() {
            continue;
        }
        for (partition, (_, proposal)) in &proposed {
            world.note(format_args!(
                "{} proposes {partition} {proposal:?}",
                broker.id
            ));
        }
        match ask(&world, &broker, &proposed).await {
            Ok(answered) => answer(&world, &broker, &proposed, &answered),
            Err(error) => {
                let id = broker.id;
                world.note(format_args!(
                    "the proposals of {id} are not answered: {error:?}"
                ));
                world.sleep_ms(50 + broker.rng.below(100)).await;
                broker.proposals.put_back(proposed);
            }
        }
    }
}

async fn ask(
    world: &World,
    broker: &Broker,
    proposed: &Proposed,
) -> Result<AlterPartitionResponse, ErrorCode> {
    let timeout = world.plan.timing.request;
    asking::ask(world, broker, request(broker, proposed), timeout).await
}

fn request(broker: &Broker, proposed: &Proposed) -> AlterPartitionRequest {
    let topics = proposed.iter().map(|(partition, (topic_id, proposal))| {
        let member = |member: &klamm_replication::partition::IsrMember| BrokerState {
            broker_id: member.id,
            broker_epoch: if member.id == broker.id {
                broker.epoch()
            } else {
                member.broker_epoch
            },
            ..BrokerState::default()
        };
        TopicData {
            topic_id: *topic_id,
            partitions: vec![PartitionData {
                partition_index: partition.partition,
                leader_epoch: proposal.leader_epoch,
                new_isr_with_epochs: proposal.isr.iter().map(member).collect(),
                partition_epoch: proposal.partition_epoch,
                ..PartitionData::default()
            }],
            ..TopicData::default()
        }
    });
    AlterPartitionRequest {
        broker_id: broker.id,
        broker_epoch: broker.epoch(),
        topics: topics.collect(),
        ..AlterPartitionRequest::default()
    }
}

fn answer(world: &World, broker: &Broker, proposed: &Proposed, answered: &AlterPartitionResponse) {
    for (partition, (topic_id, proposal)) in proposed {
        let topics = answered.topics.iter();
        let mut partitions = topics
            .filter(|topic| topic.topic_id == *topic_id)
            .flat_map(|topic| &topic.partitions);
        let found = partitions.find(|data| data.partition_index == partition.partition);
        let result = found
            .ok_or(ErrorCode::UnknownServerError)
            .and_then(committed);
        world.note(format_args!(
            "{} hears of {partition}: {result:?}",
            broker.id
        ));
        broker.replicas.alter_partition_answered(
            partition,
            proposal.id,
            result.as_ref().map_err(|error| *error),
        );
    }
}

fn committed(
    data: &alter_partition_response::PartitionData,
) -> Result<PartitionMetadata, ErrorCode> {
    match ErrorCode::from_code(data.error_code) {
        Some(ErrorCode::None) => Ok(PartitionMetadata {
            isr: data.isr.clone(),
            leader: data.leader_id,
            leader_epoch: data.leader_epoch,
            partition_epoch: data.partition_epoch,
            ..PartitionMetadata::default()
        }),
        error => Err(error.unwrap_or(ErrorCode::UnknownServerError)),
    }
}

/// The flaw: a leader that drops replicas answers itself.
fn shrink(broker: &Broker, partition: &TopicPartition, proposal: &IsrProposal) -> bool {
    let image = broker.image();
    let Some(known) = image.partition(&partition.topic, partition.partition) else {
        return false;
    };
    let isr: Vec<i32> = proposal.isr.iter().map(|member| member.id).collect();
    let shrinks = isr.len() < known.isr.len() && isr.iter().all(|id| known.isr.contains(id));
    if shrinks {
        let metadata = PartitionMetadata {
            isr,
            leader: broker.id,
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            ..PartitionMetadata::default()
        };
        let id = proposal.id;
        broker
            .replicas
            .alter_partition_answered(partition, id, Ok(&metadata));
    }
    shrinks
}
