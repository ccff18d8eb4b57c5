//! What operators see of a running broker: metrics and health.
//!
//! Handlers count through [`Metrics`]: plain atomics behind handles that are resolved once, so that
//! a request costs a few relaxed additions and no look-up by name. What is not counted but can be
//! asked for (partitions, disk, leaders) is a callback registered with [`Metrics::gauge`] and runs
//! only when someone looks. [`OpsServer`] shows all of it over HTTP on a port of its own:
//! `/metrics` in Prometheus' text format, `/health` and `/live` for probes.
//!
//! The text format is written here rather than by a metrics crate: it is a page of code, while the
//! crates look every label set up in a map behind a lock. Names are those that the JMX exporter
//! gives Kafka's own metrics, so that existing dashboards find them; times are histograms in
//! seconds instead of Kafka's precomputed percentiles, which cannot be summed over brokers.
//!
//! To add a metric: a line in `gauges.rs` (`groups.rs` for the coordinators of groups and for share
//! partitions) if it can be asked for, else a field in `counters.rs` and
//! its line in `exposition.rs`.

mod counters;
mod exposition;
mod failure;
mod gauges;
mod groups;
mod health;
mod histogram;
mod http;
mod metrics;
mod process;
mod server;
#[cfg(test)]
mod tests;

pub use counters::{Counter, Gauge, TopicStats};
pub use failure::FailureKind;
pub(crate) use gauges::{register as register_gauges, register_cleaner as register_cleaner_gauges};
pub(crate) use groups::register as register_group_metrics;
pub use health::Health;
pub use metrics::{Metrics, RequestTimer};
pub use server::{OpsBindError, OpsServer};
