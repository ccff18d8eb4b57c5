//! Everything that is simulated, and the simulation's own knowledge of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_env::Clock as _;
use klamm_metadata::MetadataImage;
use klamm_records::TopicPartition;
use tokio::sync::watch;

use super::super::{Run, Violation};
use super::Flaw;
use super::controller::Controller;
use super::history::History;
use super::node::Node;
use super::plan::Plan;
use crate::{Address, Executor, Network, SimClock, SimRng, Trace};

/// Address of the controller.
pub(super) const CONTROLLER: Address = 0;

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
    pub(super) nodes: BTreeMap<i32, Node>,
    /// Offset of the last record that the controller committed.
    pub(super) committed: watch::Sender<i64>,
    controller: Mutex<Controller>,
    history: Mutex<History>,
    calm: AtomicBool,
}

impl std::ops::Deref for World {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl World {
    pub(super) fn new(run: &Run, flaw: Flaw) -> Result<World, Violation> {
        let rng = run.rng.fork("cluster");
        let plan = Plan::new(&rng, flaw);
        run.trace.note(format_args!("{plan:?}"));
        let executor = Executor::new(
            run.rng.fork("executor"),
            run.clock.clone(),
            run.trace.clone(),
        );
        let net = Network::new(executor.clone(), run.rng.fork("network"), run.trace.clone());
        let controller = Controller::new(run, &plan, flaw)?;
        let nodes = plan
            .brokers
            .iter()
            .map(|&id| (id, Node::new(id, run, flaw)))
            .collect();
        Ok(World(Arc::new(Inner {
            flaw,
            plan,
            rng,
            clock: run.clock.clone(),
            trace: run.trace.clone(),
            executor,
            net,
            nodes,
            committed: watch::Sender::new(-1),
            controller: Mutex::new(controller),
            history: Mutex::new(History::default()),
            calm: AtomicBool::new(false),
        })))
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the controller do something, and tells whoever waits for what it committed.
    pub(super) fn control<T>(&self, act: impl FnOnce(&mut Controller) -> T) -> T {
        let mut controller = self
            .controller
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut controller);
        if let Some(violation) = controller.violation.take() {
            self.history().fail(violation);
        }
        let offset = controller.image.offset();
        drop(controller);
        self.committed.send_if_modified(|known| {
            let news = *known != offset;
            *known = offset;
            news
        });
        result
    }

    /// What the controller has decided.
    pub(super) fn truth(&self) -> Arc<MetadataImage> {
        self.control(|controller| controller.image.clone())
    }

    /// No further records are produced.
    pub(super) fn calm(&self) {
        self.calm.store(true, Ordering::SeqCst);
    }

    /// Whether records are no longer produced.
    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    pub(super) fn note(&self, line: impl std::fmt::Display) {
        self.trace.note(line);
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.clock.wall_ms()
    }

    pub(super) async fn sleep_ms(&self, ms: u64) {
        self.executor.sleep(Duration::from_millis(ms)).await;
    }

    /// Whether a partition may lose records.
    pub(super) fn is_unclean(&self, partition: &TopicPartition) -> bool {
        let mut topics = self.plan.topics.iter();
        topics.any(|topic| topic.unclean && *topic.name == *partition.topic)
    }

    /// All partitions there are.
    pub(super) fn partitions(&self) -> Vec<TopicPartition> {
        let of_topic = |topic: &super::plan::Topic| {
            let name: Arc<str> = topic.name.into();
            (0..topic.partitions).map(move |index| TopicPartition::new(Arc::clone(&name), index))
        };
        self.plan.topics.iter().flat_map(of_topic).collect()
    }
}
