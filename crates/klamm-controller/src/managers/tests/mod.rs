//! The managers against an image that tests build up with the managers' own records.

mod brokers;
mod configs;
mod elections;
mod features;
mod reassignments;
mod security;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use klamm_config::BrokerConfig;
use klamm_env::SplitMix64;
use klamm_metadata::{MetadataDelta, MetadataImage, PartitionImage, Provenance};
use klamm_protocol::messages::broker_registration_request::{Feature, Listener};
use klamm_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use klamm_protocol::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest, CreateTopicsRequest,
};
use klamm_protocol::metadata::MetadataRecord;
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

use super::{ApiError, Context, Outcome, Sessions, Settings, brokers as broker_manager};
use crate::schema::KafkaConfigs;

const NODE_ID: i32 = 1;
const CLUSTER_ID: &str = "cluster";
const SESSION: Duration = Duration::from_secs(9);

/// A cluster whose metadata only the managers change.
struct Cluster {
    image: Arc<MetadataImage>,
    sessions: Sessions,
    settings: Settings,
    schema: KafkaConfigs,
    rng: SplitMix64,
    now: Duration,
}

impl Cluster {
    /// A new cluster without brokers.
    fn empty() -> Self {
        let config = BrokerConfig::from_pairs([
            ("node.id", "1"),
            ("process.roles", "broker,controller"),
            ("controller.quorum.voters", "1@localhost:9093"),
            ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
            ("controller.listener.names", "CONTROLLER"),
        ]);
        let mut cluster = Cluster {
            image: Arc::default(),
            sessions: Sessions::new(SESSION),
            settings: Settings::default(),
            schema: KafkaConfigs::new(config.unwrap()),
            rng: SplitMix64::new(7),
            now: Duration::from_secs(100),
        };
        let records = super::features::activation(&cluster.context(), &Default::default());
        cluster.replay(&records);
        cluster
    }

    /// A new cluster with brokers 1 to `count`, all alive, each in a rack of its own.
    fn with_brokers(count: i32) -> Self {
        let mut cluster = Cluster::empty();
        (1..=count).for_each(|id| cluster.join(id, 1));
        cluster
    }

    fn context(&self) -> Context<'_> {
        Context {
            image: &self.image,
            node_id: NODE_ID,
            cluster_id: CLUSTER_ID,
            settings: &self.settings,
            schema: &self.schema,
            rng: &self.rng,
            next_offset: self.image.offset() + 1,
        }
    }

    fn replay(&mut self, records: &[MetadataRecord]) {
        let mut delta = MetadataDelta::new(Arc::clone(&self.image));
        for record in records {
            delta.replay(record).unwrap();
            // Every record a manager makes can be written.
            record
                .encode_value(delta.image().metadata_version().record_version(record))
                .unwrap();
        }
        let offset = self.image.offset() + records.len() as i64;
        self.image = delta.finish(Provenance {
            offset,
            epoch: 1,
            timestamp_ms: 0,
        });
    }

    /// Replays an outcome's records; gives its reply.
    fn commit<T>(&mut self, outcome: Outcome<T>) -> T {
        self.replay(&outcome.records);
        outcome.reply
    }

    fn try_register(&mut self, request: &BrokerRegistrationRequest) -> Result<i64, ApiError> {
        let mut sessions = self.sessions.clone();
        let outcome = broker_manager::register_broker(
            &self.context(),
            &mut sessions,
            request,
            false,
            self.now,
        );
        self.sessions = sessions;
        outcome.map(|outcome| self.commit(outcome).broker_epoch)
    }

    fn register(&mut self, id: i32, incarnation: u8) -> i64 {
        self.try_register(&registration(id, incarnation)).unwrap()
    }

    /// Registers a broker and has it unfenced.
    fn join(&mut self, id: i32, incarnation: u8) {
        self.register(id, incarnation);
        assert!(!self.beat(id, |_| ()).is_fenced);
    }

    fn try_beat(
        &mut self,
        request: &BrokerHeartbeatRequest,
    ) -> Result<BrokerHeartbeatResponse, ApiError> {
        let mut sessions = self.sessions.clone();
        let outcome = broker_manager::heartbeat(&self.context(), &mut sessions, request, self.now);
        self.sessions = sessions;
        outcome.map(|outcome| self.commit(outcome))
    }

    /// A heartbeat of a broker that is up to date, changed by `with`.
    fn beat(
        &mut self,
        id: i32,
        with: impl FnOnce(&mut BrokerHeartbeatRequest),
    ) -> BrokerHeartbeatResponse {
        let mut request = BrokerHeartbeatRequest {
            broker_id: id,
            broker_epoch: self.image.broker(id).unwrap().epoch,
            current_metadata_offset: self.image.offset(),
            ..Default::default()
        };
        with(&mut request);
        self.try_beat(&request).unwrap()
    }

    fn fence(&mut self, id: i32) {
        assert!(self.beat(id, |request| request.want_fence = true).is_fenced);
    }

    /// Makes a topic with given replicas of its partitions.
    fn create_assigned(&mut self, name: &str, replicas: &[&[i32]]) {
        let assignment = |(index, brokers): (i32, &&[i32])| CreatableReplicaAssignment {
            partition_index: index,
            broker_ids: brokers.to_vec(),
            ..Default::default()
        };
        let topic = CreatableTopic {
            assignments: (0..).zip(replicas).map(assignment).collect(),
            ..topic(name, -1, -1)
        };
        assert_eq!(self.create(topic), Ok(()));
    }

    /// Makes a topic; its error, if it is refused.
    fn create(&mut self, topic: CreatableTopic) -> Result<(), (ErrorCode, String)> {
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..Default::default()
        };
        let outcome = super::topics::create_topics(&self.context(), &request, &|_| true);
        let reply = self.commit(outcome);
        result_of(reply.topics[0].error_code, &reply.topics[0].error_message)
    }

    fn partition(&self, topic: &str, index: i32) -> PartitionImage {
        PartitionImage::clone(self.image.partition(topic, index).unwrap())
    }
}

fn directory(broker: i32) -> Uuid {
    Uuid::from_bytes([100 + broker as u8; 16])
}

fn registration(id: i32, incarnation: u8) -> BrokerRegistrationRequest {
    let feature = |feature: &super::features::Feature| Feature {
        name: feature.name.into(),
        min_supported_version: feature.min,
        max_supported_version: feature.max,
        ..Default::default()
    };
    BrokerRegistrationRequest {
        broker_id: id,
        cluster_id: CLUSTER_ID.into(),
        incarnation_id: Uuid::from_bytes([incarnation; 16]),
        listeners: vec![Listener {
            name: "PLAINTEXT".into(),
            host: "localhost".into(),
            port: 9092,
            ..Default::default()
        }],
        features: super::features::SUPPORTED.iter().map(feature).collect(),
        rack: Some(format!("rack-{id}").into()),
        log_dirs: vec![directory(id)],
        previous_broker_epoch: -1,
        ..Default::default()
    }
}

fn topic(name: &str, partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor,
        ..Default::default()
    }
}

fn with_config(topic: CreatableTopic, name: &str, value: Option<&str>) -> CreatableTopic {
    let config = CreatableTopicConfig {
        name: name.into(),
        value: value.map(ByteStr::from),
        ..Default::default()
    };
    CreatableTopic {
        configs: vec![config],
        ..topic
    }
}

fn result_of(code: i16, message: &Option<ByteStr>) -> Result<(), (ErrorCode, String)> {
    match ErrorCode::from_code(code).unwrap() {
        ErrorCode::None => Ok(()),
        error => Err((error, message.as_deref().unwrap_or_default().to_owned())),
    }
}

fn refused<T>(code: ErrorCode, message: &str) -> Result<T, (ErrorCode, String)> {
    Err((code, message.to_owned()))
}
