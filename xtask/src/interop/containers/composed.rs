//! The compose files as they are, and clients on this machine.

use super::engine::{Member, Project};
use super::{Containers, METRICS_PORT, PATIENCE, PORT, THREE_PORTS};
use super::{expect_records, metrics, reach, values, write};
use crate::Result;
use crate::cluster::load::{self, Load};
use crate::cluster::nodes::{Shown, shown};
use crate::hello::{hello_lines, wait_for_ports};
use crate::runtimes::{self, Java};
use crate::wire::Connection;
use std::time::{Duration, Instant};

const TOPIC: &str = "composed";
const PARTITIONS: i32 = 3;
const SERVICES: [&str; 3] = ["one", "two", "three"];
/// As cluster/mod.rs has it.
const OUTAGE_MAX: Duration = Duration::from_secs(45);

impl Containers {
    /// compose.yaml, and what stays of it.
    pub(super) fn compose(&self) -> Result<()> {
        wait_for_ports(&[PORT, METRICS_PORT])?;
        let project = self.engine.project("compose.yaml", "one")?;
        for round in 0..3 {
            let begun = Instant::now();
            project.up()?;
            let up = begun.elapsed();
            let mut connection = reach(PORT, 1)?;
            let served = begun.elapsed();
            let member = project.member("kafka")?;
            member.wait_healthy()?;
            println!(
                "      up took {} ms, a client was served after {}, healthy after {}",
                up.as_millis(),
                served.as_millis(),
                begun.elapsed().as_millis()
            );
            metrics()?;
            if round > 0 {
                expect_records(&mut connection, TOPIC, &values(0, round * 100))?;
            }
            let more = values(round * 100, round * 100 + 100);
            write(&mut connection, TOPIC, &more)?;
            expect_records(&mut connection, TOPIC, &values(0, round * 100 + 100))?;
            match round {
                0 => {
                    greet()?;
                    let took = member.stop()?;
                    println!("      docker stop took {} ms", took.as_millis());
                }
                _ => kill(&member)?,
            }
            // Keeps the volume.
            project.run(&["down"])?;
        }
        Ok(())
    }

    /// compose.three.yaml under load, with its leaders killed in turn.
    pub(super) fn compose_three(&self) -> Result<()> {
        wait_for_ports(&THREE_PORTS)?;
        let java = Java::prepare()?;
        let project = self.engine.project("compose.three.yaml", "three")?;
        let begun = Instant::now();
        project.up()?;
        let up = begun.elapsed();
        let mut connections = Vec::new();
        for port in THREE_PORTS {
            connections.push(reach(port, 3)?);
        }
        let served = begun.elapsed();
        let members = SERVICES.map(|service| project.member(service));
        let members: Vec<Member> = members.into_iter().collect::<Result<_>>()?;
        members
            .iter()
            .try_for_each(|m| m.wait_healthy().map(drop))?;
        println!(
            "      up took {} ms, all three were served after {}, healthy after {}",
            up.as_millis(),
            served.as_millis(),
            begun.elapsed().as_millis()
        );
        let code = connections[0].create_replicated_topic(TOPIC, PARTITIONS, 3, &[])?;
        if code != 0 {
            return Err(format!("making a topic was answered with {code}").into());
        }
        let leaders = wait_in_sync()?;
        let client = load::of_java(&java, &self.folder.join("load.log"));
        let bootstrap = THREE_PORTS
            .map(|port| format!("localhost:{port}"))
            .join(",");
        let load = Load::start(client, &bootstrap, TOPIC, PARTITIONS)?;
        // The leaders of the first partition and of what is left of them after that.
        for _ in 0..2 {
            kill_leader(&load, &members)?;
        }
        println!("      {}", load.finish()?);
        if leaders.iter().any(|p| p.replicas.len() != 3) {
            return Err(format!("not three replicas: {leaders:?}").into());
        }
        stop_all(&project, &members)
    }
}

/// Ends a container as a crash does.
fn kill(member: &Member) -> Result<()> {
    super::engine::docker(&["kill", &member.0]).map(drop)
}

/// The first program of a user, where there is Python for it.
fn greet() -> Result<()> {
    let python = match runtimes::python() {
        Ok(python) => python,
        Err(e) => {
            println!("      without hello.py: {e}");
            return Ok(());
        }
    };
    match hello_lines(&python)? {
        lines if lines == ["Hello Kafka!"] => Ok(()),
        lines => Err(format!("hello.py printed {lines:?} instead of one greeting").into()),
    }
}

/// The first partition's leader dies; the load goes on, the container comes back and is in sync.
fn kill_leader(load: &Load, members: &[Member]) -> Result<()> {
    let leader = wait_in_sync()?.first().map_or(0, |p| p.leader);
    let index = usize::try_from(leader - 1)?;
    let member = members.get(index).ok_or("nobody leads")?;
    let before = load.acked();
    kill(member)?;
    let took = load.wait_for_progress(before, load.records_of(2), OUTAGE_MAX)?;
    println!(
        "      2 s of load in {} ms after node {leader} died",
        took.as_millis()
    );
    let begun = Instant::now();
    super::engine::docker(&["start", &member.0])?;
    reach(THREE_PORTS[index], 3)?;
    wait_in_sync()?;
    println!(
        "      back and in sync after {} ms",
        begun.elapsed().as_millis()
    );
    member.wait_healthy().map(drop)
}

/// Waits until all replicas are in sync, as any node shows it.
fn wait_in_sync() -> Result<Vec<Shown>> {
    let begun = Instant::now();
    loop {
        let look = |port| Connection::open(port).and_then(|mut c| shown(&mut c, TOPIC));
        let partitions = THREE_PORTS.into_iter().find_map(|port| look(port).ok());
        let partitions = partitions.unwrap_or_default();
        let whole = |p: &Shown| p.leader > 0 && p.isr.len() == p.replicas.len();
        if !partitions.is_empty() && partitions.iter().all(whole) {
            return Ok(partitions);
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("not in sync after {PATIENCE:?}: {partitions:?}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// All at once: the last of them has nobody left to hand anything to.
fn stop_all(project: &Project, members: &[Member]) -> Result<()> {
    let begun = Instant::now();
    project.run(&["stop"])?;
    println!(
        "      stop of all three took {} ms",
        begun.elapsed().as_millis()
    );
    members.iter().try_for_each(Member::ended_in_order)
}
