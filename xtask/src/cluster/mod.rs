//! `cargo xtask cluster`, and a short form of it in `cargo xtask interop`: three brokers under
//! load, which are killed, paused, restarted and given other replicas meanwhile. Kafka's own
//! clients make the load and check that everything acknowledged and everything read stays, once
//! and in order; Kafka's own tools look and reassign.

pub mod load;
pub mod nodes;

use crate::broker::Against;
use crate::report::Report;
use crate::runtimes::Java;
use crate::{Flags, Result, cache};
use load::Load;
use nodes::Nodes;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

pub const USAGE: &str = "cluster [--against klamm] [--kills 30] [--pauses 5] [--rolls 3]";

const TOPIC: &str = "cluster-load";
const PARTITIONS: i32 = 6;
/// Another one, with two replicas, which move.
const MOVING: &str = "cluster-moving";
/// How long clients may get nothing done: detection, election and their own timeouts.
const OUTAGE_MAX: Duration = Duration::from_secs(45);

/// How much of each.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    pub kills: u32,
    pub pauses: u32,
    pub rolls: u32,
}

impl Extent {
    /// Less than two minutes.
    pub const SHORT: Extent = Extent {
        kills: 3,
        pauses: 1,
        rolls: 1,
    };
}

pub fn run(args: &[String]) -> Result<()> {
    let flags = Flags::parse(args, &["against", "kills", "pauses", "rolls"])?;
    let against = Against::parse(flags.get("against").unwrap_or("klamm"))?;
    let extent = Extent {
        kills: flags.number("kills", 30)?,
        pauses: flags.number("pauses", 5)?,
        rolls: flags.number("rolls", 3)?,
    };
    let mut report = Report::new();
    let folder = cache::scratch(&format!("cluster-{against}"))?;
    suite(against, extent, &folder, &mut report);
    report.close()
}

/// Runs the suite over brokers whose data lies in `folder`.
pub fn suite(against: Against, extent: Extent, folder: &Path, report: &mut Report) {
    let java = match Java::prepare() {
        Ok(java) => java,
        Err(e) => return report.missing("cluster", &e.to_string()),
    };
    let mut started = None;
    report.test("cluster.start", || {
        let folder = folder.join("cluster");
        std::fs::create_dir_all(&folder)?;
        started = Some(Scenario::start(against, java, folder)?);
        Ok(())
    });
    let Some(mut scenario) = started else { return };
    for round in 0..extent.kills {
        let name = format!("cluster.kill-{}", round + 1);
        report.test(&name, || scenario.kill(round));
    }
    for round in 0..extent.pauses {
        let name = format!("cluster.pause-{}", round + 1);
        report.test(&name, || scenario.pause(round));
    }
    for round in 0..extent.rolls {
        let name = format!("cluster.rolling-restart-{}", round + 1);
        report.test(&name, || scenario.roll());
    }
    report.test("cluster.reassignment", || scenario.reassign());
    report.test("cluster.preferred-leaders", || scenario.elect_preferred());
    report.test("cluster.nothing-lost", || scenario.finish());
    report.test("cluster.ends-cleanly", || scenario.nodes.stop());
}

struct Scenario {
    java: Java,
    folder: PathBuf,
    nodes: Nodes,
    load: Option<Load>,
}

impl Scenario {
    fn start(against: Against, java: Java, folder: PathBuf) -> Result<Scenario> {
        let nodes = Nodes::start(against, &folder, &[])?;
        let mut scenario = Scenario {
            java,
            folder,
            nodes,
            load: None,
        };
        scenario.create(TOPIC, PARTITIONS, 3)?;
        scenario.create(MOVING, 4, 2)?;
        let (bootstrap, log) = (scenario.nodes.bootstrap(), scenario.folder.join("load.log"));
        let load = Load::start(&scenario.java, &bootstrap, TOPIC, PARTITIONS, &log)?;
        scenario.load = Some(load);
        Ok(scenario)
    }

    fn create(&self, topic: &str, partitions: i32, replicas: i32) -> Result<()> {
        let (partitions, replicas) = (partitions.to_string(), replicas.to_string());
        self.topics(&[
            "--create",
            "--topic",
            topic,
            "--partitions",
            &partitions,
            "--replication-factor",
            &replicas,
        ])?;
        self.nodes.wait_in_sync(topic)
    }

    fn load(&self) -> Result<&Load> {
        self.load.as_ref().ok_or_else(|| "there is no load".into())
    }

    /// The leader of one of the partitions, another one each round.
    fn leader(&self, round: u32) -> Result<i32> {
        let partitions = self.nodes.partitions(TOPIC)?;
        let shown = &partitions[round as usize % partitions.len()];
        match shown.leader {
            leader @ 1..=3 => Ok(leader),
            other => Err(format!("{other} leads {shown:?}").into()),
        }
    }

    /// A leader dies; the load goes on without it, and it comes back.
    fn kill(&mut self, round: u32) -> Result<()> {
        let leader = self.leader(round)?;
        let before = self.load()?.acked();
        self.nodes.node(leader)?.kill()?;
        let went_on = self.load()?.wait_for_progress(before, 1500, OUTAGE_MAX);
        let went_on = went_on.map_err(|e| format!("{e}{}", self.nodes.logs()))?;
        println!(
            "      1500 records {} ms after node {leader} died",
            went_on.as_millis()
        );
        self.nodes.start_again(leader)?;
        self.nodes.wait_in_sync(TOPIC)
    }

    /// A leader stands still for longer than its session and does not know it when it wakes.
    fn pause(&mut self, round: u32) -> Result<()> {
        let leader = self.leader(round)?;
        self.nodes.signal(leader, "STOP")?;
        std::thread::sleep(Duration::from_secs(6));
        let before = self.load()?.acked();
        let went_on = self.load()?.wait_for_progress(before, 500, OUTAGE_MAX);
        self.nodes.signal(leader, "CONT")?;
        went_on.map_err(|e| format!("{e}{}", self.nodes.logs()))?;
        self.nodes.wait_in_sync(TOPIC)
    }

    /// All are restarted, one after the other and in order.
    fn roll(&mut self) -> Result<()> {
        for id in 1..=3 {
            let before = self.load()?.acked();
            self.nodes.node(id)?.stop()?;
            self.load()?.wait_for_progress(before, 500, OUTAGE_MAX)?;
            self.nodes.start_again(id)?;
            self.nodes.wait_in_sync(TOPIC)?;
        }
        Ok(())
    }

    /// Every partition of a topic moves on by one node, with a throttle; a further move is
    /// cancelled.
    fn reassign(&mut self) -> Result<()> {
        let before = self.nodes.partitions(MOVING)?;
        let next = |id: i32| id % 3 + 1;
        let moved = |shown: &nodes::Shown| -> Vec<i32> {
            shown.replicas.iter().map(|id| next(*id)).collect()
        };
        let plan: Vec<(i32, Vec<i32>)> = before.iter().map(|s| (s.partition, moved(s))).collect();
        let file = self.folder.join("reassignment.json");
        std::fs::write(&file, reassignment(&plan))?;
        let file = file.display().to_string();
        let plan_file = ["--reassignment-json-file", &*file];
        let throttle = ["--execute", "--throttle", "20000000"];
        let told = self.reassignments(&[&plan_file[..], &throttle[..]].concat())?;
        if !told.contains("Successfully started") {
            return Err(told.into());
        }
        let mut told = String::new();
        for _ in 0..10 {
            told = self.reassignments(&[&plan_file[..], &["--verify"]].concat())?;
            if !told.contains("still in progress") {
                break;
            }
        }
        if told.matches("is completed").count() != plan.len() || !told.contains("Clearing") {
            return Err(format!("after a while --verify says:\n{told}").into());
        }
        let after = self.nodes.partitions(MOVING)?;
        let wrong = after
            .iter()
            .zip(&plan)
            .find(|(s, (_, to))| s.replicas != *to);
        if let Some((shown, (_, to))) = wrong {
            return Err(format!("{shown:?} instead of {to:?}").into());
        }
        let told = self.reassignments(&[&plan_file[..], &["--cancel"]].concat())?;
        if told.contains("Error") {
            return Err(told.into());
        }
        let listed = self.reassignments(&["--list"])?;
        if !listed.contains("No partition reassignments found") {
            return Err(listed.into());
        }
        self.nodes.wait_in_sync(MOVING)
    }

    /// The first of the replicas leads again, and nothing is under-replicated.
    fn elect_preferred(&mut self) -> Result<()> {
        let bootstrap = self.nodes.bootstrap();
        let all = ["--election-type", "preferred", "--all-topic-partitions"];
        let more = ["--bootstrap-server", &bootstrap];
        self.tool(
            "org.apache.kafka.tools.LeaderElectionCommand",
            &[&more[..], &all[..]].concat(),
        )?;
        for shown in self.nodes.partitions(TOPIC)? {
            if Some(&shown.leader) != shown.replicas.first() {
                return Err(format!("not the preferred leader: {shown:?}").into());
            }
        }
        let under = self.topics(&["--describe", "--under-replicated-partitions"])?;
        if under.contains("Topic:") {
            return Err(under.into());
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let load = self.load.take().ok_or("there is no load")?;
        let verdict = load.finish()?;
        println!("      {verdict}");
        Ok(())
    }

    fn topics(&self, arguments: &[&str]) -> Result<String> {
        let bootstrap = self.nodes.bootstrap();
        let all = [&["--bootstrap-server", &*bootstrap], arguments].concat();
        self.tool("org.apache.kafka.tools.TopicCommand", &all)
    }

    fn reassignments(&self, arguments: &[&str]) -> Result<String> {
        let bootstrap = self.nodes.bootstrap();
        let all = [&["--bootstrap-server", &*bootstrap], arguments].concat();
        let class = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
        self.tool(class, &all)
    }

    fn tool(&self, class: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.java.class(class);
        let out = command.args(arguments).stdin(Stdio::null()).output()?;
        let text = [out.stdout, out.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if out.status.success() {
            Ok(text)
        } else {
            Err(format!("{class} {arguments:?}: {}\n{text}", out.status).into())
        }
    }
}

fn reassignment(plan: &[(i32, Vec<i32>)]) -> String {
    let partitions: Vec<String> = plan
        .iter()
        .map(|(partition, replicas)| {
            format!(r#"{{"topic":"{MOVING}","partition":{partition},"replicas":{replicas:?}}}"#)
        })
        .collect();
    format!(r#"{{"version":1,"partitions":[{}]}}"#, partitions.join(","))
}
