//! What a node tells of itself, and how far it says that it is.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use klamm_config::BrokerConfig;
use klamm_controller::{
    Controller, ControllerConfig, ControllerListener, KafkaConfigs, MetadataPublisher,
    MetadataUpdate,
};
use klamm_env::Env;
use klamm_protocol::messages::ControllerRegistrationRequest;
use klamm_records::Uuid;
use tokio::sync::Semaphore;

async fn start(dir: &Path) -> Controller {
    let broker = BrokerConfig::from_pairs([("listeners", "PLAINTEXT://:9092")]).unwrap();
    let schema = Arc::new(KafkaConfigs::new(broker));
    let config = ControllerConfig {
        listeners: vec![ControllerListener {
            name: "CONTROLLER".to_owned(),
            host: "localhost".to_owned(),
            port: 9093,
            security_protocol: 0,
        }],
        ..ControllerConfig::new(1, dir, Uuid::ONE, schema)
    };
    Controller::start(config, Env::os()).await.unwrap()
}

#[tokio::test]
async fn a_controller_that_is_known_is_not_registered_again() {
    let dir = tempfile::tempdir().unwrap();
    let controller = start(dir.path()).await;
    let own = controller.registration().clone();
    // Whoever is first, the controller itself or this.
    controller.register_controller(own.clone()).await.unwrap();
    let registered = controller.image();
    let known = &registered.cluster().controllers()[&1];
    assert_eq!(known.incarnation_id, own.incarnation_id);
    controller.register_controller(own.clone()).await.unwrap();
    assert_eq!(controller.image().offset(), registered.offset());
    // What differs is news.
    let mut moved = own.clone();
    moved.listeners[0].port += 1;
    let mut able = own.clone();
    able.features[0].max_supported_version += 1;
    let restarted = ControllerRegistrationRequest {
        incarnation_id: Uuid::from_bytes([7; 16]),
        ..own
    };
    for (news, request) in (1..).zip([moved, able, restarted]) {
        controller.register_controller(request).await.unwrap();
        assert_eq!(controller.image().offset(), registered.offset() + news);
    }
    controller.shutdown().await.unwrap();
}

/// Takes the changes that it is allowed to.
#[derive(Debug)]
struct Slow(Arc<Semaphore>);

impl MetadataPublisher for Slow {
    fn publish<'a>(
        &'a self,
        _update: &'a MetadataUpdate,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async { self.0.acquire().await.unwrap().forget() })
    }
}

#[tokio::test]
async fn what_is_published_is_what_all_were_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let controller = start(dir.path()).await;
    let own = controller.registration().clone();
    controller.register_controller(own.clone()).await.unwrap();
    let told = controller.image().offset();
    assert_eq!(controller.published_offset(), told);
    let allowed = Arc::new(Semaphore::new(1));
    controller.subscribe(Arc::new(Slow(allowed.clone()))).await;
    let restarted = ControllerRegistrationRequest {
        incarnation_id: Uuid::from_bytes([7; 16]),
        ..own
    };
    let there = async {
        while controller.image().offset() == told {
            tokio::task::yield_now().await;
        }
        assert_eq!(controller.published_offset(), told, "nobody took it yet");
        allowed.add_permits(1);
    };
    let (answer, ()) = tokio::join!(controller.register_controller(restarted), there);
    answer.unwrap();
    assert_eq!(controller.published_offset(), told + 1);
    allowed.close();
}
