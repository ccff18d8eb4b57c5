//! Everything that is simulated, and the simulation's own knowledge of it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_config::BrokerConfig;
use klamm_controller::{Controller, KafkaConfigs, MetadataPublisher, MetadataUpdate};
use klamm_env::Clock as _;
use klamm_metadata::MetadataImage;

use super::super::controller::{ids, partitions};
use super::super::{Run, Violation};
use super::broker::Brokers;
use super::history::Images;
use super::node::Node;
use super::plan::Plan;
use super::promises::Promises;
use super::voters::{Changes, Sets};
use super::{Flaw, leaders};
use crate::{Executor, Network, SimClock, SimRng, Trace};

/// The cluster's id.
pub(in crate::scenarios) const CLUSTER_ID: &str = "AAAAAAAAAAAAAAAAAAAAZZ";

/// All of it. Clones share it.
#[derive(Clone)]
pub(in crate::scenarios) struct World(Arc<Inner>);

pub(in crate::scenarios) struct Inner {
    pub(in crate::scenarios) flaw: Flaw,
    pub(in crate::scenarios) plan: Plan,
    pub(in crate::scenarios) rng: SimRng,
    pub(in crate::scenarios) clock: SimClock,
    pub(in crate::scenarios) trace: Trace,
    pub(in crate::scenarios) executor: Executor,
    pub(in crate::scenarios) net: Network,
    pub(in crate::scenarios) schema: Arc<KafkaConfigs>,
    pub(in crate::scenarios) nodes: BTreeMap<i32, Node>,
    pub(super) brokers: Brokers,
    known: Mutex<Known>,
    calm: AtomicBool,
    pace: Pace,
}

/// How many times as long pauses are as they say. Clones share it.
#[derive(Clone, Debug)]
pub(in crate::scenarios) struct Pace(Arc<AtomicU64>);

impl Default for Pace {
    fn default() -> Pace {
        Pace(Arc::new(AtomicU64::new(1)))
    }
}

impl Pace {
    pub(in crate::scenarios) fn set(&self, times: u64) {
        self.0.store(times, Ordering::SeqCst);
    }

    /// A pause of so many milliseconds.
    pub(in crate::scenarios) fn of_ms(&self, ms: u64) -> Duration {
        Duration::from_millis(ms * self.0.load(Ordering::SeqCst))
    }
}

/// All that is remembered of a run.
#[derive(Debug, Default)]
pub(in crate::scenarios) struct Known {
    /// The first property that did not hold.
    pub(in crate::scenarios) violation: Option<Violation>,
    pub(in crate::scenarios) images: Images,
    pub(in crate::scenarios) leaders: BTreeMap<i32, i32>,
    pub(in crate::scenarios) promises: Promises,
    pub(super) sets: Sets,
    pub(super) changes: Changes,
    /// Up to where images were held against those before them.
    decided: i64,
    ids: ids::Ids,
}

impl Known {
    /// Notes whether a property held; the first that did not counts.
    pub(in crate::scenarios) fn check(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.violation.get_or_insert(violation);
        }
    }

    /// Somebody says who leads in an epoch.
    pub(in crate::scenarios) fn leads(&mut self, who: i32, epoch: i32, leader: i32) {
        if leader >= 0 {
            let checked = leaders::check(&mut self.leaders, who, epoch, leader);
            self.check(checked);
        }
    }

    /// Somebody was given batches of the metadata log.
    pub(super) fn read(&mut self, batches: &[u8]) {
        let read = self.sets.read(batches);
        self.check(read);
    }

    /// Somebody was given a snapshot of all before an offset.
    pub(super) fn read_snapshot(&mut self, end: i64, content: &[u8]) {
        let read = self.sets.read_snapshot(end, content);
        self.check(read);
    }

    /// Somebody has got an image.
    pub(in crate::scenarios) fn saw(&mut self, who: i32, image: &Arc<MetadataImage>) {
        let checked = self.images.check(who, image);
        self.check(checked);
    }

    /// Holds each image that is new against the one before it.
    pub(in crate::scenarios) fn check_decisions(&mut self) -> Result<(), Violation> {
        for (before, image) in self.images.steps_from(self.decided) {
            partitions::check(before, image)?;
            self.ids.check(image)?;
        }
        self.decided = self.images.last().offset();
        self.images.forget_before(self.decided);
        Ok(())
    }
}

impl std::ops::Deref for World {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl World {
    pub(super) fn new(run: &Run, flaw: Flaw) -> Result<World, Violation> {
        let rng = run.rng.fork("quorum");
        let plan = Plan::new(&rng, flaw);
        World::of(run, rng, plan, flaw)
    }

    /// One by a plan.
    pub(super) fn of(run: &Run, rng: SimRng, plan: Plan, flaw: Flaw) -> Result<World, Violation> {
        run.trace.note(format_args!("{plan:?}"));
        let executor = Executor::new(
            run.rng.fork("executor"),
            run.clock.clone(),
            run.trace.clone(),
        );
        let net = Network::new(executor.clone(), run.rng.fork("network"), run.trace.clone());
        World::within(run, (rng, plan, flaw), executor, net, Pace::default())
    }

    /// A quorum that shares tasks and network with others.
    pub(in crate::scenarios) fn within(
        run: &Run,
        (rng, plan, flaw): (SimRng, Plan, Flaw),
        executor: Executor,
        net: Network,
        pace: Pace,
    ) -> Result<World, Violation> {
        let config = BrokerConfig::from_pairs([
            ("node.id", "1"),
            ("process.roles", "broker,controller"),
            ("controller.quorum.voters", "1@localhost:9093"),
            ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
            ("controller.listener.names", "CONTROLLER"),
        ])
        .map_err(|error| Violation::new("setup", error.to_string()))?;
        let controllers = plan.controllers.iter();
        let nodes = controllers.map(|&id| (id, Node::new(id, run, flaw)));
        Ok(World(Arc::new(Inner {
            flaw,
            rng,
            clock: run.clock.clone(),
            trace: run.trace.clone(),
            executor,
            net,
            schema: Arc::new(KafkaConfigs::new(config)),
            nodes: nodes.collect(),
            brokers: Brokers::default(),
            known: Mutex::default(),
            calm: AtomicBool::new(false),
            pace,
            plan,
        })))
    }

    pub(in crate::scenarios) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A property does not hold.
    pub(in crate::scenarios) fn fail(&self, property: &'static str, detail: impl Into<String>) {
        self.known().check(Err(Violation::new(property, detail)));
    }

    /// The controller of a node, if it runs.
    pub(in crate::scenarios) fn controller(&self, id: i32) -> Option<Controller> {
        self.nodes.get(&id)?.controller()
    }

    /// Whether a controller is one of the first voters.
    pub(super) fn is_initial(&self, id: i32) -> bool {
        let dynamic = self.plan.dynamic.as_ref();
        dynamic.is_none_or(|dynamic| dynamic.initial.contains(&id))
    }

    /// Whether controllers make themselves voters.
    pub(super) fn makes_voters(&self) -> bool {
        let dynamic = self.plan.dynamic.as_ref();
        dynamic.is_some_and(|dynamic| dynamic.auto_join)
    }

    /// Nothing new is asked for from now on, but for once more by each broker.
    pub(in crate::scenarios) fn calm(&self) {
        self.calm.store(true, Ordering::SeqCst);
    }

    pub(in crate::scenarios) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    pub(in crate::scenarios) fn note(&self, line: impl fmt::Display) {
        self.trace.note(line);
    }

    pub(in crate::scenarios) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(in crate::scenarios) async fn sleep_ms(&self, ms: u64) {
        self.executor.sleep(self.pace.of_ms(ms)).await;
    }
}

/// Holds all images that somebody gets against those that others got.
#[derive(Debug)]
pub(in crate::scenarios) struct Witness {
    pub(in crate::scenarios) world: World,
    pub(in crate::scenarios) who: i32,
}

impl MetadataPublisher for Witness {
    fn publish<'a>(
        &'a self,
        update: &'a MetadataUpdate,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.world.note(format_args!(
            "{} is at {:?}",
            self.who,
            update.image.provenance()
        ));
        self.world.known().saw(self.who, &update.image);
        Box::pin(std::future::ready(()))
    }
}
