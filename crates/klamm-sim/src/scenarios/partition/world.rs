//! Brokers, controller, network and client, and what each delivery does.

use std::collections::{BTreeMap, VecDeque};

use klamm_env::Clock as _;
use klamm_replication::partition::{
    AlterPartitionError, EpochEnd, FetchPosition, IsrProposal, LocalLog, PartitionMetadata, Role,
    Transition,
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
    pub(super) checkpointed_high_watermark: i64,
    /// Epoch of its registration.
    pub(super) broker_epoch: i64,
    /// Counts restarts: messages to an earlier life are lost.
    pub(super) life: u32,
    /// Metadata that has not reached it.
    pub(super) news: VecDeque<Published>,
    /// Number of the fetch in flight.
    pub(super) fetching: Option<u64>,
    pub(super) next_fetch: u64,
    /// Writes with `acks=all` that wait: offset they need and value.
    pub(super) unacknowledged: Vec<(i64, u64)>,
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
    pub(super) trace: Trace,
    pub(super) flaw: Flaw,
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

    pub(super) fn now_ms(&self) -> i64 {
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
            durable_offset: None,
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

    pub(super) fn propose(&mut self, from: i32, life: u32, proposal: Option<IsrProposal>) {
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
}
