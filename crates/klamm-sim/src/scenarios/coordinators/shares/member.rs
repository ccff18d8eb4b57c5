//! A share consumer: heartbeats tell it which partitions to read, their leaders give it records.

use std::collections::BTreeSet;

use klamm_coordinator::RequestContext;
use klamm_coordinator::share_partition::{AcknowledgeType, Acknowledgement, AcquiredRange};
use klamm_env::Rng as _;
use klamm_protocol::messages::{ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse};
use klamm_protocol::{ByteStr, ErrorCode};

use super::super::super::Violation;
use super::super::broker::Broker;
use super::super::groups::client::error;
use super::super::world::{DATA, World};
use super::{GROUP, place};
use crate::Address;

/// How often it reads between two heartbeats.
const READS: usize = 4;

struct Member {
    world: World,
    id: ByteStr,
    address: Address,
    epoch: i32,
    assigned: BTreeSet<i32>,
    /// Whether to say everything, and hear everything, as an answer may be lost.
    says_all: bool,
}

/// Runs until somebody ends it.
pub(super) async fn consume(world: World, id: usize) {
    let mut member = Member {
        address: world.address(),
        id: format!("sharer-{id}").as_str().into(),
        epoch: 0,
        assigned: BTreeSet::new(),
        says_all: true,
        world,
    };
    loop {
        member.beat().await;
        for _ in 0..READS {
            let rng = &member.world.rng;
            let pause_ms = rng.below(300);
            member.world.sleep_ms(20 + pause_ms).await;
            let assigned: Vec<i32> = member.assigned.iter().copied().collect();
            if let Some(partition) = member.world.rng.pick(&assigned).copied() {
                member.read(partition).await;
            }
        }
        if member.epoch > 0 && !member.world.is_calm() && member.world.rng.one_in(30) {
            member.leave().await;
        }
    }
}

impl Member {
    async fn send(&self, epoch: i32, joins: bool) -> Option<ShareGroupHeartbeatResponse> {
        let request = ShareGroupHeartbeatRequest {
            group_id: GROUP.into(),
            member_id: self.id.clone(),
            member_epoch: epoch,
            subscribed_topic_names: joins.then(|| vec![DATA.into()]),
            ..ShareGroupHeartbeatRequest::default()
        };
        let context = RequestContext {
            api_version: 1,
            client_id: "sharer".into(),
            client_host: "/127.0.0.1".into(),
        };
        let serve = move |broker: Broker| {
            let (request, context) = (request.clone(), context.clone());
            async move {
                let groups = &broker.groups;
                groups.share_group_heartbeat(&context, request).await
            }
        };
        let to = self.world.leader(place());
        // What changed is told once: no client repeats this.
        let asked = (place(), true);
        let way = (self.address, to);
        let answer = self.world.call(way, "share heartbeat", asked, serve).await;
        answer.map(|answer| answer.answer)
    }

    async fn beat(&mut self) {
        let says_all = self.says_all || self.epoch == 0;
        let Some(answer) = self.send(self.epoch, says_all).await else {
            self.says_all = true;
            return;
        };
        self.says_all = answer.error_code != 0;
        match error(answer.error_code) {
            ErrorCode::None => {
                self.epoch = answer.member_epoch;
                if let Some(assignment) = answer.assignment {
                    let topics = assignment.topic_partitions.into_iter();
                    self.assigned = topics.flat_map(|topic| topic.partitions).collect();
                }
            }
            ErrorCode::UnknownMemberId | ErrorCode::FencedMemberEpoch => {
                self.epoch = 0;
                self.assigned.clear();
            }
            ErrorCode::UnknownServerError => {
                let detail = format!("{} got UNKNOWN_SERVER_ERROR", self.id);
                self.world.check(Err(Violation::new("errors", detail)));
            }
            _ => {}
        }
    }

    /// Leaves, and comes back later.
    async fn leave(&mut self) {
        let _ = self.send(-1, false).await;
        for partition in std::mem::take(&mut self.assigned) {
            let (world, id) = (self.world.clone(), self.id.clone());
            let serve = move |broker: Broker| {
                let (world, id) = (world.clone(), id.clone());
                async move { broker.share_release(&world, partition, &id).await }
            };
            let data = (DATA, partition);
            let way = (self.address, self.world.leader(data));
            let _ = self.world.call(way, "release", (data, false), serve).await;
        }
        self.epoch = 0;
        self.world.sleep_ms(self.world.rng.below(2_000)).await;
    }

    /// Fetches from a partition, and says something of what it got, or not.
    async fn read(&mut self, partition: i32) {
        let data = (DATA, partition);
        let to = self.world.leader(data);
        let (world, id) = (self.world.clone(), self.id.clone());
        let serve = move |broker: Broker| {
            let (world, id) = (world.clone(), id.clone());
            async move { broker.share_fetch(&world, partition, &id).await }
        };
        let way = (self.address, to);
        let call = self.world.call(way, "share fetch", (data, false), serve);
        let acquired = match call.await.map(|answer| answer.answer) {
            Some(Ok(acquired)) if !acquired.is_empty() => acquired,
            Some(Err(ErrorCode::UnknownServerError)) => {
                let detail = format!("{} got UNKNOWN_SERVER_ERROR", self.id);
                self.world.check(Err(Violation::new("errors", detail)));
                return;
            }
            _ => return,
        };
        self.world.sleep_ms(self.world.rng.below(100)).await;
        if !self.world.is_calm() && self.world.rng.one_in(15) {
            // Forgotten, until the lock ends.
            return;
        }
        let said: Vec<Acknowledgement> = acquired
            .iter()
            .flat_map(|range| self.words(range))
            .collect();
        self.world.shares().asked(partition, &said);
        let (world, id) = (self.world.clone(), self.id.clone());
        let serve = move |broker: Broker| {
            let (world, id, said) = (world.clone(), id.clone(), said.clone());
            async move {
                broker
                    .share_acknowledge(&world, partition, &id, &said)
                    .await
            }
        };
        let asked = (data, false);
        let _ = self.world.call(way, "acknowledge", asked, serve).await;
    }

    /// What it says of a range: of all the same, or of its two halves.
    fn words(&self, range: &AcquiredRange) -> Vec<Acknowledgement> {
        let (first, last) = (range.first_offset, range.last_offset);
        let middle = first + self.world.rng.range(0, last - first + 1);
        let halves = [(first, middle), (middle + 1, last)];
        let halves = halves.into_iter().filter(|(first, last)| first <= last);
        halves
            .map(|(first_offset, last_offset)| Acknowledgement {
                first_offset,
                last_offset,
                types: vec![self.word()],
            })
            .collect()
    }

    fn word(&self) -> AcknowledgeType {
        match self.world.rng.index(10) {
            0 if !self.world.is_calm() => AcknowledgeType::Release,
            1 => AcknowledgeType::Reject,
            2 if !self.world.is_calm() => AcknowledgeType::Renew,
            _ => AcknowledgeType::Accept,
        }
    }
}
