use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cow_map::CowMap;

/// Kinds of things that have dynamic configs. The numbers are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum ResourceType {
    /// A number that Kafka does not know.
    Unknown = 0,
    /// A topic, by name.
    Topic = 2,
    /// A broker by id, or all brokers by the empty name.
    Broker = 4,
    /// The log levels of a broker.
    BrokerLogger = 8,
    /// A subscription to client metrics (KIP-714).
    ClientMetrics = 16,
    /// A group, by id.
    Group = 32,
}

impl ResourceType {
    /// The type of a number in a request or record.
    pub fn from_id(id: i8) -> ResourceType {
        match id {
            2 => ResourceType::Topic,
            4 => ResourceType::Broker,
            8 => ResourceType::BrokerLogger,
            16 => ResourceType::ClientMetrics,
            32 => ResourceType::Group,
            _ => ResourceType::Unknown,
        }
    }

    /// The number in requests and records.
    pub fn id(self) -> i8 {
        self as i8
    }

    /// The name that Kafka's messages use.
    pub fn name(self) -> &'static str {
        match self {
            ResourceType::Unknown => "UNKNOWN",
            ResourceType::Topic => "TOPIC",
            ResourceType::Broker => "BROKER",
            ResourceType::BrokerLogger => "BROKER_LOGGER",
            ResourceType::ClientMetrics => "CLIENT_METRICS",
            ResourceType::Group => "GROUP",
        }
    }
}

/// A thing that has dynamic configs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigResource {
    /// What it is.
    pub resource_type: ResourceType,
    /// Its name; empty for the defaults of its kind.
    pub name: String,
}

impl ConfigResource {
    /// A resource.
    pub fn new(resource_type: ResourceType, name: impl Into<String>) -> Self {
        ConfigResource {
            resource_type,
            name: name.into(),
        }
    }

    /// A topic.
    pub fn topic(name: &str) -> Self {
        Self::new(ResourceType::Topic, name)
    }

    /// A broker.
    pub fn broker(id: i32) -> Self {
        Self::new(ResourceType::Broker, id.to_string())
    }

    /// All brokers.
    pub fn cluster() -> Self {
        Self::new(ResourceType::Broker, "")
    }
}

static NONE: BTreeMap<String, String> = BTreeMap::new();

/// Dynamic configs of all resources. A resource without configs has no entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigsImage {
    pub(crate) resources: CowMap<ConfigResource, Arc<BTreeMap<String, String>>>,
}

impl ConfigsImage {
    /// The configs of a resource; empty if it has none.
    pub fn of(&self, resource: &ConfigResource) -> &BTreeMap<String, String> {
        self.resources
            .get(resource)
            .map_or(&NONE, |configs| configs)
    }

    /// All resources that have configs, by type and name.
    pub fn iter(&self) -> impl Iterator<Item = (&ConfigResource, &BTreeMap<String, String>)> {
        self.resources
            .iter()
            .map(|(resource, configs)| (resource, &**configs))
    }

    pub(crate) fn set(&mut self, resource: &ConfigResource, name: &str, value: Option<&str>) {
        let mut configs = self.resources.get(resource).cloned().unwrap_or_default();
        match value {
            Some(value) => Arc::make_mut(&mut configs).insert(name.to_owned(), value.to_owned()),
            None => Arc::make_mut(&mut configs).remove(name),
        };
        if configs.is_empty() {
            self.resources.remove(resource);
        } else {
            self.resources.insert(resource.clone(), configs);
        }
    }
}

/// Whom a client quota binds: entity types (`user`, `client-id`, `ip`) with a name each, or `None`
/// for the default of the type.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaEntity(pub BTreeMap<String, Option<String>>);

/// Client quotas by entity and key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuotasImage {
    pub(crate) entities: CowMap<QuotaEntity, Arc<BTreeMap<String, f64>>>,
}

impl QuotasImage {
    /// The quotas of an entity.
    pub fn of(&self, entity: &QuotaEntity) -> Option<&BTreeMap<String, f64>> {
        self.entities.get(entity).map(|quotas| &**quotas)
    }

    /// All entities that have quotas.
    pub fn iter(&self) -> impl Iterator<Item = (&QuotaEntity, &BTreeMap<String, f64>)> {
        self.entities
            .iter()
            .map(|(entity, quotas)| (entity, &**quotas))
    }

    pub(crate) fn set(&mut self, entity: &QuotaEntity, key: &str, value: Option<f64>) {
        let mut quotas = self.entities.get(entity).cloned().unwrap_or_default();
        match value {
            Some(value) => Arc::make_mut(&mut quotas).insert(key.to_owned(), value),
            None => Arc::make_mut(&mut quotas).remove(key),
        };
        if quotas.is_empty() {
            self.entities.remove(entity);
        } else {
            self.entities.insert(entity.clone(), quotas);
        }
    }
}
