//! The controller: it never fails, decides at once, and tells brokers when they ask.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use klamm_config::BrokerConfig;
use klamm_controller::KafkaConfigs;
use klamm_controller::managers::{
    ApiError, Context, Outcome, Sessions, Settings, brokers, elections as elections_of, features,
    isr,
};
use klamm_env::Clock as _;
use klamm_metadata::{MetadataDelta, MetadataImage, Provenance};
use klamm_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, BrokerHeartbeatRequest, BrokerHeartbeatResponse,
    BrokerRegistrationRequest, BrokerRegistrationResponse,
};
use klamm_protocol::metadata::{MetadataRecord, PartitionChangeRecord, PartitionRecord};

use super::super::controller::{elections, ids, partitions};
use super::super::{Run, Violation};
use super::Flaw;
use super::plan::Plan;
use crate::{SimClock, SimRng, Trace};

/// The cluster's id.
pub(super) const CLUSTER_ID: &str = "AAAAAAAAAAAAAAAAAAAAZZ";
/// A broker that is further behind is given the image instead of the updates.
const UPDATES_MAX: usize = 20;

/// Records that were committed as one.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) records: Vec<MetadataRecord>,
    pub(super) provenance: Provenance,
}

/// What a broker is told that asks for news.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// What came since.
    Updates(Vec<Arc<Update>>),
    /// Everything.
    Snapshot(Arc<MetadataImage>),
}

/// The controller.
pub(super) struct Controller {
    rng: SimRng,
    clock: SimClock,
    trace: Trace,
    flaw: Flaw,
    settings: Settings,
    /// Topics whose records may be lost.
    unclean: Vec<Arc<str>>,
    schema: KafkaConfigs,
    sessions: Sessions,
    ids: ids::Ids,
    updates: Vec<Arc<Update>>,
    /// All that is decided.
    pub(super) image: Arc<MetadataImage>,
    /// The first thing that went wrong here.
    pub(super) violation: Option<Violation>,
}

impl Controller {
    pub(super) fn new(run: &Run, plan: &Plan, flaw: Flaw) -> Result<Controller, Violation> {
        let config = BrokerConfig::from_pairs([
            ("node.id", "1"),
            ("process.roles", "broker,controller"),
            ("controller.quorum.voters", "1@localhost:9093"),
            ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
            ("controller.listener.names", "CONTROLLER"),
        ])
        .map_err(|error| Violation::new("setup", error.to_string()))?;
        let mut controller = Controller {
            rng: run.rng.fork("controller"),
            clock: run.clock.clone(),
            trace: run.trace.clone(),
            flaw,
            settings: Settings::default(),
            unclean: plan
                .topics
                .iter()
                .filter(|topic| topic.unclean)
                .map(|topic| Arc::clone(&topic.name))
                .collect(),
            schema: KafkaConfigs::new(config),
            sessions: Sessions::new(plan.timing.session),
            ids: ids::Ids::default(),
            updates: Vec::new(),
            image: Arc::default(),
            violation: None,
        };
        let records =
            controller.decide(|context, _| features::activation(context, &BTreeMap::new()));
        controller.commit(records, &[]);
        Ok(controller)
    }

    /// Lets a manager decide.
    fn decide<T>(&mut self, decide: impl FnOnce(&Context<'_>, &mut Sessions) -> T) -> T {
        let image = self.image.clone();
        let context = Context {
            image: &image,
            node_id: 1,
            cluster_id: CLUSTER_ID,
            settings: &self.settings,
            schema: &self.schema,
            rng: &self.rng,
            next_offset: image.offset() + 1,
        };
        decide(&context, &mut self.sessions)
    }

    /// Commits records and checks what became of the image. `vouched` are replicas that a leader
    /// has just found to be in sync.
    fn commit(&mut self, mut records: Vec<MetadataRecord>, vouched: &[i32]) {
        if records.is_empty() {
            return;
        }
        for record in &mut records {
            self.spoil(record);
        }
        let mut delta = MetadataDelta::new(self.image.clone());
        for record in &records {
            self.trace.note(format_args!("{record:?}"));
            if let Err(error) = delta.replay(record) {
                let detail = format!("{error} in {record:?}");
                self.fail(Violation::new("replay", detail));
            }
        }
        let provenance = Provenance {
            offset: self.image.offset() + records.len() as i64,
            epoch: 1,
            timestamp_ms: self.clock.wall_ms(),
        };
        let image = delta.finish(provenance);
        // With a mistake built in, the brokers are to notice.
        if self.flaw == Flaw::None {
            let unclean = |topic: &str| self.unclean.iter().any(|it| **it == *topic);
            let checked = partitions::check(&self.image, &image)
                .and_then(|()| elections::check(&self.image, &image, vouched, &unclean))
                .and_then(|()| self.ids.check(&image));
            if let Err(violation) = checked {
                self.fail(violation);
            }
        }
        self.image = image;
        self.updates.push(Arc::new(Update {
            records,
            provenance,
        }));
    }

    fn fail(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// Builds the flaw into a record.
    fn spoil(&self, record: &mut MetadataRecord) {
        let MetadataRecord::PartitionChange(change) = record else {
            return;
        };
        let topic = self.image.topic_by_id(change.topic_id);
        let Some(partition) = topic.and_then(|topic| topic.partition(change.partition_id)) else {
            return;
        };
        if change.leader < 0 || change.leader == partition.leader {
            return;
        }
        match self.flaw {
            Flaw::AnyoneLeads => {
                let outside = |id: &&i32| {
                    let alive = self.image.broker(**id).is_some_and(|it| it.is_active());
                    alive && !partition.isr.contains(id) && **id != partition.leader
                };
                if let Some(&id) = partition.replicas.iter().find(outside) {
                    change.leader = id;
                    change.isr = Some(vec![id]);
                }
            }
            Flaw::EpochReused => {
                if let Some(whole) = in_the_same_epoch(change, &self.image) {
                    *record = whole.into();
                }
            }
            _ => {}
        }
    }

    // ---- what brokers ask ----

    pub(super) fn register(
        &mut self,
        request: &BrokerRegistrationRequest,
    ) -> Result<BrokerRegistrationResponse, ApiError> {
        let now = self.clock.monotonic();
        let outcome = self.decide(|context, sessions| {
            brokers::register_broker(context, sessions, request, false, now)
        });
        self.settle(outcome, &[])
    }

    pub(super) fn heartbeat(
        &mut self,
        request: &BrokerHeartbeatRequest,
    ) -> Result<BrokerHeartbeatResponse, ApiError> {
        let now = self.clock.monotonic();
        let outcome =
            self.decide(|context, sessions| brokers::heartbeat(context, sessions, request, now));
        self.settle(outcome, &[])
    }

    pub(super) fn alter_partition(
        &mut self,
        request: &AlterPartitionRequest,
    ) -> Result<AlterPartitionResponse, ApiError> {
        let vouched: Vec<i32> = request
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .flat_map(|partition| &partition.new_isr_with_epochs)
            .map(|member| member.broker_id)
            .collect();
        let outcome = self.decide(|context, _| isr::alter_partition(context, request));
        self.settle(outcome, &vouched)
    }

    fn settle<T>(
        &mut self,
        outcome: Result<Outcome<T>, ApiError>,
        vouched: &[i32],
    ) -> Result<T, ApiError> {
        let outcome = outcome?;
        self.commit(outcome.records, vouched);
        Ok(outcome.reply)
    }

    /// What a broker has yet to hear whose image ends at `offset`; none if nothing.
    pub(super) fn news_after(&self, offset: i64) -> Option<News> {
        if offset >= self.image.offset() {
            return None;
        }
        let known = |update: &Arc<Update>| update.provenance.offset <= offset;
        let first = self.updates.partition_point(known);
        let updates = &self.updates[first..];
        if offset < 0 || updates.len() > UPDATES_MAX {
            return Some(News::Snapshot(self.image.clone()));
        }
        Some(News::Updates(updates.to_vec()))
    }

    // ---- what happens by itself, and what administrators ask ----

    /// Fences brokers whose sessions are over.
    pub(super) fn expire(&mut self) {
        let now = self.clock.monotonic();
        while let Some((id, records)) =
            self.decide(|context, sessions| brokers::fence_expired(context, sessions, now))
        {
            self.trace.note(format_args!("the session of {id} is over"));
            self.commit(records, &[]);
        }
    }

    /// Elects leaders of partitions that have none, where topics allow for anybody.
    pub(super) fn elect_leaderless(&mut self) {
        let records = self.decide(|context, _| elections_of::elect_leaderless(context, 100));
        self.commit(records, &[]);
    }

    /// Does what an administrator asks for.
    pub(super) fn administer<T>(
        &mut self,
        decide: impl FnOnce(&Context<'_>) -> Result<Outcome<T>, ApiError>,
    ) -> Result<T, ApiError> {
        let outcome = self.decide(|context, _| decide(context));
        self.settle(outcome, &[])
    }
}

/// The partition after a change, in full, but for the leader epoch, which stays.
fn in_the_same_epoch(
    change: &PartitionChangeRecord,
    image: &MetadataImage,
) -> Option<PartitionRecord> {
    let topic = image.topic_by_id(change.topic_id)?;
    let before = topic.partition(change.partition_id)?;
    let after = before.merge(change).ok()?;
    Some(PartitionRecord {
        partition_id: change.partition_id,
        topic_id: change.topic_id,
        replicas: after.replicas.clone(),
        isr: after.isr.clone(),
        removing_replicas: after.removing_replicas.clone(),
        adding_replicas: after.adding_replicas.clone(),
        leader: after.leader,
        leader_epoch: before.leader_epoch,
        partition_epoch: after.partition_epoch,
        directories: after.directories.clone(),
        eligible_leader_replicas: Some(after.elr.clone()),
        last_known_elr: Some(after.last_known_elr),
        ..PartitionRecord::default()
    })
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("offset", &self.image.offset())
            .finish_non_exhaustive()
    }
}
