//! Brokers: registration, heartbeats, fencing, the way out.

use std::collections::BTreeSet;
use std::time::Duration;

use klamm_metadata::{BrokerImage, MetadataVersion};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
    BrokerRegistrationResponse, UnregisterBrokerRequest, UnregisterBrokerResponse,
};
use klamm_protocol::metadata::{
    BrokerRegistrationChangeRecord, MetadataRecord, RegisterBrokerRecord, UnregisterBrokerRecord,
    register_broker_record,
};
use klamm_records::Uuid;

use super::elections::{
    Departure, leader_and_isr_updates, leaderless, leads_any, partitions_where,
};
use super::{ApiError, Context, Outcome, Sessions};

const FENCE: i8 = 1;
const UNFENCE: i8 = -1;

/// Registers a broker. The reply names its epoch, which all its requests carry from then on.
///
/// `same_process` says that broker and controller are one process: a session of an earlier process
/// then proves nothing, as that process is gone.
pub fn register_broker(
    context: &Context<'_>,
    sessions: &mut Sessions,
    request: &BrokerRegistrationRequest,
    same_process: bool,
    now: Duration,
) -> Result<Outcome<BrokerRegistrationResponse>, ApiError> {
    let existing = context.image.broker(request.broker_id);
    check_registration(context, request)?;
    let same_incarnation =
        existing.filter(|broker| broker.incarnation_id == request.incarnation_id);
    if existing.is_some()
        && same_incarnation.is_none()
        && !same_process
        && sessions.is_valid(request.broker_id, now)
    {
        return Err(ApiError::new(
            ErrorCode::DuplicateBrokerRegistration,
            "Another broker is registered with that broker id. If the broker was recently \
             restarted this should self-resolve once the heartbeat manager expires the broker's \
             session.",
        ));
    }
    let mut record = registration_record(context, request)?;
    let mut records = Vec::new();
    match same_incarnation {
        Some(broker) => {
            record.fenced = broker.fenced;
            record.in_controlled_shutdown = broker.in_controlled_shutdown;
            record.broker_epoch = broker.epoch;
            record
                .cordoned_log_dirs
                .clone_from(&broker.cordoned_log_dirs);
        }
        None => {
            if let Some(broker) = existing {
                let clean = request.previous_broker_epoch == broker.epoch;
                records = broker_returned(context, broker.id, clean);
            }
            record.broker_epoch = context.next_offset;
            sessions.end(request.broker_id);
        }
    }
    let broker_epoch = record.broker_epoch;
    if !record.fenced {
        sessions.touch(request.broker_id, -1, now);
    }
    records.push(record.into());
    let reply = BrokerRegistrationResponse {
        broker_epoch,
        ..Default::default()
    };
    Ok(Outcome { records, reply })
}

fn check_registration(
    context: &Context<'_>,
    request: &BrokerRegistrationRequest,
) -> Result<(), ApiError> {
    if request.cluster_id != *context.cluster_id {
        let message = format!(
            "Expected cluster ID {}, but got cluster ID {}",
            context.cluster_id, request.cluster_id
        );
        return Err(ApiError::new(ErrorCode::InconsistentClusterId, message));
    }
    if request.is_migrating_zk_broker {
        let message = "Controller does not support registering ZK brokers.";
        return Err(ApiError::new(ErrorCode::BrokerIdNotRegistered, message));
    }
    let invalid = |message: String| Err(ApiError::new(ErrorCode::InvalidRegistration, message));
    if context
        .image
        .metadata_version()
        .supports_directory_assignment()
    {
        let dirs = &request.log_dirs;
        if dirs.is_empty() {
            return invalid("No directories specified in request".to_owned());
        }
        if dirs.iter().any(Uuid::is_reserved) {
            return invalid("Reserved directory ID in request".to_owned());
        }
        if dirs.iter().collect::<BTreeSet<_>>().len() != dirs.len() {
            return invalid("Duplicate directory ID in request".to_owned());
        }
        for other in context
            .image
            .brokers()
            .filter(|broker| broker.id != request.broker_id)
        {
            if let Some(dir) = dirs.iter().find(|dir| other.log_dirs.contains(dir)) {
                let id = other.id;
                return invalid(format!(
                    "Broker {id} is already registered with directory {dir}"
                ));
            }
        }
    }
    if !request
        .features
        .iter()
        .any(|feature| feature.name == MetadataVersion::FEATURE_NAME)
    {
        return invalid("Request features do not contain 'metadata.version'".to_owned());
    }
    Ok(())
}

fn registration_record(
    context: &Context<'_>,
    request: &BrokerRegistrationRequest,
) -> Result<RegisterBrokerRecord, ApiError> {
    let mut finalized = context.image.features().finalized();
    let mut features = Vec::new();
    for feature in &request.features {
        let range = (feature.min_supported_version, feature.max_supported_version);
        let level = finalized.remove(&*feature.name).unwrap_or(0);
        check_feature(&feature.name, level, range)?;
        features.push(register_broker_record::BrokerFeature {
            name: feature.name.detached(),
            min_supported_version: range.0,
            max_supported_version: range.1,
            ..Default::default()
        });
    }
    // A feature that the broker does not name must be off.
    for (name, level) in finalized {
        check_feature(&name, level, (0, 0))?;
    }
    let endpoints =
        request
            .listeners
            .iter()
            .map(|listener| register_broker_record::BrokerEndpoint {
                name: listener.name.detached(),
                host: listener.host.detached(),
                port: listener.port,
                security_protocol: listener.security_protocol,
                ..Default::default()
            });
    let with_dirs = context
        .image
        .metadata_version()
        .supports_directory_assignment();
    Ok(RegisterBrokerRecord {
        broker_id: request.broker_id,
        incarnation_id: request.incarnation_id,
        end_points: endpoints.collect(),
        features,
        rack: request.rack.as_ref().map(|rack| rack.detached()),
        fenced: true,
        log_dirs: if with_dirs {
            request.log_dirs.clone()
        } else {
            Vec::new()
        },
        ..RegisterBrokerRecord::default()
    })
}

fn check_feature(name: &str, level: i16, (min, max): (i16, i16)) -> Result<(), ApiError> {
    if (min..=max).contains(&level) {
        return Ok(());
    }
    let message = format!(
        "Unable to register because the broker does not support finalized version {level} of \
         {name}. The broker wants a version between {min} and {max}, inclusive."
    );
    Err(ApiError::new(ErrorCode::UnsupportedVersion, message))
}

/// What follows from a broker being back as another process. After a clean shutdown its logs are
/// whole and it merely left; else it may lack what it had acknowledged (KIP-966).
fn broker_returned(context: &Context<'_>, broker: i32, clean: bool) -> Vec<MetadataRecord> {
    if clean || !context.image.elr_enabled() {
        return leave_isrs(context, broker);
    }
    let departure = Departure {
        uncleanly_shut_down: Some(broker),
        ..Departure::default()
    };
    let affected = partitions_where(context, |p| {
        p.isr.contains(&broker) || p.elr.contains(&broker)
    });
    leader_and_isr_updates(context, departure, affected)
}

fn leave_isrs(context: &Context<'_>, broker: i32) -> Vec<MetadataRecord> {
    let affected = partitions_where(context, |partition| partition.isr.contains(&broker));
    leader_and_isr_updates(context, Departure::remove(broker), affected)
}

/// What a broker may be next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fenced,
    Unfenced,
    ControlledShutdown,
    ShutdownNow,
}

/// Notes that a broker is alive, and lets it serve, keeps it from serving, or lets it go.
pub fn heartbeat(
    context: &Context<'_>,
    sessions: &mut Sessions,
    request: &BrokerHeartbeatRequest,
    now: Duration,
) -> Result<Outcome<BrokerHeartbeatResponse>, ApiError> {
    let id = request.broker_id;
    context.check_broker_epoch(id, request.broker_epoch)?;
    let Some(broker) = context.image.broker(id) else {
        return Err(ErrorCode::StaleBrokerEpoch.into());
    };
    let caught_up = request.current_metadata_offset >= broker.epoch;
    let current = match broker {
        broker if broker.fenced => State::Fenced,
        broker if broker.in_controlled_shutdown => State::ControlledShutdown,
        _ => State::Unfenced,
    };
    let next = next_state(context, sessions, current, request, caught_up);
    let mut records = Vec::new();
    if next != current {
        match next {
            State::Fenced | State::ShutdownNow => records = fence(context, broker),
            State::Unfenced => records = unfence(context, broker),
            State::ControlledShutdown => records = enter_shutdown(context, broker),
        }
    }
    let fenced = matches!(next, State::Fenced | State::ShutdownNow);
    if fenced {
        sessions.end(id);
    } else {
        sessions.touch(id, request.current_metadata_offset, now);
    }
    if next == State::ControlledShutdown {
        let written = i64::try_from(records.len()).unwrap_or(i64::MAX);
        sessions.set_shutdown_offset(id, context.next_offset + written - 1);
    }
    records.extend(directories_offline(
        context,
        broker,
        &request.offline_log_dirs,
    ));
    records.extend(directories_cordoned(
        context,
        broker,
        request.cordoned_log_dirs.as_deref(),
    ));
    let reply = BrokerHeartbeatResponse {
        is_caught_up: caught_up,
        is_fenced: fenced,
        should_shut_down: next == State::ShutdownNow,
        ..BrokerHeartbeatResponse::default()
    };
    Ok(Outcome { records, reply })
}

fn next_state(
    context: &Context<'_>,
    sessions: &Sessions,
    current: State,
    request: &BrokerHeartbeatRequest,
    caught_up: bool,
) -> State {
    let id = request.broker_id;
    match current {
        State::Fenced if request.want_shut_down => State::ShutdownNow,
        State::Fenced if !request.want_fence && caught_up => State::Unfenced,
        State::Fenced => State::Fenced,
        State::Unfenced if request.want_fence && request.want_shut_down => State::ShutdownNow,
        State::Unfenced if request.want_fence => State::Fenced,
        State::Unfenced if request.want_shut_down && leads_any(context, id) => {
            State::ControlledShutdown
        }
        State::Unfenced if request.want_shut_down => State::ShutdownNow,
        State::Unfenced => State::Unfenced,
        State::ControlledShutdown if leads_any(context, id) => State::ControlledShutdown,
        State::ControlledShutdown => {
            // It may go once all others know who leads instead.
            let lowest = sessions.lowest_offset(|broker| context.is_active(broker));
            let shutdown_offset = sessions.get(id).and_then(|session| session.shutdown_offset);
            if shutdown_offset.unwrap_or(-1) <= lowest {
                State::ShutdownNow
            } else {
                State::ControlledShutdown
            }
        }
        State::ShutdownNow => State::ShutdownNow,
    }
}

fn change(broker: &BrokerImage) -> BrokerRegistrationChangeRecord {
    BrokerRegistrationChangeRecord {
        broker_id: broker.id,
        broker_epoch: broker.epoch,
        ..BrokerRegistrationChangeRecord::default()
    }
}

/// Keeps a broker from leading, and takes it out of all ISRs.
pub fn fence(context: &Context<'_>, broker: &BrokerImage) -> Vec<MetadataRecord> {
    let mut records = leave_isrs(context, broker.id);
    records.push(
        BrokerRegistrationChangeRecord {
            fenced: FENCE,
            ..change(broker)
        }
        .into(),
    );
    records
}

fn unfence(context: &Context<'_>, broker: &BrokerImage) -> Vec<MetadataRecord> {
    let unfenced = BrokerRegistrationChangeRecord {
        fenced: UNFENCE,
        ..change(broker)
    };
    let mut records = vec![unfenced.into()];
    let departure = Departure {
        added: Some(broker.id),
        ..Departure::default()
    };
    records.extend(leader_and_isr_updates(
        context,
        departure,
        leaderless(context),
    ));
    records
}

fn enter_shutdown(context: &Context<'_>, broker: &BrokerImage) -> Vec<MetadataRecord> {
    let leaving = BrokerRegistrationChangeRecord {
        in_controlled_shutdown: 1,
        ..change(broker)
    };
    let mut records = vec![leaving.into()];
    records.extend(leave_isrs(context, broker.id));
    records
}

fn directories_offline(
    context: &Context<'_>,
    broker: &BrokerImage,
    offline: &[Uuid],
) -> Vec<MetadataRecord> {
    let is_offline = |dir: &Uuid| offline.contains(dir);
    if !broker.log_dirs.iter().any(is_offline) {
        return Vec::new();
    }
    let lost = partitions_where(context, |partition| {
        partition.replicas.contains(&broker.id) && is_offline(&partition.directory(broker.id))
    });
    let mut records = leader_and_isr_updates(context, Departure::remove(broker.id), lost);
    let log_dirs = broker
        .log_dirs
        .iter()
        .copied()
        .filter(|dir| !is_offline(dir))
        .collect();
    records.push(
        BrokerRegistrationChangeRecord {
            log_dirs,
            ..change(broker)
        }
        .into(),
    );
    records
}

fn directories_cordoned(
    context: &Context<'_>,
    broker: &BrokerImage,
    cordoned: Option<&[Uuid]>,
) -> Option<MetadataRecord> {
    let cordoned = cordoned?;
    if !context
        .image
        .metadata_version()
        .supports_cordoned_log_dirs()
        || broker.cordoned_log_dirs.as_deref() == Some(cordoned)
    {
        return None;
    }
    let cordoned_log_dirs = Some(cordoned.to_vec());
    Some(
        BrokerRegistrationChangeRecord {
            cordoned_log_dirs,
            ..change(broker)
        }
        .into(),
    )
}

/// Fences the broker that has been silent for longest, if one has been for too long.
pub fn fence_expired(
    context: &Context<'_>,
    sessions: &mut Sessions,
    now: Duration,
) -> Option<(i32, Vec<MetadataRecord>)> {
    let id = sessions.expired(now)?;
    sessions.end(id);
    let broker = context.image.broker(id).filter(|broker| !broker.fenced)?;
    Some((id, fence(context, broker)))
}

/// Fences a broker that is known to be gone, if the registration of `epoch` still serves.
pub fn fence_gone(
    context: &Context<'_>,
    sessions: &mut Sessions,
    (id, epoch): (i32, i64),
) -> Outcome<()> {
    let broker = context.image.broker(id);
    let broker = broker.filter(|broker| broker.epoch == epoch && !broker.fenced);
    let records = broker.map(|broker| {
        sessions.end(id);
        fence(context, broker)
    });
    Outcome {
        records: records.unwrap_or_default(),
        reply: (),
    }
}

/// Forgets a broker for good.
pub fn unregister_broker(
    context: &Context<'_>,
    sessions: &mut Sessions,
    request: &UnregisterBrokerRequest,
) -> Result<Outcome<UnregisterBrokerResponse>, ApiError> {
    let id = request.broker_id;
    let Some(broker) = context.image.broker(id) else {
        let message = format!("Broker ID {id} is not currently registered");
        return Err(ApiError::new(ErrorCode::BrokerIdNotRegistered, message));
    };
    let affected = partitions_where(context, |p| p.isr.contains(&id) || p.elr.contains(&id));
    // It won't be back with what it had: it is not eligible either.
    let departure = Departure {
        removed: Some(id),
        uncleanly_shut_down: Some(id),
        ..Departure::default()
    };
    let mut records = leader_and_isr_updates(context, departure, affected);
    let (broker_id, broker_epoch) = (id, broker.epoch);
    records.push(
        UnregisterBrokerRecord {
            broker_id,
            broker_epoch,
            ..Default::default()
        }
        .into(),
    );
    sessions.end(id);
    Ok(Outcome {
        records,
        reply: UnregisterBrokerResponse::default(),
    })
}
