//! The controller as a model: one record, decided at once, told to the brokers late.

use std::collections::BTreeMap;

use klamm_replication::partition::{
    AlterPartitionError, BrokerLiveness, IsrProposal, PartitionMetadata,
};

/// What the brokers are told.
#[derive(Clone, Debug)]
pub struct Published {
    /// The partition's record.
    pub record: PartitionMetadata,
    /// The brokers.
    pub brokers: BTreeMap<i32, BrokerLiveness>,
}

/// The controller.
#[derive(Clone, Debug)]
pub struct Controller {
    /// What holds.
    pub current: Published,
    next_broker_epoch: i64,
}

impl Controller {
    pub(super) fn new(brokers: &[i32]) -> Controller {
        let alive = |(index, &id): (usize, &i32)| {
            let liveness = BrokerLiveness {
                epoch: Some(index as i64),
                ..BrokerLiveness::default()
            };
            (id, liveness)
        };
        Controller {
            current: Published {
                record: PartitionMetadata {
                    replicas: brokers.to_vec(),
                    isr: brokers.to_vec(),
                    leader: brokers[0],
                    ..PartitionMetadata::default()
                },
                brokers: brokers.iter().enumerate().map(alive).collect(),
            },
            next_broker_epoch: brokers.len() as i64,
        }
    }

    pub(super) fn is_alive(&self, id: i32) -> bool {
        self.current
            .brokers
            .get(&id)
            .is_some_and(BrokerLiveness::is_alive)
    }

    /// A broker's session ended: it leaves the ISR, unless it is the last, and leads no more.
    pub(super) fn fence(&mut self, id: i32) {
        if let Some(broker) = self.current.brokers.get_mut(&id) {
            broker.fenced = true;
        }
        let record = &mut self.current.record;
        if record.isr.len() > 1 && record.isr.contains(&id) {
            record.isr.retain(|member| *member != id);
            record.partition_epoch += 1;
        }
        if record.leader == id {
            self.elect(None);
        }
    }

    /// A new incarnation of a broker registers; it is fenced until its first heartbeat.
    pub(super) fn register(&mut self, id: i32) -> i64 {
        let epoch = self.next_broker_epoch;
        self.next_broker_epoch += 1;
        let liveness = BrokerLiveness {
            epoch: Some(epoch),
            fenced: true,
            shutting_down: false,
        };
        self.current.brokers.insert(id, liveness);
        epoch
    }

    /// A registered broker is caught up with the metadata.
    pub(super) fn unfence(&mut self, id: i32) {
        if let Some(broker) = self.current.brokers.get_mut(&id) {
            broker.fenced = false;
        }
        if self.current.record.leader < 0 {
            self.elect(None);
        }
    }

    /// Elects `wanted`, or the first of the replicas that is in sync and alive.
    pub(super) fn elect(&mut self, wanted: Option<i32>) {
        let record = &self.current.record;
        let eligible = |id: &&i32| record.isr.contains(id) && self.is_alive(**id);
        let found = match wanted {
            Some(id) => record
                .replicas
                .iter()
                .filter(|replica| **replica == id)
                .find(eligible),
            None => record.replicas.iter().find(eligible),
        };
        let leader = match (found, wanted) {
            (Some(&leader), _) => leader,
            (None, None) => -1,
            (None, Some(_)) => return,
        };
        self.set_leader(leader);
    }

    pub(super) fn set_leader(&mut self, leader: i32) {
        let record = &mut self.current.record;
        record.leader = leader;
        record.leader_epoch += 1;
        record.partition_epoch += 1;
    }

    /// Elects any replica that is alive, though it may lack records.
    pub(super) fn elect_uncleanly(&mut self) {
        let replicas = self.current.record.replicas.clone();
        if let Some(&id) = replicas.iter().rev().find(|id| self.is_alive(**id)) {
            self.current.record.isr = vec![id];
            self.set_leader(id);
        }
    }

    /// Judges an AlterPartition as Kafka's replication control does.
    pub(super) fn alter(
        &mut self,
        from: i32,
        proposal: &IsrProposal,
    ) -> Result<PartitionMetadata, AlterPartitionError> {
        let record = &self.current.record;
        if record.leader != from
            || proposal.leader_epoch != record.leader_epoch
            || proposal.partition_epoch < record.partition_epoch
        {
            return Err(AlterPartitionError::AwaitMetadata);
        }
        if proposal.partition_epoch > record.partition_epoch {
            return Err(AlterPartitionError::Retry);
        }
        let ineligible = proposal.isr.iter().any(|member| {
            let broker = self.current.brokers.get(&member.id);
            broker.is_none_or(|broker| {
                let other = member.broker_epoch != -1 && broker.epoch != Some(member.broker_epoch);
                broker.fenced || broker.shutting_down || other
            })
        });
        if ineligible {
            return Err(AlterPartitionError::Refused);
        }
        let record = &mut self.current.record;
        record.isr = proposal.isr.iter().map(|member| member.id).collect();
        record.partition_epoch += 1;
        Ok(record.clone())
    }
}
