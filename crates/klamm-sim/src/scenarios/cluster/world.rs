//! Everything that is simulated, and the simulation's own knowledge of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_env::Clock as _;
use klamm_metadata::MetadataImage;
use klamm_records::TopicPartition;
use tokio::sync::watch;

use super::super::{Run, Violation, quorum};
use super::Flaw;
use super::controller::Controller;
use super::history::History;
use super::node::Node;
use super::plan::{Plan, Size};
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
    pub(super) control: Control,
    /// Offset of the last record that the controller that never fails committed.
    pub(super) committed: watch::Sender<i64>,
    history: Mutex<History>,
    calm: AtomicBool,
}

/// Who decides.
pub(super) enum Control {
    /// One that never fails.
    Plain(Box<Mutex<Controller>>),
    /// Controllers as in production, which do.
    Quorum(quorum::World),
}

impl std::ops::Deref for World {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl World {
    pub(super) fn new(run: &Run, flaw: Flaw, size: Size) -> Result<World, Violation> {
        let rng = run.rng.fork("cluster");
        let plan = Plan::new(&rng, flaw, size);
        run.trace.note(format_args!("{plan:?}"));
        let executor = Executor::new(
            run.rng.fork("executor"),
            run.clock.clone(),
            run.trace.clone(),
        );
        let net = Network::new(executor.clone(), run.rng.fork("network"), run.trace.clone());
        let control = match &plan.quorum {
            None => {
                let controller = Controller::new(run, &plan, flaw)?;
                Control::Plain(Box::new(Mutex::new(controller)))
            }
            Some(of) => {
                let decided = (run.rng.fork("quorum"), of.clone(), flaw.of_quorum());
                let quorum = quorum::World::within(run, decided, executor.clone(), net.clone())?;
                Control::Quorum(quorum)
            }
        };
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
            control,
            committed: watch::Sender::new(-1),
            history: Mutex::new(History::default()),
            calm: AtomicBool::new(false),
        })))
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the controller that never fails do something, if there is one, and tells whoever waits
    /// for what it committed.
    pub(super) fn control<T>(&self, act: impl FnOnce(&mut Controller) -> T) -> Option<T> {
        let Control::Plain(controller) = &self.control else {
            return None;
        };
        let mut controller = controller.lock().unwrap_or_else(PoisonError::into_inner);
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
        Some(result)
    }

    /// The controllers, if they are as in production.
    pub(super) fn quorum(&self) -> Option<&quorum::World> {
        match &self.control {
            Control::Plain(_) => None,
            Control::Quorum(quorum) => Some(quorum),
        }
    }

    /// The controller on a broker's machine.
    pub(super) fn beside(&self, broker: i32) -> Option<(&quorum::World, &quorum::Node)> {
        let quorum = self.quorum()?;
        let node = quorum.nodes.get(&self.plan.beside(broker)?)?;
        Some((quorum, node))
    }

    /// Addresses of controllers.
    pub(super) fn controllers(&self) -> &[Address] {
        match &self.control {
            Control::Plain(_) => &[CONTROLLER],
            Control::Quorum(quorum) => &quorum.plan.controllers,
        }
    }

    /// What is decided, as far as anybody knows.
    pub(super) fn truth(&self) -> Arc<MetadataImage> {
        match &self.control {
            Control::Plain(controller) => {
                let controller = controller.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(&controller.image)
            }
            Control::Quorum(quorum) => quorum.known().images.last(),
        }
    }

    /// No further records are produced.
    pub(super) fn calm(&self) {
        if let Some(quorum) = self.quorum() {
            quorum.calm();
        }
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
