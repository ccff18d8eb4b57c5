//! A member that speaks the consumer protocol (KIP-848): one request, the heartbeat. What it is
//! told to have it works towards: first it gives up what is not in it, and says so; what is new it
//! takes up at once, as the coordinator gives nothing that somebody else has.

use std::collections::BTreeSet;

use klamm_env::Rng as _;
use klamm_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use klamm_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use klamm_protocol::{ByteStr, ErrorCode};

use super::super::super::Violation;
use super::super::Flaw;
use super::super::broker::Broker;
use super::super::world::{Answer, DATA};
use super::client::{Client, REBALANCE_MS, error};
use super::{GROUP, SECOND};

/// The epoch of a member that leaves.
const LEAVES: i32 = -1;
/// The same of a static one that comes back.
const LEAVES_FOR_A_WHILE: i32 = -2;

/// What fits both topics.
const PATTERN: &str = "data(-[a-z]+)?";

struct Consumer {
    client: Client,
    /// What it subscribes to, if not by name.
    pattern: Option<&'static str>,
    /// What it was told to have.
    told: BTreeSet<i32>,
    /// When it is done with giving up.
    busy_until_ms: Option<i64>,
    /// Whether to say everything, as the coordinator may not know.
    says_all: bool,
    /// Whether to say what it has, as that has changed.
    says_owned: bool,
}

/// Runs until the client leaves.
pub(super) async fn consume(mut client: Client) {
    client.standing.member_id = format!("consumer-{}", client.id).as_str().into();
    let plan = &client.world.plan;
    let pattern = (plan.second_topic && client.world.rng.one_in(2)).then_some(PATTERN);
    let mut consumer = Consumer {
        client,
        pattern,
        told: BTreeSet::new(),
        busy_until_ms: None,
        says_all: true,
        says_owned: true,
    };
    let world = consumer.client.world.clone();
    while !consumer.client.leaves() {
        let refused = consumer.beat().await;
        let refused = match refused {
            ErrorCode::None if consumer.client.standing.epoch > 0 => consumer.work().await,
            refused => refused,
        };
        if !consumer.answered(refused).await {
            break;
        }
        if !consumer.says_owned || consumer.client.standing.epoch == 0 {
            world.sleep_ms(400 + world.rng.below(800)).await;
        }
    }
    consumer.leave().await;
    world.note(format_args!("member {} is over", consumer.client.id));
    world.groups().over(consumer.client.id);
}

impl Consumer {
    /// What it makes of an error. False if it is over.
    async fn answered(&mut self, refused: ErrorCode) -> bool {
        if refused != ErrorCode::None {
            let world = &self.client.world;
            world.note(format_args!("member {} got {refused:?}", self.client.id));
        }
        match refused {
            ErrorCode::None | ErrorCode::StaleMemberEpoch => {}
            // The last: the group speaks another protocol for now, which Kafka's client gives up at;
            // whoever runs it starts it again.
            ErrorCode::FencedMemberEpoch
            | ErrorCode::UnknownMemberId
            | ErrorCode::GroupIdNotFound => {
                self.client.give_up_all();
                self.told.clear();
                self.busy_until_ms = None;
                self.client.standing.epoch = 0;
                self.says_all = true;
            }
            ErrorCode::FencedInstanceId => {
                self.client.give_up_all();
                return false;
            }
            // Its name is not free yet.
            ErrorCode::UnreleasedInstanceId => {
                self.client.pause().await;
            }
            refused => {
                self.says_all = true;
                if !self.client.passing(refused).await {
                    let detail = format!("{} got {refused:?}", self.client.id);
                    self.client.check(Err(Violation::new("errors", detail)));
                }
            }
        }
        true
    }

    fn request(&self) -> ConsumerGroupHeartbeatRequest {
        let hurries = self.client.world.flaw == Flaw::AssignBeforeRevoke;
        let says_owned = self.says_owned || self.says_all || hurries;
        let mut owned = self.client.owned();
        if hurries {
            // What must go counts as gone before it is.
            owned = self.told.clone();
        }
        let owned = self.by_topic(&owned);
        let all = self.says_all;
        ConsumerGroupHeartbeatRequest {
            group_id: GROUP.into(),
            member_id: self.client.standing.member_id.clone(),
            member_epoch: self.client.standing.epoch,
            instance_id: self.client.instance.clone(),
            rebalance_timeout_ms: if all { REBALANCE_MS } else { -1 },
            subscribed_topic_names: (all && self.pattern.is_none()).then(|| self.names()),
            subscribed_topic_regex: self.pattern.filter(|_| all).map(ByteStr::from_static),
            topic_partitions: says_owned.then_some(owned),
            ..ConsumerGroupHeartbeatRequest::default()
        }
    }

    fn names(&self) -> Vec<ByteStr> {
        let second = self.client.world.plan.second_topic.then_some(SECOND);
        std::iter::once(DATA)
            .chain(second)
            .map(ByteStr::from_static)
            .collect()
    }

    /// Partitions as a heartbeat names them.
    fn by_topic(&self, numbers: &BTreeSet<i32>) -> Vec<TopicPartitions> {
        let mut topics: Vec<TopicPartitions> = Vec::new();
        let world = &self.client.world;
        for found in numbers.iter().filter_map(|n| world.topics.partition(*n)) {
            match topics.last_mut().filter(|t| t.topic_id == found.topic_id) {
                Some(topic) => topic.partitions.push(found.partition),
                None => topics.push(TopicPartitions {
                    topic_id: found.topic_id,
                    partitions: vec![found.partition],
                    ..TopicPartitions::default()
                }),
            }
        }
        topics
    }

    async fn send(
        &mut self,
        request: ConsumerGroupHeartbeatRequest,
    ) -> Option<Answer<ConsumerGroupHeartbeatResponse>> {
        let context = self.client.context(1);
        let claim = self.client.claim(request.member_epoch == 0);
        let serve = move |broker: Broker| {
            let (request, context) = (request.clone(), context.clone());
            let claim = claim.clone();
            async move {
                let groups = &broker.groups;
                let asked = claim.asked();
                let answer = groups.consumer_group_heartbeat(&context, request).await;
                claim.answered(asked, answer.error_code);
                answer
            }
        };
        // A heartbeat is answered with what changed since the last one, and one that joins gives up
        // all that the member has: no client repeats either, but makes a new one that is complete.
        self.client.ask("consumer heartbeat", true, serve).await
    }

    async fn beat(&mut self) -> ErrorCode {
        if self.client.standing.epoch == 0 {
            self.client.give_up_all();
            self.told.clear();
            self.says_all = true;
        }
        let request = self.request();
        let sent_ms = self.client.world.now_ms();
        let Some(Answer { answer, genuine }) = self.send(request).await else {
            // Nobody knows what arrived.
            self.says_all = true;
            return ErrorCode::None;
        };
        let refused = error(answer.error_code);
        if refused != ErrorCode::None {
            return refused;
        }
        self.says_all = false;
        self.says_owned = false;
        self.client.standing.epoch = answer.member_epoch;
        let assignment = answer.assignment.map(|assignment| {
            let topics = &self.client.world.topics;
            let told = assignment.topic_partitions.iter();
            let told = told.flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.filter_map(move |partition| topics.number(topic.topic_id, *partition))
            });
            told.collect()
        });
        if let Some(told) = &assignment {
            self.told = BTreeSet::clone(told);
        }
        let calm = self.client.owned().is_subset(&self.told);
        self.client.well(sent_ms, genuine, calm, None);
        if let Some(told) = assignment {
            let (id, epoch) = (self.client.id, self.client.standing.epoch);
            let world = &self.client.world;
            world.note(format_args!("member {id} is to have {told:?} in {epoch}"));
            self.reconcile();
        }
        ErrorCode::None
    }

    /// It was told what to have.
    fn reconcile(&mut self) {
        let world = self.client.world.clone();
        let now_ms = world.now_ms();
        for partition in &self.told {
            let mut history = world.groups();
            let given = history.ownership.given(self.client.id, *partition, now_ms);
            drop(history);
            self.client.check(given);
        }
        if self.busy_until_ms.is_none() {
            let gives_up = !self.client.owned().is_subset(&self.told);
            let takes_ms = if gives_up {
                world.rng.range(0, 1_500)
            } else {
                0
            };
            self.busy_until_ms = Some(now_ms + takes_ms);
        }
    }

    /// Gives up and takes up, if it is time; commits now and then.
    async fn work(&mut self) -> ErrorCode {
        let world = self.client.world.clone();
        if self
            .busy_until_ms
            .is_some_and(|until| until <= world.now_ms())
        {
            self.busy_until_ms = None;
            let owned = self.client.owned();
            let told = self.told.clone();
            let gone: BTreeSet<i32> = owned.difference(&told).copied().collect();
            if !gone.is_empty() && world.rng.one_in(2) {
                // As clients do that commit before they give up.
                let refused = self.client.commit().await;
                if refused != ErrorCode::None && refused != ErrorCode::StaleMemberEpoch {
                    return refused;
                }
            }
            self.client.give_up(&gone);
            self.client.take(&told).await;
            self.says_owned = owned != told;
        }
        let settled = self.busy_until_ms.is_none() && !self.says_owned;
        self.client.settled(settled);
        if world.rng.one_in(2) {
            return self.client.commit().await;
        }
        ErrorCode::None
    }

    async fn leave(&mut self) {
        self.client.give_up_all();
        if self.client.standing.epoch <= 0 {
            return;
        }
        let is_static = self.client.instance.is_some();
        let request = ConsumerGroupHeartbeatRequest {
            group_id: GROUP.into(),
            member_id: self.client.standing.member_id.clone(),
            member_epoch: if is_static {
                LEAVES_FOR_A_WHILE
            } else {
                LEAVES
            },
            instance_id: self.client.instance.clone(),
            ..ConsumerGroupHeartbeatRequest::default()
        };
        let _ = self.send(request).await;
    }
}
