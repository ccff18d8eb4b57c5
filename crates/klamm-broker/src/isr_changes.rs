//! Changes of in-sync replicas, on their way from the leaders on this broker to the controller.
//!
//! One AlterPartition is under way at a time and carries what all partitions have proposed until
//! it leaves. A later proposal of a partition takes the place of an earlier one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use klamm_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, alter_partition_response as altered,
};
use klamm_records::{TopicPartition, Uuid};
use klamm_replication::ProposalSink;
use klamm_replication::partition::{IsrProposal, PartitionMetadata};
use tokio::sync::Mutex as AsyncMutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::shared::Shared;

/// How long to wait before asking again after an error, as Kafka does.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
struct Proposed {
    partition: TopicPartition,
    topic_id: Uuid,
    proposal: IsrProposal,
}

#[derive(Debug)]
struct Sender(UnboundedSender<Proposed>);

impl ProposalSink for Sender {
    fn propose(&self, partition: &TopicPartition, topic_id: Uuid, proposal: IsrProposal) {
        // Nobody hears this any more only while the broker stops.
        let _ = self.0.send(Proposed {
            partition: partition.clone(),
            topic_id,
            proposal,
        });
    }
}

/// What leaders propose, for [`report`].
#[derive(Debug)]
pub(crate) struct Proposals {
    received: UnboundedReceiver<Proposed>,
    pending: Pending,
    /// Under way to the controller. Asked again if the task that did dies of a panic: a partition
    /// waits for the answer to its proposal before it makes another.
    asked: Pending,
}

/// The two ends of the way from leaders to the controller.
pub(crate) fn proposals() -> (Arc<dyn ProposalSink>, Proposals) {
    let (sender, receiver) = unbounded_channel();
    (Arc::new(Sender(sender)), Proposals::new(receiver))
}

type Pending = BTreeMap<(Uuid, i32), Proposed>;

impl Proposals {
    fn new(received: UnboundedReceiver<Proposed>) -> Self {
        Proposals {
            received,
            pending: Pending::new(),
            asked: Pending::new(),
        }
    }

    /// Waits for something to ask and takes it up; false when nobody proposes any more.
    async fn next(&mut self) -> bool {
        self.ask_again();
        if self.pending.is_empty() {
            match self.received.recv().await {
                Some(first) => note(&mut self.pending, first),
                None => return false,
            }
        }
        while let Ok(next) = self.received.try_recv() {
            note(&mut self.pending, next);
        }
        self.asked = std::mem::take(&mut self.pending);
        true
    }

    /// Puts back what was not answered, unless there is something newer.
    fn ask_again(&mut self) {
        for (key, proposed) in std::mem::take(&mut self.asked) {
            self.pending.entry(key).or_insert(proposed);
        }
    }
}

/// Takes proposals to the controller and its answers back, until the task is ended. To be spawned
/// when this broker is registered.
pub(crate) async fn report(shared: Arc<Shared>, proposals: Arc<AsyncMutex<Proposals>>) {
    let mut proposals = proposals.lock().await;
    while proposals.next().await {
        let request = request(shared.node_id, shared.epoch(), &proposals.asked);
        let answer = shared.controller.alter_partition(request).await;
        let error = match &answer {
            Ok(answer) => ErrorCode::from_code(answer.error_code),
            Err(refused) => Some(refused.code),
        };
        match answer {
            Ok(answer) if error == Some(ErrorCode::None) => {
                let again = settle(&shared, &proposals.asked, &answer);
                proposals.asked.clear();
                if again {
                    sleep(RETRY_PAUSE).await;
                }
            }
            _ => {
                warn!(?error, "the controller does not change in-sync replicas");
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

fn note(pending: &mut Pending, proposed: Proposed) {
    let key = (proposed.topic_id, proposed.partition.partition);
    pending.insert(key, proposed);
}

fn request(node_id: i32, broker_epoch: i64, asked: &Pending) -> AlterPartitionRequest {
    let mut topics: Vec<TopicData> = Vec::new();
    for (&(topic_id, partition_index), proposed) in asked {
        let proposal = &proposed.proposal;
        let members = proposal.isr.iter().map(|member| BrokerState {
            broker_id: member.id,
            broker_epoch: if member.id == node_id {
                broker_epoch
            } else {
                member.broker_epoch
            },
            ..BrokerState::default()
        });
        let partition = PartitionData {
            partition_index,
            leader_epoch: proposal.leader_epoch,
            new_isr_with_epochs: members.collect(),
            partition_epoch: proposal.partition_epoch,
            ..PartitionData::default()
        };
        match topics.last_mut() {
            Some(topic) if topic.topic_id == topic_id => topic.partitions.push(partition),
            _ => topics.push(TopicData {
                topic_id,
                partitions: vec![partition],
                ..TopicData::default()
            }),
        }
    }
    AlterPartitionRequest {
        broker_id: node_id,
        broker_epoch,
        topics,
        ..AlterPartitionRequest::default()
    }
}

/// Hands the answers to the partitions; returns whether one of them will ask again at once.
fn settle(shared: &Shared, asked: &Pending, answer: &AlterPartitionResponse) -> bool {
    let mut answers: BTreeMap<(Uuid, i32), &altered::PartitionData> = BTreeMap::new();
    for topic in &answer.topics {
        for partition in &topic.partitions {
            answers.insert((topic.topic_id, partition.partition_index), partition);
        }
    }
    let mut again = false;
    for (key, proposed) in asked {
        let answer = match answers.get(key) {
            None => Err(ErrorCode::UnknownServerError),
            Some(answer) => match ErrorCode::from_code(answer.error_code) {
                Some(ErrorCode::None) => Ok(committed(answer)),
                error => Err(error.unwrap_or(ErrorCode::UnknownServerError)),
            },
        };
        if let Err(error) = &answer {
            debug!(partition = %proposed.partition, ?error, "in-sync replicas stay as they are");
            again = true;
        }
        shared.replicas.alter_partition_answered(
            &proposed.partition,
            proposed.proposal.id,
            answer.as_ref().map_err(|error| *error),
        );
    }
    again
}

fn committed(answer: &altered::PartitionData) -> PartitionMetadata {
    PartitionMetadata {
        isr: answer.isr.clone(),
        leader: answer.leader_id,
        leader_epoch: answer.leader_epoch,
        partition_epoch: answer.partition_epoch,
        ..PartitionMetadata::default()
    }
}

#[cfg(test)]
mod tests {
    use klamm_replication::partition::IsrMember;

    use super::*;

    fn proposed(topic: u8, partition: i32, id: u64, isr: &[(i32, i64)]) -> Proposed {
        Proposed {
            partition: TopicPartition::new(format!("t{topic}"), partition),
            topic_id: Uuid::from_bytes([topic; 16]),
            proposal: IsrProposal {
                id,
                leader_epoch: 3,
                partition_epoch: 7,
                isr: isr
                    .iter()
                    .map(|&(id, broker_epoch)| IsrMember { id, broker_epoch })
                    .collect(),
            },
        }
    }

    #[test]
    fn one_request_carries_the_last_proposal_of_each_partition() {
        let mut pending = Pending::new();
        note(&mut pending, proposed(1, 0, 1, &[(5, -1)]));
        note(&mut pending, proposed(2, 0, 1, &[(5, -1)]));
        note(&mut pending, proposed(1, 1, 1, &[(5, -1)]));
        note(&mut pending, proposed(1, 0, 2, &[(5, -1), (6, 60)]));
        let request = request(5, 50, &pending);
        assert_eq!((request.broker_id, request.broker_epoch), (5, 50));
        let sizes: Vec<_> = request.topics.iter().map(|t| t.partitions.len()).collect();
        assert_eq!(sizes, [2, 1]);
        let first = &request.topics[0].partitions[0];
        assert_eq!((first.leader_epoch, first.partition_epoch), (3, 7));
        let isr: Vec<_> = first
            .new_isr_with_epochs
            .iter()
            .map(|member| (member.broker_id, member.broker_epoch))
            .collect();
        // The leader's own epoch is this broker's.
        assert_eq!(isr, [(5, 50), (6, 60)]);
        assert_eq!(pending.values().next().map(|p| p.proposal.id), Some(2));
    }

    #[tokio::test]
    async fn what_was_under_way_is_asked_again_unless_there_is_something_newer() {
        let (sender, received) = unbounded_channel();
        let mut proposals = Proposals::new(received);
        sender.send(proposed(1, 0, 1, &[(5, -1)])).unwrap();
        sender.send(proposed(2, 0, 1, &[(5, -1)])).unwrap();
        assert!(proposals.next().await);
        assert_eq!(proposals.asked.len(), 2);
        // Whoever asked is gone, and another one begins.
        sender.send(proposed(2, 0, 2, &[(5, -1)])).unwrap();
        assert!(proposals.next().await);
        let ids: Vec<_> = proposals.asked.values().map(|p| p.proposal.id).collect();
        assert_eq!(ids, [1, 2]);
        proposals.asked.clear();
        drop(sender);
        assert!(!proposals.next().await);
    }
}
