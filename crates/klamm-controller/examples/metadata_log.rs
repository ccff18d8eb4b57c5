//! Starts a controller in a directory, registers a broker, makes topics, and prints how long it
//! took: `cargo run --release -p klamm-controller --example metadata_log -- DIR [TOPICS]`.

use std::sync::Arc;
use std::time::Instant;

use klamm_config::BrokerConfig;
use klamm_controller::{
    Controller, ControllerConfig, ControllerListener, Describable, KafkaConfigs,
};
use klamm_env::Env;
use klamm_log::meta_properties::MetaProperties;
use klamm_protocol::messages::broker_registration_request::{Feature, Listener};
use klamm_protocol::messages::create_topics_request::CreatableTopic;
use klamm_protocol::messages::{
    BrokerHeartbeatRequest, BrokerRegistrationRequest, CreateTopicsRequest,
};
use klamm_records::Uuid;

#[expect(clippy::disallowed_methods, reason = "a program that measures itself")]
fn resident_kb() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.unwrap_or_default()
        .split_whitespace()
        .nth(1)
        .unwrap_or("?")
        .to_owned()
}

#[tokio::main]
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program that measures itself and tells"
)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("which directory?")?;
    let topics: usize = args.next().unwrap_or_else(|| "3".to_owned()).parse()?;
    // A directory that Kafka formatted says what it is.
    let formatted = MetaProperties::read(&*Env::os().fs, dir.as_ref())?;
    let directory_id = formatted
        .and_then(|properties| properties.directory_id)
        .unwrap_or(Uuid::from_bytes([9; 16]));
    let broker = BrokerConfig::from_pairs([
        ("node.id", "1"),
        ("process.roles", "broker,controller"),
        ("controller.quorum.voters", "1@localhost:9093"),
        ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
        ("controller.listener.names", "CONTROLLER"),
    ])?;
    let schema = Arc::new(KafkaConfigs::new(broker));
    let listener = ControllerListener {
        name: "CONTROLLER".to_owned(),
        host: "localhost".to_owned(),
        port: 9093,
        security_protocol: 0,
    };
    let config = ControllerConfig {
        listeners: vec![listener],
        ..ControllerConfig::new(1, &dir, directory_id, schema)
    };
    let before = resident_kb();
    let start = Instant::now();
    let controller = Controller::start(config, Env::os()).await?;
    let started = start.elapsed();

    let supported = klamm_controller::managers::features::SUPPORTED;
    let feature = |f: &klamm_controller::managers::features::Feature| Feature {
        name: f.name.into(),
        min_supported_version: f.min,
        max_supported_version: f.max,
        ..Feature::default()
    };
    let registration = BrokerRegistrationRequest {
        broker_id: 1,
        cluster_id: controller.cluster_id().into(),
        incarnation_id: Uuid::from_bytes(Env::os().rng.next_16_bytes()),
        listeners: vec![Listener {
            name: "PLAINTEXT".into(),
            host: "localhost".into(),
            port: 9092,
            ..Listener::default()
        }],
        features: supported.iter().map(feature).collect(),
        log_dirs: vec![directory_id],
        ..BrokerRegistrationRequest::default()
    };
    let broker_epoch = controller
        .register_broker(registration, true)
        .await?
        .broker_epoch;
    let beat = BrokerHeartbeatRequest {
        broker_id: 1,
        broker_epoch,
        current_metadata_offset: controller.image().offset(),
        ..BrokerHeartbeatRequest::default()
    };
    controller.broker_heartbeat(beat).await?;
    let joined = start.elapsed();

    let first = controller.image().topics().len();
    for n in first..first + topics {
        let topic = CreatableTopic {
            name: format!("topic-{n}").into(),
            num_partitions: 3,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..Default::default()
        };
        let response = controller.create_topics(request, Describable::All).await?;
        assert_eq!(response.topics[0].error_code, 0, "{response:?}");
    }
    let made = start.elapsed() - joined;
    println!(
        "started in {started:?}, broker in after {joined:?}, {topics} topics in {made:?}, memory \
         {before} -> {} kB, {} topics in all",
        resident_kb(),
        controller.image().topics().len()
    );
    controller.shutdown().await?;
    Ok(())
}
