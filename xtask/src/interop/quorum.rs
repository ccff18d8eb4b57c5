//! Three nodes, each broker and controller, under Kafka's tools: what any of them is told all of them
//! know, and the controller that decides may die.

use super::Run;
use crate::Result;
use crate::broker::{Broker, Spec, free_port};
use crate::runtimes::Java;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

const CLUSTER_ID: &str = "cXVvcnVtLW9mLXRocmVlMQ";
pub(super) const QUORUM_TOOL: &str = "org.apache.kafka.tools.MetadataQuorumCommand";
pub(super) const TOPICS_TOOL: &str = "org.apache.kafka.tools.TopicCommand";
pub(super) const CLUSTER_TOOL: &str = "org.apache.kafka.tools.ClusterTool";
pub(super) const FEATURES_TOOL: &str = "org.apache.kafka.tools.FeatureCommand";
/// How long to ask again before something that comes in time is given up.
const PATIENCE: Duration = Duration::from_secs(60);

type Test = fn(&mut Three) -> Result<()>;

/// The nodes and the tools.
struct Three {
    nodes: Vec<Broker>,
    java: Java,
}

impl Run {
    pub(super) fn quorum(&mut self) -> Result<()> {
        let java = match Java::prepare() {
            Ok(java) => java,
            Err(e) => {
                self.report.missing("quorum", &e.to_string());
                return Ok(());
            }
        };
        let mut ports = Vec::new();
        for _ in 0..3 {
            ports.push((free_port()?, free_port()?));
        }
        let voters: Vec<String> = (1..)
            .zip(&ports)
            .map(|(id, (_, controller))| format!("{id}@127.0.0.1:{controller}"))
            .collect();
        let mut nodes = Vec::new();
        for (id, (port, controller_port)) in (1..).zip(&ports) {
            let spec = Spec {
                port: *port,
                controller_port: *controller_port,
                ..Spec::new(self.folder.join(format!("quorum-{id}")))?
            };
            let spec = spec
                .in_cluster(CLUSTER_ID)
                .with("node.id", id)
                .with("controller.quorum.voters", voters.join(","))
                .with("klamm.metrics.listeners", "")
                .with("broker.session.timeout.ms", 3000)
                .with("broker.heartbeat.interval.ms", 500);
            nodes.push(Broker::prepare(self.against, spec)?);
        }
        let mut three = Three { nodes, java };
        let only = self.only_of("quorum");
        let tests: [(&str, Test); 8] = [
            ("start", Three::start),
            ("status-and-replication", Three::status),
            ("topics", Three::topics),
            ("cluster", Three::cluster),
            ("features", Three::features),
            ("controller-killed", Three::failover),
            ("voters-into-the-log", Three::voters_into_the_log),
            ("one-after-the-other", Three::rolling),
        ];
        for (name, test) in tests {
            let name = &*format!("quorum.{name}");
            // All build on the first.
            if name == "quorum.start" || only.as_deref().is_none_or(|only| only == name) {
                self.report.test(name, || test(&mut three));
            }
        }
        drop(three.nodes);
        self.controllers(three.java)
    }
}

impl Three {
    fn start(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.spawn()?;
        }
        for node in &mut self.nodes {
            node.wait_ready()?;
        }
        Ok(())
    }

    fn tool(&self, class: &str, arguments: &[&str]) -> Result<String> {
        tool(&self.java, class, arguments)
    }

    fn tool_until(
        &self,
        class: &str,
        arguments: &[&str],
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        tool_until(&self.java, class, arguments, wanted)
    }

    fn controller(&self, at: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[at].spec.controller_port)
    }

    /// The leader by node id, as the node at `at` has it told.
    fn leader(&self, at: usize) -> Result<usize> {
        let bootstrap = self.nodes[at].bootstrap();
        let status = ["--bootstrap-server", &bootstrap, "describe", "--status"];
        let text = self.tool(QUORUM_TOOL, &status)?;
        let leader = field(&text, "LeaderId:")?;
        Ok(leader.parse()?)
    }

    fn status(&mut self) -> Result<()> {
        let leader = self.leader(0)?;
        let caught_up = |text: &str| field(text, "MaxFollowerLag:").is_ok_and(|lag| lag == "0");
        for at in 0..3 {
            let bootstrap = self.nodes[at].bootstrap();
            let controller = self.controller(at);
            for to in [
                ["--bootstrap-server", &bootstrap],
                ["--bootstrap-controller", &controller],
            ] {
                let status = [to[0], to[1], "describe", "--status"];
                let text = self.tool_until(QUORUM_TOOL, &status, caught_up)?;
                expect(&text, field(&text, "LeaderId:")? == leader.to_string())?;
                let voters = field(&text, "CurrentVoters:")?;
                let all = (1..=3).all(|id| voters.contains(&format!("\"id\": {id}")));
                expect(&text, all)?;
                expect(&text, field(&text, "CurrentObservers:")? == "[]")?;

                let replication = [to[0], to[1], "describe", "--replication"];
                let text = self.tool(QUORUM_TOOL, &replication)?;
                let rows: Vec<Vec<&str>> = text
                    .lines()
                    .skip(1)
                    .map(|line| line.split_whitespace().collect())
                    .collect();
                let of = |status: &str| {
                    rows.iter()
                        .filter(|row| row.last() == Some(&status))
                        .count()
                };
                expect(
                    &text,
                    of("Leader") == 1 && of("Follower") == 2 && rows.len() == 3,
                )?;
            }
        }
        Ok(())
    }

    fn topics(&mut self) -> Result<()> {
        for at in 0..3 {
            let bootstrap = self.nodes[at].bootstrap();
            let name = format!("quorum-{at}");
            let create = [
                "--bootstrap-server",
                &bootstrap,
                "--create",
                "--topic",
                &name,
                "--partitions",
                "3",
                "--replication-factor",
                "3",
            ];
            let text = self.tool(TOPICS_TOOL, &create)?;
            expect(&text, text.trim() == format!("Created topic {name}."))?;
            for node in &self.nodes {
                let bootstrap = node.bootstrap();
                let describe = [
                    "--bootstrap-server",
                    &bootstrap,
                    "--describe",
                    "--topic",
                    &name,
                ];
                let all = |text: &str| text.matches("Leader: ").count() == 3;
                let text = self.tool_until(TOPICS_TOOL, &describe, all)?;
                expect(&text, !text.contains("Leader: none"))?;
                expect(&text, text.contains("ReplicationFactor: 3"))?;
            }
        }
        Ok(())
    }

    fn cluster(&mut self) -> Result<()> {
        for at in 0..3 {
            let bootstrap = self.nodes[at].bootstrap();
            let controller = self.controller(at);
            for to in [
                ["--bootstrap-server", &bootstrap],
                ["--bootstrap-controller", &controller],
            ] {
                let text = self.tool(CLUSTER_TOOL, &["cluster-id", to[0], to[1]])?;
                expect(&text, text.trim() == format!("Cluster ID: {CLUSTER_ID}"))?;
                let listed = ["list-endpoints", to[0], to[1]];
                let three = |text: &str| text.lines().count() == 4;
                self.tool_until(CLUSTER_TOOL, &listed, three)?;
            }
        }
        Ok(())
    }

    fn features(&mut self) -> Result<()> {
        let mut told = Vec::new();
        for node in &self.nodes {
            let bootstrap = node.bootstrap();
            let describe = ["--bootstrap-server", &bootstrap, "describe"];
            let text = self.tool(FEATURES_TOOL, &describe)?;
            // The epoch is how far the node that was asked has come.
            let levels: Vec<String> = text
                .lines()
                .filter_map(|line| Some(line.split_once("Epoch:")?.0.to_owned()))
                .collect();
            expect(&text, levels.iter().any(|l| l.contains("metadata.version")))?;
            told.push(levels);
        }
        expect(
            &format!("{told:?}"),
            told.windows(2).all(|two| two[0] == two[1]),
        )
    }

    fn failover(&mut self) -> Result<()> {
        let leader = self.leader(0)?;
        self.nodes[leader - 1].kill()?;
        let other = leader % 3;
        let bootstrap = self.nodes[other].bootstrap();
        let create = [
            "--bootstrap-server",
            &bootstrap,
            "--create",
            "--topic",
            "while-one-is-dead",
            "--replication-factor",
            "1",
        ];
        self.tool(TOPICS_TOOL, &create)?;
        let now = self.leader(other)?;
        expect(&format!("node {now} leads"), now != leader)?;
        self.nodes[leader - 1].start_again()?;
        let bootstrap = self.nodes[leader - 1].bootstrap();
        let list = ["--bootstrap-server", &bootstrap, "--list"];
        let there = |text: &str| text.contains("while-one-is-dead");
        self.tool_until(TOPICS_TOOL, &list, there).map(drop)
    }

    /// All features at once, as after an upgrade of the software: `kraft.version` is one of them. The
    /// nodes go on with `controller.quorum.voters` in their configurations.
    fn voters_into_the_log(&mut self) -> Result<()> {
        let bootstrap = self.nodes[0].bootstrap();
        let status = ["--bootstrap-server", &bootstrap, "describe", "--status"];
        let text = self.tool(QUORUM_TOOL, &status)?;
        expect(
            &text,
            !field(&text, "CurrentVoters:")?.contains("directoryId"),
        )?;
        let upgrade = ["--bootstrap-server", &bootstrap, "upgrade"];
        let release = [&upgrade[..], &["--release-version", "4.3"]].concat();
        // Each voter has to tell the leader first which directory it has.
        let upgraded = |text: &str| text.contains("kraft.version was upgraded to 1.");
        self.tool_until(FEATURES_TOOL, &release, upgraded)?;
        for node in &self.nodes {
            let bootstrap = node.bootstrap();
            let describe = ["--bootstrap-server", &bootstrap, "describe"];
            let level = |text: &str| {
                let mut lines = text.lines();
                let line = lines.find(|line| line.contains("kraft.version"));
                line.is_some_and(|line| line.contains("FinalizedVersionLevel: 1"))
            };
            self.tool_until(FEATURES_TOOL, &describe, level)?;
        }
        let text = self.tool(QUORUM_TOOL, &status)?;
        let voters = field(&text, "CurrentVoters:")?;
        for (node, id) in self.nodes.iter().zip(1..) {
            let file = node.spec.data().join("meta.properties");
            let properties = fs::read_to_string(file)?;
            let directory = field(&properties, "directory.id=")?;
            let voter = format!("{{\"id\": {id}, \"directoryId\": \"{directory}\"");
            expect(voters, voters.contains(&voter))?;
        }
        Ok(())
    }

    fn rolling(&mut self) -> Result<()> {
        for at in 0..3 {
            self.nodes[at].stop()?;
            let other = self.nodes[(at + 1) % 3].bootstrap();
            let name = format!("without-{at}");
            let create = [
                "--bootstrap-server",
                &other,
                "--create",
                "--topic",
                &name,
                "--replication-factor",
                "2",
            ];
            self.tool(TOPICS_TOOL, &create)?;
            self.nodes[at].start_again()?;
            let own = self.nodes[at].bootstrap();
            let list = ["--bootstrap-server", &own, "--list"];
            self.tool_until(TOPICS_TOOL, &list, |text| text.contains(&name))?;
        }
        // The others are killed: without a majority Kafka's last ones would not end in order.
        self.nodes[0].stop().map(drop)
    }
}

/// Runs a tool and gives what it printed.
pub(super) fn tool(java: &Java, class: &str, arguments: &[&str]) -> Result<String> {
    let mut command = java.class(class);
    let out = command.args(arguments).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&out.stderr);
    Err(format!("{class} {arguments:?}: {}\n{text}{errors}", out.status).into())
}

/// Runs a tool until its output is as asked.
pub(super) fn tool_until(
    java: &Java,
    class: &str,
    arguments: &[&str],
    wanted: impl Fn(&str) -> bool,
) -> Result<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        match tool(java, class, arguments) {
            Ok(text) if wanted(&text) => return Ok(text),
            Ok(text) if Instant::now() > end => {
                return Err(format!("{class} {arguments:?} goes on saying:\n{text}").into());
            }
            Err(error) if Instant::now() > end => return Err(error),
            _ => {}
        }
    }
}

/// What follows a name at the beginning of a line.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Result<&'a str> {
    let found = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(found
        .ok_or_else(|| format!("no {name} in:\n{text}"))?
        .trim())
}

pub(super) fn expect(text: &str, holds: bool) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(format!("not as expected:\n{text}").into())
    }
}
