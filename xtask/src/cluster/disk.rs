//! A broker runs out of room on one of its disks.

use super::Scenario;
use super::nodes::SMALL;
use crate::Result;

impl Scenario {
    /// One of a node's two log directories is on a disk that is full: its replicas there are given
    /// up, others lead, the load goes on. With room again and after a restart it has them back.
    pub(super) fn fill_a_disk(&mut self) -> Result<()> {
        let held = self.on_small_disk()?;
        if held.is_empty() {
            return Err("no replica lies on the small disk".into());
        }
        let disk = self.nodes.disk.as_ref().ok_or("there is no small disk")?;
        disk.fill()?;
        let given_up = held.iter().try_for_each(|(topic, partition)| {
            let gone = |p: &super::nodes::Shown| {
                p.partition != *partition || (p.leader != SMALL && !p.isr.contains(&SMALL))
            };
            self.nodes.wait_until(topic, "given up", gone).map(drop)
        });
        let went_on = self.goes_on(1);
        disk.relieve()?;
        given_up?;
        went_on?;
        if let Some(status) = self.nodes.node(SMALL)?.exited()? {
            return Err(format!("node {SMALL} ended: {status}{}", self.nodes.logs()).into());
        }
        self.nodes.node(SMALL)?.stop()?;
        self.nodes.start_again(SMALL)?;
        self.goes_on(1)?;
        self.all_in_sync()
    }

    /// The partitions under load with a replica there.
    fn on_small_disk(&self) -> Result<Vec<(String, i32)>> {
        let dir = self.nodes.second_dir(SMALL);
        let mut held = Vec::new();
        for (topic, _) in &self.loads {
            for shown in self.nodes.partitions(topic)? {
                if dir.join(format!("{topic}-{}", shown.partition)).exists() {
                    held.push((topic.clone(), shown.partition));
                }
            }
        }
        Ok(held)
    }
}
