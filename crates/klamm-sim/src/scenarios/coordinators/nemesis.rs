//! What goes wrong: brokers that are killed or stand still, partitions that move, followers that
//! do not follow, clocks that jump, clients that vanish.

use std::sync::atomic::Ordering;

use klamm_env::Rng as _;

use super::super::Violation;
use super::plan::Work;
use super::world::World;
use super::{groups, shares, transactions};

/// How long a leader may be gone before another is elected, in milliseconds.
const GONE_MS: i64 = 1_500;

/// The nemesis of a run, and the controller that mends what it does.
pub(super) struct Nemesis {
    world: World,
    /// Since when each broker is not there, by its number.
    gone_ms: Vec<Option<i64>>,
    stalled_until_ms: i64,
}

impl Nemesis {
    pub(super) fn new(world: &World) -> Nemesis {
        Nemesis {
            world: world.clone(),
            gone_ms: vec![None; world.nodes.len() + 1],
            stalled_until_ms: 0,
        }
    }

    /// Something goes wrong, or nothing.
    pub(super) fn strike(&mut self) -> Result<(), Violation> {
        let world = self.world.clone();
        let trouble = world.plan.trouble;
        let cases = || world.rng.below(1_000);
        let node = 1 + world.rng.index(world.nodes.len()) as i32;
        if cases() < trouble.kills && self.is_quorate(node) {
            self.kill(node);
        }
        if cases() < trouble.pauses && self.is_quorate(node) {
            self.pause(node);
        }
        if cases() < 300 {
            self.come_back(node)?;
        }
        if cases() < trouble.moves {
            let places: Vec<_> = world.partitions.values().collect();
            if let Some(partition) = world.rng.pick(&places) {
                self.elect(partition.place)?;
            }
        }
        if cases() < trouble.stalls {
            self.stalled_until_ms = world.now_ms() + world.rng.range(100, 8_000);
            let places: Vec<_> = world.partitions.values().collect();
            if let Some(partition) = world.rng.pick(&places) {
                partition.stall(true);
            }
        }
        if cases() < trouble.clocks
            && let Some(node) = world.nodes.get(&node)
        {
            node.clock.skew(world.rng.range(-60_000, 120_000));
        }
        if cases() < trouble.clients {
            match world.plan.work {
                Work::Groups | Work::Streams => groups::strike(&world),
                Work::Transactions => transactions::strike(&world),
                Work::Shares => shares::strike(&world),
            }
        }
        self.mend()
    }

    /// Whether the others can do without this one.
    fn is_quorate(&self, node: i32) -> bool {
        self.gone_ms[node as usize].is_none() && self.gone_ms.iter().flatten().count() == 0
    }

    fn kill(&mut self, node: i32) {
        self.world.nodes[&node].kill(&self.world);
        self.gone_ms[node as usize] = Some(self.world.now_ms());
    }

    fn pause(&mut self, node: i32) {
        let found = &self.world.nodes[&node];
        if let Some(broker) = found.broker() {
            self.world.note(format_args!("{node} stands still"));
            found.paused.store(true, Ordering::SeqCst);
            self.world.executor.pause(broker.process);
            self.gone_ms[node as usize] = Some(self.world.now_ms());
        }
    }

    fn come_back(&mut self, node: i32) -> Result<(), Violation> {
        if self.gone_ms[node as usize].take().is_none() {
            return Ok(());
        }
        let found = &self.world.nodes[&node];
        match found.broker() {
            Some(broker) => {
                self.world.note(format_args!("{node} goes on"));
                found.paused.store(false, Ordering::SeqCst);
                self.world.executor.resume(broker.process);
            }
            None => {
                // Who starts anew does not lead what it led.
                for place in self.led_by(node) {
                    self.elect(place)?;
                }
                found.start(&self.world);
            }
        }
        Ok(())
    }

    fn led_by(&self, node: i32) -> Vec<super::partition::Place> {
        let partitions = self.world.partitions.values();
        partitions
            .filter(|partition| partition.term().leader == node)
            .map(|partition| partition.place)
            .collect()
    }

    /// Another broker becomes the leader of a partition: one that follows the one before, so that
    /// it has all that is committed.
    fn elect(&self, place: super::partition::Place) -> Result<(), Violation> {
        let world = &self.world;
        let Some(partition) = world.partition(place) else {
            return Ok(());
        };
        let term = partition.term();
        let follows = |node: &&super::broker::Node| {
            let known = node.broker().and_then(|broker| broker.term(place));
            node.id != term.leader
                && !node.is_paused()
                && known.is_some_and(|known| known.epoch == term.epoch)
        };
        let candidates: Vec<i32> = world
            .nodes
            .values()
            .filter(follows)
            .map(|node| node.id)
            .collect();
        match world.rng.pick(&candidates) {
            Some(leader) => partition.elect(*leader),
            None => Ok(()),
        }
    }

    /// Leaders that are gone for long are replaced; followers follow again.
    fn mend(&mut self) -> Result<(), Violation> {
        let world = self.world.clone();
        let now_ms = world.now_ms();
        for node in world.nodes.keys() {
            let gone = self.gone_ms[*node as usize];
            if gone.is_some_and(|since| since + GONE_MS < now_ms) {
                for place in self.led_by(*node) {
                    self.elect(place)?;
                }
            }
        }
        if now_ms >= self.stalled_until_ms {
            for partition in world.partitions.values() {
                partition.stall(false);
            }
        }
        Ok(())
    }

    /// Nothing goes wrong any more.
    pub(super) fn relent(&mut self) -> Result<(), Violation> {
        let world = self.world.clone();
        self.stalled_until_ms = 0;
        self.mend()?;
        if world.calm.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        world.note("peace");
        world.net.set_faults(crate::NetFaults::default());
        for node in world.nodes.keys() {
            self.come_back(*node)?;
        }
        match world.plan.work {
            Work::Groups | Work::Streams => groups::calm(&world),
            Work::Transactions => transactions::calm(&world),
            Work::Shares => shares::calm(&world),
        }
        Ok(())
    }
}
