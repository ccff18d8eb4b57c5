//! A controller that is a quorum by itself, with bugs in it and with requests that have no time.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use klamm_config::BrokerConfig;
use klamm_controller::{Controller, ControllerConfig, KafkaConfigs};
use klamm_env::{Clock, Env};
use klamm_metadata::ConfigResource;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use klamm_protocol::messages::update_features_request::FeatureUpdateKey;
use klamm_protocol::messages::{IncrementalAlterConfigsRequest, UpdateFeaturesRequest};
use klamm_records::Uuid;

use self::faulty::{FATAL_VALUE, Faulty};

mod faulty;

/// A clock that breaks.
#[derive(Debug)]
struct Watch {
    clock: Arc<dyn Clock>,
    broken: AtomicBool,
}

impl Clock for Watch {
    fn wall_ms(&self) -> i64 {
        self.clock.wall_ms()
    }

    fn monotonic(&self) -> Duration {
        assert!(!self.broken.load(Ordering::Relaxed), "a fault that stays");
        self.clock.monotonic()
    }
}

async fn start(dir: &Path) -> (Controller, Arc<Watch>) {
    let broker = BrokerConfig::from_pairs([("listeners", "PLAINTEXT://:9092")]).unwrap();
    let schema = Faulty(KafkaConfigs::new(broker));
    let config = ControllerConfig::new(1, dir, Uuid::ONE, Arc::new(schema));
    let env = Env::os();
    let watch = Arc::new(Watch {
        clock: env.clock,
        broken: AtomicBool::new(false),
    });
    let env = Env {
        clock: watch.clone(),
        ..Env::os()
    };
    (Controller::start(config, env).await.unwrap(), watch)
}

fn set(value: &str) -> IncrementalAlterConfigsRequest {
    IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 4,
            resource_name: "".into(),
            configs: vec![AlterableConfig {
                name: "log.retention.ms".into(),
                config_operation: 0,
                value: Some(value.into()),
                ..AlterableConfig::default()
            }],
            ..AlterConfigsResource::default()
        }],
        ..IncrementalAlterConfigsRequest::default()
    }
}

fn known(controller: &Controller) -> Option<String> {
    let image = controller.image();
    let configs = image.config(&ConfigResource::cluster());
    configs.get("log.retention.ms").cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_panics_is_refused_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, _) = start(dir.path()).await;
    let answered = controller.incremental_alter_configs(set("1000")).await;
    answered.unwrap();
    for panics in 1..=3 {
        let refused = controller.incremental_alter_configs(set(FATAL_VALUE)).await;
        // Not one of those after which it would be asked again.
        assert_eq!(refused.unwrap_err().code, ErrorCode::UnknownServerError);
        let value = format!("100{panics}");
        let answered = controller.incremental_alter_configs(set(&value)).await;
        answered.unwrap();
        assert_eq!(known(&controller), Some(value));
        assert_eq!(controller.panics(), panics);
    }
    controller.shutdown().await.unwrap();
    let (controller, _) = start(dir.path()).await;
    assert_eq!(known(&controller).as_deref(), Some("1003"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_go_on_says_so_and_decides_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, watch) = start(dir.path()).await;
    watch.broken.store(true, Ordering::Relaxed);
    let fatal = controller.incremental_alter_configs(set("1000")).await;
    assert_eq!(fatal.unwrap_err().code, ErrorCode::UnknownServerError);
    let why = controller.failed().await;
    assert!(why.contains("a fault that stays"), "{why}");
    let refused = controller.incremental_alter_configs(set("1000")).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::NotController);
    assert!(!controller.is_active());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_time_left_is_not_decided() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, _) = start(dir.path()).await;
    let off = |timeout_ms| UpdateFeaturesRequest {
        timeout_ms,
        feature_updates: vec![FeatureUpdateKey {
            feature: "share.version".into(),
            max_version_level: 0,
            upgrade_type: 2,
            ..FeatureUpdateKey::default()
        }],
        ..UpdateFeaturesRequest::default()
    };
    let late = controller.update_features(off(0), 1).await;
    assert_eq!(late.unwrap_err().code, ErrorCode::RequestTimedOut);
    // Behind it in the queue.
    let answered = controller.incremental_alter_configs(set("1000")).await;
    answered.unwrap();
    assert_eq!(controller.image().features().level("share.version"), 1);
    controller.update_features(off(60_000), 1).await.unwrap();
    assert_eq!(controller.image().features().level("share.version"), 0);
}
