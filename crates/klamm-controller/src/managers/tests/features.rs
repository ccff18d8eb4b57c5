use klamm_metadata::ConfigResource;
use klamm_protocol::messages::UpdateFeaturesRequest;
use klamm_protocol::messages::update_features_request::FeatureUpdateKey;

use super::*;
use crate::managers::features;

const UPGRADE: i8 = 1;
const SAFE: i8 = 2;
const UNSAFE: i8 = 3;

fn update(cluster: &mut Cluster, name: &str, level: i16, upgrade_type: i8) -> Result<(), String> {
    let update = FeatureUpdateKey {
        feature: name.into(),
        max_version_level: level,
        upgrade_type,
        ..Default::default()
    };
    let request = UpdateFeaturesRequest {
        feature_updates: vec![update],
        ..Default::default()
    };
    let outcome = features::update_features(&cluster.context(), &request, 2);
    let reply = cluster.commit(outcome);
    let prefix = "The update failed for all features since the following feature had an error: ";
    result_of(reply.error_code, &reply.error_message).map_err(|(code, message)| {
        assert_eq!(code, ErrorCode::InvalidUpdateVersion);
        message.strip_prefix(prefix).unwrap().to_owned()
    })
}

#[test]
fn a_new_cluster_starts_like_kafkas() {
    let cluster = Cluster::empty();
    let image = &cluster.image;
    assert_eq!(image.metadata_version().level(), 30);
    assert_eq!(image.features().level("transaction.version"), 2);
    assert!(image.elr_enabled());
    assert_eq!(
        image.config(&ConfigResource::cluster())["min.insync.replicas"],
        "1"
    );
    // Nothing is missing the next time.
    assert!(features::activation(&cluster.context(), &Default::default()).is_empty());
}

#[test]
fn levels_go_up_and_down_within_what_is_supported() {
    let mut cluster = Cluster::with_brokers(1);
    assert_eq!(update(&mut cluster, "group.version", 0, SAFE), Ok(()));
    assert_eq!(cluster.image.features().level("group.version"), 0);
    assert_eq!(update(&mut cluster, "group.version", 1, UPGRADE), Ok(()));
    assert_eq!(update(&mut cluster, "transaction.version", 1, SAFE), Ok(()));
    assert_eq!(
        update(&mut cluster, "metadata.version", 30, UPGRADE),
        Ok(())
    );
    assert_eq!(update(&mut cluster, features::ELR_VERSION, 0, SAFE), Ok(()));
    assert!(!cluster.image.elr_enabled());
    assert_eq!(
        update(&mut cluster, features::ELR_VERSION, 1, UPGRADE),
        Ok(())
    );
}

#[test]
fn refuses_levels_as_kafka_does() {
    let mut cluster = Cluster::with_brokers(1);
    let mut fails = |name, level, kind| update(&mut cluster, name, level, kind).unwrap_err();
    assert_eq!(
        fails("metadata.version", 31, UPGRADE),
        "Invalid update version 31 for feature metadata.version. Local controller 1 only supports \
         versions 7-30"
    );
    assert_eq!(
        fails("metadata.version", 29, SAFE),
        "Unsupported metadata.version downgrade from 30 to 29. Refusing to perform the requested \
         downgrade because it might delete metadata information."
    );
    assert_eq!(
        fails("metadata.version", 25, UNSAFE),
        "Unsupported metadata.version downgrade from 30 to 25. Unsafe metadata downgrade is not \
         supported in this version."
    );
    assert_eq!(
        fails("transaction.version", 1, UPGRADE),
        "Invalid update version 1 for feature transaction.version. Can't downgrade the version of \
         this feature without setting the upgrade type to either safe or unsafe downgrade."
    );
    assert_eq!(
        fails("zz", 1, UPGRADE),
        "Invalid update version 1 for feature zz. Local controller 1 does not support this feature."
    );
    assert_eq!(
        fails("zz", 0, SAFE),
        "Invalid update version 0 for feature zz. Feature zz not found."
    );
    assert_eq!(
        fails("group.version", 1, 9),
        "Invalid update version 1 for feature group.version. The controller does not support the \
         given upgrade type."
    );
    assert_eq!(
        fails("group.version", -1, SAFE),
        "Invalid update version -1 for feature group.version. A feature version cannot be less \
         than 0."
    );
}

#[test]
fn kraft_version_is_left_to_the_quorum() {
    let cluster = Cluster::with_brokers(1);
    let asked = |level| {
        let update = FeatureUpdateKey {
            feature: "kraft.version".into(),
            max_version_level: level,
            upgrade_type: UPGRADE,
            ..Default::default()
        };
        let request = UpdateFeaturesRequest {
            feature_updates: vec![update],
            ..Default::default()
        };
        let outcome = features::update_features(&cluster.context(), &request, 1);
        assert!(outcome.records.is_empty());
        let asks = features::asks_for_voters_in_log(&request);
        (outcome.reply.error_code, asks)
    };
    assert_eq!(asked(0), (0, false));
    assert_eq!(asked(1), (0, true));
    assert_eq!(asked(2).0, ErrorCode::InvalidUpdateVersion.code());
}

#[test]
fn kraft_version_does_not_go_back() {
    let mut cluster = Cluster::with_brokers(1);
    let mut delta = MetadataDelta::new(Arc::clone(&cluster.image));
    delta.set_kraft_version(1);
    cluster.image = delta.finish(cluster.image.provenance());
    assert_eq!(update(&mut cluster, "kraft.version", 1, UPGRADE), Ok(()));
    let message = update(&mut cluster, "kraft.version", 0, SAFE).unwrap_err();
    assert!(
        message.ends_with("Can't downgrade the version of this feature."),
        "{message}"
    );
}

#[test]
fn a_broker_that_lags_behind_holds_a_feature_back() {
    let mut cluster = Cluster::with_brokers(1);
    update(&mut cluster, "share.version", 0, SAFE).unwrap();
    let mut old = registration(2, 1);
    old.features
        .retain(|feature| feature.name != "share.version");
    cluster.try_register(&old).unwrap();
    let message = update(&mut cluster, "share.version", 1, UPGRADE).unwrap_err();
    assert!(
        message.ends_with("Broker 2 does not support this feature."),
        "{message}"
    );
}

#[test]
fn one_that_fails_fails_all() {
    let mut cluster = Cluster::with_brokers(1);
    let update = |feature: &str, max_version_level| FeatureUpdateKey {
        feature: feature.into(),
        max_version_level,
        upgrade_type: SAFE,
        ..Default::default()
    };
    let feature_updates = vec![update("group.version", 0), update("metadata.version", 29)];
    let request = UpdateFeaturesRequest {
        feature_updates,
        ..Default::default()
    };
    let outcome = features::update_features(&cluster.context(), &request, 1);
    assert!(outcome.records.is_empty());
    cluster.commit(outcome);
    assert_eq!(cluster.image.features().level("group.version"), 1);
}
