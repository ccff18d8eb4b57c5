//! The loads: as many records as go, and single ones at a pace.

use super::results::{Goal, Metric};
use super::session::{Session, output};
use crate::Result;
use std::process::Command;

pub const LOAD: &str = "As fast as it goes";
const PACED: &str = "Requests of one 1 KB record";
const TOOLS: &str = "Kafka's perf tools";
/// The load that others are compared with.
pub const LARGE: &str = "1 KB, 6 partitions, acks=all";
pub const DURABLE: &str = "1 KB, 6 partitions, acks=all, durable";
pub const PACED_5000: &str = "5,000/s";
pub const DURABLE_5000: &str = "5,000/s, durable";

const PRODUCE: Metric = Metric::more("produce", "MB/s");
const PRODUCE_RECORDS: Metric = Metric::more("records", "k/s");
pub const CPU_IN: Metric = Metric::less("broker CPU in", "s/GB");
const CONSUME: Metric = Metric::more("consume", "MB/s");
pub const CPU_OUT: Metric = Metric::less("broker CPU out", "s/GB");
pub const HIGHEST_MEMORY: Metric = Metric::less("highest memory", "MiB");
const CPU_REQUEST: Metric = Metric::less("broker CPU", "µs/request");
const RATE: Metric = Metric::more("rate held", "1/s");
const PRODUCE_MS: [(&str, Metric); 3] = [
    ("p50_ms", Metric::less("produce p50", "ms")),
    ("p99_ms", Metric::less("produce p99", "ms")),
    ("p999_ms", Metric::less("produce p99.9", "ms")),
];
const END_MS: [(&str, Metric); 3] = [
    ("end_to_end_p50_ms", Metric::less("end to end p50", "ms")),
    ("end_to_end_p99_ms", Metric::less("end to end p99", "ms")),
    ("end_to_end_p999_ms", Metric::less("end to end p99.9", "ms")),
];
const TOOL_P99: Metric = Metric::less("produce p99", "ms");

/// A load of as many records as go.
#[derive(Debug, Clone)]
pub struct Bulk {
    /// What `--only` calls it.
    pub name: String,
    /// What the table calls it.
    pub title: String,
    pub size: usize,
    pub partitions: i32,
    acks: &'static str,
    codec: &'static str,
    /// More than one: each writes batches of 16 KiB to a partition of its own.
    clients: usize,
    /// Part of the usual number of bytes.
    share: f64,
    kind: Kind,
    consumed: bool,
    /// Of CPU in, CPU out, memory.
    goals: [Option<Goal>; 3],
}

/// What the topic is configured for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing.
    Plain,
    /// Klamm's durable acks; on Kafka what comes nearest, a flush with every batch.
    Durable,
    /// Klamm trusts the batch's header; Kafka has no such thing.
    HeaderOnly,
}

impl Kind {
    /// The topic's configs; none if the broker has nothing like it.
    fn configs(self, session: &Session) -> Option<&'static [(&'static str, &'static str)]> {
        match (self, session.is_kafka()) {
            (Kind::Plain, _) => Some(&[]),
            (Kind::Durable, false) => Some(&[("klamm.flush", "group")]),
            (Kind::Durable, true) => Some(&[("flush.messages", "1")]),
            (Kind::HeaderOnly, false) => Some(&[("klamm.produce.validation", "header")]),
            (Kind::HeaderOnly, true) => None,
        }
    }
}

impl Bulk {
    pub fn plain(title: &str) -> Bulk {
        Bulk {
            name: "1k".into(),
            title: title.into(),
            size: 1000,
            partitions: 6,
            acks: "all",
            codec: "none",
            clients: 1,
            share: 1.0,
            kind: Kind::Plain,
            consumed: true,
            goals: [None; 3],
        }
    }

    /// The plain load, and what becomes of it with one thing changed.
    pub fn all() -> Vec<Bulk> {
        let case = |name: &str, title: &str, change: fn(&mut Bulk)| {
            let mut bulk = Bulk::plain(title);
            bulk.name = name.into();
            change(&mut bulk);
            bulk
        };
        let of = |part| Some(Goal::OfKafka(part));
        let mut all = vec![
            case("1k", LARGE, |_| {}),
            case("100b", "100 B, 6 partitions, acks=all", |b| {
                (b.size, b.share) = (100, 0.25);
            }),
            case("10k", "10 KB, 6 partitions, acks=all", |b| b.size = 10_000),
            case("1p", "1 KB, 1 partition, acks=all", |b| b.partitions = 1),
            case("100p", "1 KB, 100 partitions, acks=all", |b| {
                b.partitions = 100;
            }),
            case("acks1", "1 KB, 6 partitions, acks=1", |b| {
                (b.acks, b.consumed) = ("1", false);
            }),
            case("lz4", "1 KB, lz4, acks=all", |b| b.codec = "lz4"),
            case("zstd", "1 KB, zstd, acks=all", |b| b.codec = "zstd"),
            case("header", "1 KB, lz4, acks=all, header validated", |b| {
                (b.codec, b.kind, b.consumed) = ("lz4", Kind::HeaderOnly, false);
            }),
            case("16k", "16 KiB batches, four clients, acks=all", |b| {
                (b.clients, b.partitions, b.share, b.consumed) = (4, 4, 0.25, false);
            }),
            case("durable", DURABLE, |b| {
                (b.kind, b.consumed, b.share) = (Kind::Durable, false, 0.5);
            }),
        ];
        for bulk in &mut all {
            bulk.goals = match bulk.name.as_str() {
                "1k" => [of(0.33), of(0.35), of(0.06)],
                "100b" => [of(0.2), None, of(0.06)],
                "16k" => [of(0.1), None, of(0.06)],
                "lz4" | "zstd" => [of(0.7), None, of(0.06)],
                _ => [None; 3],
            };
        }
        all
    }

    /// Every size with every number of partitions, acks and codec.
    pub fn matrix() -> Vec<Bulk> {
        let mut all = Vec::new();
        for (size, name) in [(100, "100 B"), (1000, "1 KB"), (10_000, "10 KB")] {
            for partitions in [1, 6, 100] {
                for acks in ["all", "1"] {
                    for codec in ["none", "lz4", "zstd"] {
                        let title =
                            format!("{name}, {partitions} partitions, acks={acks}, {codec}");
                        all.push(Bulk {
                            name: title.replace(", ", "-").replace(' ', ""),
                            size,
                            partitions,
                            acks,
                            codec,
                            share: if size == 100 { 0.25 } else { 1.0 },
                            consumed: acks == "all",
                            ..Bulk::plain(&title)
                        });
                    }
                }
            }
        }
        all
    }

    pub fn produce(&self, session: &Session, topic: &str, records: usize) -> Command {
        let mut flags = vec![
            ("records", records.to_string()),
            ("size", self.size.to_string()),
            ("acks", self.acks.into()),
            ("codec", self.codec.into()),
        ];
        if self.clients > 1 {
            flags.push(("clients", self.clients.to_string()));
            flags.push(("pinned", "true".into()));
            flags.push(("batch", (16 << 10).to_string()));
        }
        session.load("produce", topic, &flags)
    }

    pub fn consume(&self, session: &Session, topic: &str, records: usize) -> Command {
        session.load("consume", topic, &[("records", records.to_string())])
    }

    pub fn run(&self, session: &mut Session) -> Result<()> {
        let Some(configs) = self.kind.configs(session) else {
            return Ok(());
        };
        session.highest_memory()?;
        let topic = session.topic(self.partitions, configs)?;
        let records = (session.settings.mib << 20) as f64 * self.share / self.size as f64;
        let records = records as usize;
        let told = session.told(self.produce(session, &topic, records))?;
        session.note(PRODUCE, None, told.mb_per_s()?);
        let per_s = told.get("records")? / told.get("seconds")? / 1e3;
        session.note(PRODUCE_RECORDS, None, per_s);
        session.note(CPU_IN, self.goals[0], told.cpu_per_gb()?);
        if self.consumed {
            let told = session.told(self.consume(session, &topic, records))?;
            session.note(CONSUME, None, told.mb_per_s()?);
            session.note(CPU_OUT, self.goals[1], told.cpu_per_gb()?);
        }
        let memory = session.highest_memory()?;
        session.note(HIGHEST_MEMORY, self.goals[2], memory);
        session.drop_topic(&topic)
    }
}

/// Requests of one record each at a fixed rate.
#[derive(Debug, Clone, Copy)]
pub struct Paced {
    pub name: &'static str,
    /// None: half of what Kafka takes at the most.
    rate: Option<f64>,
    end_to_end: bool,
    durable: bool,
}

pub const ALL_PACED: [Paced; 4] = [
    Paced {
        name: "rate",
        rate: Some(5000.0),
        end_to_end: false,
        durable: false,
    },
    Paced {
        name: "end-to-end",
        rate: Some(5000.0),
        end_to_end: true,
        durable: false,
    },
    Paced {
        name: "half",
        rate: None,
        end_to_end: true,
        durable: false,
    },
    Paced {
        name: "durable-rate",
        rate: Some(5000.0),
        end_to_end: false,
        durable: true,
    },
];

impl Paced {
    fn title(&self) -> &'static str {
        match (self.rate, self.end_to_end, self.durable) {
            (_, _, true) => DURABLE_5000,
            (None, ..) => "half of Kafka's most, consumed",
            (Some(_), true, _) => "5,000/s, consumed",
            (Some(_), false, _) => PACED_5000,
        }
    }

    pub fn run(&self, session: &mut Session) -> Result<()> {
        let rate = self.rate.or(session.settings.half_rate).unwrap_or(5000.0);
        let kind = if self.durable {
            Kind::Durable
        } else {
            Kind::Plain
        };
        let topic = session.topic(4, kind.configs(session).unwrap_or_default())?;
        let seconds = session.settings.seconds;
        let told = session.told(session.load(
            "paced",
            &topic,
            &paced_flags(rate, seconds, self.end_to_end),
        ))?;
        if self.rate.is_none() {
            session.note(RATE, None, told.get("records")? / told.get("seconds")?);
        }
        let goal = |part| (!self.durable && self.rate.is_some()).then_some(Goal::OfKafka(part));
        let micros = told.cpu / told.get("records")? * 1e6;
        let part = if self.end_to_end { 0.23 } else { 0.16 };
        session.note(CPU_REQUEST, goal(part), micros);
        let wanted: &[_] = if self.end_to_end { &END_MS } else { &[] };
        for (name, metric) in PRODUCE_MS.iter().chain(wanted) {
            let goal = match *name {
                "p99_ms" if !self.end_to_end => goal(0.1),
                "end_to_end_p99_ms" => goal(0.2),
                _ => None,
            };
            session.note(*metric, goal, told.get(name)?);
        }
        if self.end_to_end && told.get("read")? < told.get("records")? {
            return Err("not every record was read".into());
        }
        session.drop_topic(&topic)
    }

    pub fn case(&self, session: &mut Session) -> Result<()> {
        session.case(PACED, self.title(), |s| self.run(s))
    }
}

pub fn paced_flags(rate: f64, seconds: f64, end_to_end: bool) -> [(&'static str, String); 4] {
    [
        ("clients", "4".into()),
        ("rate", rate.to_string()),
        ("seconds", seconds.to_string()),
        ("end-to-end", end_to_end.to_string()),
    ]
}

/// Kafka's own tools. Their JVMs want most of two cores, so they tell about themselves, too.
pub fn perf_tools(session: &mut Session) -> Result<()> {
    session.case(TOOLS, "1000 B, 6 partitions, acks=all", |session| {
        let Some(java) = &session.settings.java else {
            return Err("java, javac or mvn is missing".into());
        };
        let records = (session.settings.mib << 18) / 1000;
        let bytes = records as f64 * 1000.0;
        let mut producer = java.class("org.apache.kafka.tools.ProducerPerformance");
        let mut consumer = java.class("org.apache.kafka.tools.ConsumerPerformance");
        let (topic, bootstrap) = (session.topic(6, &[])?, session.broker.bootstrap());
        let count = records.to_string();
        producer.args(["--topic", &topic, "--num-records", &count]);
        producer.args(["--record-size", "1000", "--throughput", "-1"]);
        producer.args(["--bootstrap-server", &bootstrap]);
        producer.args(["--command-property", "acks=all"]);
        let before = session.broker.cpu()?;
        let text = output(&mut producer)?;
        let cpu = session.broker.cpu()?.since(before);
        let (mib, p99) = closing_line(&text).ok_or_else(|| format!("it said: {text}"))?;
        session.note(PRODUCE, None, mib * 1.048_576);
        session.note(CPU_IN, None, cpu / (bytes / 1e9));
        session.note(TOOL_P99, None, p99);
        consumer.args(["--topic", &topic, "--num-records", &count]);
        consumer.args(["--hide-header", "--timeout", "60000"]);
        consumer.args(["--bootstrap-server", &bootstrap]);
        let before = session.broker.cpu()?;
        let text = output(&mut consumer)?;
        let cpu = session.broker.cpu()?.since(before);
        let line = text.lines().rfind(|l| l.split(", ").count() >= 9);
        let mib: f64 = line
            .and_then(|l| l.split(", ").nth(8))
            .ok_or_else(|| format!("it said: {text}"))?
            .parse()?;
        session.note(CONSUME, None, mib * 1.048_576);
        session.note(CPU_OUT, None, cpu / (bytes / 1e9));
        session.drop_topic(&topic)
    })
}

/// "N records sent, R records/sec (M MB/sec), … P ms 99th, …"; its MB are MiB.
fn closing_line(text: &str) -> Option<(f64, f64)> {
    let line = text.lines().rfind(|l| l.contains(" ms 99th"))?;
    let mib = line.split(" MB/sec").next()?.rsplit('(').next()?;
    let p99 = line.split(" ms 99th").next()?.rsplit(' ').next()?;
    Some((mib.parse().ok()?, p99.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_perf_tools_closing_line() {
        let line = "262144 records sent, 91000.0 records/sec (86.78 MB/sec), 210.10 ms avg latency, \
                    480.00 ms max latency, 200 ms 50th, 390 ms 95th, 401 ms 99th, 470 ms 99.9th.";
        assert_eq!(closing_line(line), Some((86.78, 401.0)));
    }

    #[test]
    fn the_matrix_is_whole_and_its_names_differ() {
        let names: std::collections::BTreeSet<_> =
            Bulk::matrix().into_iter().map(|b| b.name).collect();
        assert_eq!(names.len(), 3 * 3 * 2 * 3);
    }
}
