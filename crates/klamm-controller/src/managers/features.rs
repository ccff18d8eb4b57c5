//! Feature levels, and the first records of a cluster.

use std::collections::BTreeMap;

use klamm_metadata::{ConfigResource, KRAFT_VERSION, MetadataVersion, ResourceType};
use klamm_protocol::messages::update_features_request::FeatureUpdateKey;
use klamm_protocol::messages::update_features_response::UpdatableFeatureResult;
use klamm_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use klamm_protocol::metadata::{
    BeginTransactionRecord, EndTransactionRecord, FeatureLevelRecord, MetadataRecord,
};
use klamm_protocol::{ByteStr, ErrorCode};

use super::configs::config_record;
use super::{ApiError, Context, MIN_INSYNC_REPLICAS, Outcome};

/// Eligible leader replicas (KIP-966).
pub const ELR_VERSION: &str = "eligible.leader.replicas.version";

/// A feature that this software knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Name.
    pub name: &'static str,
    /// Lowest supported level.
    pub min: i16,
    /// Highest supported level, which a new cluster starts with.
    pub max: i16,
}

/// All features that this software knows, with the levels it supports: those of Kafka 4.3.
pub const SUPPORTED: &[Feature] = &[
    Feature {
        name: MetadataVersion::FEATURE_NAME,
        min: 7,
        max: 30,
    },
    Feature {
        name: ELR_VERSION,
        min: 0,
        max: 1,
    },
    Feature {
        name: "group.version",
        min: 0,
        max: 1,
    },
    Feature {
        name: KRAFT_VERSION,
        min: 0,
        max: 1,
    },
    Feature {
        name: "share.version",
        min: 0,
        max: 1,
    },
    Feature {
        name: "streams.version",
        min: 0,
        max: 1,
    },
    Feature {
        name: "transaction.version",
        min: 0,
        max: 2,
    },
];

/// The levels of all features with which a new cluster of a release starts, as in Kafka; that of
/// `kraft.version` depends on the voters, not on the release.
pub fn levels_of_release(release: MetadataVersion) -> BTreeMap<String, i16> {
    let level = |name: &str| match name {
        MetadataVersion::FEATURE_NAME => release.level(),
        "group.version" => i16::from(release.level() >= 22),
        "transaction.version" if release.level() >= 24 => 2,
        ELR_VERSION => i16::from(release.level() >= 26),
        "share.version" => i16::from(release.level() >= 28),
        "streams.version" => i16::from(release.level() >= 29),
        _ => 0,
    };
    let features = SUPPORTED.iter().filter(|f| f.name != KRAFT_VERSION);
    features
        .map(|f| (f.name.to_owned(), level(f.name)))
        .collect()
}

/// What a controller commits when it begins to decide: the first records of a new cluster, or what
/// an old one lacks.
pub fn activation(context: &Context<'_>, levels: &BTreeMap<String, i16>) -> Vec<MetadataRecord> {
    if context
        .image
        .features()
        .level(MetadataVersion::FEATURE_NAME)
        == 0
    {
        bootstrap(context, levels)
    } else if context.image.elr_enabled() {
        elr_safety(context)
    } else {
        Vec::new()
    }
}

/// The records that a new cluster starts with: the level of each feature (`levels` in place of the
/// highest ones), and what those features need.
fn bootstrap(context: &Context<'_>, levels: &BTreeMap<String, i16>) -> Vec<MetadataRecord> {
    let level = |feature: &Feature| levels.get(feature.name).copied().unwrap_or(feature.max);
    let name = Some(ByteStr::from_static("Bootstrap records"));
    let mut records: Vec<MetadataRecord> = vec![
        BeginTransactionRecord {
            name,
            ..Default::default()
        }
        .into(),
    ];
    let features = SUPPORTED
        .iter()
        .filter(|feature| feature.name != KRAFT_VERSION);
    let on = features.filter(|feature| level(feature) > 0);
    records.extend(on.map(|feature| level_record(feature.name, level(feature))));
    if SUPPORTED
        .iter()
        .any(|feature| feature.name == ELR_VERSION && level(feature) > 0)
    {
        records.extend(elr_safety(context));
    }
    records.push(EndTransactionRecord::default().into());
    records
}

fn level_record(name: &str, feature_level: i16) -> MetadataRecord {
    FeatureLevelRecord {
        name: name.into(),
        feature_level,
        ..Default::default()
    }
    .into()
}

/// Eligible leaders are judged by `min.insync.replicas`, which must therefore be the same for the
/// whole cluster and never be left to the config files of single brokers.
fn elr_safety(context: &Context<'_>) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    let cluster = ConfigResource::cluster();
    if !context
        .image
        .config(&cluster)
        .contains_key(MIN_INSYNC_REPLICAS)
    {
        let default = context
            .schema
            .default_value(ResourceType::Topic, MIN_INSYNC_REPLICAS);
        let value = default.unwrap_or_else(|| "1".to_owned());
        records.push(config_record(&cluster, MIN_INSYNC_REPLICAS, Some(value)).into());
    }
    for (resource, configs) in context.image.configs().iter() {
        let single = resource.resource_type == ResourceType::Broker && !resource.name.is_empty();
        if single && configs.contains_key(MIN_INSYNC_REPLICAS) {
            records.push(config_record(resource, MIN_INSYNC_REPLICAS, None).into());
        }
    }
    records
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum UpgradeType {
    Upgrade,
    SafeDowngrade,
    UnsafeDowngrade,
}

/// Changes levels of features, all of them or none. `api_version` is that of the request: version 0
/// says otherwise whether a downgrade is meant.
pub fn update_features(
    context: &Context<'_>,
    request: &UpdateFeaturesRequest,
    api_version: i16,
) -> Outcome<UpdateFeaturesResponse> {
    let mut records = Vec::new();
    for update in &request.feature_updates {
        match update_feature(context, update, api_version) {
            Ok(new) => records.extend(new),
            Err(error) => return Outcome::reply(failed(&error)),
        }
    }
    if request.validate_only {
        records.clear();
    }
    let results = request
        .feature_updates
        .iter()
        .map(|update| UpdatableFeatureResult {
            feature: update.feature.clone(),
            ..UpdatableFeatureResult::default()
        });
    let reply = UpdateFeaturesResponse {
        results: results.collect(),
        ..Default::default()
    };
    Outcome { records, reply }
}

/// Whether a request asks for voters in the log (`kraft.version` 1). The quorum has to be asked then,
/// once [`update_features`] has found that nothing else is wrong with it.
pub fn asks_for_voters_in_log(request: &UpdateFeaturesRequest) -> bool {
    let mut updates = request.feature_updates.iter();
    updates.any(|update| &*update.feature == KRAFT_VERSION && update.max_version_level > 0)
}

/// The response that says which error let all updates fail.
pub fn failed(error: &ApiError) -> UpdateFeaturesResponse {
    let message = format!(
        "The update failed for all features since the following feature had an error: {}",
        error.message.as_deref().unwrap_or(error.code.message())
    );
    UpdateFeaturesResponse {
        error_code: error.code.code(),
        error_message: Some(message.into()),
        ..UpdateFeaturesResponse::default()
    }
}

fn update_feature(
    context: &Context<'_>,
    update: &FeatureUpdateKey,
    api_version: i16,
) -> Result<Vec<MetadataRecord>, ApiError> {
    let (name, level) = (&*update.feature, update.max_version_level);
    let invalid = |reason: &str| {
        let message = format!("Invalid update version {level} for feature {name}. {reason}");
        ApiError::new(ErrorCode::InvalidUpdateVersion, message)
    };
    let upgrade_type = match (api_version, update.upgrade_type, update.allow_downgrade) {
        (0, _, true) => UpgradeType::SafeDowngrade,
        (0, _, false) | (_, 1, _) => UpgradeType::Upgrade,
        (_, 2, _) => UpgradeType::SafeDowngrade,
        (_, 3, _) => UpgradeType::UnsafeDowngrade,
        _ => {
            return Err(invalid(
                "The controller does not support the given upgrade type.",
            ));
        }
    };
    if level < 0 {
        return Err(invalid("A feature version cannot be less than 0."));
    }
    let current = context.image.features().level(name);
    check_supported(context, name, level).map_err(|reason| invalid(&reason))?;
    if level < current && upgrade_type == UpgradeType::Upgrade {
        return Err(invalid(
            "Can't downgrade the version of this feature without setting the upgrade type to \
             either safe or unsafe downgrade.",
        ));
    }
    if level > current && upgrade_type != UpgradeType::Upgrade {
        return Err(invalid("Can't downgrade to a newer version."));
    }
    match name {
        MetadataVersion::FEATURE_NAME => {
            check_metadata_version(context, level, upgrade_type)?;
            Ok(vec![level_record(name, level)])
        }
        KRAFT_VERSION if level < current => {
            Err(invalid("Can't downgrade the version of this feature."))
        }
        // No record says so: the quorum tells of its version itself, before the other features.
        KRAFT_VERSION => Ok(Vec::new()),
        ELR_VERSION if level > 0 => {
            if !context.image.metadata_version().supports_elr() {
                let reason = format!(
                    "{name} could not be set to {level} because it depends on metadata.version \
                     level 23"
                );
                return Err(invalid(&reason));
            }
            let mut records = vec![level_record(name, level)];
            records.extend(elr_safety(context));
            Ok(records)
        }
        _ => Ok(vec![level_record(name, level)]),
    }
}

/// Whether this controller, all brokers and all other controllers support a level.
fn check_supported(context: &Context<'_>, name: &str, level: i16) -> Result<(), String> {
    let check = |who: String, range: Option<(i16, i16)>| match range {
        Some((min, max)) if (min..=max).contains(&level) => Ok(()),
        // A feature that is not known is off.
        None if level == 0 => Ok(()),
        Some((min, max)) if max > 0 => Err(format!("{who} only supports versions {min}-{max}")),
        _ => Err(format!("{who} does not support this feature.")),
    };
    let local = SUPPORTED.iter().find(|feature| feature.name == name);
    let range = local.map(|feature| (feature.min, feature.max));
    check(format!("Local controller {}", context.node_id), range)?;
    if local.is_none() {
        return Err(format!("Feature {name} not found."));
    }
    for broker in context.image.brokers() {
        check(
            format!("Broker {}", broker.id),
            broker.features.get(name).copied(),
        )?;
    }
    for controller in context.image.cluster().controllers().values() {
        if controller.id != context.node_id {
            let range = controller.features.get(name).copied();
            check(format!("Controller {}", controller.id), range)?;
        }
    }
    Ok(())
}

fn check_metadata_version(
    context: &Context<'_>,
    level: i16,
    upgrade_type: UpgradeType,
) -> Result<(), ApiError> {
    let refuse = |message: String| Err(ApiError::new(ErrorCode::InvalidUpdateVersion, message));
    let current = context.image.metadata_version();
    let Some(wanted) = MetadataVersion::from_level(level) else {
        return refuse(format!(
            "Invalid metadata.version {level}. Unknown metadata.version."
        ));
    };
    if wanted >= current || !current.loses_metadata_on_downgrade_to(wanted) {
        return Ok(());
    }
    let reason = match upgrade_type {
        UpgradeType::UnsafeDowngrade => {
            "Unsafe metadata downgrade is not supported in this version."
        }
        _ => {
            "Refusing to perform the requested downgrade because it might delete metadata \
             information."
        }
    };
    let (from, to) = (current.level(), level);
    refuse(format!(
        "Unsupported metadata.version downgrade from {from} to {to}. {reason}"
    ))
}
