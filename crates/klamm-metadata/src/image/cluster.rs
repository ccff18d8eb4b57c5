use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_records::Uuid;

/// Where a broker or controller listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the listener.
    pub name: String,
    /// Host name or address that clients are told.
    pub host: String,
    /// Port that clients are told.
    pub port: u16,
    /// Kafka's number of the security protocol: 0 PLAINTEXT, 1 SSL, 2 `SASL_PLAINTEXT`,
    /// 3 `SASL_SSL`.
    pub security_protocol: i16,
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerImage {
    /// Node id.
    pub id: i32,
    /// Given at registration: the metadata offset of the registration.
    pub epoch: i64,
    /// The process that registered; another one after each start.
    pub incarnation_id: Uuid,
    /// Listeners, as the broker named them.
    pub endpoints: Vec<Endpoint>,
    /// Lowest and highest supported level of each feature.
    pub features: BTreeMap<String, (i16, i16)>,
    /// Rack, for the placement of replicas and for reads from the nearest one.
    pub rack: Option<String>,
    /// Whether the broker is kept from leading and from being seen by clients.
    pub fenced: bool,
    /// Whether the broker is on its way out.
    pub in_controlled_shutdown: bool,
    /// Online log directories, sorted.
    pub log_dirs: Vec<Uuid>,
    /// Log directories that take no new replicas; `None` until the broker has told.
    pub cordoned_log_dirs: Option<Vec<Uuid>>,
}

impl BrokerImage {
    /// The endpoint of a listener.
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints
            .iter()
            .find(|endpoint| endpoint.name == listener)
    }

    /// Whether the broker may lead and join ISRs: neither fenced nor shutting down.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    /// Whether a replica in `directory` of this broker can be served. Directories that are yet to
    /// be chosen, and those of replicas or brokers from before directories had ids, count as
    /// online; a lost one does not.
    pub fn has_online_dir(&self, directory: Uuid) -> bool {
        directory == Uuid::UNASSIGNED_DIR
            || directory == Uuid::MIGRATING_DIR
            || self.log_dirs.is_empty() && directory != Uuid::LOST_DIR
            || self.log_dirs.binary_search(&directory).is_ok()
    }

    /// The directory of a new replica: the broker's only one, else yet to be chosen.
    pub fn default_dir(&self) -> Uuid {
        match self.log_dirs[..] {
            // A broker from before directories had ids.
            [] => Uuid::MIGRATING_DIR,
            [only] => only,
            _ => Uuid::UNASSIGNED_DIR,
        }
    }

    /// Whether each online directory is cordoned, so that no new replica may be placed here.
    pub fn is_cordoned(&self) -> bool {
        let cordoned = self.cordoned_log_dirs.as_deref().unwrap_or_default();
        !cordoned.is_empty() && self.log_dirs.iter().all(|dir| cordoned.contains(dir))
    }
}

/// A registered controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerImage {
    /// Node id.
    pub id: i32,
    /// The process that registered.
    pub incarnation_id: Uuid,
    /// Controller listeners.
    pub endpoints: Vec<Endpoint>,
    /// Lowest and highest supported level of each feature.
    pub features: BTreeMap<String, (i16, i16)>,
}

/// Brokers and controllers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterImage {
    pub(crate) brokers: BTreeMap<i32, Arc<BrokerImage>>,
    pub(crate) controllers: BTreeMap<i32, Arc<ControllerImage>>,
}

impl ClusterImage {
    /// All registered brokers by id.
    pub fn brokers(&self) -> &BTreeMap<i32, Arc<BrokerImage>> {
        &self.brokers
    }

    /// All registered controllers by id.
    pub fn controllers(&self) -> &BTreeMap<i32, Arc<ControllerImage>> {
        &self.controllers
    }

    /// Brokers that clients may see, by id: registered and not fenced.
    pub fn alive_brokers(&self) -> impl Iterator<Item = &Arc<BrokerImage>> {
        self.brokers.values().filter(|broker| !broker.fenced)
    }

    /// Endpoints of the alive brokers that have this listener, by broker id.
    pub fn alive_endpoints<'a>(
        &'a self,
        listener: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<BrokerImage>, &'a Endpoint)> {
        self.alive_brokers()
            .filter_map(move |broker| Some((broker, broker.endpoint(listener)?)))
    }
}
