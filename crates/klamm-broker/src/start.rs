//! How a broker comes up: ports first (nothing is touched if one is taken), then the directories
//! and their locks, the controller, registration, the logs under the metadata, and last the
//! listeners begin to accept.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use klamm_config::{BrokerConfig, Endpoint, SecurityProtocol};
use klamm_controller::managers::features::SUPPORTED;
use klamm_controller::{Controller, ControllerConfig, ControllerListener, KafkaConfigs};
use klamm_coordinator::GroupCoordinator;
use klamm_env::Env;
use klamm_log::meta_properties::MetaProperties;
use klamm_log::{LogManager, LogManagerConfig};
use klamm_net::{Listener, Shutdown};
use klamm_protocol::ByteStr;
use klamm_protocol::messages::{
    BrokerHeartbeatRequest, BrokerRegistrationRequest, broker_registration_request,
};
use klamm_records::{TopicPartition, Uuid};
use klamm_replication::partition::IsrProposal;
use klamm_replication::{ProposalSink, ReplicaManager, ReplicaManagerConfig};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, warn};

use crate::apis::Table;
use crate::broker::{BoundListener, Broker};
use crate::error::BrokerError;
use crate::follow::MetadataFollower;
use crate::group_log::GroupLog;
use crate::ops::{Health, Metrics, OpsServer, register_gauges};
use crate::producer_ids::ProducerIds;
use crate::service::KafkaService;
use crate::settings::{self, Settings};
use crate::shared::Shared;
use crate::upkeep::Upkeep;

/// Features that Klamm knows and does not serve yet; new clusters start without them.
const FEATURES_TO_COME: [&str; 4] = [
    "group.version",
    "share.version",
    "streams.version",
    "transaction.version",
];

pub(crate) async fn start(config: BrokerConfig, env: Env) -> Result<Broker, BrokerError> {
    check_supported(&config)?;
    let metrics = Arc::new(Metrics::new(env.clock.clone()));
    let opened = open_listeners(&config).await?;
    let ops = open_ops(&config, &metrics).await?;
    let dirs: Vec<PathBuf> = config.log_dirs().iter().map(PathBuf::from).collect();
    let cluster_id = cluster_id(&config, &env, &dirs)?;
    let logs = open_logs(&config, &env, dirs, &cluster_id)?;
    let options = controller_config(&config, &cluster_id, &logs, &opened);
    let controller = Controller::start(options, env.clone()).await?;

    let shared = Arc::new(compose(
        &config, &env, logs, controller, metrics, cluster_id, &opened,
    ));
    let mut tasks = JoinSet::new();
    tasks.spawn(shared.replicas.clone().run_timer());
    follow_metadata(&shared).await?;
    register(&shared, &config, &opened).await?;
    tasks.spawn(heartbeats(shared.clone()));
    tasks.spawn(watch_in_sync_replicas(shared.clone()));
    let upkeep = start_upkeep(&shared)?;

    let shutdown = Shutdown::new();
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
            tasks.spawn(listener.run(service.clone(), shutdown.clone()));
        }
        listeners.push(BoundListener {
            name: opened.name,
            addresses,
        });
    }
    register_gauges(&shared);
    shared.metrics.set_health(Health::Ready);
    Ok(Broker {
        shared,
        listeners,
        shutdown,
        tasks,
        upkeep,
        ops,
    })
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
    for dir in logs.ignored_dirs() {
        warn!(dir = %dir.display(), "ignored: not a partition's directory");
    }
    Ok(Arc::new(logs))
}

fn compose(
    config: &BrokerConfig,
    env: &Env,
    logs: Arc<LogManager>,
    controller: Controller,
    metrics: Arc<Metrics>,
    cluster_id: String,
    opened: &[Opened],
) -> Shared {
    let replicas = ReplicaManager::new(
        ReplicaManagerConfig {
            replica_lag_max_ms: config.replica_lag_time_max_ms(),
            fetch_session_slots: usize::try_from(
                config.max_incremental_fetch_session_cache_slots(),
            )
            .unwrap_or(0),
            ..ReplicaManagerConfig::new(config.node_id())
        },
        logs,
        Arc::new(LoneBroker),
        env.clone(),
    );
    let batch_bytes_max = usize::try_from(config.message_max_bytes()).unwrap_or(0);
    let log = Arc::new(GroupLog::new(replicas.clone(), batch_bytes_max));
    let groups = GroupCoordinator::new(settings::group_config(config), log.clone(), log, env);
    let mut settings = Settings::of(config);
    settings.advertised_controller = advertised(&settings.advertised_controller, opened);
    Shared {
        node_id: config.node_id(),
        cluster_id,
        env: env.clone(),
        settings,
        config: Arc::new(ArcSwap::from_pointee(config.clone())),
        controller,
        replicas,
        groups: Arc::new(groups),
        producer_ids: ProducerIds::default(),
        metrics,
        broker_epoch: AtomicI64::new(-1),
    }
}

/// The ISR of a partition with one replica never changes, and this broker has no other kind yet.
#[derive(Debug)]
struct LoneBroker;

impl ProposalSink for LoneBroker {
    fn propose(&self, partition: &TopicPartition, _: Uuid, proposal: IsrProposal) {
        error!(%partition, ?proposal, "an ISR change without other brokers");
    }
}

/// Applies the metadata of now, and from then on every change before whoever caused it is answered.
async fn follow_metadata(shared: &Arc<Shared>) -> Result<(), BrokerError> {
    let follower = MetadataFollower {
        node_id: shared.node_id,
        config: shared.config.clone(),
        replicas: shared.replicas.clone(),
        groups: shared.groups.clone(),
        metrics: shared.metrics.clone(),
    };
    shared.controller.subscribe(Arc::new(follower)).await;
    // Logs that the metadata does not know: of topics deleted while this broker was down.
    for partition in shared.replicas.set_stray_logs_aside()? {
        warn!(%partition, "set aside: the cluster's metadata does not know it");
    }
    Ok(())
}

/// Registers with the controller and waits until clients may see this broker.
async fn register(
    shared: &Shared,
    config: &BrokerConfig,
    opened: &[Opened],
) -> Result<(), BrokerError> {
    let logs = shared.replicas.logs();
    let mut log_dirs: Vec<Uuid> = logs
        .directories()
        .iter()
        .filter(|dir| dir.online)
        .map(|dir| dir.id)
        .collect();
    log_dirs.sort_unstable();
    let endpoints = advertised(config.advertised_listeners(), opened);
    let request = BrokerRegistrationRequest {
        broker_id: shared.node_id,
        cluster_id: shared.cluster_id.as_str().into(),
        incarnation_id: new_id(&shared.env),
        listeners: endpoints
            .iter()
            .map(|endpoint| broker_registration_request::Listener {
                name: endpoint.name.as_str().into(),
                host: endpoint.host.as_str().into(),
                port: endpoint.port,
                security_protocol: endpoint.protocol.id(),
                ..Default::default()
            })
            .collect(),
        features: SUPPORTED
            .iter()
            .map(|feature| broker_registration_request::Feature {
                name: feature.name.into(),
                min_supported_version: feature.min,
                max_supported_version: feature.max,
                ..Default::default()
            })
            .collect(),
        rack: config.rack().map(ByteStr::from),
        log_dirs,
        previous_broker_epoch: logs.previous_broker_epoch().unwrap_or(-1),
        ..BrokerRegistrationRequest::default()
    };
    let answer = shared.controller.register_broker(request, true).await?;
    shared
        .broker_epoch
        .store(answer.broker_epoch, Ordering::Release);
    while heartbeat(shared, Vec::new()).await? {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Tells the controller that this broker lives; returns whether it is fenced.
async fn heartbeat(shared: &Shared, offline_log_dirs: Vec<Uuid>) -> Result<bool, BrokerError> {
    let request = BrokerHeartbeatRequest {
        broker_id: shared.node_id,
        broker_epoch: shared.epoch(),
        current_metadata_offset: shared.image().offset(),
        offline_log_dirs,
        ..BrokerHeartbeatRequest::default()
    };
    let answer = shared.controller.broker_heartbeat(request).await?;
    Ok(answer.is_fenced)
}

async fn heartbeats(shared: Arc<Shared>) {
    let every = u64::try_from(shared.config().broker_heartbeat_interval_ms()).unwrap_or(2000);
    let mut ticks = interval(Duration::from_millis(every.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let directories = shared.replicas.logs().directories();
        let offline = directories
            .iter()
            .filter(|dir| !dir.online)
            .map(|dir| dir.id)
            .collect();
        if let Err(failed) = heartbeat(&shared, offline).await {
            warn!(error = %failed, "a heartbeat was refused");
        }
    }
}

async fn watch_in_sync_replicas(shared: Arc<Shared>) {
    let every = u64::try_from(shared.config().replica_lag_time_max_ms() / 2).unwrap_or(15_000);
    let mut ticks = interval(Duration::from_millis(every.max(1)));
    loop {
        ticks.tick().await;
        shared.replicas.check_in_sync_replicas();
    }
}

fn start_upkeep(shared: &Arc<Shared>) -> Result<Upkeep, BrokerError> {
    let (replicas, metrics) = (shared.replicas.clone(), shared.metrics.clone());
    let failed = move |dirs: Vec<Uuid>| {
        for dir in dirs {
            error!(%dir, "a log directory failed and is offline");
        }
        if replicas.logs().directories().iter().all(|dir| !dir.online) {
            error!("no log directory is left");
            metrics.set_health(Health::Failed);
        }
    };
    Upkeep::start(shared.replicas.clone(), failed).map_err(BrokerError::Thread)
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
    if !config.is_broker() || !config.is_controller() {
        let roles = config.list("process.roles").join(",");
        let reason = "a node is both controller and broker so far";
        return unsupported("process.roles", roles, reason);
    }
    if config.quorum_voters().len() > 1 {
        let voters = config.list("controller.quorum.voters").join(",");
        return unsupported(
            "controller.quorum.voters",
            voters,
            "one voter is supported so far",
        );
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

/// A listening socket that nobody is served on yet.
struct Opened {
    name: String,
    controller: bool,
    listeners: Vec<Listener>,
}

impl Opened {
    fn port(&self) -> u16 {
        self.listeners
            .first()
            .map_or(0, |listener| listener.local_addr().port())
    }
}

async fn open_listeners(config: &BrokerConfig) -> Result<Vec<Opened>, BrokerError> {
    let budget = settings::request_budget(config);
    let mut opened = Vec::new();
    for endpoint in config.listeners() {
        let mut listeners: Vec<Listener> = Vec::new();
        for mut address in resolve(endpoint).await? {
            if let Some(first) = listeners.first() {
                // One host may have several addresses; they share the port that the first was given.
                address.set_port(first.local_addr().port());
            }
            let options = settings::listener_config(&endpoint.name, config, budget.as_ref());
            match Listener::bind(address, options) {
                Ok(listener) => listeners.push(listener),
                // `localhost` may name an address that this machine does not have.
                Err(failed) if !listeners.is_empty() && is_absent(&failed.source) => {}
                Err(failed) => return Err(failed.into()),
            }
        }
        opened.push(Opened {
            name: endpoint.name.clone(),
            controller: config.controller_listener_names().contains(&endpoint.name),
            listeners,
        });
    }
    Ok(opened)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    )
}

async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, BrokerError> {
    if endpoint.host.is_empty() {
        // All interfaces, IPv4 through the IPv6 socket where there is IPv6 at all.
        let six = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), endpoint.port);
        let four = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), endpoint.port);
        let has_six = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
        return Ok(vec![if has_six { six } else { four }]);
    }
    let failed = |source| BrokerError::Resolve {
        listener: endpoint.name.clone(),
        host: endpoint.host.clone(),
        source,
    };
    let found = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port));
    let mut addresses: Vec<_> = found.await.map_err(failed)?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.dedup();
    if addresses.is_empty() {
        return Err(failed(io::ErrorKind::NotFound.into()));
    }
    Ok(addresses)
}

/// What clients are told: the configured host, or this machine's name where none is configured, and
/// the real port where the system was to choose one.
fn advertised(endpoints: &[Endpoint], opened: &[Opened]) -> Vec<Endpoint> {
    let real = |endpoint: &Endpoint| {
        let mut endpoint = endpoint.clone();
        if endpoint.host.is_empty() {
            endpoint.host = host_name();
        }
        if endpoint.port == 0 {
            let found = opened.iter().find(|opened| opened.name == endpoint.name);
            endpoint.port = found.map_or(0, Opened::port);
        }
        endpoint
    };
    endpoints.iter().map(real).collect()
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// The cluster's id: the one in the log directories, else the configured one, else a new one.
fn cluster_id(config: &BrokerConfig, env: &Env, dirs: &[PathBuf]) -> Result<String, BrokerError> {
    for dir in dirs {
        let read =
            MetaProperties::read(&*env.fs, dir).map_err(|source| BrokerError::Directory {
                dir: dir.clone(),
                source,
            })?;
        let Some(found) = read.and_then(|properties| properties.cluster_id) else {
            continue;
        };
        return match config.cluster_id() {
            Some(configured) if configured != found => Err(BrokerError::ClusterIdMismatch {
                dir: dir.clone(),
                found,
                configured: configured.to_owned(),
            }),
            _ => Ok(found),
        };
    }
    Ok(config
        .cluster_id()
        .map_or_else(|| new_id(env).to_string(), str::to_owned))
}

fn new_id(env: &Env) -> Uuid {
    loop {
        if let Some(id) = Uuid::from_random(env.rng.next_16_bytes()) {
            return id;
        }
    }
}

fn controller_config(
    config: &BrokerConfig,
    cluster_id: &str,
    logs: &LogManager,
    opened: &[Opened],
) -> ControllerConfig {
    let metadata_dir = PathBuf::from(config.metadata_log_dir());
    let directories = logs.directories();
    let directory = directories.iter().find(|dir| dir.path == metadata_dir);
    let seconds = |name: &str| Duration::from_secs(u64::try_from(config.long(name)).unwrap_or(0));
    let ms = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let listeners = advertised(config.advertised_controller_listeners(), opened);
    let snapshot_ms = config.metadata_log_max_snapshot_interval_ms();
    ControllerConfig {
        cluster_id: Some(cluster_id.to_owned()),
        listeners: listeners
            .into_iter()
            .map(|endpoint| ControllerListener {
                name: endpoint.name,
                host: endpoint.host,
                port: endpoint.port,
                security_protocol: endpoint.protocol.id(),
            })
            .collect(),
        features: FEATURES_TO_COME
            .iter()
            .map(|name| ((*name).to_owned(), 0))
            .collect(),
        settings: klamm_controller::Settings {
            default_replication_factor: i16::try_from(config.default_replication_factor())
                .unwrap_or(i16::MAX),
            default_partitions: config.num_partitions(),
            delete_topic_enable: config.delete_topic_enable(),
        },
        session_timeout: ms(config.broker_session_timeout_ms().into()),
        leader_balance_interval: config
            .boolean("auto.leader.rebalance.enable")
            .then(|| seconds("leader.imbalance.check.interval.seconds")),
        unclean_election_interval: ms(config.long("unclean.leader.election.interval.ms")),
        snapshot_log_bytes: u64::try_from(config.metadata_log_max_record_bytes_between_snapshots())
            .unwrap_or(u64::MAX),
        snapshot_interval: (snapshot_ms > 0).then(|| ms(snapshot_ms)),
        ..ControllerConfig::new(
            config.node_id(),
            metadata_dir,
            directory.map_or(Uuid::ZERO, |dir| dir.id),
            Arc::new(KafkaConfigs::new(config.clone())),
        )
    }
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
        ..LogManagerConfig::new(dirs, cluster_id, config.node_id())
    }
}
