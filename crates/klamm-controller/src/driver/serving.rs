//! The metadata log served to brokers that are no controllers: `Fetch` and `FetchSnapshot` of
//! `__cluster_metadata-0` (KIP-595, KIP-630). As in Kafka only the leader serves it, up to what is
//! committed; the others say who leads.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use klamm_protocol::messages::fetch_request::FetchPartition;
use klamm_protocol::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
    SnapshotId,
};
use klamm_protocol::messages::fetch_snapshot_response::{
    LeaderIdAndEpoch as SnapshotLeader, PartitionSnapshot, SnapshotId as AnsweredId, TopicSnapshot,
};
use klamm_protocol::messages::{
    FetchRequest, FetchResponse, FetchSnapshotRequest, FetchSnapshotResponse,
    fetch_snapshot_request,
};
use klamm_protocol::{ErrorCode, Records, topic_name};
use klamm_records::Uuid;

use super::Controller;
use crate::raft::Found;
use crate::runtime::timeout;

/// From here on a request tells who asks in a place of its own.
const REPLICA_STATE_VERSION: i16 = 15;
/// From here on an answer can tell where nodes listen.
const NODE_ENDPOINTS_VERSION: i16 = 16;
/// From here on topics are named by id.
const TOPIC_ID_VERSION: i16 = 13;
/// From here on an answer can tell of a snapshot, the leader, and where logs part.
const RAFT_VERSION: i16 = 12;
/// The most that one answer holds, whatever is asked for.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// An observer that is silent for longer is forgotten, as in Kafka.
const OBSERVER_SILENCE_MAX_MS: i64 = 300_000;

/// A broker that follows the metadata log, as the leader sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observer {
    pub(super) directory_id: Uuid,
    pub(super) end_offset: i64,
    pub(super) fetched_ms: i64,
    pub(super) caught_up_ms: i64,
}

impl Controller {
    /// Answers a fetch of the metadata log; with nothing to tell after `max_wait_ms`.
    pub async fn fetch_metadata(&self, request: &FetchRequest, version: i16) -> FetchResponse {
        if let Err(error) = self.check_cluster(request.cluster_id.as_deref()) {
            return FetchResponse {
                error_code: error.into(),
                ..FetchResponse::default()
            };
        }
        let wait = u64::try_from(request.max_wait_ms).unwrap_or(0);
        if let Some(wanted) = metadata_partition(request, version) {
            let there = self.0.raft.wait_for_record(wanted.fetch_offset);
            let left = self.0.raft.until_led_by_another();
            let either = async {
                tokio::select! {
                    biased;
                    () = there => {}
                    () = left => {}
                }
            };
            if wait > 0 && self.is_active() {
                // What is there when the time is up is what is answered.
                let _ = timeout(Duration::from_millis(wait), either).await;
            }
        }
        let replica = if version >= REPLICA_STATE_VERSION {
            request.replica_state.replica_id
        } else {
            request.replica_id
        };
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let known = is_metadata(&topic.topic, topic.topic_id, version);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in &topic.partitions {
                partitions.push(if known && wanted.partition == 0 {
                    self.answer_fetch(replica, wanted, request.max_bytes, version)
                        .await
                } else {
                    failed(wanted.partition, ErrorCode::UnknownTopicOrPartition)
                });
            }
            topics.push(FetchableTopicResponse {
                topic: topic.topic.clone(),
                topic_id: topic.topic_id,
                partitions,
                ..FetchableTopicResponse::default()
            });
        }
        FetchResponse {
            responses: topics,
            node_endpoints: if version >= NODE_ENDPOINTS_VERSION {
                self.leader_endpoint()
            } else {
                Vec::new()
            },
            ..FetchResponse::default()
        }
    }

    /// Where the controller that leads listens, for those that asked another one.
    fn leader_endpoint(&self) -> Vec<NodeEndpoint> {
        let Some((node_id, endpoints)) = self.leader_endpoints() else {
            return Vec::new();
        };
        let endpoint = endpoints.first().map(|endpoint| NodeEndpoint {
            node_id,
            host: endpoint.host.as_str().into(),
            port: endpoint.port.into(),
            ..NodeEndpoint::default()
        });
        endpoint.into_iter().collect()
    }

    async fn answer_fetch(
        &self,
        replica: i32,
        wanted: &FetchPartition,
        bytes_max: i32,
        version: i16,
    ) -> PartitionData {
        let status = self.0.raft.status();
        let leads = status.leader == Some(self.node_id());
        let error = match wanted.current_leader_epoch {
            _ if !leads => ErrorCode::NotLeaderOrFollower,
            epoch if epoch > status.epoch => ErrorCode::UnknownLeaderEpoch,
            epoch if epoch >= 0 && epoch < status.epoch => ErrorCode::FencedLeaderEpoch,
            _ if wanted.fetch_offset < 0 => ErrorCode::InvalidRequest,
            _ => ErrorCode::None,
        };
        let mut data = failed(0, error);
        if error == ErrorCode::None {
            let bytes_max = wanted.partition_max_bytes.min(bytes_max);
            match self.read_for(replica, wanted, bytes_max, version).await {
                Ok(read) => data = read,
                Err(error) => {
                    tracing::error!(%error, "the metadata log cannot be read");
                    data = failed(0, ErrorCode::KafkaStorageError);
                }
            }
        }
        if version >= RAFT_VERSION {
            data.current_leader = LeaderIdAndEpoch {
                leader_id: status.leader.unwrap_or(-1),
                leader_epoch: status.epoch,
                ..LeaderIdAndEpoch::default()
            };
        }
        data
    }

    async fn read_for(
        &self,
        replica: i32,
        wanted: &FetchPartition,
        bytes_max: i32,
        version: i16,
    ) -> io::Result<PartitionData> {
        let bytes_max = usize::try_from(bytes_max)
            .unwrap_or(0)
            .min(ANSWER_BYTES_MAX);
        let (offset, epoch) = (wanted.fetch_offset, wanted.last_fetched_epoch);
        let read = self.0.raft.read_log(offset, epoch, bytes_max).await?;
        if replica >= 0 && replica != self.node_id() {
            self.note_observer(replica, wanted, read.end_offset);
        }
        let mut data = PartitionData {
            high_watermark: read.end_offset,
            log_start_offset: read.start_offset,
            records: Some(Records::Bytes(bytes::Bytes::new())),
            ..PartitionData::default()
        };
        match read.found {
            Found::Records(bytes) => data.records = Some(Records::Bytes(bytes)),
            _ if version < RAFT_VERSION => data.error_code = ErrorCode::OffsetOutOfRange.into(),
            Found::Snapshot(end_offset, epoch) => {
                data.snapshot_id = SnapshotId {
                    end_offset,
                    epoch,
                    ..SnapshotId::default()
                };
            }
            Found::Diverging(epoch, end_offset) => {
                data.diverging_epoch = EpochEndOffset {
                    epoch,
                    end_offset,
                    ..EpochEndOffset::default()
                };
            }
        }
        Ok(data)
    }

    fn note_observer(&self, replica: i32, wanted: &FetchPartition, end_offset: i64) {
        let now_ms = self.0.env.clock.wall_ms();
        let mut observers = self.observers_lock();
        let before = observers.get(&replica).map_or(-1, |o| o.caught_up_ms);
        let observer = Observer {
            directory_id: wanted.replica_directory_id,
            end_offset: wanted.fetch_offset,
            fetched_ms: now_ms,
            caught_up_ms: if wanted.fetch_offset >= end_offset {
                now_ms
            } else {
                before
            },
        };
        observers.insert(replica, observer);
    }

    /// The brokers that have followed the log from here lately.
    pub(super) fn observers(&self) -> BTreeMap<i32, Observer> {
        let oldest_ms = self.0.env.clock.wall_ms() - OBSERVER_SILENCE_MAX_MS;
        let mut observers = self.observers_lock();
        observers.retain(|_, observer| observer.fetched_ms >= oldest_ms);
        observers.clone()
    }

    /// Answers a fetch of a piece of a snapshot.
    pub async fn fetch_snapshot(&self, request: &FetchSnapshotRequest) -> FetchSnapshotResponse {
        if let Err(error) = self.check_cluster(request.cluster_id.as_deref()) {
            return FetchSnapshotResponse {
                error_code: error.into(),
                ..FetchSnapshotResponse::default()
            };
        }
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let known = *topic.name == *topic_name::CLUSTER_METADATA;
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in &topic.partitions {
                let mut answer = if known && wanted.partition == 0 {
                    self.answer_snapshot(wanted, request.max_bytes).await
                } else {
                    Err(ErrorCode::UnknownTopicOrPartition)
                }
                .unwrap_or_else(|error| PartitionSnapshot {
                    error_code: error.into(),
                    ..PartitionSnapshot::default()
                });
                answer.index = wanted.partition;
                partitions.push(answer);
            }
            topics.push(TopicSnapshot {
                name: topic.name.clone(),
                partitions,
                ..TopicSnapshot::default()
            });
        }
        FetchSnapshotResponse {
            topics,
            ..FetchSnapshotResponse::default()
        }
    }

    async fn answer_snapshot(
        &self,
        wanted: &fetch_snapshot_request::PartitionSnapshot,
        bytes_max: i32,
    ) -> Result<PartitionSnapshot, ErrorCode> {
        let status = self.0.raft.status();
        if status.leader != Some(self.node_id()) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let id = &wanted.snapshot_id;
        let position = u64::try_from(wanted.position).map_err(|_| ErrorCode::PositionOutOfRange)?;
        let bytes_max = usize::try_from(bytes_max)
            .unwrap_or(0)
            .min(ANSWER_BYTES_MAX);
        let raft = &self.0.raft;
        let read = raft.read_snapshot(id.end_offset, id.epoch, position, bytes_max);
        let read = read.await.map_err(|error| {
            tracing::error!(%error, "a metadata snapshot cannot be read");
            ErrorCode::KafkaStorageError
        })?;
        let (bytes, size) = read.ok_or(ErrorCode::SnapshotNotFound)?;
        if position >= size {
            return Err(ErrorCode::PositionOutOfRange);
        }
        Ok(PartitionSnapshot {
            snapshot_id: AnsweredId {
                end_offset: id.end_offset,
                epoch: id.epoch,
                ..AnsweredId::default()
            },
            current_leader: SnapshotLeader {
                leader_id: self.node_id(),
                leader_epoch: status.epoch,
                ..SnapshotLeader::default()
            },
            size: i64::try_from(size).unwrap_or(i64::MAX),
            position: wanted.position,
            unaligned_records: Some(Records::Bytes(bytes)),
            ..PartitionSnapshot::default()
        })
    }

    fn check_cluster(&self, given: Option<&str>) -> Result<(), ErrorCode> {
        match given {
            Some(given) if given != self.cluster_id() => Err(ErrorCode::InconsistentClusterId),
            _ => Ok(()),
        }
    }
}

fn is_metadata(name: &str, id: Uuid, version: i16) -> bool {
    if version >= TOPIC_ID_VERSION {
        id == Uuid::METADATA_TOPIC
    } else {
        name == topic_name::CLUSTER_METADATA
    }
}

/// The one partition that a fetch can be about.
fn metadata_partition(request: &FetchRequest, version: i16) -> Option<&FetchPartition> {
    let mut topics = request.topics.iter();
    let topic = topics.find(|topic| is_metadata(&topic.topic, topic.topic_id, version))?;
    topic.partitions.iter().find(|wanted| wanted.partition == 0)
}

fn failed(partition_index: i32, error: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index,
        error_code: error.into(),
        high_watermark: -1,
        records: Some(Records::Bytes(bytes::Bytes::new())),
        ..PartitionData::default()
    }
}
