//! This broker as a member of the cluster: registration, heartbeats, what is due after an unclean
//! restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm_config::BrokerConfig;
use klamm_controller::ApiError;
use klamm_controller::managers::features::SUPPORTED;
use klamm_env::Env;
use klamm_metadata::{LeaderRecoveryState, MetadataImage};
use klamm_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use klamm_protocol::messages::{
    AlterPartitionRequest, BrokerHeartbeatRequest, BrokerRegistrationRequest,
    broker_registration_request,
};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use crate::error::BrokerError;
use crate::listeners::{Opened, advertised};
use crate::shared::Shared;

/// How long to wait before a refused registration is repeated.
const REGISTRATION_PAUSE: Duration = Duration::from_millis(100);
/// How often a controller looks whether the others know where it listens.
const VOTER_UPDATE_PAUSE: Duration = Duration::from_secs(2);
/// How long to wait before looking again whether metadata has come.
const IMAGE_PAUSE: Duration = Duration::from_millis(2);

/// What this broker registers with. To be made once, as it names this run of the process.
pub(crate) fn registration(
    shared: &Shared,
    config: &BrokerConfig,
    opened: &[&Opened],
) -> BrokerRegistrationRequest {
    let logs = shared.replicas.logs();
    let mut log_dirs: Vec<Uuid> = logs
        .directories()
        .iter()
        .filter(|dir| dir.online)
        .map(|dir| dir.id)
        .collect();
    log_dirs.sort_unstable();
    let endpoints = advertised(config.advertised_listeners(), opened.iter().copied());
    BrokerRegistrationRequest {
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
    }
}

/// Registers with the controller, and waits until this broker knows the metadata up to there. What
/// it does not know of then is not in the cluster any more.
pub(crate) async fn register(
    shared: &Shared,
    request: BrokerRegistrationRequest,
) -> Result<(), BrokerError> {
    let limit_ms = shared
        .config()
        .int("initial.broker.registration.timeout.ms");
    let deadline =
        Instant::now() + Duration::from_millis(u64::try_from(limit_ms).unwrap_or_default());
    let epoch = loop {
        match shared.controller.register_broker(request.clone()).await {
            Ok(answer) => break answer.broker_epoch,
            Err(refused) if may_change(&refused) && Instant::now() < deadline => {
                info!(error = %refused, "not registered yet");
                sleep(REGISTRATION_PAUSE).await;
            }
            Err(refused) => return Err(refused.into()),
        }
    };
    shared.broker_epoch.store(epoch, Ordering::Release);
    while shared.image().offset() < epoch {
        sleep(IMAGE_PAUSE).await;
    }
    Ok(())
}

/// Whether to register again after this: no controller decides yet, or that of an earlier process
/// is still in force.
fn may_change(refused: &ApiError) -> bool {
    matches!(
        refused.code,
        ErrorCode::DuplicateBrokerRegistration
            | ErrorCode::NotController
            | ErrorCode::RequestTimedOut
    )
}

/// Waits until the controller lets clients see this broker, and this broker knows it. `request` is
/// what it has registered with.
pub(crate) async fn wait_until_unfenced(
    shared: &Shared,
    request: &BrokerRegistrationRequest,
) -> Result<(), BrokerError> {
    loop {
        match heartbeat(shared, Vec::new()).await {
            Ok(false) => break,
            Ok(true) => tokio::task::yield_now().await,
            Err(stale) if stale.code == ErrorCode::StaleBrokerEpoch => {
                warn!(error = %stale, "another process has registered with this broker's id");
                register(shared, request.clone()).await?;
            }
            Err(refused) if may_change(&refused) => {}
            Err(refused) => return Err(refused.into()),
        }
    }
    let known = |image: &MetadataImage| {
        let own = image.broker(shared.node_id);
        own.is_some_and(|own| own.epoch == shared.epoch() && !own.fenced)
    };
    while !known(&shared.image()) {
        sleep(IMAGE_PAUSE).await;
    }
    Ok(())
}

/// Tells the active controller where the one in this process listens and what it supports. One that
/// becomes active tells of itself.
pub(crate) async fn register_controller(shared: Arc<Shared>) {
    let Some(controller) = shared.controller.local() else {
        return;
    };
    let request = controller.registration().clone();
    let known = |image: &MetadataImage| {
        let controllers = image.cluster().controllers();
        let own = controllers.get(&request.controller_id);
        own.is_some_and(|own| own.incarnation_id == request.incarnation_id)
    };
    while !known(&shared.image()) {
        let told = shared.controller.register_controller(request.clone());
        if let Err(refused) = told.await
            && !may_change(&refused)
        {
            warn!(error = %refused, "this controller's address is not taken note of");
        }
        sleep(REGISTRATION_PAUSE).await;
    }
    // As a voter it may be known under the address that it had before it was restarted, or become
    // one later.
    loop {
        if let Err(refused) = shared.controller.update_voter().await {
            debug!(error = %refused, "this voter's address is not taken note of yet");
        }
        sleep(VOTER_UPDATE_PAUSE).await;
    }
}

/// Tells the controller that this broker lives; returns whether it is fenced.
async fn heartbeat(shared: &Shared, offline_log_dirs: Vec<Uuid>) -> Result<bool, ApiError> {
    let image = shared.image();
    let cordoned = cordoned(shared);
    let known = image.broker(shared.node_id);
    let known = known.and_then(|known| known.cordoned_log_dirs.as_deref());
    let request = BrokerHeartbeatRequest {
        broker_id: shared.node_id,
        broker_epoch: shared.epoch(),
        // What this broker has acted upon: whoever is told that it is caught up lets it serve.
        current_metadata_offset: shared.controller.published_offset(),
        offline_log_dirs,
        // One that was on its way when this broker began to leave, and is sent again.
        want_shut_down: shared.leaving.load(Ordering::Acquire),
        // Only news: a cluster that has never heard of cordoned directories need not hear of none.
        cordoned_log_dirs: (cordoned != known.unwrap_or_default()).then_some(cordoned),
        ..BrokerHeartbeatRequest::default()
    };
    let answer = shared.controller.broker_heartbeat(request).await?;
    Ok(answer.is_fenced)
}

/// The directories that get no new replicas, by id.
fn cordoned(shared: &Shared) -> Vec<Uuid> {
    let directories = shared.replicas.logs().directories();
    let cordoned = directories
        .iter()
        .filter(|dir| dir.online && dir.cordoned)
        .map(|dir| dir.id);
    let mut cordoned: Vec<Uuid> = cordoned.collect();
    cordoned.sort_unstable();
    cordoned
}

/// Tells the controller so every `broker.heartbeat.interval.ms`, and when the state of a log
/// directory changes, until the task is ended. `request` is what this broker has registered with.
pub(crate) async fn heartbeats(shared: Arc<Shared>, request: Arc<BrokerRegistrationRequest>) {
    let every = u64::try_from(shared.config().broker_heartbeat_interval_ms()).unwrap_or(2000);
    let mut ticks = interval(Duration::from_millis(every.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.directories_changed.notified() => {}
        }
        if shared.leaving.load(Ordering::Acquire) {
            return;
        }
        let directories = shared.replicas.logs().directories();
        let offline = directories
            .iter()
            .filter(|dir| !dir.online)
            .map(|dir| dir.id)
            .collect();
        match heartbeat(&shared, offline).await {
            Ok(_) => {}
            Err(failed) if failed.code == ErrorCode::StaleBrokerEpoch => {
                warn!(error = %failed, "another process has registered with this broker's id");
                register_again(&shared, &request).await;
            }
            Err(failed) => warn!(error = %failed, "a heartbeat was refused"),
        }
    }
}

/// Registers once more after another process has with this broker's id: that may have been an earlier
/// one of this broker, which is gone and whose request came late. Is it another broker, and lives, this
/// one is refused. (Kafka's goes on with an epoch that nobody takes any more.)
async fn register_again(shared: &Shared, request: &BrokerRegistrationRequest) {
    match shared.controller.register_broker(request.clone()).await {
        Ok(answer) => shared
            .broker_epoch
            .store(answer.broker_epoch, Ordering::Release),
        Err(refused) => warn!(error = %refused, "not registered again yet"),
    }
}

/// Looks for replicas that have fallen behind, until the task is ended.
pub(crate) async fn watch_in_sync_replicas(shared: Arc<Shared>) {
    let every = u64::try_from(shared.config().replica_lag_time_max_ms() / 2).unwrap_or(15_000);
    let mut ticks = interval(Duration::from_millis(every.max(1)));
    loop {
        ticks.tick().await;
        shared.replicas.check_in_sync_replicas();
    }
}

/// After an unclean shutdown the controller elects the replicas of this broker uncleanly: they are
/// all there is, and they have to say when they have recovered. Logs are recovered before this
/// broker registers, so that is now (KIP-704).
pub(crate) async fn complete_recovery(shared: &Shared) {
    let image = shared.image();
    let mut topics: BTreeMap<Uuid, Vec<PartitionData>> = BTreeMap::new();
    for topic in image.topics().iter() {
        for (index, partition) in topic.partitions() {
            let recovering = partition.leader_recovery_state == LeaderRecoveryState::Recovering;
            if partition.leader != shared.node_id || !recovering {
                continue;
            }
            let in_sync = partition.isr.iter().map(|id| BrokerState {
                broker_id: *id,
                broker_epoch: image.broker(*id).map_or(-1, |broker| broker.epoch),
                ..BrokerState::default()
            });
            topics.entry(topic.id()).or_default().push(PartitionData {
                partition_index: index,
                leader_epoch: partition.leader_epoch,
                new_isr_with_epochs: in_sync.collect(),
                leader_recovery_state: LeaderRecoveryState::Recovered.value(),
                partition_epoch: partition.partition_epoch,
                ..PartitionData::default()
            });
        }
    }
    if topics.is_empty() {
        return;
    }
    let topics = topics.into_iter().map(|(topic_id, partitions)| TopicData {
        topic_id,
        partitions,
        ..TopicData::default()
    });
    let request = AlterPartitionRequest {
        broker_id: shared.node_id,
        broker_epoch: shared.epoch(),
        topics: topics.collect(),
        ..AlterPartitionRequest::default()
    };
    if let Err(refused) = shared.controller.alter_partition(request).await {
        warn!(error = %refused, "the controller does not take note of recovered partitions");
    }
}

/// A fresh random id.
pub(crate) fn new_id(env: &Env) -> Uuid {
    loop {
        if let Some(id) = Uuid::from_random(env.rng.next_16_bytes()) {
            return id;
        }
    }
}
