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

use super::super::super::Violation;
use super::super::broker::Broker;
use super::super::world::{Answer, DATA, Topics, World};
use super::ownership::Lease;
use super::{GROUP, place};
use crate::Address;

/// How long a member may be silent.
pub(super) const SESSION_MS: i32 = 6_000;
/// How long it may take to give up what it must.
pub(super) const REBALANCE_MS: i32 = 5_000;

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
    /// What it works on, and how far it is.
    pub(super) owned: BTreeMap<i32, i64>,
    address: Address,
    coordinator: Option<Address>,
    leaving: Arc<AtomicBool>,
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
            address: world.address(),
            coordinator: None,
            leaving,
        }
    }

    /// Whether it is to leave in order.
    pub(super) fn leaves(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    pub(super) fn context(&self, api_version: i16) -> RequestContext {
        RequestContext {
            api_version,
            client_id: format!("client-{}", self.id).as_str().into(),
            client_host: "/127.0.0.1".into(),
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
            history.ownership.beat(self.id, sent_ms, calm);
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
        let topic = OffsetFetchRequestTopics {
            name: DATA.into(),
            partition_indexes: partitions.iter().copied().collect(),
            ..OffsetFetchRequestTopics::default()
        };
        let request = OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup {
                group_id: GROUP.into(),
                topics: Some(vec![topic]),
                member_epoch: -1,
                ..OffsetFetchRequestGroup::default()
            }],
            require_stable: true,
            ..OffsetFetchRequest::default()
        };
        for _ in 0..if insists { 100 } else { 8 } {
            let floors: BTreeMap<i32, i64> = {
                let history = self.world.groups();
                let floor = |p: &i32| (*p, history.offsets.floor(*p));
                partitions.iter().map(floor).collect()
            };
            let (request, context) = (request.clone(), self.context(9));
            let count = self.world.plan.data_partitions;
            let serve = move |broker: Broker| {
                let (request, context) = (request.clone(), context.clone());
                async move {
                    let topics = Topics(count);
                    broker.groups.offset_fetch(&context, request, &topics).await
                }
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
            for partition in group.topics.iter().flat_map(|topic| &topic.partitions) {
                let (number, offset) = (partition.partition_index, partition.committed_offset);
                let floor = floors.get(&number).copied().unwrap_or(-1);
                let checked = self.world.groups().offsets.check(number, floor, offset);
                self.check(checked);
                found.insert(number, offset);
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
    pub(super) async fn commit(&mut self, api_version: i16) -> ErrorCode {
        if self.owned.values().any(|at| *at < 0) {
            // It does not know where to begin, or nobody has begun.
            let unknown = self.owned.iter().filter(|(_, at)| **at < 0);
            let unknown: BTreeSet<i32> = unknown.map(|(partition, _)| *partition).collect();
            for (partition, at) in self.fetch(&unknown, false).await {
                self.owned.insert(partition, at.max(0));
            }
        }
        let mut partitions = Vec::new();
        for (partition, at) in self.owned.iter_mut().filter(|(_, at)| **at >= 0) {
            *at += 1 + self.world.rng.range(0, 5);
            self.world.groups().offsets.sent(*partition, *at);
            partitions.push(OffsetCommitRequestPartition {
                partition_index: *partition,
                committed_offset: *at,
                ..OffsetCommitRequestPartition::default()
            });
        }
        if partitions.is_empty() {
            return ErrorCode::None;
        }
        let request = OffsetCommitRequest {
            group_id: GROUP.into(),
            generation_id_or_member_epoch: self.standing.epoch,
            member_id: self.standing.member_id.clone(),
            group_instance_id: self.instance.clone(),
            topics: vec![OffsetCommitRequestTopic {
                name: DATA.into(),
                partitions,
                ..OffsetCommitRequestTopic::default()
            }],
            ..OffsetCommitRequest::default()
        };
        let context = self.context(api_version);
        let count = self.world.plan.data_partitions;
        let serve = move |broker: Broker| {
            let (request, context) = (request.clone(), context.clone());
            async move {
                let topics = Topics(count);
                broker
                    .groups
                    .offset_commit(&context, request, &topics)
                    .await
            }
        };
        let Some(Answer { answer, .. }) = self.ask("commit", true, serve).await else {
            return ErrorCode::None;
        };
        let mut worst = ErrorCode::None;
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            let number = partition.partition_index;
            match error(partition.error_code) {
                ErrorCode::None => {
                    let mut history = self.world.groups();
                    if let Some(at) = self.owned.get(&number)
                        && history.ownership.owns(self.id, number)
                    {
                        history.offsets.acknowledged(number, *at);
                    }
                }
                error => worst = error,
            }
        }
        if worst != ErrorCode::None && self.passing(worst).await {
            return ErrorCode::None;
        }
        worst
    }
}
