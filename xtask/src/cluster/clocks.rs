//! Wall clocks jump by an hour, ahead, back, to and fro, while the load goes on. Sessions and
//! elections count otherwise, so nobody is to be missed for it; nothing that is not due is removed,
//! forgotten or begun anew.

use super::Scenario;
use super::nodes::Shown;
use super::transaction::{Ended, Transaction};
use crate::Result;
use crate::batch::{self, Producer};
use crate::report::Report;
use crate::wire::{Produced, now_ms};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Brokers put their own time on its records, and soon remove what is old.
pub(super) const TOPIC: &str = "cluster-clocks";
const PARTITIONS: i32 = 6;
const CONFIGS: [&str; 3] = [
    "message.timestamp.type=LogAppendTime",
    // An hour is not enough for it.
    "retention.ms=7200000",
    "segment.ms=5400000",
];
/// Configs of all nodes: what goes by the wall clock is looked at all the time.
pub(super) const SETTINGS: [(&str, &str); 5] = [
    ("log.retention.check.interval.ms", "1000"),
    ("offsets.retention.check.interval.ms", "1000"),
    ("producer.id.expiration.ms", "7200000"),
    ("producer.id.expiration.check.interval.ms", "1000"),
    (
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        "1000",
    ),
];
const AHEAD_MS: i64 = 3_600_000;
/// Behind by an hour, brokers would refuse what clients write as from the future
/// (`message.timestamp.after.max.ms`).
const BEHIND_MS: i64 = -3_000_000;
/// Longer than the session, and than a follower may lag.
const LONG: Duration = Duration::from_secs(6);
/// How often clocks jump to and fro.
const SHORT: Duration = Duration::from_millis(100);
/// How well a time that was told has to agree.
const NEAR_MS: i64 = 30_000;

impl Scenario {
    pub(super) fn clocks(&mut self, rounds: u32, report: &mut Report) {
        if rounds == 0 {
            return;
        }
        let mut made = false;
        report.test("cluster.clocks", || {
            self.make_clock_topic()?;
            made = true;
            Ok(())
        });
        if !made {
            return;
        }
        for round in 1..=rounds {
            let named = |what: &str| format!("cluster.{what}-{round}");
            // And an hour back, behind that. It is the one that decides who lives.
            report.test(&named("clock-ahead"), || {
                self.longest_pause()?;
                let controller = self.active_controller()?;
                self.unfenced(|all| all.jump(controller, AHEAD_MS))
            });
            report.test(&named("clock-behind"), || {
                let leader = self.leader(round)?;
                self.unfenced(|all| all.jump(leader, BEHIND_MS))
            });
            report.test(&named("clocks-to-and-fro"), || {
                self.unfenced(Scenario::swing)
            });
            report.test(&named("clock-transaction"), || {
                self.unfenced(|all| all.transact(round))
            });
        }
        report.test("cluster.clocks-kept-all", || self.kept_all());
    }

    fn make_clock_topic(&self) -> Result<()> {
        let partitions = PARTITIONS.to_string();
        let create = ["--create", "--topic", TOPIC, "--partitions", &partitions];
        let mut all = [&create[..], &["--replication-factor", "3"]].concat();
        for config in CONFIGS {
            all.extend(["--config", config]);
        }
        self.topics(&all)?;
        self.nodes.wait_in_sync(TOPIC)
    }

    /// Refuses what has somebody fenced, be it for a moment that nobody else sees.
    fn unfenced(&mut self, fault: impl FnOnce(&mut Scenario) -> Result<()>) -> Result<()> {
        let before = self.nodes.fenced();
        fault(self)?;
        match self.nodes.fenced() - before {
            0 => Ok(()),
            times if self.nodes.may_fence() => {
                println!("      brokers were fenced {times} times");
                Ok(())
            }
            times => Err(format!("brokers were fenced {times} times{}", self.nodes.logs()).into()),
        }
    }

    fn set_clock(&self, id: i32, ms: i64) -> Result<()> {
        let clocks = self.nodes.clocks.as_ref().ok_or("there are no clocks")?;
        clocks.set(id, ms)
    }

    fn heal_clocks(&self) -> Result<()> {
        let clocks = self.nodes.clocks.as_ref().ok_or("there are no clocks")?;
        clocks.heal()
    }

    /// One node's clock jumps, and after a while back.
    fn jump(&mut self, id: i32, ms: i64) -> Result<()> {
        let partition = self.led_by(id)?;
        let producer = self.idempotent(id, partition)?;
        self.set_clock(id, ms)?;
        let jumped = self.jumped(id, partition, ms, producer);
        self.heal_clocks()?;
        jumped?;
        // The way back is a jump, too.
        self.watch(LONG)?;
        self.dated(id, partition, 0)?;
        self.repeated(id, partition, producer)?;
        self.goes_on(1)?;
        self.tell_pause()?;
        self.all_in_sync()
    }

    fn jumped(&self, id: i32, partition: i32, ms: i64, producer: Once) -> Result<()> {
        self.dated(id, partition, ms)?;
        self.watch(LONG)?;
        self.dated(id, partition, ms)?;
        self.repeated(id, partition, producer)?;
        let took = self.goes_on(1)?.as_millis();
        println!("      node {id} off by {ms} ms: 1 s of load in {took} ms");
        Ok(())
    }

    /// All clocks are another time's, and ever again another's.
    fn swing(&mut self) -> Result<()> {
        let ids = self.nodes.ids();
        let stops = [0, AHEAD_MS, BEHIND_MS, AHEAD_MS / 2];
        let end = Instant::now() + LONG;
        let mut turns = 0;
        let mut seen = ids.iter().try_for_each(|id| {
            self.set_clock(*id, AHEAD_MS)?;
            self.dated(*id, self.led_by(*id)?, AHEAD_MS)
        });
        while Instant::now() < end && seen.is_ok() {
            for (at, id) in ids.iter().enumerate() {
                self.set_clock(*id, stops[(turns + at) % stops.len()])?;
            }
            turns += 1;
            seen = self.watch(SHORT);
        }
        let went_on = seen.and_then(|()| self.goes_on(1));
        self.heal_clocks()?;
        println!(
            "      {turns} jumps of all: 1 s of load in {} ms",
            went_on?.as_millis()
        );
        self.goes_on(1)?;
        self.tell_pause()?;
        self.all_in_sync()
    }

    /// For how long a partition of the Java client's had no acknowledgement since this was asked last.
    fn longest_pause(&mut self) -> Result<Option<f64>> {
        let java = self
            .loads
            .iter_mut()
            .find(|(_, load)| load.name() == "java");
        java.map(|(_, load)| Ok(load.gap()?.ms)).transpose()
    }

    fn tell_pause(&mut self) -> Result<()> {
        if let Some(ms) = self.longest_pause()? {
            println!("      longest time without an acknowledgement: {ms} ms");
        }
        Ok(())
    }

    /// A transaction is open while its coordinator's clock jumps beyond its timeout. It may be
    /// aborted for it, as Kafka's is, but then the producer is told so, and nothing hangs.
    fn transact(&mut self, round: u32) -> Result<()> {
        let name = format!("clocks-{round}");
        let coordinator = self.nodes.wait_for_coordinator(1, &name)?;
        let partition = self.led_by(coordinator)?;
        let (to, leader) = (
            self.nodes.connect(coordinator)?,
            self.nodes.connect(coordinator)?,
        );
        let mut open = Transaction::begin(&name, to, leader, (TOPIC, partition))?;
        open.write()?;
        self.set_clock(coordinator, AHEAD_MS)?;
        let seen = self.dated(coordinator, partition, AHEAD_MS);
        let seen = seen.and_then(|()| self.watch(LONG));
        self.heal_clocks()?;
        seen?;
        let ended = open.commit()?;
        println!("      a transaction of 60 s, its coordinator off by an hour: {ended:?}");
        open.wait_decided(ended)?;
        // The next one is not concerned.
        let (to, leader) = (
            self.nodes.connect(coordinator)?,
            self.nodes.connect(coordinator)?,
        );
        let mut next = Transaction::begin(&name, to, leader, (TOPIC, partition))?;
        next.write()?;
        match next.commit()? {
            Ended::Committed => next.wait_decided(Ended::Committed),
            other => Err(format!("the next transaction is {other:?}").into()),
        }
    }

    /// Looks again and again for so long: all brokers are there, every partition of [`TOPIC`] has a
    /// leader, and all its replicas are in sync. Leaders may change, as they are balanced at times.
    fn watch(&self, long: Duration) -> Result<()> {
        let end = Instant::now() + long;
        let running = i32::try_from(self.nodes.ids().len())?;
        loop {
            for node in self.nodes.all() {
                let shown = node.connect()?.brokers()?;
                if shown < running {
                    let logs = self.nodes.logs();
                    return Err(format!("{shown} of {running} brokers are there{logs}").into());
                }
            }
            let whole = |p: &Shown| p.leader > 0 && p.isr.len() == p.replicas.len();
            let shown = self.nodes.partitions(TOPIC)?;
            if !shown.iter().all(whole) {
                let logs = self.nodes.logs();
                return Err(format!("a replica is missed: {shown:?}{logs}").into());
            }
            if Instant::now() > end {
                return Ok(());
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// A partition that a node leads.
    fn led_by(&self, id: i32) -> Result<i32> {
        let shown = self.nodes.partitions(TOPIC)?;
        let led = shown.iter().find(|p| p.leader == id);
        Ok(led
            .ok_or_else(|| format!("node {id} leads nothing of {TOPIC}"))?
            .partition)
    }

    /// A producer that has written one record.
    fn idempotent(&self, id: i32, partition: i32) -> Result<Once> {
        let mut connection = self.nodes.connect(id)?;
        let end = Instant::now() + LONG;
        let (producer, epoch) = loop {
            match connection.init_producer_id() {
                // A broker that has given out none yet has to get some first.
                Err(_) if Instant::now() < end => sleep(SHORT),
                other => break other?,
            }
        };
        let producer = Producer {
            id: producer,
            epoch,
            sequence: 0,
        };
        let batch = batch::build(producer, now_ms(), &[b"once".to_vec()]);
        let first = connection.produce(TOPIC, partition, -1, &batch)?;
        if first.error != 0 {
            return Err(format!("a first record was answered {first:?}").into());
        }
        Ok(Once { producer, first })
    }

    /// Writes a record, whose time has to be that of the node's clock: whether it jumped at all.
    fn dated(&self, id: i32, partition: i32, ms: i64) -> Result<()> {
        let mut connection = self.nodes.connect(id)?;
        let batch = batch::build(Producer::NONE, now_ms(), &[b"dated".to_vec()]);
        let told = connection.produce(TOPIC, partition, -1, &batch)?;
        let off = told.log_append_ms - now_ms() - ms;
        if told.error != 0 || off.abs() > NEAR_MS {
            let what = format!("node {id}, whose clock should be off by {ms} ms");
            return Err(format!("{what}, answered {told:?}, {off} ms from that").into());
        }
        Ok(())
    }

    /// Writes once more what a producer wrote before, which has to be known still.
    fn repeated(&self, id: i32, partition: i32, before: Once) -> Result<()> {
        let mut connection = self.nodes.connect(id)?;
        let batch = batch::build(before.producer, now_ms(), &[b"once".to_vec()]);
        let again = connection.produce(TOPIC, partition, -1, &batch)?;
        if (again.error, again.base_offset) != (0, before.first.base_offset) {
            let first = before.first;
            return Err(format!("repeated, {first:?} became {again:?}").into());
        }
        Ok(())
    }

    /// Nothing was removed, and no log was rolled: what is written last is not that much later.
    fn kept_all(&mut self) -> Result<()> {
        let mut topics: Vec<(String, i32)> = vec![(TOPIC.into(), PARTITIONS)];
        topics.extend(
            self.loads
                .iter()
                .map(|(t, _)| (t.clone(), super::PARTITIONS)),
        );
        for (topic, partitions) in topics {
            for partition in 0..partitions {
                let name = format!("{topic}-{partition}");
                let replicas = self.nodes.segments(&name)?;
                if replicas.len() != self.nodes.ids().len() {
                    return Err(format!("of {name} there is {replicas:?}").into());
                }
                for (id, bases) in replicas {
                    if bases != [0] {
                        return Err(format!("node {id} has segments {bases:?} of {name}").into());
                    }
                }
            }
        }
        Ok(())
    }
}

/// An idempotent producer, and what it was answered to the one batch it wrote.
#[derive(Debug, Clone, Copy)]
struct Once {
    producer: Producer,
    first: Produced,
}
