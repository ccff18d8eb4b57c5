//! The nodes: three brokers that are controllers, too, and brokers that join them later, as
//! processes on loopback or, where that may be, on a network of their own.

use super::net::Net;
use super::wall::Clocks;
use crate::Result;
use crate::broker::{Against, Broker, Spec, signal};
use crate::small_disk::SmallDisk;
use crate::wire::{Connection, Reader, Writer};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What every process of the cluster is told.
const CLUSTER_ID: &str = "Q2x1c3RlciBvZiB0aHJlZQ";
/// The brokers that are controllers, too.
pub const CONTROLLERS: std::ops::RangeInclusive<i32> = 1..=3;
/// The one whose second log directory can be filled.
pub const SMALL: i32 = 2;
const SMALL_MIB: usize = 512;

/// How long nodes may take to see each other, and replicas to be in sync.
const SETTLED: Duration = Duration::from_secs(60);

/// A partition as a broker shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub partition: i32,
    pub leader: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
}

/// All nodes, by id. Dropping it ends them.
pub struct Nodes {
    against: Against,
    folder: PathBuf,
    nodes: BTreeMap<i32, Broker>,
    /// Configs of all.
    set: Vec<(String, String)>,
    /// Kafka's heaps.
    pub heap: &'static str,
    /// Ended behind the nodes.
    pub net: Option<Net>,
    pub disk: Option<SmallDisk>,
    pub clocks: Option<Clocks>,
}

impl Nodes {
    /// Prepares a cluster; none runs yet.
    pub fn new(against: Against, folder: &Path, set: &[(&str, &str)]) -> Nodes {
        let set = set.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        Nodes {
            against,
            folder: folder.into(),
            nodes: BTreeMap::new(),
            set: set.collect(),
            heap: "320m",
            net: None,
            disk: None,
            clocks: None,
        }
    }

    /// Gives the cluster a network of its own and one of its nodes a small disk.
    pub fn in_their_own_world(&mut self) -> (Result<()>, Result<()>) {
        let net = Net::open().map(|net| self.net = Some(net));
        let at = self.folder.join("small-disk");
        let disk = SmallDisk::mount(&at, SMALL_MIB).map(|disk| self.disk = Some(disk));
        (net, disk)
    }

    /// Gives each node a clock that can be set.
    pub fn with_clocks(&mut self) -> Result<()> {
        self.clocks = Some(Clocks::build(&self.folder.join("clocks"))?);
        Ok(())
    }

    /// Starts the three first and waits until each shows all.
    pub fn start(&mut self) -> Result<()> {
        let mut specs = Vec::new();
        for id in CONTROLLERS {
            specs.push((id, self.spec(id)?));
        }
        let voters = specs.iter();
        let voters = voters.map(|(id, s)| format!("{id}@{}:{}", s.host, s.controller_port));
        let voters = voters.collect::<Vec<_>>().join(",");
        self.set.push(("controller.quorum.voters".into(), voters));
        for (id, spec) in specs {
            self.prepare(id, spec)?;
        }
        for node in self.nodes.values_mut() {
            node.spawn()?;
        }
        CONTROLLERS
            .into_iter()
            .try_for_each(|id| self.wait_for_members(id))
    }

    /// Starts another one, a broker only.
    pub fn add(&mut self, id: i32) -> Result<()> {
        let spec = self.spec(id)?;
        let listener = format!("PLAINTEXT://{}:{}", spec.host, spec.port);
        let spec = spec
            .with("process.roles", "broker")
            .with("listeners", listener);
        self.prepare(id, spec)?;
        self.start_again(id)
    }

    fn spec(&mut self, id: i32) -> Result<Spec> {
        let mut spec = Spec::new(self.folder.join(format!("node-{id}")))?;
        spec.heap = self.heap.into();
        if let Some(net) = &mut self.net {
            net.add(id)?;
            spec.host = net.address(id);
            spec.prefix = net.prefix(id);
        }
        if let Some(clocks) = &mut self.clocks {
            spec.prefix.extend(clocks.add(id)?);
        }
        Ok(spec)
    }

    fn prepare(&mut self, id: i32, spec: Spec) -> Result<()> {
        let dirs = [spec.data(), self.second_dir(id)];
        let dirs = dirs.map(|dir| dir.display().to_string()).join(",");
        let mut spec = spec
            .with("node.id", id)
            .with("log.dirs", dirs)
            .with("offsets.topic.replication.factor", 3)
            .with("transaction.state.log.replication.factor", 3)
            .with("transaction.state.log.min.isr", 2)
            .with("default.replication.factor", 3)
            .with("min.insync.replicas", 2)
            .in_cluster(CLUSTER_ID);
        for (name, value) in &self.set {
            spec = spec.with(name, value);
        }
        let node = Broker::prepare(self.against, spec)?;
        self.nodes.insert(id, node);
        Ok(())
    }

    /// The second log directory of a node.
    pub fn second_dir(&self, id: i32) -> PathBuf {
        match &self.disk {
            Some(disk) if id == SMALL => disk.path().join("data"),
            _ => self.folder.join(format!("node-{id}/data-2")),
        }
    }

    pub fn ids(&self) -> Vec<i32> {
        self.nodes.keys().copied().collect()
    }

    pub fn all(&self) -> impl Iterator<Item = &Broker> {
        self.nodes.values()
    }

    pub fn connect(&self, id: i32) -> Result<Connection> {
        let node = self.nodes.get(&id).ok_or("there is no such node")?;
        Ok(node.connect()?)
    }

    pub fn node(&mut self, id: i32) -> Result<&mut Broker> {
        let node = self.nodes.get_mut(&id);
        node.ok_or_else(|| format!("there is no node {id}").into())
    }

    /// Ends a node for good, in order.
    pub fn remove(&mut self, id: i32) -> Result<()> {
        self.node(id)?.stop()?;
        self.nodes.remove(&id);
        Ok(())
    }

    pub fn bootstrap(&self) -> String {
        let all: Vec<String> = self.nodes.values().map(Broker::bootstrap).collect();
        all.join(",")
    }

    /// Starts a node that was stopped or killed; returns when it shows all that run.
    pub fn start_again(&mut self, id: i32) -> Result<()> {
        self.node(id)?.spawn()?;
        self.wait_for_members(id)
    }

    /// Waits until a node shows all that run.
    pub fn wait_for_members(&mut self, id: i32) -> Result<()> {
        self.wait_for_members_within(id, self.against.patience(SETTLED))
    }

    /// The same with another limit.
    pub fn wait_for_members_within(&mut self, id: i32, limit: Duration) -> Result<()> {
        let running = self.nodes.values().filter(|node| node.pid().is_some());
        let running = i32::try_from(running.count())?;
        let node = self.node(id)?;
        let end = Instant::now() + limit;
        loop {
            let shown = node.connect().and_then(|mut c| c.brokers());
            if matches!(shown, Ok(count) if count >= running) {
                return Ok(());
            }
            if let Some(status) = node.exited()? {
                return Err(format!("node {id} ended ({status}):\n{}", node.log_tail()).into());
            }
            if Instant::now() > end {
                let tail = node.log_tail();
                return Err(
                    format!("node {id} shows {shown:?} brokers after {limit:?}:\n{tail}").into(),
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&mut self, id: i32, name: &str) -> Result<()> {
        let pid = self.node(id)?.pid().ok_or("it does not run")?;
        signal(pid, name);
        Ok(())
    }

    /// A topic's partitions as any node that answers shows them.
    pub fn partitions(&self, topic: &str) -> Result<Vec<Shown>> {
        let mut why = String::new();
        for node in self.nodes.values() {
            match node.connect().and_then(|mut c| shown(&mut c, topic)) {
                Ok(partitions) => return Ok(partitions),
                Err(e) => why = e.to_string(),
            }
        }
        Err(format!("no node shows {topic}: {why}").into())
    }

    /// The node that coordinates a group (`kind` 0) or a transactional id (`kind` 1).
    pub fn coordinator(&self, kind: i8, key: &str) -> Result<i32> {
        let mut why = String::new();
        for node in self.nodes.values() {
            match node
                .connect()
                .and_then(|mut c| coordinator(&mut c, kind, key))
            {
                Ok(id @ 1..) => return Ok(id),
                Ok(id) => why = format!("node {id}"),
                Err(e) => why = e.to_string(),
            }
        }
        Err(format!("no node tells who coordinates {key}: {why}").into())
    }

    /// The same, once there is one.
    pub fn wait_for_coordinator(&self, kind: i8, key: &str) -> Result<i32> {
        let end = Instant::now() + self.against.patience(SETTLED);
        loop {
            match self.coordinator(kind, key) {
                Err(e) if Instant::now() > end => return Err(e),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
                found => return found,
            }
        }
    }

    /// The first offsets of a replica's segments, at each node that has it.
    pub fn segments(&self, replica: &str) -> Result<Vec<(i32, Vec<i64>)>> {
        let mut found = Vec::new();
        for (id, node) in &self.nodes {
            for dir in [node.spec.data(), self.second_dir(*id)] {
                let Ok(entries) = std::fs::read_dir(dir.join(replica)) else {
                    continue;
                };
                let mut bases = Vec::new();
                for entry in entries {
                    let path = entry?.path();
                    if path.extension().is_some_and(|e| e == "log") {
                        let stem = path.file_stem().unwrap_or_default().display().to_string();
                        bases.push(stem.parse()?);
                    }
                }
                bases.sort_unstable();
                found.push((*id, bases));
            }
        }
        Ok(found)
    }

    /// Waits until a topic's partitions are as they should be.
    pub fn wait_until(
        &self,
        topic: &str,
        what: &str,
        holds: impl Fn(&Shown) -> bool,
    ) -> Result<Duration> {
        let begun = Instant::now();
        let limit = self.against.patience(SETTLED);
        loop {
            let shown = self.partitions(topic);
            if shown.as_ref().is_ok_and(|all| all.iter().all(&holds)) {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > limit {
                let logs = self.logs();
                return Err(format!("{topic}: not {what} after {limit:?}: {shown:?}{logs}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until all replicas of a topic are in sync.
    pub fn wait_in_sync(&self, topic: &str) -> Result<()> {
        let whole = |p: &Shown| p.isr.len() == p.replicas.len() && p.leader >= 0;
        self.wait_until(topic, "all in sync", whole).map(drop)
    }

    /// How often, by the logs of all nodes, a broker was fenced as its session ran out.
    pub fn fenced(&self) -> usize {
        let words = match self.against {
            Against::Klamm => "fencing a broker whose session has timed out",
            Against::Kafka => "because its session has timed out",
        };
        let counts = self.nodes.values();
        counts.map(|n| n.log_text().matches(words).count()).sum()
    }

    /// Whether that may happen to one whose clock jumps: Kafka's may, and tells so.
    pub fn may_fence(&self) -> bool {
        self.against == Against::Kafka
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let logs = self.nodes.iter().map(|(id, node)| {
            let tail = node.log_tail();
            let lines: Vec<&str> = tail.lines().collect();
            let tail = lines[lines.len().saturating_sub(8)..].join("\n");
            format!("\nnode {id}:\n{tail}")
        });
        logs.collect()
    }

    /// Ends all in order, at the same time. The last of them has no quorum to leave any more: a
    /// Kafka that waits for one is killed.
    pub fn stop(&mut self) -> Result<()> {
        for node in self.nodes.values() {
            if let Some(pid) = node.pid() {
                signal(pid, "TERM");
            }
        }
        for node in self.nodes.values_mut() {
            match self.against {
                Against::Klamm => node.wait_ended().map(drop)?,
                Against::Kafka => node.kill()?,
            }
        }
        Ok(())
    }
}

/// FindCoordinator v1.
fn coordinator(connection: &mut Connection, kind: i8, key: &str) -> io::Result<i32> {
    let mut body = Writer::default();
    body.string(key).i8(kind);
    let answer = connection.call(10, 1, &body)?;
    let mut r = Reader(&answer);
    r.i32()?;
    r.i16()?;
    r.string()?;
    r.i32()
}

/// Metadata v1 of one topic.
pub fn shown(connection: &mut Connection, topic: &str) -> io::Result<Vec<Shown>> {
    let mut body = Writer::default();
    body.i32(1).string(topic);
    let answer = connection.call(3, 1, &body)?;
    let mut r = Reader(&answer);
    for _ in 0..r.i32()? {
        r.i32()?;
        r.string()?;
        r.i32()?;
        r.string()?;
    }
    r.i32()?;
    r.i32()?;
    r.i16()?;
    r.string()?;
    r.i8()?;
    let mut partitions = Vec::new();
    for _ in 0..r.i32()? {
        r.i16()?;
        let (partition, leader) = (r.i32()?, r.i32()?);
        let mut ids = || -> io::Result<Vec<i32>> { (0..r.i32()?).map(|_| r.i32()).collect() };
        partitions.push(Shown {
            partition,
            leader,
            replicas: ids()?,
            isr: ids()?,
        });
    }
    partitions.sort_by_key(|shown| shown.partition);
    Ok(partitions)
}
