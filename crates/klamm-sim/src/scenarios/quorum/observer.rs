//! How a broker follows the metadata: by Fetch and FetchSnapshot from the controller that leads.

use std::sync::{Arc, Mutex, PoisonError};

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
/// Little, so that snapshots come in pieces.
const BYTES_MAX: i32 = 4 << 10;
/// How much of its copy of the log a broker lets grow behind its last snapshot: much less than the 20
/// MiB of `metadata.log.max.record.bytes.between.snapshots`, so that short lives see some, too.
const SNAPSHOT_BYTES: u64 = 24 << 10;

/// A broker's metadata, and where it gets them.
pub(in crate::scenarios) struct Observer {
    pub(in crate::scenarios) world: World,
    pub(in crate::scenarios) who: i32,
    pub(in crate::scenarios) replica: MetadataReplica,
    /// Who leads in which epoch, as far as it was told.
    pub(in crate::scenarios) leader: Arc<Mutex<Option<(i32, i32)>>>,
    /// Whether its disk fails, which excuses it.
    pub(in crate::scenarios) is_disturbed: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The flaw: it never looks for another controller.
    pub(in crate::scenarios) is_faithful: bool,
}

impl Observer {
    /// Follows until the process ends.
    pub(in crate::scenarios) async fn run(self) {
        let controllers = &self.world.plan.controllers;
        let mut turn = self.world.rng.index(controllers.len());
        loop {
            let known = self.leader().map(|(leader, _)| leader);
            let node = known.unwrap_or(controllers[turn % controllers.len()]);
            match self.fetch(node).await {
                Some(data) => {
                    self.take(node, data).await;
                    self.snapshot_if_due().await;
                }
                None => turn += 1,
            }
            // A broker is a little slower than its network.
            self.world.sleep_ms(5 + self.world.rng.below(20)).await;
        }
    }

    fn leader(&self) -> Option<(i32, i32)> {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_leader(&self, leader: Option<(i32, i32)>) {
        if !self.is_faithful || self.leader().is_none() {
            *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = leader;
        }
    }

    /// Notes who is said to lead. An older epoch is no news; nobody in a newer one is.
    fn note_leader(&self, node: i32, (leader, epoch): (i32, i32)) {
        self.world.known().leads(node, epoch, leader);
        if self.leader().is_none_or(|(_, known)| known <= epoch) {
            self.set_leader((leader >= 0).then_some((leader, epoch)));
        }
    }

    fn fail(&self, detail: String) {
        if (self.is_disturbed)() {
            self.world.note(detail);
        } else {
            self.world.fail("history", detail);
        }
    }

    async fn fetch(&self, node: i32) -> Option<PartitionData> {
        let image = self.replica.image();
        let request = FetchRequest {
            replica_state: ReplicaState {
                replica_id: self.who,
                ..ReplicaState::default()
            },
            max_wait_ms: self.world.plan.fetch_wait.as_millis() as i32,
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
        let Some(mut response) = answer.ok().flatten() else {
            self.set_leader(None);
            return None;
        };
        let data = response.responses.pop()?.partitions.pop()?;
        let leader = &data.current_leader;
        self.note_leader(node, (leader.leader_id, leader.leader_epoch));
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
            self.fail(detail);
        } else if data.snapshot_id.end_offset >= 0 {
            self.load(node, &data.snapshot_id).await;
        } else if let Some(Records::Bytes(bytes)) = data.records {
            self.world.known().read(&bytes);
            let Err(error) = self.replica.append(&bytes).await else {
                return;
            };
            let detail = format!("{} cannot follow {node}: {error}", self.who);
            self.fail(detail);
        }
    }

    async fn snapshot_if_due(&self) {
        if self.replica.log_bytes() >= SNAPSHOT_BYTES
            && let Err(error) = self.replica.take_snapshot().await
        {
            self.fail(format!("{} writes no snapshot: {error}", self.who));
        }
    }

    /// Fetches a snapshot piece by piece; gives up where one is missing.
    async fn load(&self, node: i32, id: &SnapshotId) {
        let incoming = self.replica.incoming(id.end_offset, id.epoch);
        let mut incoming = match incoming {
            Ok(incoming) => incoming,
            Err(error) => return self.fail(error.to_string()),
        };
        let mut content = Vec::new();
        loop {
            let Some(mut answer) = self.piece(node, id, incoming.position() as i64).await else {
                return;
            };
            let piece = answer.topics.pop().and_then(|mut it| it.partitions.pop());
            let Some(piece) = piece.filter(|piece| piece.error_code == 0) else {
                return;
            };
            if let Some(Records::Bytes(bytes)) = &piece.unaligned_records {
                content.extend_from_slice(bytes);
                if let Err(error) = incoming.push(bytes) {
                    return self.fail(error.to_string());
                }
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
        self.world.known().read_snapshot(id.end_offset, &content);
        let loaded = self.replica.load(incoming).await;
        if let Err(error) = loaded {
            let detail = format!("{} cannot load {id:?} of {node}: {error}", self.who);
            self.fail(detail);
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
