//! Ten thousand partitions on one node, of ten topics or of a thousand: what they take to make, to
//! hold, to write to and to open again. Takes minutes with Kafka, so it runs only if it is asked for.

use super::results::Metric;
use super::session::Session;
use crate::Result;
use crate::batch::{self, Producer};
use crate::wire::{Connection, now_ms};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How the partitions are shared among topics.
#[derive(Clone, Copy)]
pub struct Shape {
    pub case: &'static str,
    table: &'static str,
    topics: usize,
    partitions_each: i32,
}

/// Kafka refuses a request for a topic of ten thousand.
pub const LARGE_TOPICS: Shape = Shape {
    case: "10k-partitions",
    table: "Ten thousand partitions",
    topics: 10,
    partitions_each: 1_000,
};
pub const MANY_TOPICS: Shape = Shape {
    case: "1k-topics",
    table: "A thousand topics of ten partitions",
    topics: 1_000,
    partitions_each: 10,
};
const PATIENCE: Duration = Duration::from_secs(300);

/// Makes them, writes to all, looks at the idle broker, and starts it again after an orderly end
/// and after a kill.
pub fn partitions(session: &mut Session, shape: Shape) -> Result<()> {
    let table = shape.table;
    session.case(table, "made, a record in each", |session| {
        let begun = Instant::now();
        for n in 0..shape.topics {
            let code = Connection::open(session.broker.spec.port)?.create_topic(
                &topic(n),
                shape.partitions_each,
                &[],
            )?;
            if code != 0 {
                let each = shape.partitions_each;
                return Err(format!("no topic of {each}: error {code}").into());
            }
        }
        session.note(Metric::less("answered", "ms"), None, ms(begun));
        write_to_all(session, shape, begun)?;
        session.note(Metric::less("all written to", "ms"), None, ms(begun));
        holding(session)
    })?;
    session.case(table, "written to by a client", |session| {
        let flags = [
            ("records", "100000".to_string()),
            ("size", "1000".to_string()),
            // A batch of few records goes to a partition, the next one to another.
            ("batch", "4000".to_string()),
        ];
        let told = session.told(session.load("produce", &topic(0), &flags))?;
        session.note(Metric::more("throughput", "MB/s"), None, told.mb_per_s()?);
        let cpu = told.cpu_per_gb()?;
        session.note(Metric::less("CPU", "s/GB"), None, cpu);
        Ok(())
    })?;
    session.case(table, "idle", |session| {
        // Long enough for what is done about files that fell idle.
        sleep(Duration::from_secs(150));
        let (cpu, begun) = (session.broker.cpu()?, Instant::now());
        sleep(Duration::from_secs(10));
        let cpu = session.broker.cpu()?.since(cpu) / begun.elapsed().as_secs_f64();
        session.note(Metric::less("CPU", "ms/s"), None, cpu * 1e3);
        holding(session)
    })?;
    session.case(table, "ended in order and started again", |session| {
        let end = session.broker.stop()?;
        session.note(Metric::less("end", "ms"), None, end.as_secs_f64() * 1e3);
        again(session, shape)
    })?;
    session.case(table, "killed and started again", |session| {
        session.broker.kill()?;
        again(session, shape)
    })
}

fn topic(n: usize) -> String {
    format!("many-{n}")
}

fn ms(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

/// Memory and descriptors of now.
fn holding(session: &mut Session) -> Result<()> {
    let memory = session.broker.memory_mib()?.0;
    session.note(Metric::less("memory", "MiB"), None, memory);
    let pid = session.broker.pid().ok_or("not running")?;
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    session.note(Metric::less("descriptors", ""), None, open as f64);
    Ok(())
}

/// Starts the broker and writes to all partitions.
fn again(session: &mut Session, shape: Shape) -> Result<()> {
    let begun = Instant::now();
    session.broker.spawn()?;
    let port = session.broker.spec.port;
    let ready = || Connection::open(port).and_then(|mut c| c.brokers());
    while !ready().is_ok_and(|brokers| brokers >= 1) {
        if let Some(status) = session.broker.exited()? {
            let log = session.broker.log_tail();
            return Err(format!("it ended with {status}:\n{log}").into());
        }
        give_up_after(begun)?;
        sleep(Duration::from_millis(1));
    }
    session.note(Metric::less("ready", "ms"), None, ms(begun));
    holding(session)?;
    write_to_all(session, shape, begun)?;
    session.note(Metric::less("all written to", "ms"), None, ms(begun));
    Ok(())
}

/// One record to each partition, one after the other; those that are not there yet are tried again.
fn write_to_all(session: &Session, shape: Shape, begun: Instant) -> Result<()> {
    let batch = batch::build(Producer::NONE, now_ms(), &[b"one record".to_vec()]);
    let mut connection = Connection::open(session.broker.spec.port)?;
    for n in 0..shape.topics {
        let topic = topic(n);
        for partition in 0..shape.partitions_each {
            while connection.produce(&topic, partition, 1, &batch)?.error != 0 {
                give_up_after(begun)?;
                sleep(Duration::from_millis(5));
            }
        }
    }
    Ok(())
}

fn give_up_after(begun: Instant) -> Result<()> {
    if begun.elapsed() > PATIENCE {
        return Err(format!("not done after {} s", PATIENCE.as_secs()).into());
    }
    Ok(())
}
