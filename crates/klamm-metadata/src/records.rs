//! An image as records: what a snapshot holds.

use klamm_protocol::metadata::client_quota_record::EntityData;
use klamm_protocol::metadata::{
    AccessControlEntryRecord, ClientQuotaRecord, ConfigRecord, DelegationTokenRecord,
    FeatureLevelRecord, MetadataRecord, ProducerIdsRecord, RegisterBrokerRecord,
    RegisterControllerRecord, TopicRecord, UserScramCredentialRecord, register_broker_record,
    register_controller_record,
};

use crate::image::{BrokerImage, ControllerImage, MetadataImage, TopicImage};
use crate::version::MetadataVersion;

impl MetadataImage {
    /// Hands `write` the records that make this image out of nothing, in Kafka's order. The level
    /// of `metadata.version` comes first, as it says how to read the others.
    pub fn write_records(&self, write: &mut dyn FnMut(MetadataRecord)) {
        self.write_features(write);
        for broker in self.cluster.brokers.values() {
            write(register_broker(broker).into());
        }
        for controller in self.cluster.controllers.values() {
            write(register_controller(controller).into());
        }
        for topic in self.topics.iter() {
            write_topic(topic, self.metadata_version(), write);
        }
        self.write_configs(write);
        if self.next_producer_id > 0 {
            let record = ProducerIdsRecord {
                broker_id: -1,
                broker_epoch: -1,
                next_producer_id: self.next_producer_id,
                ..ProducerIdsRecord::default()
            };
            write(record.into());
        }
        self.write_security(write);
    }

    /// The records of [`MetadataImage::write_records`] in a list.
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        self.write_records(&mut |record| records.push(record));
        records
    }

    fn write_features(&self, write: &mut dyn FnMut(MetadataRecord)) {
        let mut level = |name: &str, feature_level: i16| {
            let record = FeatureLevelRecord {
                name: name.into(),
                feature_level,
                ..FeatureLevelRecord::default()
            };
            write(record.into());
        };
        if let Some(version) = self.features.metadata_version {
            level(MetadataVersion::FEATURE_NAME, version.level());
        }
        for (name, feature_level) in &self.features.levels {
            level(name, *feature_level);
        }
    }

    fn write_configs(&self, write: &mut dyn FnMut(MetadataRecord)) {
        for (resource, configs) in self.configs.iter() {
            for (name, value) in configs {
                let record = ConfigRecord {
                    resource_type: resource.resource_type.id(),
                    resource_name: resource.name.as_str().into(),
                    name: name.into(),
                    value: Some(value.into()),
                    ..ConfigRecord::default()
                };
                write(record.into());
            }
        }
        for (entity, quotas) in self.quotas.iter() {
            let entity = entity
                .0
                .iter()
                .map(|(entity_type, entity_name)| EntityData {
                    entity_type: entity_type.into(),
                    entity_name: entity_name.as_ref().map(Into::into),
                    ..EntityData::default()
                });
            let entity: Vec<_> = entity.collect();
            for (key, value) in quotas {
                let record = ClientQuotaRecord {
                    entity: entity.clone(),
                    key: key.into(),
                    value: *value,
                    remove: false,
                    ..ClientQuotaRecord::default()
                };
                write(record.into());
            }
        }
    }

    fn write_security(&self, write: &mut dyn FnMut(MetadataRecord)) {
        for (id, acl) in self.acls.iter() {
            let record = AccessControlEntryRecord {
                id,
                resource_type: acl.resource_type,
                resource_name: acl.resource_name.as_str().into(),
                pattern_type: acl.pattern_type,
                principal: acl.principal.as_str().into(),
                host: acl.host.as_str().into(),
                operation: acl.operation,
                permission_type: acl.permission_type,
                ..AccessControlEntryRecord::default()
            };
            write(record.into());
        }
        for (mechanism, user, credential) in self.scram.iter() {
            let record = UserScramCredentialRecord {
                name: user.into(),
                mechanism,
                salt: credential.salt.clone(),
                stored_key: credential.stored_key.clone(),
                server_key: credential.server_key.clone(),
                iterations: credential.iterations,
                ..UserScramCredentialRecord::default()
            };
            write(record.into());
        }
        for (token_id, token) in self.tokens.iter() {
            let record = DelegationTokenRecord {
                owner: token.owner.as_str().into(),
                requester: token.requester.as_str().into(),
                renewers: token.renewers.iter().map(Into::into).collect(),
                issue_timestamp: token.issue_timestamp_ms,
                max_timestamp: token.max_timestamp_ms,
                expiration_timestamp: token.expiration_timestamp_ms,
                token_id: token_id.into(),
                ..DelegationTokenRecord::default()
            };
            write(record.into());
        }
    }
}

fn register_broker(broker: &BrokerImage) -> RegisterBrokerRecord {
    let endpoint = |endpoint: &crate::image::Endpoint| register_broker_record::BrokerEndpoint {
        name: endpoint.name.as_str().into(),
        host: endpoint.host.as_str().into(),
        port: endpoint.port,
        security_protocol: endpoint.security_protocol,
        ..Default::default()
    };
    let feature = |(name, range): (&String, &(i16, i16))| register_broker_record::BrokerFeature {
        name: name.into(),
        min_supported_version: range.0,
        max_supported_version: range.1,
        ..Default::default()
    };
    RegisterBrokerRecord {
        broker_id: broker.id,
        incarnation_id: broker.incarnation_id,
        broker_epoch: broker.epoch,
        end_points: broker.endpoints.iter().map(endpoint).collect(),
        features: broker.features.iter().map(feature).collect(),
        rack: broker.rack.as_ref().map(Into::into),
        fenced: broker.fenced,
        in_controlled_shutdown: broker.in_controlled_shutdown,
        log_dirs: broker.log_dirs.clone(),
        cordoned_log_dirs: broker.cordoned_log_dirs.clone(),
        ..RegisterBrokerRecord::default()
    }
}

fn register_controller(controller: &ControllerImage) -> RegisterControllerRecord {
    let endpoint = |e: &crate::image::Endpoint| register_controller_record::ControllerEndpoint {
        name: e.name.as_str().into(),
        host: e.host.as_str().into(),
        port: e.port,
        security_protocol: e.security_protocol,
        ..Default::default()
    };
    let feature =
        |(name, range): (&String, &(i16, i16))| register_controller_record::ControllerFeature {
            name: name.into(),
            min_supported_version: range.0,
            max_supported_version: range.1,
            ..Default::default()
        };
    RegisterControllerRecord {
        controller_id: controller.id,
        incarnation_id: controller.incarnation_id,
        zk_migration_ready: false,
        end_points: controller.endpoints.iter().map(endpoint).collect(),
        features: controller.features.iter().map(feature).collect(),
        ..RegisterControllerRecord::default()
    }
}

fn write_topic(
    topic: &TopicImage,
    version: MetadataVersion,
    write: &mut dyn FnMut(MetadataRecord),
) {
    let record = TopicRecord {
        name: (&*topic.name).into(),
        topic_id: topic.id,
        ..TopicRecord::default()
    };
    write(record.into());
    for (index, partition) in topic.partitions() {
        write(partition.to_record(topic.id, index, version).into());
    }
}
