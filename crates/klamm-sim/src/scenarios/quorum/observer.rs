//! How a broker follows the metadata: by Fetch and FetchSnapshot from the controller that leads.

use klamm_controller::MetadataReplica;
use klamm_env::Rng as _;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use klamm_protocol::messages::fetch_response::{PartitionData, SnapshotId};
use klamm_protocol::messages::fetch_snapshot_request::{
    PartitionSnapshot, SnapshotId as WantedId, TopicSnapshot,
};
use klamm_protocol::messages::{FetchRequest, FetchSnapshotRequest, FetchSnapshotResponse};
use klamm_protocol::{ErrorCode, Records, topic_name};
use klamm_records::Uuid;

use super::world::World;

/// The version that requests are of.
const VERSION: i16 = 17;
/// How long a controller may hold a fetch.
const WAIT_MS: i32 = 500;
/// Little, so that snapshots come in pieces.
const BYTES_MAX: i32 = 4 << 10;

/// A broker's metadata, and where it gets them.
pub(super) struct Observer {
    pub(super) world: World,
    pub(super) who: i32,
    pub(super) replica: MetadataReplica,
}

impl Observer {
    /// Follows until the process ends.
    pub(super) async fn run(self) {
        let controllers = &self.world.plan.controllers;
        let mut asked = self.world.rng.index(controllers.len());
        loop {
            let node = controllers[asked % controllers.len()];
            match self.fetch(node).await {
                Some(data) => self.take(node, data).await,
                None => asked += 1,
            }
            // A broker is a little slower than its network.
            self.world.sleep_ms(5 + self.world.rng.below(20)).await;
        }
    }

    async fn fetch(&self, node: i32) -> Option<PartitionData> {
        let image = self.replica.image();
        let request = FetchRequest {
            replica_state: ReplicaState {
                replica_id: self.who,
                ..ReplicaState::default()
            },
            max_wait_ms: WAIT_MS,
            min_bytes: 1,
            max_bytes: BYTES_MAX,
            topics: vec![FetchTopic {
                topic: topic_name::CLUSTER_METADATA.into(),
                topic_id: Uuid::METADATA_TOPIC,
                partitions: vec![FetchPartition {
                    current_leader_epoch: -1,
                    fetch_offset: image.offset() + 1,
                    last_fetched_epoch: image.epoch(),
                    partition_max_bytes: BYTES_MAX,
                    ..FetchPartition::default()
                }],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        let there = self.world.clone();
        let serve = move || {
            let (controller, request) = (there.controller(node), request.clone());
            async move { Some(controller?.fetch_metadata(&request, VERSION).await) }
        };
        let way = (self.who, node);
        let timeout = self.world.plan.request;
        let answer = self.world.net.call(way, "metadata", timeout, serve).await;
        let mut response = answer.ok().flatten()?;
        let data = response.responses.pop()?.partitions.pop()?;
        let leader = &data.current_leader;
        let (epoch, leader) = (leader.leader_epoch, leader.leader_id);
        self.world.known().leads(node, epoch, leader);
        (data.error_code == ErrorCode::None.code()).then_some(data)
    }

    async fn take(&self, node: i32, data: PartitionData) {
        if data.diverging_epoch.end_offset >= 0 {
            let image = self.replica.image();
            let detail = format!(
                "{} is at {:?}, and {node} parts from there at {:?}",
                self.who,
                image.provenance(),
                data.diverging_epoch
            );
            self.world.fail("history", detail);
        } else if data.snapshot_id.end_offset >= 0 {
            self.load(node, &data.snapshot_id).await;
        } else if let Some(Records::Bytes(bytes)) = data.records
            && let Err(error) = self.replica.append(&bytes).await
        {
            let detail = format!("{} cannot follow {node}: {error}", self.who);
            self.world.fail("history", detail);
        }
    }

    /// Fetches a snapshot piece by piece; gives up where one is missing.
    async fn load(&self, node: i32, id: &SnapshotId) {
        let incoming = self.replica.incoming(id.end_offset, id.epoch);
        let mut incoming = match incoming {
            Ok(incoming) => incoming,
            Err(error) => return self.world.fail("history", error.to_string()),
        };
        loop {
            let Some(mut answer) = self.piece(node, id, incoming.position() as i64).await else {
                return;
            };
            let piece = answer.topics.pop().and_then(|mut it| it.partitions.pop());
            let Some(piece) = piece.filter(|piece| piece.error_code == 0) else {
                return;
            };
            if let Some(Records::Bytes(bytes)) = &piece.unaligned_records
                && let Err(error) = incoming.push(bytes)
            {
                return self.world.fail("history", error.to_string());
            }
            if incoming.position() as i64 >= piece.size {
                break;
            }
        }
        self.world.note(format_args!(
            "{} loads a snapshot of {} bytes up to {}",
            self.who,
            incoming.position(),
            id.end_offset
        ));
        let loaded = self.replica.load(incoming).await;
        if let Err(error) = loaded {
            let detail = format!("{} cannot load {id:?} of {node}: {error}", self.who);
            self.world.fail("history", detail);
        }
    }

    async fn piece(
        &self,
        node: i32,
        id: &SnapshotId,
        position: i64,
    ) -> Option<FetchSnapshotResponse> {
        let request = FetchSnapshotRequest {
            replica_id: self.who,
            max_bytes: BYTES_MAX,
            topics: vec![TopicSnapshot {
                name: topic_name::CLUSTER_METADATA.into(),
                partitions: vec![PartitionSnapshot {
                    current_leader_epoch: -1,
                    snapshot_id: WantedId {
                        end_offset: id.end_offset,
                        epoch: id.epoch,
                        ..WantedId::default()
                    },
                    position,
                    ..PartitionSnapshot::default()
                }],
                ..TopicSnapshot::default()
            }],
            ..FetchSnapshotRequest::default()
        };
        let there = self.world.clone();
        let serve = move || {
            let (controller, request) = (there.controller(node), request.clone());
            async move { Some(controller?.fetch_snapshot(&request).await) }
        };
        let way = (self.who, node);
        let timeout = self.world.plan.request;
        let answer = self.world.net.call(way, "snapshot", timeout, serve).await;
        answer.ok().flatten()
    }
}
