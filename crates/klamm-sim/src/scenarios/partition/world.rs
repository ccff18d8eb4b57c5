//! Brokers, controller, network and client, and what each delivery does.

use std::collections::{BTreeMap, VecDeque};

use klamm_env::Clock as _;
use klamm_replication::partition::{
    AckState, AlterOutcome, AlterPartitionError, EpochEnd, FetchPosition, FollowerFetch,
    IsrProposal, LocalLog, PartitionMetadata, Role, Transition, Truncation,
};

pub use super::controller::{Controller, Published};
use super::replica_log::{Entry, ReplicaLog};
use crate::{SimClock, SimRng, Trace};

/// The brokers' ids.
pub const BROKERS: [i32; 3] = [1, 2, 3];
const LAG_MAX_MS: i64 = 500;

/// A mistake built in on purpose, for the tests of the properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// None.
    None,
    /// Followers claim to hold what they have just asked for.
    FollowersBoast,
    /// Followers do not cut what the leader does not have.
    FollowersNeverCut,
    /// Brokers lose the end of their log when they restart.
    RestartsForget,
    /// Leaders are elected from outside of the ISR.
    UncleanElections,
}

/// One broker's replica.
#[derive(Debug)]
pub struct Broker {
    /// Its id.
    pub id: i32,
    /// Whether the process runs.
    pub up: bool,
    /// The state machine.
    pub role: Role,
    /// Its log.
    pub log: ReplicaLog,
    checkpointed_high_watermark: i64,
    /// Epoch of its registration.
    broker_epoch: i64,
    /// Counts restarts: messages to an earlier life are lost.
    life: u32,
    /// Metadata that has not reached it.
    news: VecDeque<Published>,
    /// Number of the fetch in flight.
    fetching: Option<u64>,
    next_fetch: u64,
    /// Writes with `acks=all` that wait: offset they need and value.
    unacknowledged: Vec<(i64, u64)>,
}

/// A message under way.
#[derive(Clone, Debug)]
pub enum Message {
    /// A follower asks.
    Fetch {
        /// Who sends it.
        from: i32,
        /// The broker's life at the time.
        life: u32,
        /// Names the fetch.
        number: u64,
        /// Who gets it.
        to: i32,
        /// What is asked for.
        position: FetchPosition,
        /// The follower's incarnation.
        broker_epoch: i64,
    },
    /// A leader answers.
    Fetched {
        /// Who gets it.
        to: i32,
        /// The broker's life at the time.
        life: u32,
        /// Names the fetch.
        number: u64,
        /// What was asked for.
        asked: FetchPosition,
        /// The answer.
        answer: FetchAnswer,
    },
    /// A leader asks for another ISR.
    Alter {
        /// Who sends it.
        from: i32,
        /// The broker's life at the time.
        life: u32,
        /// The ISR wanted.
        proposal: IsrProposal,
    },
    /// The controller answers.
    Altered {
        /// Who gets it.
        to: i32,
        /// The broker's life at the time.
        life: u32,
        /// The proposal.
        id: u64,
        /// The answer.
        answer: Result<PartitionMetadata, AlterPartitionError>,
    },
}

/// What a fetch is answered with.
#[derive(Clone, Debug)]
pub enum FetchAnswer {
    /// Records, and the leader's high watermark.
    Records(Vec<Entry>, i64),
    /// The logs part.
    Diverging(EpochEnd),
    /// The offset is outside of the leader's log, which ends here.
    OutOfRange(i64),
    /// Wrong leader or epoch.
    Refused,
}

/// All of it.
#[derive(Debug)]
pub struct World {
    pub(super) rng: SimRng,
    pub(super) clock: SimClock,
    trace: Trace,
    flaw: Flaw,
    min_isr: i32,
    /// The controller.
    pub controller: Controller,
    /// The brokers by id.
    pub brokers: BTreeMap<i32, Broker>,
    /// Messages under way, in no order.
    pub messages: Vec<Message>,
    /// Records that a client was told are safe.
    pub acknowledged: BTreeMap<i64, u64>,
    /// Records that some leader showed as committed.
    pub read: BTreeMap<i64, u64>,
    /// Reads that contradict earlier ones.
    pub contradictions: Vec<String>,
    next_value: u64,
}

impl World {
    pub(super) fn new(rng: SimRng, clock: SimClock, trace: Trace, flaw: Flaw) -> World {
        let controller = Controller::new(&BROKERS);
        let broker = |id| {
            let epoch = controller
                .current
                .brokers
                .get(&id)
                .and_then(|broker| broker.epoch);
            let broker = Broker {
                id,
                up: true,
                role: Role::unassigned(0),
                log: ReplicaLog::default(),
                checkpointed_high_watermark: 0,
                broker_epoch: epoch.unwrap_or(-1),
                life: 0,
                news: VecDeque::from([controller.current.clone()]),
                fetching: None,
                next_fetch: 0,
                unacknowledged: Vec::new(),
            };
            (id, broker)
        };
        World {
            brokers: BROKERS.into_iter().map(broker).collect(),
            min_isr: 1 + rng.index(2) as i32,
            rng,
            clock,
            trace,
            flaw,
            controller,
            messages: Vec::new(),
            acknowledged: BTreeMap::new(),
            read: BTreeMap::new(),
            contradictions: Vec::new(),
            next_value: 0,
        }
    }

    pub(super) fn note(&self, line: impl std::fmt::Display) {
        self.trace.note(line);
    }

    fn now_ms(&self) -> i64 {
        self.clock.wall_ms()
    }

    pub(super) fn publish(&mut self) {
        let current = &self.controller.current;
        self.trace
            .note(format_args!("controller {:?}", current.record));
        for broker in self.brokers.values_mut() {
            broker.news.push_back(current.clone());
        }
    }

    /// The broker that leads by the controller's word, if it knows of it.
    pub fn leader(&self) -> Option<&Broker> {
        let record = &self.controller.current.record;
        let broker = self.brokers.get(&record.leader)?;
        let leads = broker.role.as_leader()?.epoch() == record.leader_epoch;
        (leads && broker.up).then_some(broker)
    }

    // ---- brokers ----

    pub(super) fn hear_news(&mut self, id: i32) {
        let (now, min_isr) = (self.now_ms(), self.min_isr);
        let Some(broker) = self.brokers.get_mut(&id) else {
            return;
        };
        let Some(published) = broker.news.pop_front().filter(|_| broker.up) else {
            return;
        };
        let local = LocalLog {
            end_offset: broker.log.end(),
            high_watermark: broker.role.high_watermark(),
            min_insync_replicas: min_isr,
            lag_max_ms: LAG_MAX_MS,
        };
        let transition = broker.role.apply(id, &published.record, local, now);
        match transition {
            Transition::Elected { .. } => broker.log.assign_epoch(published.record.leader_epoch),
            Transition::Following { .. } => {
                broker.unacknowledged.clear();
                broker.fetching = None;
            }
            Transition::Stale | Transition::Unchanged => {}
        }
        if let Some(leader) = broker.role.as_leader_mut() {
            for (&id, &liveness) in &published.brokers {
                leader.set_liveness(id, liveness);
            }
        }
        self.note(format_args!(
            "{id} hears epoch {}: {transition:?}",
            published.record.partition_epoch
        ));
        self.settle(id);
    }

    pub(super) fn produce(&mut self, id: i32) {
        let now = self.now_ms();
        let Some(broker) = self.brokers.get_mut(&id).filter(|broker| broker.up) else {
            return;
        };
        let Some(leader) = broker.role.as_leader_mut() else {
            return;
        };
        if !leader.has_enough_replicas() {
            return;
        }
        self.next_value += 1;
        let entry = Entry {
            epoch: leader.epoch(),
            value: self.next_value,
        };
        broker.log.append(entry);
        leader.appended(broker.log.end(), now);
        broker.unacknowledged.push((broker.log.end(), entry.value));
        self.trace.note(format_args!(
            "{id} appends {} at {}",
            entry.value,
            broker.log.end() - 1
        ));
        self.settle(id);
    }

    pub(super) fn check_lag(&mut self, id: i32) {
        let now = self.now_ms();
        let Some(broker) = self.brokers.get_mut(&id).filter(|broker| broker.up) else {
            return;
        };
        let life = broker.life;
        let proposal = broker
            .role
            .as_leader_mut()
            .and_then(|leader| leader.check_lag(now));
        self.propose(id, life, proposal);
    }

    fn propose(&mut self, from: i32, life: u32, proposal: Option<IsrProposal>) {
        if let Some(proposal) = proposal {
            self.note(format_args!("{from} proposes {:?}", proposal.isr));
            self.messages.push(Message::Alter {
                from,
                life,
                proposal,
            });
        }
    }

    /// Sends the next fetch of a follower that has none in flight; one that got lost is given up.
    pub(super) fn fetch(&mut self, id: i32, give_up: bool) {
        let Some(broker) = self.brokers.get_mut(&id).filter(|broker| broker.up) else {
            return;
        };
        let Role::Follower(follower) = &broker.role else {
            return;
        };
        let Some(to) = follower.leader_id() else {
            return;
        };
        if broker.fetching.is_some() && !give_up {
            return;
        }
        let mut position = follower.next_fetch(broker.log.end(), broker.log.latest_epoch());
        if self.flaw == Flaw::FollowersBoast {
            position.offset += self.rng.index(2) as i64;
        }
        broker.next_fetch += 1;
        broker.fetching = Some(broker.next_fetch);
        self.messages.push(Message::Fetch {
            from: id,
            life: broker.life,
            number: broker.next_fetch,
            to,
            position,
            broker_epoch: broker.broker_epoch,
        });
    }

    pub(super) fn checkpoint(&mut self, id: i32) {
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.checkpointed_high_watermark = broker.role.high_watermark();
        }
    }

    pub(super) fn kill(&mut self, id: i32) {
        self.note(format_args!("{id} dies"));
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.up = false;
            broker.life += 1;
            broker.unacknowledged.clear();
            broker.fetching = None;
        }
    }

    /// Starts a broker that the controller has fenced.
    pub(super) fn restart(&mut self, id: i32) {
        let Some(broker) = self.brokers.get_mut(&id) else {
            return;
        };
        if broker.up || self.controller.is_alive(id) {
            return;
        }
        if self.flaw == Flaw::RestartsForget {
            let kept = broker.log.end() - self.rng.index(4) as i64;
            broker.log.truncate_to(kept);
        }
        broker.broker_epoch = self.controller.register(id);
        broker.up = true;
        let high_watermark = broker.checkpointed_high_watermark.min(broker.log.end());
        broker.role = Role::unassigned(high_watermark);
        // It reads the metadata log from the start, of which only the end matters.
        broker.news.clear();
        self.trace.note(format_args!("{id} starts"));
        self.publish();
    }

    pub(super) fn maybe_elect_uncleanly(&mut self) {
        if self.flaw == Flaw::UncleanElections && self.rng.one_in(40) {
            self.controller.elect_uncleanly();
            self.publish();
        }
    }

    // ---- network ----

    pub(super) fn deliver(&mut self, message: Message) {
        match message {
            Message::Fetch {
                from,
                life,
                number,
                to,
                position,
                broker_epoch,
            } => {
                let answer = self.serve_fetch(from, to, position, broker_epoch);
                self.messages.push(Message::Fetched {
                    to: from,
                    life,
                    number,
                    asked: position,
                    answer,
                });
            }
            Message::Fetched {
                to,
                life,
                number,
                asked,
                answer,
            } => {
                let current = self.brokers.get(&to).filter(|broker| {
                    broker.up && broker.life == life && broker.fetching == Some(number)
                });
                if current.is_some() {
                    self.take_fetched(to, asked, answer);
                }
            }
            Message::Alter {
                from,
                life,
                proposal,
            } => {
                let answer = self.controller.alter(from, &proposal);
                if answer.is_ok() {
                    self.publish();
                }
                self.messages.push(Message::Altered {
                    to: from,
                    life,
                    id: proposal.id,
                    answer,
                });
            }
            Message::Altered {
                to,
                life,
                id,
                answer,
            } => self.take_altered(to, life, id, &answer),
        }
    }

    /// The sender of a lost AlterPartition notices in the end; a lost fetch is given up elsewhere.
    pub(super) fn lose(&mut self, message: Message) {
        let (to, life, id) = match message {
            Message::Alter {
                from,
                life,
                proposal,
            } => (from, life, proposal.id),
            Message::Altered { to, life, id, .. } => (to, life, id),
            Message::Fetch { .. } | Message::Fetched { .. } => return,
        };
        self.messages.push(Message::Altered {
            to,
            life,
            id,
            answer: Err(AlterPartitionError::Retry),
        });
    }

    fn serve_fetch(
        &mut self,
        from: i32,
        to: i32,
        position: FetchPosition,
        broker_epoch: i64,
    ) -> FetchAnswer {
        let now_ms = self.now_ms();
        let Some(broker) = self.brokers.get_mut(&to).filter(|broker| broker.up) else {
            return FetchAnswer::Refused;
        };
        if broker
            .role
            .check_epoch(Some(position.current_leader_epoch))
            .is_err()
        {
            return FetchAnswer::Refused;
        }
        let Some(leader) = broker.role.as_leader_mut() else {
            return FetchAnswer::Refused;
        };
        let end = broker.log.end();
        if let Some(epoch) = position.last_fetched_epoch {
            let known = broker.log.epoch_end(epoch);
            if known.end_offset < 0 {
                return FetchAnswer::OutOfRange(end);
            }
            if known.epoch < epoch || known.end_offset < position.offset {
                return FetchAnswer::Diverging(known);
            }
        }
        if position.offset > end && self.flaw != Flaw::FollowersBoast {
            return FetchAnswer::OutOfRange(end);
        }
        let effects = leader.follower_fetched(FollowerFetch {
            replica: from,
            broker_epoch,
            offset: position.offset.min(end),
            log_start_offset: 0,
            leader_end_offset: end,
            now_ms,
        });
        let Ok(effects) = effects else {
            return FetchAnswer::Refused;
        };
        let high_watermark = leader.high_watermark();
        let life = broker.life;
        let start = position.offset.min(end) as usize;
        let count = 1 + self.rng.index(4);
        let entries = broker.log.entries[start..]
            .iter()
            .take(count)
            .copied()
            .collect();
        self.propose(to, life, effects.proposal);
        self.settle(to);
        FetchAnswer::Records(entries, high_watermark)
    }

    fn take_fetched(&mut self, id: i32, asked: FetchPosition, answer: FetchAnswer) {
        let flaw = self.flaw;
        let Some(broker) = self.brokers.get_mut(&id) else {
            return;
        };
        broker.fetching = None;
        let Role::Follower(follower) = &mut broker.role else {
            return;
        };
        if follower.leader_epoch() != asked.current_leader_epoch {
            return;
        }
        let end = broker.log.end();
        let cut = match answer {
            FetchAnswer::Refused => return,
            FetchAnswer::Records(entries, high_watermark) => {
                for entry in entries {
                    if follower.may_append(entry.epoch, asked.current_leader_epoch) {
                        broker.log.append(entry);
                    }
                }
                follower.observe_high_watermark(high_watermark, 0, broker.log.end());
                return;
            }
            FetchAnswer::Diverging(leader) => {
                let local = broker.log.epoch_end(leader.epoch);
                let local = (local.end_offset >= 0).then_some(local);
                follower.truncation(leader, local, end)
            }
            FetchAnswer::OutOfRange(leader_end) => follower.out_of_range(end, 0, leader_end),
        };
        if let Truncation::To(offset) | Truncation::Probe(offset) | Truncation::RestartAt(offset) =
            cut
            && flaw != Flaw::FollowersNeverCut
        {
            broker.log.truncate_to(offset);
            let high_watermark = follower.high_watermark();
            follower.observe_high_watermark(high_watermark, 0, broker.log.end());
            broker.checkpointed_high_watermark =
                broker.checkpointed_high_watermark.min(broker.log.end());
        }
        self.trace
            .note(format_args!("{id} parts from the leader: {cut:?} of {end}"));
    }

    fn take_altered(
        &mut self,
        id: i32,
        life: u32,
        proposal: u64,
        answer: &Result<PartitionMetadata, AlterPartitionError>,
    ) {
        let now = self.now_ms();
        let Some(broker) = self.brokers.get_mut(&id) else {
            return;
        };
        if !broker.up || broker.life != life {
            return;
        }
        let Some(leader) = broker.role.as_leader_mut() else {
            return;
        };
        let answer = answer.as_ref().map_err(|error| *error);
        let outcome = leader.alter_partition_answered(proposal, answer, now);
        self.note(format_args!("{id} is answered: {outcome:?}"));
        if let AlterOutcome::Retry(again) = outcome {
            self.propose(id, life, Some(again));
        }
        self.settle(id);
    }

    /// Answers the client's writes that are safe now, and lets a consumer read.
    fn settle(&mut self, id: i32) {
        let Some(broker) = self.brokers.get_mut(&id) else {
            return;
        };
        let Some(leader) = broker.role.as_leader() else {
            return;
        };
        let (done, waiting): (Vec<_>, Vec<_>) = broker
            .unacknowledged
            .drain(..)
            .partition(|(required, _)| leader.ack_state(*required) != AckState::Waiting);
        broker.unacknowledged = waiting;
        for (required, value) in done {
            if leader.ack_state(required) == AckState::Done {
                self.acknowledged.insert(required - 1, value);
            }
        }
        let committed = leader.high_watermark().min(broker.log.end()) as usize;
        for (offset, entry) in broker.log.entries[..committed].iter().enumerate() {
            let before = *self.read.entry(offset as i64).or_insert(entry.value);
            if before != entry.value {
                self.contradictions.push(format!(
                    "{id} shows {} at {offset}, where {before} was read before",
                    entry.value
                ));
            }
        }
    }
}
