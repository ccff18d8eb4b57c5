//! What members of all protocols share: the way to the coordinator, offsets, what they own.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use klamm_coordinator::RequestContext;
use klamm_env::Rng as _;
use klamm_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use klamm_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::{OffsetCommitRequest, OffsetFetchRequest};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

use super::super::super::Violation;
use super::super::broker::Broker;
use super::super::world::{Answer, World};
use super::ownership::Lease;
use super::{GROUP, place};
use crate::Address;

/// How long a member may be silent.
pub(super) const SESSION_MS: i32 = 6_000;
/// How long it may take to give up what it must.
pub(super) const REBALANCE_MS: i32 = 5_000;

/// From this version on, OffsetCommit and OffsetFetch name topics by their ids.
const TOPIC_IDS_FROM: i16 = 10;
/// The version before.
pub(super) const TOPIC_NAMES: i16 = 9;

/// What a member is, in the eyes of the group.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    pub(super) member_id: ByteStr,
    /// Generation or member epoch; -1 for none.
    pub(super) epoch: i32,
}

/// A member of a group.
pub(in super::super) struct Client {
    pub(super) world: World,
    pub(super) id: usize,
    pub(super) instance: Option<ByteStr>,
    pub(super) standing: Standing,
    /// The partitions that it works on, by their numbers, and how far it is.
    pub(super) owned: BTreeMap<i32, i64>,
    /// The version of OffsetCommit and OffsetFetch that it speaks.
    pub(super) offsets_version: i16,
    address: Address,
    coordinator: Option<Address>,
    leaving: Arc<AtomicBool>,
}

/// A request by which a member may take the place of whoever has its name, as its coordinator sees
/// it: what is known of it then counts, whether the client hears of it or not.
#[derive(Clone)]
pub(super) struct Claim {
    world: World,
    id: usize,
    /// Whether it asks for the name.
    joins: bool,
}

impl Claim {
    /// The request is about to be handled. Returns when it was before.
    pub(super) fn asked(&self) -> Option<i64> {
        let now_ms = self.world.now_ms();
        let mut history = self.world.groups();
        match self.joins {
            true => history.ownership.claims(self.id, now_ms),
            false => None,
        }
    }

    /// It was handled. What an error says may have been done all the same, but for one.
    pub(super) fn answered(&self, before_ms: Option<i64>, refused: i16) {
        if self.joins && error(refused) == ErrorCode::UnreleasedInstanceId {
            self.world.groups().ownership.refused(self.id, before_ms);
        } else {
            self.asked();
        }
    }
}

/// The error of a code.
pub(in super::super) fn error(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}

impl Client {
    pub(in super::super) fn new(
        world: &World,
        id: usize,
        instance: Option<String>,
        leaving: Arc<AtomicBool>,
    ) -> Client {
        let lease = Lease {
            session_ms: SESSION_MS.into(),
            rebalance_ms: REBALANCE_MS.into(),
        };
        world.groups().ownership.came(id, instance.clone(), lease);
        Client {
            world: world.clone(),
            id,
            instance: instance.as_deref().map(ByteStr::from),
            standing: Standing::default(),
            owned: BTreeMap::new(),
            offsets_version: TOPIC_IDS_FROM,
            address: world.address(),
            coordinator: None,
            leaving,
        }
    }

    /// Whether it is to leave in order.
    pub(super) fn leaves(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// It is told to leave.
    pub(super) fn stop(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    pub(super) fn context(&self, api_version: i16) -> RequestContext {
        RequestContext {
            api_version,
            client_id: format!("client-{}", self.id).as_str().into(),
            client_host: "/127.0.0.1".into(),
        }
    }

    pub(super) fn claim(&self, joins: bool) -> Claim {
        Claim {
            world: self.world.clone(),
            id: self.id,
            joins,
        }
    }

    pub(super) fn check(&self, result: Result<(), Violation>) {
        self.world.check(result);
    }

    /// Asks the coordinator of the group.
    pub(super) async fn ask<T, F>(
        &mut self,
        what: &'static str,
        once: bool,
        serve: impl Fn(Broker) -> F + Send + Sync + 'static,
    ) -> Option<Answer<T>>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let to = match self.coordinator {
            Some(to) => to,
            None => self.world.leader(place()),
        };
        self.coordinator = Some(to);
        let asked = (place(), once);
        let answer = self
            .world
            .call((self.address, to), what, asked, serve)
            .await;
        if answer.is_none() {
            self.coordinator = None;
        }
        answer
    }

    /// What every client does about errors that say nothing of its standing: true if it was one.
    pub(super) async fn passing(&mut self, error: ErrorCode) -> bool {
        self.world
            .note(format_args!("member {} is told {error:?}", self.id));
        match error {
            ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable => {
                self.coordinator = None;
            }
            ErrorCode::UnknownServerError => {
                let detail = format!("{} got UNKNOWN_SERVER_ERROR", self.id);
                self.check(Err(Violation::new("errors", detail)));
            }
            ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::RequestTimedOut
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::NotLeaderOrFollower => {}
            _ => return false,
        }
        self.pause().await;
        true
    }

    pub(super) async fn pause(&self) {
        self.world.sleep_ms(20 + self.world.rng.below(150)).await;
    }

    /// Takes partitions up: from where they were left.
    pub(super) async fn take(&mut self, partitions: &BTreeSet<i32>) {
        let new: BTreeSet<i32> = partitions
            .iter()
            .copied()
            .filter(|partition| !self.owned.contains_key(partition))
            .collect();
        if new.is_empty() {
            return;
        }
        let now_ms = self.world.now_ms();
        for partition in &new {
            let taken = self
                .world
                .groups()
                .ownership
                .take(self.id, *partition, now_ms);
            self.check(taken);
        }
        let positions = self.fetch(&new, false).await;
        for partition in new {
            let at = positions.get(&partition).copied();
            self.owned.insert(partition, at.unwrap_or(-1));
        }
    }

    pub(super) fn give_up(&mut self, partitions: &BTreeSet<i32>) {
        self.owned
            .retain(|partition, _| !partitions.contains(partition));
        self.world.groups().ownership.give_up(self.id, partitions);
    }

    pub(super) fn give_up_all(&mut self) {
        let all = self.owned.keys().copied().collect();
        self.give_up(&all);
    }

    pub(super) fn owned(&self) -> BTreeSet<i32> {
        self.owned.keys().copied().collect()
    }

    /// A heartbeat that was sent then was answered well.
    ///
    /// With `told` the answer says what the member is to have; the rest of what it still works on it
    /// is about to give up, and does not count on any more.
    pub(super) fn well(
        &self,
        sent_ms: i64,
        genuine: bool,
        calm: bool,
        told: Option<&BTreeSet<i32>>,
    ) {
        let mut history = self.world.groups();
        if genuine {
            let now_ms = self.world.now_ms();
            history.ownership.beat(self.id, sent_ms, calm, now_ms);
            let kept = |p: &&i32| told.is_none_or(|told| told.contains(p));
            for partition in self.owned.keys().filter(kept) {
                if !history.ownership.owns(self.id, *partition) {
                    let taken = history.ownership.take(self.id, *partition, now_ms);
                    self.world.check(taken);
                }
            }
        }
        if let Some(live) = history.live.get_mut(&self.id) {
            live.well_ms = self.world.now_ms();
        }
    }

    pub(super) fn settled(&self, settled: bool) {
        if let Some(live) = self.world.groups().live.get_mut(&self.id) {
            live.settled = settled;
        }
    }

    /// Fetches offsets until an answer comes, and checks it. Gives up while it is in trouble and
    /// nobody insists: partitions that are missing start anew with the next commit.
    pub(in super::super) async fn fetch(
        &mut self,
        partitions: &BTreeSet<i32>,
        insists: bool,
    ) -> BTreeMap<i32, i64> {
        let request = OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup {
                group_id: GROUP.into(),
                topics: Some(self.asked(partitions)),
                member_epoch: -1,
                ..OffsetFetchRequestGroup::default()
            }],
            require_stable: true,
            ..OffsetFetchRequest::default()
        };
        for _ in 0..if insists { 100 } else { 8 } {
            let floors: BTreeMap<i32, _> = {
                let history = self.world.groups();
                let floor = |p: &i32| (*p, history.offsets.floor(*p));
                partitions.iter().map(floor).collect()
            };
            let (request, context) = (request.clone(), self.context(self.offsets_version));
            let world = self.world.clone();
            let serve = move |broker: Broker| {
                let (request, context) = (request.clone(), context.clone());
                let topics = world.lookup();
                async move { broker.groups.offset_fetch(&context, request, &topics).await }
            };
            let Some(Answer { answer, genuine }) = self.ask("fetch offsets", false, serve).await
            else {
                continue;
            };
            let Some(group) = answer.groups.first() else {
                continue;
            };
            let refused = error(group.error_code);
            if refused != ErrorCode::None || !genuine {
                if refused == ErrorCode::None || !self.passing(refused).await {
                    self.coordinator = None;
                    self.pause().await;
                }
                continue;
            }
            let mut found = BTreeMap::new();
            for topic in &group.topics {
                for partition in &topic.partitions {
                    let index = partition.partition_index;
                    let number = self.number_of(&topic.name, topic.topic_id, index);
                    // One of a topic that was deleted meanwhile has none.
                    let Some(number) = number.filter(|_| partition.error_code == 0) else {
                        continue;
                    };
                    let floor = floors.get(&number).copied().flatten();
                    let offset = partition.committed_offset;
                    let now_ms = self.world.now_ms();
                    let mut history = self.world.groups();
                    let checked = history.offsets.check(number, floor, offset, now_ms);
                    drop(history);
                    self.check(checked);
                    found.insert(number, offset);
                }
            }
            return found;
        }
        if insists {
            let detail = "offsets cannot be fetched".to_owned();
            self.check(Err(Violation::new("healing", detail)));
        }
        BTreeMap::new()
    }

    /// Works on, and commits how far it is. The error is the group's word on the member.
    pub(super) async fn commit(&mut self) -> ErrorCode {
        if self.owned.values().any(|at| *at < 0) {
            // It does not know where to begin, or nobody has begun.
            let unknown = self.owned.iter().filter(|(_, at)| **at < 0);
            let unknown: BTreeSet<i32> = unknown.map(|(partition, _)| *partition).collect();
            for (partition, at) in self.fetch(&unknown, false).await {
                self.owned.insert(partition, at.max(0));
            }
        }
        let topics = self.next_commit();
        if topics.is_empty() {
            return ErrorCode::None;
        }
        let request = OffsetCommitRequest {
            group_id: GROUP.into(),
            generation_id_or_member_epoch: self.standing.epoch,
            member_id: self.standing.member_id.clone(),
            group_instance_id: self.instance.clone(),
            topics,
            ..OffsetCommitRequest::default()
        };
        let context = self.context(self.offsets_version);
        let world = self.world.clone();
        let serve = move |broker: Broker| {
            let (request, context) = (request.clone(), context.clone());
            let topics = world.lookup();
            async move {
                broker
                    .groups
                    .offset_commit(&context, request, &topics)
                    .await
            }
        };
        let sent_ms = self.world.now_ms();
        let Some(Answer { answer, .. }) = self.ask("commit", true, serve).await else {
            return ErrorCode::None;
        };
        let mut worst = ErrorCode::None;
        for topic in &answer.topics {
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let number = self.number_of(&topic.name, topic.topic_id, index);
                match (error(partition.error_code), number) {
                    (ErrorCode::None, Some(number)) => self.committed(number, sent_ms),
                    // It was deleted.
                    (ErrorCode::None | ErrorCode::UnknownTopicId, _) => {}
                    (error, _) => worst = error,
                }
            }
        }
        if worst != ErrorCode::None && self.passing(worst).await {
            return ErrorCode::None;
        }
        worst
    }

    /// The offset of a commit was acknowledged.
    fn committed(&self, number: i32, sent_ms: i64) {
        let mut history = self.world.groups();
        if let Some(at) = self.owned.get(&number)
            && history.ownership.owns(self.id, number)
        {
            history.offsets.acknowledged(number, *at, sent_ms);
        }
    }

    /// Works on, and how far it is then.
    fn next_commit(&mut self) -> Vec<OffsetCommitRequestTopic> {
        let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
        for (number, at) in self.owned.iter_mut().filter(|(_, at)| **at >= 0) {
            let Some(found) = self.world.topics.partition(*number) else {
                continue;
            };
            *at += 1 + self.world.rng.range(0, 5);
            self.world.groups().offsets.sent(*number, *at);
            let partition = OffsetCommitRequestPartition {
                partition_index: found.partition,
                committed_offset: *at,
                ..OffsetCommitRequestPartition::default()
            };
            match topics.last_mut().filter(|t| t.topic_id == found.topic_id) {
                Some(topic) => topic.partitions.push(partition),
                None => topics.push(OffsetCommitRequestTopic {
                    name: found.name,
                    topic_id: found.topic_id,
                    partitions: vec![partition],
                    ..OffsetCommitRequestTopic::default()
                }),
            }
        }
        topics
    }

    /// Partitions as a fetch of offsets names them.
    fn asked(&self, numbers: &BTreeSet<i32>) -> Vec<OffsetFetchRequestTopics> {
        let mut topics: Vec<OffsetFetchRequestTopics> = Vec::new();
        for found in numbers
            .iter()
            .filter_map(|n| self.world.topics.partition(*n))
        {
            match topics.last_mut().filter(|t| t.topic_id == found.topic_id) {
                Some(topic) => topic.partition_indexes.push(found.partition),
                None => topics.push(OffsetFetchRequestTopics {
                    name: found.name,
                    topic_id: found.topic_id,
                    partition_indexes: vec![found.partition],
                    ..OffsetFetchRequestTopics::default()
                }),
            }
        }
        topics
    }

    /// The number of a partition that an answer names, by the topic's id or its name.
    fn number_of(&self, name: &str, topic_id: Uuid, partition: i32) -> Option<i32> {
        let topics = &self.world.topics;
        let id = match self.offsets_version {
            TOPIC_IDS_FROM.. => topic_id,
            _ => topics.id(name),
        };
        topics.number(id, partition)
    }
}
