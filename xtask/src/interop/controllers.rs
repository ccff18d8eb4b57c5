//! A quorum whose voters change, by Kafka's tools: a cluster that begins with one controller gets two
//! more, one of them loses its disk and is replaced, the first one is removed. What the tools find in
//! the files is looked at, too.

use super::Run;
use super::quorum::{
    CLUSTER_TOOL, FEATURES_TOOL, QUORUM_TOOL, TOPICS_TOOL, expect, field, tool, tool_until,
};
use crate::Result;
use crate::broker::{Broker, Spec, free_port};
use crate::runtimes::Java;
use std::fs;
use std::path::{Path, PathBuf};

const CLUSTER_ID: &str = "Z3Jvd2luZy1jb250cm9sbA";
const DUMP_TOOL: &str = "org.apache.kafka.tools.DumpLogSegments";
const SHELL_TOOL: &str = "org.apache.kafka.shell.MetadataShell";
const STORAGE_TOOL: &str = "kafka.tools.StorageTool";

type Test = fn(&mut Growing) -> Result<()>;

/// Node 1 is broker and controller, and votes from the start; 2 and 3 are controllers, 4 is a broker.
struct Growing {
    nodes: Vec<Broker>,
    java: Java,
}

impl Run {
    pub(super) fn controllers(&mut self, java: Java) -> Result<()> {
        let tests: [(&str, Test); 6] = [
            ("grows-from-one", Growing::start),
            ("add-controller", Growing::add),
            ("replace-controller", Growing::replace),
            ("remove-controller", Growing::remove),
            ("features-and-cluster", Growing::features),
            ("metadata-files", Growing::files),
        ];
        let tests = tests.map(|(name, test)| (format!("quorum.{name}"), test));
        let only = self.only_of("quorum");
        if only
            .as_ref()
            .is_some_and(|only| tests.iter().all(|(name, _)| name != only))
        {
            return Ok(());
        }
        let mut ports = Vec::new();
        for _ in 0..4 {
            ports.push((free_port()?, free_port()?));
        }
        let servers: Vec<String> = ports[..3]
            .iter()
            .map(|(_, controller)| format!("127.0.0.1:{controller}"))
            .collect();
        let mut nodes = Vec::new();
        for (id, (port, controller_port)) in (1..).zip(&ports) {
            let (roles, format) = match id {
                1 => ("broker,controller", "--standalone"),
                4 => ("broker", "--no-initial-controllers"),
                _ => ("controller", "--no-initial-controllers"),
            };
            let clients = format!("PLAINTEXT://127.0.0.1:{port}");
            let quorum = format!("CONTROLLER://127.0.0.1:{controller_port}");
            let (listeners, advertised) = match id {
                1 => (format!("{clients},{quorum}"), format!("{clients},{quorum}")),
                4 => (clients.clone(), clients),
                _ => (quorum.clone(), quorum),
            };
            let spec = Spec {
                port: *port,
                controller_port: *controller_port,
                heap: "256m".into(),
                ..Spec::new(self.folder.join(format!("controllers-{id}")))?
            };
            let spec = spec
                .in_cluster(CLUSTER_ID)
                .formatted(&[format])
                .with("node.id", id)
                .with("process.roles", roles)
                .with("listeners", listeners)
                .with("advertised.listeners", advertised)
                .with("controller.quorum.voters", "")
                .with("controller.quorum.bootstrap.servers", servers.join(","))
                .with("klamm.metrics.listeners", "")
                .with("metadata.log.max.snapshot.interval.ms", 5000)
                .with("broker.session.timeout.ms", 3000)
                .with("broker.heartbeat.interval.ms", 500);
            nodes.push(Broker::prepare(self.against, spec)?);
        }
        let mut growing = Growing { nodes, java };
        // Each builds on those before.
        for (name, test) in tests {
            self.report.test(&name, || test(&mut growing));
            if only.as_ref() == Some(&name) {
                break;
            }
        }
        Ok(())
    }
}

/// A row of `describe --replication`: id, directory, status.
type Row = (u32, String, String);

impl Growing {
    fn start(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.spawn()?;
        }
        self.nodes[0].wait_ready()?;
        self.nodes[3].wait_ready()?;
        let begun = |rows: &[Row]| {
            let status = |id: u32| rows.iter().find(|row| row.0 == id).map(|row| &*row.2);
            status(1) == Some("Leader") && (2..=4).all(|id| status(id) == Some("Observer"))
        };
        self.rows_until(begun).map(drop)
    }

    fn bootstrap(&self) -> [String; 2] {
        ["--bootstrap-server".into(), self.nodes[3].bootstrap()]
    }

    fn quorum_tool(&self, arguments: &[&str]) -> Result<String> {
        let [flag, address] = self.bootstrap();
        let arguments = [&[flag.as_str(), &address], arguments].concat();
        tool(&self.java, QUORUM_TOOL, &arguments)
    }

    fn rows_until(&self, wanted: impl Fn(&[Row]) -> bool) -> Result<Vec<Row>> {
        let [flag, address] = self.bootstrap();
        let describe = [&*flag, &address, "describe", "--replication"];
        let test = |text: &str| wanted(&rows(text));
        let text = tool_until(&self.java, QUORUM_TOOL, &describe, test)?;
        Ok(rows(&text))
    }

    fn directory(&self, id: usize) -> Result<String> {
        let file = self.nodes[id - 1].spec.data().join("meta.properties");
        let text = fs::read_to_string(file)?;
        let found = text.lines().find_map(|l| l.strip_prefix("directory.id="));
        Ok(found.ok_or("no directory.id")?.to_owned())
    }

    fn add_controller(&self, id: usize) -> Result<String> {
        let properties = self.nodes[id - 1].spec.properties().display().to_string();
        self.quorum_tool(&["--command-config", &properties, "add-controller"])
    }

    fn remove_controller(&self, id: usize, directory: &str) -> Result<String> {
        self.quorum_tool(&[
            "remove-controller",
            "--controller-id",
            &id.to_string(),
            "--controller-directory-id",
            directory,
        ])
    }

    fn voters(&self) -> Result<String> {
        let text = self.quorum_tool(&["describe", "--status"])?;
        Ok(field(&text, "CurrentVoters:")?.to_owned())
    }

    fn add(&mut self) -> Result<()> {
        for id in 2..=3 {
            let text = self.add_controller(id)?;
            let (directory, port) = (self.directory(id)?, self.nodes[id - 1].spec.controller_port);
            let wanted = format!(
                "Added controller {id} with directory id {directory} and endpoints: \
                 CONTROLLER://127.0.0.1:{port}"
            );
            expect(&text, text.trim() == wanted)?;
        }
        let voters = self.voters()?;
        for id in 1..=3 {
            let (directory, port) = (self.directory(id)?, self.nodes[id - 1].spec.controller_port);
            let voter = format!(
                "{{\"id\": {id}, \"directoryId\": \"{directory}\", \"endpoints\": \
                 [\"CONTROLLER://127.0.0.1:{port}\"]}}"
            );
            expect(&voters, voters.contains(&voter))?;
        }
        let again = refused(self.add_controller(3))?;
        let directory = self.directory(3)?;
        let wanted = format!(
            "DuplicateVoterException: The voter id for ReplicaKey(id=3, directoryId={directory}) is \
             already part of the set of voters ["
        );
        expect(&again, again.contains(&wanted))
    }

    fn replace(&mut self) -> Result<()> {
        let lost = self.directory(3)?;
        self.nodes[2].kill()?;
        let wrong = refused(self.remove_controller(3, CLUSTER_ID))?;
        let wanted = format!(
            "VoterNotFoundException: Cannot remove voter ReplicaKey(id=3, directoryId={CLUSTER_ID}) \
             from the set of voters ["
        );
        expect(&wrong, wrong.contains(&wanted))?;
        let text = self.remove_controller(3, &lost)?;
        // The tool's own two spaces.
        let wanted = format!("Removed  KRaft controller 3 with directory id {lost}");
        expect(&text, text.trim() == wanted)?;
        fs::remove_dir_all(self.nodes[2].spec.data())?;
        self.nodes[2] = Broker::prepare(self.nodes[2].against, self.nodes[2].spec.clone())?;
        self.nodes[2].spawn()?;
        let new = self.directory(3)?;
        self.rows_until(|rows| rows.contains(&(3, new.clone(), "Observer".into())))?;
        // It may have to catch up first.
        let properties = self.nodes[2].spec.properties().display().to_string();
        let [flag, address] = self.bootstrap();
        let add = [
            &*flag,
            &address,
            "--command-config",
            &properties,
            "add-controller",
        ];
        tool_until(&self.java, QUORUM_TOOL, &add, |text| text.contains(&new))?;
        let voters = self.voters()?;
        expect(&voters, voters.contains(&new) && !voters.contains(&lost))
    }

    fn remove(&mut self) -> Result<()> {
        let first = self.directory(1)?;
        self.remove_controller(1, &first)?;
        let gone = |rows: &[Row]| {
            let leader = rows.iter().find(|row| row.2 == "Leader");
            let first = rows.iter().find(|row| row.0 == 1);
            leader.is_some_and(|row| row.0 == 2 || row.0 == 3)
                && first.is_none_or(|row| row.2 == "Observer")
        };
        self.rows_until(gone)?;
        // Both brokers are told of what the others decide.
        for at in [0, 3] {
            let bootstrap = self.nodes[at].bootstrap();
            let name = format!("after-{at}");
            let create = [
                "--bootstrap-server",
                &bootstrap,
                "--create",
                "--topic",
                &name,
            ];
            tool(&self.java, TOPICS_TOOL, &create)?;
            for node in [0, 3] {
                let bootstrap = self.nodes[node].bootstrap();
                let list = ["--bootstrap-server", &bootstrap, "--list"];
                tool_until(&self.java, TOPICS_TOOL, &list, |text| text.contains(&name))?;
            }
        }
        Ok(())
    }

    fn features(&mut self) -> Result<()> {
        let [flag, address] = self.bootstrap();
        let features = |arguments: &[&str]| {
            let arguments = [&[flag.as_str(), &address], arguments].concat();
            tool(&self.java, FEATURES_TOOL, &arguments)
        };
        let level = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.contains(name))?;
            let level = line.split("FinalizedVersionLevel:").nth(1)?;
            level.split_whitespace().next().map(str::to_owned)
        };
        let text = features(&["describe"])?;
        expect(&text, level(&text, "kraft.version").as_deref() == Some("1"))?;
        expect(&text, level(&text, "share.version").as_deref() == Some("1"))?;
        let text = features(&["downgrade", "--feature", "share.version=0"])?;
        expect(&text, text.trim() == "share.version was downgraded to 0.")?;
        let text = features(&["describe"])?;
        expect(&text, level(&text, "share.version").as_deref() == Some("0"))?;
        let text = features(&["upgrade", "--feature", "share.version=1"])?;
        expect(&text, text.trim() == "share.version was upgraded to 1.")?;
        let text = refused(features(&["upgrade", "--feature", "share.version=9"]))?;
        expect(
            &text,
            text.contains("Could not upgrade share.version to 9."),
        )?;
        let text = refused(features(&["downgrade", "--feature", "kraft.version=0"]))?;
        expect(
            &text,
            text.contains("Could not downgrade kraft.version to 0."),
        )?;

        let endpoints = [&["list-endpoints"], &[&*flag, &address][..]].concat();
        let two = |text: &str| text.lines().count() == 3;
        let text = tool_until(&self.java, CLUSTER_TOOL, &endpoints, two)?;
        for at in [0, 3] {
            let port = self.nodes[at].spec.port.to_string();
            expect(&text, text.contains(&port) && text.contains("broker"))?;
        }
        Ok(())
    }

    /// What Kafka's tools find in the metadata's files of a controller that began, of one that was
    /// added, and of a broker: all that was done, and nothing amiss.
    fn files(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.kill()?;
        }
        let properties = self.nodes[0].spec.properties().display().to_string();
        let text = tool(&self.java, STORAGE_TOOL, &["info", "--config", &properties])?;
        expect(
            &text,
            text.contains("Found metadata: {cluster.id=") && !text.contains("problem"),
        )?;
        for at in [0, 1, 3] {
            let dir = self.nodes[at].spec.data().join("__cluster_metadata-0");
            let (segments, snapshots) = (files_of(&dir, ".log")?, files_of(&dir, ".checkpoint")?);
            let text = self.dump(&segments)?;
            for wanted in WRITTEN {
                expect(&format!("no {wanted} in:\n{text}"), text.contains(wanted))?;
            }
            for topic in ["after-0", "after-3"] {
                let one = format!("\"name\":\"{topic}\"");
                expect(&text, text.matches(&one).count() == 1)?;
            }
            let [newest] = &snapshots[snapshots.len().saturating_sub(1)..] else {
                return Err(format!("no snapshot in {}", dir.display()).into());
            };
            let text = self.dump(std::slice::from_ref(newest))?;
            for wanted in [
                "SnapshotHeader",
                "KRaftVoters",
                "TOPIC_RECORD",
                "SnapshotFooter",
            ] {
                expect(&format!("no {wanted} in:\n{text}"), text.contains(wanted))?;
            }
            self.look_around(newest)?;
            if let (0, [log]) = (at, &segments[..]) {
                self.look_around(log)?;
            }
        }
        Ok(())
    }

    fn dump(&self, files: &[PathBuf]) -> Result<String> {
        let files: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
        let files = files.join(",");
        let arguments = ["--cluster-metadata-decoder", "--files", &files];
        let text = tool(&self.java, DUMP_TOOL, &arguments)?;
        expect(&text, !text.contains("isvalid: false"))?;
        Ok(text)
    }

    /// The topics that the shell shows in a file's image. It does not always wait for the image on a
    /// busy machine, and shows nothing then.
    fn look_around(&self, file: &Path) -> Result<()> {
        let file = file.display().to_string();
        let arguments = ["--snapshot", &file, "ls", "/image/topics/byName"];
        let mut text = String::new();
        for _ in 0..5 {
            text = tool(&self.java, SHELL_TOOL, &arguments)?;
            if !text.trim().is_empty() {
                break;
            }
        }
        expect(&text, text.contains("after-0") && text.contains("after-3"))
    }
}

/// What a log says of the life of this cluster.
const WRITTEN: [&str; 11] = [
    "KRaftVersion",
    "KRaftVoters",
    "LeaderChange",
    "BEGIN_TRANSACTION_RECORD",
    "END_TRANSACTION_RECORD",
    "FEATURE_LEVEL_RECORD",
    "REGISTER_BROKER_RECORD",
    "BROKER_REGISTRATION_CHANGE_RECORD",
    "REGISTER_CONTROLLER_RECORD",
    "TOPIC_RECORD",
    "PARTITION_RECORD",
];

/// Files of a directory whose names end so, by name.
fn files_of(dir: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What a tool said that was to be refused.
fn refused(outcome: Result<String>) -> Result<String> {
    match outcome {
        Ok(text) => Err(format!("this was not refused:\n{text}").into()),
        Err(error) => Ok(error.to_string()),
    }
}

fn rows(text: &str) -> Vec<Row> {
    let row = |line: &str| {
        let mut columns = line.split_whitespace();
        let id = columns.next()?.parse().ok()?;
        let directory = columns.next()?.to_owned();
        Some((id, directory, columns.next_back()?.to_owned()))
    };
    text.lines().skip(1).filter_map(row).collect()
}
