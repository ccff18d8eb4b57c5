//! Many connections, and readers of what the page cache has lost beside a producer.

use super::cases::{Bulk, LARGE, paced_flags};
use super::results::Metric;
use super::session::{Running, Session};
use crate::Result;
use std::fs::{self, File};
use std::thread::sleep;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 1000;

/// Connections that say hello and then nothing but a metadata request every ten seconds.
pub fn connections(session: &mut Session) -> Result<()> {
    session.case("Many connections", "1,000 mostly idle ones", |session| {
        // What the load before left is given back first.
        sleep(Duration::from_secs(1));
        let before = session.broker.memory_mib()?.0;
        let seconds = session.settings.seconds;
        let flags = [
            ("connections", CONNECTIONS.to_string()),
            ("seconds", (seconds + 1.0).to_string()),
        ];
        let mut load = Running::start(session.load("idle", "none", &flags))?;
        if load.line()? != "ready" {
            return Err("the connections did not come up".into());
        }
        let cpu = session.broker.cpu()?;
        let begun = Instant::now();
        sleep(Duration::from_secs_f64(seconds));
        let cpu = session.broker.cpu()?.since(cpu) / begun.elapsed().as_secs_f64();
        let memory = session.broker.memory_mib()?.0;
        load.figures()?;
        session.note(Metric::less("CPU", "ms/s"), None, cpu * 1e3);
        session.note(Metric::less("memory", "MiB"), None, memory);
        let each = (memory - before).max(0.0) * 1024.0 / CONNECTIONS as f64;
        session.note(Metric::less("memory more, each", "KiB"), None, each);
        Ok(())
    })
}

/// A producer of single records alone, beside a reader of a log in the page cache, and beside a
/// reader of the same log after the page cache has lost it. Both readers keep the same pace, so
/// that what differs is where the bytes come from.
pub fn catch_up(session: &mut Session) -> Result<()> {
    let table = "Producer at 5,000/s beside a reader of the whole log";
    let bulk = Bulk::plain(LARGE);
    let records = (session.settings.mib << 21) / bulk.size;
    let mut cold = None;
    session.case(table, "log to be read", |s| {
        let topic = s.topic(bulk.partitions, &[])?;
        s.told(bulk.produce(s, &topic, records))?;
        sync_files(s, &topic)?;
        cold = Some(topic);
        Ok(())
    })?;
    let Some(cold) = cold else {
        return Ok(());
    };
    session.case(table, "no reader", |s| beside(s, None))?;
    session.case(table, "reader of cached bytes", |s| {
        beside(s, Some((&cold, records)))
    })?;
    session.case(table, "reader of bytes on disk", |s| {
        evict_files(s, &cold)?;
        let before = s.broker.disk_read_bytes()?;
        beside(s, Some((&cold, records)))?;
        let read = s.broker.disk_read_bytes()? - before;
        s.note(Metric::more("read from disk", "MB"), None, read / 1e6);
        Ok(())
    })?;
    session.drop_topic(&cold)
}

fn beside(session: &mut Session, reader: Option<(&str, usize)>) -> Result<()> {
    let seconds = session.settings.seconds;
    let topic = session.topic(4, &[])?;
    let reading = match reader {
        None => None,
        Some((cold, records)) => {
            // The log lasts a little longer than the producer.
            let pace = records as f64 * 1e-3 / (seconds + 1.0);
            let flags = [
                ("records", records.to_string()),
                ("mb-per-s", pace.to_string()),
            ];
            Some(Running::start(session.load("consume", cold, &flags))?)
        }
    };
    let told = session.told(session.load("paced", &topic, &paced_flags(5000.0, seconds, false)))?;
    if let Some(reading) = reading {
        let figures = reading.figures()?;
        let figure = |name: &str| figures.get(name).and_then(serde_json::Value::as_f64);
        let (bytes, seconds) = (
            figure("bytes").unwrap_or(0.0),
            figure("seconds").unwrap_or(1.0),
        );
        session.note(Metric::more("reader", "MB/s"), None, bytes / seconds / 1e6);
    }
    session.note(Metric::less("produce p50", "ms"), None, told.get("p50_ms")?);
    session.note(Metric::less("produce p99", "ms"), None, told.get("p99_ms")?);
    session.note(
        Metric::less("produce p99.9", "ms"),
        None,
        told.get("p999_ms")?,
    );
    session.drop_topic(&topic)
}

/// The files of a topic's partitions. Both brokers keep them in the same places.
fn files(session: &Session, topic: &str) -> Result<Vec<File>> {
    let mut found = Vec::new();
    for dir in fs::read_dir(session.broker.spec.data())? {
        let dir = dir?;
        let name = dir.file_name().to_string_lossy().into_owned();
        if name
            .strip_prefix(topic)
            .is_none_or(|rest| !rest.starts_with('-'))
        {
            continue;
        }
        for file in fs::read_dir(dir.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|e| e == "log") {
                found.push(File::open(path)?);
            }
        }
    }
    if found.is_empty() {
        return Err(format!(
            "no files of {topic} in {}",
            session.broker.spec.data().display()
        )
        .into());
    }
    Ok(found)
}

/// Waits until everything of a topic is on disk.
fn sync_files(session: &Session, topic: &str) -> Result<()> {
    for file in files(session, topic)? {
        file.sync_all()?;
    }
    Ok(())
}

/// Makes the page cache forget a topic's files, which are clean since [`sync_files`].
fn evict_files(session: &Session, topic: &str) -> Result<()> {
    for file in files(session, topic)? {
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}
