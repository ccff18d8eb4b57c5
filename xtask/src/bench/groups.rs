//! The coordinators of groups and transactions: how soon a hundred members share a topic, offset
//! commits and small transactions a second, how long a million offsets take to load. Minutes, so it
//! runs only if it is asked for.

use super::results::Metric;
use super::session::Session;
use crate::Result;
use std::time::Instant;

pub const CASE: &str = "groups";
const TABLE: &str = "Coordinators";
/// Partitions of the topic that offsets are committed for, a hundred a request.
const OFFSET_PARTITIONS: i32 = 100;

const FORM: Metric = Metric::less("all have joined", "ms");
const REBALANCE: Metric = Metric::less("one more has joined", "ms");
const RATE: Metric = Metric::more("rate", "1/s");
const P50: Metric = Metric::less("p50", "ms");
const P99: Metric = Metric::less("p99", "ms");
const CPU: Metric = Metric::less("broker CPU", "µs each");

/// What a run of this length is about.
struct Extent {
    members: i32,
    seconds: f64,
    offsets: usize,
}

pub fn coordinators(session: &mut Session) -> Result<()> {
    let seconds = session.settings.seconds;
    let is_short = session.settings.mib < 256;
    let extent = Extent {
        members: if is_short { 10 } else { 100 },
        seconds,
        offsets: if is_short { 10_000 } else { 1_000_000 },
    };
    for protocol in ["classic", "consumer"] {
        let name = format!("a group of {}, {protocol} protocol", extent.members);
        session.case(TABLE, &name, |s| rebalance(s, protocol, extent.members))?;
    }
    for (clients, name) in [
        (1, "offset commits, 1 client"),
        (16, "offset commits, 16 clients"),
    ] {
        session.case(TABLE, name, |s| rate(s, "commits", clients, extent.seconds))?;
    }
    for (clients, name) in [
        (1, "transactions of one record, 1 producer"),
        (16, "transactions of one record, 16 producers"),
    ] {
        session.case(TABLE, name, |s| {
            rate(s, "transactions", clients, extent.seconds)
        })?;
    }
    let name = format!("{} offsets", extent.offsets);
    session.case(TABLE, &name, |s| load(s, extent.offsets))
}

fn rebalance(session: &mut Session, protocol: &str, members: i32) -> Result<()> {
    let partitions = 2 * members;
    let topic = session.topic(partitions, &[])?;
    let flags = [
        ("protocol", protocol.to_string()),
        ("clients", members.to_string()),
        ("partitions", partitions.to_string()),
    ];
    // A first group gets both sides into their stride.
    session.told(session.load("rebalance", &topic, &flags))?;
    let told = session.told(session.load("rebalance", &topic, &flags))?;
    session.note(FORM, None, told.get("form_ms")?);
    session.note(REBALANCE, None, told.get("rebalance_ms")?);
    session.drop_topic(&topic)
}

fn rate(session: &mut Session, verb: &str, clients: usize, seconds: f64) -> Result<()> {
    let topic = session.topic(1, &[])?;
    let flags = |seconds: f64| {
        [
            ("clients", clients.to_string()),
            ("seconds", seconds.to_string()),
        ]
    };
    session.told(session.load(verb, &topic, &flags(seconds / 2.0)))?;
    let told = session.told(session.load(verb, &topic, &flags(seconds)))?;
    let count = told.get("count")?;
    session.note(RATE, None, count / told.get("seconds")?);
    session.note(P50, None, told.get("p50_ms")?);
    session.note(P99, None, told.get("p99_ms")?);
    session.note(CPU, None, told.cpu / count * 1e6);
    session.drop_topic(&topic)
}

/// Commits offsets, kills the broker and waits until it tells all of them again.
fn load(session: &mut Session, offsets: usize) -> Result<()> {
    let topic = session.topic(OFFSET_PARTITIONS, &[])?;
    let flags = [
        ("records", offsets.to_string()),
        ("clients", "8".to_string()),
    ];
    let filled = session.told(session.load("fill-offsets", &topic, &flags))?;
    let rate = Metric::more("committed", "1/s");
    session.note(rate, None, offsets as f64 / filled.get("seconds")?);
    session.broker.kill()?;
    let begun = Instant::now();
    session.broker.start_again()?;
    let ready = begun.elapsed();
    session.told(session.load("offsets-ready", &topic, &flags))?;
    let told = begun.elapsed();
    let loaded = Metric::less("told again after a kill", "ms");
    session.note(loaded, None, told.as_secs_f64() * 1e3);
    let beyond = Metric::less("of that, after the broker answers", "ms");
    session.note(beyond, None, (told - ready).as_secs_f64() * 1e3);
    let memory = session.broker.memory_mib()?.0;
    session.note(Metric::less("memory", "MiB"), None, memory);
    Ok(())
}
