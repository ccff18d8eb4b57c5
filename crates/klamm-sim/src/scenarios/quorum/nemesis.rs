//! What goes wrong, one thing after the other. Raft promises that nothing is lost whatever happens
//! to processes, machines and networks, as long as disks keep what they synced: so there is no limit
//! to what may go wrong at once.

use klamm_env::Rng as _;

use super::node::Node;
use super::world::World;
use crate::{Address, Errno, NetFaults, SimRng};

pub(in crate::scenarios) struct Nemesis {
    world: World,
    rng: SimRng,
}

impl Nemesis {
    pub(in crate::scenarios) fn new(world: &World) -> Nemesis {
        Nemesis {
            rng: world.rng.fork("nemesis"),
            world: world.clone(),
        }
    }

    /// One thing goes wrong, or gets better.
    pub(in crate::scenarios) fn strike(&self) {
        let Some(node) = self.some_node() else {
            return;
        };
        match self.rng.index(100) {
            0..8 => node.die(&self.world, false),
            8..14 => node.die(&self.world, true),
            14..16 => self.blackout(),
            16..34 => self.start_somebody(),
            34..46 => self.part(node),
            46..58 => self.world.net.mend(),
            58..64 => self.hold(node, 100 + self.rng.below(400)),
            64..68 => self.hold(node, 1_000 + self.rng.below(5_000)),
            68..72 => self.resign(node),
            72..76 => self.take_snapshot(node),
            76..79 => self.leave(node),
            79..82 => node.clock.skew(self.rng.range(-5_000, 5_000)),
            82..85 => self.restart_broker(),
            85..90 if self.world.plan.bad_disks => self.break_disk(node),
            90..93 if self.world.plan.bad_disks => self.slow_disk(node),
            _ => self.change_faults(),
        }
    }

    /// The same for controllers of others' brokers. With `dies` unset, what ends a process is left
    /// to others.
    pub(in crate::scenarios) fn strike_controller(&self, dies: bool) {
        let Some(node) = self.some_node() else {
            return;
        };
        match self.rng.index(50) {
            0..4 if dies => node.die(&self.world, false),
            4..8 if dies => node.die(&self.world, true),
            8 if dies => self.blackout(),
            9..17 if dies => self.start_somebody(),
            17..20 if dies => self.break_disk(node),
            20..22 if dies => self.leave(node),
            22..27 => self.part(node),
            27..31 => self.hold(node, 100 + self.rng.below(400)),
            31..34 => self.hold(node, 1_000 + self.rng.below(5_000)),
            34..40 => self.resign(node),
            40..44 => self.take_snapshot(node),
            44..46 => node.clock.skew(self.rng.range(-5_000, 5_000)),
            46..50 if self.world.plan.bad_disks => self.slow_disk(node),
            _ => {}
        }
    }

    /// Nothing goes wrong from now on.
    pub(in crate::scenarios) fn relent(&self) {
        self.world.note("peace");
        self.world.net.mend();
        self.world.net.set_faults(NetFaults::default());
        for node in self.world.nodes.values() {
            if let Some(process) = node.process() {
                self.world.executor.resume(process);
                let at_once = std::time::Duration::ZERO;
                self.world.executor.slow_disk(process, at_once);
            }
            node.start(&self.world);
        }
    }

    fn some_node(&self) -> Option<&Node> {
        let id = self.rng.pick(&self.world.plan.controllers)?;
        self.world.nodes.get(id)
    }

    fn blackout(&self) {
        for node in self.world.nodes.values() {
            if !self.rng.one_in(4) {
                node.die(&self.world, true);
            }
        }
    }

    fn start_somebody(&self) {
        let nodes = self.world.nodes.values();
        let down: Vec<&Node> = nodes.filter(|node| node.process().is_none()).collect();
        if let Some(node) = self.rng.pick(&down) {
            node.start(&self.world);
        }
    }

    /// Cuts a controller off: from everybody, the other controllers, one of them, or the brokers;
    /// both ways or one.
    fn part(&self, node: &Node) {
        let plan = &self.world.plan;
        let from: Vec<Address> = match self.rng.index(4) {
            0 => plan
                .controllers
                .iter()
                .chain(&plan.brokers)
                .copied()
                .collect(),
            1 => plan.controllers.clone(),
            2 => plan.brokers.clone(),
            _ => self
                .rng
                .pick(&plan.controllers)
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

    /// A controller stands still for a while.
    fn hold(&self, node: &Node, ms: u64) {
        let Some(process) = node.process() else {
            return;
        };
        self.world.note(format_args!("{} stands still", node.id));
        self.world.executor.pause(process);
        let (world, id) = (self.world.clone(), node.id);
        self.world.executor.spawn("nemesis", async move {
            world.sleep_ms(ms).await;
            let node = world.nodes.get(&id);
            if node.is_some_and(|node| node.process() == Some(process)) {
                world.executor.resume(process);
            }
        });
    }

    /// Has a controller do something in its own process.
    fn spawn<F>(&self, node: &Node, what: &str, act: impl FnOnce(klamm_controller::Controller) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (Some(process), Some(controller)) = (node.process(), node.controller()) else {
            return;
        };
        self.world.note(format_args!("{what} {}", node.id));
        let executor = &self.world.executor;
        executor.spawn_in(process, what, act(controller));
    }

    fn resign(&self, node: &Node) {
        self.spawn(node, "resign", |controller| async move {
            controller.resign(std::time::Duration::from_secs(2)).await;
        });
    }

    fn take_snapshot(&self, node: &Node) {
        if self.world.plan.has_snapshots() {
            self.spawn(node, "snapshot", |controller| async move {
                // Who is about to stop takes none.
                let _ = controller.take_snapshot().await;
            });
        }
    }

    /// A controller stops in order.
    fn leave(&self, node: &Node) {
        let (world, id, process) = (self.world.clone(), node.id, node.process());
        self.spawn(node, "leave", |controller| async move {
            // What cannot be closed is recovered.
            let _ = controller.shutdown().await;
            if let Some(node) = world.nodes.get(&id)
                && node.process() == process
            {
                node.die(&world, false);
            }
        });
    }

    fn restart_broker(&self) {
        if let Some(id) = self.rng.pick(&self.world.plan.brokers) {
            self.world.brokers.start(&self.world, *id);
        }
    }

    /// A disk fails in the middle of something; its machine is restarted a little later.
    fn break_disk(&self, node: &Node) {
        let Some(process) = node.process() else {
            return;
        };
        let calls = self.rng.below(40);
        match self.rng.index(3) {
            0 => node.break_disk(calls, Errno::Io),
            1 => node.break_disk(calls, Errno::NoSpace),
            _ => node.pull_plug(calls),
        }
        let ms = 50 + self.rng.below(3_000);
        let (world, id) = (self.world.clone(), node.id);
        self.world.note(format_args!("the disk of {id} will fail"));
        self.world.executor.spawn("nemesis", async move {
            world.sleep_ms(ms).await;
            let node = world.nodes.get(&id);
            if let Some(node) = node.filter(|node| node.process() == Some(process)) {
                node.die(&world, true);
            }
        });
    }

    fn slow_disk(&self, node: &Node) {
        if let Some(process) = node.process() {
            let ms = [0, 5, 50, 500][self.rng.index(4)];
            let longest = std::time::Duration::from_millis(ms);
            self.world.executor.slow_disk(process, longest);
        }
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
