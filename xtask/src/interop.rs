//! `cargo xtask interop`: Kafka's own tools and everybody's clients against Klamm, and the same
//! suites against a real Kafka, which is how the suites themselves are tested.

mod containers;
mod controllers;
mod franz_go;
mod handover;
mod log_dirs;
mod mixed;
mod quorum;
mod shares;
mod streams;

use crate::broker::{Against, Broker, Spec, cluster_id};
use crate::report::{Outcome, Report};
use crate::runtimes::{self, Java};
use crate::{Flags, Result, bad_input, cache, cluster, exactly_once, hello, snapshot};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

pub const USAGE: &str =
    "interop --against kafka|klamm [--only SUITE[.TEST]]… [--records 100000] [--record true]";

const SUITES: [&str; 25] = [
    "tools",
    "versions",
    "compaction",
    "java",
    "transactions",
    "librdkafka",
    "aiokafka",
    "franz-go",
    "sarama",
    "kafkajs",
    "cross",
    "dump",
    "bad-input",
    "hello",
    "compose",
    "handover",
    "cluster",
    "exactly-once",
    "quorum",
    "share-groups",
    "franz-go-tests",
    "streams-groups",
    "mixed-groups",
    "log-dirs",
    "containers",
];
const CLIENTS: [&str; 6] = [
    "java",
    "librdkafka",
    "aiokafka",
    "franz-go",
    "sarama",
    "kafkajs",
];
const SUITE_LIMIT: Duration = Duration::from_secs(600);
/// A test that takes longer than this is looked into.
const LOOK_AFTER: Duration = Duration::from_secs(40);

pub fn run(args: &[String]) -> Result<()> {
    let flags = Flags::parse(args, &["against", "only", "records", "record"])?;
    let against = Against::parse(flags.get("against").ok_or(USAGE)?)?;
    let only: Vec<&str> = flags.all("only").collect();
    for name in &only {
        let suite = name.split('.').next().unwrap_or_default();
        if !SUITES.contains(&suite) {
            return Err(format!("no suite '{suite}'; there are: {}", SUITES.join(", ")).into());
        }
    }
    let mut run = Run {
        against,
        only: only.iter().map(ToString::to_string).collect(),
        records: flags.number("records", 100_000)?,
        record: flags.get("record") == Some("true"),
        folder: cache::scratch(&format!("{against}"))?,
        report: Report::new(),
        wrote: Vec::new(),
        prefix: None,
    };
    if against == Against::Klamm {
        crate::broker::klamm_binary()?;
    }
    run.shared_broker_suites()?;
    if run.wants("bad-input") {
        bad_input::run(
            against,
            run.only_of("bad-input"),
            &run.folder,
            &mut run.report,
        )?;
    }
    if run.wants("hello") {
        hello::hello(against, &run.folder, &mut run.report);
    }
    if run.wants("compose") {
        hello::settings(against, &run.folder, &mut run.report);
    }
    if run.wants("share-groups") {
        run.share_groups()?;
    }
    if run.wants("franz-go-tests") {
        run.franz_go_tests()?;
    }
    if run.wants("streams-groups") {
        run.streams_groups()?;
    }
    if run.wants("mixed-groups") {
        run.mixed_groups()?;
    }
    // Against Kafka alone there is nobody to hand over to.
    if run.wants("handover") && against == Against::Klamm {
        run.handover()?;
    }
    if run.wants("cluster") {
        let extent = cluster::Extent::SHORT;
        cluster::suite(against, extent, &run.folder, &mut run.report);
    }
    if run.wants("exactly-once") {
        exactly_once::suite(against, &run.folder, &mut run.report);
    }
    if run.wants("quorum") {
        run.quorum()?;
    }
    if run.wants("log-dirs") {
        run.log_dirs()?;
    }
    if run.wants("containers") {
        run.containers()?;
    }
    run.report.close()
}

struct Run {
    against: Against,
    only: Vec<String>,
    records: usize,
    record: bool,
    folder: PathBuf,
    report: Report,
    /// The clients whose records lie on the broker.
    wrote: Vec<&'static str>,
    /// What the names of tests are told with, where a suite runs as a part of another.
    prefix: Option<&'static str>,
}

impl Run {
    fn wants(&self, suite: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|o| o.split('.').next() == Some(suite))
    }

    /// The part of `--only suite.test` to give to the suite.
    fn only_of(&self, suite: &str) -> Option<String> {
        let mine: Vec<&String> = self
            .only
            .iter()
            .filter(|o| o.split('.').next() == Some(suite))
            .collect();
        match mine.as_slice() {
            [one] if one.contains('.') => Some((*one).clone()),
            _ => None,
        }
    }

    /// The suites that share one broker; then it is stopped and its files are looked at.
    fn shared_broker_suites(&mut self) -> Result<()> {
        let shared = [
            "tools",
            "versions",
            "compaction",
            "java",
            "transactions",
            "librdkafka",
            "aiokafka",
            "franz-go",
            "sarama",
            "kafkajs",
            "cross",
            "dump",
        ];
        if !shared.iter().any(|s| self.wants(s)) {
            return Ok(());
        }
        let spec = Spec::new(self.folder.join("shared"))?;
        let mut broker = match Broker::start(self.against, spec) {
            Ok(broker) => broker,
            Err(e) => {
                self.report
                    .tell("broker.start", Outcome::Fail(e.to_string()), None);
                return Ok(());
            }
        };
        let java = Java::prepare();
        if self.wants("tools") {
            self.java(&java, "tools", &broker, &[]);
        }
        if self.wants("versions") {
            self.java(&java, "versions", &broker, &[]);
        }
        if self.wants("compaction") {
            self.java(&java, "compaction", &broker, &[]);
        }
        if self.wants("transactions") {
            self.java(&java, "transactions", &broker, &[]);
        }
        let clients: Vec<&str> = CLIENTS.into_iter().filter(|c| self.wants(c)).collect();
        for client in clients {
            self.client(client, &java, &broker);
        }
        if self.wants("cross") && !self.wrote.is_empty() {
            let clients = self.wrote.join(",");
            self.java(&java, "cross", &broker, &["--clients", &clients]);
        }
        self.report
            .test("broker.ends-cleanly", || broker.stop().map(drop));
        // The dump suite looks for what the tools suite has left.
        if self.wants("dump") && self.wants("tools") {
            self.java(&java, "dump", &broker, &[]);
        }
        Ok(())
    }

    fn client(&mut self, client: &'static str, java: &Result<Java>, broker: &Broker) {
        let arguments = [broker.bootstrap(), self.records.to_string()];
        let scripts = cache::root().join("interop/python");
        let command = match client {
            "java" => {
                self.wrote.push(client);
                return self.java(java, "java", broker, &[]);
            }
            "librdkafka" | "aiokafka" => runtimes::python().map(|python| {
                let mut command = Command::new(python);
                command.arg(scripts.join(format!("suite_{client}.py")));
                command.env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }),
            "franz-go" => runtimes::go().map(|folder| Command::new(folder.join("suite"))),
            "sarama" => runtimes::go().map(|folder| Command::new(folder.join("sarama"))),
            _ => runtimes::node().map(|folder| {
                let mut command = Command::new("node");
                command.arg(folder.join("suite.js"));
                command
            }),
        };
        match command {
            Ok(mut command) => {
                command.args(arguments).args(self.only_of(client));
                self.wrote.push(client);
                self.child(client, command, broker);
            }
            Err(e) => self.report.missing(client, &e.to_string()),
        }
    }

    fn java(&mut self, java: &Result<Java>, suite: &str, broker: &Broker, more: &[&str]) {
        let java = match java {
            Ok(java) => java,
            Err(e) => return self.report.missing(suite, &e.to_string()),
        };
        let data = broker.spec.data();
        let mut command = java.driver(suite, &self.folder.join(format!("{suite}.clients.log")));
        command.args(["--bootstrap", &broker.bootstrap()]);
        command.args(["--records", &self.records.to_string()]);
        command.arg("--log-dir").arg(&data);
        command.arg("--work-dir").arg(self.folder.join("work"));
        command
            .arg("--golden")
            .arg(cache::root().join("interop/golden"));
        if let Ok(id) = cluster_id(&data) {
            command.args(["--cluster-id", &id]);
        }
        if let Some(only) = self.only_of(suite) {
            command.args(["--only", &only]);
        }
        if self.record && self.against == Against::Kafka {
            command.args(["--record", "true"]);
        }
        command.args(more);
        self.child(suite, command, broker);
    }

    fn child(&mut self, suite: &str, command: Command, broker: &Broker) {
        let log = self.folder.join(format!("{suite}.log"));
        let clients = self.folder.join(format!("{suite}.clients.log"));
        let look = || {
            format!(
                "{}broker log:\n{}\nclients' log:\n{}",
                broker.pid().map(snapshot::of_process).unwrap_or_default(),
                snapshot::tail(&broker.spec.folder.join("log"), 12),
                snapshot::tail(&clients, 12),
            )
        };
        if let Err(e) = run_child(command, suite, &log, self.prefix, &mut self.report, look) {
            self.report.tell(
                suite,
                Outcome::Fail(format!("{e}; see {}", log.display())),
                None,
            );
        }
    }
}

/// Runs a suite that is a program of its own: each line `pass|fail|skip|stall TAB name TAB detail` of its
/// output is a test; the rest goes to the log.
///
/// `look` tells what the broker is doing; it is asked when a test takes long, and told if that test
/// then fails.
fn run_child(
    mut command: Command,
    suite: &str,
    log: &Path,
    prefix: Option<&str>,
    report: &mut Report,
    look: impl Fn() -> String,
) -> Result<()> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(log)?);
    let mut child = command.spawn()?;
    let (lines, incoming) = mpsc::channel();
    let stdout = child.stdout.take().ok_or("no standard output")?;
    let reader = std::thread::spawn(move || {
        let mut raw = Vec::new();
        let mut stdout = BufReader::new(stdout);
        while matches!(stdout.by_ref().read_until(b'\n', &mut raw), Ok(n) if n > 0) {
            let line = String::from_utf8_lossy(&raw).trim_end().to_string();
            raw.clear();
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let end = Instant::now() + SUITE_LIMIT;
    let mut told = 0;
    let mut looked = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let line = match incoming.recv_timeout(left.min(LOOK_AFTER)) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) if left > LOOK_AFTER => {
                looked.get_or_insert_with(&look);
                continue;
            }
            Err(_) => break,
        };
        let mut fields = line.splitn(3, '\t');
        let (kind, name) = (fields.next().unwrap_or_default(), fields.next());
        let detail = unescape(fields.next().unwrap_or_default());
        let (Some(name), true) = (name, ["pass", "fail", "skip", "stall"].contains(&kind)) else {
            continue;
        };
        let detail = match (kind, looked.take()) {
            ("fail" | "stall", Some(looked)) => {
                format!("{detail}\nwhile it ran:\n{looked}\nnow:\n{}", look())
            }
            _ => detail,
        };
        told += 1;
        let took = detail.strip_suffix(" ms").and_then(|ms| ms.parse().ok());
        let outcome = match kind {
            "pass" => Outcome::Pass,
            "fail" => Outcome::Fail(detail),
            "stall" => Outcome::Stall(detail),
            _ => Outcome::Skip(detail),
        };
        let name = prefix.map_or_else(|| name.to_string(), |prefix| format!("{prefix}.{name}"));
        report.tell(&name, outcome, took.map(Duration::from_millis));
    }
    let timed_out = child.try_wait()?.is_none() && Instant::now() >= end;
    if timed_out {
        child.kill()?;
    }
    let status = child.wait()?;
    // Grandchildren may hold the pipe; the thread ends with them.
    drop(reader);
    if timed_out {
        return Err(format!("not done after {} s", SUITE_LIMIT.as_secs()).into());
    }
    if !status.success() {
        return Err(format!("the suite ended with {status}").into());
    }
    if told == 0 {
        return Err(format!("no test of {suite} ran").into());
    }
    Ok(())
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (c, c == '\\') {
            (_, true) => match rest.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => {}
            },
            (c, _) => out.push(c),
        }
    }
    out
}
