//! What goes wrong, one thing after the other.
//!
//! How brokers may die is limited by what Kafka promises ([`Deaths`]); everything else may happen at
//! any time: partitions of the network, in one direction or both, that come and go; processes that
//! stand still for longer than their session; brokers that leave in order; clocks that are off;
//! elections, reassignments and changes of `min.insync.replicas`.

use std::sync::atomic::{AtomicI64, Ordering};

use klamm_env::Rng as _;
use klamm_metadata::ResourceType;
use klamm_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use klamm_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use klamm_protocol::messages::{
    AlterPartitionReassignmentsRequest, ElectLeadersRequest, IncrementalAlterConfigsRequest,
};

use super::super::Violation;
use super::asking::{self, Decision};
use super::node::Node;
use super::plan::Deaths;
use super::whole;
use super::world::World;
use crate::{Address, Errno, NetFaults, SimRng};

/// Clients, as addresses.
const CLIENTS: [std::ops::Range<Address>; 2] = [100..110, 200..203];

pub(super) struct Nemesis {
    world: World,
    rng: SimRng,
    /// What goes wrong with controllers, if they fail.
    controllers: Option<whole::Nemesis>,
    /// Until when no cut is mended, in milliseconds.
    cut_until: AtomicI64,
}

impl Nemesis {
    pub(super) fn new(world: &World) -> Nemesis {
        Nemesis {
            rng: world.rng.fork("nemesis"),
            world: world.clone(),
            controllers: whole::Nemesis::new(world),
            cut_until: AtomicI64::new(0),
        }
    }

    /// One thing goes wrong, or gets better.
    pub(super) fn strike(&self) -> Result<(), Violation> {
        let strikes = self.controllers.as_ref().and_then(|it| it.strike());
        if let Some(ms) = strikes {
            let until = self.world.now_ms() + ms as i64;
            self.cut_until.fetch_max(until, Ordering::Relaxed);
            return Ok(());
        }
        let Some(node) = self.some_node() else {
            return Ok(());
        };
        match self.rng.index(100) {
            0..14 => self.kill(node),
            14..30 => self.start_somebody()?,
            30..36 => self.leave(node),
            36..48 => self.part(node),
            48..62 => self.mend(),
            62..70 => self.hold(node, 100 + self.rng.below(300)),
            70..74 => self.hold(node, 2_000 + self.rng.below(6_000)),
            74..80 => self.reassign(),
            80..85 => self.elect(),
            85..89 => self.configure(),
            89..92 => {
                let most = self.world.plan.long.map_or(2_000, |it| it.skew_ms);
                node.clock.skew(self.rng.range(-most, most));
            }
            92..94 => self.flap(node),
            94..96 => self.break_disk(node),
            96 => self.roll(),
            _ => self.change_faults(),
        }
        Ok(())
    }

    fn mend(&self) {
        if self.world.now_ms() >= self.cut_until.load(Ordering::Relaxed) {
            self.world.net.mend();
        }
    }

    /// Nothing goes wrong from now on.
    pub(super) fn relent(&self) -> Result<(), Violation> {
        self.world.note("peace");
        if let Some(controllers) = &self.controllers {
            controllers.relent();
        }
        self.world.net.mend();
        self.world.net.set_faults(NetFaults::default());
        for node in self.world.nodes.values() {
            node.go_on(&self.world);
            node.start(&self.world)?;
        }
        Ok(())
    }

    fn some_node(&self) -> Option<&Node> {
        let id = self.rng.pick(&self.world.plan.brokers)?;
        self.world.nodes.get(id)
    }

    fn kill(&self, node: &Node) {
        let running = node.broker().is_some();
        match self.world.plan.deaths {
            Deaths::Kills if running => node.die(&self.world, false),
            Deaths::PowerCuts if running && self.is_whole() => {
                let power = self.rng.one_in(2);
                node.die(&self.world, power);
            }
            Deaths::Blackouts if self.rng.one_in(4) => {
                for node in self.world.nodes.values() {
                    if node.broker().is_some() && !self.rng.one_in(4) {
                        node.die(&self.world, true);
                    }
                }
            }
            Deaths::Blackouts if running => {
                let power = !self.rng.one_in(4);
                node.die(&self.world, power);
            }
            _ => {}
        }
    }

    /// Whether all brokers run, and all replicas are in sync.
    fn is_whole(&self) -> bool {
        let image = self.world.truth();
        let all_run = self.world.nodes.values().all(|node| {
            let epoch = node.broker().map(|broker| broker.epoch());
            let known = image.broker(node.id);
            !node.is_leaving()
                && !node.is_disturbed()
                && known.is_some_and(|it| it.is_active() && Some(it.epoch) == epoch)
        });
        let mut partitions = image.topics().iter().flat_map(|topic| topic.partitions());
        let in_sync = partitions.all(|(_, partition)| {
            partition.isr.len() == partition.replicas.len() && partition.adding_replicas.is_empty()
        });
        all_run && in_sync
    }

    fn start_somebody(&self) -> Result<(), Violation> {
        let down = |node: &&Node| node.broker().is_none();
        let down: Vec<&Node> = self.world.nodes.values().filter(down).collect();
        match self.rng.pick(&down) {
            Some(node) => node.start(&self.world),
            None => Ok(()),
        }
    }

    fn leave(&self, node: &Node) {
        // Two that leave at once may be as bad as a power cut on top of them.
        if self.world.plan.deaths != Deaths::PowerCuts || self.is_whole() {
            node.ask_to_leave();
        }
    }

    /// Cuts a broker off: from everybody, the controller, or another broker; both ways or one.
    fn part(&self, node: &Node) {
        let others = self.world.plan.brokers.iter().copied();
        let everybody = others.clone().chain(CLIENTS.into_iter().flatten());
        let controllers = self.world.controllers();
        let from: Vec<Address> = match self.rng.index(4) {
            0 => everybody.chain(controllers.iter().copied()).collect(),
            1 => controllers.to_vec(),
            2 => others.collect(),
            _ => self
                .rng
                .pick(&self.world.plan.brokers)
                .copied()
                .into_iter()
                .collect(),
        };
        let (both, outwards) = (self.rng.one_in(2), self.rng.one_in(2));
        self.world.note(format_args!(
            "{} is cut off {from:?} {both} {outwards}",
            node.id
        ));
        for other in from.into_iter().filter(|other| *other != node.id) {
            let (from, to) = if outwards {
                (node.id, other)
            } else {
                (other, node.id)
            };
            self.world.net.cut(from, to, both);
        }
    }

    /// The way to another broker, or to the controller, is cut and mended again and again.
    fn flap(&self, node: &Node) {
        let brokers = self.world.plan.brokers.iter();
        let others: Vec<Address> = brokers.chain(self.world.controllers()).copied().collect();
        let Some(&other) = self.rng.pick(&others) else {
            return;
        };
        let (world, rng, id) = (self.world.clone(), self.rng.fork("flap"), node.id);
        self.world.note(format_args!("{id} and {other} flap"));
        self.world.executor.spawn("nemesis", async move {
            for _ in 0..20 {
                if world.is_calm() {
                    return;
                }
                world.net.cut(id, other, rng.one_in(2));
                world.sleep_ms(rng.below(400)).await;
                world.net.splice(id, other);
                world.sleep_ms(rng.below(400)).await;
            }
        });
    }

    /// A disk is full, or fails. What it did not sync is lost then, as with a power cut.
    fn break_disk(&self, node: &Node) {
        let allowed = match self.world.plan.deaths {
            Deaths::Kills => false,
            Deaths::PowerCuts => self.is_whole(),
            Deaths::Blackouts => true,
        };
        let Some(broker) = node.broker().filter(|_| allowed) else {
            return;
        };
        let errno = [Errno::Io, Errno::NoSpace][self.rng.index(2)];
        node.break_disk(&self.world, self.rng.below(60), errno);
        // A disk that nobody asks for anything does not fail.
        let ms = 2_000 + self.rng.below(3_000);
        let (world, id) = (self.world.clone(), node.id);
        self.world.executor.spawn("nemesis", async move {
            world.sleep_ms(ms).await;
            let node = world.nodes.get(&id);
            let same = |node: &&Node| {
                let running = node.broker();
                running.is_some_and(|running| running.process == broker.process)
            };
            if let Some(node) = node.filter(same) {
                node.die(&world, true);
            }
        });
    }

    /// All brokers are restarted in order, each when all replicas are in sync again.
    fn roll(&self) {
        self.world.note("all are restarted in turn");
        let nemesis = Nemesis {
            world: self.world.clone(),
            rng: self.rng.fork("roll"),
            controllers: None,
            cut_until: AtomicI64::new(0),
        };
        self.world.executor.spawn("nemesis", async move {
            let world = &nemesis.world;
            for node in world.nodes.values() {
                while !nemesis.is_whole() {
                    world.sleep_ms(200).await;
                    if world.is_calm() {
                        return;
                    }
                }
                node.ask_to_leave();
                while node.broker().is_some() {
                    world.sleep_ms(200).await;
                    if world.is_calm() {
                        return;
                    }
                }
                world.sleep_ms(nemesis.rng.below(500)).await;
                if let Err(violation) = node.start(world) {
                    world.history().fail(violation);
                }
            }
        });
    }

    /// A broker stands still for a while.
    fn hold(&self, node: &Node, ms: u64) {
        let process = node.broker().map(|broker| broker.process);
        node.pause(&self.world);
        let (world, id) = (self.world.clone(), node.id);
        self.world.executor.spawn("nemesis", async move {
            world.sleep_ms(ms).await;
            let Some(node) = world.nodes.get(&id) else {
                return;
            };
            if node.broker().map(|broker| broker.process) == process {
                node.go_on(&world);
            }
        });
    }

    fn reassign(&self) {
        let partitions = self.world.partitions();
        let Some(partition) = self.rng.pick(&partitions) else {
            return;
        };
        let mut replicas = self.world.plan.brokers.clone();
        for last in (1..replicas.len()).rev() {
            replicas.swap(last, self.rng.index(last + 1));
        }
        replicas.truncate(3);
        let request = AlterPartitionReassignmentsRequest {
            topics: vec![ReassignableTopic {
                name: (&*partition.topic).into(),
                partitions: vec![ReassignablePartition {
                    partition_index: partition.partition,
                    replicas: (!self.rng.one_in(5)).then_some(replicas),
                    ..ReassignablePartition::default()
                }],
                ..ReassignableTopic::default()
            }],
            ..AlterPartitionReassignmentsRequest::default()
        };
        self.ask(request);
    }

    fn elect(&self) {
        let request = ElectLeadersRequest {
            topic_partitions: None,
            ..ElectLeadersRequest::default()
        };
        self.ask(request);
    }

    fn configure(&self) {
        let topics = self.world.topics().clone();
        let Some(topic) = self.rng.pick(&topics) else {
            return;
        };
        let min_isr = self.rng.range(topic.min_isr.into(), 4).to_string();
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: ResourceType::Topic.id(),
                resource_name: (&*topic.name).into(),
                configs: vec![AlterableConfig {
                    name: "min.insync.replicas".into(),
                    value: Some(min_isr.as_str().into()),
                    ..AlterableConfig::default()
                }],
                ..AlterConfigsResource::default()
            }],
            ..IncrementalAlterConfigsRequest::default()
        };
        self.ask(request);
    }

    /// Has an administrator ask for something, who forgets the reply.
    fn ask<R: Decision>(&self, request: R) {
        let world = self.world.clone();
        self.world.executor.spawn("administrator", async move {
            asking::administer(&world, request).await;
        });
    }

    fn change_faults(&self) {
        let faults = if self.rng.one_in(3) {
            NetFaults::default()
        } else {
            self.world.plan.faults
        };
        self.world.net.set_faults(faults);
    }
}
