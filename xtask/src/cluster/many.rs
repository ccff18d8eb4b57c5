//! A cluster of very many partitions: what it takes to make them, to hold them, to elect other
//! leaders for those of a broker that dies, and to take it back.

use super::bench::Bench;
use super::nodes::Shown;
use crate::Result;
use crate::bench::Metric;
use crate::wire::{Connection, Writer};
use std::thread::sleep;
use std::time::{Duration, Instant};

const TABLE: &str = "Three nodes: very many partitions, two replicas each";
const EACH: i32 = 1_000;
const PATIENCE: Duration = Duration::from_secs(600);

impl Bench<'_> {
    /// Makes them, kills a broker, starts it again.
    pub(super) fn many(&mut self, partitions: i32) -> Result<()> {
        let topics: Vec<String> = (0..partitions / EACH)
            .map(|n| format!("many-{n}"))
            .collect();
        let begun = Instant::now();
        for topic in &topics {
            self.create_many(topic)?;
        }
        let ms = |begun: Instant| begun.elapsed().as_secs_f64() * 1e3;
        let made = (TABLE, "made");
        self.note(made, Metric::less("answered", "ms"), None, ms(begun));
        let whole = |p: &Shown| p.leader > 0 && p.isr.len() == p.replicas.len();
        self.wait_for_all(&topics, whole)?;
        self.note(made, Metric::less("led and in sync", "ms"), None, ms(begun));
        self.memory(made)?;
        sleep(Duration::from_secs(5));
        let (before, begun) = (self.cpu()?, Instant::now());
        sleep(Duration::from_secs(10));
        let cpu = self.cpu_since(&before)? / begun.elapsed().as_secs_f64() * 1e3;
        let idle = (TABLE, "idle");
        self.note(idle, Metric::less("CPU of all brokers", "ms/s"), None, cpu);
        let controller = self.scenario.active_controller()?;
        let dying = controller % 3 + 1;
        let begun = Instant::now();
        self.scenario.nodes.node(dying)?.kill()?;
        self.wait_for_all(&topics, |p| p.leader > 0 && p.leader != dying)?;
        let died = (TABLE, "a broker killed");
        self.note(
            died,
            Metric::less("all led by others", "ms"),
            None,
            ms(begun),
        );
        let begun = Instant::now();
        self.scenario.nodes.node(dying)?.spawn()?;
        self.scenario
            .nodes
            .wait_for_members_within(dying, PATIENCE)?;
        let back = (TABLE, "and started again");
        self.note(back, Metric::less("ready", "ms"), None, ms(begun));
        self.wait_for_all(&topics, whole)?;
        self.note(back, Metric::less("all in sync", "ms"), None, ms(begun));
        self.memory(back)
    }

    fn memory(&mut self, place: (&'static str, &'static str)) -> Result<()> {
        let of = self
            .scenario
            .nodes
            .all()
            .map(|node| Ok(node.memory_mib()?.0));
        let of: Vec<f64> = of.collect::<Result<_>>()?;
        let most = of.into_iter().fold(0.0, f64::max);
        self.note(
            place,
            Metric::less("memory of the largest broker", "MiB"),
            None,
            most,
        );
        Ok(())
    }

    /// CreateTopics v2 of a thousand partitions.
    fn create_many(&self, topic: &str) -> Result<()> {
        let nodes = &self.scenario.nodes;
        let node = nodes.all().next().ok_or("there is no node")?;
        let mut connection = node.connect()?;
        connection
            .stream
            .set_read_timeout(Some(Duration::from_secs(120)))?;
        let mut body = Writer::default();
        body.i32(1).string(topic).i32(EACH).i16(2).i32(0);
        body.i32(1).string("min.insync.replicas").string("1");
        body.i32(120_000).i8(0);
        match answered(&mut connection, &body)? {
            0 => Ok(()),
            code => Err(format!("{topic} was not created: error {code}").into()),
        }
    }

    fn wait_for_all(&self, topics: &[String], holds: impl Fn(&Shown) -> bool) -> Result<()> {
        let begun = Instant::now();
        for topic in topics {
            loop {
                let shown = self.scenario.nodes.partitions(topic);
                if shown.is_ok_and(|all| !all.is_empty() && all.iter().all(&holds)) {
                    break;
                }
                if begun.elapsed() > PATIENCE {
                    let logs = self.scenario.nodes.logs();
                    return Err(format!("{topic} is not as it should be{logs}").into());
                }
                sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }
}

fn answered(connection: &mut Connection, body: &Writer) -> std::io::Result<i16> {
    let answer = connection.call(19, 2, body)?;
    let mut r = crate::wire::Reader(&answer);
    r.i32()?;
    r.i32()?;
    r.string()?;
    r.i16()
}
