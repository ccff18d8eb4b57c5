//! Which partitions to ask one leader for, and when.

use std::collections::BTreeMap;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::fetch_request::{
    FetchPartition as WirePartition, FetchTopic, ForgottenTopic, ReplicaState,
};
use klamm_protocol::messages::fetch_response::PartitionData;
use klamm_protocol::messages::{FetchRequest, FetchResponse};
use klamm_records::{TopicPartition, Uuid};

use super::error_of;
use super::session::{ClientSession, PartitionKey};
use crate::fetch_session::FetchPartition;
use crate::manager::FollowerWish;

/// How soon a partition is looked at again that is held to a bandwidth.
const THROTTLE_PAUSE_MS: i64 = 50;

/// How long the leader may hold a fetch while the log of a partition that is left out of it is
/// synced, in ms: that is about to be over.
const SYNC_WAIT_MAX_MS: i32 = 5;

/// How much a follower asks for, and how patiently.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// `replica.fetch.wait.max.ms`: how long the leader may hold a fetch that finds nothing.
    pub wait_max_ms: i32,
    /// `replica.fetch.min.bytes`
    pub min_bytes: i32,
    /// `replica.fetch.response.max.bytes`
    pub response_bytes_max: i32,
    /// `replica.fetch.max.bytes`, of one partition.
    pub partition_bytes_max: i32,
    /// `replica.fetch.backoff.ms`: the pause of a partition after an error.
    pub backoff_ms: i64,
}

impl Default for FetchLimits {
    /// Kafka's defaults.
    fn default() -> Self {
        FetchLimits {
            wait_max_ms: 500,
            min_bytes: 1,
            response_bytes_max: 10 * 1024 * 1024,
            partition_bytes_max: 1024 * 1024,
            backoff_ms: 1_000,
        }
    }
}

/// What a fetcher does next.
#[derive(Debug)]
pub enum Round {
    /// Send this and hand the answer to [`FetchPlan::answered`].
    Fetch(FetchRequest),
    /// What followers have is to be on disk before any of them asks for more.
    AwaitSync,
    /// All partitions pause after errors; ask again at this time, in ms of the wall clock.
    PauseUntil(i64),
    /// Nothing is followed there.
    Idle,
}

/// One partition's part of an answer.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The partition.
    pub partition: TopicPartition,
    /// The leader epoch under which it was asked for.
    pub fetch_epoch: i32,
    /// What the leader says.
    pub data: PartitionData,
}

#[derive(Debug)]
struct Followed {
    partition: TopicPartition,
    /// Not to be asked for before this time.
    pause_until_ms: i64,
    /// The epoch of the request in flight.
    asked_epoch: Option<i32>,
}

/// The partitions that are followed at one leader.
#[derive(Debug)]
pub struct FetchPlan {
    node_id: i32,
    limits: FetchLimits,
    followed: BTreeMap<PartitionKey, Followed>,
    session: ClientSession,
}

impl FetchPlan {
    /// A plan without partitions, of broker `node_id`.
    pub fn new(node_id: i32, limits: FetchLimits) -> Self {
        FetchPlan {
            node_id,
            limits,
            followed: BTreeMap::new(),
            session: ClientSession::default(),
        }
    }

    /// Follows a partition here; at once, even if it paused.
    pub fn follow(&mut self, partition: TopicPartition, topic_id: Uuid) {
        let key = (topic_id, partition.partition);
        let followed = Followed {
            partition,
            pause_until_ms: i64::MIN,
            asked_epoch: None,
        };
        self.followed.insert(key, followed);
    }

    /// Follows a partition no longer.
    pub fn unfollow(&mut self, topic_id: Uuid, partition: i32) {
        self.followed.remove(&(topic_id, partition));
    }

    /// Whether nothing is followed.
    pub fn is_empty(&self) -> bool {
        self.followed.is_empty()
    }

    /// The next request. `wish_of` tells where the replica of a partition stands; `None` if it
    /// does not follow this leader (any more, or yet). `broker_epoch` is this broker's.
    pub fn next(
        &mut self,
        now_ms: i64,
        broker_epoch: i64,
        wish_of: &dyn Fn(&TopicPartition) -> Option<FollowerWish>,
    ) -> Round {
        if self.followed.is_empty() {
            return Round::Idle;
        }
        let mut wanted = BTreeMap::new();
        let mut resume_ms = i64::MAX;
        let mut awaits_sync = false;
        for (key, followed) in &mut self.followed {
            followed.asked_epoch = None;
            if followed.pause_until_ms > now_ms {
                resume_ms = resume_ms.min(followed.pause_until_ms);
                continue;
            }
            let Some(wish) = wish_of(&followed.partition) else {
                // The replica takes on its role in a moment, or this fetcher is told to let go.
                resume_ms = resume_ms.min(now_ms + self.limits.backoff_ms);
                continue;
            };
            if wish.throttled {
                resume_ms = resume_ms.min(now_ms + THROTTLE_PAUSE_MS);
                continue;
            }
            if wish.awaits_sync {
                // The others need not wait for its disk.
                awaits_sync = true;
                continue;
            }
            followed.asked_epoch = Some(wish.position.current_leader_epoch);
            wanted.insert(*key, self.limits.apply(&wish));
        }
        if wanted.is_empty() {
            return if awaits_sync {
                Round::AwaitSync
            } else {
                Round::PauseUntil(resume_ms)
            };
        }
        let mut request = self.request(&wanted, broker_epoch);
        if awaits_sync {
            request.max_wait_ms = request.max_wait_ms.min(SYNC_WAIT_MAX_MS);
        }
        Round::Fetch(request)
    }

    fn request(
        &mut self,
        wanted: &BTreeMap<PartitionKey, FetchPartition>,
        broker_epoch: i64,
    ) -> FetchRequest {
        let fetch = self.session.next(wanted);
        let mut topics: Vec<FetchTopic> = Vec::new();
        for ((topic_id, partition), wish) in fetch.named {
            let wish = wire(partition, &wish);
            match topics.last_mut() {
                Some(topic) if topic.topic_id == topic_id => topic.partitions.push(wish),
                _ => topics.push(FetchTopic {
                    topic_id,
                    partitions: vec![wish],
                    ..FetchTopic::default()
                }),
            }
        }
        let mut forgotten: Vec<ForgottenTopic> = Vec::new();
        for (topic_id, partition) in fetch.forgotten {
            match forgotten.last_mut() {
                Some(topic) if topic.topic_id == topic_id => topic.partitions.push(partition),
                _ => forgotten.push(ForgottenTopic {
                    topic_id,
                    partitions: vec![partition],
                    ..ForgottenTopic::default()
                }),
            }
        }
        FetchRequest {
            replica_state: ReplicaState {
                replica_id: self.node_id,
                replica_epoch: broker_epoch,
                ..ReplicaState::default()
            },
            max_wait_ms: self.limits.wait_max_ms,
            min_bytes: self.limits.min_bytes,
            max_bytes: self.limits.response_bytes_max,
            session_id: fetch.session_id,
            session_epoch: fetch.epoch,
            topics,
            forgotten_topics_data: forgotten,
            ..FetchRequest::default()
        }
    }

    /// Takes apart an answer. An answer that refuses the request as a whole has no parts; the next
    /// round starts over.
    pub fn answered(&mut self, response: FetchResponse) -> Result<Vec<Answered>, ErrorCode> {
        let error = error_of(response.error_code);
        if error != ErrorCode::None {
            self.session.refused(error);
            return Err(error);
        }
        self.session.answered(response.session_id);
        let mut answered = Vec::new();
        for topic in response.responses {
            for data in topic.partitions {
                let key = (topic.topic_id, data.partition_index);
                // What was let go meanwhile is of no interest.
                if let Some(followed) = self.followed.get(&key)
                    && let Some(fetch_epoch) = followed.asked_epoch
                {
                    answered.push(Answered {
                        partition: followed.partition.clone(),
                        fetch_epoch,
                        data,
                    });
                }
            }
        }
        Ok(answered)
    }

    /// The request or its answer was lost.
    pub fn lost(&mut self) {
        self.session.start_over();
    }

    /// Leaves a partition alone for the pause that follows an error.
    pub fn pause(&mut self, partition: &TopicPartition, now_ms: i64) {
        let until_ms = now_ms + self.limits.backoff_ms;
        for followed in self.followed.values_mut() {
            if followed.partition == *partition {
                followed.pause_until_ms = until_ms;
            }
        }
    }

    /// How long to pause after the leader could not be reached, in ms.
    pub fn backoff_ms(&self) -> i64 {
        self.limits.backoff_ms
    }
}

impl FetchLimits {
    fn apply(&self, wish: &FollowerWish) -> FetchPartition {
        FetchPartition {
            fetch_offset: wish.position.offset,
            log_start_offset: wish.log_start_offset,
            max_bytes: self.partition_bytes_max,
            current_leader_epoch: Some(wish.position.current_leader_epoch),
            last_fetched_epoch: wish.position.last_fetched_epoch,
            high_watermark: Some(wish.high_watermark),
        }
    }
}

fn wire(partition: i32, wish: &FetchPartition) -> WirePartition {
    WirePartition {
        partition,
        current_leader_epoch: wish.current_leader_epoch.unwrap_or(-1),
        fetch_offset: wish.fetch_offset,
        last_fetched_epoch: wish.last_fetched_epoch.unwrap_or(-1),
        log_start_offset: wish.log_start_offset,
        partition_max_bytes: wish.max_bytes,
        high_watermark: wish.high_watermark.unwrap_or(i64::MAX),
        ..WirePartition::default()
    }
}
