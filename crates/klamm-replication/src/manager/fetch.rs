//! Fetch: read what is there; if that is too little, sleep until enough has come, then read again.
//!
//! Nothing here touches record bytes: an answer names parts of files.

use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::ErrorCode;
use smallvec::SmallVec;

use super::fetched::FetchedPartition;
use super::partition::{Limits, Partition, ReplicaOffsets};
use super::wait::{FetchWaiter, Sleeper};
use super::{LeaderHint, ReplicaManager};
use crate::fetch_session::{FetchPartition, PartitionAnswer as _, TopicIdPartition};
use crate::waiters::{DeadlineKey, Isolation, WaiterKey};

/// A fetch request apart from its partitions.
#[derive(Clone, Copy, Debug)]
pub struct FetchParams {
    /// Broker id of a follower, -1 for a consumer, -2 for a tool that reads as a replica would.
    pub replica_id: i32,
    /// Broker epoch of a follower, -1 if it doesn't tell.
    pub replica_epoch: i64,
    /// How long to wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// Bytes over all partitions that make waiting unnecessary.
    pub min_bytes: i32,
    /// Most bytes to return over all partitions; the first batch may exceed it.
    pub max_bytes: i32,
    /// How far the reader may see.
    pub isolation: Isolation,
    /// Whether only the leader may answer. A consumer that tells its rack (version 11 and up) may
    /// read from a follower.
    pub leader_only: bool,
}

impl FetchParams {
    /// The isolation of a reader: only consumers are bound to committed records.
    pub fn isolation_of(replica_id: i32, read_committed: bool) -> Isolation {
        match (replica_id, read_committed) {
            (-1, true) => Isolation::LastStable,
            (-1, false) => Isolation::HighWatermark,
            _ => Isolation::LogEnd,
        }
    }

    fn is_from_follower(&self) -> bool {
        self.replica_id >= 0
    }
}

/// A partition of a fetch, looked up.
enum Found {
    /// Takes part in the fetch; an error among these ends the wait.
    Read(Arc<Partition>),
    /// Not served by this broker although it is known; ends the wait.
    Failed(ErrorCode),
    /// Not known at all: answered along, but no reason to answer at once.
    Unknown(ErrorCode),
}

type FoundAll = SmallVec<[Found; 4]>;

/// One pass over the partitions of a fetch.
struct Pass {
    answers: Vec<FetchedPartition>,
    /// What each partition looked like; `None` where it was not read.
    seen: Vec<Option<ReplicaOffsets>>,
    bytes: u64,
    answer_now: bool,
}

impl ReplicaManager {
    /// Answers a fetch for `partitions` in their order: at once if `min_bytes` are there, a
    /// partition has an error or a diverging epoch, or the fetch doesn't wait; else when enough
    /// has come or `max_wait_ms` are over.
    ///
    /// The first partition with records returns at least one whole batch whatever the limits.
    pub async fn fetch(
        &self,
        params: &FetchParams,
        partitions: &[(TopicIdPartition, FetchPartition)],
    ) -> Vec<FetchedPartition> {
        let params = &FetchParams {
            min_bytes: params.min_bytes.min(params.max_bytes),
            ..*params
        };
        let found = self.find_all(partitions);
        self.warm_up(partitions, &found).await;
        let nothing_to_read = found.iter().all(|found| matches!(found, Found::Unknown(_)));
        let pass = self.read_all(params, partitions, &found, true);
        if pass.answer_now || nothing_to_read || params.max_wait_ms <= 0 {
            return pass.answers;
        }
        self.wait_and_read(params, partitions, found, pass).await
    }

    /// Brings into memory by what the places of those are found that read from closed segments,
    /// so that finding them here waits for no disk.
    async fn warm_up(&self, partitions: &[(TopicIdPartition, FetchPartition)], found: &FoundAll) {
        let Some(pool) = self.0.blocking.get() else {
            return;
        };
        let all = partitions.iter().zip(found);
        let behind = all.filter_map(|((_, wish), found)| match found {
            Found::Read(partition) if partition.log().is_in_closed_segment(wish.fetch_offset) => {
                Some((Arc::clone(partition), wish.fetch_offset))
            }
            _ => None,
        });
        let behind: Vec<_> = behind.collect();
        if behind.is_empty() {
            return;
        }
        let find = move || {
            for (partition, offset) in behind {
                // What is wrong with it shows when it is read.
                let _ = partition.log().read(offset, 1, i64::MAX, false);
            }
        };
        pool.run(Box::new(find)).await;
    }

    fn find_all(&self, partitions: &[(TopicIdPartition, FetchPartition)]) -> FoundAll {
        let find =
            |(partition, _): &(TopicIdPartition, FetchPartition)| self.find_for_fetch(partition);
        partitions.iter().map(find).collect()
    }

    async fn wait_and_read(
        &self,
        params: &FetchParams,
        partitions: &[(TopicIdPartition, FetchPartition)],
        mut found: FoundAll,
        mut pass: Pass,
    ) -> Vec<FetchedPartition> {
        let wait = Duration::from_millis(u64::try_from(params.max_wait_ms).unwrap_or(0));
        let deadline = self.0.env.clock.monotonic() + wait;
        loop {
            let missing = i64::from(params.min_bytes)
                .saturating_sub_unsigned(pass.bytes)
                .max(1);
            let parked = Parked::new(self, FetchWaiter::new(missing), deadline);
            let parked = park_all(parked, params, partitions, &found, &pass);
            let (disturbed, expired) = match parked {
                Some(parked) => {
                    parked.waiter.sleep().await;
                    (parked.waiter.is_disturbed(), parked.waiter.is_expired())
                }
                // Something happened between reading and parking: look again.
                None => (false, self.0.env.clock.monotonic() >= deadline),
            };
            if disturbed {
                // A replica may be gone or another one of the same name.
                found = self.find_all(partitions);
            }
            pass = self.read_all(params, partitions, &found, false);
            if pass.answer_now || disturbed || expired {
                return pass.answers;
            }
        }
    }

    fn find_for_fetch(&self, partition: &TopicIdPartition) -> Found {
        let Some(topic) = &partition.topic else {
            return Found::Unknown(ErrorCode::UnknownTopicId);
        };
        match self.find(topic, partition.partition) {
            Ok(found) if partition.topic_id.is_zero() || partition.topic_id == found.topic_id() => {
                Found::Read(found)
            }
            Ok(_) => Found::Failed(ErrorCode::InconsistentTopicId),
            Err(error @ ErrorCode::UnknownTopicOrPartition) => Found::Unknown(error),
            Err(error) => Found::Failed(error),
        }
    }

    /// Reads every partition once, within the limits of the request. `first` is the pass in which
    /// a follower's fetch moves its state here.
    fn read_all(
        &self,
        params: &FetchParams,
        partitions: &[(TopicIdPartition, FetchPartition)],
        found: &[Found],
        first: bool,
    ) -> Pass {
        let mut pass = Pass {
            answers: Vec::with_capacity(partitions.len()),
            seen: Vec::with_capacity(partitions.len()),
            bytes: 0,
            answer_now: false,
        };
        let mut room = usize::try_from(params.max_bytes).unwrap_or(0);
        for ((name, wish), found) in partitions.iter().zip(found) {
            let (answer, seen) = match found {
                Found::Read(partition) => {
                    let limits = Limits {
                        max_bytes: room.min(usize::try_from(wish.max_bytes).unwrap_or(0)),
                        min_one: pass.bytes == 0,
                    };
                    match self.read_one(params, partition, wish, limits, first) {
                        Ok((answer, seen)) => {
                            // Nor is a follower left waiting that is behind in what is committed.
                            pass.answer_now |= wish.lacks_high_watermark(answer.high_watermark);
                            (answer, Some(seen))
                        }
                        Err(error) => {
                            pass.answer_now = true;
                            let mut answer = FetchedPartition::error(error);
                            answer.current_leader = leader_hint_for(error, partition);
                            (answer, None)
                        }
                    }
                }
                Found::Failed(error) => {
                    pass.answer_now = true;
                    let mut answer = FetchedPartition::error(*error);
                    if *error == ErrorCode::NotLeaderOrFollower
                        && let Some(topic) = &name.topic
                    {
                        let topic = super::TopicRef::Name(topic);
                        answer.current_leader = self.leader_hint(topic, name.partition);
                    }
                    (answer, None)
                }
                Found::Unknown(error) => (FetchedPartition::error(*error), None),
            };
            room -= room.min(answer.records.len());
            pass.bytes += answer.records.len() as u64;
            pass.answer_now |= answer.has_advice();
            pass.answers.push(answer);
            pass.seen.push(seen);
        }
        pass.answer_now |=
            i64::try_from(pass.bytes).unwrap_or(i64::MAX) >= i64::from(params.min_bytes);
        pass
    }

    fn read_one(
        &self,
        params: &FetchParams,
        partition: &Partition,
        wish: &FetchPartition,
        limits: Limits,
        first: bool,
    ) -> Result<(FetchedPartition, ReplicaOffsets), ErrorCode> {
        let names_epoch = wish.current_leader_epoch.is_some();
        let seen = partition.offsets_for(wish.current_leader_epoch, params.leader_only)?;
        if params.is_from_follower() {
            partition.check_follower(params.replica_id, names_epoch)?;
        }
        let mut answer = FetchedPartition {
            high_watermark: seen.high_watermark,
            last_stable_offset: seen.last_stable_offset,
            log_start_offset: seen.log_start_offset,
            ..FetchedPartition::error(ErrorCode::None)
        };
        if let Some(epoch) = wish.last_fetched_epoch
            && let Some(parted) = partition.diverging(wish.fetch_offset, epoch, &seen)?
        {
            answer.diverging_epoch = Some(parted);
            return Ok((answer, seen));
        }
        let quota = &self.0.quotas.leader;
        let throttled = params.is_from_follower() && partition.throttles(params.replica_id);
        let limits = if throttled && quota.is_exceeded(self.0.env.clock.monotonic()) {
            Limits {
                max_bytes: 0,
                min_one: false,
            }
        } else {
            limits
        };
        partition.read(
            wish.fetch_offset,
            limits,
            &seen,
            params.isolation,
            &mut answer,
        )?;
        if throttled {
            quota.took(answer.records.len() as u64);
        }
        if first && params.is_from_follower() {
            self.follower_fetched(params, partition, wish, &seen)?;
        }
        Ok((answer, seen))
    }
}

/// Errors by which a client learns that it must look for the leader elsewhere.
fn leader_hint_for(error: ErrorCode, partition: &Partition) -> Option<LeaderHint> {
    matches!(
        error,
        ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch
    )
    .then(|| partition.role(|role| LeaderHint::from(role)))
}

/// A fetch's places in the waiting lists. Leaves them all when dropped.
struct Parked<'a> {
    manager: &'a ReplicaManager,
    waiter: Arc<FetchWaiter>,
    deadline: DeadlineKey,
    places: SmallVec<[(Arc<Partition>, WaiterKey); 4]>,
}

impl<'a> Parked<'a> {
    fn new(manager: &'a ReplicaManager, waiter: Arc<FetchWaiter>, deadline: Duration) -> Self {
        let sleeper = Sleeper::Fetch(Arc::clone(&waiter));
        let deadline = manager.0.timer.insert(deadline, sleeper);
        Parked {
            manager,
            waiter,
            deadline,
            places: SmallVec::new(),
        }
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.manager.0.timer.remove(self.deadline);
        for (partition, key) in self.places.drain(..) {
            partition.unpark(key);
        }
    }
}

/// Enters all waiting lists; `None` if a partition has moved on since it was read.
fn park_all<'a>(
    mut parked: Parked<'a>,
    params: &FetchParams,
    partitions: &[(TopicIdPartition, FetchPartition)],
    found: &[Found],
    pass: &Pass,
) -> Option<Parked<'a>> {
    let reads = partitions
        .iter()
        .zip(found)
        .zip(&pass.seen)
        .zip(&pass.answers);
    for ((((_, wish), found), seen), answer) in reads {
        let (Found::Read(partition), Some(seen)) = (found, seen) else {
            continue;
        };
        let limit = u64::try_from(wish.max_bytes).unwrap_or(0);
        let room = limit.saturating_sub(answer.records.len() as u64);
        let key = partition.park(params.isolation, wish, room, seen, &parked.waiter)?;
        parked.places.push((Arc::clone(partition), key));
    }
    Some(parked)
}
