//! Everything there is in a run.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_coordinator::group::{
    Cluster as _, ConsumerGroupSettings, FixedCluster, StreamsGroupSettings, partition_for,
};
use klamm_env::{Clock, Env};
use klamm_protocol::topic_name;

use super::super::{Run, Violation};
use super::Flaw;
use super::broker::{Broker, Node};
use super::partition::{Partition, Place};
use super::plan::{Plan, Work};
use super::topics::{Lookup, Topics};
use super::{groups, shares, transactions};
use crate::{Address, Executor, Network, SimClock, SimFs, SimRng, Trace};

pub(super) use super::topics::DATA;

/// Partitions of each internal topic.
pub(super) const INTERNAL: i32 = 2;
/// How long clients wait for an answer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_millis(3_000);

/// The world. Clones share it.
#[derive(Clone)]
pub(super) struct World(Arc<Inner>);

pub(super) struct Inner {
    pub(super) executor: Executor,
    pub(super) net: Network,
    pub(super) rng: SimRng,
    pub(super) clock: SimClock,
    pub(super) flaw: Flaw,
    pub(super) plan: Plan,
    pub(super) partitions: BTreeMap<Place, Arc<Partition>>,
    pub(super) nodes: BTreeMap<i32, Node>,
    pub(super) cluster: Arc<FixedCluster>,
    pub(super) topics: Topics,
    pub(super) calm: Arc<AtomicBool>,
    pub(super) groups: Mutex<groups::History>,
    pub(super) transactions: Mutex<transactions::History>,
    pub(super) shares: Mutex<shares::History>,
    trace: Trace,
    violation: Mutex<Option<Violation>>,
    producer_ids: AtomicI64,
    addresses: AtomicI32,
}

impl std::ops::Deref for World {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What clients wait for, as seen from the broker that serves them.
#[derive(Clone, Debug)]
pub(super) struct Answer<T> {
    pub(super) answer: T,
    /// Whether the broker really led the partition that was asked for when it answered.
    pub(super) genuine: bool,
}

impl World {
    pub(super) fn new(run: &Run, work: Work, flaw: Flaw) -> Result<World, Violation> {
        let rng = run.rng.fork("coordinators");
        let plan = Plan::new(work, &rng.fork("plan"));
        let trace = run.trace.clone();
        trace.note(format_args!("{plan:?}"));
        let executor = Executor::new(rng.fork("executor"), run.clock.clone(), trace.clone());
        let net = Network::new(executor.clone(), rng.fork("net"), trace.clone());
        let calm: Arc<AtomicBool> = Arc::default();
        let fs = SimFs::new(rng.fork("fs"), run.clock.clone(), Trace::new());
        let env = Env {
            clock: Arc::new(run.clock.clone()),
            rng: Arc::new(rng.fork("logs")),
            fs: Arc::new(fs),
        };
        let internal = [
            topic_name::CONSUMER_OFFSETS,
            topic_name::TRANSACTION_STATE,
            topic_name::SHARE_GROUP_STATE,
        ];
        let wanted = |topic: &&str| match work {
            Work::Groups | Work::Streams => **topic == *topic_name::CONSUMER_OFFSETS,
            Work::Transactions => **topic != *topic_name::SHARE_GROUP_STATE,
            Work::Shares => **topic != *topic_name::TRANSACTION_STATE,
        };
        let data = match work {
            // Groups commit offsets of partitions; nobody reads these.
            Work::Groups | Work::Streams => 0,
            _ => plan.data_partitions.min(3),
        };
        let places = internal
            .into_iter()
            .filter(wanted)
            .flat_map(|topic| (0..INTERNAL).map(move |number| (topic, number)))
            .chain((0..data).map(|number| (DATA, number)));
        let mut partitions = BTreeMap::new();
        for place in places {
            let leader = 1 + rng.range(0, i64::from(plan.brokers)) as i32;
            let parts = (executor.clone(), rng.fork("partition"), trace.clone());
            let partition =
                Partition::new(place, leader, env.clone(), parts, flaw, Arc::clone(&calm))?;
            partitions.insert(place, partition);
        }
        let cluster = Arc::new(FixedCluster::default());
        let settings = ConsumerGroupSettings {
            session_timeout_ms: 6_000,
            heartbeat_interval_ms: 1_000,
            assignment_interval_ms: if rng.one_in(2) { 0 } else { 1_000 },
        };
        cluster.set(settings);
        cluster.set_streams(StreamsGroupSettings {
            session_timeout_ms: settings.session_timeout_ms,
            heartbeat_interval_ms: settings.heartbeat_interval_ms,
            assignment_interval_ms: settings.assignment_interval_ms,
            initial_rebalance_delay_ms: plan.initial_delay_ms,
            num_standby_replicas: plan.standbys,
        });
        let topics = Topics::default();
        topics.make(&cluster, DATA, plan.data_partitions);
        let nodes = (1..=plan.brokers).map(|id| (id, Node::new(id, &run.clock)));
        Ok(World(Arc::new(Inner {
            executor,
            net,
            clock: run.clock.clone(),
            flaw,
            partitions,
            nodes: nodes.collect(),
            cluster,
            topics,
            calm,
            groups: Mutex::default(),
            transactions: Mutex::default(),
            shares: Mutex::default(),
            trace,
            violation: Mutex::default(),
            producer_ids: AtomicI64::new(1_000),
            addresses: AtomicI32::new(100),
            plan,
            rng,
        })))
    }

    pub(super) fn note(&self, line: impl std::fmt::Display) {
        self.trace
            .note(format_args!("{:>6} {line}", self.now_ms() % 1_000_000));
    }

    /// True time, in milliseconds.
    pub(super) fn now_ms(&self) -> i64 {
        self.clock.monotonic().as_millis() as i64
    }

    pub(super) async fn sleep_ms(&self, ms: u64) {
        self.executor.sleep(Duration::from_millis(ms)).await;
    }

    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    pub(super) fn groups(&self) -> MutexGuard<'_, groups::History> {
        lock(&self.0.groups)
    }

    pub(super) fn transactions(&self) -> MutexGuard<'_, transactions::History> {
        lock(&self.0.transactions)
    }

    pub(super) fn shares(&self) -> MutexGuard<'_, shares::History> {
        lock(&self.0.shares)
    }

    /// Takes down a violation, if it is one. The first one counts.
    pub(super) fn check(&self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.note(&violation);
            lock(&self.violation).get_or_insert(violation);
        }
    }

    pub(super) fn violation(&self) -> Result<(), Violation> {
        match lock(&self.violation).take() {
            Some(violation) => Err(violation),
            None => Ok(()),
        }
    }

    /// A producer id that nobody has.
    pub(super) fn producer_id(&self) -> i64 {
        self.producer_ids.fetch_add(1, Ordering::SeqCst)
    }

    /// An address of a client.
    pub(super) fn address(&self) -> Address {
        self.addresses.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn partition(&self, place: Place) -> Option<&Arc<Partition>> {
        self.partitions.get(&place)
    }

    /// Where a group, an id or a share key is coordinated.
    pub(super) fn place_of(topic: &'static str, key: &str) -> Place {
        (topic, partition_for(key, INTERNAL))
    }

    /// Who leads a partition, as far as who asks has heard.
    pub(super) fn leader(&self, place: Place) -> Address {
        if !self.is_calm() && self.rng.one_in(30) {
            return 1 + self.rng.range(0, i64::from(self.plan.brokers)) as i32;
        }
        self.partition(place).map_or(1, |found| found.term().leader)
    }

    /// Asks the broker `to` something that concerns the partition at `place`.
    ///
    /// With `once` the request travels on a connection: it arrives once or not at all, and not
    /// after the client gave up.
    pub(super) async fn call<T, F>(
        &self,
        (from, to): (Address, Address),
        what: &'static str,
        (place, once): (Place, bool),
        serve: impl Fn(Broker) -> F + Send + Sync + 'static,
    ) -> Option<Answer<T>>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let line = Arc::new(AtomicBool::new(!once));
        let ended = Arc::new(AtomicBool::new(false));
        let world = self.clone();
        let over = Arc::clone(&ended);
        let serve = Arc::new(serve);
        let call = self.net.call((from, to), what, REQUEST_TIMEOUT, move || {
            let (world, line, over) = (world.clone(), Arc::clone(&line), Arc::clone(&over));
            let serve = Arc::clone(&serve);
            async move {
                let is_first = line
                    .compare_exchange(false, true, Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok();
                let refused = once && (!is_first || over.load(Ordering::SeqCst));
                let broker = world.nodes.get(&to).and_then(Node::broker);
                let Some(broker) = broker.filter(|_| !refused) else {
                    return std::future::pending().await;
                };
                let answer = serve(broker.clone()).await;
                let genuine = broker.leads(&world, place);
                Answer { answer, genuine }
            }
        });
        let answer = call.await.ok();
        ended.store(true, Ordering::SeqCst);
        answer
    }

    /// The topics as request handlers look them up now.
    pub(super) fn lookup(&self) -> Lookup {
        Lookup(self.cluster.topics())
    }

    /// Lets go of everything that holds on to the world.
    pub(super) fn end(&self) {
        for node in self.nodes.values() {
            node.forget();
        }
        self.executor.shut_down();
    }
}
