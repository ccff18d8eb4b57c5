//! What operators ask: partition states, producers, log directories.

use klamm_log::ActiveProducer;
use klamm_protocol::ErrorCode;
use klamm_records::{TopicPartition, Uuid};

use super::ReplicaManager;
use super::partition::ReplicaOffsets;
use crate::partition::{LeaderState, Role};

/// A replica on this broker, for metrics and tools.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    /// The partition.
    pub partition: TopicPartition,
    /// Its topic's id.
    pub topic_id: Uuid,
    /// Offsets and epoch.
    pub offsets: ReplicaOffsets,
    /// Bytes of all batches.
    pub size_bytes: u64,
    /// The broker that leads, if there is one.
    pub leader_id: Option<i32>,
    /// What only the leader knows.
    pub leading: Option<LeaderStatus>,
}

/// The replication state of a partition at its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderStatus {
    /// Size of the ISR.
    pub in_sync: usize,
    /// Fewer replicas in sync than assigned.
    pub under_replicated: bool,
    /// Fewer replicas in sync than `min.insync.replicas`.
    pub under_min_isr: bool,
    /// Exactly as many replicas in sync as `min.insync.replicas`.
    pub at_min_isr: bool,
    /// Replicas are being added or removed.
    pub reassigning: bool,
}

impl From<&LeaderState> for LeaderStatus {
    fn from(leader: &LeaderState) -> LeaderStatus {
        LeaderStatus {
            in_sync: leader.isr().members().len(),
            under_replicated: leader.is_under_replicated(),
            under_min_isr: leader.is_under_min_isr(),
            at_min_isr: leader.is_at_min_isr(),
            reassigning: leader.is_reassigning(),
        }
    }
}

impl ReplicaManager {
    /// Every replica that can serve, ordered by name.
    pub fn replicas(&self) -> Vec<ReplicaStatus> {
        let status = |partition: &std::sync::Arc<super::partition::Partition>| ReplicaStatus {
            partition: partition.name().clone(),
            topic_id: partition.topic_id(),
            offsets: partition.offsets(),
            size_bytes: partition.log().size_bytes(),
            leader_id: partition.role(Role::leader_id),
            leading: partition.role(|role| role.as_leader().map(LeaderStatus::from)),
        };
        self.0.partitions.online().iter().map(status).collect()
    }

    /// How many replicas cannot serve because their log or its disk failed.
    pub fn offline_replica_count(&self) -> usize {
        self.0.partitions.offline_count()
    }

    /// Offsets of a replica on this broker, in whatever role.
    pub fn offsets(&self, topic: &str, partition: i32) -> Result<ReplicaOffsets, ErrorCode> {
        Ok(self.find(topic, partition)?.offsets())
    }

    /// Producers whose state a replica holds, by id (DescribeProducers).
    pub fn active_producers(
        &self,
        topic: &str,
        partition: i32,
    ) -> Result<Vec<ActiveProducer>, ErrorCode> {
        Ok(self.find(topic, partition)?.log().active_producers())
    }

    /// How far the end of a replica's log is behind its high watermark: what DescribeLogDirs shows
    /// as lag. `None` if the replica is not here.
    pub fn offset_lag(&self, partition: &TopicPartition) -> Option<i64> {
        let found = self.find(&partition.topic, partition.partition).ok()?;
        let offsets = found.offsets();
        Some((offsets.high_watermark - offsets.log_end_offset).max(0))
    }
}
