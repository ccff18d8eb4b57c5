//! What a node is to the quorum of controllers: one of them, or a broker that follows them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use klamm_config::BrokerConfig;
use klamm_controller::{
    Controller, ControllerConfig, ControllerError, ControllerListener, DynamicQuorum, KafkaConfigs,
    MetadataLogOptions, MetadataReplica, VoterEndpoint,
};
use klamm_env::Env;
use klamm_log::LogManager;
use klamm_log::meta_properties::MetaProperties;
use klamm_records::Uuid;

use crate::controller::{
    Contacts, ControllerHandle, Observer, Peers, Source, Timing, bootstrap_servers,
    configured_voters, has_dynamic_quorum,
};
use crate::error::BrokerError;
use crate::listeners::{Opened, advertised};
use crate::membership;

/// Starts the controller of this node, or the way to those of others.
pub(crate) async fn start(
    config: &BrokerConfig,
    env: &Env,
    logs: &LogManager,
    opened: &[Opened],
    cluster_id: &str,
) -> Result<ControllerHandle, BrokerError> {
    let peers = Arc::new(peers(config));
    let source = if config.is_controller() {
        let options = ControllerConfig {
            transport: Some(peers.clone()),
            ..controller_config(config, env, cluster_id, logs, opened)?
        };
        Source::Local(Controller::start(options, env.clone()).await?)
    } else {
        let contacts = if has_dynamic_quorum(config) {
            Contacts::Servers(bootstrap_servers(config))
        } else {
            Contacts::Voters(configured_voters(config).into_keys().collect())
        };
        let own = (
            config.node_id(),
            metadata_directory(config, env, logs, cluster_id)?,
        );
        let dir = PathBuf::from(config.metadata_log_dir());
        let replica = MetadataReplica::open(env, &dir, metadata_log(config)).await;
        let replica = replica.map_err(ControllerError::Io)?;
        let timing = Timing {
            fetch_timeout: ms(config.controller_quorum_fetch_timeout_ms().into()),
            retry_backoff: ms(config.int("controller.quorum.retry.backoff.ms").into()),
            snapshot_log_bytes: snapshot_log_bytes(config),
            snapshot_interval: snapshot_interval(config),
        };
        Source::Observed(Arc::new(Observer::new(
            own,
            cluster_id,
            peers.clone(),
            contacts,
            replica,
            timing,
        )))
    };
    Ok(ControllerHandle::new(source, peers, config))
}

/// How the metadata log is kept on disk.
fn metadata_log(config: &BrokerConfig) -> MetadataLogOptions {
    MetadataLogOptions {
        segment_bytes: config.metadata_log_segment_bytes().unsigned_abs(),
        segment_ms: config.long("metadata.log.segment.ms"),
        retention_bytes: config.long("metadata.max.retention.bytes"),
        retention_ms: config.long("metadata.max.retention.ms"),
    }
}

fn snapshot_log_bytes(config: &BrokerConfig) -> u64 {
    let bytes = config.metadata_log_max_record_bytes_between_snapshots();
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// `None` for no such limit.
fn snapshot_interval(config: &BrokerConfig) -> Option<Duration> {
    let interval_ms = config.metadata_log_max_snapshot_interval_ms();
    (interval_ms > 0).then(|| ms(interval_ms))
}

fn ms(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// The way to the other controllers.
fn peers(config: &BrokerConfig) -> Peers {
    Peers::new(
        configured_voters(config),
        format!("klamm-{}", config.node_id()),
        (
            ms(config.controller_quorum_request_timeout_ms().into()),
            ms(config.int("request.timeout.ms").into()),
        ),
        config.boolean("klamm.fast.fencing.enable"),
    )
}

/// The cluster's id: the one in the log directories, else the configured one, else a new one.
pub(crate) fn cluster_id(
    config: &BrokerConfig,
    env: &Env,
    dirs: &[PathBuf],
) -> Result<String, BrokerError> {
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
    if let Some(configured) = config.cluster_id() {
        return Ok(configured.to_owned());
    }
    if config.quorum_voters().len() > 1 || has_dynamic_quorum(config) || !config.is_controller() {
        // Each would make up an id of its own, and none would talk to the others.
        return Err(BrokerError::NoClusterId);
    }
    Ok(membership::new_id(env).to_string())
}

fn controller_config(
    config: &BrokerConfig,
    env: &Env,
    cluster_id: &str,
    logs: &LogManager,
    opened: &[Opened],
) -> Result<ControllerConfig, BrokerError> {
    let metadata_dir = PathBuf::from(config.metadata_log_dir());
    let seconds = |name: &str| Duration::from_secs(u64::try_from(config.long(name)).unwrap_or(0));
    let listeners = advertised(config.advertised_controller_listeners(), opened);
    let voters = configured_voters(config).into_iter();
    Ok(ControllerConfig {
        cluster_id: Some(cluster_id.to_owned()),
        other_voters: voters
            .map(|(id, (host, port))| (id, vec![voter_endpoint(config, &host, port)]))
            .collect(),
        voter_endpoints: config
            .quorum_voters()
            .iter()
            .find(|voter| voter.id == config.node_id())
            .filter(|_| config.quorum_voters().len() > 1)
            .map(|voter| vec![voter_endpoint(config, &voter.host, voter.port)]),
        dynamic: has_dynamic_quorum(config).then(|| DynamicQuorum {
            bootstrap_servers: bootstrap_servers(config),
            auto_join: config.boolean("controller.quorum.auto.join.enable"),
        }),
        election_timeout: ms(config.controller_quorum_fetch_timeout_ms().into()),
        election_backoff_max: Some(ms(config
            .int("controller.quorum.election.backoff.max.ms")
            .into())),
        request_timeout: ms(config.controller_quorum_request_timeout_ms().into()),
        listeners: listeners
            .into_iter()
            .map(|endpoint| ControllerListener {
                name: endpoint.name,
                host: endpoint.host,
                port: endpoint.port,
                security_protocol: endpoint.protocol.id(),
            })
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
        snapshot_log_bytes: snapshot_log_bytes(config),
        snapshot_interval: snapshot_interval(config),
        snapshot_piece_bytes: usize::try_from(
            config.int("controller.quorum.fetch.snapshot.max.bytes"),
        )
        .unwrap_or(1 << 20),
        metadata_log: metadata_log(config),
        ..ControllerConfig::new(
            config.node_id(),
            metadata_dir,
            metadata_directory(config, env, logs, cluster_id)?,
            Arc::new(KafkaConfigs::new(config.clone())),
        )
    })
}

/// Id of the directory that the metadata lies in. One of its own, which no topics' records are in, is
/// formatted here where that was not done.
fn metadata_directory(
    config: &BrokerConfig,
    env: &Env,
    logs: &LogManager,
    cluster_id: &str,
) -> Result<Uuid, BrokerError> {
    let dir = PathBuf::from(config.metadata_log_dir());
    let directories = logs.directories();
    if let Some(found) = directories.iter().find(|found| found.path == dir) {
        return Ok(found.id);
    }
    let failed = |source| BrokerError::Directory {
        dir: dir.clone(),
        source,
    };
    let found = MetaProperties::read(&*env.fs, &dir).map_err(failed)?;
    if let Some(id) = found.as_ref().and_then(|found| found.directory_id) {
        return Ok(id);
    }
    let id = membership::new_id(env);
    let properties = MetaProperties {
        cluster_id: Some(cluster_id.to_owned()),
        node_id: Some(config.node_id()),
        directory_id: Some(id),
        ..found.unwrap_or_default()
    };
    env.fs.create_dir_all(&dir).map_err(BrokerError::Format)?;
    properties.write(&*env.fs, &dir).map_err(failed)?;
    Ok(id)
}

/// A voter's address as all voters know it; they all listen under the same name.
fn voter_endpoint(config: &BrokerConfig, host: &str, port: u16) -> VoterEndpoint {
    let names = config.controller_listener_names();
    VoterEndpoint {
        name: names.first().cloned().unwrap_or_default(),
        host: host.to_owned(),
        port,
    }
}
