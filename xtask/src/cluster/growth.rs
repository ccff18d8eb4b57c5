//! Brokers join, take over from the three first, and leave.

use super::Scenario;
use super::nodes::{CONTROLLERS, Shown};
use super::tools::Move;
use crate::Result;
use crate::report::Report;

/// The brokers that join.
const NEW: [i32; 3] = [4, 5, 6];
const UNCLEAN: &str = "cluster-unclean";

impl Scenario {
    pub(super) fn grow(&mut self, round: u32, report: &mut Report) {
        let named = |what: &str| format!("cluster.{what}-{round}");
        report.test(&named("three-to-five"), || self.expand());
        report.test(&named("three-others"), || self.move_to_others());
        report.test(&named("unclean-election"), || self.elect_a_late_one(round));
        report.test(&named("back-to-three"), || self.shrink());
    }

    fn topics_under_load(&self) -> Vec<String> {
        self.loads.iter().map(|(topic, _)| topic.clone()).collect()
    }

    /// Two brokers join, and the tool spreads everything over all five.
    fn expand(&mut self) -> Result<()> {
        self.nodes.add(NEW[0])?;
        self.nodes.add(NEW[1])?;
        let plan = self.propose(&self.topics_under_load(), &[1, 2, 3, NEW[0], NEW[1]])?;
        self.move_replicas(&plan, Some("50000000"))?;
        let uses = |id: i32| plan.iter().any(|one| one.replicas.contains(&id));
        if !uses(NEW[0]) || !uses(NEW[1]) {
            return Err(format!("the new ones hold nothing: {plan:?}").into());
        }
        self.goes_on(1)?;
        self.all_in_sync()
    }

    /// A third one joins, and topic by topic moves to those three alone.
    fn move_to_others(&mut self) -> Result<()> {
        self.nodes.add(NEW[2])?;
        for topic in self.topics_under_load() {
            let plan = self.rotated(&topic, NEW)?;
            self.move_replicas(&plan, Some("50000000"))?;
            self.goes_on(1)?;
        }
        for (topic, _) in &self.loads {
            let moved = |p: &Shown| NEW.contains(&p.leader);
            self.nodes.wait_until(topic, "led by the new ones", moved)?;
        }
        self.all_in_sync()
    }

    /// Each partition of a topic on these three, led in turn.
    fn rotated(&self, topic: &str, on: [i32; 3]) -> Result<Vec<Move>> {
        let partitions = self.nodes.partitions(topic)?.into_iter();
        let moves = partitions.map(|shown| {
            let mut replicas = on.to_vec();
            replicas.rotate_left(usize::try_from(shown.partition).unwrap_or(0) % 3);
            Move::of(topic, shown.partition, &replicas)
        });
        Ok(moves.collect())
    }

    /// Of two replicas one is behind when the other one goes: nobody leads until the tool is told
    /// that what the first lacks may be lost.
    fn elect_a_late_one(&mut self, round: u32) -> Result<()> {
        let (late, last) = (NEW[0], NEW[1]);
        // These hold replicas of what is under load, too: one goes at a time.
        let topic = format!("{UNCLEAN}-{round}");
        let assignment = format!("{last}:{late}");
        let config = ["--config", "min.insync.replicas=1"];
        let create = ["--create", "--topic", &topic, "--replica-assignment"];
        self.topics(&[&create[..], &[&assignment], &config[..]].concat())?;
        self.nodes.wait_in_sync(&topic)?;
        self.nodes.node(late)?.kill()?;
        let alone = |p: &Shown| p.isr == [last] && p.leader == last;
        self.nodes
            .wait_until(&topic, "led by the last one alone", alone)?;
        self.nodes.node(last)?.kill()?;
        let nobody = |p: &Shown| p.leader < 0;
        self.nodes.wait_until(&topic, "without a leader", nobody)?;
        self.nodes.start_again(late)?;
        // What is under load has two of three again, and goes on.
        self.goes_on(1)?;
        self.nodes.wait_until(&topic, "without a leader", nobody)?;
        let told = self.elect_unclean(&topic)?;
        let led = |p: &Shown| p.leader == late;
        self.nodes.wait_until(&topic, "led by the late one", led)?;
        if !told.contains("Successfully completed leader election (UNCLEAN)") {
            return Err(told.into());
        }
        self.nodes.start_again(last)?;
        self.nodes.wait_in_sync(&topic)?;
        self.topics(&["--delete", "--topic", &topic])?;
        self.all_in_sync()
    }

    /// Everything goes back, and the new ones leave for good.
    fn shrink(&mut self) -> Result<()> {
        let old: Vec<i32> = CONTROLLERS.collect();
        let old = [old[0], old[1], old[2]];
        let mut plan = Vec::new();
        for topic in self.topics_under_load() {
            plan.extend(self.rotated(&topic, old)?);
        }
        self.move_replicas(&plan, Some("50000000"))?;
        for id in NEW {
            self.nodes.remove(id)?;
        }
        self.unregister(NEW[2])?;
        self.goes_on(1)?;
        self.all_in_sync()
    }
}
