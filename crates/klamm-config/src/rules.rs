//! Rules that bind several configurations, and the order in which Kafka looks at them.

use crate::broker::BrokerConfig;
use crate::listeners::{self, ListenerProblem};
use crate::order;

/// A rule that the configuration breaks. The texts are Kafka's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the text of each is its documentation")]
pub enum BrokenRule {
    #[error(
        "Invalid configuration value for controller.quorum.voters. Each entry should be in the form `{{id}}@{{host}}:{{port}}`."
    )]
    VoterForm,
    #[error("Failed to parse voter ID as an integer from {0}")]
    VoterId(String),
    #[error(
        "Failed to parse host name from entry {0} for the configuration controller.quorum.voters. Each entry should be in the form `{{id}}@{{host}}:{{port}}`."
    )]
    VoterAddress(String),
    #[error(
        "Failed to parse host name from {0} for the configuration controller.quorum.bootstrap.servers. Each entry should be in the form \"{{host}}:{{port}}\""
    )]
    BootstrapAddress(String),
    #[error("Unable to parse a listener name from {0}")]
    ListenerName(String),
    #[error("Error creating broker listeners from '[{}]': {}", .entries.join(", "), .problem.text(.entries))]
    Listeners {
        entries: Vec<String>,
        problem: ListenerProblem,
    },
    #[error("Invalid security protocol `{0}` defined in listener.security.protocol.map")]
    SecurityProtocol(String),
    #[error("Error parsing configuration property '{config}': {entry} is not a pair key:value")]
    Pair { config: &'static str, entry: String },
    #[error("max.connections.per.ip.overrides has no number in {0}")]
    ConnectionCount(String),
    #[error("max.connections.per.ip.overrides contains invalid addresses : {0}")]
    ConnectionAddress(String),
    #[error("You must set `node.id` to the same value as `broker.id`.")]
    NodeIdIsBrokerId,
    #[error(
        "Only one of inter.broker.listener.name and security.inter.broker.protocol should be set."
    )]
    TwoInterBroker,
    #[error(
        "Listener with name {0} defined in inter.broker.listener.name not found in listener.security.protocol.map."
    )]
    InterBrokerUnmapped(String),
    #[error(
        "inter.broker.listener.name must be a listener name defined in advertised.listeners. The valid options based on currently configured listeners are {0}"
    )]
    InterBrokerNotAdvertised(String),
    #[error(
        "early.start.listeners contains listener {0}, but this is not contained in listeners or controller.listener.names"
    )]
    EarlyStart(String),
    #[error("Disabling the 'classic' protocol is not supported.")]
    ClassicDisabled,
    #[error("Unknown compression type id: {0}")]
    CompressionId(i32),
    #[error("{0} must be greater than or equal to {1}")]
    AtLeast(&'static str, &'static str),
    #[error("{0} must be less than or equal to {1}")]
    AtMost(&'static str, &'static str),
    #[error("{0} must be less than {1}")]
    Below(&'static str, &'static str),
    #[error("{0} must be greater than {1}")]
    Above(&'static str, &'static str),
    #[error("group.share.assignors must contain exactly one assignor, but found {0}")]
    OneShareAssignor(usize),
    #[error("log.roll.ms must be greater than or equal to 1")]
    RollMs,
    #[error("log.roll.jitter.ms must be greater than or equal to 0")]
    RollJitterMs,
    #[error("log.retention.ms must be unlimited (-1) or, greater than or equal to 1")]
    RetentionMs,
    #[error("log.cleaner.threads must be at least 1")]
    NoCleanerThread,
    #[error("log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.")]
    CleanerBuffer,
    #[error(
        "replica.socket.timeout.ms should always be at least replica.fetch.wait.max.ms to prevent unnecessary socket timeouts"
    )]
    ReplicaSocketTimeout,
    #[error(
        "replica.fetch.wait.max.ms should always be less than or equal to replica.lag.time.max.ms to prevent frequent changes in ISR"
    )]
    ReplicaFetchWait,
    #[error(
        "All entries in cordoned.log.dirs must be present in log.dirs or log.dir. Missing entries : {0}"
    )]
    CordonedDirs(String),
    #[error(
        "If using process.roles, either controller.quorum.bootstrap.servers must contain the set of bootstrap controllers or controller.quorum.voters must contain a parseable set of controllers."
    )]
    NoQuorum,
    #[error(
        "If process.roles contains the 'controller' role, the node id {id} must be included in the set of voters controller.quorum.voters=Set({voters})"
    )]
    NotAVoter { id: i32, voters: String },
    #[error(
        "If process.roles contains just the 'broker' role, the node id {id} must not be included in the set of voters controller.quorum.voters=Set({voters})"
    )]
    BrokerIsVoter { id: i32, voters: String },
    #[error(
        "controller.listener.names must contain at least one value appearing in the 'listeners' configuration when running the KRaft controller role"
    )]
    NoControllerListener,
    #[error(
        "controller.listener.names must only contain values appearing in the 'listeners' configuration when running the KRaft controller role"
    )]
    StrayControllerListener,
    #[error("There must be at least one broker advertised listener.{}", if *.0 { " Perhaps all listeners appear in controller.listener.names?" } else { "" })]
    NoAdvertised(bool),
    #[error(
        "controller.listener.names must not contain a value appearing in the 'listeners' configuration when running KRaft with just the broker role"
    )]
    BrokerHasControllerListener,
    #[error(
        "Controller listener with name {0} defined in controller.listener.names not found in listener.security.protocol.map  (an explicit security mapping for each controller listener is required if listener.security.protocol.map is non-empty, or if there are security protocols other than PLAINTEXT in use)"
    )]
    ControllerUnmapped(String),
    #[error(
        "controller.quorum.auto.join.enable is only supported when process.roles contains the 'controller' role."
    )]
    AutoJoin,
    #[error(
        "The listeners config must only contain KRaft controller listeners from controller.listener.names when process.roles=controller"
    )]
    ControllerHasBrokerListener,
    #[error(
        "advertised.listeners listener names must be equal to or a subset of the ones defined in listeners. Found {found}. The valid options based on the current configuration are {valid}"
    )]
    AdvertisedNotListening { found: String, valid: String },
    #[error(
        "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP address."
    )]
    Nonroutable,
    #[error(
        "sasl.mechanism.inter.broker.protocol must be included in sasl.enabled.mechanisms when SASL is used for inter-broker communication"
    )]
    InterBrokerMechanism,
    #[error("queued.max.request.bytes must be larger or equal to socket.request.max.bytes")]
    QueuedBytes,
    #[error(
        "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is set."
    )]
    ZeroConnections,
    #[error(
        "connection.failed.authentication.delay.ms={delay} should always be less than connections.max.idle.ms={idle} to prevent failed authentication responses from timing out"
    )]
    AuthenticationDelay { delay: i32, idle: i64 },
    #[error(
        "conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})"
    )]
    CompactionLag { min: i64, max: i64 },
    #[error(
        "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
    )]
    NoTieredStorage,
    #[error("Remote log storage is unsupported for the compacted topics")]
    TieredCompacted,
    #[error(
        "It is invalid to disable remote storage without deleting remote data. If you want to keep the remote data and turn to read only, please set `remote.storage.enable=true,remote.log.copy.disable=true`. If you want to disable remote storage and delete all remote data, please set `remote.storage.enable=false,remote.log.delete.on.disable=true`."
    )]
    TieredDisabledWithData,
    #[error("klamm.metrics.listeners needs host:port, not {0}")]
    MetricsAddress(String),
}

/// Looks at every rule; the first broken one is the answer.
pub(crate) fn check(config: &BrokerConfig) -> Result<(), BrokenRule> {
    compression_ids(config)?;
    order::check_broker(config)?;
    early_start(config)?;
    let overrides = connection_overrides(config)?;
    if !config
        .list("group.coordinator.rebalance.protocols")
        .iter()
        .any(|p| p == "classic")
    {
        return Err(BrokenRule::ClassicDisabled);
    }
    if config.int("broker.id") >= 0 && config.int("broker.id") != config.node_id() {
        return Err(BrokenRule::NodeIdIsBrokerId);
    }
    log_and_replica(config)?;
    roles(config)?;
    advertised(config)?;
    network(config, &overrides)?;
    config.metrics_listeners().map(drop)
}

fn compression_ids(config: &BrokerConfig) -> Result<(), BrokenRule> {
    for name in [
        "offsets.topic.compression.codec",
        "share.coordinator.state.topic.compression.codec",
    ] {
        let id = config.int(name);
        if !(0..=4).contains(&id) {
            return Err(BrokenRule::CompressionId(id));
        }
    }
    Ok(())
}

fn early_start(config: &BrokerConfig) -> Result<(), BrokenRule> {
    let known = |name: &String| {
        config.listeners().iter().any(|l| &l.name == name)
            || config.controller_listener_names().iter().any(|c| c == name)
    };
    match config
        .list("early.start.listeners")
        .iter()
        .find(|name| !known(name))
    {
        Some(stray) => Err(BrokenRule::EarlyStart(stray.clone())),
        None => Ok(()),
    }
}

fn connection_overrides(config: &BrokerConfig) -> Result<Vec<(String, i32)>, BrokenRule> {
    let name = "max.connections.per.ip.overrides";
    let text = config.text(name).unwrap_or_default();
    let number = |(host, count): (String, String)| match count.parse() {
        Ok(count) => Ok((host, count)),
        Err(_) => Err(BrokenRule::ConnectionCount(count)),
    };
    listeners::pairs(name, text)?
        .into_iter()
        .map(number)
        .collect()
}

fn log_and_replica(config: &BrokerConfig) -> Result<(), BrokenRule> {
    let ensure = |holds: bool, rule: BrokenRule| if holds { Ok(()) } else { Err(rule) };
    ensure(config.log_roll_ms() >= 1, BrokenRule::RollMs)?;
    ensure(config.log_roll_jitter_ms() >= 0, BrokenRule::RollJitterMs)?;
    let retention = config.log_retention_ms();
    ensure(retention >= 1 || retention == -1, BrokenRule::RetentionMs)?;
    let threads = i64::from(config.int("log.cleaner.threads"));
    ensure(threads > 0, BrokenRule::NoCleanerThread)?;
    let per_thread = config.long("log.cleaner.dedupe.buffer.size") / threads;
    ensure(per_thread > 1024 * 1024, BrokenRule::CleanerBuffer)?;
    let wait = config.int("replica.fetch.wait.max.ms");
    ensure(
        wait <= config.int("replica.socket.timeout.ms"),
        BrokenRule::ReplicaSocketTimeout,
    )?;
    ensure(
        i64::from(wait) <= config.long("replica.lag.time.max.ms"),
        BrokenRule::ReplicaFetchWait,
    )?;
    let dirs = config.log_dirs();
    let missing: Vec<&str> = config
        .list("cordoned.log.dirs")
        .iter()
        .filter(|d| *d != "*" && !dirs.contains(d))
        .map(String::as_str)
        .collect();
    ensure(
        missing.is_empty(),
        BrokenRule::CordonedDirs(missing.join(",")),
    )
}

fn roles(config: &BrokerConfig) -> Result<(), BrokenRule> {
    let id = config.node_id();
    let ids: Vec<i32> = config.quorum_voters().iter().map(|v| v.id).collect();
    let voters = || {
        ids.iter()
            .map(i32::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    if ids.is_empty()
        && config
            .list("controller.quorum.bootstrap.servers")
            .is_empty()
        && !config.is_standalone()
    {
        return Err(BrokenRule::NoQuorum);
    }
    let controllers = config.controller_listeners();
    if config.is_controller() {
        if !config.is_broker() && controllers.len() != config.listeners().len() {
            return Err(BrokenRule::ControllerHasBrokerListener);
        }
        if !ids.is_empty() && !ids.contains(&id) {
            return Err(BrokenRule::NotAVoter {
                id,
                voters: voters(),
            });
        }
        if config.is_standalone() {
            return Ok(());
        }
        if controllers.is_empty() {
            return Err(BrokenRule::NoControllerListener);
        }
        let listening = |name: &String| config.listeners().iter().any(|l| &l.name == name);
        if !config.controller_listener_names().iter().all(listening) {
            return Err(BrokenRule::StrayControllerListener);
        }
        return Ok(());
    }
    if ids.contains(&id) {
        return Err(BrokenRule::BrokerIsVoter {
            id,
            voters: voters(),
        });
    }
    if !controllers.is_empty() {
        return Err(BrokenRule::BrokerHasControllerListener);
    }
    let unmapped = |name: &&String| !config.protocol_map().contains_key(&name.to_uppercase());
    if let Some(name) = config.controller_listener_names().iter().find(unmapped) {
        return Err(BrokenRule::ControllerUnmapped(name.clone()));
    }
    if config.boolean("controller.quorum.auto.join.enable") {
        return Err(BrokenRule::AutoJoin);
    }
    Ok(())
}

fn advertised(config: &BrokerConfig) -> Result<(), BrokenRule> {
    let names = |all: &[crate::Endpoint]| all.iter().map(|e| e.name.clone()).collect::<Vec<_>>();
    let advertised = names(config.advertised_listeners());
    if config.is_broker() {
        if advertised.is_empty() {
            return Err(BrokenRule::NoAdvertised(true));
        }
        if !advertised
            .iter()
            .any(|a| a == config.inter_broker_listener_name())
        {
            return Err(BrokenRule::InterBrokerNotAdvertised(advertised.join(",")));
        }
        let listening = names(config.listeners());
        if !advertised.iter().all(|a| listening.contains(a)) {
            let (found, valid) = (advertised.join(","), listening.join(","));
            return Err(BrokenRule::AdvertisedNotListening { found, valid });
        }
    }
    match config
        .advertised_listeners()
        .iter()
        .any(|e| e.host == "0.0.0.0")
    {
        true => Err(BrokenRule::Nonroutable),
        false => Ok(()),
    }
}

fn network(config: &BrokerConfig, overrides: &[(String, i32)]) -> Result<(), BrokenRule> {
    let inter = config.inter_broker_listener_name();
    let mechanism = config
        .text("sasl.mechanism.inter.broker.protocol")
        .unwrap_or_default();
    if config.inter_broker_security_protocol().is_sasl()
        && !config
            .listener_list(inter, "sasl.enabled.mechanisms")
            .iter()
            .any(|m| m == mechanism)
    {
        return Err(BrokenRule::InterBrokerMechanism);
    }
    let queued = config.long("queued.max.request.bytes");
    if queued > 0 && queued < i64::from(config.int("socket.request.max.bytes")) {
        return Err(BrokenRule::QueuedBytes);
    }
    if config.int("max.connections.per.ip") == 0 && overrides.is_empty() {
        return Err(BrokenRule::ZeroConnections);
    }
    let host_letter =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    let bad: Vec<&str> = overrides
        .iter()
        .map(|(h, _)| h.as_str())
        .filter(|h| h.is_empty() || !h.chars().all(host_letter))
        .collect();
    if !bad.is_empty() {
        return Err(BrokenRule::ConnectionAddress(bad.join(",")));
    }
    let (delay, idle) = (
        config.int("connection.failed.authentication.delay.ms"),
        config.long("connections.max.idle.ms"),
    );
    if idle >= 0 && i64::from(delay) >= idle {
        return Err(BrokenRule::AuthenticationDelay { delay, idle });
    }
    Ok(())
}
