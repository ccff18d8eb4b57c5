//! Throughput and CPU under Kafka's own perf tools and under franz-go.

use super::{BOTH, header, median, row};
use crate::broker::{Broker, Spec};
use crate::runtimes::{self, Java};
use crate::wire::Connection;
use crate::{Result, cache};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const PARTITIONS: i32 = 6;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    PerfTest,
    FranzGo,
}

#[derive(Clone, Copy)]
struct Load {
    tool: Tool,
    record_bytes: usize,
    acks: &'static str,
}

const LOADS: [Load; 6] = [
    Load {
        tool: Tool::PerfTest,
        record_bytes: 1000,
        acks: "all",
    },
    Load {
        tool: Tool::PerfTest,
        record_bytes: 1000,
        acks: "1",
    },
    Load {
        tool: Tool::PerfTest,
        record_bytes: 100,
        acks: "all",
    },
    Load {
        tool: Tool::PerfTest,
        record_bytes: 100,
        acks: "1",
    },
    Load {
        tool: Tool::FranzGo,
        record_bytes: 1000,
        acks: "all",
    },
    Load {
        tool: Tool::FranzGo,
        record_bytes: 100,
        acks: "all",
    },
];

/// One direction of one load on one broker.
#[derive(Default, Clone)]
struct Figures {
    mb_per_s: Vec<f64>,
    cpu_s_per_gb: Vec<f64>,
    p99_ms: Vec<f64>,
}

struct Bench {
    java: Java,
    go: PathBuf,
    mib: usize,
}

pub fn run(turns: usize, mib: usize) -> Result<()> {
    let bench = Bench {
        java: Java::prepare()?,
        go: runtimes::go()?,
        mib,
    };
    let mut brokers = Vec::new();
    for against in BOTH {
        let spec = Spec::new(cache::scratch(&format!("bench-load-{against}"))?)?;
        brokers.push(Broker::start(against, spec)?);
    }
    let mut produce = vec![[Figures::default(), Figures::default()]; LOADS.len()];
    let mut consume = produce.clone();
    for turn in 0..=turns {
        for (i, load) in LOADS.into_iter().enumerate() {
            for (b, broker) in brokers.iter().enumerate() {
                let topic = format!("load-{turn}-{i}");
                let (written, read) = bench.turn(load, broker, &topic)?;
                // The first turn warms up the JVM of the broker and the disk.
                if turn > 0 {
                    produce[i][b].add(&written);
                    consume[i][b].add(&read);
                }
            }
        }
        eprintln!("turn {turn} of {turns} done");
    }
    for (title, figures) in [("Produce", &produce), ("Consume", &consume)] {
        header(title);
        for (load, [klamm, kafka]) in LOADS.iter().zip(figures) {
            // To a consumer both are the same.
            if title == "Consume" && load.acks == "1" {
                continue;
            }
            let name = load.name(title == "Produce");
            let both = |pick: fn(&Figures) -> &Vec<f64>| {
                (median(pick(klamm).clone()), median(pick(kafka).clone()))
            };
            let (a, b) = both(|f| &f.mb_per_s);
            row(&name, "MB/s", a, b);
            let (a, b) = both(|f| &f.cpu_s_per_gb);
            row(&format!("{name}: broker CPU"), "s/GB", a, b);
            if !klamm.p99_ms.is_empty() {
                let (a, b) = both(|f| &f.p99_ms);
                row(&format!("{name}: 99th percentile"), "ms", a, b);
            }
        }
        println!();
    }
    header("After the load");
    let memory: Vec<f64> = brokers
        .iter()
        .map(|b| b.memory_mib().map(|m| m.1))
        .collect::<Result<_>>()?;
    row("highest resident memory", "MiB", memory[0], memory[1]);
    println!();
    for broker in &mut brokers {
        broker.stop()?;
    }
    Ok(())
}

impl Load {
    fn name(&self, produce: bool) -> String {
        let tool = if self.tool == Tool::PerfTest {
            "Kafka's perf tool"
        } else {
            "franz-go"
        };
        let acks = if produce {
            format!(", acks={}", self.acks)
        } else {
            String::new()
        };
        format!("{tool}, {} B{acks}", self.record_bytes)
    }
}

impl Figures {
    fn add(&mut self, other: &Figures) {
        self.mb_per_s.extend(&other.mb_per_s);
        self.cpu_s_per_gb.extend(&other.cpu_s_per_gb);
        self.p99_ms.extend(&other.p99_ms);
    }
}

impl Bench {
    fn turn(&self, load: Load, broker: &Broker, topic: &str) -> Result<(Figures, Figures)> {
        let mut connection = Connection::open(broker.spec.port)?;
        let code = connection.create_topic(topic, PARTITIONS, &[])?;
        if code != 0 {
            return Err(format!("{topic} cannot be created: {code}").into());
        }
        // Small records cost the client most; fewer bytes of them say as much.
        let bytes = (self.mib << 20) / if load.record_bytes < 500 { 4 } else { 1 };
        let records = bytes / load.record_bytes;
        let written = measured(broker, bytes, || self.produce(load, broker, topic, records))?;
        let read = measured(broker, bytes, || self.consume(load, broker, topic, records))?;
        delete(&mut connection, topic)?;
        Ok((written, read))
    }

    fn produce(
        &self,
        load: Load,
        broker: &Broker,
        topic: &str,
        records: usize,
    ) -> Result<Vec<f64>> {
        let (records, size) = (records.to_string(), load.record_bytes.to_string());
        if load.tool == Tool::FranzGo {
            let go = self.franz_go(broker);
            return franz_go(go, &[topic, "produce", &records, &size, load.acks]);
        }
        let mut tool = self
            .java
            .class("org.apache.kafka.tools.ProducerPerformance");
        tool.args([
            "--topic",
            topic,
            "--num-records",
            &records,
            "--record-size",
            &size,
        ]);
        tool.args([
            "--throughput",
            "-1",
            "--bootstrap-server",
            &broker.bootstrap(),
        ]);
        tool.args(["--command-property", &format!("acks={}", load.acks)]);
        let text = output(tool)?;
        let last = text
            .lines()
            .rfind(|l| l.contains("99th"))
            .ok_or("no closing line")?;
        // "N records sent, R records/sec (M MB/sec), … P ms 99th, …"; M is in MiB.
        let mib = between(last, "(", " MB/sec").ok_or("no MB/sec")?;
        let p99 = last
            .split(" ms 99th")
            .next()
            .and_then(|l| l.rsplit(' ').next());
        let p99: f64 = p99.ok_or("no 99th")?.parse()?;
        Ok(vec![mib * 1.048_576, p99])
    }

    fn consume(
        &self,
        load: Load,
        broker: &Broker,
        topic: &str,
        records: usize,
    ) -> Result<Vec<f64>> {
        let (records, size) = (records.to_string(), load.record_bytes.to_string());
        if load.tool == Tool::FranzGo {
            return franz_go(self.franz_go(broker), &[topic, "consume", &records, &size]);
        }
        let mut tool = self
            .java
            .class("org.apache.kafka.tools.ConsumerPerformance");
        tool.args(["--topic", topic, "--num-records", &records, "--hide-header"]);
        tool.args([
            "--timeout",
            "60000",
            "--bootstrap-server",
            &broker.bootstrap(),
        ]);
        let text = output(tool)?;
        let line = text
            .lines()
            .rfind(|l| l.split(", ").count() >= 9)
            .ok_or("no closing line")?;
        let mib: f64 = line.split(", ").nth(8).unwrap_or_default().parse()?;
        Ok(vec![mib * 1.048_576])
    }

    fn franz_go(&self, broker: &Broker) -> Command {
        let mut go = Command::new(self.go.join("load"));
        go.arg(broker.bootstrap());
        go
    }
}

/// Runs one direction and sets the broker's CPU time against the bytes.
fn measured(
    broker: &Broker,
    bytes: usize,
    body: impl FnOnce() -> Result<Vec<f64>>,
) -> Result<Figures> {
    let before = broker.cpu_seconds()?;
    let told = body()?;
    let cpu = broker.cpu_seconds()? - before;
    Ok(Figures {
        mb_per_s: told.first().copied().into_iter().collect(),
        cpu_s_per_gb: vec![cpu / (bytes as f64 / 1e9)],
        p99_ms: told.get(1).copied().into_iter().collect(),
    })
}

fn franz_go(mut command: Command, arguments: &[&str]) -> Result<Vec<f64>> {
    command.args(arguments);
    let text = output(command)?;
    let fields: Vec<f64> = text
        .split_whitespace()
        .filter_map(|f| f.parse().ok())
        .collect();
    match fields[..] {
        [_, bytes, seconds] => Ok(vec![bytes / seconds / 1e6]),
        _ => Err(format!("franz-go said: {text}").into()),
    }
}

fn output(mut command: Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() {
        return Ok(text);
    }
    Err(format!(
        "{command:?}: {}\n{text}{}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    )
    .into())
}

fn between(text: &str, before: &str, after: &str) -> Option<f64> {
    let (head, _) = text.split_once(after)?;
    head.rsplit(before).next()?.parse().ok()
}

/// DeleteTopics v1.
fn delete(connection: &mut Connection, topic: &str) -> Result<()> {
    let mut body = crate::wire::Writer::default();
    body.i32(1).string(topic).i32(30_000);
    connection.call(20, 1, &body)?;
    Ok(())
}
