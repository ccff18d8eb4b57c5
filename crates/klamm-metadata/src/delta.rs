//! What changes from one image to the next.

mod cluster;
mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_protocol::metadata::{
    AccessControlEntryRecord, ClientQuotaRecord, ConfigRecord, DelegationTokenRecord,
    FeatureLevelRecord, MetadataRecord, ProducerIdsRecord, UserScramCredentialRecord,
};
use klamm_records::Uuid;

use crate::error::ReplayError;
use crate::image::{
    Acl, ConfigResource, DelegationToken, MetadataImage, Provenance, QuotaEntity, ResourceType,
    ScramCredential, TopicImage,
};
use crate::version::MetadataVersion;

/// What changed in one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicDelta {
    /// Whether the topic is new.
    pub created: bool,
    /// Partitions that are new or changed.
    pub partitions: BTreeSet<i32>,
}

/// Changes on top of an image, with the image that they make.
///
/// Records are replayed one by one with [`MetadataDelta::replay`]; [`MetadataDelta::finish`] gives
/// the new image. Replaying costs in proportion to what changes, not to the size of the image.
#[derive(Clone, Debug)]
pub struct MetadataDelta {
    pub(crate) base: Arc<MetadataImage>,
    pub(crate) image: MetadataImage,
    pub(crate) changed_topics: BTreeMap<Uuid, TopicDelta>,
    pub(crate) deleted_topics: BTreeMap<Uuid, Arc<TopicImage>>,
    pub(crate) changed_brokers: BTreeSet<i32>,
    pub(crate) changed_controllers: BTreeSet<i32>,
    pub(crate) changed_configs: BTreeSet<ConfigResource>,
    pub(crate) changed_features: BTreeSet<String>,
    pub(crate) changed_quotas: BTreeSet<QuotaEntity>,
    pub(crate) changed_acls: BTreeSet<Uuid>,
    pub(crate) changed_scram: BTreeSet<(i8, String)>,
    pub(crate) changed_tokens: BTreeSet<String>,
}

impl MetadataDelta {
    /// No changes on top of `base`.
    pub fn new(base: Arc<MetadataImage>) -> Self {
        MetadataDelta {
            image: MetadataImage::clone(&base),
            base,
            changed_topics: BTreeMap::new(),
            deleted_topics: BTreeMap::new(),
            changed_brokers: BTreeSet::new(),
            changed_controllers: BTreeSet::new(),
            changed_configs: BTreeSet::new(),
            changed_features: BTreeSet::new(),
            changed_quotas: BTreeSet::new(),
            changed_acls: BTreeSet::new(),
            changed_scram: BTreeSet::new(),
            changed_tokens: BTreeSet::new(),
        }
    }

    /// The changes that make `image` out of nothing: what a listener gets first.
    pub fn from_nothing(image: &MetadataImage) -> Self {
        let mut delta = MetadataDelta::new(Arc::default());
        for topic in image.topics.iter() {
            let partitions = topic.partitions.keys().copied().collect();
            delta.changed_topics.insert(
                topic.id,
                TopicDelta {
                    created: true,
                    partitions,
                },
            );
        }
        delta.changed_brokers = image.cluster.brokers.keys().copied().collect();
        delta.changed_controllers = image.cluster.controllers.keys().copied().collect();
        delta.changed_configs = image.configs.resources.keys().cloned().collect();
        delta.changed_features = image.features.finalized().into_keys().collect();
        delta.changed_quotas = image.quotas.entities.keys().cloned().collect();
        delta.changed_acls = image.acls.entries.keys().copied().collect();
        delta.changed_scram = image.scram.credentials.keys().cloned().collect();
        delta.changed_tokens = image.tokens.keys().cloned().collect();
        delta.image = image.clone();
        delta
    }

    /// The image before the changes.
    pub fn base(&self) -> &Arc<MetadataImage> {
        &self.base
    }

    /// The image with the changes so far.
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// Topics that are new or changed, by id.
    pub fn changed_topics(&self) -> &BTreeMap<Uuid, TopicDelta> {
        &self.changed_topics
    }

    /// Topics of the base image that are gone, by id. A topic that was made and deleted within
    /// the changes is not among them.
    pub fn deleted_topics(&self) -> &BTreeMap<Uuid, Arc<TopicImage>> {
        &self.deleted_topics
    }

    /// Brokers that registered, changed or are gone.
    pub fn changed_brokers(&self) -> &BTreeSet<i32> {
        &self.changed_brokers
    }

    /// Controllers that registered.
    pub fn changed_controllers(&self) -> &BTreeSet<i32> {
        &self.changed_controllers
    }

    /// Resources whose dynamic configs changed.
    pub fn changed_configs(&self) -> &BTreeSet<ConfigResource> {
        &self.changed_configs
    }

    /// Features whose level changed.
    pub fn changed_features(&self) -> &BTreeSet<String> {
        &self.changed_features
    }

    /// Entities whose quotas changed.
    pub fn changed_quotas(&self) -> &BTreeSet<QuotaEntity> {
        &self.changed_quotas
    }

    /// Access control entries that are new or gone.
    pub fn changed_acls(&self) -> &BTreeSet<Uuid> {
        &self.changed_acls
    }

    /// SCRAM credentials, as mechanism and user, that are new, changed or gone.
    pub fn changed_scram(&self) -> &BTreeSet<(i8, String)> {
        &self.changed_scram
    }

    /// Delegation tokens that are new, changed or gone.
    pub fn changed_tokens(&self) -> &BTreeSet<String> {
        &self.changed_tokens
    }

    /// Applies one record. After an error the delta may hold part of the record's effect: drop it.
    ///
    /// The marks of a metadata transaction change nothing here; whoever reads a log drops what was
    /// aborted first, with [`TransactionFilter`](crate::TransactionFilter).
    pub fn replay(&mut self, record: &MetadataRecord) -> Result<(), ReplayError> {
        match record {
            MetadataRecord::RegisterBroker(r) => self.register_broker(r),
            MetadataRecord::UnregisterBroker(r) => self.unregister_broker(r)?,
            MetadataRecord::FenceBroker(r) => self.set_fenced(r.id, r.epoch, true)?,
            MetadataRecord::UnfenceBroker(r) => self.set_fenced(r.id, r.epoch, false)?,
            MetadataRecord::BrokerRegistrationChange(r) => self.change_broker(r)?,
            MetadataRecord::RegisterController(r) => self.register_controller(r),
            MetadataRecord::Topic(r) => self.create_topic(r)?,
            MetadataRecord::Partition(r) => self.set_partition(r)?,
            MetadataRecord::PartitionChange(r) => self.change_partition(r)?,
            MetadataRecord::RemoveTopic(r) => self.remove_topic(r.topic_id)?,
            MetadataRecord::ClearElr(r) => self.clear_elr(&r.topic_name)?,
            MetadataRecord::Config(r) => self.set_config(r),
            MetadataRecord::ClientQuota(r) => self.set_quota(r),
            MetadataRecord::FeatureLevel(r) => self.set_feature(r)?,
            MetadataRecord::ProducerIds(r) => self.set_producer_ids(r)?,
            MetadataRecord::AccessControlEntry(r) => self.add_acl(r),
            MetadataRecord::RemoveAccessControlEntry(r) => self.remove_acl(r.id)?,
            MetadataRecord::UserScramCredential(r) => self.set_scram(r),
            MetadataRecord::RemoveUserScramCredential(r) => {
                self.remove_scram(r.mechanism, &r.name)?
            }
            MetadataRecord::DelegationToken(r) => self.set_token(r),
            MetadataRecord::RemoveDelegationToken(r) => {
                Arc::make_mut(&mut self.image.tokens).remove(&*r.token_id);
                self.changed_tokens.insert(r.token_id.to_string());
            }
            MetadataRecord::NoOp(_)
            | MetadataRecord::ZkMigrationState(_)
            | MetadataRecord::BeginTransaction(_)
            | MetadataRecord::EndTransaction(_)
            | MetadataRecord::AbortTransaction(_) => {}
        }
        Ok(())
    }

    /// Sets the level of `kraft.version`, which the quorum keeps in control records of its log.
    pub fn set_kraft_version(&mut self, level: i16) {
        Arc::make_mut(&mut self.image.features).kraft_version = level;
        self.changed_features
            .insert(crate::image::KRAFT_VERSION.to_owned());
    }

    /// The image with all changes, standing at `provenance`.
    pub fn finish(&mut self, provenance: Provenance) -> Arc<MetadataImage> {
        self.image.provenance = provenance;
        Arc::new(self.image.clone())
    }

    fn set_config(&mut self, record: &ConfigRecord) {
        let resource = ConfigResource::new(
            ResourceType::from_id(record.resource_type),
            record.resource_name.to_string(),
        );
        let value = record.value.as_deref();
        Arc::make_mut(&mut self.image.configs).set(&resource, &record.name, value);
        self.changed_configs.insert(resource);
    }

    fn set_quota(&mut self, record: &ClientQuotaRecord) {
        let names = record.entity.iter().map(|part| {
            let name = part.entity_name.as_ref().map(|name| name.to_string());
            (part.entity_type.to_string(), name)
        });
        let entity = QuotaEntity(names.collect());
        let value = (!record.remove).then_some(record.value);
        Arc::make_mut(&mut self.image.quotas).set(&entity, &record.key, value);
        self.changed_quotas.insert(entity);
    }

    fn set_feature(&mut self, record: &FeatureLevelRecord) -> Result<(), ReplayError> {
        let features = Arc::make_mut(&mut self.image.features);
        let level = record.feature_level;
        if record.name == MetadataVersion::FEATURE_NAME {
            let version =
                MetadataVersion::from_level(level).ok_or(ReplayError::MetadataVersion { level })?;
            features.metadata_version = Some(version);
        } else if level == 0 {
            features.levels.remove(&*record.name);
        } else {
            features.levels.insert(record.name.to_string(), level);
        }
        self.changed_features.insert(record.name.to_string());
        Ok(())
    }

    fn set_producer_ids(&mut self, record: &ProducerIdsRecord) -> Result<(), ReplayError> {
        let (current, next) = (self.image.next_producer_id, record.next_producer_id);
        if next < current {
            return Err(ReplayError::ProducerIds { current, next });
        }
        self.image.next_producer_id = next;
        Ok(())
    }

    fn add_acl(&mut self, record: &AccessControlEntryRecord) {
        let acl = Acl {
            resource_type: record.resource_type,
            resource_name: record.resource_name.to_string(),
            pattern_type: record.pattern_type,
            principal: record.principal.to_string(),
            host: record.host.to_string(),
            operation: record.operation,
            permission_type: record.permission_type,
        };
        Arc::make_mut(&mut self.image.acls)
            .entries
            .insert(record.id, Arc::new(acl));
        self.changed_acls.insert(record.id);
    }

    fn remove_acl(&mut self, id: Uuid) -> Result<(), ReplayError> {
        let removed = Arc::make_mut(&mut self.image.acls).entries.remove(&id);
        self.changed_acls.insert(id);
        removed.map(|_| ()).ok_or(ReplayError::UnknownAcl { id })
    }

    fn set_scram(&mut self, record: &UserScramCredentialRecord) {
        let key = (record.mechanism, record.name.to_string());
        let credential = ScramCredential {
            salt: record.salt.clone(),
            stored_key: record.stored_key.clone(),
            server_key: record.server_key.clone(),
            iterations: record.iterations,
        };
        Arc::make_mut(&mut self.image.scram)
            .credentials
            .insert(key.clone(), credential);
        self.changed_scram.insert(key);
    }

    fn remove_scram(&mut self, mechanism: i8, user: &str) -> Result<(), ReplayError> {
        let key = (mechanism, user.to_owned());
        if Arc::make_mut(&mut self.image.scram)
            .credentials
            .remove(&key)
            .is_none()
        {
            return Err(ReplayError::UnknownScramCredential {
                user: key.1,
                mechanism,
            });
        }
        self.changed_scram.insert(key);
        Ok(())
    }

    fn set_token(&mut self, record: &DelegationTokenRecord) {
        let token = DelegationToken {
            owner: record.owner.to_string(),
            requester: record.requester.to_string(),
            renewers: record
                .renewers
                .iter()
                .map(|renewer| renewer.to_string())
                .collect(),
            issue_timestamp_ms: record.issue_timestamp,
            max_timestamp_ms: record.max_timestamp,
            expiration_timestamp_ms: record.expiration_timestamp,
        };
        Arc::make_mut(&mut self.image.tokens).insert(record.token_id.to_string(), token);
        self.changed_tokens.insert(record.token_id.to_string());
    }
}
