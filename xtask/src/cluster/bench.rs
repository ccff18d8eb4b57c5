//! `cargo xtask cluster-bench`: three nodes of Klamm beside three of a real Kafka, one cluster after
//! the other, in alternating order.
//!
//! What a client sees when a broker dies, leaves in order, or is the controller that dies; what
//! replicated records cost all brokers together; how fast replicas move.

use super::load::{Load, clients};
use super::nodes::{Nodes, Shown};
use super::tools::Move;
use super::{Scenario, TOPIC};
use crate::bench::{Goal, Metric, Results, figures, output, tables, write_tables};
use crate::broker::{Against, Cpu};
use crate::runtimes::{self, Java};
use crate::wire::{Connection, Writer};
use crate::{Flags, Result, cache};
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub const USAGE: &str =
    "cluster-bench [--rounds 2] [--brokers kafka,klamm] [--kills 2] [--mib 256] \
[--seconds 10] [--rate 1000] [--session-ms 9000] [--json FILE] [--write]
        cluster-bench --partitions 100000 [--brokers klamm]";

const FAULTS: &str = "Three nodes: what a client sees of faults";
const COSTS: &str = "Three nodes: replicated records (rf 3, acks=all, min.insync.replicas 2)";
const PARTITIONS: i32 = 6;

struct Settings {
    kills: u32,
    mib: usize,
    seconds: f64,
    rate: f64,
    session_ms: u32,
    /// Very many partitions instead of everything else.
    partitions: Option<i32>,
    loader: PathBuf,
    begun: Instant,
}

pub fn run(args: &[String]) -> Result<()> {
    let valued = [
        "rounds",
        "brokers",
        "kills",
        "mib",
        "seconds",
        "rate",
        "session-ms",
        "json",
        "partitions",
    ];
    let flags = Flags::with_switches(args, &valued, &["write"])?;
    let settings = Settings {
        kills: flags.number("kills", 2)?,
        mib: flags.number("mib", 256)?,
        seconds: flags.number("seconds", 10.0)?,
        rate: flags.number("rate", 1000.0)?,
        session_ms: flags.number("session-ms", 9000)?,
        partitions: flags.get("partitions").map(str::parse).transpose()?,
        loader: runtimes::go()?.join("load"),
        begun: Instant::now(),
    };
    let rounds: usize =
        flags.number("rounds", if settings.partitions.is_some() { 1 } else { 2 })?;
    let json = match flags.get("json") {
        Some(path) => PathBuf::from(path),
        None => cache::target().join("bench/cluster.json"),
    };
    let mut results = Results {
        machine: crate::bench::machine()?,
        command: format!("cluster-bench {}", args.join(" ")),
        ..Results::default()
    };
    for round in 1..=rounds {
        let brokers = flags.get("brokers").unwrap_or("kafka,klamm");
        let mut turn: Vec<&str> = brokers.split(',').collect();
        if round % 2 == 0 {
            turn.reverse();
        }
        for broker in turn {
            let mut bench = Bench::start(Against::parse(broker)?, &settings, &mut results)?;
            let done = match settings.partitions {
                Some(count) => bench.case("partitions", |b| b.many(count)),
                None => bench.all(),
            };
            bench.scenario.loads.clear();
            bench.scenario.nodes.stop()?;
            done?;
        }
        results.rounds = round;
        results.save(&json)?;
    }
    let text = tables(&results);
    println!("{text}");
    if flags.has("write") {
        write_tables(&cache::root().join("docs/reliability.md"), &text)?;
    }
    match results.failures.len() {
        0 => Ok(()),
        n => Err(format!("{n} cases failed:\n{}", results.failures.join("\n")).into()),
    }
}

/// A cluster under measurement.
pub(super) struct Bench<'a> {
    against: Against,
    settings: &'a Settings,
    results: &'a mut Results,
    pub(super) scenario: Scenario,
}

impl<'a> Bench<'a> {
    fn start(
        against: Against,
        settings: &'a Settings,
        results: &'a mut Results,
    ) -> Result<Bench<'a>> {
        let folder = cache::scratch(&format!("cluster-bench-{against}"))?;
        let session = settings.session_ms.to_string();
        let set = [
            ("broker.session.timeout.ms", &*session),
            ("log.segment.delete.delay.ms", "1000"),
        ];
        let mut scenario = Scenario {
            java: Java::prepare()?,
            nodes: Nodes::new(against, &folder, &set),
            folder,
            loads: Vec::new(),
        };
        // What Kafka's own scripts give it.
        scenario.nodes.heap = "1g";
        scenario.nodes.start()?;
        let bench = Bench {
            against,
            settings,
            results,
            scenario,
        };
        bench.say("three nodes are up");
        Ok(bench)
    }

    fn say(&self, line: &str) {
        let seconds = self.settings.begun.elapsed().as_secs();
        eprintln!(
            "[{:02}:{:02}] {} {line}",
            seconds / 60,
            seconds % 60,
            self.against
        );
    }

    fn all(&mut self) -> Result<()> {
        self.case("warm-up", |b| b.warm_up())?;
        self.case("throughput", |b| b.throughput())?;
        self.case("at a pace", |b| b.paced())?;
        self.case("reassignment", |b| b.reassignment())?;
        self.case("load", |b| b.start_load())?;
        for _ in 0..self.settings.kills {
            self.case("leader killed", |b| b.kill_a_leader())?;
            self.case("controller killed", |b| b.kill_the_controller())?;
        }
        self.case("controlled shutdown", |b| b.shut_down_a_leader())?;
        self.case("nothing lost", |b| b.scenario.finish())
    }

    /// Runs a case; a failure is kept, and the others go on.
    fn case(&mut self, name: &str, body: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if let Err(error) = body(self) {
            let who = self.against;
            self.say(&format!("{name}: FAILED: {error}"));
            self.results.failures.push(format!("{who} {name}: {error}"));
            if name == "load" {
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn note(
        &mut self,
        place: (&str, &str),
        metric: Metric,
        goal: Option<Goal>,
        value: f64,
    ) {
        let (case, name, unit) = (place.1, metric.name, metric.unit);
        self.say(&format!("{case}: {name} {value:.1} {unit}"));
        let broker = self.against.to_string();
        self.results.add(&broker, place, metric, goal, value);
    }

    /// The CPU seconds of all brokers since `before`.
    pub(super) fn cpu_since(&self, before: &[Cpu]) -> Result<f64> {
        let now = self.cpu()?;
        Ok(now
            .iter()
            .zip(before)
            .map(|(now, then)| now.since(*then))
            .sum())
    }

    pub(super) fn cpu(&self) -> Result<Vec<Cpu>> {
        self.scenario.nodes.all().map(|node| node.cpu()).collect()
    }

    fn loader(&self, verb: &str, topic: &str, flags: &[(&str, String)]) -> Command {
        let mut load = Command::new(&self.settings.loader);
        let bootstrap = self.scenario.nodes.bootstrap();
        let first = bootstrap.split(',').next().unwrap_or_default();
        load.args([verb, "-bootstrap", first, "-topic", topic]);
        for (name, value) in flags {
            load.arg(format!("-{name}={value}"));
        }
        load
    }

    fn records(&self, mib: usize) -> (&'static str, String) {
        ("records", ((mib << 20) / 1000).to_string())
    }

    fn delete(&self, topic: &str) -> Result<()> {
        self.scenario
            .topics(&["--delete", "--topic", topic])
            .map(drop)
    }

    fn warm_up(&mut self) -> Result<()> {
        self.scenario.create("warm-up", PARTITIONS, 3)?;
        let begun = Instant::now();
        while begun.elapsed().as_secs_f64() < self.settings.seconds {
            let records = self.records(self.settings.mib / 2);
            output(&mut self.loader("produce", "warm-up", &[records]))?;
        }
        let seconds = ("seconds", (self.settings.seconds / 2.0).to_string());
        let clients = ("clients", PARTITIONS.to_string());
        output(&mut self.loader("paced", "warm-up", &[seconds, clients]))?;
        self.delete("warm-up")
    }

    /// As many records as go, until all replicas have them.
    fn throughput(&mut self) -> Result<()> {
        let topic = "throughput";
        self.scenario.create(topic, PARTITIONS, 3)?;
        let before = self.cpu()?;
        let records = self.records(self.settings.mib);
        let told = figures(&output(&mut self.loader("produce", topic, &[records]))?)?;
        self.scenario.nodes.wait_in_sync(topic)?;
        // What the slowest replica still has to fetch, and the loader's last words.
        sleep(Duration::from_millis(300));
        let cpu = self.cpu_since(&before)?;
        let number = |name: &str| told.get(name).and_then(|v| v.as_f64()).unwrap_or(f64::NAN);
        let (bytes, seconds) = (number("bytes"), number("seconds"));
        let place = (COSTS, "records of 1 kB, as many as go");
        let goal = Some(Goal::OfKafka(0.5));
        let cpu_per_gb = cpu / (bytes / 1e9);
        self.note(
            place,
            Metric::less("CPU of all brokers", "s/GB"),
            goal,
            cpu_per_gb,
        );
        self.note(
            place,
            Metric::more("throughput", "MB/s"),
            None,
            bytes / seconds / 1e6,
        );
        self.delete(topic)
    }

    /// One record a request, at the same rate for both.
    fn paced(&mut self) -> Result<()> {
        let topic = "paced";
        self.scenario.create(topic, PARTITIONS, 3)?;
        let flags = [
            ("seconds", self.settings.seconds.to_string()),
            ("rate", self.settings.rate.to_string()),
            ("clients", PARTITIONS.to_string()),
        ];
        let before = self.cpu()?;
        let told = figures(&output(&mut self.loader("paced", topic, &flags))?)?;
        let cpu = self.cpu_since(&before)?;
        let number = |name: &str| told.get(name).and_then(|v| v.as_f64()).unwrap_or(f64::NAN);
        let place = (COSTS, "one record of 1 kB a request, at a rate");
        let goal = Some(Goal::OfKafka(0.5));
        self.note(
            place,
            Metric::less("produce p99", "ms"),
            goal,
            number("p99_ms"),
        );
        self.note(
            place,
            Metric::less("produce p50", "ms"),
            None,
            number("p50_ms"),
        );
        let cpu = cpu / number("records") * 1e6;
        self.note(
            place,
            Metric::less("CPU of all brokers", "µs/record"),
            None,
            cpu,
        );
        self.delete(topic)
    }

    /// Four partitions move from one broker to another.
    fn reassignment(&mut self) -> Result<()> {
        let topic = "moves";
        let create = [
            "--create",
            "--topic",
            topic,
            "--replica-assignment",
            "1,1,1,1",
        ];
        let config = ["--config", "min.insync.replicas=1"];
        self.scenario.topics(&[&create[..], &config[..]].concat())?;
        let records = self.records(self.settings.mib);
        output(&mut self.loader("produce", topic, &[records]))?;
        let plan: Vec<Move> = (0..4)
            .map(|partition| Move::of(topic, partition, &[2]))
            .collect();
        let before = self.cpu()?;
        // From when the brokers know of it: the tool's own start is no part of it.
        let began = |p: &Shown| p.replicas.contains(&2);
        let scenario = &self.scenario;
        let (took, moved) = std::thread::scope(|scope| {
            let moving = scope.spawn(|| {
                scenario
                    .move_replicas(&plan, None)
                    .map_err(|e| e.to_string())
            });
            let took = scenario
                .nodes
                .wait_until(topic, "moving", began)
                .and_then(|_| {
                    let there = |p: &Shown| p.replicas == [2];
                    scenario.nodes.wait_until(topic, "moved", there)
                });
            (took, moving.join())
        });
        moved.map_err(|_| "the tool's thread died")??;
        let cpu = self.cpu_since(&before)?;
        let mb = (self.settings.mib << 20) as f64 / 1e6;
        let place = (COSTS, "replicas move to another broker");
        let rate = mb / took?.as_secs_f64();
        self.note(place, Metric::more("throughput", "MB/s"), None, rate);
        let cpu = cpu / (mb / 1e3);
        self.note(place, Metric::less("CPU of all brokers", "s/GB"), None, cpu);
        self.delete(topic)
    }

    fn start_load(&mut self) -> Result<()> {
        let log = self.scenario.folder.join("load.log");
        let (_, client) = clients(&self.scenario.java, &log).remove(0);
        let topic = format!("{TOPIC}-java");
        self.scenario.create(&topic, PARTITIONS, 3)?;
        let load = Load::start(
            client?,
            &self.scenario.nodes.bootstrap(),
            &topic,
            PARTITIONS,
        )?;
        self.scenario.loads.push((topic, load));
        // What a JVM has not compiled yet is no pause of the brokers'.
        self.scenario.goes_on(3).map(drop)
    }

    fn load(&mut self) -> Result<&mut Load> {
        let load = self.scenario.loads.first_mut();
        Ok(&mut load.ok_or("there is no load")?.1)
    }

    /// Has something happen to a node and says how long a partition took no records; the node is
    /// back and in sync when this returns.
    fn outage(
        &mut self,
        node: i32,
        ends: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<(f64, f64)> {
        self.scenario.elect_preferred()?;
        self.scenario.goes_on(1)?;
        let before = self.load()?.gap()?;
        ends(self)?;
        // Twice: some partitions may go on while others do not yet.
        let patience = Duration::from_millis((self.settings.session_ms + 2000).into());
        let topic = format!("{TOPIC}-java");
        let led = |p: &Shown| p.leader > 0 && p.leader != node;
        let begun = Instant::now();
        while !self.partitions_but(&topic, node)?.iter().all(led) {
            if begun.elapsed() > patience * 3 {
                return Err("partitions without a leader".into());
            }
            sleep(Duration::from_millis(20));
        }
        self.scenario.goes_on(2)?;
        sleep(Duration::from_secs(1));
        let gap = self.load()?.gap()?;
        self.scenario.nodes.start_again(node)?;
        self.scenario.all_in_sync()?;
        Ok((gap.ms, gap.retries - before.retries))
    }

    fn partitions_but(&self, topic: &str, node: i32) -> Result<Vec<Shown>> {
        let shown = self.scenario.nodes.partitions(topic)?;
        Ok(shown.into_iter().filter(|p| p.replicas != [node]).collect())
    }

    /// A leader dies that does not decide.
    fn kill_a_leader(&mut self) -> Result<()> {
        let controller = self.scenario.active_controller()?;
        let leader = controller % 3 + 1;
        let (gap, _) = self.outage(leader, |b| b.scenario.nodes.node(leader)?.kill())?;
        let goal = Some(Goal::OfKafka(0.5));
        let metric = Metric::less("longest time without an acknowledgement", "ms");
        self.note((FAULTS, "kill -9 of a leader"), metric, goal, gap);
        Ok(())
    }

    /// The node dies that decides, and leads partitions: from then on until a topic is made.
    fn kill_the_controller(&mut self) -> Result<()> {
        let controller = self.scenario.active_controller()?;
        let mut decided = None;
        let (gap, _) = self.outage(controller, |b| {
            b.scenario.nodes.node(controller)?.kill()?;
            decided = Some(b.until_decided()?);
            Ok(())
        })?;
        let place = (FAULTS, "kill -9 of the node with the active controller");
        let metric = Metric::less("until a topic is created", "ms");
        let decided = decided.map_or(f64::NAN, |time: Duration| time.as_secs_f64() * 1e3);
        self.note(place, metric, None, decided);
        let metric = Metric::less("longest time without an acknowledgement", "ms");
        self.note(place, metric, Some(Goal::OfKafka(0.5)), gap);
        Ok(())
    }

    /// Creates a topic, and says how long it takes until somebody does that.
    fn until_decided(&self) -> Result<Duration> {
        let begun = Instant::now();
        let name = format!("decided-{}", self.settings.begun.elapsed().as_millis());
        while begun.elapsed() < Duration::from_secs(60) {
            for node in self
                .scenario
                .nodes
                .all()
                .filter(|node| node.pid().is_some())
            {
                let asked = node.connect().and_then(|mut c| create_topic(&mut c, &name));
                // Made, or made by a request whose answer was an error.
                if matches!(asked, Ok(0 | 36)) {
                    return Ok(begun.elapsed());
                }
            }
            sleep(Duration::from_millis(5));
        }
        Err("nobody decides after a minute".into())
    }

    /// A leader goes in order.
    fn shut_down_a_leader(&mut self) -> Result<()> {
        let controller = self.scenario.active_controller()?;
        let leader = controller % 3 + 1;
        let (gap, retries) =
            self.outage(leader, |b| b.scenario.nodes.node(leader)?.stop().map(drop))?;
        let place = (FAULTS, "controlled shutdown of a leader");
        let metric = Metric::less("longest time without an acknowledgement", "ms");
        self.note(place, metric, Some(Goal::OfKafka(0.5)), gap);
        self.note(place, Metric::less("records sent again", ""), None, retries);
        Ok(())
    }
}

/// CreateTopics v2 of one partition, with half a second for the controller; answers the error code.
fn create_topic(connection: &mut Connection, name: &str) -> std::io::Result<i16> {
    connection
        .stream
        .set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut body = Writer::default();
    body.i32(1).string(name).i32(1).i16(1).i32(0).i32(0);
    body.i32(500).i8(0);
    let answer = connection.call(19, 2, &body)?;
    let mut r = crate::wire::Reader(&answer);
    r.i32()?;
    r.i32()?;
    r.string()?;
    r.i16()
}
