//! Everything that is simulated, and the simulation's own knowledge of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klamm_env::Clock as _;
use klamm_metadata::MetadataImage;
use klamm_records::TopicPartition;
use tokio::sync::watch;

use super::super::quorum::{self, Pace};
use super::super::{Run, Violation};
use super::Flaw;
use super::controller::Controller;
use super::history::History;
use super::node::Node;
use super::plan::{Plan, Size, Topic};
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
    /// The topics there are, but for those that are being made or deleted.
    topics: Mutex<Vec<Topic>>,
    history: Mutex<History>,
    tide: watch::Sender<Tide>,
    pace: Pace,
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tide {
    /// They work.
    Work,
    /// They finish what they began, and read.
    Settle,
    /// They do nothing, for hours.
    Rest,
    /// They finish what they began, and read, for good.
    Over,
}

/// How much slower everybody is who waits for something while clients do nothing.
const REST: u64 = 10;

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
        let pace = Pace::default();
        pace.set(plan.timing.stretch.into());
        let control = match &plan.quorum {
            None => {
                let controller = Controller::new(run, &plan, flaw)?;
                Control::Plain(Box::new(Mutex::new(controller)))
            }
            Some(of) => {
                let decided = (run.rng.fork("quorum"), of.clone(), flaw.of_quorum());
                let (executor, net) = (executor.clone(), net.clone());
                let quorum = quorum::World::within(run, decided, executor, net, pace.clone())?;
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
            topics: Mutex::new(plan.topics.clone()),
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
            tide: watch::Sender::new(Tide::Work),
            pace,
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
        self.set_tide(Tide::Over);
    }

    /// From now on clients do this.
    pub(super) fn set_tide(&self, tide: Tide) {
        let rest = if tide == Tide::Rest { REST } else { 1 };
        self.pace.set(rest * u64::from(self.plan.timing.stretch));
        self.tide.send_replace(tide);
    }

    /// Whether records are no longer produced, for now or for good.
    pub(super) fn is_calm(&self) -> bool {
        matches!(*self.tide.borrow(), Tide::Settle | Tide::Over)
    }

    /// Whether clients have finished for good.
    pub(super) fn is_over(&self) -> bool {
        *self.tide.borrow() == Tide::Over
    }

    /// Waits until clients work; `false` once they have finished for good.
    pub(super) async fn at_work(&self) -> bool {
        let mut tide = self.tide.subscribe();
        let work = tide.wait_for(|tide| matches!(tide, Tide::Work | Tide::Over));
        work.await.is_ok_and(|tide| *tide == Tide::Work)
    }

    /// Waits until clients do anything at all.
    pub(super) async fn awake(&self) {
        let mut tide = self.tide.subscribe();
        // The sender is as old as the world.
        let _ = tide.wait_for(|tide| *tide != Tide::Rest).await;
    }

    pub(super) fn note(&self, line: impl std::fmt::Display) {
        self.trace.note(line);
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.clock.wall_ms()
    }

    pub(super) async fn sleep_ms(&self, ms: u64) {
        self.executor.sleep(self.pace.of_ms(ms)).await;
    }

    /// Whether a partition may lose records.
    pub(super) fn is_unclean(&self, partition: &TopicPartition) -> bool {
        self.topic(&partition.topic).is_some_and(|it| it.unclean)
    }

    /// What is there.
    pub(super) fn topics(&self) -> MutexGuard<'_, Vec<Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A topic that is there.
    pub(super) fn topic(&self, name: &str) -> Option<Topic> {
        let topics = self.topics();
        topics.iter().find(|topic| *topic.name == *name).cloned()
    }

    /// All partitions there are.
    pub(super) fn partitions(&self) -> Vec<TopicPartition> {
        let of_topic = |topic: &Topic| {
            let name = Arc::clone(&topic.name);
            (0..topic.partitions).map(move |index| TopicPartition::new(Arc::clone(&name), index))
        };
        self.topics().iter().flat_map(of_topic).collect()
    }
}
