//! A broker's life: start, registration, heartbeats, upkeep, the ways to die.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use klamm_controller::managers::features::SUPPORTED;
use klamm_coordinator::GroupCoordinator;
use klamm_env::{Clock as _, Env, Fs, Rng as _};
use klamm_log::{LogConfig, LogManager, LogManagerConfig};
use klamm_metadata::MetadataImage;
use klamm_protocol::messages::broker_registration_request::{Feature, Listener};
use klamm_protocol::messages::{BrokerHeartbeatRequest, BrokerRegistrationRequest};
use klamm_records::Uuid;
use klamm_replication::{ReplicaManager, ReplicaManagerConfig};

use super::super::lying::{Lies, LyingFs};
use super::super::{Run, Violation};
use super::Flaw;
use super::alter::{self, Proposals};
use super::asking;
use super::controller::CLUSTER_ID;
use super::follow::{self, Fetchers};
use super::groups;
use super::plan::Plan;
use super::source::{self, Source};
use super::upkeep::upkeep;
use super::whole;
use super::world::World;
use crate::clock::NodeClock;
use crate::{Errno, Faults, Process, SimFs, SimRng};

const DIR: &str = "/data";

/// A machine, and the broker on it if it runs.
pub(super) struct Node {
    pub(super) id: i32,
    pub(super) clock: NodeClock,
    fs: SimFs,
    disk: Arc<dyn Fs>,
    rng: SimRng,
    flaw: Flaw,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Broker>,
    paused: bool,
    /// Whether the disk fails, or will.
    disturbed: bool,
    /// The last epoch that it was registered with.
    last_epoch: i64,
}

/// A broker that runs. Clones share it.
#[derive(Clone)]
pub(super) struct Broker(Arc<Inner>);

pub(super) struct Inner {
    pub(super) id: i32,
    pub(super) process: Process,
    pub(super) replicas: ReplicaManager,
    pub(super) proposals: Arc<Proposals>,
    pub(super) fetchers: Fetchers,
    pub(super) rng: SimRng,
    incarnation: Uuid,
    epoch: Arc<AtomicI64>,
    wants_shut_down: AtomicBool,
    image: Mutex<Arc<MetadataImage>>,
    /// The group coordinator, in whole clusters.
    pub(super) groups: Option<GroupCoordinator>,
    /// Where it has its metadata from, if its controllers are as in production.
    pub(super) source: OnceLock<Source>,
    /// Its machine's disk, clock and randomness.
    pub(super) env: Env,
}

impl std::ops::Deref for Broker {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Broker {
    /// The epoch of its registration, -1 before.
    pub(super) fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// The same, to be read again and again.
    pub(super) fn shared_epoch(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.epoch)
    }

    /// The metadata as far as it has heard.
    pub(super) fn image(&self) -> Arc<MetadataImage> {
        let image = self.image.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&image)
    }

    pub(super) fn set_image(&self, image: Arc<MetadataImage>) {
        *self.image.lock().unwrap_or_else(PoisonError::into_inner) = image;
    }
}

impl Node {
    pub(super) fn new(id: i32, run: &Run, flaw: Flaw) -> Node {
        let rng = run.rng.fork("node");
        let fs = SimFs::new(rng.fork("fs"), run.clock.clone(), run.trace.clone());
        let disk: Arc<dyn Fs> = match flaw {
            Flaw::SyncsLie => Arc::new(LyingFs {
                fs: fs.clone(),
                lies: Lies {
                    syncs: false,
                    ..Lies::NONE
                },
            }),
            _ => Arc::new(fs.clone()),
        };
        Node {
            id,
            clock: NodeClock::new(&run.clock),
            fs,
            disk,
            rng,
            flaw,
            state: Mutex::new(State {
                last_epoch: -1,
                ..State::default()
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker, if it runs.
    pub(super) fn broker(&self) -> Option<Broker> {
        self.state().running.clone()
    }

    /// Starts the broker: opens the logs, and lets it find its way back into the cluster.
    pub(super) fn start(&self, world: &World) -> Result<(), Violation> {
        if self.state().running.is_some() {
            return Ok(());
        }
        world.note(format_args!("{} starts", self.id));
        if let Some((quorum, controller)) = world.beside(self.id) {
            controller.start(quorum);
        }
        let env = Env {
            clock: Arc::new(self.clock.clone()),
            rng: Arc::new(self.rng.fork("process")),
            fs: Arc::clone(&self.disk),
        };
        let proposals = Arc::new(Proposals::default());
        let replicas = self.open(&world.plan, env.clone(), Arc::clone(&proposals));
        let replicas = replicas.map_err(|error| Violation::new("recovery", error))?;
        let process = world.executor.new_process();
        let coordinator = || groups::coordinator(world, process, &replicas, &env);
        let groups = world.quorum().map(|_| coordinator());
        let broker = Broker(Arc::new(Inner {
            id: self.id,
            process,
            groups,
            replicas,
            proposals,
            fetchers: Fetchers::default(),
            rng: self.rng.fork("broker"),
            incarnation: Uuid::from_bytes(self.rng.next_16_bytes()),
            epoch: Arc::new(AtomicI64::new(-1)),
            wants_shut_down: AtomicBool::new(false),
            image: Mutex::default(),
            source: OnceLock::new(),
            env,
        }));
        self.state().running = Some(broker.clone());
        let process = broker.process;
        let life = live(world.clone(), broker);
        let name = format!("broker {}", self.id);
        world.executor.spawn_in(process, name, life);
        Ok(())
    }

    fn open(
        &self,
        plan: &Plan,
        env: Env,
        proposals: Arc<Proposals>,
    ) -> Result<ReplicaManager, String> {
        let root = Path::new("/");
        let made = self.fs.create_dir_all(Path::new(DIR));
        made.and_then(|()| self.fs.sync_dir(root))
            .map_err(|error| error.to_string())?;
        let config = LogManagerConfig {
            open_threads: 1,
            sync_threads: 0,
            checkpoint_interval_ms: 3_000,
            high_watermark_interval_ms: 1_000,
            ..LogManagerConfig::new(vec![DIR.into()], CLUSTER_ID, self.id)
        };
        let log = log_config(plan);
        let logs = LogManager::open(config, env.clone(), |_| log.clone())
            .map_err(|error| error.to_string())?;
        let config = ReplicaManagerConfig {
            replica_lag_max_ms: plan.timing.lag_max_ms,
            assign_threads: 1,
            ..ReplicaManagerConfig::new(self.id)
        };
        Ok(ReplicaManager::new(config, Arc::new(logs), proposals, env))
    }

    /// The process is gone; with `power_cut`, so is what the machine had not synced.
    pub(super) fn die(&self, world: &World, power_cut: bool) {
        world.net.hang_up(self.id);
        let running = self.state().running.take();
        if let Some(broker) = &running {
            self.resume(world, broker);
            world.executor.end(broker.process);
        }
        drop(running);
        if let Some((quorum, controller)) = world.beside(self.id) {
            controller.die(quorum, power_cut || self.is_disturbed());
        }
        // Who has failed once may go on showing what it has lost, until the machine is restarted.
        let disturbed = std::mem::take(&mut self.state().disturbed);
        if power_cut || disturbed {
            world.note(format_args!("{} loses power", self.id));
            self.fs.set_faults(Faults::default());
            self.fs.crash();
        } else {
            world.note(format_args!("{} is killed", self.id));
            self.fs.kill();
        }
    }

    /// A call of the disk will fail: the directory with all logs goes offline, and the broker with
    /// it.
    pub(super) fn break_disk(&self, world: &World, calls: u64, errno: Errno) {
        world.note(format_args!("the disk of {} will fail", self.id));
        self.state().disturbed = true;
        self.fs.fail_after(calls, errno);
    }

    /// Names in the directory of the logs.
    pub(super) fn log_dirs(&self) -> Vec<String> {
        let names = self.fs.read_dir(Path::new(DIR)).unwrap_or_default();
        names.into_iter().map(|it| it.name).collect()
    }

    /// How many files of each kind are on the disk, and how many bytes.
    pub(super) fn usage(&self) -> BTreeMap<String, (u64, u64)> {
        self.fs.usage()
    }

    /// Whether the disk fails, or will.
    pub(super) fn is_disturbed(&self) -> bool {
        self.state().disturbed
    }

    /// Asks the broker to leave in order.
    pub(super) fn ask_to_leave(&self) {
        if let Some(broker) = self.broker() {
            broker.wants_shut_down.store(true, Ordering::SeqCst);
        }
    }

    /// Whether it was asked to leave, and has not left.
    pub(super) fn is_leaving(&self) -> bool {
        let broker = self.broker();
        broker.is_some_and(|broker| broker.wants_shut_down.load(Ordering::SeqCst))
    }

    /// Lets the broker stand still, until [`Node::go_on`].
    pub(super) fn pause(&self, world: &World) {
        if let Some(broker) = self.broker() {
            world.note(format_args!("{} stands still", self.id));
            self.state().paused = true;
            world.executor.pause(broker.process);
            let beside = world.beside(self.id).map(|(_, controller)| controller);
            if let Some(process) = beside.and_then(|controller| controller.process()) {
                world.executor.pause(process);
            }
        }
    }

    /// Lets it go on.
    pub(super) fn go_on(&self, world: &World) {
        if let Some(broker) = self.broker() {
            self.resume(world, &broker);
        }
    }

    fn resume(&self, world: &World, broker: &Broker) {
        self.state().paused = false;
        world.executor.resume(broker.process);
        let beside = world.beside(self.id).map(|(_, controller)| controller);
        if let Some(process) = beside.and_then(|controller| controller.process()) {
            world.executor.resume(process);
        }
    }

    fn left(&self, world: &World, broker: &Broker) {
        world.note(format_args!("{} leaves", self.id));
        if let Err(error) = broker.replicas.logs().shutdown(broker.epoch()) {
            failed(
                world,
                self.id,
                format!("{} does not shut down: {error}", self.id),
            );
        }
        self.die(world, false);
    }

    fn previous_epoch(&self, broker: &Broker) -> i64 {
        if self.flaw == Flaw::CrashesLookClean {
            return self.state().last_epoch;
        }
        let logs = broker.replicas.logs();
        logs.previous_broker_epoch().unwrap_or(-1)
    }
}

/// A broker could not do something: a violation, unless it is its disk's fault.
pub(super) fn failed(world: &World, id: i32, detail: String) {
    let disturbed = world.nodes.get(&id).is_some_and(Node::is_disturbed);
    if disturbed {
        world.note(detail);
    } else {
        world.history().fail(Violation::new("recovery", detail));
    }
}

/// What all logs are configured with.
fn log_config(plan: &Plan) -> LogConfig {
    let defaults = LogConfig::default();
    let long = plan.long;
    LogConfig {
        segment_bytes: plan.segment_bytes,
        index_interval_bytes: 512,
        retention_ms: -1,
        group_sync: plan.is_durable(),
        producer_id_expiration_ms: long.map_or(defaults.producer_id_expiration_ms, |it| {
            it.producer_expiration_ms
        }),
        ..defaults
    }
}

/// What the log of a topic with these configs is configured with.
pub(super) fn log_config_of(plan: &Plan, configs: &BTreeMap<String, String>) -> LogConfig {
    let number = |name: &str| configs.get(name)?.parse().ok();
    let base = log_config(plan);
    let ratio = configs.get("min.cleanable.dirty.ratio");
    let compact = configs
        .get("cleanup.policy")
        .is_some_and(|it| it == "compact");
    LogConfig {
        retention_ms: number("retention.ms").unwrap_or(base.retention_ms),
        retention_bytes: number("retention.bytes").unwrap_or(base.retention_bytes),
        segment_ms: number("segment.ms").unwrap_or(base.segment_ms),
        max_compaction_lag_ms: number("max.compaction.lag.ms")
            .unwrap_or(base.max_compaction_lag_ms),
        min_cleanable_dirty_ratio: ratio
            .and_then(|value| value.parse().ok())
            .unwrap_or(base.min_cleanable_dirty_ratio),
        compact,
        delete: !compact,
        ..base
    }
}

/// From registration on.
async fn live(world: World, broker: Broker) {
    let both = || (world.clone(), broker.clone());
    if world.quorum().is_some() {
        if source::open(&world, &broker).await.is_none() {
            return;
        }
        register(&world, &broker).await;
        source::follow(&world, &broker).await;
        let (w, b) = both();
        spawn(&world, &broker, "producer ids", whole::producer_ids(w, b));
    } else {
        register(&world, &broker).await;
        let (w, b) = both();
        spawn(&world, &broker, "metadata", follow::metadata(w, b));
    }
    let (w, b) = both();
    spawn(&world, &broker, "heartbeats", heartbeats(w, b));
    let (w, b) = both();
    spawn(&world, &broker, "in-sync replicas", alter::proposals(w, b));
    let (w, b) = both();
    spawn(&world, &broker, "upkeep", upkeep(w, b));
    let timer = broker.replicas.clone().run_timer();
    spawn(&world, &broker, "timer", timer);
}

pub(super) fn spawn(
    world: &World,
    broker: &Broker,
    name: &str,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let name = format!("{name} of {}", broker.id);
    world.executor.spawn_in(broker.process, name, task);
}

async fn register(world: &World, broker: &Broker) {
    let Some(node) = world.nodes.get(&broker.id) else {
        return;
    };
    let logs = broker.replicas.logs();
    let request = BrokerRegistrationRequest {
        broker_id: broker.id,
        cluster_id: CLUSTER_ID.into(),
        incarnation_id: broker.incarnation,
        listeners: vec![Listener {
            name: "PLAINTEXT".into(),
            host: "localhost".into(),
            port: 9000 + broker.id as u16,
            ..Listener::default()
        }],
        features: SUPPORTED
            .iter()
            .map(|feature| Feature {
                name: feature.name.into(),
                min_supported_version: feature.min,
                max_supported_version: feature.max,
                ..Feature::default()
            })
            .collect(),
        log_dirs: logs.directories().iter().map(|dir| dir.id).collect(),
        previous_broker_epoch: node.previous_epoch(broker),
        ..BrokerRegistrationRequest::default()
    };
    let timeout = world.plan.timing.request;
    let asked = world.clock.monotonic();
    loop {
        match asking::ask(world, broker, request.clone(), timeout).await {
            Ok(reply) => {
                let epoch = reply.broker_epoch;
                world.note(format_args!("{} has epoch {epoch}", broker.id));
                if let Some(quorum) = world.quorum() {
                    let mut known = quorum.known();
                    let now = world.clock.monotonic();
                    let checked = known.promises.epoch(epoch, asked, now);
                    known.check(checked);
                }
                node.state().last_epoch = epoch;
                broker.epoch.store(epoch, Ordering::SeqCst);
                return;
            }
            Err(error) => world.note(format_args!("{} is not registered: {error:?}", broker.id)),
        }
        world.sleep_ms(200 + broker.rng.below(200)).await;
    }
}

async fn heartbeats(world: World, broker: Broker) {
    let limit = match world.quorum() {
        Some(_) => world.plan.timing.session,
        None => world.plan.timing.heartbeat,
    };
    loop {
        let request = BrokerHeartbeatRequest {
            broker_id: broker.id,
            broker_epoch: broker.epoch(),
            current_metadata_offset: broker.image().offset(),
            want_shut_down: broker.wants_shut_down.load(Ordering::SeqCst),
            ..BrokerHeartbeatRequest::default()
        };
        match asking::ask(&world, &broker, request, limit).await {
            Ok(reply) if reply.should_shut_down => {
                if let Some(node) = world.nodes.get(&broker.id) {
                    node.left(&world, &broker);
                }
                return;
            }
            Ok(_) => {}
            Err(error) => world.note(format_args!("{} is refused: {error:?}", broker.id)),
        }
        world.executor.sleep(world.plan.timing.heartbeat).await;
    }
}
