//! Groups of other people's clients, several in one group, that become more and fewer under load:
//! members are started, told to leave and killed while records come in. [`history`] says what must
//! hold of what they tell.

mod history;
mod member;

use super::Run;
use crate::batch::{self, Producer};
use crate::broker::{Broker, Spec};
use crate::report::Outcome;
use crate::wire::{Connection, now_ms};
use crate::{Result, snapshot};
use history::Kind;
use member::{Client, Member, Programs};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const SUITE: &str = "mixed-groups";
const TOPIC: &str = "mixed";
const PARTITIONS: i32 = 12;
/// Records of a partition that are sent together, and the time from one to the next.
const TOGETHER: i64 = 4;
const PACE: Duration = Duration::from_millis(100);
/// How long a group may take until all partitions are read again: programs start, sessions end.
const SETTLE_MAX: Duration = Duration::from_secs(90);

/// What happens to a group. Members of a step do it at the same time.
#[derive(Debug)]
enum Step {
    Start(&'static [&'static str]),
    Leave(&'static [&'static str]),
    Kill(&'static [&'static str]),
}
use Step::{Kill, Leave, Start};

struct Plan {
    name: &'static str,
    /// The members, each with its client and `consumer` or the assignor of a classic group.
    cast: &'static [(&'static str, Client, &'static str)],
    steps: &'static [Step],
}

const PLANS: [Plan; 3] = [
    // From the classic protocol to the consumer protocol and back, a member at a time.
    Plan {
        name: "migrating",
        cast: &[
            ("java-classic", Client::Java, "range"),
            ("librdkafka-classic", Client::Librdkafka, "range"),
            ("java", Client::Java, "consumer"),
            ("librdkafka", Client::Librdkafka, "consumer"),
            ("librdkafka-again", Client::Librdkafka, "consumer"),
        ],
        steps: &[
            Start(&["java-classic", "librdkafka-classic"]),
            Start(&["java"]),
            Start(&["librdkafka"]),
            Leave(&["java-classic"]),
            Kill(&["librdkafka"]),
            Start(&["librdkafka-again"]),
            Leave(&["java"]),
            Leave(&["librdkafka-again"]),
        ],
    },
    // All clients have this assignor; whoever leads the group assigns for the others.
    Plan {
        name: "eager",
        cast: &[
            ("java", Client::Java, "roundrobin"),
            ("sarama", Client::Sarama, "roundrobin"),
            ("librdkafka", Client::Librdkafka, "roundrobin"),
            ("franz-go", Client::FranzGo, "roundrobin"),
            ("aiokafka", Client::Aiokafka, "roundrobin"),
            ("kafkajs", Client::Kafkajs, "roundrobin"),
            ("sarama-again", Client::Sarama, "roundrobin"),
        ],
        steps: &[
            Start(&["java", "sarama"]),
            Start(&["librdkafka", "franz-go"]),
            Start(&["aiokafka", "kafkajs"]),
            Leave(&["java"]),
            Kill(&["sarama"]),
            Start(&["sarama-again"]),
            Leave(&["franz-go", "librdkafka"]),
            Leave(&["aiokafka"]),
        ],
    },
    Plan {
        name: "cooperative",
        cast: &[
            ("franz-go", Client::FranzGo, "cooperative-sticky"),
            ("java", Client::Java, "cooperative-sticky"),
            ("librdkafka", Client::Librdkafka, "cooperative-sticky"),
            ("franz-go-again", Client::FranzGo, "cooperative-sticky"),
        ],
        steps: &[
            Start(&["franz-go"]),
            Start(&["java"]),
            Start(&["librdkafka"]),
            Leave(&["franz-go"]),
            Kill(&["java"]),
            Start(&["franz-go-again"]),
        ],
    },
];

impl Run {
    pub(super) fn mixed_groups(&mut self) -> Result<()> {
        let programs = match Programs::prepare() {
            Ok(programs) => programs,
            Err(e) => {
                self.report.missing(SUITE, &e.to_string());
                return Ok(());
            }
        };
        let only = self.only_of(SUITE);
        let spec = Spec::new(self.folder.join(SUITE))?
            .with("group.consumer.session.timeout.ms", 6000)
            .with("group.consumer.min.session.timeout.ms", 6000)
            .with("group.consumer.heartbeat.interval.ms", 500)
            .with("group.consumer.min.heartbeat.interval.ms", 500);
        let mut started = None;
        self.report.test("mixed-groups.start", || {
            let broker = Broker::start(self.against, spec)?;
            let load = Load::start(&broker)?;
            started = Some((broker, load));
            Ok(())
        });
        let Some((mut broker, load)) = started else {
            return Ok(());
        };
        let wanted = |plan: &&Plan| {
            let name = format!("{SUITE}.{}", plan.name);
            only.as_ref().is_none_or(|only| *only == name)
        };
        let group = |plan| Group {
            plan,
            members: Vec::new(),
            programs: &programs,
            load_ended: Arc::clone(&load.ended),
            bootstrap: broker.bootstrap(),
            folder: broker.spec.folder.clone(),
        };
        let mut groups: Vec<Group> = PLANS.iter().filter(wanted).map(group).collect();
        let played = at_once(&mut groups, Group::play);
        let ends = load.finish();
        let checked = at_once(&mut groups, |group| match &ends {
            Ok(ends) => group.finish(ends),
            Err(why) => Err(why.clone().into()),
        });
        for ((group, (played, took)), (checked, more)) in groups.iter().zip(played).zip(checked) {
            let outcome = match played.and(checked) {
                Ok(told) => {
                    println!("      {}: {told}", group.plan.name);
                    Outcome::Pass
                }
                Err(why) => {
                    let load = ends.as_ref().err().cloned().unwrap_or_default();
                    Outcome::Fail(format!("{why}\n{load}\n{}", group.tails(&broker)))
                }
            };
            let name = format!("{SUITE}.{}", group.plan.name);
            self.report.tell(&name, outcome, Some(took + more));
        }
        drop(groups);
        self.report
            .test("mixed-groups.ends-cleanly", || broker.stop().map(drop));
        Ok(())
    }
}

/// Does the same for all groups at the same time; tells how each ended and how long it took.
fn at_once<'a, T: Send>(
    groups: &mut [Group<'a>],
    work: impl Fn(&mut Group<'a>) -> Result<T> + Sync,
) -> Vec<(std::result::Result<T, String>, Duration)> {
    let timed = |group: &mut Group<'a>| {
        let begun = Instant::now();
        let outcome = work(group).map_err(|e| e.to_string());
        (outcome, begun.elapsed())
    };
    thread::scope(|scope| {
        let running = groups.iter_mut().map(|group| scope.spawn(|| timed(group)));
        let running: Vec<_> = running.collect();
        let ended = running.into_iter().map(|thread| {
            let panicked = |_| (Err("the runner panicked".to_string()), Duration::ZERO);
            thread.join().unwrap_or_else(panicked)
        });
        ended.collect()
    })
}

/// A group under way.
struct Group<'a> {
    plan: &'static Plan,
    members: Vec<Member>,
    programs: &'a Programs,
    load_ended: Arc<AtomicBool>,
    bootstrap: String,
    folder: PathBuf,
}

impl Group<'_> {
    fn play(&mut self) -> Result<()> {
        for step in self.plan.steps {
            self.take(step).map_err(|e| format!("{step:?}: {e}"))?;
        }
        Ok(())
    }

    fn take(&mut self, step: &Step) -> Result<()> {
        match step {
            Start(names) => names.iter().try_for_each(|name| self.start(name))?,
            Leave(names) => {
                self.those(names).for_each(Member::leave);
                self.those(names).try_for_each(Member::wait_ended)?;
            }
            Kill(names) => self.those(names).try_for_each(Member::kill)?,
        }
        self.settle()
    }

    fn start(&mut self, name: &str) -> Result<()> {
        let mut cast = self.plan.cast.iter();
        let (_, client, protocol) = cast
            .find(|(other, ..)| *other == name)
            .ok_or("nobody of that name")?;
        let name = format!("{}.{name}", self.plan.name);
        let log = self.folder.join(format!("{name}.log"));
        let to = [&self.bootstrap, TOPIC, self.plan.name];
        let command = self.programs.command(*client, protocol, to, &log);
        let member = Member::start(&name, command, &self.folder)?;
        self.members.push(member);
        Ok(())
    }

    fn those(&mut self, names: &'static [&'static str]) -> impl Iterator<Item = &mut Member> {
        let plan = self.plan.name;
        let named = move |m: &&mut Member| names.iter().any(|n| m.name == format!("{plan}.{n}"));
        self.members.iter_mut().filter(named)
    }

    /// Waits until every partition has one owner, who reads it, and every member some partitions.
    fn settle(&mut self) -> Result<()> {
        self.members.iter().for_each(Member::forget_reads);
        let end = Instant::now() + SETTLE_MAX;
        loop {
            self.members.iter_mut().try_for_each(Member::check)?;
            let running = self.members.iter().filter(|member| member.runs());
            let owned: Vec<_> = running.map(Member::owned).collect();
            let all: BTreeMap<i32, bool> = owned.iter().flatten().map(|(p, r)| (*p, *r)).collect();
            let owners: usize = owned.iter().map(BTreeMap::len).sum();
            if all.len() == PARTITIONS as usize
                && owners == all.len()
                && all.values().all(|read| *read)
                && owned.iter().all(|own| !own.is_empty())
            {
                return Ok(());
            }
            if self.load_ended.load(Ordering::Relaxed) {
                return Err("nothing is written any more".into());
            }
            if Instant::now() > end {
                return Err(format!("not settled after {SETTLE_MAX:?}: {owned:?}").into());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until everything is read, has all leave, and looks at what they told.
    fn finish(&mut self, ends: &[i64]) -> Result<String> {
        let end = Instant::now() + SETTLE_MAX;
        let mut read = self.read_up_to();
        while read != ends {
            self.members.iter_mut().try_for_each(Member::check)?;
            if Instant::now() > end {
                return Err(format!("read up to {read:?} of {ends:?}").into());
            }
            thread::sleep(Duration::from_millis(50));
            read = self.read_up_to();
        }
        self.members.iter_mut().for_each(Member::leave);
        self.members.iter_mut().try_for_each(Member::wait_ended)?;
        let told = self.members.iter().map(|m| (m.name.clone(), m.events()));
        let told: Vec<_> = told.collect();
        let s = history::check(&told, ends)?;
        Ok(format!(
            "{} members, {} records, {} tenures of {PARTITIONS} partitions, {} records read again, \
             {} commits refused, {} losses",
            told.len(),
            s.records,
            s.tenures,
            s.read_again,
            s.refused,
            s.lost
        ))
    }

    fn read_up_to(&self) -> Vec<i64> {
        let mut read = vec![0; PARTITIONS as usize];
        for member in &self.members {
            for event in member.events() {
                if let Kind::Read(partition, _, last) = event.kind
                    && let Some(next) = read.get_mut(partition as usize)
                {
                    *next = last.max(*next - 1) + 1;
                }
            }
        }
        read
    }

    fn tails(&self, broker: &Broker) -> String {
        let tails: Vec<String> = self.members.iter().map(Member::tail).collect();
        let log = broker.spec.folder.join("log");
        format!("{}\nbroker:\n{}", tails.join("\n"), snapshot::tail(&log, 8))
    }
}

/// Writes records whose values are their offsets, to all partitions, until told to end.
struct Load {
    over: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    thread: JoinHandle<std::result::Result<Vec<i64>, String>>,
}

impl Load {
    fn start(broker: &Broker) -> Result<Load> {
        let mut connection = broker.connect()?;
        let error = connection.create_topic(TOPIC, PARTITIONS, &[])?;
        if error != 0 {
            return Err(format!("topic {TOPIC} is not made: error {error}").into());
        }
        let end = Instant::now() + Duration::from_secs(20);
        while connection.led_partitions(TOPIC)? < PARTITIONS {
            if Instant::now() > end {
                return Err("partitions without leaders".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        // A leader may be known before it knows that it is one.
        let mut ends = vec![0; PARTITIONS as usize];
        for (partition, end_offset) in (0..).zip(&mut ends) {
            let batch = batch::build(Producer::NONE, now_ms(), &[b"0".to_vec()]);
            while connection.produce(TOPIC, partition, -1, &batch)?.error != 0 {
                if Instant::now() > end {
                    return Err(format!("nothing can be written to partition {partition}").into());
                }
                thread::sleep(Duration::from_millis(20));
            }
            *end_offset = 1;
        }
        let (over, ended) = (Arc::default(), Arc::<AtomicBool>::default());
        let (told, tell) = (Arc::<AtomicBool>::clone(&over), Arc::clone(&ended));
        let thread = thread::spawn(move || {
            let mut written = Ok(());
            while written.is_ok() && !told.load(Ordering::Relaxed) {
                written = write(&mut connection, &mut ends);
                thread::sleep(PACE);
            }
            tell.store(true, Ordering::Relaxed);
            written.map_err(|e| format!("the load: {e}"))?;
            Ok(ends)
        });
        Ok(Load {
            over,
            ended,
            thread,
        })
    }

    /// Where the partitions end.
    fn finish(self) -> std::result::Result<Vec<i64>, String> {
        self.over.store(true, Ordering::Relaxed);
        let panicked = |_| Err("the load panicked".to_string());
        self.thread.join().unwrap_or_else(panicked)
    }
}

fn write(connection: &mut Connection, ends: &mut [i64]) -> Result<()> {
    for (partition, end) in (0..).zip(ends.iter()) {
        let values = (*end..*end + TOGETHER).map(|offset| offset.to_string().into_bytes());
        let batch = batch::build(Producer::NONE, now_ms(), &values.collect::<Vec<_>>());
        connection.send_produce(TOPIC, partition, -1, &batch)?;
    }
    for end in ends {
        let answer = connection.receive_produce()?;
        if answer.error != 0 || answer.base_offset != *end {
            return Err(format!("{answer:?} where {end} is due").into());
        }
        *end += TOGETHER;
    }
    Ok(())
}
