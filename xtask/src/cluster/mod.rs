//! `cargo xtask cluster`, and a short form of it in `cargo xtask interop`: three brokers under
//! load, which are killed, paused, cut off from each other, restarted, given a full disk, another
//! time of day and other replicas meanwhile, and joined by others. Three clients make the load and check that everything
//! acknowledged and everything read stays, once and in order; Kafka's own tools look and reassign.
//!
//! - [`nodes`]: the brokers; [`net`]: a network that can be cut; [`load`]: the clients.
//! - here: kills, pauses, restarts; [`cuts`]: the network; [`disk`]: a full one; [`clocks`]:
//!   wall clocks that jump, by means of [`wall`], and [`transaction`]s meanwhile; [`growth`]: more
//!   brokers, and others; [`tools`]: what Kafka's tools are asked to do.
//! - [`mod@bench`]: `cargo xtask cluster-bench`, beside a real Kafka of three nodes; [`many`]: very many
//!   partitions.

mod bench;
mod clocks;
mod cuts;
mod disk;
mod growth;
pub mod load;
mod many;
mod net;
pub mod nodes;
mod tools;
mod transaction;
mod wall;

use crate::broker::Against;
use crate::report::{Outcome, Report};
use crate::runtimes::Java;
use crate::{Flags, Result, cache};
pub use bench::{USAGE as BENCH_USAGE, run as bench};
use load::Load;
use nodes::Nodes;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub const USAGE: &str = "cluster [--against klamm|kafka] [--kills 30] [--pauses 5] [--rolls 3] \
[--cuts 3] [--disks 2] [--clocks 3] [--growths 2]";

/// Each client's topic is named after it.
const TOPIC: &str = "cluster";
const PARTITIONS: i32 = 6;
/// Another one, with two replicas, which move.
const MOVING: &str = "cluster-moving";
/// How long clients may get nothing done: detection, election and their own timeouts.
const OUTAGE_MAX: Duration = Duration::from_secs(45);
/// What all nodes are told, so that faults are noticed soon.
pub const SETTINGS: [(&str, &str); 3] = [
    ("broker.session.timeout.ms", "3000"),
    ("broker.heartbeat.interval.ms", "500"),
    ("replica.lag.time.max.ms", "5000"),
];

/// How much of each.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    kills: u32,
    pauses: u32,
    rolls: u32,
    cuts: u32,
    disks: u32,
    clocks: u32,
    growths: u32,
}

impl Extent {
    /// About four minutes and a half.
    pub const SHORT: Extent = Extent {
        kills: 2,
        pauses: 1,
        rolls: 1,
        cuts: 1,
        disks: 1,
        clocks: 1,
        growths: 1,
    };
}

pub fn run(args: &[String]) -> Result<()> {
    let known = [
        "against", "kills", "pauses", "rolls", "cuts", "disks", "clocks", "growths",
    ];
    let flags = Flags::parse(args, &known)?;
    let against = Against::parse(flags.get("against").unwrap_or("klamm"))?;
    let extent = Extent {
        kills: flags.number("kills", 30)?,
        pauses: flags.number("pauses", 5)?,
        rolls: flags.number("rolls", 3)?,
        cuts: flags.number("cuts", 3)?,
        disks: flags.number("disks", 2)?,
        clocks: flags.number("clocks", 3)?,
        growths: flags.number("growths", 2)?,
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
    let settings = [&SETTINGS[..], &clocks::SETTINGS].concat();
    let mut nodes = Nodes::new(against, &folder.join("cluster"), &settings);
    let (net, disk) = nodes.in_their_own_world();
    let clocks = nodes.with_clocks();
    let mut scenario = Scenario {
        java,
        folder: folder.join("cluster"),
        loads: Vec::new(),
        nodes,
    };
    let mut started = false;
    report.test("cluster.start", || {
        scenario.start()?;
        started = true;
        Ok(())
    });
    if !started {
        return;
    }
    scenario.start_loads(report);
    scenario.faults_of_processes(extent, report);
    match net {
        Ok(()) => scenario.cuts(extent.cuts, report),
        Err(e) => report.tell("cluster.cuts", Outcome::Skip(e.to_string()), None),
    }
    match disk {
        Ok(()) => (1..=extent.disks).for_each(|round| {
            let name = format!("cluster.{}-{round}", "full-disk");
            report.test(&name, || scenario.fill_a_disk());
        }),
        Err(e) => report.tell("cluster.full-disk", Outcome::Skip(e.to_string()), None),
    }
    match clocks {
        Ok(()) => scenario.clocks(extent.clocks, report),
        Err(e) => report.tell("cluster.clocks", Outcome::Skip(e.to_string()), None),
    }
    report.test("cluster.reassignment", || scenario.reassign());
    if extent.growths > 0 {
        report.test("cluster.log-directories", || scenario.move_between_dirs());
    }
    for round in 1..=extent.growths {
        scenario.grow(round, report);
    }
    report.test("cluster.preferred-leaders", || scenario.elect_preferred());
    report.test("cluster.nothing-lost", || scenario.finish());
    report.test("cluster.ends-cleanly", || scenario.nodes.stop());
}

struct Scenario {
    java: Java,
    folder: PathBuf,
    /// Before the nodes: clients end first.
    loads: Vec<(String, Load)>,
    nodes: Nodes,
}

impl Scenario {
    fn start(&mut self) -> Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        self.nodes.start()?;
        self.create(MOVING, 4, 2)
    }

    fn start_loads(&mut self, report: &mut Report) {
        let log = self.folder.join("load.log");
        for (name, client) in load::clients(&self.java, &log) {
            let test = format!("cluster.load.{name}");
            match client {
                Err(e) => report.missing(&test, &e.to_string()),
                Ok(client) => report.test(&test, || {
                    let topic = format!("{TOPIC}-{name}");
                    self.create(&topic, PARTITIONS, 3)?;
                    let load = Load::start(client, &self.nodes.bootstrap(), &topic, PARTITIONS)?;
                    self.loads.push((topic, load));
                    Ok(())
                }),
            }
        }
    }

    fn faults_of_processes(&mut self, extent: Extent, report: &mut Report) {
        for round in 0..extent.kills {
            let name = format!("cluster.kill-{}", round + 1);
            report.test(&name, || self.kill(round));
        }
        for round in 0..extent.pauses {
            let name = format!("cluster.pause-{}", round + 1);
            report.test(&name, || self.pause(round));
        }
        for round in 0..extent.rolls {
            let name = format!("cluster.rolling-restart-{}", round + 1);
            report.test(&name, || self.roll());
        }
    }

    /// Waits until each client has got on by what it sends in so many seconds, after `before`.
    /// Tells how long all of them took.
    fn goes_on(&self, seconds: u64) -> Result<Duration> {
        let before: Vec<u64> = self.loads.iter().map(|(_, load)| load.acked()).collect();
        let begun = Instant::now();
        for ((_, load), before) in self.loads.iter().zip(before) {
            let records = load.records_of(seconds);
            load.wait_for_progress(before, records, OUTAGE_MAX)
                .map_err(|e| format!("{e}{}", self.nodes.logs()))?;
        }
        Ok(begun.elapsed())
    }

    fn all_in_sync(&self) -> Result<()> {
        let mut topics = self.loads.iter();
        topics.try_for_each(|(topic, _)| self.nodes.wait_in_sync(topic))
    }

    /// The leader of one of the partitions, another one each round.
    fn leader(&self, round: u32) -> Result<i32> {
        let topic = &self.loads.first().ok_or("there is no load")?.0;
        let partitions = self.nodes.partitions(topic)?;
        let shown = &partitions[round as usize % partitions.len()];
        match shown.leader {
            leader @ 1.. => Ok(leader),
            other => Err(format!("{other} leads {shown:?}").into()),
        }
    }

    /// A leader dies; the load goes on without it, and it comes back.
    fn kill(&mut self, round: u32) -> Result<()> {
        let leader = self.leader(round)?;
        self.nodes.node(leader)?.kill()?;
        let took = self.goes_on(2)?.as_millis();
        println!("      2 s of load {took} ms after node {leader} died");
        self.nodes.start_again(leader)?;
        self.all_in_sync()
    }

    /// A leader stands still for longer than its session and does not know it when it wakes.
    fn pause(&mut self, round: u32) -> Result<()> {
        let leader = self.leader(round)?;
        self.nodes.signal(leader, "STOP")?;
        std::thread::sleep(Duration::from_secs(6));
        let went_on = self.goes_on(1);
        self.nodes.signal(leader, "CONT")?;
        went_on?;
        self.all_in_sync()
    }

    /// All are restarted, one after the other and in order.
    fn roll(&mut self) -> Result<()> {
        for id in self.nodes.ids() {
            self.nodes.node(id)?.stop()?;
            self.goes_on(1)?;
            self.nodes.start_again(id)?;
            self.all_in_sync()?;
        }
        Ok(())
    }

    /// Ends the clients, each of which reads everything again.
    fn finish(&mut self) -> Result<()> {
        let mut failed = Vec::new();
        for (_, load) in self.loads.drain(..) {
            match load.finish() {
                Ok(verdict) => println!("      {verdict}"),
                Err(e) => failed.push(e.to_string()),
            }
        }
        if failed.is_empty() {
            Ok(())
        } else {
            Err(failed.join("\n").into())
        }
    }
}
