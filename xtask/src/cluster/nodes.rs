//! Three brokers, each with a controller, as processes on loopback.

use crate::Result;
use crate::broker::{Against, Broker, Spec, signal};
use crate::wire::{Connection, Reader, Writer};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// What every process of the cluster is told.
const CLUSTER_ID: &str = "Q2x1c3RlciBvZiB0aHJlZQ";

/// A partition as a broker shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub partition: i32,
    pub leader: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
}

/// Nodes 1 to 3, in this order.
pub struct Nodes(Vec<Broker>);

impl Nodes {
    /// Starts all three, with further configs, and waits until each shows all.
    pub fn start(against: Against, folder: &Path, more: &[(&str, &str)]) -> Result<Nodes> {
        let ids = 1..=3;
        let mut specs = Vec::new();
        for id in ids.clone() {
            let mut spec = Spec::new(folder.join(format!("node-{id}")))?;
            spec.heap = "320m".into();
            specs.push(spec);
        }
        let voters: Vec<String> = ids
            .clone()
            .zip(&specs)
            .map(|(id, spec)| format!("{id}@127.0.0.1:{}", spec.controller_port))
            .collect();
        let mut nodes = Vec::new();
        for (id, spec) in ids.zip(specs) {
            let mut spec = spec
                .with("node.id", id)
                .with("controller.quorum.voters", voters.join(","))
                .with("offsets.topic.replication.factor", 3)
                .with("transaction.state.log.replication.factor", 3)
                .with("transaction.state.log.min.isr", 2)
                .with("default.replication.factor", 3)
                .with("min.insync.replicas", 2)
                .with("broker.session.timeout.ms", 3000)
                .with("broker.heartbeat.interval.ms", 500)
                .with("replica.lag.time.max.ms", 5000)
                .in_cluster(CLUSTER_ID);
            for (name, value) in more {
                spec = spec.with(name, value);
            }
            nodes.push(Broker::prepare(against, spec)?);
        }
        let mut nodes = Nodes(nodes);
        for node in &mut nodes.0 {
            node.spawn()?;
        }
        for id in 1..=3 {
            nodes.wait_for_members(id)?;
        }
        Ok(nodes)
    }

    pub fn node(&mut self, id: i32) -> Result<&mut Broker> {
        let index = usize::try_from(id - 1).unwrap_or(usize::MAX);
        let node = self.0.get_mut(index);
        node.ok_or_else(|| format!("there is no node {id}").into())
    }

    pub fn bootstrap(&self) -> String {
        let all: Vec<String> = self.0.iter().map(Broker::bootstrap).collect();
        all.join(",")
    }

    /// Starts a node that was stopped or killed; returns when it shows all three.
    pub fn start_again(&mut self, id: i32) -> Result<()> {
        self.node(id)?.spawn()?;
        self.wait_for_members(id)
    }

    /// Waits until a node shows all three.
    pub fn wait_for_members(&mut self, id: i32) -> Result<()> {
        let node = self.node(id)?;
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let shown = Connection::open(node.spec.port).and_then(|mut c| c.brokers());
            if matches!(shown, Ok(3)) {
                return Ok(());
            }
            if let Some(status) = node.exited()? {
                return Err(format!("node {id} ended ({status}):\n{}", node.log_tail()).into());
            }
            if Instant::now() > end {
                let tail = node.log_tail();
                return Err(
                    format!("node {id} shows {shown:?} brokers after 60 s:\n{tail}").into(),
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
        for node in &self.0 {
            match Connection::open(node.spec.port).and_then(|mut c| shown(&mut c, topic)) {
                Ok(partitions) => return Ok(partitions),
                Err(e) => why = e.to_string(),
            }
        }
        Err(format!("no node shows {topic}: {why}").into())
    }

    /// The node that coordinates a group (`kind` 0) or a transactional id (`kind` 1).
    pub fn coordinator(&self, kind: i8, key: &str) -> Result<i32> {
        let mut why = String::new();
        for node in &self.0 {
            match Connection::open(node.spec.port).and_then(|mut c| coordinator(&mut c, kind, key))
            {
                Ok(id @ 1..=3) => return Ok(id),
                Ok(id) => why = format!("node {id}"),
                Err(e) => why = e.to_string(),
            }
        }
        Err(format!("no node tells who coordinates {key}: {why}").into())
    }

    /// Waits until all replicas of a topic are in sync.
    pub fn wait_in_sync(&self, topic: &str) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let shown = self.partitions(topic);
            let whole = |p: &Shown| p.isr.len() == p.replicas.len() && p.leader >= 0;
            if shown.as_ref().is_ok_and(|all| all.iter().all(whole)) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("not all in sync after 60 s: {shown:?}{}", self.logs()).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let logs = self.0.iter().zip(1..).map(|(node, id)| {
            let tail = node.log_tail();
            let lines: Vec<&str> = tail.lines().collect();
            let tail = lines[lines.len().saturating_sub(8)..].join("\n");
            format!("\nnode {id}:\n{tail}")
        });
        logs.collect()
    }

    /// Ends all in order, at the same time. The last of them has no quorum to leave any more.
    pub fn stop(&mut self) -> Result<()> {
        for node in &self.0 {
            signal(node.pid().ok_or("it does not run")?, "TERM");
        }
        for node in &mut self.0 {
            node.wait_ended()?;
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
fn shown(connection: &mut Connection, topic: &str) -> io::Result<Vec<Shown>> {
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
