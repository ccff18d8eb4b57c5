//! Topics that come into being because somebody needs them: auto creation, and the internal topics
//! of the coordinators.

use std::time::Duration;

use klamm_protocol::messages::CreateTopicsRequest;
use klamm_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use klamm_protocol::{ByteStr, ErrorCode, topic_name};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::shared::Shared;

/// How long a topic may take from the controller's decision to this broker.
const KNOWN_MAX: Duration = Duration::from_millis(500);
/// How long to wait before looking again.
const KNOWN_PAUSE: Duration = Duration::from_millis(2);

/// Creates those of `names` that may be created: internal topics always, others if
/// `auto.create.topics.enable` says so. Returns whether anything may have changed.
///
/// Kafka creates them in the background and lets the client ask again; here the controller answers
/// in well under a millisecond, so the client is spared the round trip.
pub(crate) async fn create_missing(broker: &Shared, names: &[&str]) -> bool {
    let config = broker.config();
    let auto = config.boolean("auto.create.topics.enable");
    let mut topics: Vec<CreatableTopic> = Vec::new();
    for name in names {
        let wanted = if *name == topic_name::CONSUMER_OFFSETS {
            consumer_offsets(broker)
        } else if *name == topic_name::TRANSACTION_STATE {
            transaction_state(broker)
        } else if *name == topic_name::SHARE_GROUP_STATE {
            share_group_state(broker)
        } else if auto && !topic_name::is_internal(name) && topic_name::validate(name).is_ok() {
            plain(name)
        } else {
            continue;
        };
        if topics.iter().all(|topic| topic.name != wanted.name) {
            topics.push(wanted);
        }
    }
    if topics.is_empty() {
        return false;
    }
    let timeout_ms = config.int("request.timeout.ms");
    let request = CreateTopicsRequest {
        topics,
        timeout_ms,
        ..CreateTopicsRequest::default()
    };
    let response = match broker.controller.create_topics(request).await {
        Ok(response) => response,
        Err(refused) => {
            warn!(error = %refused, "cannot create topics automatically");
            return false;
        }
    };
    for topic in &response.topics {
        match ErrorCode::from_code(topic.error_code) {
            Some(ErrorCode::None) => debug!(topic = %topic.name, "created automatically"),
            Some(ErrorCode::TopicAlreadyExists) => {}
            error => {
                let reason = topic.error_message.as_deref().unwrap_or_default();
                warn!(topic = %topic.name, ?error, reason, "cannot create automatically");
                continue;
            }
        }
        wait_until_known(broker, &topic.name).await;
    }
    true
}

/// Waits until this broker knows of a topic: where the controller is elsewhere, its answer may be
/// ahead of the metadata. A client that is told too early asks again.
async fn wait_until_known(broker: &Shared, topic: &str) {
    let deadline = Instant::now() + KNOWN_MAX;
    while broker.image().topic(topic).is_none() && Instant::now() < deadline {
        sleep(KNOWN_PAUSE).await;
    }
}

fn plain(name: &str) -> CreatableTopic {
    CreatableTopic {
        name: name.into(),
        num_partitions: -1,
        replication_factor: -1,
        ..CreatableTopic::default()
    }
}

fn consumer_offsets(broker: &Shared) -> CreatableTopic {
    let config = broker.config();
    CreatableTopic {
        name: topic_name::CONSUMER_OFFSETS.into(),
        num_partitions: config.int("offsets.topic.num.partitions"),
        replication_factor: internal_replication(broker, "offsets.topic.replication.factor"),
        configs: vec![
            option("cleanup.policy", "compact"),
            option("compression.type", "producer"),
            option("segment.bytes", config.int("offsets.topic.segment.bytes")),
        ],
        ..CreatableTopic::default()
    }
}

fn transaction_state(broker: &Shared) -> CreatableTopic {
    let config = broker.config();
    CreatableTopic {
        name: topic_name::TRANSACTION_STATE.into(),
        num_partitions: config.transaction_state_log_num_partitions(),
        replication_factor: internal_replication(
            broker,
            "transaction.state.log.replication.factor",
        ),
        configs: vec![
            option("unclean.leader.election.enable", "false"),
            option("compression.type", "uncompressed"),
            option("cleanup.policy", "compact"),
            option(
                "min.insync.replicas",
                config.transaction_state_log_min_isr(),
            ),
            option(
                "segment.bytes",
                config.transaction_state_log_segment_bytes(),
            ),
        ],
        ..CreatableTopic::default()
    }
}

fn share_group_state(broker: &Shared) -> CreatableTopic {
    let config = broker.config();
    CreatableTopic {
        name: topic_name::SHARE_GROUP_STATE.into(),
        num_partitions: config.share_coordinator_state_topic_num_partitions(),
        replication_factor: internal_replication(
            broker,
            "share.coordinator.state.topic.replication.factor",
        ),
        configs: vec![
            option("cleanup.policy", "delete"),
            option("compression.type", "producer"),
            option(
                "segment.bytes",
                config.share_coordinator_state_topic_segment_bytes(),
            ),
            option(
                "min.insync.replicas",
                config.share_coordinator_state_topic_min_isr(),
            ),
            option("retention.ms", -1),
        ],
        ..CreatableTopic::default()
    }
}

fn option(name: &str, value: impl ToString) -> CreatableTopicConfig {
    CreatableTopicConfig {
        name: name.into(),
        value: Some(ByteStr::from(value.to_string())),
        ..CreatableTopicConfig::default()
    }
}

/// The replication factor of an internal topic. Kafka's default of 3 keeps groups from ever working
/// on a cluster of one or two brokers, which everybody therefore sets to 1 by hand; where nobody
/// has set it, there are as many replicas as there are brokers, at most the default.
fn internal_replication(broker: &Shared, name: &str) -> i16 {
    let config = broker.config();
    let wanted = i16::try_from(config.int(name)).unwrap_or(i16::MAX);
    if config.is_set(name) {
        return wanted;
    }
    let alive = broker.image().cluster().alive_brokers().count();
    wanted.min(i16::try_from(alive).unwrap_or(i16::MAX).max(1))
}
