//! A member that speaks the classic protocol: JoinGroup, SyncGroup, Heartbeat, LeaveGroup. It
//! leads if it is told to, and hands partitions out as Kafka's assignors do: all anew, or, where
//! members keep what they have until they must give it up, only what nobody has.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use klamm_env::Rng as _;
use klamm_protocol::consumer_protocol::consumer_protocol_assignment::TopicPartition;
use klamm_protocol::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, consumer_protocol_subscription,
};
use klamm_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use klamm_protocol::messages::leave_group_request::MemberIdentity;
use klamm_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use klamm_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};
use klamm_protocol::record_frame::{decode_versioned, encode_versioned};
use klamm_protocol::{ByteStr, ErrorCode};

use super::super::super::Violation;
use super::super::broker::Broker;
use super::super::plan::Speech;
use super::super::world::DATA;
use super::GROUP;
use super::client::{Client, REBALANCE_MS, SESSION_MS, TOPIC_NAMES, error};

/// The version in which subscriptions tell what a member has, and in which generation.
const SUBSCRIPTION_VERSION: i16 = 3;

/// What becomes of a member after something went another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It joins again.
    Rejoin,
    /// It goes on.
    Stay,
    /// It is over.
    End,
}

struct Classic {
    client: Client,
    cooperative: bool,
}

/// Runs until the client leaves.
pub(super) async fn consume(client: Client, cooperative: bool) {
    let mut classic = Classic {
        client,
        cooperative,
    };
    classic.client.standing.epoch = -1;
    classic.client.offsets_version = TOPIC_NAMES;
    while !classic.client.leaves() {
        let joined = classic.rejoin().await;
        if joined == Then::End {
            break;
        }
        if joined == Then::Stay && classic.stay().await == Then::End {
            break;
        }
        classic.client.settled(false);
    }
    classic.leave().await;
    let client = classic.client;
    client
        .world
        .note(format_args!("member {} is over", client.id));
    client.world.groups().over(client.id);
}

impl Classic {
    fn protocol(&self) -> &'static str {
        match self.cooperative {
            true => "cooperative-sticky",
            false => "range",
        }
    }

    /// Joins and gets its assignment: [`Then::Stay`] if it did.
    async fn rejoin(&mut self) -> Then {
        if !self.cooperative {
            self.client.give_up_all();
        }
        let joined = match self.join().await {
            Ok(joined) => joined,
            Err(then) => return then,
        };
        self.sync(&joined).await
    }

    /// What a member does about an error about itself.
    async fn refused(&mut self, refused: ErrorCode) -> Then {
        let world = &self.client.world;
        world.note(format_args!("member {} got {refused:?}", self.client.id));
        match refused {
            // The last: the group was deleted, and nobody has come since.
            ErrorCode::UnknownMemberId
            | ErrorCode::IllegalGeneration
            | ErrorCode::GroupIdNotFound => {
                self.client.give_up_all();
                if refused != ErrorCode::IllegalGeneration {
                    self.client.standing.member_id = ByteStr::default();
                }
                self.client.standing.epoch = -1;
                Then::Rejoin
            }
            ErrorCode::RebalanceInProgress => Then::Rejoin,
            ErrorCode::FencedInstanceId => {
                self.client.give_up_all();
                Then::End
            }
            ErrorCode::InconsistentGroupProtocol => {
                // Another protocol has the group for now: as an operator would, try again.
                self.client.give_up_all();
                self.client.standing.member_id = ByteStr::default();
                self.client.pause().await;
                Then::Rejoin
            }
            refused => {
                if !self.client.passing(refused).await {
                    let detail = format!("{} got {refused:?}", self.client.id);
                    let violation = Violation::new("errors", detail);
                    self.client.check(Err(violation));
                }
                Then::Rejoin
            }
        }
    }

    fn subscription(&self) -> Bytes {
        let owned = if self.cooperative {
            vec![consumer_protocol_subscription::TopicPartition {
                topic: DATA.into(),
                partitions: self.client.owned.keys().copied().collect(),
            }]
        } else {
            Vec::new()
        };
        let subscription = ConsumerProtocolSubscription {
            topics: vec![DATA.into()],
            owned_partitions: owned,
            generation_id: self.client.standing.epoch,
            ..ConsumerProtocolSubscription::default()
        };
        encode_versioned(&subscription, SUBSCRIPTION_VERSION).unwrap_or_default()
    }

    async fn join(&mut self) -> Result<JoinGroupResponse, Then> {
        let request = JoinGroupRequest {
            group_id: GROUP.into(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            member_id: self.client.standing.member_id.clone(),
            group_instance_id: self.client.instance.clone(),
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: self.protocol().into(),
                metadata: self.subscription(),
                ..JoinGroupRequestProtocol::default()
            }],
            ..JoinGroupRequest::default()
        };
        let context = self.client.context(9);
        let claim = self.client.claim(request.member_id.is_empty());
        let serve = move |broker: Broker| {
            let (request, context) = (request.clone(), context.clone());
            let claim = claim.clone();
            async move {
                let asked = claim.asked();
                let answer = broker.groups.join_group(&context, request).await;
                claim.answered(asked, answer.error_code);
                answer
            }
        };
        // Behind its SyncGroup no client repeats it.
        let Some(answer) = self.client.ask("join", true, serve).await else {
            return Err(Then::Rejoin);
        };
        let answer = answer.answer;
        match error(answer.error_code) {
            ErrorCode::None => {
                self.client.standing.member_id = answer.member_id.clone();
                self.client.standing.epoch = answer.generation_id;
                Ok(answer)
            }
            ErrorCode::MemberIdRequired => {
                self.client.standing.member_id = answer.member_id;
                Err(Then::Rejoin)
            }
            refused => Err(self.refused(refused).await),
        }
    }

    async fn sync(&mut self, joined: &JoinGroupResponse) -> Then {
        let leads = joined.leader == joined.member_id && !joined.skip_assignment;
        let request = SyncGroupRequest {
            group_id: GROUP.into(),
            generation_id: self.client.standing.epoch,
            member_id: self.client.standing.member_id.clone(),
            group_instance_id: self.client.instance.clone(),
            protocol_type: Some("consumer".into()),
            protocol_name: Some(self.protocol().into()),
            assignments: if leads {
                self.assign(joined)
            } else {
                Vec::new()
            },
            ..SyncGroupRequest::default()
        };
        let context = self.client.context(5);
        let sent_ms = self.client.world.now_ms();
        let serve = move |broker: Broker| {
            let (request, context) = (request.clone(), context.clone());
            async move { broker.groups.sync_group(&context, request).await }
        };
        let Some(answer) = self.client.ask("sync", false, serve).await else {
            return Then::Rejoin;
        };
        let (answer, genuine) = (answer.answer, answer.genuine);
        match error(answer.error_code) {
            ErrorCode::None => {
                let told = read_assignment(&answer.assignment);
                self.client.well(sent_ms, genuine, true, told.as_ref());
                self.assigned(told).await
            }
            refused => self.refused(refused).await,
        }
    }

    /// Takes up what it got and gives up what it did not: then the others must hear of it.
    async fn assigned(&mut self, told: Option<BTreeSet<i32>>) -> Then {
        let Some(told) = told else {
            let detail = format!("{} cannot read its assignment", self.client.id);
            let violation = Violation::new("errors", detail);
            self.client.check(Err(violation));
            return Then::End;
        };
        let world = self.client.world.clone();
        let (id, epoch) = (self.client.id, self.client.standing.epoch);
        world.note(format_args!("member {id} has {told:?} in {epoch}"));
        // A group that is deleted, or is gone with its last offset, begins to count anew.
        let counts_on = !world.plan.deletes && world.plan.retention_ms.is_none();
        if counts_on && matches!(world.plan.speech, Speech::Eager | Speech::Cooperative) {
            let name = match &self.client.instance {
                Some(name) => name.to_string(),
                None => self.client.standing.member_id.to_string(),
            };
            let generation = self.client.standing.epoch;
            let checked = world.groups().generations.told(generation, name, &told);
            self.client.check(checked);
        }
        let lost: BTreeSet<i32> = self.client.owned().difference(&told).copied().collect();
        if !lost.is_empty() {
            world.sleep_ms(world.rng.below(300)).await;
            self.client.give_up(&lost);
        }
        self.client.take(&told).await;
        match lost.is_empty() {
            true => Then::Stay,
            false => Then::Rejoin,
        }
    }

    /// Works, commits and beats until there is a reason to join again.
    async fn stay(&mut self) -> Then {
        self.client.settled(true);
        let world = self.client.world.clone();
        loop {
            world.sleep_ms(400 + world.rng.below(800)).await;
            if self.client.leaves() {
                return Then::Stay;
            }
            let refused = self.beat().await;
            if refused != ErrorCode::None {
                return self.refused(refused).await;
            }
            if world.rng.one_in(2) {
                let refused = self.client.commit().await;
                if !matches!(refused, ErrorCode::None | ErrorCode::RebalanceInProgress) {
                    // The group may change its protocol under a commit: the heartbeat tells.
                    if refused == ErrorCode::StaleMemberEpoch {
                        continue;
                    }
                    return self.refused(refused).await;
                }
            }
        }
    }

    async fn beat(&mut self) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id: self.client.standing.epoch,
            member_id: self.client.standing.member_id.clone(),
            group_instance_id: self.client.instance.clone(),
            ..HeartbeatRequest::default()
        };
        let sent_ms = self.client.world.now_ms();
        let serve = move |broker: Broker| {
            let request = request.clone();
            async move { broker.groups.heartbeat(request).await }
        };
        let Some(answer) = self.client.ask("heartbeat", false, serve).await else {
            return ErrorCode::None;
        };
        let refused = error(answer.answer.error_code);
        if refused == ErrorCode::None {
            self.client.well(sent_ms, answer.genuine, true, None);
        } else if self.client.passing(refused).await {
            return ErrorCode::None;
        }
        refused
    }

    async fn leave(&mut self) {
        self.client.give_up_all();
        if self.client.instance.is_some() {
            return;
        }
        let request = LeaveGroupRequest {
            group_id: GROUP.into(),
            members: vec![MemberIdentity {
                member_id: self.client.standing.member_id.clone(),
                ..MemberIdentity::default()
            }],
            ..LeaveGroupRequest::default()
        };
        let context = self.client.context(5);
        let serve = move |broker: Broker| {
            let (request, context) = (request.clone(), context.clone());
            async move { broker.groups.leave_group(&context, request).await }
        };
        let _ = self.client.ask("leave", false, serve).await;
    }

    /// What the leader gives to whom.
    fn assign(&self, joined: &JoinGroupResponse) -> Vec<SyncGroupRequestAssignment> {
        let count = self.client.world.plan.data_partitions;
        let mut claims: BTreeMap<i32, (i32, &ByteStr)> = BTreeMap::new();
        for member in &joined.members {
            let Some((owned, generation)) = read_subscription(&member.metadata) else {
                continue;
            };
            for partition in owned {
                let claim = claims
                    .entry(partition)
                    .or_insert((generation, &member.member_id));
                if claim.0 < generation {
                    *claim = (generation, &member.member_id);
                }
            }
        }
        let members: Vec<&ByteStr> = joined.members.iter().map(|m| &m.member_id).collect();
        let share = (count as usize).div_ceil(members.len().max(1));
        let mut given: BTreeMap<&ByteStr, Vec<i32>> =
            members.iter().map(|member| (*member, Vec::new())).collect();
        let mut free = Vec::new();
        for partition in 0..count {
            match claims.get(&partition) {
                Some((_, member)) if self.cooperative => {
                    // Its owner keeps it, or gives it up before it goes elsewhere.
                    let has = given.entry(member).or_default();
                    if has.len() < share {
                        has.push(partition);
                    }
                }
                _ => free.push(partition),
            }
        }
        for partition in free {
            let least = given.iter().min_by_key(|(_, has)| has.len());
            if let Some(member) = least.map(|(member, _)| *member) {
                given.entry(member).or_default().push(partition);
            }
        }
        let assignments = given.into_iter();
        assignments
            .map(|(member_id, partitions)| SyncGroupRequestAssignment {
                member_id: member_id.clone(),
                assignment: assignment_bytes(partitions),
                ..SyncGroupRequestAssignment::default()
            })
            .collect()
    }
}

fn assignment_bytes(partitions: Vec<i32>) -> Bytes {
    let assignment = ConsumerProtocolAssignment {
        assigned_partitions: vec![TopicPartition {
            topic: DATA.into(),
            partitions,
        }],
        user_data: None,
    };
    encode_versioned(&assignment, SUBSCRIPTION_VERSION).unwrap_or_default()
}

fn read_assignment(bytes: &Bytes) -> Option<BTreeSet<i32>> {
    if bytes.is_empty() {
        return Some(BTreeSet::new());
    }
    let assignment: ConsumerProtocolAssignment = decode_versioned(bytes.clone()).ok()?;
    let partitions = assignment.assigned_partitions.into_iter();
    Some(partitions.flat_map(|topic| topic.partitions).collect())
}

fn read_subscription(bytes: &Bytes) -> Option<(Vec<i32>, i32)> {
    let subscription: ConsumerProtocolSubscription = decode_versioned(bytes.clone()).ok()?;
    let owned = subscription.owned_partitions.into_iter();
    let owned = owned.flat_map(|topic| topic.partitions).collect();
    Some((owned, subscription.generation_id))
}
