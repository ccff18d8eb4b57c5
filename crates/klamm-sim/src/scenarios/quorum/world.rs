//! Everything that is simulated, and the simulation's own knowledge of it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_config::BrokerConfig;
use klamm_controller::{Controller, KafkaConfigs, MetadataPublisher, MetadataUpdate};
use klamm_env::Clock as _;
use klamm_metadata::MetadataImage;

use super::super::{Run, Violation};
use super::broker::Brokers;
use super::history::Images;
use super::node::Node;
use super::plan::Plan;
use super::promises::Promises;
use super::{Flaw, leaders};
use crate::{Executor, Network, SimClock, SimRng, Trace};

/// The cluster's id.
pub(super) const CLUSTER_ID: &str = "AAAAAAAAAAAAAAAAAAAAZZ";

/// All of it. Clones share it.
#[derive(Clone)]
pub(super) struct World(Arc<Inner>);

pub(super) struct Inner {
    pub(super) flaw: Flaw,
    pub(super) plan: Plan,
    pub(super) rng: SimRng,
    pub(super) clock: SimClock,
    pub(super) trace: Trace,
    pub(super) executor: Executor,
    pub(super) net: Network,
    pub(super) schema: Arc<KafkaConfigs>,
    pub(super) nodes: BTreeMap<i32, Node>,
    pub(super) brokers: Brokers,
    known: Mutex<Known>,
    calm: AtomicBool,
}

/// All that is remembered of a run.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The first property that did not hold.
    pub(super) violation: Option<Violation>,
    pub(super) images: Images,
    pub(super) leaders: BTreeMap<i32, i32>,
    pub(super) promises: Promises,
}

impl Known {
    /// Notes whether a property held; the first that did not counts.
    pub(super) fn check(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.violation.get_or_insert(violation);
        }
    }

    /// Somebody says who leads in an epoch.
    pub(super) fn leads(&mut self, who: i32, epoch: i32, leader: i32) {
        if leader >= 0 {
            let checked = leaders::check(&mut self.leaders, who, epoch, leader);
            self.check(checked);
        }
    }

    /// Somebody has got an image.
    pub(super) fn saw(&mut self, who: i32, image: &Arc<MetadataImage>) {
        let checked = self.images.check(who, image);
        self.check(checked);
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
        run.trace.note(format_args!("{plan:?}"));
        let executor = Executor::new(
            run.rng.fork("executor"),
            run.clock.clone(),
            run.trace.clone(),
        );
        let net = Network::new(executor.clone(), run.rng.fork("network"), run.trace.clone());
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
            plan,
        })))
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A property does not hold.
    pub(super) fn fail(&self, property: &'static str, detail: impl Into<String>) {
        self.known().check(Err(Violation::new(property, detail)));
    }

    /// The controller of a node, if it runs.
    pub(super) fn controller(&self, id: i32) -> Option<Controller> {
        self.nodes.get(&id)?.controller()
    }

    /// Nothing new is asked for from now on, but for once more by each broker.
    pub(super) fn calm(&self) {
        self.calm.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    pub(super) fn note(&self, line: impl fmt::Display) {
        self.trace.note(line);
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(super) async fn sleep_ms(&self, ms: u64) {
        self.executor.sleep(Duration::from_millis(ms)).await;
    }
}

/// Holds all images that somebody gets against those that others got.
#[derive(Debug)]
pub(super) struct Witness {
    pub(super) world: World,
    pub(super) who: i32,
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
