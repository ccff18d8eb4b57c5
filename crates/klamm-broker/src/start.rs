//! How a broker comes up: ports first (nothing is touched if one is taken), then the directories
//! and their locks, the controller, registration, the logs under the metadata, and last the
//! listeners begin to accept.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::time::Duration;

use arc_swap::ArcSwap;
use klamm_config::{BrokerConfig, SecurityProtocol};
use klamm_coordinator::group::consumer::assignor::Assignor;
use klamm_coordinator::{GroupCoordinator, ShareStateCoordinator, TransactionCoordinator};
use klamm_env::Env;
use klamm_log::{LogManager, LogManagerConfig};
use klamm_net::{Listener, Shutdown};
use klamm_protocol::messages::BrokerRegistrationRequest;
use klamm_protocol::topic_name;
use klamm_records::Uuid;
use klamm_replication::{ProposalSink, ReplicaManager, ReplicaManagerConfig};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinSet;
use tracing::{error, warn};

use crate::apis::Table;
use crate::apis::read_replica::{LEADER_SELECTOR, RACK_AWARE};
use crate::blocking::RuntimePool;
use crate::broker::{BoundListener, Broker};
use crate::cleaner::CleanerThreads;
use crate::controller::ControllerHandle;
use crate::coordinator_log::CoordinatorLog;
use crate::directories;
use crate::error::BrokerError;
use crate::fetchers::{Fetchers, TcpFetchers};
use crate::follow::MetadataFollower;
use crate::group_cluster::GroupCluster;
use crate::isr_changes;
use crate::listeners::{Opened, advertised, open_listeners};
use crate::lookout;
use crate::markers::Markers;
use crate::membership;
use crate::movers::Movers;
use crate::ops::{
    Health, Metrics, OpsServer, register_cleaner_gauges, register_gauges, register_group_metrics,
};
use crate::peers::{Line, Peers};
use crate::producer_ids::{IdSource, ProducerIds};
use crate::quorum;
use crate::service::KafkaService;
use crate::settings::{self, Settings};
use crate::shared::Shared;
use crate::shares::{self, Persister, SharePartitions};
use crate::streams::InternalTopics;
use crate::supervise::Supervisor;
use crate::upkeep::Upkeep;

pub(crate) async fn start(config: BrokerConfig, env: Env) -> Result<Broker, BrokerError> {
    check_supported(&config)?;
    let metrics = Arc::new(Metrics::new(env.clock.clone()));
    let opened = open_listeners(&config).await?;
    let ops = open_ops(&config, &metrics).await?;
    let dirs: Vec<PathBuf> = config.log_dirs().iter().map(PathBuf::from).collect();
    let cluster_id = quorum::cluster_id(&config, &env, &dirs)?;
    let logs = open_logs(&config, &env, dirs, &cluster_id)?;
    let controller = quorum::start(&config, &env, &logs, &opened, &cluster_id).await?;

    let (sink, proposals) = isr_changes::proposals();
    let replicas = replica_manager(&config, &env, logs, sink);
    let shared = Arc::new(compose(
        &config, &env, replicas, controller, metrics, cluster_id, &opened,
    ));
    let shutdown = Shutdown::new();
    let (sink, reports) = directories::reports();
    shared.replicas.set_directory_sink(sink);
    shared.replicas.set_blocking_pool(Arc::new(RuntimePool));
    let mut tasks = JoinSet::new();
    // The others of the quorum have to reach this one before any of them can decide.
    let (quorum, clients): (Vec<_>, Vec<_>) = opened.into_iter().partition(|o| o.controller);
    let all: Vec<&Opened> = quorum.iter().chain(&clients).collect();
    let registration = membership::registration(&shared, &config, &all);
    let mut listeners = serve(&shared, quorum, &shutdown, &mut tasks);
    match shared.controller.observer().cloned() {
        Some(observer) => keep(&shared, &mut tasks, "metadata observer", move |_| {
            observer.clone().run()
        }),
        None => {
            let register = membership::register_controller;
            keep(&shared, &mut tasks, "controller registration", register);
            keep(&shared, &mut tasks, "controller's health", watch_controller);
            if shared.config().boolean("klamm.fast.fencing.enable") {
                keep(&shared, &mut tasks, "lookout", lookout::watch_brokers);
            }
        }
    }
    let mut upkeep = None;
    let mut cleaner = None;
    if config.is_broker() {
        join_cluster(&shared, registration, &mut tasks).await?;
        let reports = Arc::new(AsyncMutex::new(reports));
        keep(&shared, &mut tasks, "directory reports", move |shared| {
            directories::report(shared, reports.clone())
        });
        let proposals = Arc::new(AsyncMutex::new(proposals));
        keep(
            &shared,
            &mut tasks,
            "changes of in-sync replicas",
            move |shared| isr_changes::report(shared, proposals.clone()),
        );
        upkeep = Some(start_upkeep(&shared)?);
        cleaner = Some(start_cleaner(&shared)?);
        listeners.extend(serve(&shared, clients, &shutdown, &mut tasks));
    }
    register_gauges(&shared);
    register_group_metrics(&shared);
    shared.metrics.set_health(Health::Ready);
    Ok(Broker {
        shared,
        listeners,
        shutdown,
        tasks,
        upkeep,
        cleaner,
        ops,
    })
}

/// Begins to be a broker: registers, takes on the replicas that the metadata gives it, and waits
/// until clients may see it.
async fn join_cluster(
    shared: &Arc<Shared>,
    registration: BrokerRegistrationRequest,
    tasks: &mut JoinSet<()>,
) -> Result<(), BrokerError> {
    keep(shared, tasks, "timer", |shared| {
        shared.replicas.clone().run_timer()
    });
    keep(shared, tasks, "transactions", |shared| {
        let (markers, ids) = (Markers(shared.clone()), IdSource(shared.clone()));
        let transactions = shared.transactions.clone();
        transactions.run(Arc::new(markers), Arc::new(ids))
    });
    shares::start(shared, tasks);
    membership::register(shared, registration.clone()).await?;
    follow_metadata(shared).await?;
    membership::wait_until_unfenced(shared, &registration).await?;
    membership::complete_recovery(shared).await;
    let registration = Arc::new(registration);
    keep(shared, tasks, "heartbeats", move |shared| {
        membership::heartbeats(shared, registration.clone())
    });
    let watch = membership::watch_in_sync_replicas;
    keep(shared, tasks, "watch of in-sync replicas", watch);
    Ok(())
}

/// Shows it to those who ask for this node's health when its controller cannot go on.
async fn watch_controller(shared: Arc<Shared>) {
    if let Some(controller) = shared.controller.local() {
        controller.failed().await;
        shared.metrics.set_health(Health::Failed);
    }
}

/// Starts a task that is started again if it panics.
pub(crate) fn keep<F>(
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<()>,
    task: &'static str,
    run: impl Fn(Arc<Shared>) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let (supervisor, shared) = (shared.supervisor.clone(), shared.clone());
    tasks.spawn(supervisor.keep(task, move || run(shared.clone())));
}

/// Begins to accept connections.
fn serve(
    shared: &Arc<Shared>,
    opened: Vec<Opened>,
    shutdown: &Shutdown,
    tasks: &mut JoinSet<()>,
) -> Vec<BoundListener> {
    let mut listeners = Vec::new();
    for opened in opened {
        let table = if opened.controller {
            Table::controller()
        } else {
            Table::broker()
        };
        let service = Arc::new(KafkaService::new(shared.clone(), Arc::new(table)));
        let addresses = opened.listeners.iter().map(Listener::local_addr).collect();
        for listener in opened.listeners {
            let run = listener.run(service.clone(), shutdown.clone());
            let (supervisor, metrics) = (shared.supervisor.clone(), shared.metrics.clone());
            tasks.spawn(async move {
                // It cannot be started again: the process has to be.
                if supervisor.attempt("listener", run).await.is_none() {
                    metrics.set_health(Health::Failed);
                }
            });
        }
        listeners.push(BoundListener {
            name: opened.name,
            addresses,
        });
    }
    listeners
}

async fn open_ops(config: &BrokerConfig, metrics: &Arc<Metrics>) -> Result<OpsServer, BrokerError> {
    // The configuration was checked when it was loaded.
    let addresses = config.metrics_listeners().unwrap_or_default();
    match OpsServer::bind(&addresses, metrics.clone()).await {
        Ok(server) => Ok(server),
        // A second broker on a machine must not fail over a port that nobody asked for.
        Err(failed) if !config.is_set("klamm.metrics.listeners") => {
            warn!(error = %failed, "metrics and health are not served");
            Ok(OpsServer::bind(&[], metrics.clone()).await?)
        }
        Err(failed) => Err(failed.into()),
    }
}

fn open_logs(
    config: &BrokerConfig,
    env: &Env,
    dirs: Vec<PathBuf>,
    cluster_id: &str,
) -> Result<Arc<LogManager>, BrokerError> {
    // Topics' own configurations come with the metadata, which is read once the directories are
    // locked; until then the broker's defaults are good enough to open logs with.
    let defaults = settings::topic_settings("", &Default::default(), config).log;
    let options = log_manager_config(config, dirs, cluster_id);
    let logs = LogManager::open(options, env.clone(), |_| defaults.clone())?;
    directories::cordon(&logs, config);
    directories::report_recovery(&logs);
    for dir in logs.ignored_dirs() {
        warn!(dir = %dir.display(), "ignored: not a partition's directory");
    }
    Ok(Arc::new(logs))
}

fn replica_manager(
    config: &BrokerConfig,
    env: &Env,
    logs: Arc<LogManager>,
    proposals: Arc<dyn ProposalSink>,
) -> ReplicaManager {
    let slots = usize::try_from(config.max_incremental_fetch_session_cache_slots());
    let options = ReplicaManagerConfig {
        replica_lag_max_ms: config.replica_lag_time_max_ms(),
        fetch_session_slots: slots.unwrap_or(0),
        ..ReplicaManagerConfig::new(config.node_id())
    };
    ReplicaManager::new(options, logs, proposals, env.clone())
}

fn compose(
    config: &BrokerConfig,
    env: &Env,
    replicas: ReplicaManager,
    controller: ControllerHandle,
    metrics: Arc<Metrics>,
    cluster_id: String,
    opened: &[Opened],
) -> Shared {
    let dynamic = Arc::new(ArcSwap::from_pointee(config.clone()));
    let peers = Peers::new(config.inter_broker_listener_name());
    let broker_epoch = Arc::new(AtomicI64::new(-1));
    let supervisor = Supervisor::default();
    let launch = TcpFetchers {
        replicas: replicas.clone(),
        peers: peers.clone(),
        config: dynamic.clone(),
        broker_epoch: broker_epoch.clone(),
    };
    let fetchers = Fetchers::new(launch, supervisor.clone());
    let request_timeout =
        Duration::from_millis(u64::try_from(config.request_timeout_ms()).unwrap_or(0));
    let line = |purpose: &str| {
        let client_id = format!("broker-{}-{purpose}", config.node_id());
        Line::new(peers.clone(), client_id, request_timeout)
    };
    let batch_bytes_max = usize::try_from(config.message_max_bytes()).unwrap_or(0);
    let log = |topic| {
        Arc::new(CoordinatorLog::new(
            replicas.clone(),
            topic,
            batch_bytes_max,
        ))
    };
    let group_cluster = Arc::new(GroupCluster::new(dynamic.clone()));
    let offsets = log(topic_name::CONSUMER_OFFSETS);
    let groups = GroupCoordinator::new(
        settings::group_config(config),
        offsets.clone(),
        offsets,
        group_cluster.clone(),
        env,
    );
    let share_log = log(topic_name::SHARE_GROUP_STATE);
    let share_states = ShareStateCoordinator::new(
        settings::share_coordinator_config(config),
        share_log.clone(),
        share_log,
        group_cluster.clone(),
        env,
    );
    let states = log(topic_name::TRANSACTION_STATE);
    let transactions = settings::transaction_config(config);
    let transactions = TransactionCoordinator::new(transactions, states.clone(), states, env);
    let mut settings = Settings::of(config);
    settings.advertised_controller = advertised(&settings.advertised_controller, opened);
    Shared {
        node_id: config.node_id(),
        cluster_id,
        env: env.clone(),
        settings,
        movers: Movers::new(replicas.clone(), dynamic.clone(), env.clock.clone()),
        directories_changed: Arc::default(),
        directories_lost: Arc::default(),
        config: dynamic,
        controller,
        replicas,
        groups: Arc::new(groups),
        group_cluster,
        transactions: Arc::new(transactions),
        share_states: Arc::new(share_states),
        persister: Arc::new(Persister::default()),
        shares: SharePartitions::new(settings::share_sessions_max(config)),
        internal_topics: InternalTopics::default(),
        producer_ids: ProducerIds::default(),
        metrics,
        broker_epoch,
        leaving: AtomicBool::new(false),
        transaction_line: line("txn-verification"),
        share_line: line("share-coordinator"),
        marker_line: line("txn-markers"),
        peers,
        supervisor,
        fetchers,
    }
}

/// Applies the metadata of now, and from then on every change before whoever caused it is answered.
async fn follow_metadata(shared: &Arc<Shared>) -> Result<(), BrokerError> {
    let follower = MetadataFollower {
        node_id: shared.node_id,
        config: shared.config.clone(),
        replicas: shared.replicas.clone(),
        groups: shared.groups.clone(),
        group_cluster: shared.group_cluster.clone(),
        transactions: shared.transactions.clone(),
        share_states: shared.share_states.clone(),
        movers: shared.movers.clone(),
        peers: shared.peers.clone(),
        fetchers: shared.fetchers.clone(),
        directories_changed: shared.directories_changed.clone(),
        metrics: shared.metrics.clone(),
        supervisor: shared.supervisor.clone(),
    };
    shared.controller.subscribe(Arc::new(follower)).await;
    // Logs that the metadata does not know: of topics deleted while this broker was down.
    for partition in shared.replicas.set_stray_logs_aside()? {
        warn!(%partition, "set aside: the cluster's metadata does not know it");
    }
    Ok(())
}

fn start_upkeep(shared: &Arc<Shared>) -> Result<Upkeep, BrokerError> {
    let failed = on_failed_directories(shared);
    let supervisor = shared.supervisor.clone();
    Upkeep::start(shared.replicas.clone(), supervisor, failed).map_err(BrokerError::Thread)
}

fn start_cleaner(shared: &Arc<Shared>) -> Result<CleanerThreads, BrokerError> {
    let failed = on_failed_directories(shared);
    let (logs, config) = (shared.replicas.logs().clone(), shared.config.clone());
    let cleaner = CleanerThreads::start(logs, config, shared.env.clone(), failed)
        .map_err(BrokerError::Thread)?;
    register_cleaner_gauges(shared, cleaner.dead());
    Ok(cleaner)
}

/// What to do about directories whose disk failed.
fn on_failed_directories(shared: &Arc<Shared>) -> impl Fn(Vec<Uuid>) + Send + Sync + use<> {
    let (replicas, metrics) = (shared.replicas.clone(), shared.metrics.clone());
    let changed = shared.directories_changed.clone();
    let lost = shared.directories_lost.clone();
    move |dirs: Vec<Uuid>| {
        changed.notify_one();
        for dir in dirs {
            error!(%dir, "a log directory failed and is offline");
        }
        if replicas.logs().directories().iter().all(|dir| !dir.online) {
            error!("no log directory is left");
            metrics.set_health(Health::Failed);
            lost.notify_one();
        }
    }
}

/// What this broker cannot do yet is refused here, before anything is touched.
fn check_supported(config: &BrokerConfig) -> Result<(), BrokerError> {
    let unsupported = |setting, value: String, reason| {
        Err(BrokerError::Unsupported {
            setting,
            value,
            reason,
        })
    };
    let selector = config.text("replica.selector.class").unwrap_or_default();
    if !["", RACK_AWARE, LEADER_SELECTOR].contains(&selector) {
        let reason = "selectors of one's own are classes of Java; there is the rack-aware one";
        return unsupported("replica.selector.class", selector.to_owned(), reason);
    }
    let assignors = config.list("group.consumer.assignors");
    if let Some(unknown) = assignors
        .iter()
        .find(|name| Assignor::from_name(name).is_none())
    {
        let reason = "assignors of one's own are classes of Java; there are uniform and range";
        return unsupported("group.consumer.assignors", unknown.clone(), reason);
    }
    let secured = config
        .listeners()
        .iter()
        .find(|e| e.protocol != SecurityProtocol::Plaintext);
    if let Some(listener) = secured {
        let reason = "only PLAINTEXT listeners are supported so far";
        return unsupported("listeners", listener.to_string(), reason);
    }
    if let Some(class) = config
        .text("authorizer.class.name")
        .filter(|class| !class.is_empty())
    {
        let reason = "there is no authorizer yet, and starting without one would let everybody in";
        return unsupported("authorizer.class.name", class.to_owned(), reason);
    }
    Ok(())
}

fn log_manager_config(
    config: &BrokerConfig,
    dirs: Vec<PathBuf>,
    cluster_id: &str,
) -> LogManagerConfig {
    LogManagerConfig {
        open_threads: usize::try_from(config.num_recovery_threads_per_data_dir()).unwrap_or(1),
        retention_interval_ms: config.log_retention_check_interval_ms(),
        checkpoint_interval_ms: config.log_flush_offset_checkpoint_interval_ms().into(),
        high_watermark_interval_ms: config.replica_high_watermark_checkpoint_interval_ms(),
        open_files_max: settings::open_files_max(config),
        ..LogManagerConfig::new(dirs, cluster_id, config.node_id())
    }
}
