//! The first minutes of a user: the plain Python program, and the ways to give settings.

use crate::broker::{Against, Broker, Spec};
use crate::report::{Outcome, Report};
use crate::wire::{Connection, Reader, Writer};
use crate::{Result, cache, runtimes};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The port of every first example.
const PORT: u16 = 9092;
const CONTROLLER_PORT: u16 = 9093;

/// `interop/python/hello.py`, unchanged, on a new broker and again after the broker's restart.
pub fn hello(against: Against, folder: &Path, report: &mut Report) {
    let name = "hello.python";
    let python = match runtimes::python() {
        Ok(python) => python,
        Err(e) => return report.missing(name, &e.to_string()),
    };
    if let Err(e) = wait_for_ports(&[PORT, CONTROLLER_PORT]) {
        return report.tell(name, Outcome::Fail(e.to_string()), None);
    }
    report.test(name, || {
        let mut spec = Spec::new(folder.join("hello"))?;
        spec.port = PORT;
        let listeners = format!(
            "PLAINTEXT://localhost:{PORT},CONTROLLER://127.0.0.1:{}",
            spec.controller_port
        );
        spec = spec.with("listeners", listeners);
        spec = spec.with(
            "advertised.listeners",
            format!("PLAINTEXT://localhost:{PORT}"),
        );
        let mut broker = Broker::start(against, spec)?;
        for round in ["on a new broker", "after the broker's restart"] {
            let lines = hello_lines(&python).map_err(|e| format!("{round}: {e}"))?;
            if lines != ["Hello Kafka!"] {
                return Err(format!("{round}: printed {lines:?} instead of one greeting").into());
            }
            broker.stop()?;
            broker.start_again()?;
        }
        broker.stop().map(drop)
    });
}

/// Waits until nobody listens on these ports.
pub fn wait_for_ports(ports: &[u16]) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(90);
    while ports
        .iter()
        .any(|p| TcpListener::bind(("127.0.0.1", *p)).is_err())
    {
        if Instant::now() > end {
            return Err(format!("one of the ports {ports:?} is taken").into());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// What `interop/python/hello.py` prints until it has been silent for a while after its first line: long enough
/// for the commit that the client does every five seconds. It does not leave its group, so the next
/// run may have to wait until the group gives its member up.
pub fn hello_lines(python: &Path) -> Result<Vec<String>> {
    let mut child = Command::new(python)
        .arg("-u")
        .arg(cache::root().join("interop/python/hello.py"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let (lines, incoming) = mpsc::channel();
    let stdout = child.stdout.take().ok_or("no standard output")?;
    std::thread::spawn(move || {
        for line in BufReader::new(stdout)
            .lines()
            .map_while(std::result::Result::ok)
        {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let mut found = Vec::new();
    let mut wait = Duration::from_secs(90);
    while let Ok(line) = incoming.recv_timeout(wait) {
        found.push(line);
        wait = Duration::from_secs(7);
    }
    crate::broker::signal(child.id(), "INT");
    let end = Instant::now() + Duration::from_secs(20);
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            child.kill()?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(found)
}

/// The ways to give settings: none at all, the compose file people have, a properties file, and
/// which of them wins.
pub fn settings(against: Against, folder: &Path, report: &mut Report) {
    if against == Against::Kafka {
        let why = "Kafka takes its settings from a file alone".to_string();
        return report.tell("compose", Outcome::Skip(why), None);
    }
    if let Err(e) = wait_for_ports(&[PORT, CONTROLLER_PORT]) {
        return report.tell("compose", Outcome::Fail(e.to_string()), None);
    }
    report.test("compose.no-settings", || {
        no_settings(&folder.join("no-settings"))
    });
    for prefix in ["KAFKA_CFG_", "KAFKA_"] {
        let name = format!("compose.{}", prefix.trim_end_matches('_').to_lowercase());
        let place = folder.join(&name);
        report.test(&name, || compose(&place, prefix));
    }
    report.test("compose.precedence", || {
        precedence(&folder.join("precedence"))
    });
    report.test("compose.refuses-invalid", || {
        refuses(&folder.join("invalid"))
    });
}

fn bare(folder: &Path, arguments: &[&str], vars: &[(String, String)]) -> Result<Broker> {
    let mut spec = Spec::new(folder.to_path_buf())?;
    spec.port = PORT;
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    Broker::klamm_bare(spec, &arguments, vars)
}

fn no_settings(folder: &Path) -> Result<()> {
    let mut broker = bare(folder, &[], &[])?;
    broker.start_again()?;
    if partitions_of(PORT, "anything")? != 1 {
        return Err("an auto-created topic has not one partition".into());
    }
    if !folder.join("data/meta.properties").exists() {
        return Err("no data under ./data".into());
    }
    let words = broker.log_tail();
    for wanted in ["localhost:9092", "data"] {
        if !words.contains(wanted) {
            return Err(format!("no '{wanted}' in what it says at start:\n{words}").into());
        }
    }
    broker.stop().map(drop)
}

fn compose(folder: &Path, prefix: &str) -> Result<()> {
    let vars = [
        ("NODE_ID", "0"),
        ("PROCESS_ROLES", "controller,broker"),
        ("CONTROLLER_QUORUM_VOTERS", "0@kafka:9093"),
        ("LISTENERS", "PLAINTEXT://:9092,CONTROLLER://:9093"),
        ("ADVERTISED_LISTENERS", "PLAINTEXT://localhost:9092"),
        ("CONTROLLER_LISTENER_NAMES", "CONTROLLER"),
    ]
    .map(|(name, value)| (format!("{prefix}{name}"), value.to_string()));
    let mut broker = bare(folder, &[], &vars)?;
    for _ in 0..2 {
        broker.start_again()?;
        if partitions_of(PORT, "composed")? != 1 {
            return Err("an auto-created topic has not one partition".into());
        }
        broker.stop()?;
    }
    Ok(())
}

/// File, then environment, then command line: the later wins.
fn precedence(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let file = folder.join("server.properties");
    fs::write(
        &file,
        "# as Kafka ships it\nnum.partitions = 2\nnum.network.threads=3\n\
         log.dirs=./from\\\n  -the-file\n",
    )?;
    let vars = [("KAFKA_CFG_NUM_PARTITIONS".to_string(), "3".to_string())];
    let file = file.display().to_string();
    for (arguments, vars, expected) in [
        (vec![file.as_str()], &[][..], 2),
        (vec![file.as_str()], &vars[..], 3),
        (
            vec![file.as_str(), "--override", "num.partitions=4"],
            &vars[..],
            4,
        ),
    ] {
        let mut broker = bare(folder, &arguments, vars)?;
        broker.start_again()?;
        let found = partitions_of(PORT, &format!("made-{expected}"))?;
        broker.stop()?;
        if found != expected {
            return Err(format!("{found} partitions instead of {expected}").into());
        }
    }
    if !folder.join("from-the-file/meta.properties").exists() {
        return Err("log.dirs of the file was not used".into());
    }
    Ok(())
}

fn refuses(folder: &Path) -> Result<()> {
    for (setting, wanted) in [
        ("num.partitions=0", "num.partitions"),
        ("num.partitions=many", "num.partitions"),
        ("listeners=nonsense", "listener"),
    ] {
        let mut broker = bare(folder, &["--override", setting], &[])?;
        if broker.start_again().is_ok() {
            return Err(format!("started with {setting}").into());
        }
        let words = broker.log_tail();
        if !words.contains(wanted) {
            return Err(format!("{setting}: no '{wanted}' in:\n{words}").into());
        }
    }
    Ok(())
}

/// How many partitions a topic has that is created by asking for it.
pub fn partitions_of(port: u16, topic: &str) -> Result<i32> {
    let end = Instant::now() + Duration::from_secs(10);
    let mut connection = Connection::open(port)?;
    while Instant::now() < end {
        let mut body = Writer::default();
        body.i32(1).string(topic);
        let answer = connection.call(3, 1, &body)?;
        let mut r = Reader(&answer);
        for _ in 0..r.i32()? {
            r.i32()?;
            r.string()?;
            r.i32()?;
            r.string()?;
        }
        r.i32()?;
        r.i32()?;
        let code = r.i16()?;
        r.string()?;
        r.i8()?;
        let count = r.i32()?;
        if code == 0 && count > 0 {
            return Ok(count);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("{topic} was not created").into())
}
