//! The registry of a broker's numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use klamm_env::Clock;
use klamm_protocol::ApiKey;

use super::counters::{ApiStats, ConnectionStats, TopicStats, VERSIONS};
use super::health::{Health, HealthCell};
use crate::context::RequestContext;

/// Everything one broker counts. Shared by its handlers and by whoever shows it.
pub struct Metrics {
    clock: Arc<dyn Clock>,
    pub(super) started_ms: i64,
    /// By number of the API key.
    pub(super) apis: Vec<ApiStats>,
    pub(super) connections: ConnectionStats,
    pub(super) topics: RwLock<BTreeMap<Arc<str>, Arc<TopicStats>>>,
    /// What deleted topics had counted, so that sums over all topics never fall.
    pub(super) deleted_topics: TopicStats,
    pub(super) callbacks: Mutex<Vec<Callback>>,
    health: HealthCell,
}

/// Numbers of one name, each with its labels as [`labels`] writes them.
pub(crate) type Samples = Vec<(String, f64)>;

/// Numbers that are asked for when someone looks.
pub(super) struct Callback {
    pub(super) name: &'static str,
    /// `gauge` or `counter`.
    pub(super) kind: &'static str,
    pub(super) help: &'static str,
    pub(super) read: Box<dyn Fn() -> Samples + Send + Sync>,
}

/// Labels in Prometheus' form.
pub(crate) fn labels(labels: &[(&str, &str)]) -> String {
    let mut text = String::from("{");
    for (at, (name, value)) in labels.iter().enumerate() {
        text.push_str(if at == 0 { "" } else { "," });
        text.push_str(name);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' | '"' => text.extend(['\\', character]),
                '\n' => text.push_str("\\n"),
                character => text.push(character),
            }
        }
        text.push('"');
    }
    text.push('}');
    text
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl Metrics {
    /// Nothing counted yet, health [`Health::Starting`].
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Metrics {
            started_ms: clock.wall_ms(),
            clock,
            apis: ApiKey::all().map(|_| ApiStats::default()).collect(),
            connections: ConnectionStats::default(),
            topics: RwLock::default(),
            deleted_topics: TopicStats::default(),
            callbacks: Mutex::default(),
            health: HealthCell::new(),
        }
    }

    /// Counts a request whose handling begins. Dropping the timer ends it uncounted in the times
    /// (the connection went away); [`RequestTimer::handled`] ends it in full.
    pub(crate) fn request_started(
        self: &Arc<Self>,
        api: ApiKey,
        context: &RequestContext,
    ) -> RequestTimer {
        self.request_of_version(api, context.api_version)
    }

    /// As [`Metrics::request_started`], for callers without a context.
    pub(super) fn request_of_version(self: &Arc<Self>, api: ApiKey, version: i16) -> RequestTimer {
        let stats = &self.apis[api as usize];
        let version = usize::try_from(version).unwrap_or(0).min(VERSIONS - 1);
        stats.requests[version].add(1);
        stats.in_flight.add(1);
        RequestTimer {
            metrics: self.clone(),
            api,
            started: self.clock.monotonic(),
        }
    }

    /// Counts an accepted connection.
    pub fn connection_opened(&self) {
        self.connections.opened.add(1);
        self.connections.open.add(1);
    }

    /// Counts the end of a connection.
    pub fn connection_closed(&self) {
        self.connections.closed.add(1);
        self.connections.open.add(-1);
    }

    /// The counters of a topic, made if need be. Keep the handle: the look-up takes a lock.
    pub fn topic(&self, name: &str) -> Arc<TopicStats> {
        if let Some(stats) = self
            .topics
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
        {
            return stats.clone();
        }
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics.entry(Arc::from(name)).or_default().clone()
    }

    /// Forgets a deleted topic; what it counted stays in the sums.
    pub fn remove_topic(&self, name: &str) {
        let removed = self
            .topics
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        if let Some(stats) = removed {
            self.deleted_topics.absorb(&stats);
        }
    }

    /// Registers a number that is asked for when someone looks. `name` is a full Prometheus name;
    /// a second registration of it replaces the first.
    pub fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        self.family(name, "gauge", help, move || vec![(String::new(), read())]);
    }

    /// The same for numbers that have labels. `kind` is `gauge` or `counter`.
    pub(crate) fn family(
        &self,
        name: &'static str,
        kind: &'static str,
        help: &'static str,
        read: impl Fn() -> Samples + Send + Sync + 'static,
    ) {
        let mut callbacks = self
            .callbacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        callbacks.retain(|known| known.name != name);
        callbacks.push(Callback {
            name,
            kind,
            help,
            read: Box::new(read),
        });
        callbacks.sort_by_key(|known| known.name);
    }

    /// Says how the broker is.
    pub fn set_health(&self, health: Health) {
        self.health.set(health);
    }

    /// How the broker is.
    pub fn health(&self) -> Health {
        self.health.get()
    }

    /// Time since the registry was made, which is the broker's start.
    pub(super) fn uptime(&self) -> Duration {
        let ms = self.clock.wall_ms().saturating_sub(self.started_ms);
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }
}

/// Measures one request.
#[must_use = "a request is over when its timer is dropped"]
pub struct RequestTimer {
    metrics: Arc<Metrics>,
    api: ApiKey,
    started: Duration,
}

impl RequestTimer {
    fn stats(&self) -> &ApiStats {
        &self.metrics.apis[self.api as usize]
    }

    /// The response is ready.
    pub fn handled(self) {
        let took = self.metrics.clock.monotonic().saturating_sub(self.started);
        self.stats().time.observe(took);
    }
}

impl Drop for RequestTimer {
    fn drop(&mut self) {
        self.stats().in_flight.add(-1);
    }
}

impl fmt::Debug for RequestTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestTimer")
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}
