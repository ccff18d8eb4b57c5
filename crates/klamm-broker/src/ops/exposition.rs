//! All numbers in Prometheus' text format.

use std::fmt::{self, Write};
use std::sync::PoisonError;

use klamm_protocol::ApiKey;

use super::counters::{ApiStats, TopicStats};
use super::histogram::BOUNDS;
use super::metrics::Metrics;
use super::process;

/// The media type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of metrics under construction. Writing to a `String` cannot fail, which is why the
/// results inside are only passed on.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    fn single(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        value: impl fmt::Display,
    ) -> fmt::Result {
        self.family(name, kind, help)?;
        writeln!(self.0, "{name} {value}")
    }
}

impl Metrics {
    /// The page that `/metrics` shows.
    pub fn render(&self) -> String {
        let mut page = Page(String::with_capacity(16 * 1024));
        // See `Page`: this cannot fail.
        let _ = self.write(&mut page);
        page.0
    }

    fn write(&self, page: &mut Page) -> fmt::Result {
        self.write_broker(page)?;
        self.write_requests(page)?;
        self.write_topics(page)?;
        for callback in self
            .callbacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            page.family(callback.name, callback.kind, callback.help)?;
            for (labels, value) in (callback.read)() {
                writeln!(page.0, "{}{labels} {value}", callback.name)?;
            }
        }
        if let Some(process) = process::read() {
            process.write(|name, kind, help, value| page.single(name, kind, help, value))?;
        }
        Ok(())
    }

    fn write_broker(&self, page: &mut Page) -> fmt::Result {
        let version = env!("CARGO_PKG_VERSION");
        page.family("klamm_build_info", "gauge", "The version that runs.")?;
        writeln!(page.0, "klamm_build_info{{version=\"{version}\"}} 1")?;
        let ready = u8::from(self.health() == super::Health::Ready);
        page.single("klamm_ready", "gauge", "1 while the broker serves.", ready)?;
        let uptime = self.uptime().as_secs_f64();
        page.single(
            "klamm_uptime_seconds",
            "gauge",
            "Time since the broker's start.",
            uptime,
        )?;
        let connections = &self.connections;
        for (name, kind, help, value) in [
            (
                "kafka_server_socketservermetrics_connection_count",
                "gauge",
                "Open connections.",
                connections.open.get().to_string(),
            ),
            (
                "kafka_server_socketservermetrics_connection_creation_total",
                "counter",
                "Connections accepted.",
                connections.opened.get().to_string(),
            ),
            (
                "kafka_server_socketservermetrics_connection_close_total",
                "counter",
                "Connections ended.",
                connections.closed.get().to_string(),
            ),
        ] {
            page.single(name, kind, help, value)?;
        }
        Ok(())
    }

    /// APIs that were never asked for are left out.
    fn asked(&self) -> Vec<(ApiKey, &ApiStats)> {
        let asked = |stats: &ApiStats| stats.requests.iter().any(|version| version.get() > 0);
        ApiKey::all()
            .zip(&self.apis)
            .filter(|(_, stats)| asked(stats))
            .collect()
    }

    fn write_requests(&self, page: &mut Page) -> fmt::Result {
        let asked = self.asked();
        let name = "kafka_network_requestmetrics_requests_total";
        page.family(name, "counter", "Requests by API and version.")?;
        for (api, stats) in &asked {
            for (version, count) in stats
                .requests
                .iter()
                .enumerate()
                .filter(|(_, c)| c.get() > 0)
            {
                let (api, count) = (api.name(), count.get());
                writeln!(
                    page.0,
                    "{name}{{request=\"{api}\",version=\"{version}\"}} {count}"
                )?;
            }
        }
        let name = "kafka_network_requestmetrics_inflight";
        page.family(
            name,
            "gauge",
            "Requests being handled, long polls included.",
        )?;
        for (api, stats) in &asked {
            writeln!(
                page.0,
                "{name}{{request=\"{}\"}} {}",
                api.name(),
                stats.in_flight.get()
            )?;
        }
        let name = "kafka_network_requestmetrics_totaltime_seconds";
        page.family(name, "histogram", "From decoded request to ready response.")?;
        for (api, stats) in &asked {
            let api = api.name();
            let (buckets, sum_us) = stats.time.read();
            let bounds = BOUNDS.iter().map(|(_, text)| *text).chain(["+Inf"]);
            for (bound, count) in bounds.zip(buckets) {
                writeln!(
                    page.0,
                    "{name}_bucket{{request=\"{api}\",le=\"{bound}\"}} {count}"
                )?;
            }
            let (whole, micros) = (sum_us / 1_000_000, sum_us % 1_000_000);
            writeln!(
                page.0,
                "{name}_sum{{request=\"{api}\"}} {whole}.{micros:06}"
            )?;
            let count = buckets.last().copied().unwrap_or_default();
            writeln!(page.0, "{name}_count{{request=\"{api}\"}} {count}")?;
        }
        Ok(())
    }

    /// Without a topic label: the sum over all topics, deleted ones included.
    fn write_topics(&self, page: &mut Page) -> fmt::Result {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        let sums = TopicStats::default();
        sums.absorb(&self.deleted_topics);
        topics.values().for_each(|stats| sums.absorb(stats));
        for (at, (short, sum)) in sums.all().into_iter().enumerate() {
            let name = format!("kafka_server_brokertopicmetrics_{short}_total");
            page.family(
                &name,
                "counter",
                "Counted by topic; without one, for all of them.",
            )?;
            writeln!(page.0, "{name} {}", sum.get())?;
            for (topic, stats) in topics.iter() {
                // Topic names need no escaping: Kafka allows letters, digits, dot, dash and underscore.
                writeln!(
                    page.0,
                    "{name}{{topic=\"{topic}\"}} {}",
                    stats.all()[at].1.get()
                )?;
            }
        }
        Ok(())
    }
}
