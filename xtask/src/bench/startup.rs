//! How long until the first record is acknowledged, fresh, after a kill and after an end in order,
//! and what an idle broker holds.

use super::cases::{Bulk, HIGHEST_MEMORY, LARGE};
use super::results::{Goal, Metric};
use super::session::Session;
use crate::Result;
use crate::batch::{self, Producer};
use crate::broker::Broker;
use crate::wire::{Connection, now_ms};
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

const TABLE: &str = "Start, end, memory";
const FIRST_MS: Metric = Metric::less("first acknowledged record", "ms");

/// Starts a broker that was prepared, on an empty folder, and looks at it while it is idle.
pub fn fresh(session: &mut Session) -> Result<()> {
    session.case(TABLE, "start on a fresh folder", |session| {
        let ms = first_record_ms(&mut session.broker, "first", 1, true)?;
        session.note(FIRST_MS, Some(Goal::OfKafka(0.02)), ms);
        Ok(())
    })?;
    session.case(TABLE, "idle", |session| {
        sleep(Duration::from_secs(2));
        let (cpu, begun) = (session.broker.cpu()?, Instant::now());
        sleep(Duration::from_secs(2));
        let cpu = session.broker.cpu()?.since(cpu) / begun.elapsed().as_secs_f64();
        let memory = session.broker.memory_mib()?.0;
        session.note(
            Metric::less("memory", "MiB"),
            Some(Goal::AtMost(15.0)),
            memory,
        );
        session.note(Metric::less("CPU", "ms/s"), None, cpu * 1e3);
        Ok(())
    })
}

/// The highest resident memory of all loads. Most of it is the largest request that was in
/// flight: a client with 100 partitions may put 100 batches of 1 MB into one.
pub fn peak(session: &mut Session) -> Result<()> {
    session.case(TABLE, "all loads", |session| {
        let memory = session.highest_memory_of_all()?;
        session.note(HIGHEST_MEMORY, None, memory);
        Ok(())
    })
}

/// Kills the broker right after a load, and ends and starts it again in order.
pub fn recovery(session: &mut Session) -> Result<()> {
    session.case(TABLE, "after kill -9 within a load", |session| {
        let bulk = Bulk::plain(LARGE);
        let topic = session.topic(bulk.partitions, &[])?;
        let bytes = session.settings.mib << 21;
        session.told(bulk.produce(session, &topic, bytes / bulk.size))?;
        session.broker.kill()?;
        let ms = first_record_ms(&mut session.broker, &topic, bulk.partitions, false)?;
        session.note(
            Metric::less("log just written", "MiB"),
            None,
            (bytes >> 20) as f64,
        );
        session.note(
            Metric::less("all partitions written to again", "ms"),
            None,
            ms,
        );
        session.drop_topic(&topic)
    })?;
    session.case(TABLE, "SIGTERM to end", |session| {
        let ms = session.broker.stop()?.as_secs_f64() * 1e3;
        session.note(Metric::less("time", "ms"), None, ms);
        Ok(())
    })?;
    session.case(TABLE, "start on a used folder", |session| {
        let ms = first_record_ms(&mut session.broker, "again", 1, true)?;
        session.note(FIRST_MS, None, ms);
        Ok(())
    })
}

/// From the start of the process until every partition of a topic has acknowledged a record.
fn first_record_ms(broker: &mut Broker, topic: &str, partitions: i32, create: bool) -> Result<f64> {
    let value = b"the first record".to_vec();
    let batch = batch::build(Producer::NONE, now_ms(), &[value]);
    let begun = Instant::now();
    broker.spawn()?;
    let (mut made, mut done) = (!create, 0);
    loop {
        if let Ok(mut connection) = Connection::open(broker.spec.port) {
            made = made || matches!(connection.create_topic(topic, partitions, &[]), Ok(0 | 36));
            while made
                && matches!(connection.produce(topic, done, -1, &batch), Ok(p) if p.error == 0)
            {
                done += 1;
                if done == partitions {
                    return Ok(begun.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
        if let Some(status) = broker.exited()? {
            return Err(format!("it ended with {status}:\n{}", broker.log_tail()).into());
        }
        if begun.elapsed() > Duration::from_secs(90) {
            return Err(format!("no record acknowledged in 90 s:\n{}", broker.log_tail()).into());
        }
        sleep(Duration::from_micros(500));
    }
}

pub fn folder_bytes(folder: &Path) -> Result<f64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum as f64)
}
