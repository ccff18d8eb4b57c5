//! Input that no good client sends: each case gets what a real Kafka answers, and the broker goes
//! on serving everyone else.
//!
//! Kafka's answers are in `interop/golden/bad-input.txt`, one line a case; they are recorded with
//! `cargo xtask interop --against kafka --only bad-input --record true`.

mod disk;
mod frames;
mod requests;

use crate::broker::{Against, Broker, Spec};
use crate::report::{Outcome, Report};
use crate::wire::{Connection, Reader, Writer};
use crate::{Result, batch, cache};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

/// The topic the cases write to; its healthy neighbour is `bystander`.
const TOPIC: &str = "bad-input";
const BYSTANDER: &str = "bystander";

/// A case: sends its bad input and says in a few words what came back.
type Case = (&'static str, fn(&Context) -> Result<String>);

/// What a case may need.
struct Context {
    port: u16,
}

impl Context {
    fn connect(&self) -> Result<Connection> {
        Ok(Connection::open(self.port)?)
    }
}

pub fn run(
    against: Against,
    only: Option<String>,
    folder: &Path,
    report: &mut Report,
) -> Result<()> {
    let wanted = |name: &str| {
        only.as_deref()
            .is_none_or(|o| format!("bad-input.{name}").contains(o))
    };
    let record = std::env::args().any(|a| a == "--record");
    let golden = cache::root().join("interop/golden/bad-input.txt");
    let mut expected = BTreeMap::new();
    for line in std::fs::read_to_string(&golden).unwrap_or_default().lines() {
        if let Some((name, answer)) = line.split_once(": ") {
            expected.insert(name.to_string(), answer.to_string());
        }
    }
    let mut broker = match Broker::start(against, Spec::new(folder.join("bad-input"))?) {
        Ok(broker) => broker,
        Err(e) => {
            report.tell("bad-input.start", Outcome::Fail(e.to_string()), None);
            return Ok(());
        }
    };
    let context = Context {
        port: broker.spec.port,
    };
    let mut bystander = context.connect()?;
    for topic in [TOPIC, BYSTANDER] {
        let code = bystander.create_topic(topic, 1, &[])?;
        if code != 0 {
            report.tell(
                "bad-input.create",
                Outcome::Fail(format!("{topic}: {code}")),
                None,
            );
            return Ok(());
        }
    }
    if let Err(e) = settle(&mut bystander) {
        report.tell("bad-input.settle", Outcome::Fail(e.to_string()), None);
        return Ok(());
    }
    let mut served = 0;
    let mut found = BTreeMap::new();
    for (name, case) in frames::CASES.iter().chain(requests::CASES) {
        if !wanted(name) {
            continue;
        }
        report.test(&format!("bad-input.{name}"), || {
            let answer = case(&context)?;
            found.insert((*name).to_string(), answer.clone());
            serve(&mut bystander, &mut served)
                .map_err(|e| format!("answered '{answer}', but no longer serves others: {e}"))?;
            if let Some(status) = broker.exited()? {
                return Err(format!("the broker ended: {status}\n{}", broker.log_tail()).into());
            }
            match expected.get(*name) {
                _ if record => Ok(()),
                Some(e) if *e == answer => Ok(()),
                // Where Kafka has no better answer than "unknown server error", one may be given.
                Some(e) if e == "error -1" && OWN_REFUSALS.contains(&answer.as_str()) => Ok(()),
                Some(e) => Err(format!("'{answer}'; Kafka: '{e}'").into()),
                None => Err(format!("nothing recorded; answered '{answer}'").into()),
            }
        });
    }
    if record && against == Against::Kafka {
        expected.extend(found);
        let lines: Vec<String> = expected
            .iter()
            .map(|(k, v)| format!("{k}: {v}\n"))
            .collect();
        std::fs::write(&golden, lines.concat())?;
    }
    if against == Against::Kafka {
        let why = "Kafka sets memory aside for what is announced".to_string();
        report.tell("bad-input.memory-bounded", Outcome::Skip(why), None);
    } else if wanted("memory-bounded") {
        report.test("bad-input.memory-bounded", || {
            frames::memory_bounded(&context, &broker)
        });
    }
    report.test("bad-input.ends-cleanly", || broker.stop().map(drop));
    disk::run(against, folder, report, &wanted)
}

/// A corrupt message, an invalid record, an unsupported compression.
const OWN_REFUSALS: [&str; 3] = ["error 2", "error 87", "error 76"];

/// Waits until the topics have leaders and groups a coordinator: both take a moment.
fn settle(connection: &mut Connection) -> Result<()> {
    let ready = |code: i16, name: &str| match code {
        0 | 25 => Ok(true),
        // Unknown topic, not leader, coordinator loading, not available, not here yet.
        3 | 5 | 6 | 14 | 15 | 16 => Ok(false),
        _ => Err(format!("{name}: error {code}")),
    };
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        let mut all = true;
        for topic in [TOPIC, BYSTANDER] {
            let (code, ..) = connection.fetch(topic, 0, 0, 1024)?;
            all &= ready(code, topic)?;
        }
        let mut body = Writer::default();
        body.string("no-group").i8(0);
        let answer = connection.call(10, 1, &body)?;
        all &= ready(Reader(&answer[4..]).i16()?, "FindCoordinator")?;
        let mut body = Writer::default();
        body.string("no-group").i32(3).string("nobody");
        let answer = connection.call(12, 1, &body)?;
        all &= ready(Reader(&answer[4..]).i16()?, "Heartbeat")?;
        if all && connection.init_producer_id().is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err("topics and coordinator are not ready after 20 s".into())
}

/// One record in and out on a connection that has nothing to do with the bad input.
fn serve(connection: &mut Connection, served: &mut i64) -> Result<()> {
    let value = served.to_string().into_bytes();
    let batch = batch::build(
        batch::Producer::NONE,
        1_700_000_000_000,
        std::slice::from_ref(&value),
    );
    let answer = connection.produce(BYSTANDER, 0, -1, &batch)?;
    if answer.error != 0 || answer.base_offset != *served {
        return Err(format!("{answer:?} instead of offset {served}").into());
    }
    let (error, _, bytes) = connection.fetch(BYSTANDER, 0, *served, 1 << 20)?;
    let read = batch::read_all(&bytes)?;
    if error != 0 || read != [(*served, value)] {
        return Err(format!("fetch: error {error}, {read:?}").into());
    }
    *served += 1;
    Ok(())
}

/// Waits for what the other side does next: a frame, the end, or nothing for a while.
fn outcome(connection: &mut Connection) -> String {
    if connection
        .stream
        .set_read_timeout(Some(Duration::from_secs(3)))
        .is_err()
    {
        return "closed".into();
    }
    let mut byte = [0; 4];
    match connection.stream.read_exact(&mut byte) {
        Ok(()) => format!("answered {} bytes", i32::from_be_bytes(byte)),
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            ) =>
        {
            "no answer".into()
        }
        Err(_) => "closed".into(),
    }
}
