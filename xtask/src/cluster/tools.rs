//! What Kafka's tools are asked to do.

use super::nodes::Shown;
use super::{MOVING, Scenario};
use crate::Result;
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::{Duration, Instant};

const REASSIGN: &str = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
const ELECT: &str = "org.apache.kafka.tools.LeaderElectionCommand";
const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CLUSTER: &str = "org.apache.kafka.tools.ClusterTool";
const QUORUM: &str = "org.apache.kafka.tools.MetadataQuorumCommand";

/// Where one partition's replicas are to be.
#[derive(Debug, Clone)]
pub struct Move {
    pub topic: String,
    pub partition: i32,
    pub replicas: Vec<i32>,
    /// Log directories, where that matters.
    pub log_dirs: Option<Vec<String>>,
}

impl Move {
    /// In whichever directories.
    pub(super) fn of(topic: &str, partition: i32, replicas: &[i32]) -> Move {
        Move {
            topic: topic.into(),
            partition,
            replicas: replicas.to_vec(),
            log_dirs: None,
        }
    }
}

impl Scenario {
    pub(super) fn create(&self, topic: &str, partitions: i32, replicas: i32) -> Result<()> {
        let (partitions, replicas) = (partitions.to_string(), replicas.to_string());
        let create = ["--create", "--topic", topic, "--partitions", &partitions];
        let more = ["--replication-factor", &replicas];
        self.topics(&[&create[..], &more[..]].concat())?;
        self.nodes.wait_in_sync(topic)
    }

    pub(super) fn topics(&self, arguments: &[&str]) -> Result<String> {
        self.ask(TOPICS, arguments)
    }

    /// Which node decides.
    pub(super) fn active_controller(&self) -> Result<i32> {
        let told = self.ask(QUORUM, &["describe", "--status"])?;
        let line = told.lines().find_map(|l| l.strip_prefix("LeaderId:"));
        Ok(line.ok_or_else(|| told.clone())?.trim().parse()?)
    }

    /// Every partition of a topic moves on by one node, with a throttle; a further move is
    /// cancelled.
    pub(super) fn reassign(&mut self) -> Result<()> {
        let next = |id: &i32| id % 3 + 1;
        let before = self.nodes.partitions(MOVING)?.into_iter();
        let plan = before.map(|shown| {
            let replicas: Vec<i32> = shown.replicas.iter().map(next).collect();
            Move::of(MOVING, shown.partition, &replicas)
        });
        let plan: Vec<Move> = plan.collect();
        self.move_replicas(&plan, Some("20000000"))?;
        let file = self.plan_file(&plan)?;
        let told = self.ask(REASSIGN, &["--reassignment-json-file", &file, "--cancel"])?;
        if told.contains("Error") {
            return Err(told.into());
        }
        let listed = self.ask(REASSIGN, &["--list"])?;
        if !listed.contains("No partition reassignments found") {
            return Err(listed.into());
        }
        self.nodes.wait_in_sync(MOVING)
    }

    /// A replica moves to another disk of its broker, while it is written to.
    pub(super) fn move_between_dirs(&mut self) -> Result<()> {
        let topic = self.loads.first().ok_or("there is no load")?.0.clone();
        let replicas = self.nodes.partitions(&topic)?.remove(0).replicas;
        let node = replicas[0];
        let first = self.nodes.node(node)?.spec.data();
        let second = self.nodes.second_dir(node);
        let name = format!("{topic}-0");
        let (from, to) = match first.join(&name).exists() {
            true => (first, second),
            false => (second, first),
        };
        let mut log_dirs = vec!["any".to_string(); replicas.len()];
        log_dirs[0] = to.display().to_string();
        let plan = [Move {
            topic: topic.clone(),
            partition: 0,
            replicas,
            log_dirs: Some(log_dirs),
        }];
        self.move_replicas(&plan, None)?;
        if !to.join(&name).exists() || from.join(&name).exists() {
            return Err(format!("{name} is not (only) in {}", to.display()).into());
        }
        self.goes_on(1)?;
        self.nodes.wait_in_sync(&topic)
    }

    /// Has the tool move replicas and waits until it says that they are where they should be.
    pub(super) fn move_replicas(&self, plan: &[Move], throttle: Option<&str>) -> Result<Duration> {
        let file = self.plan_file(plan)?;
        let plan_file = ["--reassignment-json-file", &*file];
        let mut execute = [&plan_file[..], &["--execute"]].concat();
        if let Some(rate) = throttle {
            execute.extend(["--throttle", rate]);
        }
        let begun = Instant::now();
        let told = self.ask(REASSIGN, &execute)?;
        if !told.contains("Successfully started") {
            return Err(told.into());
        }
        // The tool takes seconds to start; looking is for free.
        for one in plan {
            let there = |p: &Shown| p.partition != one.partition || p.replicas == one.replicas;
            self.nodes.wait_until(&one.topic, "moved", there)?;
        }
        let mut told = String::new();
        for _ in 0..10 {
            told = self.ask(REASSIGN, &[&plan_file[..], &["--verify"]].concat())?;
            if !told.contains("still in progress") {
                break;
            }
        }
        let partitions = told.matches("Reassignment of partition").count();
        let done = told.matches("is completed").count() >= plan.len()
            || told.matches("completed successfully").count() >= plan.len();
        if !done || partitions < plan.len() || !told.contains("Clearing") {
            return Err(format!("after a while --verify says:\n{told}").into());
        }
        Ok(begun.elapsed())
    }

    fn plan_file(&self, plan: &[Move]) -> Result<String> {
        let partitions = plan.iter().map(|one| {
            let mut entry = json!({
                "topic": one.topic, "partition": one.partition, "replicas": one.replicas,
            });
            if let Some(dirs) = &one.log_dirs {
                entry["log_dirs"] = json!(dirs);
            }
            entry
        });
        let plan = json!({ "version": 1, "partitions": partitions.collect::<Vec<_>>() });
        let file = self.folder.join("reassignment.json");
        std::fs::write(&file, plan.to_string())?;
        Ok(file.display().to_string())
    }

    /// What the tool proposes for some topics on some brokers.
    pub(super) fn propose(&self, topics: &[String], brokers: &[i32]) -> Result<Vec<Move>> {
        let named: Vec<Value> = topics.iter().map(|t| json!({ "topic": t })).collect();
        let file = self.folder.join("topics-to-move.json");
        std::fs::write(&file, json!({ "version": 1, "topics": named }).to_string())?;
        let brokers: Vec<String> = brokers.iter().map(i32::to_string).collect();
        let file = file.display().to_string();
        let generate = ["--generate", "--topics-to-move-json-file", &file];
        let list = brokers.join(",");
        let told = self.ask(
            REASSIGN,
            &[&generate[..], &["--broker-list", &list]].concat(),
        )?;
        let plan = told.lines().rev().find(|line| line.starts_with('{'));
        let plan: Value = serde_json::from_str(plan.ok_or_else(|| told.clone())?)?;
        let entries = plan["partitions"].as_array().cloned().unwrap_or_default();
        let number = |value: &Value| i32::try_from(value.as_i64().unwrap_or(-1)).unwrap_or(-1);
        let moves = entries.iter().map(|entry| {
            let topic = entry["topic"].as_str().unwrap_or_default();
            let replicas = entry["replicas"].as_array();
            let replicas = replicas.map_or_else(Vec::new, |ids| ids.iter().map(number).collect());
            Move::of(topic, number(&entry["partition"]), &replicas)
        });
        let moves: Vec<Move> = moves.collect();
        if moves.is_empty() {
            return Err(told.into());
        }
        Ok(moves)
    }

    /// The first of the replicas leads again, and nothing is under-replicated.
    pub(super) fn elect_preferred(&mut self) -> Result<()> {
        let all = ["--election-type", "preferred", "--all-topic-partitions"];
        self.ask(ELECT, &all)?;
        for (topic, _) in &self.loads {
            let led = |p: &Shown| Some(&p.leader) == p.replicas.first();
            self.nodes.wait_until(topic, "led by the preferred", led)?;
        }
        let under = self.topics(&["--describe", "--under-replicated-partitions"])?;
        if under.contains("Topic:") {
            return Err(under.into());
        }
        Ok(())
    }

    /// Lets a replica lead that is not in sync.
    pub(super) fn elect_unclean(&self, topic: &str) -> Result<String> {
        let one = ["--topic", topic, "--partition", "0"];
        self.ask(ELECT, &[&["--election-type", "unclean"], &one[..]].concat())
    }

    /// Forgets a broker that was stopped.
    pub(super) fn unregister(&self, id: i32) -> Result<()> {
        let id = id.to_string();
        let told = self.ask(CLUSTER, &["unregister", "--id", &id])?;
        let listed = self.ask(CLUSTER, &["list-endpoints", "--include-fenced-brokers"])?;
        let still = listed
            .lines()
            .any(|l| l.split_whitespace().next() == Some(&*id));
        if still || !told.contains("no longer registered") {
            return Err(format!("{told}\n{listed}").into());
        }
        Ok(())
    }

    /// Runs a tool against the cluster.
    fn ask(&self, class: &str, arguments: &[&str]) -> Result<String> {
        let bootstrap = self.nodes.bootstrap();
        let to = ["--bootstrap-server", &*bootstrap];
        // This one has subcommands, and wants the address behind them.
        let all = match class {
            CLUSTER => [arguments, &to[..]].concat(),
            _ => [&to[..], arguments].concat(),
        };
        let mut command = self.java.class(class);
        let out = command.args(&all).stdin(Stdio::null()).output()?;
        let text = [out.stdout, out.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if out.status.success() {
            Ok(text)
        } else {
            Err(format!("{class} {arguments:?}: {}\n{text}", out.status).into())
        }
    }
}
