//! `cargo xtask exactly-once`, and a short form of it in `cargo xtask interop`: programs that promise
//! exactly once on three brokers, while brokers and the programs themselves are ended by `kill -9`.
//! Two workers consume, transform and produce in transactions; Kafka Streams counts words; a share
//! group takes records. What comes out is read along and must be what a model says.

use crate::broker::Against;
use crate::cluster::SETTINGS;
use crate::cluster::load::Load;
use crate::cluster::nodes::Nodes;
use crate::report::Report;
use crate::runtimes::Java;
use crate::wire::Connection;
use crate::{Flags, Result, cache};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const USAGE: &str =
    "exactly-once [--against klamm] [--minutes 30] [--seed 1] [--parts loop,words,shares]";

/// What the programs read and write, with the number of partitions.
const TOPICS: [(&str, i32); 5] = [
    ("eos-in", 6),
    ("eos-out", 6),
    ("eos-lines", 4),
    ("eos-counts", 4),
    ("eos-shared", 3),
];
const GROUP: &str = "eos-loop";
const SHARE_STATE: &str = "__share_group_state";
const PARTS: &str = "loop,words,shares";
/// The id of the application that counts words, and of its group.
const APPLICATION: &str = "eos-words";
/// Records a second into each part.
const RATE: &str = "120";
/// How many more records must come out of each part before a fault counts as overcome.
const HEADWAY: u64 = 200;
/// How long nothing may come out: detection, election, sessions and transactions that time out.
const OUTAGE_MAX: Duration = Duration::from_secs(90);

/// As long may the first records take: JVMs are slow to start on a busy machine.
const START_MAX: Duration = Duration::from_secs(180);

/// Faults show soon, and internal topics are small.
const CONFIGS: [(&str, &str); 17] = [
    ("transaction.state.log.num.partitions", "3"),
    (
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        "1000",
    ),
    ("share.coordinator.state.topic.replication.factor", "3"),
    ("share.coordinator.state.topic.min.isr", "2"),
    ("share.coordinator.state.topic.num.partitions", "1"),
    ("group.consumer.session.timeout.ms", "6000"),
    ("group.consumer.min.session.timeout.ms", "6000"),
    ("group.consumer.heartbeat.interval.ms", "1000"),
    ("group.consumer.min.heartbeat.interval.ms", "1000"),
    ("group.min.session.timeout.ms", "6000"),
    ("group.streams.session.timeout.ms", "6000"),
    ("group.streams.min.session.timeout.ms", "6000"),
    ("group.streams.heartbeat.interval.ms", "1000"),
    ("group.streams.min.heartbeat.interval.ms", "1000"),
    ("group.streams.initial.rebalance.delay.ms", "500"),
    ("group.streams.assignment.interval.ms", "200"),
    ("klamm.metrics.listeners", ""),
];

pub fn run(args: &[String]) -> Result<()> {
    let flags = Flags::parse(args, &["against", "minutes", "seed", "parts"])?;
    let against = Against::parse(flags.get("against").unwrap_or("klamm"))?;
    let minutes: u64 = flags.number("minutes", 30)?;
    let seed = flags.number("seed", 1)?;
    let mut report = Report::new();
    let folder = cache::scratch(&format!("exactly-once-{against}"))?;
    let cast = Cast {
        parts: flags.get("parts").unwrap_or(PARTS),
        ..CAST
    };
    let Some(mut scenario) = start(against, &folder, cast, &mut report) else {
        return report.close();
    };
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let mut dice = Dice(seed);
    let mut rounds = 0;
    let name = format!("exactly-once.{minutes}-minutes-from-seed-{seed}");
    report.test(&name, || {
        while Instant::now() < end {
            rounds += 1;
            scenario.random_fault(rounds, &mut dice)?;
        }
        Ok(())
    });
    println!("      {rounds} faults");
    finish(scenario, &mut report);
    report.close()
}

/// Who takes part.
#[derive(Debug, Clone, Copy)]
struct Cast<'a> {
    /// What the tests' names begin with.
    suite: &'static str,
    parts: &'a str,
    /// The group protocol of each instance that counts words.
    words: &'static [&'static str],
}

const CAST: Cast = Cast {
    suite: "exactly-once",
    parts: PARTS,
    words: &["classic"],
};

type Fault = fn(&mut Scenario) -> Result<()>;

/// The short form, less than a minute of faults.
pub fn suite(against: Against, folder: &Path, report: &mut Report) {
    let Some(mut scenario) = start(against, folder, CAST, report) else {
        return;
    };
    let faults: [(&str, Fault); 5] = [
        ("transaction-coordinator-killed", |s| {
            let node = s.nodes.coordinator(1, "eos-worker-0")?;
            s.without_broker(node)
        }),
        ("group-coordinator-killed", |s| {
            let node = s.nodes.coordinator(0, GROUP)?;
            s.without_broker(node)
        }),
        ("clients-killed", |s| {
            s.restart_client(0)?;
            s.restart_client(2)?;
            s.make_headway()
        }),
        ("share-coordinator-killed", |s| {
            let node = s.leader(SHARE_STATE, 0)?;
            s.without_broker(node)
        }),
        ("two-brokers-killed", |s| {
            let node = s.leader("eos-out", 0)?;
            s.restart_brokers(&[node, node % 3 + 1])?;
            s.make_headway()
        }),
    ];
    for (name, fault) in faults {
        report.test(&format!("exactly-once.{name}"), || fault(&mut scenario));
    }
    finish(scenario, report);
}

/// A streams group of two instances on three brokers, of which its coordinator dies, and then an
/// instance.
pub fn streams_group(against: Against, folder: &Path, report: &mut Report) {
    let cast = Cast {
        suite: "streams-groups.three-brokers",
        parts: "words",
        words: &["streams", "streams"],
    };
    let Some(mut scenario) = start(against, folder, cast, report) else {
        return;
    };
    let faults: [(&str, Fault); 2] = [
        ("three-brokers.coordinator-killed", |s| {
            let node = s.nodes.coordinator(0, APPLICATION)?;
            s.without_broker(node)
        }),
        ("three-brokers.instance-killed", |s| {
            s.restart_client(0)?;
            s.make_headway()
        }),
    ];
    for (name, fault) in faults {
        report.test(&format!("streams-groups.{name}"), || fault(&mut scenario));
    }
    finish(scenario, report);
}

fn start(against: Against, folder: &Path, cast: Cast<'_>, report: &mut Report) -> Option<Scenario> {
    let suite = cast.suite;
    let java = match Java::prepare() {
        Ok(java) => java,
        Err(e) => {
            report.missing(suite, &e.to_string());
            return None;
        }
    };
    let mut started = None;
    report.test(&format!("{suite}.start"), || {
        let folder = folder.join(suite);
        std::fs::create_dir_all(&folder)?;
        started = Some(Scenario::start(against, java, folder, cast)?);
        Ok(())
    });
    started
}

fn finish(mut scenario: Scenario, report: &mut Report) {
    let suite = scenario.suite;
    let name = |test: &str| format!("{suite}.{test}");
    report.test(&name("equals-the-model"), || scenario.finish());
    report.test(&name("ends-cleanly"), || scenario.nodes.stop());
}

/// A program that is killed and started again.
struct Client {
    command: Command,
    child: Option<Child>,
}

impl Client {
    fn start(mut command: Command) -> Result<Client> {
        // It ends with its input, should this one be ended.
        command.stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut client = Client {
            command,
            child: None,
        };
        client.start_again()?;
        Ok(client)
    }

    fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn start_again(&mut self) -> Result<()> {
        self.child = Some(self.command.spawn()?);
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

struct Scenario {
    against: Against,
    suite: &'static str,
    nodes: Nodes,
    /// Two workers, then those that count words.
    clients: Vec<Client>,
    load: Option<Load>,
    folder: PathBuf,
}

impl Scenario {
    fn start(against: Against, java: Java, folder: PathBuf, cast: Cast<'_>) -> Result<Scenario> {
        let parts = cast.parts;
        let settings = [&SETTINGS[..], &CONFIGS[..]].concat();
        let mut nodes = Nodes::new(against, &folder, &settings);
        nodes.start()?;
        let bootstrap = nodes.bootstrap();
        let port = bootstrap.rsplit(':').next().unwrap_or_default().parse()?;
        let mut connection = Connection::open(port)?;
        for (topic, partitions) in TOPICS {
            let error = connection.create_replicated_topic(topic, partitions, 3, &[])?;
            if error != 0 {
                return Err(format!("topic {topic} is not made: error {error}").into());
            }
        }
        for (topic, _) in TOPICS {
            nodes.wait_in_sync(topic)?;
        }
        let program = |name: &str, log: &str, more: &[(&str, &str)]| {
            let mut command = java.driver(name, &folder.join(log));
            command.args(["--bootstrap", &bootstrap]);
            for (option, value) in more {
                command.args([*option, *value]);
            }
            command
        };
        let mut clients = Vec::new();
        if parts.contains("loop") {
            for id in ["0", "1"] {
                let more = [("--id", id), ("--protocol", "consumer")];
                let worker = program("exactly-once-worker", &format!("worker-{id}.log"), &more);
                clients.push(Client::start(worker)?);
            }
        }
        if parts.contains("words") {
            for (n, protocol) in cast.words.iter().enumerate() {
                let state = folder
                    .join(format!("streams-state-{n}"))
                    .display()
                    .to_string();
                let more = [("--state-dir", &*state), ("--protocol", *protocol)];
                let words = program("word-count", &format!("words-{n}.log"), &more);
                clients.push(Client::start(words)?);
            }
        }
        let more = [("--parts", parts), ("--rate", RATE)];
        let load = Load::of(
            "exactly-once",
            0,
            program("exactly-once-load", "load.log", &more),
        )?;
        load.wait_for_progress(0, HEADWAY, against.patience(START_MAX))
            .map_err(|e| format!("{e}{}", nodes.logs()))?;
        Ok(Scenario {
            against,
            suite: cast.suite,
            nodes,
            clients,
            load: Some(load),
            folder,
        })
    }

    fn load(&self) -> Result<&Load> {
        self.load.as_ref().ok_or_else(|| "there is no load".into())
    }

    fn leader(&self, topic: &str, partition: usize) -> Result<i32> {
        let partitions = self.nodes.partitions(topic)?;
        match partitions.get(partition).map(|shown| shown.leader) {
            Some(leader @ 1..=3) => Ok(leader),
            other => Err(format!("{other:?} leads {topic}-{partition}").into()),
        }
    }

    /// Waits until all parts have gone on.
    fn make_headway(&self) -> Result<()> {
        let load = self.load()?;
        let limit = self.against.patience(OUTAGE_MAX);
        let went_on = load.wait_for_progress(load.acked(), HEADWAY, limit);
        let took = went_on.map_err(|e| {
            format!(
                "{e}; clients' logs: {}{}",
                self.folder.display(),
                self.nodes.logs()
            )
        })?;
        println!("      {HEADWAY} records more after {} ms", took.as_millis());
        Ok(())
    }

    fn wait_in_sync(&self) -> Result<()> {
        for (topic, _) in TOPICS {
            self.nodes.wait_in_sync(topic)?;
        }
        for topic in ["__consumer_offsets", "__transaction_state"] {
            self.nodes.wait_in_sync(topic)?;
        }
        Ok(())
    }

    /// A broker dies, everything goes on without it, and it comes back.
    fn without_broker(&mut self, id: i32) -> Result<()> {
        self.wait_in_sync()?;
        self.nodes.node(id)?.kill()?;
        println!("      node {id} is dead");
        self.make_headway()?;
        self.nodes.start_again(id)
    }

    /// Brokers die at the same time and come back at once.
    fn restart_brokers(&mut self, ids: &[i32]) -> Result<()> {
        for id in ids {
            self.nodes.node(*id)?.kill()?;
        }
        for id in ids {
            self.nodes.node(*id)?.spawn()?;
        }
        for id in ids {
            self.nodes.wait_for_members(*id)?;
        }
        Ok(())
    }

    fn restart_client(&mut self, place: usize) -> Result<()> {
        if let Some(client) = self.clients.get_mut(place) {
            client.kill()?;
            client.start_again()?;
        }
        Ok(())
    }

    fn random_fault(&mut self, round: u32, dice: &mut Dice) -> Result<()> {
        let node = dice.below(3) as i32 + 1;
        let client = dice.below(self.clients.len().max(1) as u64) as usize;
        std::thread::sleep(Duration::from_millis(dice.below(3_000)));
        let kind = dice.below(10);
        println!("      fault {round}: {kind}, node {node}, client {client}");
        match kind {
            0..=2 => return self.without_broker(node),
            3..=4 => self.restart_brokers(&[node])?,
            5 => self.restart_brokers(&[node, node % 3 + 1])?,
            6..=7 => self.restart_client(client)?,
            8 => {
                self.restart_client(client)?;
                self.restart_brokers(&[node])?;
            }
            _ => {
                for place in 0..self.clients.len() {
                    self.restart_client(place)?;
                }
            }
        }
        self.make_headway()
    }

    fn finish(&mut self) -> Result<()> {
        let load = self.load.take().ok_or("there is no load")?;
        let verdict = load.finish();
        let verdict = verdict.map_err(|e| format!("{e}{}", self.nodes.logs()))?;
        println!("      {verdict}");
        for client in &mut self.clients {
            client.kill()?;
        }
        Ok(())
    }
}

/// Numbers that a seed tells (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        let mut x = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0 = x;
        (x >> 16) % end
    }
}
